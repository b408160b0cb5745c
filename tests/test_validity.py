"""The judge of validity finds what is wrong with a program, passes what is right, and its table and examples say so."""

from __future__ import annotations

import ast
import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from attacks.dead_code import DeadStatement
from attacks.renaming import FunctionName
from bench.contracts import Derivation, Trigger
from bench.errors import ConfigError, DataError, StoreError
from bench.languages import names, parse
from bench.plugins import Registry
from bench.samples import Edit, Sample
from bench.validity import entries, judged, show_validity, write_examples
from bench.validity.examples import inline
from bench.validity.fixtures import FIXTURES
from bench.validity.judging import Judgement, gcc_accepts, judge
from bench.validity.programs import TRAINING, corpus, fixtures
from bench.validity.table import ValidityRow, cells, fenced, to_csv, to_markdown

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler (gcc) on this machine")
needs_javac = pytest.mark.skipif(shutil.which("javac") is None, reason="no Java compiler (javac) on this machine")


@dataclass(frozen=True)
class Writes(Trigger):
    """Does what a function says: the text before in, edits out."""

    edits: Callable[[str], list[Edit]]

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        edits = self.edits(sample.programs[side])
        return Derivation(tuple(edits), "written") if edits else None


def sample(text: str, language: str = "python") -> Sample:
    return Sample("ab" * 8, (text,), language, label=1)


def put(text: str) -> Trigger:
    """Insert a text at the beginning."""
    return Writes(lambda before: [Edit(0, 0, text)])


def swap(old: str, new: str) -> Trigger:
    """Textual replacement, blind to scopes."""

    def edits(before: str) -> list[Edit]:
        places = [i for i in range(len(before)) if before.startswith(old, i)]
        return [Edit(i, i + len(old), new) for i in places]

    return Writes(edits)


# -------------------------------------------------------------------------------------------------------------- the judge


def test_a_trigger_that_does_not_apply_or_changes_nothing_has_no_place() -> None:
    assert judge(swap("absent", "x"), sample("x = 1\n")).outcome == "no place"
    assert judge(swap("x", "x"), sample("x = 1\n")).outcome == "no place"
    assert judge(FunctionName("testo_init"), sample("")).outcome == "no place"


@pytest.mark.parametrize(
    ("trigger", "text", "language", "reason"),
    [
        (put("def ("), "x = 1\n", "python", "2 syntax error node"),
        (put("return 1\n"), "x = 1\n", "python", "no longer compiles"),
        (put("int ("), "int f(void) { return 1; }\n", "c", "syntax error node"),
        (put("int ("), "int f() { return 1; }\n", "java", "syntax error node"),
        (Writes(lambda text: [Edit(0, 99, "")]), "x = 1\n", "python", "do not apply"),
        (Writes(lambda text: [Edit(0, 3, "a"), Edit(2, 4, "b")]), "x = 1\n", "python", "do not apply"),
    ],
)
def test_an_edit_that_breaks_the_program_is_refused_with_its_reason(
    trigger: Trigger, text: str, language: str, reason: str
) -> None:
    judgement = judge(trigger, sample(text, language))
    assert judgement.outcome == "refused"
    assert reason in judgement.reason
    assert not judgement.valid


@needs_gcc
def test_c_must_compile_where_it_did() -> None:
    good = "int f(int a)\n{\n    return a;\n}\n"
    undeclared = judge(swap("return a", "return b"), sample(good, "c"))
    assert (undeclared.compiles, undeclared.valid) == (False, False)
    assert "gcc refuses" in undeclared.reason
    kept = judge(DeadStatement("c"), sample(good, "c"))
    assert (kept.compiles, kept.valid) == (True, True)
    alone = judge(DeadStatement("c"), sample("foo_t f(foo_t a)\n{\n    return a;\n}\n", "c"))
    assert (alone.compiles, alone.valid) == (None, True)  # its types are in a header nobody has


@needs_gcc
def test_gcc_is_asked_for_syntax_and_not_for_headers() -> None:
    assert gcc_accepts("int f(void) { return unknown_function(1); }")
    assert not gcc_accepts("int f(void) { return unknown_variable; }")


