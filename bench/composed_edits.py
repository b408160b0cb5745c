"""Two lists of edits, one after the other, as one list of edits of the first text."""

from __future__ import annotations

from collections.abc import Sequence

from bench.samples import Edit, EditConflict

Piece = tuple[int, int] | bytes
"""A span of the original text, or new bytes."""


def compose_edits(text: str, first: Sequence[Edit], second: Sequence[Edit], side: int = 0) -> tuple[Edit, ...]:
    """Edits of ``text`` that do what ``first`` does to it, and then ``second`` to the outcome.

    Raises:
        EditConflict: the edits of one step overlap or leave their text.
    """
    whole = len(text.encode())
    pieces = _cut(_cut([(0, whole)], first), second)
    edits: list[Edit] = []
    reached, new = 0, b""
    for piece in [*pieces, (whole, whole)]:
        if isinstance(piece, bytes):
            new += piece
            continue
        start, end = piece
        if new or start > reached:
            edits.append(Edit(reached, start, new.decode(), side))
        reached, new = end, b""
    return tuple(edits)


def _cut(pieces: Sequence[Piece], edits: Sequence[Edit]) -> list[Piece]:
    """What becomes of a text, given as pieces, under edits whose spans refer to that text."""
    size = sum(map(_size, pieces))
    result: list[Piece] = []
    position = 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < position or edit.end < edit.start or edit.end > size:
            raise EditConflict(f"edit [{edit.start}, {edit.end}) overlaps another or leaves the text of {size} bytes")
        result += _between(pieces, position, edit.start)
        if edit.replacement:
            result.append(edit.replacement.encode())
        position = edit.end
    return result + _between(pieces, position, size)


def _between(pieces: Sequence[Piece], low: int, high: int) -> list[Piece]:
    """The part ``[low, high)`` of the text that the pieces spell."""
    found: list[Piece] = []
    at = 0
    for piece in pieces:
        start, end = max(low - at, 0), min(high - at, _size(piece))
        if start < end:
            found.append(piece[start:end] if isinstance(piece, bytes) else (piece[0] + start, piece[0] + end))
        at += _size(piece)
    return found


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
