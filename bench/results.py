"""The results folder of a suite: one small record a cell, its outcomes beside it, and timings. Made from the store, read by boards.

::

    results/<suite>/cells/<slug>.json            record (schema: bench.records)
    results/<suite>/cells/<slug>.parquet         per-sample outcomes
    results/<suite>/cells/<slug>.filter.parquet  per-sample suspicion of a filter
    results/<suite>/timings.json                 wall seconds and peak memory; apart, since records are byte-identical
    results/<suite>/provenance.json              who computed what, at which commit; apart for the same reason
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from bench import outcomes
from bench.errors import DataError
from bench.execute import Report
from bench.faults import Fault
from bench.migrations import UnreadableRecord, read_record
from bench.pipeline import CellGraph, badges
from bench.provenance import FILE, Provenance, environment, read_provenance, sha256_of
from bench.records import Coordinates, Record, Status, StealthFacts
from bench.store import Store, write_json

APART: Final = "apart.json"
"""What was refused when results were merged."""


class Reading(NamedTuple):
    """What a results folder holds."""

    records: list[Record]
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class ResultsFolder:
    """Where a suite's results lie."""

    root: Path

    @property
    def cells(self) -> Path:
        """Records and outcomes."""
        return self.root / "cells"

    def records(self) -> list[Record]:
        """All records, by file name.

        Raises:
            DataError: a record is unreadable; names the file and says what to do.
        """
        found = self.read()
        if found.faults:
            raise DataError(str(found.faults[0]))
        return found.records

    def read(self) -> Reading:
        """The records that can be read, by file name, and what is wrong with the others.

        Raises:
            DataError: there is none that can be read.
        """
        if not self.cells.is_dir():
            raise DataError(f"{self.cells} does not exist; run the suite first")
        records, faults = [], []
        try:
            provenance = read_provenance(self.root)
        except DataError as error:
            provenance = Provenance()
            faults.append(Fault(where=FILE, what=str(error)))
        faults += self._refused()
        for path in sorted(self.cells.glob("*.json")):
            found = self._read(path, provenance)
            if isinstance(found, Fault):
                faults.append(found)
            else:
                records.append(found)
        if not records:
            told = f": {faults[0]}" if faults else ""
            raise DataError(f"{self.cells} holds no records that can be read{told}; run the suite first")
        return Reading(records, tuple(faults))

    def _refused(self) -> list[Fault]:
        """What a merge (:mod:`bench.merging`) would not take in."""
        path = self.root / APART
        if not path.is_file():
            return []
        try:
            return [Fault.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            return [Fault(where=APART, what=f"it cannot be read: {error}. Delete it and merge again")]

    def _read(self, path: Path, provenance: Provenance) -> Record | Fault:
        where = str(path.relative_to(self.root))
        try:
            text = path.read_bytes()
        except OSError as error:
            return Fault(where=where, what=f"it cannot be read: {error.strerror}")
        known = provenance.cells.get(path.stem)
        changed = known is not None and hashlib.sha256(text).hexdigest() != known.record
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Fault(
                where=where, what=f"it is not whole JSON ({error}); truncated? Delete it and run the suite again"
            )
        try:
            record = read_record(value)
        except UnreadableRecord as error:
            return Fault(where=where, what=str(error))
        at = record.coordinates
        if changed:
            what = f"it is not what was written: {FILE} knows another sha256. Take it from where it was written, or run the cell again"
            return Fault(where=where, what=what, slug=at.slug)
        if at.slug != path.stem:
            return Fault(
                where=where,
                what=f"it describes another cell, {at.slug}; rename it, or run the cell again",
                slug=at.slug,
            )
        for name, table in self.tables(at).items():
            expected = record.files.get(name)
            if expected is not None and table.is_file() and sha256_of(table) != expected:
                what = f"its {name} ({table.name}) have another sha256 than the record states; run the cell again"
                return Fault(where=where, what=what, slug=at.slug)
        return record

    def record(self, slug: str) -> Record:
        """The record of one cell.

        Raises:
            UnreadableRecord: it is missing or cannot be read; says why.
        """
        path = self.cells / f"{slug}.json"
        if not path.is_file():
            raise UnreadableRecord("there is no such record")
        found = self._read(path, known_provenance(self))
        if isinstance(found, Fault):
            raise UnreadableRecord(found.what)
        return found

    def tables(self, at: Coordinates) -> dict[str, Path]:
        """Where the tables of a cell lie, by what they hold; a file may be missing."""
        return {"outcomes": self.cells / f"{at.slug}.parquet", "filter": self.cells / f"{at.slug}.filter.parquet"}

    def outcomes(self, coordinates: Coordinates) -> pd.DataFrame:
        """Per-sample outcomes of a cell that ended well."""
        return outcomes.read_outcomes(self.cells / f"{coordinates.slug}.parquet")

    def load(self, record: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """The tables of a record's cell as the board takes them (:data:`bench.board.Loader`), which validates the outcomes itself."""
        at = record.coordinates
        return outcomes.load_outcomes(self.cells / f"{at.slug}.parquet"), self.filter_table(at)

    def filter_table(self, coordinates: Coordinates) -> pd.DataFrame | None:
        """Per-sample suspicion of a filter cell."""
        path = self.cells / f"{coordinates.slug}.filter.parquet"
        return outcomes.read_filter(path) if path.is_file() else None

    def timings(self) -> Mapping[str, Mapping[str, Any]]:
        """Slug -> wall seconds of the cell's own stages, and peak bytes; empty where unknown."""
        path = self.root / "timings.json"
        if not path.is_file():
            return {}
        value: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return value


def command_of(suite: str, at: Coordinates) -> str:
    """The one command that makes a cell again."""
    parts = ["codebackdoorbench", "cell", "--suite", suite, "--task", at.task, "--model", at.model]
    parts += ["--attack", at.attack, "--defense", at.defense, "--seed", str(at.seed)]
    return shlex.join(parts)


def _unfinished(graph: CellGraph, report: Report, store: Store, suite: str) -> Record:
    plan = graph.plan
    known: dict[str, Any] = {
        "suite": suite,
        "coordinates": plan.coordinates,
        "calibration": plan.calibration,
        "task_kind": plan.task.info.kind.value,
        "metric": plan.task.info.metric,
        "family": plan.defense.family if plan.defense is not None else "none",
        "knows": badges(plan.defense),
        "plugins": dict(plan.uses),
        "seeds": dict(plan.seeds),
        "command": command_of(suite, plan.coordinates),
    }
    if plan.not_applicable is not None:
        return Record(**known, status=Status.NOT_APPLICABLE, reason=plan.not_applicable)
    for stage in graph.stages:
        if stage in graph.stealth:  # no score waits for what is told of the attack
            continue
        reason = report.failed.get(stage.key)
        if reason is not None:
            failure = store.failure(stage.key) or {}
            status = Status.FAILED if stage.own else Status.BLOCKED
            return Record(
                **known, status=status, reason=f"{stage.label}: {reason}", traceback=failure.get("traceback", "")
            )
    return Record(**known, status=Status.NOT_RUN, reason="its stages were not run")


def export(
    graphs: Sequence[CellGraph], report: Report, store: Store, folder: ResultsFolder, suite: str
) -> list[Record]:
    """Write the records and outcomes of cells to a results folder; returns the records.

    A cell that ended well in an earlier run and has not been run now keeps its record.
    """
    folder.cells.mkdir(parents=True, exist_ok=True)
    timings = {slug: dict(value) for slug, value in folder.timings().items()}
    provenance = known_provenance(folder)
    written = []
    for graph in graphs:
        slug = graph.coordinates.slug
        entry = store.find(graph.score.kind, graph.score.key) if graph.score is not None else None
        if entry is None:
            record = _unfinished(graph, report, store, suite)
            for stale in (f"{slug}.parquet", f"{slug}.filter.parquet"):
                (folder.cells / stale).unlink(missing_ok=True)
            timings.pop(slug, None)
        else:
            record = read_record(entry.json("record.json"))
            # What depends on the suite alone; the stored score is shared by suites.
            of_suite = {
                "suite": suite,
                "command": command_of(suite, graph.coordinates),
                "calibration": graph.plan.calibration,
            }
            told = _told(graph, report, store)
            files = {}
            for name, table in folder.tables(graph.coordinates).items():
                if (entry.folder / f"{name}.parquet").is_file():
                    shutil.copyfile(entry.folder / f"{name}.parquet", table)
                    files[name] = sha256_of(table)
            more = {"stealth": told} if told is not None else {}
            record = record.model_copy(update={**of_suite, **more, "files": files})
            timings[slug] = _timing(graph, store)
        path = folder.cells / f"{slug}.json"
        write_json(path, record.model_dump(mode="json"))
        provenance.note(slug, environment(), path)
        written.append(record)
    write_json(folder.root / "timings.json", timings)
    provenance.write(folder.root)
    return written


def known_provenance(folder: ResultsFolder) -> Provenance:
    """What a results folder says of where its cells come from; a file that cannot be read is given up."""
    try:
        return read_provenance(folder.root)
    except DataError:
        return Provenance()


def _told(graph: CellGraph, report: Report, store: Store) -> StealthFacts | None:
    """What the stages beside the score tell of the attack, or why they do not; ``None`` without an attack."""
    if not graph.stealth:
        return None
    known, reasons = {}, []
    for stage in graph.stealth:
        entry = store.find(stage.kind, stage.key)
        if entry is not None:
            known[{"stealth": "text"}.get(stage.kind, stage.kind)] = entry.json("facts.json")
        else:
            why = report.failed.get(stage.key) or ("blocked" if stage.key in report.blocked else "not run")
            reasons.append(f"{stage.label}: {why}")
    return StealthFacts.model_validate({**known, "reason": "; ".join(reasons)})


def _timing(graph: CellGraph, store: Store) -> dict[str, Any]:
    """Seconds of the defense's own stages (what the defense costs), and the highest peak memory among them."""
    own = [store.timing(stage.key) for stage in graph.stages if stage.own and stage.kind not in ("score", "predict")]
    found = [t for t in own if t is not None]
    return {
        "seconds": round(sum(t["seconds"] for t in found), 3),
        "peak_bytes": max((t["peak_bytes"] for t in found), default=0),
    }
