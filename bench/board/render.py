"""The board as text: GitHub Markdown, and the doors to its other renderings."""

from __future__ import annotations

from collections.abc import Iterator

from bench.board.across_section import across_section, apart_section
from bench.board.attack_section import attack_section
from bench.board.columns import DASH, STATUS_WORDS, columns, definitions
from bench.board.groups import groups
from bench.board.implantation_section import implantation_section
from bench.board.markdown import escape_markdown, escaped_table
from bench.board.table import Board, Row
from bench.board.tables import to_csv, to_json, to_pairs_csv
from bench.board.verdict_section import verdict_section
from bench.stats import MINIMUM_SEEDS

__all__ = ["escape_markdown", "to_csv", "to_json", "to_markdown", "to_pairs_csv"]


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
    for names, rows in groups(board):
        title = " · ".join(escape_markdown(part) for part in names)
        parts += [f"## {title}", _table(rows, board.margin)]
        notes = list(_notes(rows))
        if notes:
            parts.append("\n".join(f"- {note}" for note in notes))
    parts += implantation_section(board)
    parts += attack_section(board)
    parts += verdict_section(board)
    parts += across_section(board)
    parts += apart_section(board)
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
