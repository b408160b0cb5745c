"""Detector curves: ROC of a filter's or a screen's scores, with the point at which it really decided."""

from __future__ import annotations

from markupsafe import Markup

from bench.metrics import Number
from bench.site import words
from bench.site.charts.frame import Frame
from bench.site.facts import Curve
from bench.site.scale import Axis
from bench.site.svg import element, picture

_SHARE = Axis(0, 100, (0, 25, 50, 75, 100))
_AXES = {
    "filter": ("clean training samples removed, %", "poison removed, %"),
    "screen": ("clean inputs stopped, %", "triggered inputs stopped, %"),
}


def roc_chart(curve: Curve, auroc: Number | None, title: str) -> Markup:
    """The curve, the diagonal of chance, and the detector's own decision."""
    frame = Frame(_SHARE, _SHARE, *_AXES[curve.what], width=330, height=300)
    path = "M" + "L".join(f"{frame.across(100 * x):.1f} {frame.down(100 * y):.1f}" for x, y in curve.points)
    ends = {"x1": frame.across(0), "y1": frame.down(0), "x2": frame.across(100), "y2": frame.down(100)}
    parts = [*frame.background(), element("line", **ends, cls="margin"), element("path", d=path, cls="line c1")]
    told = f"AUROC {words.percent(auroc)}"
    if curve.decision is not None:
        x, y = curve.decision
        text = f"its own decision: {words.points(x)} % of clean, {words.points(y)} % of bad stopped"
        mark = element("title", text)
        parts.append(
            element("circle", mark, cx=frame.across(100 * x), cy=frame.down(100 * y), r=5.5, cls="mark hollow c4")
        )
        told += f"; {text}"
    return picture(frame.width, frame.height, title, told, parts)
