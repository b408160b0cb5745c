"""BigCloneBench: clone detection in Java, from local files in CodeXGLUE's layout.

``data.jsonl`` holds one ``{func, idx}`` a line; ``train.txt``, ``valid.txt`` and ``test.txt`` one
``idx1 TAB idx2 TAB label`` a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.samples import Sample, digest_of
from tasks.sources import files
from tasks.sources.sizes import Published

FILES = ("data.jsonl", "train.txt", "valid.txt", "test.txt")


def load(path: str | None) -> Published:
    """Load the published splits. A pair's group is its first function.

    Raises:
        bench.errors.ConfigError: no path was given.
        bench.errors.DataError: a file is missing, a row is malformed, or a pair names a function that is not there.
    """
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
    return Published("bigclonebench", **parts)


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
        # The line is part of the id: published files may hold one pair twice.
        name = digest_of({"source": "bigclonebench", "split": file.stem, "line": place.line, "pair": cells})[:16]
        pair = (programs[first], programs[second])
        samples.append(Sample(name, pair, "java", files.label(place, label), group=f"function/{first}"))
    return tuple(samples)
