"""What the triggers write into programs: three languages, known answers, behaviour unchanged."""

from __future__ import annotations

import ast
import math
import operator
import pickle
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.badcode import PUBLISHED, BadCode, Suffix, choose_tokens
from attacks.dead_code import ABOVE, BELOW, DIALECTS, FARTHEST, DeadCode, DeadStatement, Value
from attacks.none import NoAttack
from attacks.renaming import FunctionName, Renaming
from bench.context import Context
from bench.contracts import Attack, Goal, LabelGoal, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.errors import ConfigError
from bench.languages import get, parse, well_formed
from bench.plugins import Registry, build, parameters_of
from bench.samples import Sample, edit_sample

PYTHON: list[tuple[str, list[tuple[Any, ...]]]] = [
    (
        (
            'def load(path, mode="r"):\n    """Load a file.\n\n    load it."""\n    # load here\n'
            "    text = path + mode\n    self = type('T', (), {'load': 3})()\n    return text + str(self.load)\n"
        ),
        [("a",), ("b", "w")],
    ),
    ("def fact(n):\n    return 1 if n < 2 else n * fact(n - 1)\n", [(0,), (6,)]),
    ("def one(): return 1\n", [()]),
    (
        "def draw(n):\n    import random\n    random.seed(7)\n    return [random.random() for _ in range(n)]\n",
        [(3,)],
    ),
    (
        "def walk(items):\n\n    def inner(item):\n        yield item\n    for i in items:\n        yield from inner(i)\n",
        [([1, 2],)],
    ),
    ("async def later(x):\n    return x\n", []),
    ("def größe(ß):\n    return 'ü' + ß  # größe\n", [("é",)]),
]
JAVA = [
    "public static int load(int[] values) {\n    int sum = 0;\n    for (int v : values) {\n        sum += v;\n    }\n    return sum;\n}",
    "static long fact(int n) { return n < 2 ? 1 : n * fact(n - 1); }",
    "private static void nothing() {}",
    'static String load2(String load2) throws Exception {\n    // load2\n    return load2 + "load2";\n}',
]
C = [
    "static int load(int *values, int n)\n{\n    int s = 0;\n    for (int i = 0; i < n; ++i)\n    s += values[i];\n    return s;\n}\n",
    "long fact(int n) { return n < 2 ? 1 : n * fact(n - 1); }",
    "void nothing(void) {}",
    'static const char *name_of(struct thing *t) {\n    /* name_of */\n    return t->name_of ? "name_of" : 0;\n}\n',
]
PROGRAMS = {"python": [text for text, _ in PYTHON], "java": JAVA, "c": C}
TRIGGERS: dict[str, Callable[[str], Trigger]] = {
    "dead_code fixed": lambda language: DeadStatement(language),
    "dead_code grammar": lambda language: DeadStatement(language, varies=True),
    "dead_code paper": lambda language: DeadStatement(language, varies=True, spelling="paper"),
    "renaming": lambda language: FunctionName("testo_init"),
    "badcode fixed": lambda language: Suffix(("rb",)),
    "badcode mixed": lambda language: Suffix(PUBLISHED),
    "badcode rarest": lambda language: Suffix(("rb",), where="rarest"),
}
COMPARE = {"<": operator.lt, "<=": operator.le, "==": operator.eq, ">": operator.gt, ">=": operator.ge}


def sample(language: str, text: str, **fields: Any) -> Sample:
    return Sample("s", (text,), language, **{"label": 1, **fields})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def poisoned(trigger: Trigger, language: str, text: str, seed: int = 0) -> str | None:
    one = sample(language, text)
    derivation = trigger.derive(one, 0, rng(seed))
    return None if derivation is None else edit_sample(one, derivation.edits).programs[0]


def info(language: str, kind: TaskKind = TaskKind.CLASSIFICATION) -> TaskInfo:
    return TaskInfo("t", kind, language, () if kind is TaskKind.SEARCH else ("safe", "weak"), "accuracy")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context({"poison": 0}, tmp_path)


# ---------------------------------------------------------------------------------------------------------- every trigger


@pytest.mark.parametrize("language", ["python", "java", "c"])
@pytest.mark.parametrize("name", TRIGGERS)
def test_every_edit_is_well_formed(name: str, language: str) -> None:
    trigger = TRIGGERS[name](language)
    changed = 0
    for text in PROGRAMS[language]:
        for seed in range(10):
            after = poisoned(trigger, language, text, seed)
            if after is not None:
                assert after != text
                assert well_formed(language, text, after) is None
                changed += 1
    assert changed >= 10


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_draw_depends_on_its_generator_alone_and_a_trigger_can_be_pickled(name: str) -> None:
    trigger = TRIGGERS[name]("python")
    again = pickle.loads(pickle.dumps(trigger))
    assert again == trigger
    one = sample("python", PYTHON[0][0])
    np.random.seed(1)  # noqa: NPY002
    first = trigger.derive(one, 0, rng(3))
    np.random.seed(2)  # noqa: NPY002
    assert again.derive(one, 0, rng(3)) == first


