"""The one table object that every rendering of the board is made from: a row for each (task, model, attack, defense), over its seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from typing import Final

import pandas as pd
from pydantic import BaseModel, ConfigDict

from bench import stats
from bench.board.analysis import Analysis, Block, Gap, analyse
from bench.board.attack_rows import AttackRow, attack_rows
from bench.board.blocks import BlockSummary, summaries
from bench.board.curves import Curve, curves
from bench.board.detection import Detection, Trial, detections, lift_is_above_zero, verdict_of_row
from bench.board.rounding import rounded, rounded_number
from bench.children import single_threaded_children
from bench.errors import BenchError
from bench.faults import Fault
from bench.fitting import sift
from bench.measures import Measure, all_over_seeds, measures
from bench.metrics import CellMetrics, Number, Test, record_metrics
from bench.outcomes import Answers, check
from bench.records import Coordinates, Record, Status
from bench.verdicts import FALSE_ALARMS

MARGIN: Final = 0.02
FAMILY_ORDER: Final = ("none", "filter", "training", "repair", "screen", "composition")
UNDEFENDED: Final = "this is the undefended model"
_PIECES: Final = 4
"""Pieces of work for each worker: all end at about the same time."""
AGAINST_UNDEFENDED: Final = ("clean_delta", "asr_delta")
"""Numbers that an undefended cell has not: it would be compared with itself."""

Loader = Callable[[Record], tuple[pd.DataFrame | Answers, pd.DataFrame | None]]
"""Gives the outcome table (checked already, or a data frame) and the filter table (or ``None``) of a record."""
Timings = Mapping[str, Mapping[str, float]]
"""Cell slug → ``seconds`` and ``peak_bytes``."""


class CellNote(BaseModel):
    """A cell that has no numbers, and why. Never averaged over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    status: Status
    reason: str


class SeedNumbers(BaseModel):
    """A row at one of its seeds. A mean of +74, −12 and +70 is not three backdoors, and no interval of the mean says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    clean: float | None
    asr: float | None
    lift: Number
    asr_delta: float | None
    """``None`` for the undefended row, too."""

    @property
    def implanted(self) -> bool:
        """Of an undefended row: does this seed's victim carry the backdoor (the interval of its lift lies above 0)?"""
        return self.lift.low is not None and self.lift.low > 0


class Row(BaseModel):
    """One defense on one (task, model, attack), over the seeds whose cells are ok. Numbers are rounded to six decimals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    model: str
    attack: str
    defense: str
    version: int | None
    family: str
    knows: tuple[str, ...]
    metric: str
    seeds: tuple[int, ...]
    """Seeds that the numbers are means of."""
    cells: dict[Status, int]
    """How the row's cells ended; only ``ok`` ones have numbers."""
    notes: tuple[CellNote, ...]
    numbers: dict[str, Number]
    each: tuple[SeedNumbers, ...] = ()
    """The same seed by seed."""
    non_inferior: bool | None = None
    """Is the loss of the clean metric within the margin (lower end of the paired interval)?"""
    mcnemar_p: float | None = None
    """Exact McNemar, defended against undefended ASR; with several seeds the largest p (it must hold at each), and 1 where they
    disagree on the direction."""
    mcnemar_p_holm: float | None = None
    """The same, adjusted over all rows of the table."""
    poisoned: float | None = None
    """Training samples with the trigger, mean over seeds."""
    attack_non_inferior: bool | None = None
    """Is what the attack costs the undefended victim's clean metric within the margin?"""
    n_clean: int = 0
    n_triggered: int = 0
    tokens: float | None = None
    """Forward and backward tokens of the cell's own stages, mean over seeds."""
    clean_samples: float | None = None
    wall_seconds: float | None = None
    """Of the defense's own stages, mean over seeds."""
    peak_bytes: float | None = None
    """Highest over its stages and seeds."""
    verdict: str = ""
    """What an inversion defense says of the row's victims (``2 of 3 convicted``, ``not calibrated``); empty for other defenses."""
    verdict_p: float | None = None
    """The largest conformal p over its seeds."""

    @property
    def block(self) -> Block:
        """What the row's defense is judged on."""
        return self.task, self.model, self.attack

    @property
    def attacked(self) -> bool:
        """Are there triggered inputs?"""
        return "asr" in self.numbers and self.numbers["asr"].value is not None

    @property
    def left(self) -> float | None:
        """What is left of the backdoor: the larger of lift and reverse lift, at least 0; ``None`` without a lift.

        The distance of the lift from 0 would punish what stops a trigger for which a clean model falls as well (a screen that rejects
        every triggered input has an ASR of 0 and a lift far below). A reverse backdoor is seen where it acts: on triggered inputs of
        the target class, more of which turn to the victim class than on the clean reference. Code search has no such inputs.
        """
        lift, reverse = (
            self.numbers[name].value if name in self.numbers else None for name in ("lift", "reverse_lift")
        )
        return None if lift is None else max(lift, reverse or 0.0, 0.0)

    @property
    def nothing_left(self) -> bool:
        """Does no interval show anything of the backdoor any more, nor of its opposite?"""
        lift, reverse = (self.numbers.get(name, Number()) for name in ("lift", "reverse_lift"))
        return lift.low is not None and lift.low <= 0 and (reverse.low is None or reverse.low <= 0)

    @property
    def implanted_seeds(self) -> tuple[int, ...]:
        """Of an undefended row: the seeds at which the backdoor is there."""
        return tuple(one.seed for one in self.each if one.implanted)


