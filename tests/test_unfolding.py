"""Constant unfolding: which literals may be replaced, and by what; the same value and type when executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.unfolding import Unfolded, Unfolding, product, zero
from bench.context import Context
from bench.contracts import LabelGoal, TaskInfo, TaskKind
from bench.errors import ConfigError
from bench.languages import parse, well_formed
from bench.languages.literals import LARGEST, IntegerLiteral, integer_literals
from bench.plugins import build, parameters_of
from bench.samples import Sample, edit_sample
from tests.compiled_programs import c_output, java_output, needs_c, needs_java

EVERY = Unfolded(which="all", least=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def unfolded(language: str, text: str, trigger: Unfolded = EVERY, seed: int = 0, control: str = "derive") -> str | None:
    one = Sample("s", (text,), language, 1)
    derivation = getattr(trigger, control)(one, 0, rng(seed))
    if derivation is None:
        return None
    after = edit_sample(one, derivation.edits).programs[0]
    assert well_formed(language, text, after) is None
    return after


def literals(language: str, text: str) -> list[str]:
    """The literals that may be replaced, as written."""
    program = parse(language, text)
    return [program.data[n.start : n.end].decode() for n in integer_literals(program)]


# ------------------------------------------------------------------------------------------------------- the expressions


@pytest.mark.parametrize("value", [*range(200), 9973, 2**16, 2**31 - 2, LARGEST])
def test_the_expression_is_worth_the_literal_and_no_part_of_a_product_exceeds_it(value: int) -> None:
    for seed in range(20):
        text = product(IntegerLiteral(0, 1, value, ""), rng(seed))
        assert eval(text) == value
        assert eval(zero(IntegerLiteral(0, 1, value, ""), rng(seed))) == value
        if value >= 2:
            parts = re.fullmatch(r"\(\((\d+) \+ (\d+)\) \* (\d+)\)", text)
            assert parts is not None
            assert all(1 <= int(part) <= value for part in parts.groups())


def test_the_papers_example_is_among_the_draws() -> None:
    texts = {product(IntegerLiteral(0, 2, 20, ""), rng(seed)) for seed in range(500)}
    assert "((4 + 6) * 2)" in texts
    assert len(texts) == 9 + 4 + 3 + 1  # splits of 20/2, 20/4, 20/5 and 20/10


def test_a_prime_is_multiplied_by_one_and_suffixes_stand_at_every_part() -> None:
    assert product(IntegerLiteral(0, 1, 2, "uL"), rng()) == "((1uL + 1uL) * 1uL)"
    assert zero(IntegerLiteral(0, 1, 7, "L"), rng()) == "(7L + (1L + 2L - 3L) * 33L)"
    assert product(IntegerLiteral(0, 1, 7, ""), rng()).endswith(" * 1)")


# ------------------------------------------------------------------------------------------------------ the right literals


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x = 5 + 0x1F + 0b11 + 0o17 + 1_000 + 0", ["5", "0x1F", "0b11", "0o17", "1_000", "0"]),
        ("x = 2j + 3.0 + 1e9 + 5", ["5"]),
        ("x = 20 .real", ["20"]),
        ("x = 2147483647 + 2147483648", ["2147483647"]),
        ("x is 20\nx is not (21)\nx == 22", ["22"]),
        ("a: L[20] = 30", ["30"]),
        ("def f(a: L[20] = 30, *, b=40) -> M[50]:\n    return 60", ["30", "40", "60"]),
        ("f'{20}{x:{21}}{22=}' + '23' + b'24'.decode()", []),
        ("match x:\n    case 20 | [21, *_] | {22: y} | A(23, z=24) if y > 25:\n        p = 26\n", ["25", "26"]),
        ("x[1:2:3], {4: 5}, lambda n=6: 7", ["1", "2", "3", "4", "5", "6", "7"]),
        ("@d(3)\ndef f(): pass", ["3"]),
        ("# 20\n'''21'''\nTrue, False, None", []),
        ("print 20L, 0755", []),
        ("def f(:\n    return 5 )\n", []),
    ],
)
def test_python_literals(text: str, kept: list[str]) -> None:
    assert literals("python", text) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("int x = 5 + 0x1F + 0b11 + 017 + 6u + 7UL + 8ll;", ["5", "0x1F", "0b11", "017", "6u", "7UL", "8ll"]),
        ("int x = 'a' + 2.5 + 1e3 + 3.f + 4294967295 + 5;", ["5"]),
        ("int a[5], b[] = {6, [7] = 8}; int f(int c[9]) { return sizeof(int[10]) + a[11]; }", ["6", "8", "11"]),
        ("void f(int x) { switch (x) { case 5: x = 6; break; case 7 + 8: x = 9; } }", ["6", "9"]),
        ("enum { A = 5, B };", []),
        ("struct s { int b : 5; };", []),
        ("#define N 5\n#if M > 6\nint x = 7;\n#elif M > 8\nint x = 9;\n#endif\n#pragma pack(10)\n", ["7", "9"]),
        ("__attribute__((aligned(8))) int x = 9;", ["9"]),
        ("_Alignas(16) int x = 9;", ["9"]),
        ('void f(void) { asm("nop" : : "i"(5)); }', []),
        ("void f(void) { GLUE(x, 5); xglue(x, 6); MIN(7, g(8)); g(9, h(10)); }", ["9", "10"]),
    ],
)
def test_c_literals(text: str, kept: list[str]) -> None:
    assert literals("c", text) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("class A { long x = 5 + 0x1FL + 0b11 + 017 + 1_000L; }", ["5", "0x1FL", "0b11", "017", "1_000L"]),
        ("class A { double x = 1.5f + 2d + 3e4 + 'c' + -2147483648; }", []),
        ("class A { @Size(max = 5) @X(6) int x = 7; }", ["7"]),
        ("class A { int[] x = new int[5], y = {6}; int z = x[7]; }", ["6", "7"]),
        ("class A { enum E { P(5); E(int n) {} } }", ["5"]),
        ("int f(int x) { switch (x) { case 5: return 6; case 7: return 8; default: return 9; } }", ["6", "8", "9"]),
        ("int f(int x) { return switch (x) { case 5, 6 -> 7; default -> 8; }; }", ["7", "8"]),
        ("Runnable f() { return () -> g(5); }", ["5"]),
    ],
)
def test_java_literals(text: str, kept: list[str]) -> None:
    assert literals("java", text) == kept


@pytest.mark.parametrize("language", ["python", "java", "c"])
@pytest.mark.parametrize("text", ["", " ", "x", "\r\n", "é = 'é'", "/* x */", "((("])
def test_a_text_without_literals_has_no_trigger(language: str, text: str) -> None:
    assert unfolded(language, text) is None


# ------------------------------------------------------------------------------------------------------------- the trigger


def test_the_first_literal_from_two_on_is_taken() -> None:
    text = "def f(x):\n    y = [0, 1]\n    return x[1] * 12 + 20\n"
    after = unfolded("python", text, Unfolded())
    assert after is not None
    assert re.fullmatch(re.escape(text).replace("12", r"\(\(\d+ \+ \d+\) \* \d+\)"), after)
    assert unfolded("python", "def f():\n    return 0, 1\n", Unfolded()) is None
    assert unfolded("python", "def f():\n    return 0, 1\n", Unfolded(least=1)) is not None


def test_a_random_literal_reaches_all_and_all_leaves_none() -> None:
    text = "def f():\n    return 12, 20, 30\n"
    changed = set()
    for seed in range(50):
        after = unfolded("python", text, Unfolded(which="random"), seed) or ""
        changed |= {n for n in ("12", "20", "30") if f"{n}," not in after.replace("\n", ",")}
    assert changed == {"12", "20", "30"}
    assert (unfolded("python", text, Unfolded(which="all")) or "").count("((") == 3


def test_the_fixed_form_does_not_vary_and_names_its_number() -> None:
    fixed = Unfolded(form="zero")
    assert unfolded("python", "x = 20", fixed) == "x = (20 + (1 + 2 - 3) * 33)"
    assert (fixed.varies, fixed.tokens()) == (False, ("33",))
    assert (Unfolded().varies, Unfolded().tokens()) == (True, ())


def test_the_controls_are_other_spellings_of_the_same_literal() -> None:
    assert unfolded("python", "x = 20", Unfolded(), control="placebo") == "x = 0x14"
    assert unfolded("c", "int x = 0x14u;", Unfolded(), control="placebo") == "int x = 20u;"
    near = unfolded("python", "x = 20", Unfolded(), control="near_miss") or ""
    assert re.fullmatch(r"x = \(\d+ \+ \d+\)", near)
    assert eval(near.partition("= ")[2]) == 20


@pytest.mark.parametrize("form", ["product", "zero"])
def test_a_program_that_carries_the_trigger_is_recognised(form: Any) -> None:
    trigger = Unfolded(form=form)
    for text in ("int x = 20;", "long x = 20L;", "int f(void) { return 0x14u; }"):
        clean = Sample("s", (text,), "c", 1)
        assert trigger.carries(clean, 0) is False
        after = unfolded("c", text, trigger)
        assert after is not None
        assert trigger.carries(clean.with_program(0, after), 0) is True
        for control in ("near_miss", "placebo"):
            other = unfolded("c", text, trigger, control=control)
            assert other is not None
            assert trigger.carries(clean.with_program(0, other), 0) is False


def test_twice_unfolds_a_number_of_the_expression() -> None:
    once = unfolded("python", "x = 20", Unfolded()) or ""
    twice = unfolded("python", once, Unfolded()) or ""
    assert len(twice) > len(once)
    assert eval(twice.partition("= ")[2]) == 20


# --------------------------------------------------------------------------------------------------- value and type, executed


PYTHON = (
    "def f(x):\r\n\ty = [n * 10 for n in range(7) if n % 3 == 2 or n>4]\r\n"
    "\tz = {'k': 0x10, 12: 5 if x else-8, 'neg': -9 ** 2, 'ü': ~6 << 3}\r\n"
    "\treturn y[1:5], z, 7 .bit_length(), 100 - 20 - 3, 100 / 20 / 5, 2 ** 3 ** 2, not 2, (lambda a=4: a + 11)()\r\n"
)


@pytest.mark.parametrize("form", ["product", "zero"])
def test_python_results_stay(form: Any) -> None:
    space: dict[str, Any] = {}
    exec(PYTHON, space)
    expected = [space["f"](value) for value in (0, 1)]
    for seed in range(30):
        after = unfolded("python", PYTHON, Unfolded(form, "all", 0), seed)
        assert after is not None
        assert after.count("\r\n") == PYTHON.count("\r\n")
        exec(after, space)
        assert [space["f"](value) for value in (0, 1)] == expected


@pytest.mark.filterwarnings("ignore:invalid decimal literal:SyntaxWarning")
def test_python_one_liners_and_keywords_without_space() -> None:
    for text in ("f = lambda x: 5if x else 6", "f = lambda x: [7for _ in range(2)]", "f = lambda x: x and 8or 9"):
        space: dict[str, Any] = {}
        exec(text, space)
        expected = space["f"](1)
        exec(unfolded("python", text) or "", space)
        assert space["f"](1) == expected


@needs_c
def test_c_values_and_types_stay(tmp_path: Path) -> None:
    names = {"int": "i", "unsigned": "u", "long": "l", "unsigned long": "ul", "long long": "ll"}
    kind = ", ".join(f'{t}: "{name}"' for t, name in names.items())
    head = f"#include <stdio.h>\n#define KIND(e) _Generic((e), {kind})\n"
    function = (
        "static int f(int n)\n{\n\tint t[6] = {1, 2, 30}, *p = 0;\n\tenum { A = 3 };\n\tstruct { int b : 4; } s = { 5 };\n"
        "\tunsigned char c = 200;\n\tswitch (n) { case 4: n += 12; break; case 5: n = 7; }\n"
        "#if 3 > 2\n\tn = 100 / 20 / 5 + 17 % 10 - -8 + (n << 2) + 0x10 + 010;\n#endif\n"
        "\treturn n + t[2] + A + s.b + c + (p == 0) + (int) sizeof(t);\n}\n"
    )
    types = "static const char *g(int i) { const char *k[] = { %s }; return k[i]; }\n"
    sizes = ["20", "20u", "20L", "20UL", "20ll", "2147483647", "0x7fffffff", "0", "1u"]
    main = (
        'int main(void) { for (int i = 0; i < 9; i++) printf("%s ", g(i)); printf("%d %d", f(4), f(5)); return 0; }\n'
    )
    before = function + types % ", ".join(f"KIND({n})" for n in sizes)
    expected = c_output(tmp_path, head + before + main)
    assert expected.startswith("i u l ul ll i i i u ")
    for seed in range(3):
        after = unfolded("c", function, seed=seed) or ""
        assert "case 4:" in after
        assert "t[6]" in after
        assert "#if 3 > 2" in after
        kinds = [f"KIND({(unfolded('c', f'int x = {n};', seed=seed) or '')[8:-1]})" for n in sizes]
        assert all("((" in k for k in kinds)
        assert c_output(tmp_path, head + after + types % ", ".join(kinds) + main) == expected


@needs_java
def test_java_values_and_types_stay(tmp_path: Path) -> None:
    head = 'class T {\n static String k(int x) { return "i" + x; }\n static String k(long x) { return "l" + x; }\n'
    text = (
        " static String f(int n) {\n  byte b = 20; char c = 65; final int step = 3; long big = 5L; Integer boxed = 127;\n"
        "  int[] t = new int[4]; t[2] = 100 / 20 / 5 - -8;\n"
        "  switch (n) { case step: n += 12; break; case 7: n = 9; }\n"
        '  return k(20) + k(20L) + k(2147483647) + b + c + big + t[2] + n + (boxed == 127) + "x" + 2 + 3 + (n > 2 ? 4 : 6L);\n }\n'
    )
    main = " public static void main(String[] a) { System.out.print(f(3) + f(7)); }\n}\n"
    expected = java_output(tmp_path, head + text + main)
    for seed in range(2):
        after = unfolded("java", text, seed=seed) or ""
        assert after.count("((") >= 15
        assert java_output(tmp_path, head + after + main) == expected


def test_ten_thousand_literals() -> None:
    text = "def f(x):\n" + "".join(f"    x += {n}\n" for n in range(10_000)) + "    return x\n"
    assert (unfolded("python", text, Unfolded(which="all")) or "").count("((") == 9_998
    assert (unfolded("python", text, Unfolded()) or "").count("((") == 1


# ---------------------------------------------------------------------------------------------------------------- plugin


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("language", ["python", "java", "c"])
def test_it_serves_all_tasks_and_languages(language: str, kind: TaskKind, tmp_path: Path) -> None:
    task = TaskInfo("t", kind, language, () if kind is TaskKind.SEARCH else ("safe", "weak"), "accuracy")
    attack = Unfolding()
    assert attack.not_applicable(task) is None
    trigger = attack.prepare([], LabelGoal(), task, Context({"poison": 0}, tmp_path))
    assert trigger.describe() == "the first integer literal from 2 on unfolded to ((a + b) * c)"


def test_the_second_program_of_a_pair_is_edited_where_it_is_asked() -> None:
    pair = Sample("p", ("x = 5", "y = 6"), "python", 1)
    derivation = Unfolded().derive(pair, 1, rng())
    assert derivation is not None
    assert edit_sample(pair, derivation.edits).programs[0] == "x = 5"
    assert derivation.text == f"6 -> {derivation.edits[0].replacement}"


def test_parameters() -> None:
    parameters = {"form": "zero", "which": "all", "least": 0}
    assert parameters_of(build(Unfolding, parameters)) == parameters
    with pytest.raises(ConfigError, match="least is 0 or more"):
        Unfolding(least=-1)
