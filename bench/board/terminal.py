"""The board in a terminal: a compact table for each group of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, get_args

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.board.across_section import BLOCK_HEADERS, block_row
from bench.board.columns import DASH, METRIC_NAMES, p_value, percent, status_words
from bench.board.groups import compared, groups
from bench.board.table import Board, Row
from bench.board.verdict_section import verdict_lines
from bench.errors import ConfigError, suggest
from bench.stats import MINIMUM_SEEDS

Axis = Literal["task", "model", "attack", "defense", "family"]
AXES: Final[tuple[Axis, ...]] = get_args(Axis)
WIDE = 130
"""Columns of a terminal that shows every column on one line; a narrower one gets intervals on a line of their own."""


def print_board(board: Board, console: Console, group_by: Axis | None = None) -> None:
    """A compact table for each group: clean metric, ASR, ASR₀ and lift with what is needed to read them.

    Args:
        board: the table object.
        console: where to.
        group_by: one axis, a table for each of its values; ``None``: a table for each (task, model, attack).
    """
    for title, labels, rows in grouped(board, group_by):
        console.print(_table(title, labels, rows, console.width < WIDE))
        console.print()
    if any(summary.p is not None for summary in board.blocks):
        console.print(_across(board, console.width < WIDE))
        console.print()
    for line in verdict_lines(board):
        console.print(Text(line), soft_wrap=True)
    if board.few_seeds:
        console.print(
            Text(
                f"Shares in per cent, 95 % intervals; below {MINIMUM_SEEDS} seeds they hold sample uncertainty only.",
                style="dim",
            )
        )
    for fault in board.apart:
        console.print(Text(f"set apart: {fault}", style="yellow"), soft_wrap=True)


def axis_of(name: str | None) -> Axis | None:
    """An axis by its name.

    Raises:
        ConfigError: there is no such axis; suggests.
    """
    if name is None:
        return None
    found = next((axis for axis in AXES if axis == name), None)
    if found is None:
        raise ConfigError(f"--group-by {name!r} is no axis.{suggest(name, AXES)}")
    return found


def grouped(board: Board, axis: Axis | None) -> Iterator[tuple[str, list[str], list[Row]]]:
    """(title, what each row is called, rows), in the board's order; by an axis: in the order of its values' first rows."""
    if axis is None:
        for names, rows in groups(board):
            yield " · ".join(names), [getattr(row, compared(rows)) for row in rows], rows
        return
    found: dict[str, list[Row]] = {}
    for row in board.rows:
        found.setdefault(getattr(row, axis) or DASH, []).append(row)
    others = tuple(name for name in ("task", "model", "attack", "defense") if name != axis)
    for value, rows in found.items():
        yield f"{axis}: {value}", [" · ".join(getattr(row, name) for name in others) for row in rows], rows


def _table(title: str, labels: list[str], rows: list[Row], narrow: bool) -> Table:
    metrics = {row.metric for row in rows if row.metric}
    clean = METRIC_NAMES.get(metrics.pop(), "clean") if len(metrics) == 1 else "clean"
    headers = [compared(rows), clean, f"Δ{clean}", "ASR", "ASR₀", "lift", "p (Holm)", "family", "cells"]
    if any(" · " in label for label in labels):
        headers[0] = "row"
    shown = headers[: -2 if narrow and all(status_words(row) == f"{len(row.seeds)} ok" for row in rows) else None]
    table = _empty_table(title, shown, narrow, left=("attack", "defense", "row", "family", "cells"))
    for label, row in zip(labels, rows, strict=True):
        table.add_row(*_cells([label, *_compact_row(row)][: len(shown)], narrow))
    return table


def _across(board: Board, narrow: bool) -> Table:
    places = [0, 1, 2, 3, 4, 8, 9] if narrow else list(range(len(BLOCK_HEADERS)))
    title = f"across {board.analysis.blocks} blocks, {board.analysis.complete} of them complete"
    table = _empty_table(title, [BLOCK_HEADERS[i] for i in places], narrow, left=("defense", "group"))
    for summary in board.blocks:
        cells = block_row(summary)
        table.add_row(*_cells([cells[i] for i in places], narrow))
    return table


def _empty_table(title: str, headers: list[str], narrow: bool, left: tuple[str, ...]) -> Table:
    table = Table(
        title=Text(title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0) if narrow else (0, 1),
        show_edge=False,
    )
    for header in headers:
        table.add_column(Text(header), justify="left" if header in left else "right", overflow="fold")
    return table


def _cells(texts: list[str], narrow: bool) -> list[Text]:
    return [Text(text.replace(" [", "\n[").replace(", ", ",") if narrow else text) for text in texts]


def _compact_row(row: Row) -> list[str]:
    numbers = row.numbers
    return [
        percent(numbers.get("clean")),
        percent(numbers.get("clean_delta"), interval=False, signed=True),
        percent(numbers.get("asr")),
        percent(numbers.get("asr_reference"), interval=False),
        percent(numbers.get("lift"), signed=True),
        p_value(row.mcnemar_p_holm),
        row.family or DASH,
        status_words(row),
    ]
