"""Small charts of one cell: shares with intervals on one line each, and where programs land in their pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from markupsafe import Markup

from bench.metrics import Number
from bench.site import words
from bench.site.facts import Ranks
from bench.site.svg import element, joined, picture

_WIDTH: Final = 480.0
_LEFT: Final = 128.0
_RIGHT: Final = 96.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its interval, and the colour class of what it tells of."""

    name: str
    number: Number
    cls: str


def share_bars(bars: Sequence[Bar], title: str) -> Markup | None:
    """Shares on a line from 0 to 100 %; ``None`` where none is defined."""
    known = [bar for bar in bars if bar.number.value is not None]
    if not known:
        return None
    width, left, row = _WIDTH, _LEFT, 27.0
    height = row * len(known) + 26
    parts = [_ticks(height)]
    for place, bar in enumerate(known):
        y, number = row * (place + 0.5) + 4, bar.number
        assert number.value is not None
        parts.append(element("text", bar.name, x=left - 10, y=y + 4, cls="name end"))
        parts.append(
            element(
                "rect", x=left, y=y - 7, width=max(_across(number.value) - left, 0.5), height=14, cls=f"bar {bar.cls}"
            )
        )
        if number.low is not None and number.high is not None:
            parts.append(
                element("line", x1=_across(number.low), x2=_across(number.high), y1=y, y2=y, cls="whisker ink")
            )
        parts.append(element("text", f"{words.value(number)} %", x=width - 4, y=y + 4, cls="name end"))
    told = "; ".join(f"{bar.name} {words.percent(bar.number)} %" for bar in known)
    return picture(width, height, title, told, parts, "bars")


def _across(share: float) -> float:
    return _LEFT + min(max(share, 0.0), 1.0) * (_WIDTH - _LEFT - _RIGHT)


@cache
def _ticks(height: float) -> Markup:
    parts = []
    for tick in (0, 25, 50, 75, 100):
        x = _across(tick / 100)
        parts.append(element("line", x1=x, x2=x, y1=4, y2=height - 20, cls="grid"))
        parts.append(element("text", f"{tick}", x=x, y=height - 6, cls="tick middle"))
    return joined(parts)


def rank_bars(ranks: Ranks, title: str) -> Markup:
    """How many queries find their program in each tenth of the pool."""
    width, height, bottom = 240.0, 120.0, 28.0
    highest = max(*ranks.deciles, ranks.rejected, 1)
    counts = [*ranks.deciles] + [ranks.rejected] * (ranks.rejected > 0)
    step = (width - 16) / len(counts)
    parts = []
    for place, count in enumerate(counts):
        tall = (height - bottom - 16) * count / highest
        x = 8 + step * place
        name = "rejected" if place == len(ranks.deciles) else f"{10 * place} to {10 * place + 10} %"
        text = element("title", f"{name}: {count} of {ranks.n}")
        parts.append(
            element(
                "rect", text, x=x + 1, y=height - bottom - tall, width=step - 2, height=max(tall, 0.5), cls="bar c1"
            )
        )
        parts.append(element("text", f"{count}", x=x + step / 2, y=height - bottom - tall - 4, cls="tick middle small"))
    parts.append(element("line", x1=8, x2=width - 8, y1=height - bottom, y2=height - bottom, cls="axis"))
    parts.append(element("text", "best tenth", x=8, y=height - 14, cls="tick"))
    parts.append(element("text", "last", x=8 + step * 10, y=height - 14, cls="tick end"))
    told = ", ".join(map(str, ranks.deciles))
    return picture(width, height, title, f"Queries by tenth of the pool: {told}", parts)
