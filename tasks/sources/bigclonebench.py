"""BigCloneBench: clone detection in Java, from local files in CodeXGLUE's layout, or as the hub holds it.

``data.jsonl`` holds one ``{func, idx}`` a line; ``train.txt``, ``valid.txt`` and ``test.txt`` one
``idx1 TAB idx2 TAB label`` a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.samples import Sample, digest_of
from tasks.sources import files, hub
from tasks.sources.files import Place
from tasks.sources.sizes import Published

FILES = ("data.jsonl", "train.txt", "valid.txt", "test.txt")


def load(path: str | None, revision: str | None = None) -> Published:
    """Load the published splits. A pair's group is its first function.

    The same pairs have the same ids in both forms: a hub row's ``id`` counts its split's lines from 0.

    Raises:
        bench.errors.ConfigError: no path was given, or see :func:`tasks.sources.hub.is_hub`.
        bench.errors.DataError: a file is missing, a row is malformed or its id stands twice in its split, or a pair names a function
            that is not there.
    """
    if hub.is_hub(hub.BIGCLONEBENCH, path, revision, FILES):
        known: dict[str, str] = {}  # 9,000 functions stand in 1.7 million pairs: each is kept once
        with hub.rows(hub.BIGCLONEBENCH, path, revision) as rows_of:
            found = {split: tuple(_hub_pairs(split, rows, known)) for split, rows in rows_of.items()}
        return Published.of("bigclonebench", found)
    folder = files.folder("bigclonebench", path, FILES)
    programs: dict[str, str] = {}
    for place, row in files.json_lines(folder / "data.jsonl"):
        index = row.get("idx")
        if isinstance(index, bool) or not isinstance(index, str | int):
            raise place.error(f"field 'idx' is {index!r}, neither a number nor a text", "Mend or delete the row.")
        if str(index) in programs:
            raise place.error(f"idx {index} stands in an earlier line already", "Delete one of the two lines.")
        programs[str(index)] = files.program(place, row, "func")
    parts = {split: _pairs(folder / f"{split}.txt", programs) for split in ("train", "valid", "test")}
    return Published.of("bigclonebench", parts)


def _pairs(file: Path, programs: Mapping[str, str]) -> tuple[Sample, ...]:
    samples = []
    for place, line in files.lines(file):
        cells = line.split()
        if len(cells) != 3:
            raise place.error(f"has {len(cells)} cells, not 3 (idx1, idx2, label)", "Mend or delete the line.")
        first, second, label = cells
        for index in (first, second):
            if index not in programs:
                raise place.error(f"idx {index!r} is not in data.jsonl", "Add the function there, or delete the line.")
        name = _name(file.stem, place.line, cells)
        pair = (programs[first], programs[second])
        samples.append(Sample(name, pair, "java", files.label(place, label), group=f"function/{first}"))
    return tuple(samples)


def _name(split: str, line: int, cells: list[str]) -> str:
    # The line is part of the id: published files may hold one pair twice.
    return digest_of({"source": "bigclonebench", "split": split, "line": line, "pair": cells})[:16]


def _hub_pairs(split: str, rows: Iterable[tuple[Place, Mapping[str, Any]]], known: dict[str, str]) -> Iterator[Sample]:
    taken: dict[int, int] = {}
    for place, row in rows:
        number = files.get(place, row, "id", int)
        if number in taken:
            raise place.error(f"id {number} stands already in row {taken[number]}", "Get the set again.")
        taken[number] = place.line
        yield _hub_pair(split, number, place, row, known)


def _hub_pair(split: str, number: int, place: Place, row: Mapping[str, Any], known: dict[str, str]) -> Sample:
    texts = [files.program(place, row, column) for column in ("func1", "func2")]
    first, second = (known.setdefault(text, text) for text in texts)
    label = files.boolean(place, row, "label")
    cells = [str(files.get(place, row, "id1", int)), str(files.get(place, row, "id2", int)), str(label)]
    name = _name(split, number + 1, cells)
    return Sample(name, (first, second), "java", label, group=f"function/{cells[0]}")
