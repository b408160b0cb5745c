"""Samples as the victim sees them: rows of token ids, and a class."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contracts import TaskKind
from bench.errors import DataError
from bench.models.handles import WhiteBox
from bench.samples import Sample

Row = list[int]


def sides_of(model: WhiteBox, samples: Sequence[Sample]) -> list[list[Row]]:
    """Token ids as the model sees them: one list of rows for each program of a sample (one, or two for pairs)."""
    count = 2 if model.info.kind is TaskKind.PAIRS else 1
    return [model.token_ids([sample.programs[side] for sample in samples]) for side in range(count)]


def held_tokens(sides: Sequence[Sequence[Row]]) -> list[frozenset[int]]:
    """The tokens that each sample holds, in whichever of its programs."""
    return [frozenset(token for row in rows for token in row) for rows in zip(*sides, strict=True)]


def label_of(sample: Sample) -> int:
    """The class of a labelled sample.

    Raises:
        DataError: it has none.
    """
    if sample.label is None:
        raise DataError(f"codedetector: sample {sample.id!r} has no label")
    return sample.label
