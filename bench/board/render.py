"""Renderings of the one table object: Markdown, CSV, JSON, and a compact table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.board.attack_section import attack_section
from bench.board.blocks import BlockSummary
from bench.board.columns import (
    BLOCK_DEFINITIONS,
    DASH,
    METRIC_NAMES,
    STATUS_WORDS,
    columns,
    definitions,
    p_value,
    percent,
    status_words,
)
from bench.board.implantation_section import implantation_section
from bench.board.markdown import escape_markdown, escaped_table
from bench.board.table import Board, Row
from bench.board.verdict_section import verdict_lines, verdict_section
from bench.metrics import CellMetrics, Number
from bench.records import Status
from bench.stats import MINIMUM_SEEDS


def groups(board: Board) -> Iterator[tuple[tuple[str, str, str], list[Row]]]:
    """Rows by (task, model, attack), in order."""
    for key, rows in groupby(board.rows, key=lambda row: (row.task, row.model, row.attack)):
        yield key, list(rows)


# -------------------------------------------------------------------------------------------------------------- Markdown


def to_markdown(board: Board) -> str:
    """The board as GitHub Markdown: a table for each group, what has no numbers and why, blocks, definitions."""
    suites = ", ".join(escape_markdown(suite) for suite in board.suites) or DASH
    parts = [f"# Board: {suites}", "All shares in per cent, differences in points; definitions at the end."]
    if board.few_seeds:
        parts.append(
            f"Rows with fewer than {MINIMUM_SEEDS} seeds: intervals hold sample uncertainty only, at these seeds; "
            "another seed may fall outside."
        )
    if not board.rows:
        parts.append("There are no cells.")
    for (task, model, attack), rows in groups(board):
        title = " · ".join(escape_markdown(part) for part in (task, model, attack))
        parts += [f"## {title}", _table(rows, board.margin)]
        notes = list(_notes(rows))
        if notes:
            parts.append("\n".join(f"- {note}" for note in notes))
    parts += implantation_section(board)
    parts += attack_section(board)
    parts += verdict_section(board)
    if board.blocks:
        parts += ["## Across blocks", _block_table(board)]
        parts.append("\n".join(f"- **{escape_markdown(term)}**: {text}" for term, text in BLOCK_DEFINITIONS))
    parts.append("## Definitions")
    parts.append("\n".join(f"- **{escape_markdown(term)}**: {text}" for term, text in definitions(board)))
    return "\n\n".join(parts) + "\n"


def _table(rows: list[Row], margin: float) -> str:
    shown = columns(rows, margin)
    return escaped_table([column.header for column in shown], [[column.show(row) for column in shown] for row in rows])


def _notes(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        for note in row.notes:
            reason = escape_markdown(note.reason) or "no reason recorded"
            yield f"{escape_markdown(row.defense)}, seed {note.seed}: {STATUS_WORDS[note.status]}: {reason}"


_BLOCK_HEADERS = [
    "defense",
    "blocks",
    "|lift|",
    "median Δ|lift|",
    "p (Holm)",
    "effect",
    "win/tie/loss",
    "group",
    "rank",
]


def _block_table(board: Board) -> str:
    return escaped_table(_BLOCK_HEADERS, [_block_row(summary) for summary in board.blocks])


def _block_row(summary: BlockSummary) -> list[str]:
    difference = Number(value=summary.median_difference, low=summary.median_low, high=summary.median_high)
    compared = summary.median_difference is not None
    rank = DASH
    if summary.mean_rank is not None:
        rank = f"{summary.mean_rank:.2f} [{summary.rank_low:g}, {summary.rank_high:g}] of {summary.rank_blocks}"
    return [
        summary.defense,
        str(summary.blocks),
        percent(Number(value=summary.mean_distance)),
        percent(difference, signed=True),
        p_value(summary.p_holm) if summary.p_holm is not None else summary.reason or DASH,
        f"{summary.effect:+.2f}" if summary.effect is not None else DASH,
        f"{summary.wins}/{summary.ties}/{summary.losses}" if compared else DASH,
        summary.group or DASH,
        rank,
    ]


# ---------------------------------------------------------------------------------------------------------- CSV and JSON

_PLAIN = (
    *("task", "model", "attack", "defense", "version", "family", "metric"),
    *(
        "non_inferior",
        "mcnemar_p",
        "mcnemar_p_holm",
        "n_clean",
        "n_triggered",
        "tokens",
        "clean_samples",
        "wall_seconds",
        "verdict",
        "verdict_p",
    ),
)
_NUMBERS = tuple(name for name, field in CellMetrics.model_fields.items() if field.annotation is Number)


def to_csv(board: Board) -> str:
    """One line a row, every number with ``_low``, ``_high`` and ``_n``; empty where undefined."""
    cells = [f"cells_{status.value}" for status in Status]
    header = ["suites", *_PLAIN, "knows", "seeds", *cells, "notes"]
    header += [f"{name}{suffix}" for name in _NUMBERS for suffix in ("", "_low", "_high", "_n")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in board.rows:
        line: list[object] = [" ".join(board.suites), *(getattr(row, name) for name in _PLAIN)]
        line += ["; ".join(row.knows), " ".join(map(str, row.seeds))]
        line += [row.cells.get(status, 0) for status in Status]
        line.append("; ".join(f"seed {note.seed} {note.status.value}: {note.reason}" for note in row.notes))
        for name in _NUMBERS:
            number = row.numbers.get(name, Number())
            line += [number.value, number.low, number.high, number.n]
        writer.writerow(line)
    return out.getvalue()


def to_json(board: Board) -> str:
    """The table object itself; ``Board.model_validate_json`` reads it back."""
    return board.model_dump_json(indent=1) + "\n"


# -------------------------------------------------------------------------------------------------------------- terminal


WIDE = 130
"""Columns of a terminal that shows every column on one line; a narrower one gets intervals on a line of their own."""


def print_board(board: Board, console: Console) -> None:
    """A compact table for each group: clean metric, ASR, ASR₀ and lift with what is needed to read them."""
    narrow = console.width < WIDE
    for (task, model, attack), rows in groups(board):
        clean = METRIC_NAMES.get(next((row.metric for row in rows if row.metric), ""), "clean")
        headers = ["defense", clean, f"Δ{clean}", "ASR", "ASR₀", "lift", "p (Holm)", "family", "cells"]
        shown = headers[: -2 if narrow and all(status_words(row) == f"{len(row.seeds)} ok" for row in rows) else None]
        table = Table(
            title=Text(f"{task} · {model} · {attack}"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0) if narrow else (0, 1),
            show_edge=False,
        )
        for header in shown:
            numeric = header not in ("defense", "family", "cells")
            table.add_column(Text(header), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            cells = _compact_row(row)[: len(shown)]
            table.add_row(*(Text(cell.replace(" [", "\n[").replace(", ", ",") if narrow else cell) for cell in cells))
        console.print(table)
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


def _compact_row(row: Row) -> list[str]:
    numbers = row.numbers
    return [
        row.defense,
        percent(numbers.get("clean")),
        percent(numbers.get("clean_delta"), interval=False, signed=True),
        percent(numbers.get("asr")),
        percent(numbers.get("asr_reference"), interval=False),
        percent(numbers.get("lift"), signed=True),
        p_value(row.mcnemar_p_holm),
        row.family or DASH,
        status_words(row),
    ]
