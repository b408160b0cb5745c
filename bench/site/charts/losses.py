"""What an inversion spent and reached: loss of the best trigger so far over tokens, the clean reference's beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from bench.inversions import Inverted
from bench.site.charts.frame import Frame
from bench.site.scale import compact, linear
from bench.site.svg import element, picture


def loss_chart(found: Mapping[str, Inverted], null: Mapping[str, Inverted], unit: str, title: str) -> Markup | None:
    """A colour for each claim, solid for the victim, dashed for the null; ``None`` where no trace is told."""
    traces = [one.trace for one in (*found.values(), *null.values()) if one.trace]
    if not traces:
        return None
    frame = Frame(
        linear([0.0, *(float(tokens) for trace in traces for tokens, _ in trace)], within=(0, float("inf"))),
        linear([0.0, *(loss for trace in traces for _, loss in trace)], within=(0, float("inf"))),
        "forward and backward tokens spent",
        unit,
        width=460,
        height=264,
        x_text=compact,
    )
    parts = [*frame.background()]
    claims = sorted(set(found) | set(null))
    told = []
    for place, claim in enumerate(claims):
        colour = f"c{(place + 1) % 8}"
        for kind, source in (("dashed", null), ("", found)):
            if claim in source and source[claim].trace:
                parts += _steps(frame, source[claim].trace, f"{colour} {kind}".strip())
        if claim in found:
            told.append(f"{claim}: loss {found[claim].loss:.3g}")
    return picture(frame.width, frame.height, title, "; ".join(told), parts)


def _steps(frame: Frame, trace: Sequence[tuple[int, float]], cls: str) -> Iterator[Markup]:
    places = [(frame.across(float(tokens)), frame.down(loss)) for tokens, loss in trace]
    steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
    yield element("path", d=f"M{places[0][0]:.1f} {places[0][1]:.1f}{steps}", cls=f"line {cls}")
    x, y = places[-1]
    yield element("circle", cx=x, cy=y, r=3.5, cls=f"mark {cls}{' hollow' if 'dashed' in cls else ''}")
