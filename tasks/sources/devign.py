"""Devign, and Juliet in the same layout: defect detection in C, from local files in CodeXGLUE's raw layout.

``function.json`` is a list of ``{project, commit_id, target, func}``; ``train.txt``, ``valid.txt`` and ``test.txt`` hold one
index into it a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.samples import Sample, digest_of
from tasks.sources import files
from tasks.sources.files import Place
from tasks.sources.sizes import Published

FILES = ("function.json", "train.txt", "valid.txt", "test.txt")


def load(source: str, path: str | None) -> Published:
    """Load the published splits. A sample's group is its commit (Juliet: the weakness), which may span published splits.

    Args:
        source: ``devign`` or ``juliet``; part of the samples' ids.
        path: the folder.

    Raises:
        bench.errors.ConfigError: no path was given.
        bench.errors.DataError: a file is missing, a row is malformed, or an index stands in two splits.
    """
    folder = files.folder(source, path, FILES)
    rows = files.json_list(folder / "function.json")
    seen: dict[int, Place] = {}
    parts = {split: _split(source, folder / f"{split}.txt", rows, seen) for split in ("train", "valid", "test")}
    return Published(source, **parts)


def _split(
    source: str, file: Path, rows: Sequence[tuple[Place, Mapping[str, Any]]], seen: dict[int, Place]
) -> tuple[Sample, ...]:
    samples = []
    for place, line in files.lines(file):
        index = int(line) if line.strip().isdecimal() else -1
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


def _sample(source: str, index: int, place: Place, row: Mapping[str, Any]) -> Sample:
    if "target" not in row:
        raise place.error("has no field 'target'", f"It has: {', '.join(sorted(row)) or 'none'}. Mend the row.")
    text = files.program(place, row, "func")
    project = files.get(place, row, "project", str)
    commit = files.get(place, row, "commit_id", str)
    name = digest_of({"source": source, "index": index, "program": text})[:16]
    return Sample(name, (text,), "c", files.label(place, row["target"]), group=f"{project}/{commit}")
