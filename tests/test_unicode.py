"""Hidden characters: where each of them goes, that programs stay what they are, and where it is not applicable."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from attacks.unicode import INSERTED, RELATIVES, TWINS, Disguise, Kind, Unicode, Where, shown
from bench.context import Context
from bench.contracts import LabelGoal, TaskInfo, TaskKind
from bench.languages import get, parse, well_formed
from bench.plugins import build, parameters_of
from bench.samples import Sample, edit_sample
from tests.compiled_programs import c_output, java_output, needs_c, needs_java

LANGUAGES = ("python", "java", "c")
KINDS = get_args(Kind)
FUNCTIONS = {
    "python": "def load(count):\n    # Adds one.\n    total = count + 1\n    return total\n",
    "java": "static int load(int count) {\n    // Adds one.\n    int total = count + 1;\n    return total;\n}",
    "c": "static int load(int count)\n{\n    /* Adds one. */\n    int total = count + 1;\n    return total;\n}\n",
}


def disguised(language: str, text: str, trigger: Disguise, control: str = "derive") -> str | None:
    one = Sample("s", (text,), language, 1)
    derivation = getattr(trigger, control)(one, 0, np.random.default_rng(0))
    if derivation is None:
        return None
    after = edit_sample(one, derivation.edits).programs[0]
    assert well_formed(language, text, after) is None
    assert derivation.text.isprintable()
    return after


def info(language: str, kind: TaskKind = TaskKind.CLASSIFICATION) -> TaskInfo:
    return TaskInfo("t", kind, language, () if kind is TaskKind.SEARCH else ("safe", "weak"), "accuracy")


# -------------------------------------------------------------------------------------------------------------- characters


def test_the_characters() -> None:
    names = {kind: [unicodedata.name(c) for c in text] for kind, text in INSERTED.items()}
    assert names == {
        "zwsp": ["ZERO WIDTH SPACE"],
        "zwnj": ["ZERO WIDTH NON-JOINER"],
        "zwj": ["ZERO WIDTH JOINER"],
        "bidi": ["RIGHT-TO-LEFT OVERRIDE", "POP DIRECTIONAL FORMATTING"],
    }
    assert all(RELATIVES[kind] != INSERTED[kind] for kind in INSERTED)


@pytest.mark.parametrize("latin", TWINS)
def test_a_look_alike_is_the_cyrillic_letter_of_its_case_and_a_legal_name_for_itself(latin: str) -> None:
    twin = TWINS[latin]
    assert unicodedata.name(twin).startswith("CYRILLIC CAPITAL" if latin.isupper() else "CYRILLIC SMALL")
    assert unicodedata.normalize("NFKC", twin) == twin
    assert all(get(language).is_identifier(twin) for language in LANGUAGES)


def test_what_a_language_allows_in_names() -> None:
    c, java, python = get("c"), get("java"), get("python")
    assert c.is_identifier("größe")
    assert not c.is_identifier("gro\u0308\u00dfe")  # not in normal form
    assert not c.is_identifier("l\u200doad")
    assert java.is_identifier("l\u200doad")
    assert not java.is_identifier("\u200dload")
    assert not java.is_identifier("l\u200boad")
    assert not python.is_identifier("l\u200doad")


def test_invisible_characters_are_shown_by_their_numbers() -> None:
    assert shown("a\u200bb") == "a<U+200B>b"
    assert shown("l\u043ead") == "l<U+043E>ad"
    assert shown("größe 数") == "größe 数"


# ---------------------------------------------------------------------------------------------------------------- comments


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", INSERTED)
def test_the_first_words_first_letter_is_followed_by_the_character(language: str, kind: Any) -> None:
    after = disguised(language, FUNCTIONS[language], Disguise(kind))
    assert after == FUNCTIONS[language].replace("Adds", f"A{INSERTED[kind]}dds")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_letter_with_a_twin_is_replaced(language: str) -> None:
    after = disguised(language, FUNCTIONS[language], Disguise("homoglyph"))
    assert after == FUNCTIONS[language].replace("Adds", "\u0410dds")
    assert disguised("python", "def f(): # dlf ox\n    pass\n", Disguise("homoglyph")) == (
        "def f(): # dlf \u043ex\n    pass\n"
    )


def test_a_program_without_a_comment_gets_one_of_the_character_alone() -> None:
    assert disguised("python", "def f(x): return x", Disguise()) == "def f(x):\n    # \u200b\n    return x"
    assert disguised("c", "int f(int x) { return x; }", Disguise()) == "int f(int x) { /* \u200b */ return x; }"
    assert disguised("java", "int f() {}", Disguise("homoglyph")) == "int f() { /* \u0430 */ }"
    crlf = "def f(x):\r\n\ty = x\r\n\treturn y\r\n"
    assert disguised("python", crlf, Disguise()) == crlf.replace("\ty", "\t# \u200b\r\n\ty")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "def f(): # noqa: E501\n    return 1 # type: ignore\n"),
        ("python", "def f():\n    # 1 + 2 == 3\n    return 1\n"),
        ("java", "/** @deprecated since 1.2 */\nint f() { return 1; }"),
        ("c", "int f(int x) { switch (x) { case 1: x++; /* fall through */ default: x--; } return x; }"),
    ],
)
def test_comments_that_tools_read_and_comments_without_words_are_left_alone(language: str, text: str) -> None:
    after = disguised(language, text, Disguise())
    assert after is not None
    spans = parse(language, text).comments
    assert all(text.encode()[start:end] in after.encode() for start, end in spans)
    assert len(parse(language, after).comments) == len(spans) + 1


@pytest.mark.parametrize("escape", [r"\u0041", r"\u00AB", r"\uu00ab", r"\u004A_b"])
@pytest.mark.parametrize("kind", ["zwsp", "homoglyph"])
def test_a_unicode_escape_in_a_comment_keeps_its_digits(escape: str, kind: Any) -> None:
    for control in ("derive", "near_miss", "placebo"):
        after = disguised("java", f"/* {escape} copy */ int f() {{ return 1; }}", Disguise(kind), control)
        assert after is not None
        assert f"/* {escape} " in after
        assert "copy" not in after


def test_strings_are_never_touched() -> None:
    text = "def f():\n    '''Doc # string.'''\n    return '# not a comment', '/* nor this */'\n"
    after = disguised("python", text, Disguise())
    assert after == text.replace("    return", "    # \u200b\n    return")


def test_letters_of_other_scripts_count_as_words() -> None:
    text = "def f(): # 数 größe\n    return 'ü'\n"
    assert disguised("python", text, Disguise()) == text.replace("数", "数\u200b")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_program_that_carries_the_mark_in_a_comment_takes_no_second(language: str, kind: Any) -> None:
    for text in (FUNCTIONS[language], FUNCTIONS[language].replace("Adds one.", "")):
        once = disguised(language, text, Disguise(kind))
        assert once is not None
        assert disguised(language, once, Disguise(kind)) is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", ["", " ", "x", "\n\r\n", "(("])
def test_a_text_without_function_and_comment_takes_nothing(language: str, text: str) -> None:
    for where in get_args(Where):
        assert disguised(language, text, Disguise("homoglyph", where)) is None


# --------------------------------------------------------------------------------------------------------------- identifiers


@pytest.mark.parametrize(
    ("language", "where", "old", "new"),
    [
        ("python", "function", "load", "l\u043ead"),
        ("python", "variable", "total", "t\u043etal"),
        ("java", "function", "load", "l\u043ead"),
        ("java", "variable", "total", "t\u043etal"),
        ("c", "function", "load", "l\u043ead"),
        ("c", "variable", "total", "t\u043etal"),
    ],
)
def test_a_name_takes_a_look_alike_at_all_its_places(language: str, where: Any, old: str, new: str) -> None:
    assert disguised(language, FUNCTIONS[language], Disguise("homoglyph", where)) == (
        FUNCTIONS[language].replace(old, new)
    )


def test_names_that_mean_something_or_have_no_such_letter_are_left_alone() -> None:
    assert disguised("python", "def __call__(self):\n    pass\n", Disguise("homoglyph", "function")) is None
    assert disguised("c", "int main(void) { return 0; }", Disguise("homoglyph", "function")) is None
    assert disguised("python", "def dtv():\n    pass\n", Disguise("homoglyph", "function")) is None
    # Python reads this name as another one, so it is never renamed.
    assert disguised("python", "def \ufb01xe():\n    pass\n", Disguise("homoglyph", "function")) is None


@pytest.mark.parametrize("kind", ["zwnj", "zwj"])
def test_java_names_take_joiners(kind: Any) -> None:
    after = disguised("java", FUNCTIONS["java"], Disguise(kind, "function"))
    assert after == FUNCTIONS["java"].replace("load", f"l{INSERTED[kind]}oad")
    near = disguised("java", FUNCTIONS["java"], Disguise(kind, "function"), "near_miss")
    assert near == FUNCTIONS["java"].replace("load", f"l{RELATIVES[kind]}oad")


@pytest.mark.parametrize(
    ("language", "kind", "applicable"),
    [
        ("python", "zwsp", False),
        ("python", "zwj", False),
        ("python", "bidi", False),
        ("python", "homoglyph", True),
        ("c", "zwnj", False),
        ("c", "homoglyph", True),
        ("java", "zwsp", False),
        ("java", "bidi", False),
        ("java", "zwj", True),
        ("java", "homoglyph", True),
    ],
)
def test_it_says_which_characters_a_language_allows_in_names(language: str, kind: Any, applicable: bool) -> None:
    for where in ("function", "variable"):
        reason = Unicode(kind=kind, where=where).not_applicable(info(language))
        assert (reason is None) is applicable
        if reason is not None:
            assert reason.startswith(f"a name of {language} cannot hold {kind} (it can hold: homoglyph")
    assert Unicode(kind=kind).not_applicable(info(language)) is None


# ---------------------------------------------------------------------------------------------------------------- execution


@pytest.mark.parametrize("where", get_args(Where))
@pytest.mark.parametrize("kind", KINDS)
def test_python_returns_what_it_returned(kind: Any, where: Any) -> None:
    if Unicode(kind=kind, where=where).not_applicable(info("python")) is not None:
        return
    after = disguised("python", FUNCTIONS["python"], Disguise(kind, where))
    assert after is not None
    space: dict[str, Any] = {}
    exec(after, space)
    assert space["l\u043ead" if where == "function" else "load"](4) == 5


def every_edit(language: str) -> list[str]:
    """The function with each legal mark, each with a name of its own for calls (``load_0`` …)."""
    texts = []
    for kind in KINDS:
        for where in get_args(Where):
            if Unicode(kind=kind, where=where).not_applicable(info(language)) is None:
                text = FUNCTIONS[language].replace("load", f"load_{len(texts)}")
                after = disguised(language, text, Disguise(kind, where))
                assert after is not None
                texts.append(after)
    return texts


def called(number: int, text: str) -> str:
    return f"l\u043ead_{number}" if f"l\u043ead_{number}" in text else f"load_{number}"


@needs_c
def test_c_compiles_without_warnings_and_prints_what_it_printed(tmp_path: Path) -> None:
    texts = every_edit("c")
    assert len(texts) == len(KINDS) + 2
    calls = ", ".join(f"{called(n, text)}(4)" for n, text in enumerate(texts))
    main = f'int main(void) {{ printf("{"%d" * len(texts)}", {calls}); return 0; }}\n'
    assert c_output(tmp_path, "\n".join(["#include <stdio.h>", *texts, main])) == "5" * len(texts)


@needs_java
def test_java_compiles_and_ignores_joiners(tmp_path: Path) -> None:
    texts = every_edit("java")
    assert len(texts) == len(KINDS) + 2 * 3
    calls = " + ".join(f"{called(n, text)}(4)" for n, text in enumerate(texts))  # with joiners: called without them
    main = f"public static void main(String[] a) {{ System.out.print({calls}); }}"
    assert java_output(tmp_path, "\n".join(["class T {", *texts, main, "}"])) == str(5 * len(texts))


# ----------------------------------------------------------------------------------------------------------------- controls


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_controls_hold_none_of_the_triggers_characters(language: str, kind: Any) -> None:
    trigger = Disguise(kind)
    for text in (FUNCTIONS[language], FUNCTIONS[language].replace("Adds one.", "")):
        placebo = disguised(language, text, trigger, "placebo") or ""
        assert placebo.isascii()
        assert placebo != text
        near = disguised(language, text, trigger, "near_miss") or ""
        assert not near.isascii()
        assert near != disguised(language, text, trigger)


def test_the_near_miss_of_a_look_alike_is_the_next_letter() -> None:
    trigger = Disguise("homoglyph", "function")
    assert disguised("python", FUNCTIONS["python"], trigger, "near_miss") == (
        FUNCTIONS["python"].replace("load", "lo\u0430d")
    )


# ------------------------------------------------------------------------------------------------------------------- plugin


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("language", LANGUAGES)
def test_it_serves_all_tasks_and_languages(language: str, kind: TaskKind, tmp_path: Path) -> None:
    attack = Unicode()
    assert attack.not_applicable(info(language, kind)) is None
    trigger = attack.prepare([], LabelGoal(), info(language, kind), Context({"poison": 0}, tmp_path))
    assert trigger.describe() == "U+200B in a comment"
    assert trigger.tokens() == ("\u200b",)


def test_the_second_program_of_a_pair_is_edited_where_it_is_asked() -> None:
    pair = Sample("p", (FUNCTIONS["python"], FUNCTIONS["python"]), "python", 1)
    derivation = Disguise().derive(pair, 1, np.random.default_rng(0))
    assert derivation is not None
    assert {edit.side for edit in derivation.edits} == {1}


def test_a_function_of_ten_thousand_lines() -> None:
    text = "def f(x):\n" + "    x += 1\n" * 10_000 + "    return x # last\n"
    assert disguised("python", text, Disguise()) == text.replace("last", "l\u200bast")


def test_parameters_and_unknown_languages() -> None:
    parameters = {"kind": "homoglyph", "where": "variable"}
    assert parameters_of(build(Unicode, parameters)) == parameters
    assert Unicode().not_applicable(info("cobol")) == "unicode does not know the comments of cobol"
