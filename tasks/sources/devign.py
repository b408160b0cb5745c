"""Devign, and Juliet in the same layout: defect detection in C, from local files in CodeXGLUE's raw layout, or as the hub holds it.

``function.json`` is a list of ``{project, commit_id, target, func}``; ``train.txt``, ``valid.txt`` and ``test.txt`` hold one
index into it a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.samples import Sample, digest_of
from tasks.sources import files, hub
from tasks.sources.files import Place
from tasks.sources.sizes import Published

FILES = ("function.json", "train.txt", "valid.txt", "test.txt")


def repository(source: str) -> hub.Repository | None:
    """Where the hub has it; Juliet is not there in this layout."""
    return hub.DEVIGN if source == "devign" else None


def load(source: str, path: str | None, revision: str | None = None) -> Published:
    """Load the published splits. A sample's group is its commit (Juliet: the weakness), which may span published splits.

    The same samples have the same ids in both forms: a hub row's ``id`` is its index in ``function.json``.

    Args:
        source: ``devign`` or ``juliet``; part of the samples' ids.
        path: the folder.
        revision: commit of the hub's repository, instead of a folder.

    Raises:
        bench.errors.ConfigError: no path was given, or see :func:`tasks.sources.hub.is_hub`.
        bench.errors.DataError: a file is missing, a row is malformed, or an index stands in two splits.
    """
    on_hub = repository(source)
    if on_hub is not None and hub.is_hub(on_hub, path, revision, FILES):
        taken: dict[int, Place] = {}
        with hub.rows(on_hub, path, revision) as rows_of:
            found = {split: tuple(_hub_sample(source, *row, taken) for row in rows) for split, rows in rows_of.items()}
        return Published.of(source, found)
    hub.is_hub(on_hub, path, revision, FILES)
    folder = files.folder(source, path, FILES)
    rows = files.json_list(folder / "function.json")
    seen: dict[int, Place] = {}
    parts = {split: _split(source, folder / f"{split}.txt", rows, seen) for split in ("train", "valid", "test")}
    return Published.of(source, parts)


def _split(
    source: str, file: Path, rows: Sequence[tuple[Place, Mapping[str, Any]]], seen: dict[int, Place]
) -> tuple[Sample, ...]:
    samples = []
    for place, line in files.lines(file):
        # Python refuses to turn more than some thousands of digits into a number, with an error that names no file.
        index = int(line) if line.strip().isdecimal() and len(line.strip()) < 20 else -1
        if not 0 <= index < len(rows):
            raise place.error(
                f"{line.strip()!r} is no index into function.json (0 to {len(rows) - 1})",
                "Mend or delete the line, or get both files from one publication.",
            )
        if index in seen:
            raise place.error(
                f"index {index} stands already in {seen[index].file.name}, line {seen[index].line}",
                "A sample belongs to one split, once: delete one of the lines.",
            )
        seen[index] = place
        samples.append(_sample(source, index, *rows[index]))
    return tuple(samples)


def _hub_sample(source: str, place: Place, row: Mapping[str, Any], taken: dict[int, Place]) -> Sample:
    index = files.get(place, row, "id", int)
    if index in taken:
        raise place.error(
            f"id {index} stands already in {taken[index].file}, row {taken[index].line}", "Get the set again."
        )
    taken[index] = place
    return _sample(source, index, place, {**row, "target": files.boolean(place, row, "target")})


def _sample(source: str, index: int, place: Place, row: Mapping[str, Any]) -> Sample:
    if "target" not in row:
        raise place.error("has no field 'target'", f"It has: {', '.join(sorted(row)) or 'none'}. Mend the row.")
    text = files.program(place, row, "func")
    project = files.get(place, row, "project", str)
    commit = files.get(place, row, "commit_id", str)
    name = digest_of({"source": source, "index": index, "program": text})[:16]
    return Sample(name, (text,), "c", files.label(place, row["target"]), group=f"{project}/{commit}")
