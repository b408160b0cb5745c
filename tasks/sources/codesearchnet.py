"""CodeSearchNet (Python and Java): code search, from local files in its published JSON lines, or as the hub holds it.

``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` hold one object a line with ``code``, ``docstring``, ``docstring_tokens``,
``func_name``, ``repo`` and ``path``. The published Python code still holds its docstring, which is the query: it is removed. Java's
comment stands before the function and is not part of the published code.

Part of the published Python is Python 2, which this Python does not parse. Its docstring is removed all the same; where none is found and
the query stands in the program, the sample is left out, and counted in the facts of the data (:data:`LEFT_OUT`).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.samples import Sample, digest_of
from tasks.sources import files, hub
from tasks.sources.files import Place
from tasks.sources.parsing import parse
from tasks.sources.sizes import Published

FILES = ("train.jsonl", "valid.jsonl", "test.jsonl")
DOCSTRINGS = "2"
"""Version of how docstrings are removed, for the key of Python data: the first left those of Python 2 in its programs."""
LEFT_OUT = "query in program"
"""Under this name the facts of the data tell how many samples of each split those are; where there are none, nothing."""


def load(path: str | None, revision: str | None = None, language: str = "python") -> Published:
    """Load the published splits. A sample's group is its repository (or its file, where the repository is blank).

    The same samples have the same ids in both forms, where the hub's rows stand in the files' order.

    Raises:
        bench.errors.ConfigError: no path was given, or see :func:`tasks.sources.hub.is_hub`.
        bench.errors.DataError: a file is missing, a row is malformed or of another language.
    """
    repository = hub.code_search_net(language)
    if hub.is_hub(repository, path, revision, FILES):
        with hub.rows(repository, path, revision) as rows_of:
            found = {
                split: [_sample(place, _as_file(row), language, [split, place.line]) for place, row in rows]
                for split, rows in rows_of.items()
            }
        return _published(found)
    folder = files.folder("codesearchnet", path, FILES)
    parts = {split: _samples(folder / f"{split}.jsonl", language) for split in ("train", "valid", "test")}
    return _published(parts)


def _published(parts: Mapping[str, Sequence[Sample | None]]) -> Published:
    """The samples that there are; ``None`` stands for one that is left out."""
    data = Published.of("codesearchnet", {split: [s for s in part if s is not None] for split, part in parts.items()})
    counts = {split: sum(sample is None for sample in part) for split, part in parts.items()}
    return replace(data, facts={LEFT_OUT: counts}) if any(counts.values()) else data


def _samples(file: Path, language: str) -> list[Sample | None]:
    return [_sample(place, row, language, file_key(place)) for place, row in files.json_lines(file)]


HUB_NAMES = {
    "func_code_string": "code",
    "func_documentation_string": "docstring",
    "func_documentation_tokens": "docstring_tokens",
    "repository_name": "repo",
    "func_path_in_repository": "path",
    "language": "language",
}


def _as_file(row: Mapping[str, Any]) -> dict[str, Any]:
    """A hub row under the names of the published files."""
    return {HUB_NAMES[column]: value for column, value in row.items() if column in HUB_NAMES}


def _sample(place: Place, row: Mapping[str, Any], language: str, key: list[str | int]) -> Sample | None:
    if row.get("language", language) != language:
        raise place.error(f"is in {row['language']!r}, not in {language!r}", "Set the task's language, or mend path.")
    code = files.program(place, row, "code")
    files.get(place, row, "docstring", str)
    tokens = files.get(place, row, "docstring_tokens", list)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise place.error("field 'docstring_tokens' is no list of texts, or blank", "Mend or delete the row.")
    group = files.get(place, row, "repo", str) or files.get(place, row, "path", str)
    name = digest_of({"source": "codesearchnet", "file": key, "code": code})[:16]
    query = " ".join(" ".join(tokens).split())
    program = without_docstring(code, query) if language == "python" else code
    return None if program is None else Sample(name, (program,), language, None, query, group)


def file_key(place: Place) -> list[str | int]:
    """Split and line: published files may hold one function twice."""
    return [place.file.stem, place.line]


def without_docstring(code: str, query: str) -> str | None:
    """The function without its docstring; what is left still compiles (``pass`` where nothing else is left), if the function did.

    Returns:
        ``None`` where the query stands in code that this Python does not parse (Python 2), and that does not begin with a docstring.
    """
    try:
        body = parse(code).body
    except (SyntaxError, ValueError, RecursionError):
        body = []
    found = _docstring(body[0], code) if body else _first_string(code)
    if found is None:
        return None if not body and _holds(code, query) else code
    # A second string below the docstring would now be one.
    return without_docstring(_cut(code, *found), "")


Span = tuple[tuple[int, int], tuple[int, int], bool]
"""Line (from 0) and byte in it where a docstring begins, where it ends, and whether it is the whole body."""


def _docstring(definition: ast.stmt, code: str) -> Span | None:
    """The docstring of a function that parses."""
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(definition) is None:
        return None
    first = definition.body[0]
    end = (first.end_lineno or first.lineno) - 1, first.end_col_offset or 0
    return (first.lineno - 1, first.col_offset), end, len(definition.body) == 1


_BETWEEN = frozenset({tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.INDENT})
_LITERAL = re.compile(r"[rub]*['\"]", re.IGNORECASE)  # no f-string, which is no docstring
_PYTHON_2_PREFIX = re.compile(r"ur", re.IGNORECASE)


def _first_string(code: str) -> Span | None:
    """The docstring of a function that does not parse: the string that its body begins with, whatever follows.

    The lexer is asked no further than that, and so sees nothing of the Python 2 below. (``docstring`` of the published row is no help: it
    is dedented, and so does not stand verbatim in the code.)
    """
    tokens = _tokens(code)
    depth = 0
    if not any(token.type == tokenize.NAME and token.string == "def" for token in tokens):
        return None
    for token in tokens:
        depth += (token.string in ("(", "[", "{")) - (token.string in (")", "]", "}"))
        if token.string == ":" and not depth:
            break
    start, end = None, None
    for token in tokens:
        string = token.type == tokenize.STRING and _LITERAL.match(token.string)
        if start is None and token.type in _BETWEEN:
            continue
        if not string and not (token.type == tokenize.NAME and _PYTHON_2_PREFIX.fullmatch(token.string)):
            if start is None or (token.string not in (";", "") and token.type not in _BETWEEN):
                return None  # it begins with something else, or the string is only a part of it
            break
        start = start or token.start
        end = token.end if string else end
    if start is None or end is None:
        return None
    lines = code.split("\n")
    rest = "\n".join([lines[end[0] - 1][end[1] :].lstrip("; "), *lines[end[0] :]])
    alone = all(line.strip() == "" or line.lstrip().startswith("#") for line in rest.split("\n"))
    at, to = ((row - 1, len(lines[row - 1][:column].encode())) for row, column in (start, end))
    return at, to, alone


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    """Python's tokens, up to where its lexer gives up."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (SyntaxError, tokenize.TokenError):
        return


def _holds(code: str, query: str) -> bool:
    """Do the query's words stand in the code in their order, with nothing but spaces and punctuation between them?"""
    words, wanted = (" ".join(re.findall(r"\w+", text)) for text in (code, query))
    return bool(wanted) and f" {wanted} " in f" {words} "


def _cut(code: str, at: tuple[int, int], to: tuple[int, int], alone: bool) -> str:
    """The code without what stands between two places."""
    lines = [line.encode() for line in code.split("\n")]
    (start, column), (end, end_column) = at, to
    before, after = lines[start][:column], lines[end][end_column:]
    after = b"pass" + after if alone else after.lstrip(b"; ")
    kept = before + after
    lines[start : end + 1] = [kept] if kept.strip() else []
    return b"\n".join(lines).decode()
