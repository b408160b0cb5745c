"""Tie groups: letters that two items share exactly where they are not told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations


def tie_groups(
    items: Sequence[str], different: Mapping[tuple[str, str], bool], *, most: int | None = None
) -> dict[str, str]:
    """Compact letter display (Piepho 2004, insert and absorb): two items share a letter iff they are not told apart.

    Args:
        items: from best to worst; letters are given in this order.
        different: for pairs (in either order), whether a test tells them apart; a missing pair is not told apart.
        most: with more groups than this nothing is returned.
    """
    sets: list[set[str]] = [set(items)] if items else []
    for one, other in combinations(items, 2):
        if not (different.get((one, other)) or different.get((other, one))):
            continue
        split = [part - {drop} for part in sets if {one, other} <= part for drop in (one, other)]
        sets = _without_subsets([part for part in sets if not {one, other} <= part] + split)
    if most is not None and len(sets) > most:
        return {}
    order = {item: place for place, item in enumerate(items)}
    sets.sort(key=lambda part: sorted(order[item] for item in part))
    return {item: "".join(_letter(place) for place, part in enumerate(sets) if item in part) for item in items}


def _without_subsets(sets: list[set[str]]) -> list[set[str]]:
    kept: list[set[str]] = []
    for part in sorted(sets, key=len, reverse=True):
        if part and not any(part <= other for other in kept):
            kept.append(part)
    return kept


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"({place + 1})"