@pytest.mark.parametrize("language", ["python", "java"])
def test_only_c_is_asked_to_compile_with_gcc(language: str) -> None:
    text = {"python": "def f(a):\n    return a\n", "java": "int f(int a) {\n    return a;\n}\n"}[language]
    assert judge(DeadStatement(language), sample(text, language)).compiles is None


METHOD = "def f(v):\n    class C:\n        def v(self):\n            return (v)\n    return C\n"
BOUND = "def f(x):\n    y = 1\n    return x + y\n"


@pytest.mark.parametrize(
    ("trigger", "text", "structure"),
    [
        (swap("x", "z"), BOUND, True),
        (swap("x", "y"), BOUND, False),  # two names become one
        (swap("f(", "len("), "def f(x):\n    return len(x)\n", False),  # a builtin is captured
        (FunctionName("testo_init"), "def f(x):\n    return f(x)\n", True),
        (swap("x", "z"), "def g(a):\n    return a.x\n", False),  # an attribute is no name of the program's own
        (swap("x", "z"), "def g(a):\n    return a + x\n", False),  # a name of the module's
        # Beside other.f(a=a) the parameter a was not sure to be renameable; beside no other f it is.
        (FunctionName("testo_init"), "def f(a):\n    return other.f(a=a)\n", True),
        # A class has an attribute called as a variable around it, which a method reads: the rename parts the two.
        (swap("(v)", "(z)"), METHOD, True),
        (swap("def v", "def z"), METHOD, False),
        (put("# boom\n"), BOUND, None),
        (swap("1", "2"), BOUND, None),
    ],
)
def test_a_rename_must_bind_the_same_places(trigger: Trigger, text: str, structure: bool | None) -> None:
    judgement = judge(trigger, sample(text))
    assert judgement.structure is structure
    assert judgement.valid is (structure is not False)


def test_a_capture_is_found_in_c_and_java_too() -> None:
    for language in ("c", "java"):
        text = "int f(int x) {\n    int y = 1;\n    return x + y;\n}\n"
        assert judge(swap("x", "z"), sample(text, language)).structure is True
        assert judge(swap("x", "y"), sample(text, language)).structure is False


def test_twice_tells_what_the_trigger_does_to_its_own_outcome() -> None:
    text = "def f(x):\n    return x\n"
    assert judge(FunctionName("testo_init"), sample(text)).twice == "not again"
    assert judge(put("y = 1\n"), sample(text)).twice == "again"

    def once(before: str) -> list[Edit]:
        return [Edit(0, 0, "def (" if before.startswith("y") else "y = 1\n")]

    broken = judge(Writes(once), sample(text))
    assert (broken.twice, broken.valid) == ("broken", False)
    assert "its own outcome" in broken.reason


def test_a_trigger_that_draws_from_elsewhere_cannot_be_applied_anew() -> None:
    count = iter(range(9))
    judgement = judge(Writes(lambda text: [Edit(0, 0, f"y = {next(count)}\n")]), sample("x = 1\n"))
    assert (judgement.restored, judgement.valid) == (False, False)


def test_a_judgement_keeps_the_program_and_the_draw() -> None:
    judgement = judge(FunctionName("testo_init"), sample("def f(x):\n    return x\n"))
    assert judgement.after == "def testo_init(x):\n    return x\n"
    assert judgement.text == "f -> testo_init"
    assert (judgement.restored, judgement.structure, judgement.twice) == (True, True, "not again")


# --------------------------------------------------------------------------------------------------------------- fixtures


def test_every_language_has_fixtures_that_parse() -> None:
    assert set(FIXTURES) == set(names())
    for language, texts in FIXTURES.items():
        assert len(set(texts)) == len(texts) >= 12
        assert all(parse(language, text).error_nodes == 0 for text in texts)
    for text in FIXTURES["python"]:
        ast.parse(text)


@needs_gcc
@pytest.mark.parametrize("text", FIXTURES["c"])
def test_c_fixtures_compile(text: str) -> None:
    assert gcc_accepts(text)