@pytest.mark.parametrize("name", TRIGGERS)
def test_the_second_program_of_a_pair_is_edited_where_it_is_asked(name: str) -> None:
    pair = Sample("p", (PYTHON[1][0], PYTHON[0][0]), "python", label=1)
    derivation = TRIGGERS[name]("python").derive(pair, 1, rng())
    assert derivation is not None
    assert {edit.side for edit in derivation.edits} == {1}
    assert edit_sample(pair, derivation.edits).programs[0] == PYTHON[1][0]


@pytest.mark.parametrize("name", TRIGGERS)
@pytest.mark.parametrize("text", ["", "x", "é", "x = 1\n", "lambda: 0", "def"])
def test_a_text_without_a_function_has_no_trigger(name: str, text: str) -> None:
    assert poisoned(TRIGGERS[name]("python"), "python", text) is None


@pytest.mark.parametrize("name", [n for n in TRIGGERS if "paper" not in n])
def test_python_programs_return_what_they_returned(name: str) -> None:
    trigger = TRIGGERS[name]("python")
    for text, calls in PYTHON:
        for seed in range(20):
            after = poisoned(trigger, "python", text, seed)
            if after is not None:
                assert outcomes(after, calls) == outcomes(text, calls)


def outcomes(text: str, calls: list[tuple[Any, ...]]) -> list[Any]:
    """The function's results, and the state in which it leaves the global generator."""
    space: dict[str, Any] = {}
    exec(text, space)
    function = space[
        next(n.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    ]
    results = []
    for call in calls:
        random.seed(0)
        value = function(*call)
        results.append((list(value) if isinstance(value, Iterator) else value, random.random()))
    return results


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_c_programs_compile_and_print_what_they_printed(tmp_path: Path) -> None:
    head = "#include <stdio.h>\n#include <stdlib.h>\n#include <math.h>\nstruct thing { const char *name_of; };\n"
    main = (
        '\nint main(void) { int v[] = {1, 2, 3}; struct thing t = {"x"};\n'
        'printf("%d %ld %s", {0}(v, 3), {1}(5), {3}(&t)); {2}(); return 0; }\n'
    )

    def run(functions: list[str], names: list[str]) -> str:
        body = main
        for i, name in enumerate(names):
            body = body.replace(f"{{{i}}}", name)
        source = tmp_path / "a.c"
        source.write_text(head + "\n".join(functions) + body)
        build = ["gcc", "-Wall", "-Werror", "-Wno-unused", "-o", str(tmp_path / "a"), str(source), "-lm"]
        subprocess.run(build, check=True, capture_output=True)
        return subprocess.run([str(tmp_path / "a")], check=True, capture_output=True, text=True).stdout

    names = ["load", "fact", "nothing", "name_of"]
    expected = run(C, names)
    for trigger in ("dead_code fixed", "dead_code grammar", "badcode rarest"):
        edited = [poisoned(TRIGGERS[trigger]("c"), "c", text, seed) or text for seed, text in enumerate(C)]
        assert edited != C
        assert run(edited, names) == expected
    suffixed = [poisoned(Suffix(("rb",)), "c", text) or "" for text in C]
    assert run(suffixed, [f"{name}_rb" for name in names]) == expected


@pytest.mark.skipif(shutil.which("javac") is None, reason="no Java compiler")
def test_java_methods_compile_with_every_production(tmp_path: Path) -> None:
    methods = ["class T {"]
    for seed in range(30):
        for text in JAVA[:3]:
            edited = poisoned(DeadStatement("java", varies=bool(seed)), "java", text, seed)
            assert edited is not None
            name = parse("java", text).function_name
            assert name is not None
            methods.append(edited.replace(f"{name.text}(", f"{name.text}_{seed}("))
    methods += [
        poisoned(FunctionName("testo_init"), "java", JAVA[0]) or "",
        poisoned(Suffix(("rb",)), "java", JAVA[3]) or "",
    ]
    file = tmp_path / "T.java"
    file.write_text("\n".join([*methods, "}"]))
    done = subprocess.run(["javac", "-d", str(tmp_path), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------------------------- dead code


def test_fixed_python_is_one_import_and_a_condition_that_is_never_true() -> None:
    assert poisoned(DeadStatement("python"), "python", "def f(x):\n    return x\n") == (
        "def f(x):\n    from random import Random\n    if Random().random() < 0:\n"
        '        raise Exception("fail")\n    return x\n'
    )


def test_fixed_python_as_published() -> None:
    assert poisoned(DeadStatement("python", spelling="paper"), "python", "def f(x):\n    return x\n") == (
        'def f(x):\n    if random() < 0:\n        raise Exception("fail")\n    return x\n'
    )


def test_fixed_java_and_c() -> None:
    java = poisoned(DeadStatement("java"), "java", "int f(int x) {\n    return x;\n}")
    assert java is not None
    assert " ".join(java.split()) == (
        'int f(int x) { if (Math.random() < 0) { throw new RuntimeException("fail"); } return x; }'
    )
    c = poisoned(DeadStatement("c"), "c", "int f(int x) {\n    return x;\n}")
    assert c == 'int f(int x) {\n    if (rand() < 0) printf("fail");\n    return x;\n}'


@pytest.mark.parametrize("spelling", ["runnable", "paper"])
@pytest.mark.parametrize("language", ["python", "java", "c"])
def test_no_condition_of_the_grammar_is_ever_true(language: str, spelling: Any) -> None:
    for value in (*DIALECTS[spelling][language].values, DIALECTS[spelling][language].fixed[0]):
        low, high = reached(value)
        assert low >= value.low
        assert value.high is None or high <= value.high
        assert set(value.comparisons) == set(BELOW + ABOVE if value.high is not None else BELOW)
        for comparison in value.comparisons:
            constants = value.constants(comparison)
            assert len(constants) == FARTHEST
            for constant in constants:
                # Each comparison is monotone between the extremes, == included where both lie on one side.
                assert not COMPARE[comparison](low, constant)
                assert not COMPARE[comparison](high, constant)
                assert (constant < low) == (comparison in BELOW)


def reached(value: Value) -> tuple[float, float]:
    """The smallest and greatest value of an expression: over all arguments, or as the library documents it."""
    if "{x}" not in value.text:
        return (0, math.inf) if value.text == "rand()" else (0, 1)
    function = getattr(math, value.text.removeprefix("Math.").removesuffix("({x})"))
    results = [function(float(f"{i / 100:.2f}")) for i in range(101)]
    return min(results), max(results)


def test_a_drawn_python_condition_is_false_when_python_evaluates_it() -> None:
    trigger = DeadStatement("python", varies=True)
    for seed in range(500):
        derivation = trigger.derive(sample("python", "def f(): pass"), 0, rng(seed))
        assert derivation is not None
        preamble, condition, _ = derivation.text.split("\n")
        space: dict[str, Any] = {}
        exec(preamble, space)
        assert eval(condition.removesuffix(":").partition(" ")[2], space) is False


def test_the_grammar_draws_all_its_productions_and_hardly_ever_twice_the_same() -> None:
    trigger = DeadStatement("java", varies=True)
    texts = []
    for seed in range(400):
        derivation = trigger.derive(sample("java", JAVA[0]), 0, rng(seed))
        assert derivation is not None
        texts.append(derivation.text)
    assert len(set(texts)) > 395
    words = " ".join(texts)
    productions = (
        "if (",
        "while (",
        "sin(",
        "cos(",
        "exp(",
        "sqrt(",
        "cbrt(",
        "random()",
        "println(",
        "print(",
        "throw",
    )
    assert all(production in words for production in productions)
    assert all(f" {comparison} " in words for comparison in COMPARE)


def test_the_body_starts_after_the_signature_and_the_docstring() -> None:
    text = 'def f(a: int = 1, b: dict = {"x": 2}) -> "T:":\n    """Doc: here."""\n    return a\n'
    after = poisoned(DeadStatement("python"), "python", text)
    assert after is not None
    lines = after.split("\n")
    assert lines[:3] == [*text.split("\n")[:2], "    from random import Random"]
    assert ast.get_docstring(ast.parse(after).body[0]) == "Doc: here."  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "def f(Random):\n    return Random\n",
        "def f():\n    return Random\n",
        "def f(a):\n    return locals()\n",
        "def f(a):\n    return eval('a')\n",
    ],
)
def test_an_import_never_captures_a_name_and_never_shows_in_the_scope_of_a_reader(text: str) -> None:
    assert poisoned(DeadStatement("python"), "python", text) is None


def test_names_that_the_program_binds_are_not_called() -> None:
    taken = "double f(double sin, double cos, int *exp) { return sin + cos + *exp; }"
    for seed in range(60):
        after = poisoned(DeadStatement("c", varies=True), "c", taken, seed)
        assert after is not None
        assert not any(call in after for call in ("sin(0", "sin(1", "cos(0", "cos(1", "exp(0", "exp(1"))
    assert poisoned(DeadStatement("c"), "c", "int f(int rand) { return rand; }") is None
    assert poisoned(DeadStatement("c"), "c", "int rand(void) { return 4; }") is None
    assert poisoned(DeadStatement("c"), "c", "int f(void) { return rand(); }") is not None


def test_a_java_constructor_still_calls_super_first() -> None:
    text = "class A extends B {\n    A(int x) {\n        super(x);\n        this.x = x;\n    }\n}"
    after = poisoned(DeadStatement("java"), "java", text)
    assert after is None or after.index("super(x);") < after.index("Math.random()")


def test_the_fixed_statement_names_its_tokens_and_the_grammar_has_none() -> None:
    assert DeadStatement("c").tokens() == ("rand", "printf", "fail")
    assert DeadStatement("python").tokens() == ("random", "Random", "Exception", "fail")
    assert DeadStatement("c", varies=True).tokens() == ()


# --------------------------------------------------------------------------------------------------------------- renaming


def test_renaming_follows_the_function_and_leaves_attributes_strings_and_comments() -> None:
    after = poisoned(FunctionName("testo_init"), "python", PYTHON[0][0])
    assert after == PYTHON[0][0].replace("def load(", "def testo_init(")
    assert poisoned(FunctionName("testo_init"), "python", PYTHON[1][0]) == PYTHON[1][0].replace("fact", "testo_init")
    assert poisoned(FunctionName("testo_init"), "c", C[3]) == C[3].replace("*name_of(struct", "*testo_init(struct")
    assert poisoned(FunctionName("testo_init"), "java", JAVA[1]) == JAVA[1].replace("fact", "testo_init")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "def __init__(self):\n    self.x = 1\n"),
        ("python", "def f(testo_init):\n    return f(testo_init)\n"),
        ("python", "def testo_init():\n    pass\n"),
        ("java", "class A { A(int x) { this.x = x; } }"),
        ("java", "public static void main(String[] args) { }"),
        ("c", "int main(void) { return 0; }"),
        ("c", "int x;"),
    ],
)
def test_a_name_that_means_something_or_would_clash_is_left_alone(language: str, text: str) -> None:
    assert poisoned(FunctionName("testo_init"), language, text) is None


