"""How much a set of edits changes: in tokens and in characters."""

from __future__ import annotations

from collections.abc import Sequence

from bench.languages import Leaf, parse
from bench.samples import Edit, apply_edits


def changed_characters(before: str, edits: Sequence[Edit]) -> int:
    """Characters inserted, deleted or replaced, after what an edit leaves as it is at its ends (``f`` -> ``f_rb`` is three)."""
    data = before.encode()
    return sum(_differing(data[e.start : e.end].decode(), e.replacement) for e in edits)


def _differing(old: str, new: str) -> int:
    """The longer of what is left of both texts without their common beginning and end."""
    most = min(len(old), len(new))
    front = next((i for i in range(most) if old[i] != new[i]), most)
    most -= front
    back = next((i for i in range(most) if old[-1 - i] != new[-1 - i]), most)
    return max(len(old), len(new)) - front - back


def changed_tokens(language: str, before: str, edits: Sequence[Edit]) -> int:
    """Tokens inserted, deleted or replaced: the leaves that the edits touch, in the program before or after, whichever is more.

    Comments and white space are no tokens.
    """
    old, new, shift = [], [], 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        size = len(edit.replacement.encode())
        old.append((edit.start, edit.end))
        new.append((edit.start + shift, edit.start + shift + size))
        shift += size - (edit.end - edit.start)
    after = apply_edits(before, edits)
    return max(_touched(parse(language, before).leaves, old), _touched(parse(language, after).leaves, new))


def _touched(leaves: Sequence[Leaf], spans: Sequence[tuple[int, int]]) -> int:
    """Leaves that share a byte with a span; both in order."""
    spans = [span for span in spans if span[0] < span[1]]
    count, place = 0, 0
    for leaf in leaves:
        while place < len(spans) and spans[place][1] <= leaf.start:
            place += 1
        count += place < len(spans) and spans[place][0] < leaf.end
    return count
