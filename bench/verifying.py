"""Running a stored cell again in a fresh store and comparing what comes out with what is stored.

Compared exactly: how the cell ended, its data digest, plugins, settings, seeds, goal, policy and what the attack did, and which inputs were
asked. Compared within a tolerance: the outcomes, since sums in floating point differ between processors and library versions. What
may differ freely: store keys, package versions, cost, digests of files, provenance; a difference in packages is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape

from bench.errors import ConfigError, DataError, StoreError, suggest
from bench.exporting import export
from bench.fitting import told_differently
from bench.metrics import record_metrics
from bench.migrations import UnreadableRecord
from bench.records import Coordinates, Record, Status
from bench.results import ResultsFolder
from bench.suite import load_suite

FLIPS: Final = 0.01
"""The share of a part's inputs whose success may differ."""
NUMBERS: Final = 0.01
"""By how much a share or a metric may differ: one point."""
EXACT: Final = ("status", "data_digest", "seeds", "settings", "goal", "policy", "metric", "family", "knows", "poison")
"""Fields of a record that must be equal; of ``settings`` all but the numerics."""
NUMBERS_COMPARED: Final = ("clean", "asr", "asr_reference", "asr_undefended", "lift", "robust_accuracy")

Level = Literal["identical", "within tolerance", "differs"]


@dataclass(frozen=True)
class Comparison:
    """What a second run says of one cell."""

    slug: str
    level: Level
    differences: tuple[str, ...] = ()
    """What exceeds the tolerances, or must be equal and is not."""
    notes: tuple[str, ...] = ()
    """What differs and may."""


def compare(
    stored: tuple[Record, pd.DataFrame | None],
    again: tuple[Record, pd.DataFrame | None],
    *,
    flips: float = FLIPS,
    numbers: float = NUMBERS,
) -> Comparison:
    """A stored cell and the same cell from another run: (record, outcome table or ``None`` where it did not end well)."""
    (one, before), (other, after) = stored, again
    if one.status is Status.OK is not other.status:  # all else that differs then is what is missing
        told = f"status: {one.status.value} stored, {other.status.value} now: {' '.join(other.reason.split())}"
        return Comparison(one.coordinates.slug, "differs", (told,))
    wrong = list(_exact(one, other))
    notes = list(_notes(one, other))
    same = not wrong
    if before is not None and after is not None and one.status is other.status is Status.OK:
        same &= before.equals(after)
        if not before.equals(after):
            wrong += _outcomes(before, after, flips, notes)
            wrong += _numbers(one, before, other, after, numbers) if not wrong else []
    level: Level = "differs" if wrong else "identical" if same and not notes else "within tolerance"
    return Comparison(one.coordinates.slug, level, tuple(wrong), tuple(notes))


def _exact(one: Record, other: Record) -> list[str]:
    a, b = _comparable(one), _comparable(other)
    return [
        f"{name}: {_short(a[name])} stored, {_short(b[name])} now"
        for name in a
        if name not in b or told_differently(a[name], b[name])
    ]


def _comparable(record: Record) -> dict[str, Any]:
    value = record.model_dump(mode="json")
    found = {name: value[name] for name in EXACT}
    found["settings"] = {name: part for name, part in value["settings"].items() if name != "numerics"}
    for role, used in value["plugins"].items():
        found[f"plugin {role}"] = [used["name"], used["version"], used["effective"]]
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _notes(one: Record, other: Record) -> list[str]:
    """Differences that are allowed, in words."""
    notes = []
    for name in sorted({*one.packages, *other.packages}):
        before, after = one.packages.get(name, "none"), other.packages.get(name, "none")
        if before != after:
            notes.append(f"{name} {before} stored, {after} now")
    numerics = [record.settings.get("numerics") for record in (one, other)]
    if numerics[0] != numerics[1]:
        notes.append(f"numerics {_short(numerics[0])} stored, {_short(numerics[1])} now")
    tokens = [{claim: found.kept for claim, found in record.inversions.items()} for record in (one, other)]
    if tokens[0] != tokens[1]:
        notes.append("other tokens were inverted")
    return notes


def _outcomes(before: pd.DataFrame, after: pd.DataFrame, flips: float, notes: list[str]) -> list[str]:
    asked = ["part", "id", "group", "label", "pool", "visible"]
    if not before[asked].equals(after[asked]):
        return ["other inputs were asked: part, id, group, label, pool or visible differ"]
    wrong = []
    for column in ("success", "undefended_success", "reference_success"):
        changed = (before[column] != after[column]).groupby(before["part"]).mean()
        for part, share in changed.items():
            told = f"{column} of {100 * share:.2g} % of the {part} inputs differs"
            if share > flips:
                wrong.append(f"{told}, more than {100 * flips:g} %")
            elif share > 0:
                notes.append(told)
    gap = np.nanmax(np.abs(before["probability"] - after["probability"]), initial=0.0)
    if gap > 0:
        notes.append(f"probabilities differ by at most {gap:.2g}")
    return wrong


