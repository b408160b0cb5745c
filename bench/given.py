"""Cells that a run takes from results folders in place of running them: the same question, answered before, here or elsewhere.

A record states the key of the score that it was made from, and that key holds what the numbers rest on: what the data are made from,
versions, parameters and sources of plugins, files of models, settings, seeds, packages, device, and versions of the stages. Where a cell
that a suite asks for has the same key, running it would end in the same numbers, as far as floats of two kinds of processor agree. One
thing may differ: the text of a plugin of the tree, which promises with its version that it does the same. So one new defense can be put
beside thousands of cells for the price of its own, without their store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.errors import DataError
from bench.faults import Fault
from bench.jobs import Stage
from bench.pipeline import CellGraph
from bench.provenance import Environment, Provenance
from bench.records import Record, Status
from bench.results import ResultsFolder, known_provenance


@dataclass(frozen=True)
class GivenCell:
    """A finished cell in a results folder: its record, its tables, what is known of where it was made."""

    record: Record
    tables: Mapping[str, Path]
    """By what they hold; each of them is there, and is what the record says."""
    environment: Environment
    timing: Mapping[str, object] | None


@dataclass
class Given:
    """What results folders have of the cells of a suite.

    Attributes:
        cells: by slug, those that answer the same question.
        other: slugs of cells of the same name that answer another one.
        faults: records that cannot be read, or are not what was written.
    """

    cells: dict[str, GivenCell] = field(default_factory=dict)
    other: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    def missing(self, graphs: Iterable[CellGraph]) -> list[CellGraph]:
        """The cells that are still to be run."""
        return [graph for graph in graphs if graph.coordinates.slug not in self.cells]

    def lines(self, folders: Sequence[Path]) -> list[str]:
        """What was found, in sentences."""
        if not folders:
            return []
        lines = [f"{len(self.cells)} cells taken as they are from {', '.join(map(str, folders))}"]
        if self.other:
            lines.append(
                f"{len(self.other)} cells there have these names and other keys (other data, versions, settings, packages or device), "
                f"and are not taken; the first is {min(self.other)}"
            )
        return [*lines, *(f"not taken: {fault}" for fault in self.faults)]


def given_by(folders: Sequence[Path], graphs: Sequence[CellGraph]) -> Given:
    """What results folders have of some cells; where several have one, the first.

    What is told of an attack beside the score (its stealth, its reach) comes with the record as it stands there: it is in no key.

    Raises:
        DataError: a folder holds no records that can be read.
    """
    asked = {graph.coordinates.slug: graph.score for graph in graphs if graph.score is not None}
    given = Given()
    for path in folders:
        folder = ResultsFolder(path)
        if not folder.cells.is_dir():
            raise DataError(f"{folder.cells} does not exist; --given takes results folders, e.g. results/quickstart")
        records, faults = folder.read()
        provenance, timings = known_provenance(folder), folder.timings()
        given.faults += [Fault(where=f"{path.name}/{f.where}", what=f.what, slug=f.slug) for f in faults]
        for record in records:
            slug = record.coordinates.slug
            if record.status is not Status.OK or slug not in asked or slug in given.cells:
                continue
            cell = _cell(folder, record, provenance, timings.get(slug))
            if isinstance(cell, Fault):
                given.faults.append(cell)
            elif _answers(record, asked[slug]):
                given.cells[slug] = cell
            else:
                given.other.add(slug)
    given.other -= set(given.cells)
    return given


def _answers(record: Record, score: Stage) -> bool:
    """Is a record of this very score, but for texts of plugins? Those of files outside the tree stand in its parents' keys too."""
    uses = {
        role: {**use, "source": record.plugins[role].source if role in record.plugins else use["source"]}
        for role, use in score.inputs["uses"].items()
    }
    return record.keys.get("score") == replace(score, inputs={**score.inputs, "uses": uses}).key


def _cell(
    folder: ResultsFolder, record: Record, provenance: Provenance, timing: Mapping[str, object] | None
) -> GivenCell | Fault:
    slug = record.coordinates.slug
    tables = {name: table for name, table in folder.tables(record.coordinates).items() if name in record.files}
    if "outcomes" not in tables:  # an older record; nothing says what its outcomes were
        return Fault(
            where=f"{folder.root.name}/cells/{slug}.json", what="it states no digest of its outcomes", slug=slug
        )
    for name, table in tables.items():
        if not table.is_file():
            what = f"it ended well, and its {name} ({table.name}) are missing. Copy the whole folder"
            return Fault(where=f"{folder.root.name}/cells/{slug}.json", what=what, slug=slug)
    return GivenCell(record, tables, provenance.of(slug) or Environment(), timing)
