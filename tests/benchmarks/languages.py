"""What editing and checking a function costs, in units of parsing it twice."""

from __future__ import annotations

import ast
import gc
import os
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import tree_sitter
import tree_sitter_python

from bench import languages
from bench.languages import RenameRefused
from bench.languages.python import broken
from bench.samples import Edit, apply_edits

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
    if program.boundaries:
        edits.append(program.insert(program.boundaries[0], "if 0:\n    unused = 1"))
    after = apply_edits(text, edits)
    reason = languages.well_formed("python", text, after)
    if reason is not None:
        raise AssertionError(f"{reason}:\n{after}")
    return bool(edits)


def _seconds(work: Callable[[], None]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def run() -> list[tuple[str, float, float]]:
    """(name, measured ratio, bound): the best of a few rounds each, in one process, rounds interleaved."""
    texts = real_functions(FUNCTIONS)
    data = [text.encode() for text in texts]
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))

    def parse_twice() -> None:
        for source in data:
            parser.parse(source)
            parser.parse(source)

    def edit_all() -> None:
        languages.parse.cache_clear()
        broken.cache_clear()
        edited = sum(edit(text) for text in texts)
        if edited < 0.9 * len(texts):
            raise AssertionError(f"only {edited} of {len(texts)} functions could be edited")

    rounds = [(_seconds(edit_all), _seconds(parse_twice)) for _ in range(REPEATS)]
    ratio = min(r[0] for r in rounds) / min(r[1] for r in rounds)
    return [(f"editing and checking {len(texts)} functions / parsing them twice", ratio, 3.0)]
