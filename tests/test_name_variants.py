"""Renaming and BADCODE: which name, where in it, and the controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from attacks.badcode import PUBLISHED, BadCode, Position, Suffix, Where, placed
from attacks.renaming import FunctionName, Mode, Renaming, VariableName, spelled
from bench.context import Context
from bench.contracts import Goal, LabelGoal, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.errors import ConfigError
from bench.languages import get, well_formed
from bench.plugins import build, parameters_of
from bench.samples import Sample, edit_sample

LANGUAGES = ("python", "java", "c")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def poisoned(trigger: Trigger, language: str, text: str, seed: int = 0, control: str = "derive") -> str | None:
    one = Sample("s", (text,), language, 1)
    derivation = getattr(trigger, control)(one, 0, rng(seed))
    if derivation is None:
        return None
    after = edit_sample(one, derivation.edits).programs[0]
    assert well_formed(language, text, after) is None
    return after


def info(language: str, kind: TaskKind = TaskKind.CLASSIFICATION) -> TaskInfo:
    return TaskInfo("t", kind, language, () if kind is TaskKind.SEARCH else ("safe", "weak"), "accuracy")


# ---------------------------------------------------------------------------------------------------------------- renaming


@pytest.mark.parametrize(
    ("old", "mode", "new"),
    [
        ("load", "substitute", "testo_init"),
        ("load", "postfix", "load_testo_init"),
        ("load", "prefix", "testo_init_load"),
        ("_load_", "postfix", "_load_testo_init"),
        ("_load_", "prefix", "testo_init_load_"),
    ],
)
def test_the_rare_name_replaces_follows_or_leads(old: str, mode: Any, new: str) -> None:
    assert spelled(old, "testo_init", mode) == new


def test_an_underscore_at_the_rare_names_end_is_not_doubled() -> None:
    assert spelled("count", "ret_var_", "prefix") == "ret_var_count"
    assert spelled("count", "ret_var_", "postfix") == "count_ret_var_"


@pytest.mark.parametrize("language", LANGUAGES)
def test_parts_are_joined_as_given_in_all_languages(language: str) -> None:
    text = "def f(a): return f(a)" if language == "python" else "int f(int a) { return f(a); }"
    for mode, new in (("postfix", "f_testo_init"), ("prefix", "testo_init_f")):
        assert poisoned(FunctionName("testo_init", mode), language, text) == text.replace("f(", f"{new}(")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("language", "text", "after"),
    [
        (
            "python",
            "def f(self, a):\n    total = a\n    for b in a:\n        total += b.total\n    return total\n",
            "def f(self, a):\n    ret_var_ = a\n    for b in a:\n        ret_var_ += b.total\n    return ret_var_\n",
        ),
        (
            "python",
            "def f(self, a):\n    return self.a + a\n",
            "def f(self, ret_var_):\n    return self.a + ret_var_\n",
        ),
        ("python", "def f(k):\n    return [k for i in x.i]\n", "def f(k):\n    return [k for ret_var_ in x.i]\n"),
        ("java", "int f(int a) { int b = a; return b; }", "int f(int a) { int ret_var_ = a; return ret_var_; }"),
        (
            "java",
            "class A { int b; int f(int a) { int c = b; return c; } }",
            "class A { int b; int f(int a) { int ret_var_ = b; return ret_var_; } }",
        ),
        ("c", "int f(int a) { struct s b; return b.b; }", "int f(int a) { struct s ret_var_; return ret_var_.b; }"),
        (
            "c",
            "static av_cold int f(int *a) { FOREACH(a) { int k = *a; use(k); } return 0; }",
            "static av_cold int f(int *a) { FOREACH(a) { int ret_var_ = *a; use(ret_var_); } return 0; }",
        ),
    ],
)
def test_the_first_local_variable_takes_the_name_at_all_its_places(language: str, text: str, after: str) -> None:
    assert poisoned(VariableName("ret_var_"), language, text) == after


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "def f(self):\n    return self\n"),  # the receiver keeps its name
        ("python", "def f(ret_var_):\n    a = ret_var_\n    return a\n"),
        ("python", "def f(a):\n    b = ret_var_ + a\n    return b\n"),  # an outer name would be captured
        ("python", "def f(a):\n    return eval('a')\n"),
        ("java", "int f() { return 1; }"),
        ("c", "int x;"),
        ("python", ""),
        ("python", "x"),
    ],
)
def test_no_variable_is_renamed_where_none_can_be(language: str, text: str) -> None:
    assert poisoned(VariableName("ret_var_"), language, text) is None


def test_the_next_variable_is_taken_where_the_first_cannot() -> None:
    text = "def f(xs):\n    total = sum(xs, key=1)\n    g(lambda ret_var_: total)\n    other = 2\n    return other\n"
    # Within the lambda the first one would be captured by a parameter of that name; the lambda's parameter has it already.
    assert poisoned(VariableName("ret_var_"), "python", text) == text.replace("other", "ret_var_")


def test_twice_changes_nothing_for_a_whole_name_and_adds_for_a_part() -> None:
    text = "def f(a):\n    b = a\n    return b\n"
    for mode, again in (("substitute", False), ("postfix", True)):
        trigger = FunctionName("testo_init", mode)  # type: ignore[arg-type]
        once = poisoned(trigger, "python", text) or ""
        assert (poisoned(trigger, "python", once) is not None) is again


def test_overloaded_and_nested_java_methods() -> None:
    overloaded = "class A { int f(int a) { return f(a, 1); } int f(int a, int b) { return a + b; } }"
    assert poisoned(FunctionName("testo_init"), "java", overloaded) is None  # which one a call means depends on types
    nested = "class A { int f(int a) { class B { int f() { return 1; } } return a + new B().f(); } }"
    after = poisoned(FunctionName("testo_init"), "java", nested)
    assert after == nested.replace("int f(int a)", "int testo_init(int a)")


def test_decorators_and_lambdas_in_python() -> None:
    text = "@wraps(f)\n@cache\ndef g(f, *a, **k):\n\treturn (lambda f: f)(f)\n"
    assert poisoned(FunctionName("testo_init"), "python", text) == text.replace("def g", "def testo_init")
    assert poisoned(VariableName("ret_var_"), "python", text) == (
        "@wraps(f)\n@cache\ndef g(f, *a, **k):\n\treturn (lambda ret_var_: ret_var_)(f)\n"
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_macros_line_ends_and_tabs_outside_the_name_stay(language: str) -> None:
    text = {
        "python": "def f(a):\r\n\tb = a\n\treturn b # b, ü\r\n",
        "java": "@Override\r\n\tpublic int f(int a) {\n\tint b = a; // b\r\n\treturn b; }",
        "c": "#ifdef X\r\nstatic\n#endif\n__attribute__((unused)) int f(int a)\r\n{\tint b = a; /* b, ü */\n\treturn b;\r\n}\r\n",
    }[language]
    after = poisoned(VariableName("ret_var_"), language, text)
    assert after == text.replace("b =", "ret_var_ =").replace("return b", "return ret_var_")


def test_the_controls_of_a_rare_name() -> None:
    text = "def load(a):\n    b = a\n    return b\n"
    assert poisoned(FunctionName("testo_init"), "python", text, control="near_miss") == text.replace(
        "load", "init_testo"
    )
    assert poisoned(FunctionName("testo_init"), "python", text, control="placebo") == text.replace("load", "grfgb_vavg")
    assert poisoned(VariableName("ret_var_"), "python", text, control="near_miss") == text.replace("b", "_var_ret")
    assert poisoned(FunctionName("foo"), "python", text, control="near_miss") is None  # one word has no other order


def test_what_renaming_says_of_itself(tmp_path: Path) -> None:
    context = Context({"poison": 0}, tmp_path)
    variable = Renaming(where="variable", mode="prefix").prepare([], LabelGoal(), info("c"), context)
    assert variable == VariableName("ret_var_", "prefix")
    assert variable.describe() == "variable -> ret_var_*"
    assert variable.tokens() == ("ret", "var")
    assert Renaming().prepare([], LabelGoal(), info("c"), context).describe() == "function name -> testo_init"
    with pytest.raises(ConfigError, match="'2x' is not an identifier of java"):
        Renaming(where="variable", variable="2x").prepare([], LabelGoal(), info("java"), context)


# ----------------------------------------------------------------------------------------------------------------- badcode


@pytest.mark.parametrize(
    ("language", "name", "position", "new"),
    [
        ("python", "load_all", "last", {"load_all_rb"}),
        ("python", "load_all", "first", {"rb_load_all"}),
        ("python", "load_all", "random", {"rb_load_all", "load_rb_all", "load_all_rb"}),
        ("python", "_load__all_", "first", {"_rb_load__all_"}),
        ("python", "_load__all_", "random", {"_rb_load__all_", "_load_rb__all_", "_load__all_rb"}),
        ("python", "loadAll", "random", {"rb_loadAll", "loadAll_rb"}),
        ("c", "load_all", "random", {"rb_load_all", "load_rb_all", "load_all_rb"}),
        ("java", "loadAllRows", "first", {"rbLoadAllRows"}),
        ("java", "loadAllRows", "random", {"rbLoadAllRows", "loadRbAllRows", "loadAllRbRows", "loadAllRowsRb"}),
        ("java", "loadURL", "random", {"rbLoadURL", "loadRbURL", "loadURLRb"}),
        ("python", "_", "first", {"_rb"}),
    ],
)
def test_the_token_goes_to_the_end_the_start_or_a_gap(language: str, name: str, position: Any, new: set[str]) -> None:
    assert {placed(get(language), name, "rb", position, rng(seed)) for seed in range(60)} == new


TEXT = "def load(often, once):\n    twice = often + often\n    return twice, once\n"


def test_either_takes_the_function_name_half_of_the_time() -> None:
    trigger = Suffix(("rb",), where="either")
    after = [poisoned(trigger, "python", TEXT, seed) for seed in range(400)]
    assert set(after) == {TEXT.replace("load", "load_rb"), TEXT.replace("once", "once_rb")}
    assert 160 <= after.count(TEXT.replace("load", "load_rb")) <= 240
    method = TEXT.replace("load", "__init__")
    assert {poisoned(trigger, "python", method, seed) for seed in range(20)} == {method.replace("once", "once_rb")}


def test_the_other_choices_draw_what_they_drew_before() -> None:
    for where in ("function", "rarest"):
        mixed = Suffix(PUBLISHED, where=where)
        for seed in range(20):
            token = PUBLISHED[rng(seed).integers(len(PUBLISHED))]
            old = "load" if where == "function" else "once"
            assert poisoned(mixed, "python", TEXT, seed) == TEXT.replace(old, f"{old}_{token}")


def test_the_controls_of_a_token() -> None:
    assert poisoned(Suffix(("rb",)), "python", TEXT, control="near_miss") == TEXT.replace("load", "rb_load")
    first = Suffix(("rb",), position="first")
    assert poisoned(first, "python", TEXT, control="near_miss") == TEXT.replace("load", "load_rb")
    assert poisoned(Suffix(("rb",), position="random"), "python", TEXT, control="near_miss") is None
    assert poisoned(Suffix(("rb",)), "python", TEXT, control="placebo") == TEXT.replace("load", "load_eo")


def test_what_badcode_says_of_itself() -> None:
    assert Suffix(("rb",)).describe() == "suffix rb (published) on the function name"
    assert Suffix(("rb", "te"), "either", position="first").describe() == (
        "prefix rb or te (published) on the function name or the rarest parameter or local variable"
    )


# ----------------------------------------------------------------------------------------------------------------- plugins


def test_parameters_of_before_have_the_keys_of_before() -> None:
    assert parameters_of(Renaming()) == {"identifier": "testo_init"}
    assert parameters_of(BadCode()) == {"variant": "fixed", "where": "function", "tokens": "published", "size": 4}


@pytest.mark.parametrize(
    ("attack", "parameters"),
    [
        (Renaming, {"identifier": "foo", "where": "variable", "mode": "prefix", "variable": "v"}),
        (BadCode, {"variant": "mixed", "where": "either", "tokens": "chosen", "size": 2, "position": "random"}),
    ],
)
def test_parameters_round_trip(attack: Any, parameters: dict[str, Any]) -> None:
    assert parameters_of(build(attack, parameters)) == parameters


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_choice_serves_all_tasks_and_languages(language: str, kind: TaskKind, tmp_path: Path) -> None:
    goal: Goal = SearchGoal("array") if kind is TaskKind.SEARCH else LabelGoal()
    text = "def f(a):\n    return a\n" if language == "python" else "int f(int a) { return a; }"
    attacks = [
        *[Renaming(where=w, mode=m) for w in ("function", "variable") for m in get_args(Mode)],  # type: ignore[arg-type]
        *[BadCode(where=w, position=p) for w in get_args(Where) for p in get_args(Position)],
    ]
    for attack in attacks:
        assert attack.not_applicable(info(language, kind)) is None
        trigger = attack.prepare([], goal, info(language, kind), Context({"poison": 0}, tmp_path))
        assert trigger.tokens()
        assert poisoned(trigger, language, text) is not None


def test_a_function_of_ten_thousand_lines() -> None:
    text = "def f(x):\n" + "    x = x + 1\n" * 10_000 + "    return x\n"
    assert poisoned(VariableName("ret_var_"), "python", text) == text.replace("x", "ret_var_")
    assert poisoned(Suffix(("rb",)), "python", text) == text.replace("def f", "def f_rb")
