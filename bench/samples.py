"""What flows through the harness: samples, source edits, and the splits of a task.

A :class:`Sample` looks the same for the three tasks. Whatever must stay hidden from a defense (which samples are
poisoned, what a sample was before, which weakness a program holds) is *not* a field of a sample: it lives in sidecars
keyed by sample id (:attr:`Splits.notes`, :class:`bench.poisoning.Poisoned`), so that a view handed to a plugin cannot leak it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One program (defect detection), a pair (clone detection) or a query with its code (code search).

    Attributes:
        id: stable, and to be used as a name alone. A poisoned sample keeps the id that it had, and an appended copy gets one that looks
            like any other. It is not opaque to one who means to look: embedded and published sources make it a digest of where the
            sample comes from and of its *clean* text, and whoever recomputes that finds that it does not fit a poisoned sample.
        programs: the source text of one program, or of two for a pair.
        language: ``python``, ``java`` or ``c`` (a name known to :mod:`bench.languages`).
        label: the class, or ``None`` for code search, where the program itself is the answer to the query.
        query: natural-language query (code search), else ``None``.
        group: where the sample comes from (module, commit, repository, first function of a pair); samples of one group are one cluster
            in the statistics. A group of embedded data is in one split alone. One of published data is where its authors put it: Devign's
            commits span their splits (``cleaned`` takes out what valid and train share with test), and the budget is drawn from the
            training split, sample by sample, so the two share groups.
    """

    id: str
    programs: tuple[str, ...]
    language: str
    label: int | None = None
    query: str | None = None
    group: str = ""

    def with_program(self, side: int, text: str) -> Sample:
        """The same sample with the program of one side replaced."""
        programs = tuple(text if i == side else p for i, p in enumerate(self.programs))
        return replace(self, programs=programs)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` is its inverse."""
        return {
            "id": self.id,
            "programs": list(self.programs),
            "language": self.language,
            "label": self.label,
            "query": self.query,
            "group": self.group,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Sample:
        """Rebuild a sample from :meth:`to_json`.

        Raises:
            KeyError: a field is missing.
        """
        return cls(
            id=row["id"],
            programs=tuple(row["programs"]),
            language=row["language"],
            label=row["label"],
            query=row["query"],
            group=row["group"],
        )


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replace the bytes ``[start, end)`` of one program (UTF-8) by ``replacement``.

    ``start == end`` inserts. ``side`` tells which program of a pair is meant.
    """

    start: int
    end: int
    replacement: str
    side: int = 0


class EditConflict(ValueError):
    """Two edits of one program overlap, or an edit lies outside the text."""


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Apply byte edits to one text. All spans refer to the text before any edit.

    Raises:
        EditConflict: spans overlap, or reach past the text's end.
    """
    data = text.encode()
    pieces: list[bytes] = []
    position = 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < position or edit.end < edit.start or edit.end > len(data):
            raise EditConflict(
                f"edit [{edit.start}, {edit.end}) overlaps another or leaves the text of {len(data)} bytes"
            )
        pieces += [data[position : edit.start], edit.replacement.encode()]
        position = edit.end
    pieces.append(data[position:])
    return b"".join(pieces).decode()


def edit_sample(sample: Sample, edits: Sequence[Edit]) -> Sample:
    """Apply edits to a sample, each to the program of its ``side``.

    Raises:
        EditConflict: as :func:`apply_edits`, or an edit names a side that the sample lacks.
    """
    for edit in edits:
        if not 0 <= edit.side < len(sample.programs):
            raise EditConflict(
                f"edit names side {edit.side}, sample {sample.id!r} has {len(sample.programs)} program(s)"
            )
    for side in sorted({e.side for e in edits}):
        sample = sample.with_program(side, apply_edits(sample.programs[side], [e for e in edits if e.side == side]))
    return sample


def digest_of(value: Any) -> str:
    """sha256 (hex) of a JSON-ready value in canonical form (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def input_digest(sample: Sample) -> str:
    """sha256 (hex) of what a screen is asked about: the id and the programs, whatever is hidden of the rest.

    A triggered input keeps the id of the clean one, so that ids cannot tell the two apart; these digests do.
    """
    return digest_of({"id": sample.id, "programs": list(sample.programs)})


def digest_samples(samples: Iterable[Sample]) -> str:
    """sha256 (hex) over samples in their order."""
    total = hashlib.sha256()
    for sample in samples:
        total.update(digest_of(sample.to_json()).encode())
    return total.hexdigest()


@dataclass(frozen=True)
class Splits:
    """A task's data.

    Attributes:
        train: what the attacker may poison and the victim is trained on.
        valid: never poisoned; chooses checkpoints.
        budget: clean samples set aside for defenses; disjoint from all other splits, never test.
        test: clean test samples.
        notes: facts about samples for people and scoring only (CWE of a weak statement, rewrite of a clone);
            never handed to an attack or a defense.
    """

    train: tuple[Sample, ...]
    valid: tuple[Sample, ...]
    budget: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def parts(self) -> dict[str, tuple[Sample, ...]]:
        """The splits by name, in a fixed order."""
        return {"train": self.train, "valid": self.valid, "budget": self.budget, "test": self.test}

    def digest(self) -> str:
        """sha256 (hex) of all samples of all splits; stands in every result."""
        return digest_of({name: digest_samples(part) for name, part in self.parts().items()})
