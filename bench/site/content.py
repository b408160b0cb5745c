"""All that a site is made from: the board, its records by row, and what was counted from each cell's outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from bench.board.detection import Trial
from bench.board.table import AGAINST_UNDEFENDED, MARGIN, UNDEFENDED, Board, Loader, Row, Timings, build_board
from bench.faults import Fault
from bench.metrics import Number, record_metrics
from bench.outcomes import Answers, check
from bench.records import Record, Status
from bench.site.examples import Examples
from bench.site.facts import CellFacts, cell_facts
from bench.site.reported import Reported
from bench.suite import NONE
from bench.verdicts import FALSE_ALARMS

Place = tuple[str, str, str, str]
"""(task, model, attack, defense) of a row."""


@dataclass(frozen=True)
class Content:
    """Everything that the pages show."""

    name: str
    description: str
    board: Board
    records: Mapping[Place, tuple[Record, ...]]
    """Of each row, by seed; calibration is left out."""
    facts: Mapping[str, CellFacts]
    """Of each cell that is ok, by slug."""
    numbers: Mapping[str, Mapping[str, Number]]
    """The numbers of each cell that is ok, by slug."""
    trials: Mapping[str, Trial]
    """The verdict on a cell's victim, by slug."""
    timings: Timings = field(default_factory=dict)
    examples: Examples = field(default_factory=Examples)
    reported: tuple[Reported, ...] = ()

    def rows(self) -> dict[Place, Row]:
        """The board's rows by their place."""
        return {place(row): row for row in self.board.rows}


def place(row: Row) -> Place:
    """Where a row stands."""
    return row.task, row.model, row.attack, row.defense


def gather(
    records: Iterable[Record],
    loader: Loader,
    *,
    name: str,
    description: str = "",
    margin: float = MARGIN,
    false_alarms: float = FALSE_ALARMS,
    timings: Timings | None = None,
    examples: Examples | None = None,
    reported: tuple[Reported, ...] = (),
    faults: Iterable[Fault] = (),
) -> Content:
    """Build the board, and count each cell's outcomes while they pass: no table is read twice for the site.

    Arguments and errors as :func:`bench.board.write_board`.
    """
    records = list(records)
    rows: dict[Place, list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.coordinates.seed, r.suite)):
        if not record.calibration:
            at = record.coordinates
            rows.setdefault((at.task, at.model, at.attack, at.defense), []).append(record)
    alone = {found[0].coordinates.slug for found in rows.values() if len(_good(found)) == 1 and len(found) == 1}
    facts: dict[str, CellFacts] = {}
    metrics: dict[str, dict[str, Number]] = {}

    def load(record: Record) -> tuple[Answers, pd.DataFrame | None]:
        read, judged = loader(record)
        outcomes = check(read)
        slug = record.coordinates.slug
        if slug not in facts and not record.calibration:
            facts[slug] = cell_facts(outcomes, judged, defended=record.coordinates.defense != NONE)
            if slug not in alone:  # the row's numbers are means over seeds
                metrics[slug] = record_metrics(record, outcomes, judged).numbers()
                if record.coordinates.defense == NONE:
                    metrics[slug] |= {name: Number.absent(UNDEFENDED) for name in AGAINST_UNDEFENDED}
        return outcomes, judged

    board = build_board(records, load, margin=margin, timings=timings, false_alarms=false_alarms, faults=faults)
    numbers: dict[str, Mapping[str, Number]] = dict(metrics)
    rows = {place(row): [r for r in rows[place(row)] if r.coordinates.seed in _seeds(row)] for row in board.rows}
    for row in board.rows:
        for record in rows[place(row)]:
            if record.coordinates.slug in alone and record.status is Status.OK:
                numbers[record.coordinates.slug] = row.numbers
    return Content(
        name=name,
        description=description,
        board=board,
        records={at: tuple(found) for at, found in rows.items()},
        facts=facts,
        numbers=numbers,
        trials=_trials(board),
        timings=timings or {},
        examples=examples or Examples(),
        reported=reported,
    )


def _seeds(row: Row) -> set[int]:
    """The seeds that a row stands for, with or without numbers: what was set apart, under whatever name, is not among them."""
    return {*row.seeds, *(note.seed for note in row.notes)}


def _good(found: list[Record]) -> list[Record]:
    return [record for record in found if record.status is Status.OK]


def _trials(board: Board) -> dict[str, Trial]:
    """By slug: the name of the inversion page, which only cells of the board have."""
    trials = (trial for one in board.detections for trial in one.trials if trial.page)
    return {trial.page.rpartition("/")[2].removesuffix(".md"): trial for trial in trials}
