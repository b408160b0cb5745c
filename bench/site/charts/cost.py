"""Cost against effect: what a defense spends, and how much of the backdoor it takes away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bench.board.table import Row
from bench.site import words
from bench.site.charts.frame import Frame, marker
from bench.site.charts.looks import Look
from bench.site.scale import Axis, compact, linear, logarithmic
from bench.site.svg import element, picture


@dataclass(frozen=True, slots=True)
class Spent:
    """One defense on one (task, model), mean over the attacks on which both it and none have a lift."""

    defense: str
    cost: float
    effect: float
    """What is left of the backdoor with the defense minus without, in shares; below 0 is better."""
    attacks: int


def unit(rows: Sequence[Row]) -> str:
    """``seconds`` where every defended row knows its wall time (of whichever machine ran it), else ``tokens``."""
    defended = [row for row in rows if row.family != "none" and row.numbers]
    timed = defended and all(row.wall_seconds is not None for row in defended)
    return "seconds" if timed else "tokens"


def spent(rows: Sequence[Row], unit: str) -> list[Spent]:
    """The defenses of one (task, model), in order of names."""
    without = {row.attack: row.left for row in rows if row.family == "none"}
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        before, after = without.get(row.attack), row.left
        cost = row.wall_seconds if unit == "seconds" else row.tokens
        if row.family != "none" and before is not None and after is not None and cost is not None:
            found.setdefault(row.defense, []).append((cost, after - before))
    return [
        Spent(name, sum(c for c, _ in pairs) / len(pairs), sum(e for _, e in pairs) / len(pairs), len(pairs))
        for name, pairs in sorted(found.items())
    ]


def cost_chart(found: Sequence[Spent], unit: str, look: Mapping[str, Look], title: str) -> Markup | None:
    """One panel; ``None`` without a defense. A defense that costs nothing in this unit stands at the left border."""
    if not found:
        return None
    paid = [one.cost for one in found if one.cost > 0]
    frame = Frame(
        logarithmic(paid) if paid else Axis(1, 10, ()),
        linear([0.0, *(100 * one.effect for one in found)], within=(-100, 100)),
        f"{unit} spent (log)",
        "Δ left, points (below 0 is better)",
        left=52 if not paid or len(paid) == len(found) else 82,
        x_text=compact,
    )
    parts = [*frame.background(), *_zero(frame)]
    free = len(paid) < len(found)
    if free:
        parts.append(element("text", "0", x=62, y=frame.height - frame.bottom + 15, cls="tick middle"))
    for one in found:
        x = frame.across(one.cost) if one.cost > 0 else 62
        text = (
            f"{one.defense}: {compact(one.cost)} {unit}, Δ left {words.points(one.effect, signed=True)} points, "
            f"mean over {one.attacks} attack{'s' * (one.attacks != 1)}"
        )
        mark = marker(look[one.defense].shape, x, frame.down(100 * one.effect), look[one.defense].colour, text)
        parts.append(element("g", mark, data_d=one.defense, cls="point"))
    best = min(found, key=lambda one: one.effect)
    return picture(frame.width, frame.height, title, f"Takes away most: {best.defense}.", parts, "scatter")


def _zero(frame: Frame) -> Iterator[Markup]:
    y = frame.down(0)
    yield element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, cls="zero")
