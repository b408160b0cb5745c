"""Programs before and after an attack, read from the page that ``codebackdoorbench validity --examples`` writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import DataError

_FENCE = re.compile(r"(?ms)^(`{3,})\w*\n(.*?)^\1$")
_DRAW = re.compile(r"^(`+)(.*)\1$", re.MULTILINE)
_ESCAPED = re.compile(r"\\([\\`*_|~<>#&$()])")


@dataclass(frozen=True)
class Example:
    """One program, before and after; or why there is none.

    Attributes:
        language: ``Python``, ``Java`` or ``C``.
        draw: what the trigger did, in words.
        before, after: the program; both empty where the attack has no example.
        missing: why there is none.
    """

    language: str
    draw: str = ""
    before: str = ""
    after: str = ""
    missing: str = ""


def read(path: Path) -> Mapping[str, tuple[Example, ...]]:
    """Attack -> one example a language; empty where there is no such page.

    Raises:
        DataError: a section of the page has no two programs, and no reason why.
    """
    if not path.is_file():
        return {}
    found = {}
    for section in _sections(path.read_text(encoding="utf-8"), "##"):
        title, body = section
        name = _ESCAPED.sub(r"\1", title).partition("[")[0]
        found[name] = tuple(_example(language, text, path, name) for language, text in _sections(body, "###"))
    return found


def _sections(text: str, mark: str) -> list[tuple[str, str]]:
    """(title, body) of every section of one level, headings inside code left alone."""
    places = [(m.start(), m.end()) for m in _FENCE.finditer(text)]
    heads = [
        m
        for m in re.finditer(rf"(?m)^{mark} (.+)$", text)
        if not any(start <= m.start() < end for start, end in places)
    ]
    ends = [m.start() for m in heads[1:]] + [len(text)]
    return [(head[1], text[head.end() : end].strip("\n")) for head, end in zip(heads, ends, strict=True)]


def _example(language: str, text: str, path: Path, attack: str) -> Example:
    programs = [m[2] for m in _FENCE.finditer(text)]
    if not programs:
        return Example(language, missing=_ESCAPED.sub(r"\1", text.strip()))
    draw = _DRAW.search(text.partition("Before:")[0])
    if len(programs) != 2 or draw is None:
        raise DataError(
            f"{path}, {attack}, {language}: no two programs with a line that says what was drawn; make the page again with "
            "codebackdoorbench validity --examples"
        )
    said = draw[2][1:-1] if draw[2].startswith(" `") or draw[2].endswith("` ") else draw[2]
    return Example(language, said, *programs)