class Board(BaseModel):
    """The leaderboard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suites: tuple[str, ...]
    margin: float
    level: float = stats.LEVEL
    rows: tuple[Row, ...]
    """Sorted by task, model, attack (``none`` first), family and defense; independent of the order of the records."""
    partial: tuple[Row, ...] = ()
    """Where the undefended victim is known to carry the backdoor at some of the block's seeds only: the rows of that block over
    those seeds alone."""
    blocks: tuple[BlockSummary, ...]
    """Each defense across all blocks (task × model × attack), against no defense."""
    analysis: Analysis = Analysis()
    """All that is said across cells: standings, pairs, tie groups, gaps."""
    false_alarms: float = FALSE_ALARMS
    """The share of clean models that a verdict may convict."""
    detections: tuple[Detection, ...] = ()
    """Each inversion defense as a detector of backdoored models."""
    attacks: tuple[AttackRow, ...] = ()
    """What is told of each attack beside its success."""
    curves: tuple[Curve, ...] = ()
    """Lift over poisoned samples, and over a defense's clean samples, where rows differ in nothing else."""
    apart: tuple[Fault, ...] = ()
    """Results that cannot be read or do not fit, in no row, block or test; where they lie, what is wrong and what to do."""

    @property
    def judged(self) -> list[Row]:
        """The rows that defenses are judged by: see :func:`judged_rows`."""
        return judged_rows(self.rows, self.partial)

    @property
    def few_seeds(self) -> bool:
        """Does any row rest on fewer than five seeds?"""
        return any(0 < len(row.seeds) < stats.MINIMUM_SEEDS for row in self.rows)


def build_board(
    records: Iterable[Record],
    outcomes_loader: Loader,
    *,
    margin: float = MARGIN,
    timings: Timings | None = None,
    false_alarms: float = FALSE_ALARMS,
    faults: Iterable[Fault] = (),
    workers: int = 1,
) -> Board:
    """Make the table; arguments as :func:`bench.board.write_board`, ``faults`` as found when the records were read.

    With several ``workers`` (processes) the loader must be picklable; the board is the same.

    Records that do not fit together or whose tables are no good stand in ``apart``; nothing is raised for them.
    """
    records, misfits = sift(list(records))
    apart = [*faults, *misfits]
    grouped: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        at = record.coordinates
        if not record.calibration:
            grouped.setdefault((at.task, at.model, at.attack, at.defense), []).append(record)
    read = _Read()
    for part in _read_all([grouped[key] for key in sorted(grouped)], outcomes_loader, margin, timings or {}, workers):
        read += part
    rows = sorted(read.rows, key=_order)
    apart += read.faults
    records = [record for record in records if record.coordinates not in read.failed]
    detected = detections(records, lambda record: read.implanted.get(record.coordinates), false_alarms)
    rows = _with_verdicts(rows, detected)
    partial = _Read()
    for part in _read_all(_narrower(rows, records), outcomes_loader, margin, timings or {}, workers):
        partial += part
    over_some = {(row.block, row.defense): row for row in partial.rows}
    narrowed = _adjusted([over_some.get((row.block, row.defense), row) for row in rows])
    rows = _adjusted(rows)
    some = [row for row in narrowed if (row.block, row.defense) in over_some]
    across = analyse_rows(judged_rows(rows, some), rows)
    return Board(
        suites=tuple(sorted({record.suite for record in records})),
        margin=margin,
        rows=tuple(rows),
        partial=tuple(some),
        blocks=tuple(summaries(across)),
        analysis=across,
        false_alarms=false_alarms,
        detections=detected,
        attacks=attack_rows(records),
        curves=curves(records, {(row.task, row.model, row.attack, row.defense): row for row in rows}),
        apart=tuple(sorted(apart, key=str)),
    )


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """With Holm's adjustment of McNemar's test over all of them."""
    adjusted = stats.holm([row.mcnemar_p for row in rows])
    return [row.model_copy(update={"mcnemar_p_holm": rounded(p)}) for row, p in zip(rows, adjusted, strict=True)]


