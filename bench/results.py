"""The results folder of a suite: one small record a cell, its outcomes beside it, and timings. Written by
:mod:`bench.exporting`, read by boards, which need no model: this module imports none of the libraries that run one.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from bench.errors import DataError, StoreError
from bench.faults import Fault
from bench.migrations import UnreadableRecord, read_record
from bench.outcomes import Answers, read_answers, read_filter, read_outcomes
from bench.provenance import FILE, Provenance, read_provenance, sha256_of
from bench.records import Coordinates, Record

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

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn whatever the disk refuses into the error that says what to do.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"results cannot be written to {self.root}: {error}. Free some space or choose another folder (--results), then run again: "
                "what the store holds is kept."
            ) from error

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
        except (OSError, ValueError, TypeError) as error:
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
            try:
                fits = expected is None or not table.is_file() or sha256_of(table) == expected
            except OSError as error:
                return Fault(
                    where=where, what=f"its {name} ({table.name}) cannot be read: {error.strerror}", slug=at.slug
                )
            if not fits:
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
        return read_outcomes(self.cells / f"{coordinates.slug}.parquet")

    def load(self, record: Record) -> tuple[Answers, pd.DataFrame | None]:
        """The tables of a record's cell as the board takes them (:data:`bench.board.Loader`)."""
        at = record.coordinates
        return read_answers(self.cells / f"{at.slug}.parquet"), self.filter_table(at)

    def filter_table(self, coordinates: Coordinates) -> pd.DataFrame | None:
        """Per-sample suspicion of a filter cell."""
        path = self.cells / f"{coordinates.slug}.filter.parquet"
        return read_filter(path) if path.is_file() else None

    def timings(self) -> Mapping[str, Mapping[str, Any]]:
        """Slug -> wall seconds of the cell's own stages, and peak bytes; empty where unknown, and where the file is not whole."""
        try:
            value = json.loads((self.root / "timings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(value, dict):
            return {}
        return {slug: told for slug, told in value.items() if isinstance(told, dict)}


def known_provenance(folder: ResultsFolder) -> Provenance:
    """What a results folder says of where its cells come from; a file that cannot be read is given up."""
    try:
        return read_provenance(folder.root)
    except DataError:
        return Provenance()
