"""The plot of curves: lift and the change of the clean metric over poisoned samples, and over a defense's clean samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.board.curves import Curve, CurvePoint
from bench.board.plot import COLOURS, MARKERS, drawing, save
from bench.board.table import Board
from bench.metrics import Number

_TITLES: Final = {"poison": "poisoned training samples", "budget": "clean samples of the defense"}
_TOGETHER: Final = 6
"""So many curves can be told apart in one panel; more stand in a panel each, the others grey behind."""


@dataclass(frozen=True)
class _Panel:
    title: str
    kind: str
    shown: Sequence[Curve]
    behind: Sequence[Curve]
    """Of the same (task, model): drawn grey, and on the same axes."""


def write_curves(board: Board, png: Path, svg: Path) -> None:
    """Draw all curves into two files; the same curves give the same bytes."""
    with drawing():
        save(draw_curves(board.curves), png, svg)


def draw_curves(curves: Sequence[Curve]) -> Figure:
    """A panel for each kind and (task, model), or for each curve where there are many; an open point where nothing is implanted."""
    panels = list(_panels(curves))
    alone = any(panel.behind for panel in panels)
    across = min(4 if alone else 3, len(panels))
    down = -(-len(panels) // across)
    longest = max(len(panel.shown) for panel in panels)
    each = (2.9, 2.35) if alone else (4.4, 3.2 + 0.19 * longest)
    figure = Figure(figsize=(1.0 + each[0] * across, down * each[1]), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, small=alone)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _panels(curves: Sequence[Curve]) -> Iterator[_Panel]:
    together: dict[tuple[str, str, str], list[Curve]] = {}
    for curve in curves:
        together.setdefault((curve.kind, curve.task, curve.model), []).append(curve)
    for (kind, task, model), shown in together.items():
        title = f"{task} · {model}"
        if len(shown) <= _TOGETHER:
            yield _Panel(title, kind, shown, ())
            continue
        for curve in shown:
            yield _Panel(f"{title}\n{curve.name}", kind, [curve], [other for other in shown if other is not curve])


def _draw(axes: Axes, panel: _Panel, small: bool) -> None:
    axes.set_title(panel.title, fontsize=8 if small else None)
    axes.axhline(0, color="#777777", linewidth=0.8, zorder=0)
    for curve in panel.behind:
        points = _defined(curve)
        axes.plot([p.x for p in points], [_points(p.lift) for p in points], color="#DDDDDD", linewidth=0.8, zorder=0)
    handles = []
    for number, curve in enumerate(panel.shown):
        colour, marker = COLOURS[(number + 1) % len(COLOURS)], MARKERS[number % len(MARKERS)]
        if panel.behind:
            colour = COLOURS[5]
        points = _defined(curve)
        axes.plot([p.x for p in points], [_points(p.lift) for p in points], color=colour, linewidth=1.2)
        for point in points:
            _mark(axes, point, colour, marker)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5, label=curve.name))
    amounts = sorted({point.x for curve in (*panel.shown, *panel.behind) for point in curve.points})
    axes.set_xscale("log" if amounts[0] > 0 else "linear")
    axes.xaxis.set_major_locator(FixedLocator(_apart(amounts)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(_TITLES[panel.kind], fontsize=7 if small else None)
    axes.set_ylabel("lift, points" if small else "lift = ASR − ASR₀, points", fontsize=7 if small else None)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    if not panel.behind:
        axes.legend(handles=handles, frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _defined(curve: Curve) -> list[CurvePoint]:
    return [point for point in curve.points if point.lift.value is not None]


def _mark(axes: Axes, point: CurvePoint, colour: str, marker: str) -> None:
    value = _points(point.lift)
    arms = None
    if point.lift.low is not None and point.lift.high is not None:
        arms = [[max(0.0, value - 100 * point.lift.low)], [max(0.0, 100 * point.lift.high - value)]]
    axes.errorbar(
        [point.x],
        [value],
        yerr=arms,
        color=colour,
        marker=marker,
        markersize=5,
        markerfacecolor=colour if point.implanted else "white",
        elinewidth=0.9,
        capsize=2,
    )


def _apart(amounts: Sequence[float]) -> list[float]:
    """The amounts that can be written below an axis without running into each other."""
    kept = [amounts[0]]
    for amount in amounts[1:]:
        if kept[-1] <= 0 or amount / kept[-1] >= 1.3:
            kept.append(amount)
    return kept


def _points(number: Number) -> float:
    return 100 * (number.value or 0.0)
