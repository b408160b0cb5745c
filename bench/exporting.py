"""Cells' results out of the store and into a results folder (:mod:`bench.results`)."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from bench.execute import Report
from bench.given import GivenCell
from bench.jobs import Stage
from bench.migrations import read_record
from bench.pipeline import CellGraph, badges
from bench.provenance import environment, sha256_of
from bench.records import DATA_FACTS, DTYPE, Coordinates, Record, Status, StealthFacts
from bench.results import ResultsFolder, known_provenance
from bench.store import Entry, Store, write_json


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
    graphs: Sequence[CellGraph],
    report: Report,
    store: Store,
    folder: ResultsFolder,
    suite: str,
    given: Mapping[str, GivenCell] | None = None,
) -> list[Record]:
    """Write the records and outcomes of cells to a results folder; returns the records.

    A cell that ended well in an earlier run and has not been run now keeps its record; one that is ``given`` (by slug) comes from there.

    Raises:
        ResultLost: the run took a result for known that is damaged.
        StoreError: the folder cannot be written; what is there already is written again by the next export.
    """
    with folder.writing():
        return _export(graphs, report, store, folder, suite, given or {})


def _export(
    graphs: Sequence[CellGraph],
    report: Report,
    store: Store,
    folder: ResultsFolder,
    suite: str,
    given: Mapping[str, GivenCell],
) -> list[Record]:
    folder.cells.mkdir(parents=True, exist_ok=True)
    timings = {slug: dict(value) for slug, value in folder.timings().items()}
    provenance = known_provenance(folder)
    written = []
    for graph in graphs:
        slug = graph.coordinates.slug
        made = environment()
        entry = None if slug in given else _found(graph.score, report, store) if graph.score is not None else None
        if slug in given:
            record, made = _taken(graph, given[slug], folder, suite), given[slug].environment
            timings.pop(slug, None)
            if (known := given[slug].timing) is not None:
                timings[slug] = dict(known)
        elif entry is None:
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
                # A stored record says it in its settings alone.
                "dtype": str(record.settings.get("numerics", {}).get("dtype", DTYPE)),
            }
            told = _told(graph, report, store)
            files = {}
            for name, table in folder.tables(graph.coordinates).items():
                if (entry.folder / f"{name}.parquet").is_file():
                    shutil.copyfile(entry.folder / f"{name}.parquet", table)
                    files[name] = sha256_of(table)
            more: dict[str, Any] = {"stealth": told} if told is not None else {}
            if left_out := _left_out(graph, record, report, store):
                more["facts"] = {**record.facts, **left_out}
            record = record.model_copy(update={**of_suite, **more, "files": files})
            timings[slug] = _timing(graph, store)
        path = folder.cells / f"{slug}.json"
        write_json(path, record.model_dump(mode="json"))
        provenance.note(slug, made, path)
        written.append(record)
    write_json(folder.root / "timings.json", timings)
    provenance.write(folder.root)
    return written


def _taken(graph: CellGraph, cell: GivenCell, folder: ResultsFolder, suite: str) -> Record:
    """The record of a cell that is given, as this suite's own, with its tables beside it."""
    for name, table in folder.tables(graph.coordinates).items():
        source = cell.tables.get(name)
        if source is None:
            table.unlink(missing_ok=True)
        elif not (table.is_file() and table.samefile(source)):
            shutil.copyfile(source, table)
    of_suite = {
        "suite": suite,
        "command": command_of(suite, graph.coordinates),
        "calibration": graph.plan.calibration,
    }
    return cell.record.model_copy(update=of_suite)


def _found(stage: Stage, report: Report, store: Store) -> Entry | None:
    """A stage's result, or ``None`` where there is none; what the run ended well has to be there."""
    return (store.get if stage.key in report.done else store.find)(stage.kind, stage.key)


def _told(graph: CellGraph, report: Report, store: Store) -> StealthFacts | None:
    """What the stages beside the score tell of the attack, or why they do not; ``None`` without an attack."""
    if not graph.stealth:
        return None
    known, reasons = {}, []
    for stage in graph.stealth:
        entry = _found(stage, report, store)
        if entry is not None:
            known[{"stealth": "text"}.get(stage.kind, stage.kind)] = entry.json("facts.json")
        else:
            why = report.failed.get(stage.key) or ("blocked" if stage.key in report.blocked else "not run")
            reasons.append(f"{stage.label}: {why}")
    return StealthFacts.model_validate({**known, "reason": "; ".join(reasons)})


def _left_out(graph: CellGraph, record: Record, report: Report, store: Store) -> dict[str, Any]:
    """What the data's result tells of samples that were left out of a published set; of other data nothing.

    It is read here, and not when the cell is scored: so no stored score is another for it.
    """
    if record.plugins["task"].effective.get("source", "embedded") == "embedded":
        return {}
    entry = next((_found(stage, report, store) for stage in graph.stages if stage.kind == "data"), None)
    told = entry.json("notes.json").get("source", {}) if entry is not None else {}
    return {name: told[name] for name in DATA_FACTS if name in told}


def _timing(graph: CellGraph, store: Store) -> dict[str, Any]:
    """Seconds of the defense's own stages (what the defense costs), and the highest peak memory among them."""
    own = [store.timing(stage.key) for stage in graph.stages if stage.own and stage.kind not in ("score", "predict")]
    found = [t for t in own if t is not None]
    return {
        "seconds": round(sum(t["seconds"] for t in found), 3),
        "peak_bytes": max((t["peak_bytes"] for t in found), default=0),
    }