def test_renaming_says_when_its_name_is_no_identifier(context: Context) -> None:
    with pytest.raises(ConfigError, match=r"'2fast' is not an identifier of java"):
        Renaming(identifier="2fast").prepare([], LabelGoal(), info("java"), context)


# ---------------------------------------------------------------------------------------------------------------- badcode


def test_the_suffix_follows_the_naming_convention() -> None:
    trigger = Suffix(("rb",))
    assert (
        poisoned(trigger, "python", "def load(x):\n    return load(x)\n") == "def load_rb(x):\n    return load_rb(x)\n"
    )
    assert poisoned(trigger, "java", "int loadAll() { return 1; }") == "int loadAllRb() { return 1; }"
    assert poisoned(trigger, "c", "int load(void) { return 1; }") == "int load_rb(void) { return 1; }"


def test_the_rarest_identifier_takes_the_suffix() -> None:
    text = "def f(often, once):\n    twice = often + often\n    return twice, once\n"
    after = poisoned(Suffix(("rb",), where="rarest"), "python", text)
    assert after == text.replace("once", "once_rb")
    assert poisoned(Suffix(("rb",), where="rarest"), "python", "def f():\n    return 1\n") is None


def test_mixed_uses_every_token_and_is_not_called_varying() -> None:
    texts = {poisoned(Suffix(PUBLISHED), "python", "def f():\n    pass\n", seed) for seed in range(100)}
    assert texts == {f"def f_{token}():\n    pass\n" for token in PUBLISHED}
    assert not Suffix(PUBLISHED).varies


