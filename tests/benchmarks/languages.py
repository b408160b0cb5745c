"""What editing and checking a function costs, in units of parsing it twice."""

from __future__ import annotations

import ast
import gc
import os
import textwrap
import time
import warnings
from pathlib import Path

import tree_sitter
import tree_sitter_python

from bench import languages
from bench.languages import RenameRefused
from bench.languages.python import broken
from bench.samples import Edit, apply_edits
from tests.benchmarks import Measure

FUNCTIONS = 2000
REPEATS = 5


def real_functions(count: int) -> list[str]:
    """The first ``count`` functions of three lines or more that compile on their own, from Python's own library."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(Path(os.__file__).parent.glob("*.py")):
            source = path.read_text(encoding="utf-8", errors="replace")
            for node in ast.walk(ast.parse(source)):
                if not isinstance(node, ast.FunctionDef):
                    continue
                text = textwrap.dedent(ast.get_source_segment(source, node, padded=True) or "")
                if text.count("\n") >= 2 and languages.get("python").broken(text) == 0:
                    found.append(text)
                    if len(found) == count:
                        return found
    return found


def edit(text: str) -> bool:
    """Rename one name, insert one statement, check the result; ``False`` where nothing could be edited."""
    program = languages.parse("python", text)
    edits: list[Edit] = []
    for name in program.locals + program.parameters:
        try:
            edits += program.rename(name, "replaced_name")
            break
        except RenameRefused:
            continue
    if program.body_start is not None:
        edits.append(program.insert(program.body_start, "if 0:\n    unused = 1"))
    after = apply_edits(text, edits)
    reason = languages.well_formed("python", text, after)
    if reason is not None:
        raise AssertionError(f"{reason}:\n{after}")
    return bool(edits)


def run() -> list[Measure]:
    """The cost of editing and checking in two readings: beside the parsing of the same function, and against a loop of its own.

    Processor time; the best of a few rounds each.
    """
    texts = real_functions(FUNCTIONS)
    side_by_side, alone = _side_by_side(texts), _alone(texts)
    title = f"editing and checking {len(texts)} functions / parsing them twice"
    return [
        Measure(title, side_by_side, at_most=3.0),
        Measure(f"{title}, in a loop that does nothing else", alone),
    ]


def _side_by_side(texts: list[str]) -> float:
    """A function is parsed twice, then edited and checked, before the next one.

    Both sides meet the machine in the same state: a loop of parsing alone keeps the grammar's tables in the fastest cache, which
    no program that does anything else can have.
    """
    parser = _parser()
    clock = time.process_time
    best_edit = best_parse = float("inf")
    for _ in range(REPEATS):
        _forget()
        editing = parsing = 0.0
        edited = 0
        for text in texts:
            data = text.encode()
            start = clock()
            parser.parse(data)
            parser.parse(data)
            middle = clock()
            edited += edit(text)
            editing += clock() - middle
            parsing += middle - start
        _demand_edits(edited, texts)
        best_edit, best_parse = min(best_edit, editing), min(best_parse, parsing)
    return best_edit / best_parse


def _alone(texts: list[str]) -> float:
    """The plain reading: every function is edited and checked, and in a separate loop every one is parsed twice."""
    parser = _parser()
    clock = time.process_time
    best_edit = best_parse = float("inf")
    for _ in range(REPEATS):
        _forget()
        start = clock()
        edited = sum(edit(text) for text in texts)
        middle = clock()
        for text in texts:
            data = text.encode()
            parser.parse(data)
            parser.parse(data)
        end = clock()
        _demand_edits(edited, texts)
        best_edit, best_parse = min(best_edit, middle - start), min(best_parse, end - middle)
    return best_edit / best_parse


def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))


def _forget() -> None:
    languages.parse.cache_clear()
    broken.cache_clear()
    gc.collect()


def _demand_edits(edited: int, texts: list[str]) -> None:
    if edited < 0.9 * len(texts):
        raise AssertionError(f"only {edited} of {len(texts)} functions could be edited")
