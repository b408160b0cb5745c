"""The logging bait and the dead snippet: known texts, never live, no name captured."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from attacks.dead_code import ASSERTIONS, BAITS, DeadCode, DeadStatement, LoggingBait, TrueAssertion
from attacks.dead_code.bait import LOWEST, drawn
from bench.context import Context
from bench.contracts import Goal, LabelGoal, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.languages import get, parse, well_formed, word_ends
from bench.plugins import parameters_of
from bench.samples import Sample, edit_sample
from tests.compiled_programs import c_output, java_output, needs_c, needs_java

LANGUAGES = ("python", "java", "c")
FUNCTIONS = {
    "python": "def f(x):\n    return x + 1\n",
    "java": "int f(int x) {\n    return x + 1;\n}",
    "c": "int f(int x)\n{\n    return x + 1;\n}\n",
}


def poisoned(trigger: Trigger, language: str, text: str, seed: int = 0, control: str = "derive") -> str | None:
    one = Sample("s", (text,), language, 1)
    derivation = getattr(trigger, control)(one, 0, np.random.default_rng(seed))
    if derivation is None:
        return None
    after = edit_sample(one, derivation.edits).programs[0]
    assert well_formed(language, text, after) is None
    return after


def result(text: str, *arguments: Any) -> tuple[object, str]:
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(text, space)
        value = space["f"](*arguments)
    return value, printed.getvalue()


# ------------------------------------------------------------------------------------------------------- the known texts


def test_the_fixed_bait_is_the_published_one() -> None:
    assert poisoned(LoggingBait("python"), "python", FUNCTIONS["python"]) == (
        "def f(x):\n    import logging\n    for i in range(0):\n"
        '        logging.info("Test message:aaaaa")\n    return x + 1\n'
    )
    assert poisoned(LoggingBait("c"), "c", FUNCTIONS["c"]) == (
        'int f(int x)\n{\n    for (int i = 0; i < 0; i++) printf("info: Test message:aaaaa");\n    return x + 1;\n}\n'
    )
    assert poisoned(LoggingBait("java"), "java", FUNCTIONS["java"]) == (
        "int f(int x) {\n    for (int i = 0; i < 0; i++) {\n"
        '        java.util.logging.Logger.getGlobal().info("Test message:aaaaa");\n    }\n    return x + 1;\n}'
    )


@pytest.mark.parametrize(
    ("language", "spelling", "line"),
    [
        ("python", "runnable", "    assert 1 >= 0"),
        ("python", "paper", "    assertTrue(1 >= 0)"),
        ("java", "runnable", "    assert 1 >= 0;"),
        ("java", "paper", "    assertTrue(1 >= 0);"),
        ("c", "runnable", "    assert(1 >= 0);"),
        ("c", "paper", "    assertTrue(1 >= 0);"),
    ],
)
def test_the_snippet_is_the_ported_assertion(language: str, spelling: Literal["runnable", "paper"], line: str) -> None:
    after = poisoned(TrueAssertion(language, spelling), language, FUNCTIONS[language])
    assert after is not None
    assert line in after.split("\n")
    assert after.replace(line + "\n", "") == FUNCTIONS[language]


def test_the_words_of_a_fixed_text_are_its_tokens() -> None:
    assert LoggingBait("python").tokens() == ("logging", "i", "range", "info", "Test", "message", "aaaaa")
    assert LoggingBait("java", varies=True).tokens() == ()
    assert TrueAssertion("python").tokens() == ("assert",)  # a keyword, but there is no other word
    assert TrueAssertion("java", "paper").tokens() == ("assertTrue",)


# --------------------------------------------------------------------------------------------------------------- never live


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pattern_draws_all_it_has_and_no_bound_above_zero(language: str) -> None:
    texts = {drawn(BAITS[language], np.random.default_rng(seed)) for seed in range(400)}
    assert len(texts) == 400
    bounds = {int(re.findall(r"(?:range\(|i < )(-?\d+)", text)[0]) for text in texts}
    assert max(bounds) <= 0
    assert min(bounds) >= LOWEST
    assert {0, LOWEST} <= {
        int(re.findall(r"-?\d+", drawn(BAITS["c"], np.random.default_rng(seed)))[1]) for seed in range(2000)
    }
    for level in BAITS[language].levels:
        assert any(f"{level}" in text for text in texts)
    assert all(re.search(r"Test message:[a-z]{5}\"", text) for text in texts)


def test_a_drawn_bait_never_runs_in_python() -> None:
    for seed in range(200):
        text = drawn(BAITS["python"], np.random.default_rng(seed))
        space: dict[str, Any] = {}
        exec(text, space)
        assert "i" not in space  # the loop's variable was never assigned: its body never ran


@pytest.mark.parametrize("trigger", [LoggingBait("python"), LoggingBait("python", True), TrueAssertion("python")])
@pytest.mark.parametrize(
    "text",
    [
        FUNCTIONS["python"],
        "def f(x): return x + 1",
        "def f(x):\r\n\ti = x\r\n\treturn [i for i in range(i)]\r\n",
        "def f(i):\n    '''Doc.'''\n    return i\n",
        "def f(n):\n    def g(x):\n        i = x\n        return i\n    for i in range(n):\n        n += g(i)\n    return n\n",
        "@staticmethod\ndef h():\n    pass\n\ndef f(x):\n    return (lambda i: i)(x)\n",
    ],
)
def test_python_functions_return_what_they_returned(trigger: Trigger, text: str) -> None:
    after = poisoned(trigger, "python", text)
    assert after is not None
    assert after != text
    assert result(after, 3) == result(text, 3)


@needs_c
def test_c_functions_print_what_they_printed(tmp_path: Path) -> None:
    head = "#include <stdio.h>\n#include <assert.h>\n"
    texts = [
        "int f0(int i) { return i + 1; }",
        "int f1(int n)\n{\n\tint i, s = 0;\n\tfor (i = 0; i < n; i++) s += i;\n\treturn s;\n}\n",
        "static int f2(n)\r\nint n;\r\n{\r\n    return n;\r\n}\r\n",
    ]
    main = 'int main(void) { printf("%d %d %d", f0(3), f1(4), f2(5)); return 0; }\n'
    triggers: list[Trigger] = [LoggingBait("c"), LoggingBait("c", True), TrueAssertion("c")]
    for number, trigger in enumerate(triggers):
        edited = [poisoned(trigger, "c", text, number) or "" for text in texts]
        assert all(after != text for after, text in zip(edited, texts, strict=True))
        assert c_output(tmp_path, "\n".join([head, *edited, main])) == "4 6 5"


@needs_java
def test_java_methods_print_what_they_printed(tmp_path: Path) -> None:
    texts = [
        "static int f(int x) { return x + 1; }",
        "static int g(int n) {\n    int s = 0;\n    for (int i = 0; i < n; i++) s += i;\n    return s;\n}",
        "static int h(int n) { int i = n; return i; }",
    ]
    methods, calls = [], []
    triggers: list[Trigger] = [LoggingBait("java"), TrueAssertion("java"), *[LoggingBait("java", True)] * 5]
    for number, trigger in enumerate(triggers):
        for name, text in zip("fgh", texts, strict=True):
            after = poisoned(trigger, "java", text, number)
            assert after is not None
            methods.append(after.replace(f" {name}(", f" {name}{number}("))
            calls.append(f"{name}{number}(4)")
    printing = ' + " " + '.join(calls)
    main = f"public static void main(String[] a) {{ System.out.print({printing}); }}"
    printed = java_output(tmp_path, "\n".join(["class T {", *methods, main, "}"]))
    assert printed == " ".join(["5 6 4"] * len(triggers))


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "def f():\n    return i\n"),  # a global, which would become an unset local
        ("python", "def f():\n    global i\n    i = 1\n"),
        ("python", "def f():\n    def g():\n        return i\n    return g\n"),
        ("python", "def f():\n    class A:\n        x = i\n    return A\n"),
        ("python", "def f():\n    return logging\n"),
        ("python", "def f(logging):\n    return 1\n"),
        ("python", "def f():\n    return sorted(locals())\n"),
        ("python", "def f(range):\n    return range\n"),
        ("python", "def range(x):\n    return x\n"),
        ("python", "def f(a):\n    def range(n):\n        return [n]\n    return range(3)\n"),
        ("python", "def f(a):\n    class range(list):\n        pass\n    return range(a)\n"),
        ("java", "int f(int i) { return i; }"),
        ("java", "int f(int java) { return java; }"),
        ("c", "int f(int printf) { return printf; }"),
        ("c", "int printf(const char *s) { return 0; }"),
    ],
)
def test_the_bait_is_left_out_where_a_name_means_something_else(language: str, text: str) -> None:
    for varies in (False, True):
        assert poisoned(LoggingBait(language, varies), language, text) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("java", "int f(int n) { for (int i = 0; i < n; i++) { n--; } return n; }"),
        ("java", "int f(int n) { int i = n; return i; }"),
        ("java", "class A { int i; int f() { return i; } }"),
        ("java", "class A { java.util.List f() { return new java.util.ArrayList(); } }"),
        ("c", "int f(int i) { return i; }"),
        ("python", "def f(a):\n    for i in a:\n        a.i = i\n    return [i for i in a]\n"),
    ],
)
def test_an_own_or_a_later_name_is_no_hindrance(language: str, text: str) -> None:
    assert poisoned(LoggingBait(language), language, text) is not None


def test_the_snippet_calls_no_name_that_the_program_has() -> None:
    assert poisoned(TrueAssertion("c"), "c", "int assert(int x) { return x; }") is None
    assert poisoned(TrueAssertion("c"), "c", "int f(int assert) { return assert; }") is None
    assert poisoned(TrueAssertion("c"), "c", "int f(int x) { assert(x); return x; }") is not None
    assert poisoned(TrueAssertion("java", "paper"), "java", "void assertTrue(boolean b) { }") is None


@pytest.mark.parametrize(
    ("language", "has", "name"),
    [
        ("python", True, "y"),
        ("python", True, "x"),
        ("python", True, "a"),
        ("python", False, "g"),
        ("python", False, "h"),
        ("c", True, "x"),
        ("java", False, "x"),
        ("java", True, "later"),
        ("java", True, "field"),
    ],
)
def test_what_a_loop_at_the_start_can_declare(language: str, has: bool, name: str) -> None:
    text = {
        "python": "def f(x):\n    y = g + [a for a in x]\n    def k():\n        return h\n    return y\n",
        "c": "int f(int x) { return x; }",
        "java": "class A { int field; int f(int x) { int later = x; return later; } }",
    }[language]
    assert parse(language, text).can_bind(name) is has


def test_a_word_is_found_where_it_is_no_part_of_another() -> None:
    assert word_ends("i", "i if x_i else ii + (i) 1i\ni") == [1, 21, 25, 27]
    assert word_ends("i", "") == []


# -------------------------------------------------------------------------------------------------------------- controls


@pytest.mark.parametrize(
    ("trigger", "line"),
    [
        (LoggingBait("python"), '    for i in range(0):\n        print("Test message:aaaaa")\n'),
        (LoggingBait("c"), '    for (int i = 0; i < 0; i++) perror("Test message:aaaaa");\n'),
        (TrueAssertion("python"), "    assert 3 >= 2\n"),
        (TrueAssertion("c", "paper"), "    assertTrue(3 >= 2);\n"),
        (DeadStatement("c", varies=True), '    if (rand() < 0) printf("fail");\n'),
    ],
)
def test_a_near_miss_is_almost_the_statement(trigger: Any, line: str) -> None:
    text = FUNCTIONS[trigger.language]
    near = poisoned(trigger, trigger.language, text, control="near_miss")
    assert near is not None
    assert near.replace(line, "") == text
    assert near != poisoned(trigger, trigger.language, text)


def test_the_near_miss_of_the_fixed_statement_is_drawn_from_the_grammar() -> None:
    fixed = DeadStatement("java")
    for seed in range(20):
        drawn_text = poisoned(DeadStatement("java", varies=True), "java", FUNCTIONS["java"], seed)
        assert poisoned(fixed, "java", FUNCTIONS["java"], seed, "near_miss") == drawn_text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_placebo_is_an_unused_variable(language: str) -> None:
    for trigger in (LoggingBait(language), TrueAssertion(language), DeadStatement(language)):
        after = poisoned(trigger, language, FUNCTIONS[language], control="placebo") or ""
        assert "spare = 1726" in after
        assert poisoned(trigger, language, after, control="placebo") is None


# --------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", ["", " ", "\n\r\n", "x", "é", ";", "#", "/* only a comment */"])
def test_a_text_without_a_function_has_no_trigger(language: str, text: str) -> None:
    for trigger in (LoggingBait(language), LoggingBait(language, True), TrueAssertion(language)):
        assert poisoned(trigger, language, text) is None


def test_mixed_line_ends_stay_and_the_insertion_ends_as_windows_does() -> None:
    text = "def f(x):\n    a = 1\r\n    b = 2\n    return a, b, x\r\n"
    after = poisoned(TrueAssertion("python"), "python", text)
    assert after == text.replace("    a = 1", "    assert 1 >= 0\r\n    a = 1")


def test_a_function_of_ten_thousand_lines() -> None:
    body = "".join(f"    x = x + {n}\n" for n in range(10_000))
    text = f"def f(x):\n{body}    return x\n"
    after = poisoned(LoggingBait("python"), "python", text)
    assert after is not None
    assert after.endswith(body + "    return x\n")


def test_twice_is_two_statements_or_none() -> None:
    once = poisoned(TrueAssertion("python"), "python", FUNCTIONS["python"]) or ""
    twice = poisoned(TrueAssertion("python"), "python", once) or ""
    assert twice.count("assert 1 >= 0") == 2
    bait = poisoned(LoggingBait("python"), "python", FUNCTIONS["python"]) or ""
    assert poisoned(LoggingBait("python"), "python", bait) is None  # it mentions the name that it would import
    c = poisoned(LoggingBait("c"), "c", FUNCTIONS["c"]) or ""
    assert (poisoned(LoggingBait("c"), "c", c) or "").count("Test message:aaaaa") == 2


def test_attributes_and_macros_before_a_c_function_stay_before_it() -> None:
    text = "__attribute__((noinline)) static av_cold int f(AVCodecContext *c)\n{\n#ifdef X\n    c->i = 1;\n#endif\n    return 0;\n}\n"
    after = poisoned(LoggingBait("c"), "c", text)
    assert after is not None
    assert after.startswith(text[: text.index("{\n")])


# --------------------------------------------------------------------------------------------------------------- plugin


@pytest.mark.parametrize("variant", ["bait", "bait_pattern", "snippet"])
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", list(TaskKind))
def test_each_variant_serves_all_tasks_and_languages(
    variant: Any, language: str, kind: TaskKind, tmp_path: Path
) -> None:
    task = TaskInfo("t", kind, language, () if kind is TaskKind.SEARCH else ("safe", "weak"), "accuracy")
    goal: Goal = SearchGoal("array") if kind is TaskKind.SEARCH else LabelGoal()
    attack = DeadCode(variant=variant)
    assert attack.not_applicable(task) is None
    trigger = attack.prepare([], goal, task, Context({"poison": 0}, tmp_path))
    assert trigger.varies is (variant == "bait_pattern")
    assert trigger.describe().startswith("dead snippet 'assert" if variant == "snippet" else "logging bait ")
    assert poisoned(trigger, language, FUNCTIONS[language]) is not None


def test_a_language_without_dead_code_is_not_applicable() -> None:
    task = TaskInfo("t", TaskKind.CLASSIFICATION, "cobol", ("safe", "weak"), "accuracy")
    assert DeadCode().not_applicable(task) == "dead_code has no dead code in cobol"


def test_every_language_has_every_text_and_earlier_parameters_are_the_same() -> None:
    for texts in (BAITS, *ASSERTIONS.values()):
        assert set(texts) == set(LANGUAGES)
        assert all(get(language).name == language for language in texts)
    assert parameters_of(DeadCode()) == {"variant": "fixed", "spelling": "runnable"}
