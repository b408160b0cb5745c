"""A program before and after, line by line, with the changed parts of changed lines marked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

CONTEXT: Final = 3
"""Unchanged lines shown around a change."""
SHORT: Final = 12
"""Unchanged lines that are not worth leaving out."""
LONGEST: Final = 400
"""Characters of one line that are shown."""

Sign = Literal[" ", "-", "+", "…"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a diff: its sign, and its text in pieces that are changed or not.

    ``…`` stands for lines left out. Characters that do not print are spelled out, since an attack may consist of them.
    """

    sign: Sign
    pieces: tuple[tuple[str, bool], ...]
    before: int | None = None
    """Line number before; ``None`` for an added line."""
    after: int | None = None


def diff_lines(before: str, after: str) -> list[Line]:
    """The lines of a diff, whole programs shortened to the changes and :data:`CONTEXT` lines around them."""
    old, new = (text.replace("\r\n", "\n").removesuffix("\n").split("\n") for text in (before, after))
    lines: list[Line] = []
    operations = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for place, (what, i, j, k, m) in enumerate(operations):
        if what == "equal":
            lines += _context(old[i:j], i, k, first=place == 0, last=place == len(operations) - 1)
        else:
            lines += _changed(old[i:j], new[k:m], i, k)
    return lines


def _context(texts: Sequence[str], i: int, k: int, *, first: bool, last: bool) -> Iterator[Line]:
    head, tail = (0 if first else CONTEXT), (0 if last else CONTEXT)
    whole = len(texts) <= max(SHORT, head + tail + 1)
    for place, text in enumerate(texts):
        if whole or place < head or place >= len(texts) - tail:
            yield Line(" ", ((_printed(text), False),), i + place + 1, k + place + 1)
        elif place == head:
            left = len(texts) - head - tail
            yield Line("…", ((f"{left} unchanged lines", False),))


def _changed(old: Sequence[str], new: Sequence[str], i: int, k: int) -> Iterator[Line]:
    pairs = zip(old, new, strict=True) if len(old) == len(new) else ()
    marked = [_marked(one, other) for one, other in pairs]
    removed = [one for one, _ in marked] or [((_printed(text), True),) for text in old]
    added = [other for _, other in marked] or [((_printed(text), True),) for text in new]
    yield from (Line("-", pieces, before=i + place + 1) for place, pieces in enumerate(removed))
    yield from (Line("+", pieces, after=k + place + 1) for place, pieces in enumerate(added))


Pieces = tuple[tuple[str, bool], ...]


def _marked(old: str, new: str) -> tuple[Pieces, Pieces]:
    """Both lines in pieces; names and numbers are compared whole."""
    first, second = _words(old), _words(new)
    one: list[tuple[str, bool]] = []
    other: list[tuple[str, bool]] = []
    for what, i, j, k, m in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        one.append((_printed("".join(first[i:j])), what != "equal"))
        other.append((_printed("".join(second[k:m])), what != "equal"))
    return tuple(p for p in one if p[0]), tuple(p for p in other if p[0])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)


def _printed(text: str) -> str:
    shown = "".join(c if c.isprintable() or c == "\t" else f"\\u{ord(c):04x}" for c in text[:LONGEST])
    return shown + " …" * (len(text) > LONGEST)
