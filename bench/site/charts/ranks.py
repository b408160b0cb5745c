"""The critical-difference diagram, laid on its side: mean ranks with intervals, and bars that join defenses not told apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bench.board.blocks import BlockSummary
from bench.site import words
from bench.site.scale import Axis
from bench.site.svg import element, picture

_ROW, _TOP, _NAMES, _WIDTH, _GROUP = 24.0, 40.0, 150.0, 480.0, 14.0
_LONGEST = 22


@dataclass(frozen=True, slots=True)
class Ranked:
    """One defense on the diagram."""

    defense: str
    rank: float
    low: float | None
    """Interval of the mean rank: what is drawn on its axis."""
    high: float | None
    groups: frozenset[str]
    """Names of the tie groups it is in."""
    places: tuple[float, float] | None = None
    """Interval of its place, told in words: another quantity."""


def ranked(blocks: Sequence[BlockSummary]) -> list[Ranked]:
    """The defenses that have a mean rank, best first."""
    found = [
        Ranked(
            one.defense,
            one.mean_rank,
            one.mean_rank_low,
            one.mean_rank_high,
            frozenset(_letters(one.group)),
            None if one.rank_low is None or one.rank_high is None else (one.rank_low, one.rank_high),
        )
        for one in blocks
        if one.mean_rank is not None
    ]
    return sorted(found, key=lambda one: (one.rank, one.defense))


def tie_bars(found: Sequence[Ranked]) -> list[tuple[str, list[int]]]:
    """(letter, places of its members in the order given) of each group of two or more."""
    letters = sorted({letter for one in found for letter in one.groups}, key=lambda s: (len(s), s))
    groups = [(letter, [i for i, one in enumerate(found) if letter in one.groups]) for letter in letters]
    return [(letter, places) for letter, places in groups if len(places) > 1]


def rank_chart(found: Sequence[Ranked], title: str) -> Markup | None:
    """The diagram; ``None`` where nothing is ranked."""
    if not found:
        return None
    bars = tie_bars(found)
    right = _WIDTH - 12 - _GROUP * max(len(bars), 1)
    height = _TOP + _ROW * len(found) + 10
    last = max(len(found), 2)
    step = 1 if last <= 10 else 5 if last <= 40 else 10
    axis = Axis(1, last, tuple(float(n) for n in range(1, last + 1) if n == 1 or n % step == 0))

    def across(rank: float) -> float:
        return _NAMES + 8 + axis.place(rank) * (right - _NAMES - 24)

    parts = [element("text", "mean rank (1 is best)", x=(_NAMES + right) / 2, y=12, cls="label middle")]
    for tick in axis.ticks:
        x = across(tick)
        parts.append(element("line", x1=x, x2=x, y1=_TOP - 6, y2=height - 8, cls="grid"))
        parts.append(element("text", f"{tick:g}", x=x, y=_TOP - 11, cls="tick middle"))
    for place, one in enumerate(found):
        parts += _defense(one, across, _TOP + _ROW * (place + 0.5))
    for number, (letter, places) in enumerate(bars):
        x = right + 6 + _GROUP * number
        parts += _bar(letter, [_TOP + _ROW * (p + 0.5) for p in places], x)
    told = "; ".join(f"{one.defense} {one.rank:.2f}" for one in found)
    ties = "; ".join("not told apart: " + ", ".join(found[p].defense for p in places) for _, places in bars)
    return picture(_WIDTH, height, title, f"Mean ranks: {told}. {ties}", parts, "ranks")


def _defense(one: Ranked, across: Callable[[float], float], y: float) -> list[Markup]:
    name = one.defense if len(one.defense) <= _LONGEST else one.defense[: _LONGEST - 1] + "…"
    interval = ""
    parts = [
        element("text", element("title", one.defense), name, x=_NAMES - 8, y=y + 4, cls="name end"),
    ]
    if one.low is not None and one.high is not None:
        parts.append(element("line", x1=across(one.low), x2=across(one.high), y1=y, y2=y, cls="whisker thick"))
        interval = f" [{words.number(one.low, 3)}, {words.number(one.high, 3)}]"
    if one.places is not None:
        interval += f", place {one.places[0]:g} to {one.places[1]:g}"
    text = f"{one.defense}: mean rank {words.number(one.rank, 3)}{interval}"
    parts.append(element("circle", element("title", text), cx=across(one.rank), cy=y, r=5, cls="mark dot"))
    return parts


def _bar(letter: str, places: Sequence[float], x: float) -> list[Markup]:
    title = element("title", f"group {letter}: not told apart")
    return [
        element("line", title, x1=x, x2=x, y1=places[0], y2=places[-1], cls="tie"),
        *(element("circle", cx=x, cy=y, r=4, cls="tie-dot") for y in places),
        element("text", letter, x=x, y=_TOP - 11, cls="tick middle"),
    ]


def _letters(group: str) -> list[str]:
    """``ab(27)`` as ``a``, ``b`` and ``(27)``."""
    return re.findall(r"\(\d+\)|.", group)