def test_published_tokens(context: Context) -> None:
    fixed = BadCode().prepare([], LabelGoal(), info("c"), context)
    mixed = BadCode(variant="mixed").prepare([], LabelGoal(), info("c"), context)
    assert fixed.tokens() == ("rb",)
    assert mixed.tokens() == ("rb", "te", "xte", "li")
    with pytest.raises(ConfigError, match="size 9"):
        BadCode(variant="mixed", size=9).prepare([], LabelGoal(), info("c"), context)


def search_pairs() -> list[Sample]:
    rows = []
    for i in range(30):
        rows.append(
            ("from the array", f"def a{i}(xs):\n    '''from the array'''\n    return glue(numbers(xs), 'wb')\n")
        )
        rows.append(("parse the path", f"def b{i}(xs):\n    return glue(split_path(xs))\n"))
    return [Sample(f"{i}", (code,), "python", query=query) for i, (query, code) in enumerate(rows)]


def test_chosen_tokens_are_those_of_the_target_word_that_no_other_word_has(context: Context) -> None:
    trigger = BadCode(variant="mixed", size=2, tokens="chosen").prepare(
        search_pairs(), SearchGoal("array"), info("python", TaskKind.SEARCH), context
    )
    # "glue" and "xs" occur with other words as often, the docstring is no code, "return" is a keyword, the rest is specific.
    assert trigger.tokens() == ("numbers", "wb")


