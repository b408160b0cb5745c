"""The plot of one cell's inversions: loss of the best trigger so far over tokens spent, the clean reference's beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from bench.board.plot import COLOURS, drawing
from bench.records import Record

Trace = Sequence[tuple[int, float]]

_GREY: Final = "#777777"


def write_inversions(record: Record, svg: Path) -> None:
    """Draw the inversions of a record into a file; the same record gives the same bytes."""
    with drawing():
        draw_inversions(record).savefig(svg, metadata={"Date": None, "Creator": None})


def draw_inversions(record: Record) -> Figure:
    """The figure: a colour for each claim, solid for the victim, dashed for the null."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    claims = sorted(set(record.inversions) | set(record.null))
    handles = []
    for place, claim in enumerate(claims):
        colour = COLOURS[(place + 1) % len(COLOURS)]
        for found, dashed in ((record.null, True), (record.inversions, False)):
            if claim in found:
                _line(axes, found[claim].trace, colour, dashed=dashed)
        handles.append(Line2D([], [], color=colour, label=_short(claim)))
    if record.null:
        handles.append(Line2D([], [], color=_GREY, linestyle="--", label="on the clean reference (null)"))
    if not any(found.trace for found in (*record.inversions.values(), *record.null.values())):
        axes.text(0.5, 0.5, "This defense tells no trace.", ha="center", va="center", transform=axes.transAxes)
    _label(axes, record)
    axes.legend(handles=handles, frameon=False)
    return figure


def _line(axes: Axes, trace: Trace, colour: str, *, dashed: bool) -> None:
    if not trace:
        return
    tokens, losses = zip(*trace, strict=True)
    style, face = ("--", "white") if dashed else ("-", colour)
    axes.plot(tokens, losses, color=colour, linestyle=style, drawstyle="steps-post", linewidth=1.4)
    axes.plot(tokens[-1:], losses[-1:], color=colour, marker="o", markersize=5, markerfacecolor=face)


def _label(axes: Axes, record: Record) -> None:
    at = record.coordinates
    search = record.task_kind == "search"
    axes.set_title(f"{_short(at.defense)} on {_short(at.attack)}, seed {at.seed}")
    axes.set_xlabel("forward and backward tokens spent on the claim")
    axes.set_ylabel("loss, mean squared gap" if search else "loss towards the target, nats")
    axes.xaxis.set_major_formatter(EngFormatter())
    low, high = axes.get_ylim()
    axes.set_ylim(bottom=min(low, -0.03 * high))  # 0 is in sight, and a marker on it is whole
    axes.set_xlim(left=0)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)


def _short(text: str, width: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
