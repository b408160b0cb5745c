"""The results folder of a suite: one small record a cell, its outcomes beside it, and timings. Made from the store, read by boards.

::

    results/<suite>/cells/<slug>.json            record (schema: bench.records)
    results/<suite>/cells/<slug>.parquet         per-sample outcomes
    results/<suite>/cells/<slug>.filter.parquet  per-sample suspicion of a filter
    results/<suite>/timings.json                 wall seconds and peak memory; apart, since records are byte-identical
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from bench import outcomes
from bench.errors import DataError
from bench.execute import Report
from bench.pipeline import CellGraph, badges
from bench.records import SCHEMA_VERSION, Coordinates, Record, Status, StealthFacts
from bench.store import Store, write_json


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
            DataError: a record is unreadable or of another schema version; names the file.
        """
        if not self.cells.is_dir():
            raise DataError(f"{self.cells} does not exist; run the suite first")
        found = []
        for path in sorted(self.cells.glob("*.json")):
            try:
                value = json.loads(path.read_text(encoding="utf-8"))
                if value.get("schema_version") != SCHEMA_VERSION:
                    raise DataError(
                        f"{path} has schema version {value.get('schema_version')!r}, this reads {SCHEMA_VERSION}; run the cell again"
                    )
                found.append(Record.model_validate(value))
            except (ValueError, ValidationError) as error:
                raise DataError(
                    f"{path} is not a readable record: {error}. Delete it and run the suite again."
                ) from error
        if not found:
            raise DataError(f"{self.cells} holds no records; run the suite first")
        return found

    def outcomes(self, coordinates: Coordinates) -> pd.DataFrame:
        """Per-sample outcomes of a cell that ended well."""
        return outcomes.read_outcomes(self.cells / f"{coordinates.slug}.parquet")

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
            record = Record.model_validate(entry.json("record.json"))
            # What depends on the suite alone; the stored score is shared by suites.
            of_suite = {
                "suite": suite,
                "command": command_of(suite, graph.coordinates),
                "calibration": graph.plan.calibration,
            }
            told = _told(graph, report, store)
            record = record.model_copy(update={**of_suite, "stealth": told} if told is not None else of_suite)
            shutil.copyfile(entry.folder / "outcomes.parquet", folder.cells / f"{slug}.parquet")
            judged = entry.folder / "filter.parquet"
            if judged.is_file():
                shutil.copyfile(judged, folder.cells / f"{slug}.filter.parquet")
            timings[slug] = _timing(graph, store)
        write_json(folder.cells / f"{slug}.json", record.model_dump(mode="json"))
        written.append(record)
    write_json(folder.root / "timings.json", timings)
    return written


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
