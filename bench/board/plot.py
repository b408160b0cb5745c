"""The trade-off plot: lift against the clean metric, a panel for each (task, model) and attack that a defense stood against.

Drawn without a display and without global state; the same table gives the same bytes (no dates, a fixed hash salt).
Colours: Okabe and Ito's palette, which colour-blind readers tell apart; markers differ as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.board.columns import METRIC_NAMES
from bench.board.table import Board, Row
from bench.metrics import Number

COLOURS: Final = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8C6D1F")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_COLUMNS: Final = 4
LARGEST: Final = 48
"""Panels in one picture; who has more cells looks at the pages (``codebackdoorbench site``)."""
TOLD_APART: Final = 16
"""Defenses that a reader can tell apart in one panel. A board with more has the plot of lifts, one line a defense, and the pages."""
_STYLE: Final[Any] = {
    "svg.hashsalt": "codebackdoorbench",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "text.usetex": False,
    "text.parse_math": False,  # a plugin's name may hold a dollar sign
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all plots, whatever the reader's own settings are; the same data then give the same bytes."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def save(figure: Figure, png: Path, svg: Path) -> None:
    """Write a figure into two files; to be called within :func:`drawing`."""
    figure.savefig(png, dpi=110, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})


def write_tradeoff(board: Board, png: Path, svg: Path) -> None:
    """Draw the plot into two files."""
    with drawing():
        save(draw_tradeoff(board), png, svg)


def has_tradeoff(board: Board) -> bool:
    """Are there defenses to compare with none, and so few that they can be told apart?"""
    return 0 < len({row.defense for row in board.rows if row.family != "none" and _placed(row)}) <= TOLD_APART


def draw_tradeoff(board: Board) -> Figure:
    """The figure; rows without a lift are left out (they have no place on its axis), and so are attacks that no defense met."""
    panels: dict[tuple[str, str, str], list[Row]] = {}
    for row in board.rows:
        if _placed(row):
            panels.setdefault((row.task, row.model, row.attack), []).append(row)
    panels = {key: rows for key, rows in panels.items() if any(row.family != "none" for row in rows)}
    if not panels:
        return _empty()
    shown = dict(list(panels.items())[:LARGEST])
    looks = _looks(board)
    present = [name for name in looks if any(row.defense == name for rows in shown.values() for row in rows)]
    across = min(_COLUMNS, len(shown))
    down = -(-len(shown) // across)
    beside = 3 if across < _COLUMNS else 6
    size = (max(1.2 + 3.7 * across, 6.4), 0.5 + 3.1 * down + 0.22 * (-(-(len(present) + 1) // beside) + 1))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, ((task, model, attack), rows) in zip(grid, shown.items(), strict=False):
        _panel(axes, rows, looks, f"{_short(task)} · {_short(model)}\n{_short(attack)}", board.margin)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    if len(panels) > len(shown):
        figure.suptitle(
            f"the first {len(shown)} of {len(panels)}: the others are on the pages (codebackdoorbench site)"
        )
    handles = [_handle(name, *looks[name]) for name in present]
    handles.append(Line2D([], [], color="#777777", linestyle="--", label="no defense, less the margin"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(beside, len(handles)), frameon=False)
    return figure


def _empty() -> Figure:
    figure = Figure(figsize=(6, 2))
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, "No defended cell has a lift to show yet.", ha="center", va="center")
    return figure


def _looks(board: Board) -> dict[str, tuple[str, str]]:
    """Colour and marker of each defense, in the board's order; the same in every panel."""
    names = list(
        dict.fromkeys(
            row.defense for row in sorted(board.rows, key=lambda r: (r.family != "none", r.family, r.defense))
        )
    )
    return {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def _panel(axes: Axes, rows: list[Row], looks: dict[str, tuple[str, str]], title: str, margin: float) -> None:
    axes.set_title(title)
    axes.axvline(0, color="#777777", linewidth=0.8, zorder=0)
    for row in rows:
        if row.family == "none":
            axes.axhline(
                100 * ((row.numbers["clean"].value or 0) - margin),
                color="#777777",
                linestyle="--",
                linewidth=0.8,
                zorder=0,
            )
        _point(axes, row, *looks[row.defense])
    axes.set_xlabel("lift = ASR − ASR₀, points (0 is best)")
    axes.set_ylabel(f"clean {METRIC_NAMES.get(rows[0].metric, rows[0].metric)}, %")
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.08)


def _point(axes: Axes, row: Row, colour: str, marker: str) -> None:
    x, y = row.numbers["lift"], row.numbers["clean"]
    assert x.value is not None
    assert y.value is not None
    axes.errorbar(
        [100 * x.value],
        [100 * y.value],
        xerr=arms(x),
        yerr=arms(y),
        color=colour,
        marker=marker,
        markersize=7,
        markerfacecolor="none" if row.family == "none" else colour,
        markeredgewidth=1.4,
        elinewidth=1.0,
        capsize=2,
        alpha=0.85,
    )


def arms(number: Number) -> list[list[float]] | None:
    """The interval as an error bar, in per cent, down and up; ``None`` without one."""
    if number.value is None or number.low is None or number.high is None:
        return None
    return [[max(0.0, 100 * (number.value - number.low))], [max(0.0, 100 * (number.high - number.value))]]


def _handle(name: str, colour: str, marker: str) -> Line2D:
    face = "none" if name == "none" else colour
    return Line2D([], [], color=colour, marker=marker, linestyle="none", markerfacecolor=face, label=_short(name))


def _short(text: str, width: int = 28) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _placed(row: Row) -> bool:
    return all(name in row.numbers and row.numbers[name].value is not None for name in ("lift", "clean"))