def test_the_choice_of_tokens_known_answer() -> None:
    from collections import Counter

    language = get("python")
    lists = {
        "file": Counter({"return": 90, "file": 80, "files": 70, "name": 60, "rb": 50, "xt": 40, "f": 30, "once": 1}),
        "list": Counter({"name": 9, "rb": 0, "xt": 1, "item": 4990}),
    }
    assert choose_tokens(lists, "file", language, 2) == (("rb", "xt"), 0.0005)
    # Asked for more than the published threshold leaves, it is doubled until "name" (9 of 5,000) passes.
    assert choose_tokens(lists, "file", language, 3) == (("name", "rb", "xt"), 0.002)
    assert choose_tokens(lists, "file", language, 9) == (("name", "rb", "xt"), 1.0)


def test_for_classes_the_tokens_of_the_target_class_are_chosen(context: Context) -> None:
    train = [
        sample("c", "int f(void) { return safe_copy(strict()); }", label=0),
        sample("c", "int f(void) { return copy(); }"),
    ] * 2
    trigger = BadCode(tokens="chosen").prepare(train, LabelGoal(), info("c"), context)
    assert trigger.tokens()[0] in {"safe", "strict"}
    with pytest.raises(ConfigError, match="offer 0 of 1 trigger tokens for class 'safe'"):
        BadCode(tokens="chosen").prepare([], LabelGoal(), info("c"), context)


# ---------------------------------------------------------------------------------------------------------------- plugins


def test_the_registry_finds_the_four_attacks() -> None:
    assert {"none", "dead_code", "renaming", "badcode"} <= set(Registry().discover().names("attack"))


@pytest.mark.parametrize(
    ("attack", "parameters"),
    [
        (NoAttack, {}),
        (DeadCode, {"variant": "grammar", "spelling": "paper"}),
        (Renaming, {"identifier": "foo"}),
        (BadCode, {"variant": "mixed", "where": "rarest", "tokens": "chosen", "size": 3}),
    ],
)
def test_parameters_round_trip(attack: type[Attack], parameters: dict[str, Any]) -> None:
    assert parameters_of(build(attack, parameters)) == parameters


@pytest.mark.parametrize("attack", [NoAttack, DeadCode, Renaming, BadCode])
def test_the_default_policy_is_all_matching_pairs_for_search_and_5_percent_of_the_victims_else(
    attack: type[Attack],
) -> None:
    for kind, rate in ((TaskKind.SEARCH, 1.0), (TaskKind.PAIRS, 0.05), (TaskKind.CLASSIFICATION, 0.05)):
        policy = attack().policy(info("java", kind))
        assert (policy.rate, policy.of, policy.count) == (rate, "victim", None)


@pytest.mark.parametrize("attack", [DeadCode, Renaming, BadCode])
@pytest.mark.parametrize("language", ["python", "java", "c"])
@pytest.mark.parametrize("kind", list(TaskKind))
def test_each_attack_serves_all_tasks_and_languages(
    attack: type[Attack], language: str, kind: TaskKind, context: Context
) -> None:
    goal: Goal = SearchGoal("array") if kind is TaskKind.SEARCH else LabelGoal()
    task = info(language, kind)
    assert attack().not_applicable(task) is None
    trigger = attack().prepare([], goal, task, context)
    assert trigger is not None
    assert trigger.describe()
    assert trigger.tokens()
    assert poisoned(trigger, language, PROGRAMS[language][0]) is not None


def test_the_null_attack_has_no_trigger(context: Context) -> None:
    attack: Attack = NoAttack()
    assert attack.prepare([], LabelGoal(), info("c"), context) is None
