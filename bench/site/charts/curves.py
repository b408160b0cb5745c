"""Lift over the number of poisoned samples, and over the clean samples that a defense was given."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bench.board.curves import Curve
from bench.site import words
from bench.site.charts.frame import Frame, marker
from bench.site.scale import Axis, compact, linear, logarithmic
from bench.site.svg import element, picture

LABELS = {"poison": "poisoned training samples", "budget": "clean samples of the defense"}


def curve_chart(shown: Sequence[Curve], title: str) -> Markup:
    """One panel: curves of one kind on one (task, model), at most eight told apart; hollow where nothing is implanted."""
    points = [(curve, point) for curve in shown for point in curve.points if point.lift.value is not None]
    amounts = sorted({point.x for curve in shown for point in curve.points})
    ends = [100 * end for _, p in points for end in (p.lift.low, p.lift.value, p.lift.high) if end is not None]
    x = logarithmic(amounts) if amounts[0] > 0 else linear(amounts)
    x = Axis(x.low, x.high, tuple(_apart(amounts, x)), x.logarithmic)
    frame = Frame(x, linear([0.0, *ends], within=(-100, 100)), LABELS[shown[0].kind], "lift, points", x_text=compact)
    zero = frame.down(0)
    parts = [*frame.background()]
    parts.append(element("line", x1=frame.left, x2=frame.width - frame.right, y1=zero, y2=zero, cls="zero"))
    for number, curve in enumerate(shown):
        parts += _line(frame, curve, f"c{(number + 1) % 8}", number)
    return picture(frame.width, frame.height, title, "; ".join(map(_told, shown)), parts)


def _line(frame: Frame, curve: Curve, colour: str, shape: int) -> list[Markup]:
    known = [point for point in curve.points if point.lift.value is not None]
    places = [(frame.across(p.x), frame.down(100 * (p.lift.value or 0.0))) for p in known]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) if places else ""
    parts = [element("path", d=path, cls=f"line {colour}")] if len(places) > 1 else []
    for point, (x, y) in zip(known, places, strict=True):
        if point.lift.low is not None and point.lift.high is not None:
            start, end = frame.down(100 * point.lift.low), frame.down(100 * point.lift.high)
            parts.append(element("line", x1=x, x2=x, y1=start, y2=end, cls=f"whisker {colour}"))
        text = f"{curve.name}, {point.x:g}: lift {words.percent(point.lift, signed=True)}"
        parts.append(marker(shape, x, y, colour if point.implanted else f"{colour} hollow", text))
    return parts


def _told(curve: Curve) -> str:
    return f"{curve.name}: " + ", ".join(f"{p.x:g}: {words.value(p.lift, signed=True)}" for p in curve.points)


def _apart(amounts: Sequence[float], axis: Axis, room: float = 0.1) -> list[float]:
    """The amounts themselves as ticks, without those whose labels would touch."""
    kept: list[float] = []
    for amount in amounts:
        if not kept or axis.place(amount) - axis.place(kept[-1]) >= room:
            kept.append(amount)
    return kept
