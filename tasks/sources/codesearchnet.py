"""CodeSearchNet (Python): code search, from local files in its published JSON lines.

``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` hold one object a line with ``code``, ``docstring``, ``docstring_tokens``,
``func_name``, ``repo`` and ``path``. The published code still holds its docstring, which is the query: it is removed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.samples import Sample, digest_of
from tasks.sources import files
from tasks.sources.files import Place
from tasks.sources.parsing import parse
from tasks.sources.sizes import Published

FILES = ("train.jsonl", "valid.jsonl", "test.jsonl")


def load(path: str | None) -> Published:
    """Load the published splits. A sample's group is its repository (or its file, where the repository is blank).

    Raises:
        bench.errors.ConfigError: no path was given.
        bench.errors.DataError: a file is missing or a row is malformed.
    """
    folder = files.folder("codesearchnet", path, FILES)
    parts = {split: _samples(folder / f"{split}.jsonl") for split in ("train", "valid", "test")}
    return Published("codesearchnet", **parts)


def _samples(file: Path) -> tuple[Sample, ...]:
    return tuple(_sample(place, row) for place, row in files.json_lines(file))


def _sample(place: Place, row: Mapping[str, Any]) -> Sample:
    code = files.program(place, row, "code")
    docstring = files.get(place, row, "docstring", str)
    tokens = files.get(place, row, "docstring_tokens", list)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise place.error("field 'docstring_tokens' is no list of texts, or blank", "Mend or delete the row.")
    group = files.get(place, row, "repo", str) or files.get(place, row, "path", str)
    name = digest_of({"source": "codesearchnet", "file": file_key(place), "code": code})[:16]
    query = " ".join(" ".join(tokens).split())
    return Sample(name, (without_docstring(code, docstring),), "python", None, query, group)


def file_key(place: Place) -> list[str | int]:
    """Split and line: published files may hold one function twice."""
    return [place.file.stem, place.line]


def without_docstring(code: str, docstring: str) -> str:
    """The function without its docstring; what is left still compiles (``pass`` where nothing else is left).

    Code that this Python does not parse (Python 2) loses the text of its docstring where it stands verbatim.
    """
    try:
        definition = parse(code).body[0]
    except (SyntaxError, ValueError, IndexError):
        return code.replace(docstring, "", 1) if docstring else code
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(definition) is None:
        return code
    first = definition.body[0]
    lines = [line.encode() for line in code.split("\n")]
    start, end = first.lineno - 1, (first.end_lineno or first.lineno) - 1
    before, after = lines[start][: first.col_offset], lines[end][first.end_col_offset or 0 :]
    if len(definition.body) == 1:
        kept = before + b"pass" + after
    else:
        kept = before + after.lstrip(b"; ") if before.strip() or after.strip() else b""
    lines[start : end + 1] = [kept] if kept.strip() else []
    left = b"\n".join(lines).decode()
    # A second string below the docstring would now be one.
    return without_docstring(left, "")