def _victims(rows: Iterable[Row]) -> dict[Block, Row]:
    """The undefended row of each attacked block."""
    return {row.block: row for row in rows if row.family == "none" and row.attacked}


def _narrower(rows: Sequence[Row], records: Sequence[Record]) -> list[list[Record]]:
    """The cells of blocks that have a seed at which no backdoor is known, at the seeds that have it, a list for each row.

    Not known: the backdoor is not there, or the undefended cell of that seed cannot be read while those of defenses can.
    """
    seeds: dict[Block, set[int]] = {}
    for row in rows:
        seeds.setdefault(row.block, set()).update(row.seeds)
    wanted = {
        block: implanted
        for block, victim in _victims(rows).items()
        if (implanted := victim.implanted_seeds) and not seeds[block] <= set(implanted)
    }
    found: dict[tuple[Block, str], list[Record]] = {}
    for record in records:
        at = record.coordinates
        block = (at.task, at.model, at.attack)
        if not record.calibration and record.status is Status.OK and at.seed in wanted.get(block, ()):
            found.setdefault((block, at.defense), []).append(record)
    return [found[key] for key in sorted(found)]


def judged_rows(rows: Sequence[Row], partial: Sequence[Row]) -> list[Row]:
    """What defenses are judged by: rows of the blocks that have a backdoor to remove, over the seeds that have it.

    A row that lacks one of those seeds is left out, since a mean over other seeds is another question. Rows without an attack stand
    as they are, and so do those of a block without an undefended row, of which nothing is known.
    """
    victims, over_some = _victims(rows), {(row.block, row.defense): row for row in partial}
    found = []
    for row in rows:
        victim = victims.get(row.block)
        if victim is None:
            found.append(row)
            continue
        chosen = over_some.get((row.block, row.defense), row)
        if victim.implanted_seeds and chosen.seeds == victim.implanted_seeds:
            found.append(chosen)
    return found


@dataclass
class _Read:
    """What came of reading some rows' tables."""

    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    failed: set[Coordinates] = field(default_factory=set)
    implanted: dict[Coordinates, bool | None] = field(default_factory=dict)
    """Does the undefended victim of a record carry the backdoor?"""

    def __iadd__(self, other: _Read) -> _Read:
        self.rows += other.rows
        self.faults += other.faults
        self.failed |= other.failed
        self.implanted |= other.implanted
        return self


