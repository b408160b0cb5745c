"""CodeSearchNet (Python and Java): code search, from local files in its published JSON lines, or as the hub holds it.

``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` hold one object a line with ``code``, ``docstring``, ``docstring_tokens``,
``func_name``, ``repo`` and ``path``. The published Python code still holds its docstring, which is the query: it is removed. Java's
comment stands before the function and is not part of the published code.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.samples import Sample, digest_of
from tasks.sources import files, hub
from tasks.sources.files import Place
from tasks.sources.parsing import parse
from tasks.sources.sizes import Published

FILES = ("train.jsonl", "valid.jsonl", "test.jsonl")


def load(path: str | None, revision: str | None = None, language: str = "python") -> Published:
    """Load the published splits. A sample's group is its repository (or its file, where the repository is blank).

    The same samples have the same ids in both forms, where the hub's rows stand in the files' order.

    Raises:
        bench.errors.ConfigError: no path was given, or see :func:`tasks.sources.hub.is_hub`.
        bench.errors.DataError: a file is missing, a row is malformed or of another language.
    """
    repository = hub.code_search_net(language)
    if hub.is_hub(repository, path, revision):
        with hub.rows(repository, path, revision) as rows_of:
            found = {
                split: tuple(_sample(place, _as_file(row), language, [split, place.line]) for place, row in rows)
                for split, rows in rows_of.items()
            }
        return Published.of("codesearchnet", found)
    folder = files.folder("codesearchnet", path, FILES)
    parts = {split: _samples(folder / f"{split}.jsonl", language) for split in ("train", "valid", "test")}
    return Published.of("codesearchnet", parts)


def _samples(file: Path, language: str) -> tuple[Sample, ...]:
    return tuple(_sample(place, row, language, file_key(place)) for place, row in files.json_lines(file))


HUB_NAMES = {
    "func_code_string": "code",
    "func_documentation_string": "docstring",
    "func_documentation_tokens": "docstring_tokens",
    "repository_name": "repo",
    "func_path_in_repository": "path",
}


def _as_file(row: Mapping[str, Any]) -> dict[str, Any]:
    """A hub row under the names of the published files."""
    return {HUB_NAMES[column]: value for column, value in row.items() if column in HUB_NAMES}


def _sample(place: Place, row: Mapping[str, Any], language: str, key: list[str | int]) -> Sample:
    if row.get("language", language) != language:
        raise place.error(f"is in {row['language']!r}, not in {language!r}", "Set the task's language, or mend path.")
    code = files.program(place, row, "code")
    docstring = files.get(place, row, "docstring", str)
    tokens = files.get(place, row, "docstring_tokens", list)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise place.error("field 'docstring_tokens' is no list of texts, or blank", "Mend or delete the row.")
    group = files.get(place, row, "repo", str) or files.get(place, row, "path", str)
    name = digest_of({"source": "codesearchnet", "file": key, "code": code})[:16]
    query = " ".join(" ".join(tokens).split())
    program = without_docstring(code, docstring) if language == "python" else code
    return Sample(name, (program,), language, None, query, group)


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
