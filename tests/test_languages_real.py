"""Laws of editing, held against real code; Python's own symbol tables are an independent judge of renames."""

from __future__ import annotations

import ast
import json
import os
import symtable
import textwrap
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from bench.languages import Name, Program, RenameRefused, get, parse, well_formed
from bench.samples import apply_edits

DATA = Path(__file__).parents[2] / "shared" / "data"


@cache
def python_functions() -> tuple[str, ...]:
    """Some hundred functions from all over the standard library."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))[::3]
    return tuple(text for path in files for text in islice(_functions_of(path), 12))


def _functions_of(path: Path) -> Iterator[str]:
    source = path.read_text(encoding="utf-8", errors="replace")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = textwrap.dedent(ast.get_source_segment(source, node, padded=True) or "")
            if get("python").broken(text) == 0:
                yield text


@cache
def published(language: str) -> tuple[str, ...]:
    """Functions of the benchmarks' published files, where they lie beside the repository."""
    path = DATA / ("devign/function.json" if language == "c" else "bigclonebench/data.jsonl")
    if not path.exists():
        pytest.skip(f"needs {path.parent.name} beside the repository")
    if language == "c":
        return tuple(row["func"] for row in json.loads(path.read_text(encoding="utf-8"))[:4000:10])
    with path.open(encoding="utf-8") as lines:
        return tuple(json.loads(line)["func"] for line in islice(lines, 0, 4000, 10))


def functions(language: str) -> tuple[str, ...]:
    return python_functions() if language == "python" else published(language)


def all_names(program: Program) -> tuple[Name, ...]:
    name = program.function_name
    return (*(() if name is None else (name,)), *program.parameters, *program.locals)


LANGUAGES = pytest.mark.parametrize("language", ["python", "java", "c"])


@LANGUAGES
def test_most_real_functions_can_be_edited(language: str) -> None:
    programs = [parse(language, text) for text in functions(language)]
    assert sum(bool(p.boundaries) for p in programs) > 0.9 * len(programs)
    assert sum(p.function_name is not None for p in programs) > 0.75 * len(programs)
    assert sum(bool(p.parameters or p.locals) for p in programs) > 0.75 * len(programs)


@LANGUAGES
def test_a_rename_there_and_back_is_the_identity(language: str) -> None:
    done = 0
    for text in functions(language):
        program = parse(language, text)
        for name in all_names(program)[:4]:
            new = "zq" + name.text
            after = apply_edits(text, program.rename(name, new))
            assert well_formed(language, text, after) is None
            renamed = parse(language, after)
            twin = next(n for n in all_names(renamed) if n.text == new and n.spans[0][0] == name.spans[0][0])
            assert twin.kind == name.kind
            assert apply_edits(after, renamed.rename(twin, name.text)) == text
            done += 1
    assert done > 200


@LANGUAGES
def test_a_rename_changes_only_its_spans(language: str) -> None:
    for text in functions(language)[::3]:
        program = parse(language, text)
        for name in all_names(program)[:3]:
            edits = program.rename(name, "zq_new")
            assert [(e.start, e.end) for e in edits] == list(name.spans)
            assert all(program.data[e.start : e.end].decode() == name.text for e in edits)
            after = parse(language, apply_edits(text, edits))
            old, new = program.leaves, after.leaves
            assert len(old) == len(new)
            starts = {start for start, _ in name.spans}
            assert all(b.text == ("zq_new" if a.start in starts else a.text) for a, b in zip(old, new, strict=True))


@LANGUAGES
def test_every_boundary_of_a_real_function_takes_a_statement(language: str) -> None:
    statement = "if 0:\n    zq = 1" if language == "python" else "if (0) {\n    zq = 1;\n}"
    for text in functions(language)[::2]:
        program = parse(language, text)
        for boundary in program.boundaries[:8]:
            edit = program.insert(boundary, statement)
            assert program.data[edit.start : edit.end].strip() == b""
            assert well_formed(language, text, apply_edits(text, [edit])) is None


@LANGUAGES
def test_leaves_and_comments_cover_a_real_function(language: str) -> None:
    for text in functions(language)[::3]:
        program = parse(language, text)
        spans = sorted([(leaf.start, leaf.end) for leaf in program.leaves] + list(program.comments))
        reached = 0
        for start, end in spans:
            assert not program.data[reached:start].strip(b" \t\r\n\f\\")
            assert start >= reached
            reached = end
        assert not program.data[reached:].strip(b" \t\r\n\f\\")


def test_a_renamed_python_function_is_the_same_tree_but_for_the_name() -> None:
    """Substituting the name back in the new syntax tree gives the old one."""
    for text in python_functions():
        program = parse("python", text)
        for name in all_names(program)[:6]:
            after = apply_edits(text, program.rename(name, "zq_new"))
            assert _dump(after, "zq_new", name.text) == _dump(text, "zq_new", name.text)


def _dump(text: str, new: str, old: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    for node in ast.walk(tree):
        for field in ("id", "arg", "name", "rest"):
            if getattr(node, field, None) == new:
                setattr(node, field, old)
    return ast.dump(tree)


def test_a_renamed_python_function_has_the_same_symbol_table() -> None:
    """Every symbol of every scope keeps what it is: local, free, global, parameter (CPython's own analysis)."""
    judged = 0
    for text in python_functions():
        program = parse("python", text)
        for name in all_names(program)[:6]:
            after = apply_edits(text, program.rename(name, "zq_new"))
            before_rows, after_rows = _symbols(text), _symbols(after)
            assert len(before_rows) == len(after_rows)
            for old, new in zip(before_rows, after_rows, strict=True):
                swapped = {(name.text if word == "zq_new" else word): kind for word, kind in new.items()}
                assert swapped == old
            judged += 1
    assert judged > 1000


def _symbols(text: str) -> list[dict[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = [symtable.symtable(text, "<program>", "exec")]
    rows: list[dict[str, str]] = []
    while tables:
        table = tables.pop(0)
        rows.append(
            {
                s.get_name(): f"{s.is_parameter():d}{s.is_local():d}{s.is_free():d}{s.is_global():d}{s.is_imported():d}"
                for s in table.get_symbols()
            }
        )
        tables += table.get_children()
    return rows


def test_a_rename_to_a_name_in_use_keeps_the_symbol_tables_or_is_refused() -> None:
    """The new name is taken from the program itself, so that clashes and captures are tried in earnest."""
    refused = accepted = 0
    for text in python_functions()[::2]:
        program = parse("python", text)
        words = sorted({leaf.text for leaf in program.leaves if leaf.type == "identifier"})
        for name in all_names(program)[:3]:
            for new in words[:12]:
                try:
                    after = apply_edits(text, program.rename(name, new))
                except RenameRefused:
                    refused += 1
                    continue
                accepted += 1
                neutral = apply_edits(text, program.rename(name, "zq_new"))
                assert _kinds(after) == _kinds(neutral)
    assert refused > 500
    assert accepted > 20


def _kinds(text: str) -> list[list[str]]:
    """What the symbols of every scope are, whatever they are called."""
    return [sorted(row.values()) for row in _symbols(text)]


@pytest.mark.parametrize("language", ["c", "java", "python"])
def test_the_start_of_a_body_is_its_first_boundary(language: str) -> None:
    for text in functions(language):
        program = parse(language, text)
        assert program.body_start == (program.boundaries[0] if program.boundaries else None)
