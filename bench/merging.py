"""Bringing the results of several machines together, cell by cell; what does not fit is refused with the reason and kept apart.

::

    INTO/apart/<digest>/cells/<slug>.json …    a refused cell as it came, under the first digits of its record's sha256
    INTO/apart.json                            where each came from, and why it was refused; shown on the board
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.errors import DataError, StoreError
from bench.faults import Fault
from bench.fitting import Question, difference, misfit, standard
from bench.provenance import Environment, Provenance, sha256_of
from bench.records import Record, Status
from bench.results import APART, ResultsFolder, known_provenance
from bench.store import write_json

FOLDER: Final = "apart"


@dataclass
class Merged:
    """What a merge did, by slug."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    """A cell without numbers, by one that ended well."""
    known: list[str] = field(default_factory=list)
    """The same cell with the same outcome was there."""
    refused: list[Fault] = field(default_factory=list)


def merge(into: ResultsFolder, sources: Sequence[ResultsFolder]) -> Merged:
    """Take the cells of other results folders into one; the folders that they come from stay as they are.

    What stands in ``into`` decides what fits: data digest, plugin versions and parameters, settings, policy and goal of a label. Where
    nothing is known of a label yet, the first folder that has it decides. No number of ``into`` is ever changed.

    Raises:
        DataError: ``into`` is one of the sources, or a folder holds no records.
        StoreError: ``into`` cannot be written.
    """
    for source in sources:
        if source.root.resolve() == into.root.resolve():
            raise DataError(f"{source.root} cannot be merged into itself")
        if not source.cells.is_dir():
            raise DataError(f"{source.cells} does not exist; name results folders, e.g. results/quickstart")
    done = Merged()
    try:
        into.cells.mkdir(parents=True, exist_ok=True)
        here = (
            {record.coordinates.slug: record for record in into.read().records}
            if any(into.cells.glob("*.json"))
            else {}
        )
        fitting = dict(standard(here.values()))
        provenance, timings = known_provenance(into), {k: dict(v) for k, v in into.timings().items()}
        for source in sources:
            told = source.read()
            done.refused += [
                Fault(where=f"{source.root.name}/{f.where}", what=f.what, slug=f.slug) for f in told.faults
            ]
            theirs, seconds = known_provenance(source), source.timings()
            for record in told.records:
                slug = record.coordinates.slug
                why = _refusal(here.get(slug), record, fitting, source)
                if why is not None:
                    done.refused.append(Fault(where=f"{source.root.name}/cells/{slug}.json", what=why, slug=slug))
                    _keep_apart(into, source, record)
                elif slug in here and not _better(record, here[slug]):
                    done.known.append(slug)
                    # A merge that was interrupted left its records, and not yet what is known of them.
                    mine, copied = into.cells / f"{slug}.json", source.cells / f"{slug}.json"
                    if mine.read_bytes() == copied.read_bytes():
                        if provenance.of(slug) is None and (made := theirs.of(slug)) is not None:
                            provenance.note(slug, made, mine)
                        if slug in seconds:
                            timings.setdefault(slug, dict(seconds[slug]))
                else:
                    (done.replaced if slug in here else done.added).append(slug)
                    _copy(source, into, record)
                    provenance.note(slug, theirs.of(slug) or Environment(), into.cells / f"{slug}.json")
                    timings |= {slug: dict(seconds[slug])} if slug in seconds else {}
                    here[slug] = record
                    fitting = {**standard([record]), **fitting}
        write_json(into.root / "timings.json", timings)
        _finish(into, provenance, done)
    except OSError as error:
        raise StoreError(
            f"{into.root} cannot be written: {error}. Free some space or choose another folder."
        ) from error
    return done


def _better(record: Record, known: Record) -> bool:
    return record.status is Status.OK and known.status is not Status.OK


def _refusal(
    known: Record | None, record: Record, fitting: Mapping[Question, str], source: ResultsFolder
) -> str | None:
    why = misfit(record, fitting)
    if why is not None:
        return why
    if record.status is Status.OK and not source.tables(record.coordinates)["outcomes"].is_file():
        return "it ended well, and its outcomes are missing. Copy the whole folder, or run the cell again"
    if known is not None and known.status is record.status is Status.OK:
        found = difference(known, record)
        if found is not None:
            return f"this cell is here already, and the two disagree in {found}. Run verify on it, and delete the wrong one"
    return None


def _copy(source: ResultsFolder, target: ResultsFolder, record: Record) -> None:
    slug = record.coordinates.slug
    target.cells.mkdir(parents=True, exist_ok=True)
    for name, table in source.tables(record.coordinates).items():
        goal = target.tables(record.coordinates)[name]
        if table.is_file():
            shutil.copyfile(table, goal)
        else:
            goal.unlink(missing_ok=True)
    shutil.copyfile(source.cells / f"{slug}.json", target.cells / f"{slug}.json")


def _keep_apart(into: ResultsFolder, source: ResultsFolder, record: Record) -> None:
    digest = sha256_of(source.cells / f"{record.coordinates.slug}.json")[:12]
    _copy(source, ResultsFolder(into.root / FOLDER / digest), record)


def _finish(into: ResultsFolder, provenance: Provenance, done: Merged) -> None:
    """Write what is known of the cells, and add what was refused to what was refused before, less what has now been taken in."""
    provenance.write(into.root)
    path, taken = into.root / APART, {*done.added, *done.replaced}
    before = (
        [Fault.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
    )
    # A record that could not be read has no slug; its file is named after it.
    open_still = [fault for fault in before if (fault.slug or Path(fault.where).stem) not in taken]
    kept = list(dict.fromkeys([*open_still, *done.refused]))
    if kept:
        write_json(path, [fault.model_dump() for fault in sorted(kept, key=str)])
    else:
        path.unlink(missing_ok=True)


def merge_folders(into: Path, sources: Sequence[Path]) -> tuple[Merged, list[str]]:
    """:func:`merge` of paths; returns what was done, and lines that say it."""
    done = merge(ResultsFolder(into), [ResultsFolder(path) for path in sources])
    lines = [
        (
            f"{into}: {len(done.added)} cells added, {len(done.replaced)} replaced, {len(done.known)} known already, "
            f"{len(done.refused)} refused"
        )
    ]
    lines += [f"refused {fault}" for fault in done.refused]
    return done, lines