@needs_javac
def test_java_fixtures_compile_in_a_class(tmp_path: Path) -> None:
    file = tmp_path / "Fixtures.java"
    file.write_text("class Fixtures {\n" + "\n".join(FIXTURES["java"]) + "}\n", encoding="utf-8")
    done = subprocess.run(["javac", "-d", str(tmp_path), str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_training_fixtures_have_both_classes_and_one_id_each() -> None:
    found = fixtures("c")
    assert len(found.training) >= TRAINING
    assert len({s.id for s in found.training}) == len(found.training)
    assert sum(s.label == 1 for s in found.training) * 2 == len(found.training)


# ------------------------------------------------------------------------------------------------------------ the corpora


def registry() -> Registry:
    return Registry().discover()


def test_published_files_are_used_where_they_are_and_fixtures_elsewhere(tmp_path: Path) -> None:
    """Devign's and Juliet's layout, by hand: programs come from both, in turn, each once."""
    for folder, prefix in (("devign", "d"), ("juliet-c", "j")):
        (tmp_path / folder).mkdir()
        rows = [
            {"project": "p", "commit_id": str(i), "target": i % 2, "func": f"int {prefix}{i}(void) {{ return {i}; }}"}
            for i in range(6)
        ]
        (tmp_path / folder / "function.json").write_text(json.dumps([*rows, *rows[:1]]), encoding="utf-8")
        for part, numbers in {"train": range(4), "valid": range(4, 5), "test": range(5, 7)}.items():
            (tmp_path / folder / f"{part}.txt").write_text("".join(f"{i}\n" for i in numbers), encoding="utf-8")
    found = corpus("c", 8, tmp_path, registry())
    texts = [s.programs[0] for s in found.programs]
    assert len(set(texts)) == 8
    assert [text[4] for text in texts] == ["d", "j"] * 4
    assert "Devign" in found.origin
    assert "Juliet" in found.origin
    assert len(corpus("c", 99, tmp_path, registry()).programs) == 12
    assert "fixtures" in corpus("java", 8, tmp_path, registry()).origin
    assert "fixtures" in corpus("c", 8, None, registry()).origin
    (tmp_path / "devign" / "function.json").write_text("[{]", encoding="utf-8")
    with pytest.raises(DataError, match=r"function\.json"):
        corpus("c", 8, tmp_path, registry())


# -------------------------------------------------------------------------------------------------------------- the table


GOOD = Judgement("applied", compiles=True, restored=True, twice="again", structure=None, after="ok")
ROW = ValidityRow(
    "a[b=1]",
    "c",
    "here",
    (
        GOOD,
        GOOD,
        Judgement("applied", "gcc refuses it", False, True, "not again", True, after="x = ```1```;"),
        Judgement("refused", "3 syntax error nodes, 1 before"),
        Judgement("refused", "2 syntax error nodes, 0 before"),
        Judgement("no place"),
    ),
)


def test_a_row_counts_what_happened() -> None:
    assert cells(ROW) == ["a[b=1]", "c", "6", "3", "2", "2", "1", "2 / 3", "3 / 3", "1 / 1", "1 / 2 / 0"]
    assert ROW.reasons() == {"gcc refuses it": 1, "n syntax error nodes, n before": 2}
    missing = ValidityRow("a", "java", missing="not applicable: no Java")
    assert cells(missing)[2:4] == ["not applicable: no Java", ""]


def test_the_table_as_markdown_and_csv_says_the_same() -> None:
    rows = [ROW, ValidityRow("a", "java", missing="not applicable")]
    text = to_markdown(rows, "the command")
    assert "2 / 3" in text
    assert "gcc refuses it: 1" in text
    assert "````c\nx = ```1```;\n````" in text  # the program cannot end its block
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert (read[0]["applied"], read[0]["valid"], read[0]["compiles_passed"], read[0]["twice_again"]) == (
        *("3", "2"),
        *("2", "2"),
    )
    assert (read[1]["missing"], read[1]["applied"]) == ("not applicable", "")


def test_a_code_block_is_longer_than_what_it_holds() -> None:
    assert fenced("x", "c") == "```c\nx\n```"
    assert fenced("a ```` b").startswith("`````\n")
    assert inline("x") == "`x`"
    assert inline("`x") == "`` `x ``"


def test_an_attack_that_raises_has_a_row_and_the_others_are_judged(tmp_path: Path) -> None:
    plugin = tmp_path / "raising.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from bench.contracts import Attack, Trigger\n"
        "class Bad(Trigger):\n"
        "    def derive(self, sample, side, rng):\n"
        "        raise KeyError('oh')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Raising(Attack):\n"
        "    name = 'raising'\n"
        "    early: bool = False\n"
        "    def prepare(self, train, goal, task, context):\n"
        "        if self.early:\n"
        "            raise ZeroDivisionError('early')\n"
        "        return Bad()\n",
        encoding="utf-8",
    )
    found = registry()
    found.add_file(plugin)
    late, early = entries(found, ["raising", "raising[early=true]"], variants=False)
    row = judged(found, late, fixtures("python"))
    assert row.raised
    assert "raised KeyError in program" in row.missing
    assert "raised ZeroDivisionError in its preparation" in judged(found, early, fixtures("python")).missing
    assert [e.title for e in entries(found, ["raising"], variants=True)] == ["raising", "raising[early=true]"]
    console = Console(file=io.StringIO(), width=200)
    status = show_validity(found, ["raising", "renaming"], ["python"], 9, None, False, tmp_path, console)
    assert status == 1


def test_fixtures_pass_and_the_command_writes_its_table(tmp_path: Path) -> None:
    out = io.StringIO()
    attacks = ["dead_code", "renaming"]
    status = show_validity(registry(), attacks, ["java", "c"], 9, None, False, tmp_path, Console(file=out, width=200))
    assert status == 0
    rows = list(csv.DictReader((tmp_path / "validity.csv").open(encoding="utf-8")))
    assert [(row["attack"], row["language"]) for row in rows] == [(a, x) for a in attacks for x in ("java", "c")]
    assert all(row["valid"] == row["applied"] == "12" for row in rows)
    text = (tmp_path / "validity.md").read_text(encoding="utf-8")
    assert "--attack dead_code --attack renaming --language java --language c --programs 9" in text
    assert "renaming" in out.getvalue()


def test_wrong_options_are_errors_with_a_suggestion(tmp_path: Path) -> None:
    def show(attack: str, language: str, data: Path | None = None, results: Path = tmp_path) -> None:
        console = Console(file=io.StringIO())
        show_validity(registry(), [attack], [language], 3, data, False, results, console)

    with pytest.raises(ConfigError, match=r"unknown attack 'renamming'.*renaming"):
        show("renamming", "c")
    with pytest.raises(ConfigError, match=r"no parameter 'identifer'.*identifier"):
        show("renaming[identifer=x]", "c")
    with pytest.raises(ConfigError, match="is not a plugin"):
        show("renaming[", "c")
    with pytest.raises(ConfigError, match=r"'jav' is none of.*java"):
        show("renaming", "jav")
    with pytest.raises(ConfigError, match="there is no such folder"):
        show("renaming", "c", tmp_path / "absent")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        show("renaming", "c", None, tmp_path / "file")


def test_every_attack_of_the_project_but_the_null_is_judged_unless_some_are_named() -> None:
    chosen = [entry.name for entry in entries(registry(), [], variants=False)]
    assert "none" not in chosen
    assert {"dead_code", "renaming", "badcode", "composite"} <= set(chosen)
    assert len(chosen) == len(set(chosen))


# --------------------------------------------------------------------------------------------------------------- examples


def test_examples_show_a_program_before_and_after_in_each_language(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "examples.md"
    write_examples(registry(), ["renaming", "dead_code"], page)
    text = page.read_text(encoding="utf-8")
    assert text.count("## renaming") == text.count("## dead_code") == 1
    assert [text.count(f"### {name}") for name in ("Python", "Java", "C")] == [2, 2, 2]
    assert text.count("Before:") == text.count("After:") == 6
    assert "def testo_init(" in text
    assert "`checksum -> testo_init`" in text  # the shortest of several lines
    assert "--examples --attack renaming --attack dead_code" in text
    before = page.read_bytes()
    write_examples(registry(), ["renaming", "dead_code"], page)
    assert page.read_bytes() == before
