"""``examples.json``: a few programs before and after each attack of a suite, taken from the store, kept beside the records.

Records and outcomes hold no program text. The store does, but a board must be readable without it; hence this small file. Programs
before the attack are restored from the manifest's edits, and are those that the digests there were made of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import DataError
from bench.jobs import read_poisoned
from bench.manifest import ManifestRow
from bench.poisoning import Poisoned
from bench.records import Record, Status
from bench.samples import Sample
from bench.store import Store, write_json

NAME: Final = "examples.json"
VERSION: Final = 1
FEWEST_LINES: Final = 8
"""A program of fewer lines shows little."""
LONGEST: Final = 4000
"""Characters of a program that is worth showing."""
PARTS: Final[Mapping[str, int]] = {"triggered": 2, "train": 1}
"""How many of each part; a triggered test input first, since that is what an attacker would send."""


class Example(BaseModel):
    """One program before and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: Literal["triggered", "train"]
    id: str
    language: str
    label: int | None
    """The true class; ``None`` in code search."""
    poisoned_label: int | None = None
    """The class that a poisoned training sample carries."""
    query: str | None = None
    draw: str
    """What was drawn, in words."""
    before: str
    after: str


class AttackExamples(BaseModel):
    """The examples of one attack on one task, and the poison stage that they come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    attack: str
    seed: int
    poison: str
    """Key of the poison stage."""
    examples: tuple[Example, ...]


class Examples(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    attacks: tuple[AttackExamples, ...] = ()

    def of(self, task: str, attack: str) -> AttackExamples | None:
        """Those of one (task, attack)."""
        return next((one for one in self.attacks if (one.task, one.attack) == (task, attack)), None)


def read_examples(folder: Path) -> Examples:
    """The file of a results folder; no examples where there is none.

    Raises:
        DataError: it is not readable, or of another version.
    """
    path = folder / NAME
    if not path.is_file():
        return Examples()
    try:
        return Examples.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path} does not hold examples of version {VERSION}: {error}. Delete it; the next `codebackdoorbench site` with the "
            "store at hand writes it again."
        ) from error


def collect_examples(records: Iterable[Record], store: Store, known: Examples) -> Examples:
    """Examples of every attack of some records: what is known of the same poison stage, else what the store tells.

    An attack that neither tells of keeps the examples that it had.
    """
    first: dict[tuple[str, str], Record] = {}
    for record in sorted(records, key=lambda r: (r.coordinates.seed, r.coordinates.slug)):
        at = record.coordinates
        if record.status is Status.OK and "poison" in record.keys:
            first.setdefault((at.task, at.attack), record)
    found = []
    for (task, attack), record in sorted(first.items()):
        have, key = known.of(task, attack), record.keys["poison"]
        if have is None or have.poison != key:
            entry = store.find("poison", key)
            if entry is not None:
                chosen = choose(read_poisoned(entry))
                have = AttackExamples(
                    task=task, attack=attack, seed=record.coordinates.seed, poison=key, examples=tuple(chosen)
                )
        if have is not None:
            found.append(have)
    return Examples(attacks=tuple(found))


def write_examples(examples: Examples, folder: Path) -> Path:
    """Store the file; returns its path."""
    path = folder / NAME
    content: dict[str, Any] = json.loads(examples.model_dump_json())
    write_json(path, content)
    return path


def choose(poisoned: Poisoned) -> list[Example]:
    """A few examples of a poison stage: the shortest programs of at least :data:`FEWEST_LINES` lines, else the shortest."""
    found: list[Example] = []
    for part, count in PARTS.items():
        rows = [row for row in poisoned.manifest if row.part == part]
        samples = {s.id: s for s in (poisoned.train if part == "train" else poisoned.triggered)}
        told = [_example(row, samples[row.id]) for row in _shortest(rows, samples) if row.id in samples]
        found += _apart(told)[:count]
    return found


def _shortest(rows: Sequence[ManifestRow], samples: Mapping[str, Sample]) -> list[ManifestRow]:
    def size(row: ManifestRow) -> tuple[bool, int, str, int]:
        text = samples[row.id].programs[row.side]
        return text.count("\n") + 1 < FEWEST_LINES, len(text), row.id, row.side

    fits = [row for row in rows if row.id in samples and len(samples[row.id].programs[row.side]) <= LONGEST]
    return sorted(fits, key=size)[:20]


def _apart(examples: Sequence[Example]) -> list[Example]:
    """Each program and each sample once: near-duplicates of one short function would fill the page."""
    kept: dict[str, Example] = {}
    for example in examples:
        if example.id not in {one.id for one in kept.values()}:
            kept.setdefault(example.before, example)
    return list(kept.values())


def _example(row: ManifestRow, sample: Sample) -> Example:
    after = sample.programs[row.side]
    part: Literal["triggered", "train"] = "train" if row.part == "train" else "triggered"
    return Example(
        part=part,
        id=row.id,
        language=sample.language,
        label=row.label,
        poisoned_label=sample.label if part == "train" else None,
        query=sample.query,
        draw=row.derivation,
        before=row.restore(after),
        after=after,
    )
