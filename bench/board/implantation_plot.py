"""The plot of implantation: what each trigger does to the clean reference and to the undefended victim, a panel for each (task, model)."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.board.groups import undefended
from bench.board.planting import planted
from bench.board.plot import COLOURS, arms, drawing, save
from bench.board.table import Board, Row
from bench.metrics import Number

_FLOOR, _VICTIM = COLOURS[5], COLOURS[4]
_PARTLY: Final = "#F3C9AE"
_FACES: Final = {"yes": _VICTIM, "no": "white", "": "white"}
_COLUMNS: Final = 3


def write_implantation(board: Board, png: Path, svg: Path) -> None:
    """Draw the plot into two files; the same board gives the same bytes."""
    with drawing():
        save(draw_implantation(board), png, svg)


def draw_implantation(board: Board) -> Figure:
    """A line for each attack, the greatest lift on top: from the reference's share to the victim's.

    The board must have an undefended victim of an attack (:func:`bench.board.groups.undefended`).
    """
    panels = [(key, list(rows)) for key, rows in groupby(undefended(board), key=lambda row: (row.task, row.model))]
    across = min(_COLUMNS, len(panels))
    down = -(-len(panels) // across)
    longest = max(len(rows) for _, rows in panels)
    figure = Figure(figsize=(1.2 + 4.6 * across, down * (1.3 + 0.27 * longest) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, ((task, model), rows) in zip(grid, panels, strict=False):
        _panel(axes, rows, f"{task} · {model}")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles = [
        Line2D(
            [], [], color=_FLOOR, marker="o", markerfacecolor="none", linestyle="none", label="ASR₀: clean reference"
        ),
        Line2D([], [], color=_VICTIM, marker="o", linestyle="none", label="ASR: victim, implanted"),
        Line2D(
            [], [], color=_VICTIM, marker="o", markerfacecolor="white", linestyle="none", label="ASR: not implanted"
        ),
        Line2D(
            [], [], color=_VICTIM, marker="o", markerfacecolor=_PARTLY, linestyle="none", label="ASR: at some seeds"
        ),
        Line2D([], [], color=_VICTIM, marker="|", markersize=10, linestyle="none", label="ASR of each seed"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=1 if across == 1 else 3, frameon=False)
    return figure


def _panel(axes: Axes, rows: list[Row], title: str) -> None:
    ordered = sorted(rows, key=lambda row: row.numbers["lift"].value or 0.0)
    for place, row in enumerate(ordered):
        floor, victim = (row.numbers[name] for name in ("asr_reference", "asr"))
        low, high = 100 * (floor.value or 0.0), 100 * (victim.value or 0.0)
        axes.plot([low, high], [place, place], color="#BBBBBB", linewidth=2.5, zorder=1)
        _mark(axes, floor, place, _FLOOR, "white")
        if len(row.each) > 1:
            seeds = [100 * one.asr for one in row.each if one.asr is not None]
            axes.plot(
                seeds, [place] * len(seeds), color=_VICTIM, marker="|", markersize=10, linestyle="none", zorder=1.5
            )
        _mark(axes, victim, place, _VICTIM, _FACES.get(planted(row), _PARTLY))
    axes.set_yticks(range(len(ordered)), [row.attack for row in ordered])
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    axes.set_xlim(-3, 103)
    axes.set_title(title)
    axes.set_xlabel("triggered inputs that meet the goal, %")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)


def _mark(axes: Axes, share: Number, place: int, colour: str, face: str) -> None:
    axes.errorbar(
        [100 * (share.value or 0.0)],
        [place],
        xerr=arms(share),
        color=colour,
        marker="o",
        markersize=5,
        markerfacecolor=face,
        elinewidth=0.9,
    )