def _read_all(
    wanted: Sequence[Sequence[Record]], loader: Loader, margin: float, timings: Timings, workers: int
) -> Iterator[_Read]:
    """The rows of some groups of records, in order, in pieces; each group is one row's cells."""
    if workers == 1 or len(wanted) < 2:
        yield _read_rows(wanted, loader, margin, timings)
        return
    each = -(-len(wanted) // (workers * _PIECES))
    pieces = [wanted[place : place + each] for place in range(0, len(wanted), each)]
    slugs = [{record.coordinates.slug for records in piece for record in records} for piece in pieces]
    own = [{slug: time for slug, time in timings.items() if slug in here} for here in slugs]
    # A fresh interpreter: a fork of one that has threads (Arrow's) may hang.
    with single_threaded_children(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_read_rows, pieces, repeat(loader), repeat(margin), own)


def _read_rows(wanted: Sequence[Sequence[Record]], loader: Loader, margin: float, timings: Timings) -> _Read:
    reader = _Reader(loader)
    rows = [row for records in wanted if (row := _row(records, reader, margin, timings)) is not None]
    return _Read(rows, reader.faults, reader.failed, reader.implanted)


class _Reader:
    """Asks for the tables of each record once; what cannot be read is a fault, and the rest of the board goes on."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.implanted: dict[Coordinates, bool | None] = {}
        self.faults: list[Fault] = []
        self.failed: set[Coordinates] = set()

    def read(self, record: Record, alone: bool) -> tuple[CellMetrics, dict[str, Measure]] | None:
        """The numbers of a record, and the measures that they come from; ``None`` where its tables are no good.

        Intervals are made for the one cell of a row (``alone``); several seeds get those of their mean.
        """
        at = record.coordinates
        try:
            outcomes, filter_table = self._loader(record)
            outcomes = check(outcomes)
            if record.inversions:
                self.implanted[at] = lift_is_above_zero(outcomes)
            found = measures(outcomes, record.metric, record.goal)
            return record_metrics(record, outcomes, filter_table, found, intervals=alone), found
        except BenchError as error:
            self.failed.add(at)
            self.faults.append(Fault(where=f"{record.suite}: {at.slug}", what=str(error), slug=at.slug))
            return None


def analyse_rows(rows: Sequence[Row], shown: Sequence[Row]) -> Analysis:
    """What rows (:func:`judged_rows`) say across blocks; ``shown`` are all rows, which tell why one is missing."""
    left: dict[str, dict[Block, float]] = {row.defense: {} for row in rows}
    clean: dict[str, dict[Block, float]] = {row.defense: {} for row in rows}
    for row in rows:
        of_clean = row.numbers["clean"].value if "clean" in row.numbers else None
        for values, value in ((left, row.left), (clean, of_clean)):
            if value is not None:
                values[row.defense][row.block] = value
    controls = [row.defense for row in rows if row.family == "none"]
    return analyse(left, clean, control=controls[0] if controls else None, gaps=_gaps(shown, left))


def _gaps(rows: Sequence[Row], left: Mapping[str, Mapping[Block, float]]) -> list[Gap]:
    at = {(*row.block, row.defense): row for row in rows}
    blocks = sorted({block for found in left.values() for block in found})
    found = []
    for defense in sorted({row.defense for row in rows}):
        for block in blocks:
            if block not in left.get(defense, {}):
                reason = _why_missing(at.get((*block, defense)))
                found.append(Gap(defense=defense, task=block[0], model=block[1], attack=block[2], reason=reason))
    return found


def _why_missing(row: Row | None) -> str:
    if row is None:
        return "no cell"
    if row.numbers and row.numbers["lift"].value is None:
        return row.numbers["lift"].reason
    if row.numbers:
        return f"it lacks a seed at which there is a backdoor (it has {', '.join(map(str, row.seeds))})"
    told = dict.fromkeys(
        f"{note.status.value.replace('_', ' ')}: {note.reason}" if note.reason else note.status.value.replace("_", " ")
        for note in row.notes
    )
    return "; ".join(told) or "no cell is ok"


def _with_verdicts(rows: Sequence[Row], detected: Iterable[Detection]) -> list[Row]:
    trials: dict[tuple[str, str, str, str], list[Trial]] = {}
    for one in detected:
        for trial in one.trials:
            if not trial.calibration:
                trials.setdefault((one.task, one.model, trial.attack, one.defense), []).append(trial)
    told = [verdict_of_row(trials.get((row.task, row.model, row.attack, row.defense), [])) for row in rows]
    return [
        row.model_copy(update={"verdict": words, "verdict_p": p}) for row, (words, p) in zip(rows, told, strict=True)
    ]


def _order(row: Row) -> tuple[object, ...]:
    return (row.task, row.model, row.attack != "none", row.attack, place_of_family(row.family), row.defense)


def place_of_family(family: str) -> int:
    """Where a family stands on a board; unknown ones last."""
    return FAMILY_ORDER.index(family) if family in FAMILY_ORDER else len(FAMILY_ORDER)


def controls_first(family: str, defense: str) -> tuple[int, bool, str]:
    """Sorts defenses by family, the controls (``repair/random``) before the others."""
    return place_of_family(family), "/" not in defense, defense


def _row(records: Sequence[Record], reader: _Reader, margin: float, timings: Timings) -> Row | None:
    """``None`` where none of its cells can be shown."""
    records = sorted(records, key=lambda record: (record.coordinates.seed, record.suite))
    good = [record for record in records if record.status is Status.OK]
    read = {record.coordinates: reader.read(record, len(good) == 1) for record in good}
    records = [record for record in records if record.coordinates not in reader.failed]
    if not records:
        return None
    several, good = len(good) > 1, [record for record in records if record.status is Status.OK]
    if (
        several and len(good) == 1
    ):  # the other seeds' tables are no good: the one that is left needs intervals of its own
        read[good[0].coordinates] = reader.read(good[0], True)
    shown = good[0] if good else records[0]
    at, used = shown.coordinates, shown.plugins.get("defense")
    family = shown.family or ("none" if at.defense == "none" else "")
    undefended = family == "none"
    numbers, p = _numbers([found for found in read.values() if found is not None], undefended=undefended)
    delta = numbers.get("clean_delta")
    times = [timings[record.coordinates.slug] for record in good if record.coordinates.slug in timings]
    times = times if len(times) == len(good) else []
    return Row(
        task=at.task,
        model=at.model,
        attack=at.attack,
        defense=at.defense,
        version=used.version if used else None,
        family=family,
        knows=tuple(shown.knows),
        metric=shown.metric,
        seeds=tuple(record.coordinates.seed for record in good),
        cells=dict(sorted(Counter(record.status for record in records).items())),
        notes=tuple(
            CellNote(seed=record.coordinates.seed, status=record.status, reason=record.reason)
            for record in records
            if record.status is not Status.OK
        ),
        numbers=numbers,
        each=tuple(_at_seed(at.seed, found, undefended) for at, found in read.items() if found is not None),
        non_inferior=_non_inferior(delta, margin),
        mcnemar_p=p,
        poisoned=_mean([record.poison.poisoned for record in good if record.poison is not None]),
        attack_non_inferior=_non_inferior(numbers.get("reference_delta"), margin),
        n_clean=numbers["clean"].n if numbers else 0,
        n_triggered=numbers["asr"].n if numbers else 0,
        tokens=_mean([record.cost.forward_tokens + record.cost.backward_tokens for record in good]),
        clean_samples=_mean([record.cost.clean_samples for record in good]),
        wall_seconds=_mean([time["seconds"] for time in times if "seconds" in time]),
        peak_bytes=max((time["peak_bytes"] for time in times if "peak_bytes" in time), default=None),
    )


def _at_seed(seed: int, found: tuple[CellMetrics, dict[str, Measure]], undefended: bool) -> SeedNumbers:
    metrics, sums = found
    lift = metrics.lift
    if lift.value is not None and lift.low is None:  # one of several seeds, read without intervals
        lift = Number.of(sums["lift"].estimate(), lift.reason)
    return SeedNumbers(
        seed=seed,
        clean=rounded(metrics.clean.value),
        asr=rounded(metrics.asr.value),
        lift=rounded_number(lift),
        asr_delta=None if undefended else rounded(metrics.asr_delta.value),
    )


def _numbers(
    read: Sequence[tuple[CellMetrics, dict[str, Measure]]], *, undefended: bool
) -> tuple[dict[str, Number], float | None]:
    """All numbers of a row (empty without an ok cell) and its McNemar p."""
    if not read:
        return {}, None
    cells = [metrics for metrics, _ in read]
    each = [cell.numbers() for cell in cells]
    sums = all_over_seeds([found for _, found in read]) if len(read) > 1 else {}
    numbers = {name: _over_seeds([numbers[name] for numbers in each], sums.get(name)) for name in each[0]}
    if undefended:
        return numbers | {name: Number.absent(UNDEFENDED) for name in AGAINST_UNDEFENDED}, None
    return numbers, _at_every_seed([cell.mcnemar for cell in cells])


def _at_every_seed(tests: Sequence[Test]) -> float | None:
    """The p of what holds at each seed in the same direction: the largest, or 1 where directions differ; ``None`` where one lacks a p."""
    p_values = [test.p for test in tests if test.p is not None]
    if len(p_values) < len(tests):
        return None
    directions = {test.gained > test.stopped for test in tests if test.gained != test.stopped}
    return 1.0 if len(directions) > 1 else rounded(max(p_values))


def _over_seeds(cells: Sequence[Number], found: stats.Estimate | None) -> Number:
    """A number of several seeds: the mean with the interval of the two-level bootstrap, where it is a sum over samples."""
    absent = [cell for cell in cells if cell.value is None]
    if absent:
        reason = absent[0].reason
        return Number.absent(reason if len(absent) == len(cells) else f"undefined at some seeds: {reason}")
    if len(cells) == 1:
        return rounded_number(cells[0])
    if found is not None:
        return rounded_number(Number.of(found, ""))
    mean = sum(cell.value for cell in cells if cell.value is not None) / len(cells)
    return rounded_number(Number(value=mean, n=min(cell.n for cell in cells)))


def _non_inferior(delta: Number | None, margin: float) -> bool | None:
    if delta is None or delta.value is None:
        return None
    return stats.non_inferior(stats.Estimate(delta.value, delta.low, delta.high, delta.n), margin)


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None