def _numbers(one: Record, before: pd.DataFrame, other: Record, after: pd.DataFrame, tolerance: float) -> list[str]:
    found = [record_metrics(record, table).numbers() for record, table in ((one, before), (other, after))]
    wrong = []
    for name in NUMBERS_COMPARED:
        a, b = found[0][name].value, found[1][name].value
        if (a is None) != (b is None) or (a is not None and b is not None and abs(a - b) > tolerance):
            wrong.append(f"{name}: {a} stored, {b} now, more than {tolerance:g} apart")
    return wrong


# ------------------------------------------------------------------------------------------------------------- running again


def find_cells(what: str, results: Path) -> list[tuple[ResultsFolder, Record]]:
    """The stored cells that a suite's name, a cell's name (its slug) or a record's path means.

    Raises:
        ConfigError: nothing of that name; suggests.
        DataError: the record, or none of the suite's, can be read.
    """
    path = Path(what)
    if path.suffix == ".json" and path.is_file():
        folder = ResultsFolder(path.resolve().parents[1])
        try:
            return [(folder, folder.record(path.stem))]
        except UnreadableRecord as error:
            raise DataError(f"{path}: {error}") from error
    if (results / what / "cells").is_dir():
        folder = ResultsFolder(results / what)
        return [(folder, record) for record in folder.read().records]
    folders = [ResultsFolder(cells.parent) for cells in sorted(results.glob("**/cells")) if cells.is_dir()]
    named = [folder for folder in folders if (folder.cells / f"{what}.json").is_file()]
    if not named:
        known = {folder.root.name for folder in folders} | {p.stem for f in folders for p in f.cells.glob("*.json")}
        near = suggest(what, known) if len(known) <= 20 else suggest(what, {folder.root.name for folder in folders})
        raise ConfigError(f"{results} holds no suite and no cell {what!r}.{near}")
    try:
        return [(named[0], named[0].record(what))]
    except UnreadableRecord as error:
        raise DataError(f"{named[0].cells / what}.json: {error}") from error


def verify(
    what: str,
    results: Path,
    files: Sequence[Path],
    only: Mapping[str, Sequence[str]],
    jobs: int,
    console: Console,
    *,
    flips: float = FLIPS,
    numbers: float = NUMBERS,
) -> int:
    """Run stored cells again, in a store that is deleted afterwards, and print how they compare. Returns 1 where one differs.

    Raises:
        ConfigError: an unknown suite or cell, or a cell that its suite no longer has.
        DataError: unreadable results.
    """
    cells = [
        (folder, record)
        for folder, record in find_cells(what, results)
        if record.status is Status.OK
        and all(str(getattr(record.coordinates, axis)) in values for axis, values in only.items())
    ]
    if not cells:
        raise ConfigError(
            f"{what!r}: no stored cell that ended well is among those chosen; there is nothing to compare with"
        )
    found: list[Comparison] = []
    for suite in dict.fromkeys(record.suite for _, record in cells):
        mine = [(folder, record) for folder, record in cells if record.suite == suite]
        found += _verify_suite(suite, mine, files, jobs, console, flips, numbers)
    for one in found:
        colour = {"identical": "green", "within tolerance": "cyan", "differs": "bold red"}[one.level]
        console.print(f"[{colour}]{one.level}[/] {escape(one.slug)}", highlight=False, soft_wrap=True)
        for line in (*one.differences, *one.notes):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    bad = sum(one.level == "differs" for one in found)
    console.print(
        f"{len(found)} cells run again: {sum(one.level == 'identical' for one in found)} identical, {bad} differ "
        f"(tolerances: {100 * flips:g} % of a part's inputs, {100 * numbers:g} points)",
        highlight=False,
        soft_wrap=True,
    )
    return 1 if bad else 0


def _verify_suite(
    name: str,
    cells: Sequence[tuple[ResultsFolder, Record]],
    files: Sequence[Path],
    jobs: int,
    console: Console,
    flips: float,
    numbers: float,
) -> list[Comparison]:
    from bench.running import execute, graphs_of, load_registry, narrow
    from bench.store import Store

    suite = load_suite(name)
    registry = load_registry(suite, files)
    graphs = {graph.coordinates: graph for graph in graphs_of(suite, registry, {})}
    chosen = []
    for _, record in cells:
        at = record.coordinates
        if at not in graphs:  # a cell that was run by its coordinates, with the suite's settings
            labels = {axis: str(getattr(at, axis)) for axis in ("task", "model", "attack", "defense")}
            graphs |= {graph.coordinates: graph for graph in graphs_of(narrow(suite, labels, at.seed), registry, {})}
        if at not in graphs:
            raise ConfigError(f"suite {name!r} has no cell {at.slug} any more")
        chosen.append(graphs[at])
    with TemporaryDirectory(prefix="codebackdoorbench-verify-") as scratch:
        store, fresh = Store(Path(scratch) / "store"), ResultsFolder(Path(scratch) / "results")
        report = execute(suite, chosen, registry, store, jobs, console)
        again = {record.coordinates: record for record in export(chosen, report, store, fresh, name)}
        return [
            compare(
                (record, _table(folder, record.coordinates)),
                (again[record.coordinates], _table(fresh, record.coordinates)),
                flips=flips,
                numbers=numbers,
            )
            for folder, record in cells
        ]


def _table(folder: ResultsFolder, at: Coordinates) -> pd.DataFrame | None:
    try:
        return folder.outcomes(at)
    except StoreError:
        return None
