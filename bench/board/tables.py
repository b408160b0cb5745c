"""The board for programs: CSV of the rows, CSV of the pairs, JSON of everything."""

from __future__ import annotations

import csv
import io
from typing import Final

from bench.board.table import Board, SeedNumbers
from bench.metrics import CellMetrics, Number
from bench.records import Status

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


_BY_SEED: Final = ("clean", "asr", "lift")


def _at(one: SeedNumbers, name: str) -> float | None:
    found: float | Number | None = getattr(one, name)
    return found.value if isinstance(found, Number) else found


def to_csv(board: Board) -> str:
    """One line a row, every number with ``_low``, ``_high`` and ``_n``; empty where undefined; ``_by_seed``: one value a seed."""
    cells = [f"cells_{status.value}" for status in Status]
    header = ["suites", *_PLAIN, "knows", "seeds", *cells, "notes", *(f"{name}_by_seed" for name in _BY_SEED)]
    header += [f"{name}{suffix}" for name in _NUMBERS for suffix in ("", "_low", "_high", "_n")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in board.rows:
        line: list[object] = [" ".join(board.suites), *(getattr(row, name) for name in _PLAIN)]
        line += ["; ".join(row.knows), " ".join(map(str, row.seeds))]
        line += [row.cells.get(status, 0) for status in Status]
        line.append("; ".join(f"seed {note.seed} {note.status.value}: {note.reason}" for note in row.notes))
        line += [" ".join("" if (v := _at(one, name)) is None else f"{v:g}" for one in row.each) for name in _BY_SEED]
        for name in _NUMBERS:
            number = row.numbers.get(name, Number())
            line += [number.value, number.low, number.high, number.n]
        writer.writerow(line)
    return out.getvalue()


def to_json(board: Board) -> str:
    """The table object itself, in one line; ``Board.model_validate_json`` reads it back."""
    return board.model_dump_json() + "\n"


_OF_PAIR: Final = (
    *(
        "blocks",
        "median",
        "low",
        "high",
        "effect",
        "wins",
        "ties",
        "losses",
        "p",
        "p_holm",
        "p_table",
        "better",
        "reason",
    ),
)


def to_pairs_csv(board: Board) -> str:
    """One line for each pair of defenses and question; empty where undefined.

    ``left``: what is left of the backdoor; ``clean``: the clean metric.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["suites", "one", "other", "question", *_OF_PAIR])
    for pair in board.analysis.pairs:
        for question in ("left", "clean"):
            found = getattr(pair, question)
            line = [getattr(found, name) for name in _OF_PAIR]
            writer.writerow([" ".join(board.suites), pair.one, pair.other, question, *line])
    return out.getvalue()
