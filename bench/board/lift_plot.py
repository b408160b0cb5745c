"""The plot of what each defense leaves: a line for each defense, a point for each attack, a panel for each (task, model).

For boards with more defenses than the trade-off plot can tell apart by colour; here they stand one below the other, by family.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.board.plot import COLOURS, MARKERS, arms, drawing, save
from bench.board.table import Board, Row, controls_first

MANY: Final = 8
"""From more defenses than this on, the plot is written."""
_COLUMNS: Final = 3


def has_lifts(board: Board) -> bool:
    """Are there so many defenses with a lift that a list reads better than a cloud?"""
    return len({row.defense for row in _shown(board)}) > MANY


def write_lifts(board: Board, png: Path, svg: Path) -> None:
    """Draw the plot into two files; the same board gives the same bytes."""
    with drawing():
        save(draw_lifts(board), png, svg)


def draw_lifts(board: Board) -> Figure:
    """Families in the board's order, the undefended victim on top; in each the controls first. The board must have a lift."""
    rows = _shown(board)
    panels = [(key, list(group)) for key, group in groupby(rows, key=lambda row: (row.task, row.model))]
    attacks = list(dict.fromkeys(row.attack for row in rows))
    looks = {a: (COLOURS[(i + 1) % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, a in enumerate(attacks)}
    across = min(_COLUMNS, len(panels))
    down = -(-len(panels) // across)
    longest = max(len({row.defense for row in group}) for _, group in panels)
    figure = Figure(figsize=(0.6 + 5.2 * across, down * (1.1 + 0.24 * longest) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, ((task, model), group) in zip(grid, panels, strict=False):
        _panel(axes, group, looks, f"{task} · {model}")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=attack)
        for attack, (colour, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False)
    return figure


def _panel(axes: Axes, rows: list[Row], looks: dict[str, tuple[str, str]], title: str) -> None:
    order = sorted({(row.family, row.defense) for row in rows}, key=lambda key: controls_first(*key), reverse=True)
    height = {defense: place for place, (_, defense) in enumerate(order)}
    present = [attack for attack in looks if any(row.attack == attack for row in rows)]
    step = 0.7 / max(1, len(present))
    axes.axvline(0, color="#777777", linewidth=0.9, zorder=0)
    for row in rows:
        colour, marker = looks[row.attack]
        lift = row.numbers["lift"]
        y = height[row.defense] + step * ((len(present) - 1) / 2 - present.index(row.attack))
        axes.errorbar(
            [100 * (lift.value or 0.0)],
            [y],
            xerr=arms(lift),
            color=colour,
            marker=marker,
            markersize=3.5,
            elinewidth=0.8,
        )
    for place in range(1, len(order)):
        between = order[place][0] != order[place - 1][0]
        axes.axhline(
            place - 0.5, color="#999999" if between else "#EEEEEE", linewidth=0.8 if between else 0.5, zorder=0
        )
    axes.set_yticks(range(len(order)), [defense for _, defense in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_title(title)
    axes.set_xlabel("lift that is left = ASR − ASR₀, points (0 is best)")
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)


def _shown(board: Board) -> list[Row]:
    return [row for row in board.rows if row.numbers and row.numbers["lift"].value is not None]
