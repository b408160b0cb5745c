"""Lift against the clean metric with intervals, and the Pareto front of defenses on one attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from markupsafe import Markup

from bench.board.table import Row
from bench.site import words
from bench.site.charts.frame import Frame, marker
from bench.site.charts.looks import Look
from bench.site.scale import linear
from bench.site.svg import element, picture


def placed(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a place on the chart: a lift and a clean metric."""
    return [
        row for row in rows if all(n in row.numbers and row.numbers[n].value is not None for n in ("lift", "clean"))
    ]


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats: none both leaves less of the backdoor and is better on clean inputs (and different in one)."""
    at = {id(row): (row.left or 0.0, -_of(row, "clean")) for row in placed(rows)}

    def beaten(mine: tuple[float, float]) -> bool:
        return any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in at.values())

    return [row for row in placed(rows) if not beaten(at[id(row)])]


def tradeoff(
    rows: Sequence[Row], look: Mapping[str, Look], margin: float, link: Callable[[Row], str], title: str
) -> Markup | None:
    """One panel; ``None`` where no row has a place on it.

    Args:
        rows: of one (task, model, attack).
        look: of each defense.
        margin: how much of the clean metric may be lost; drawn below the undefended row.
        link: the page of a row.
        title: what is shown, for readers who do not see it.
    """
    shown = placed(rows)
    if not shown:
        return None
    metric = words.metric_name(shown[0].metric)
    frame = Frame(
        linear([0.0, *_ends(shown, "lift")], within=(-100, 100)),
        linear(_ends(shown, "clean"), within=(0, 100)),
        "lift, points (0 or below is best)",
        f"clean {metric}, %",
    )
    best = front(shown)
    parts = [*frame.background(), *_guides(frame, shown, margin), *_front_lines(frame, best)]
    shown = sorted(shown, key=lambda row: row.family == "none")  # an open ring, drawn last, hides nothing
    for row in shown:
        parts += frame.cross(row.numbers["lift"], row.numbers["clean"], look[row.defense].colour)
    parts += [_point(frame, row, look[row.defense], link(row), row in best) for row in shown]
    names = ", ".join(row.defense for row in best)
    return picture(
        frame.width, frame.height, title, f"{len(shown)} defenses. Beaten by none: {names}.", parts, "scatter"
    )


def _of(row: Row, name: str) -> float:
    value = row.numbers[name].value
    assert value is not None
    return value


def _ends(rows: Sequence[Row], name: str) -> list[float]:
    found = [row.numbers[name] for row in rows]
    ends = [end for number in found for end in (number.low, number.value, number.high) if end is not None]
    return [100 * end for end in ends]


def _guides(frame: Frame, rows: Sequence[Row], margin: float) -> Iterator[Markup]:
    x = frame.across(0)
    yield element("line", x1=x, x2=x, y1=frame.top, y2=frame.height - frame.bottom, cls="zero")
    for row in rows:
        level = 100 * (_of(row, "clean") - margin)
        if row.family == "none" and frame.y.low < level < frame.y.high:
            y = frame.down(level)
            yield element("line", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y, cls="margin")


def _front_lines(frame: Frame, best: Sequence[Row]) -> Iterator[Markup]:
    """Steps on either side of 0: what is attainable there."""
    for side in (1, -1):
        there = sorted((row for row in best if side * _of(row, "lift") >= 0), key=lambda row: abs(_of(row, "lift")))
        places = [(frame.across(100 * _of(r, "lift")), frame.down(100 * _of(r, "clean"))) for r in there]
        if len(places) > 1:
            steps = [f"M{places[0][0]:.1f} {places[0][1]:.1f}"] + [f"H{x:.1f}V{y:.1f}" for x, y in places[1:]]
            yield element("path", d="".join(steps), cls="front")


def _point(frame: Frame, row: Row, look: Look, href: str, best: bool) -> Markup:
    x, y = frame.across(100 * _of(row, "lift")), frame.down(100 * _of(row, "clean"))
    lift, clean = row.numbers["lift"], row.numbers["clean"]
    text = (
        f"{row.defense}: lift {words.percent(lift, signed=True)}, "
        f"clean {words.metric_name(row.metric)} {words.percent(clean)}" + (", on the front" if best else "")
    )
    ring = (element("circle", cx=x, cy=y, r=8.5, cls="ring"),) if best else ()
    mark = marker(look.shape, x, y, f"{look.colour} open" if row.family == "none" else look.colour, text)
    return element("a", *ring, mark, href=href, aria_label=text, data_d=row.defense, cls="point")
