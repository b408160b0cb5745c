"""Training sets and models whose right answer is certain, for the tests of filters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.context import Context
from bench.contracts import Access, Filter, Known, Suspicion, TaskInfo, TaskKind
from bench.samples import Sample

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
SEARCH = TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr")


class FeaturesOnly:
    """Stands for a white-box model: gives each sample the representation that the test chose for it."""

    def __init__(self, samples: Sequence[Sample], features: NDArray[np.floating]) -> None:
        self.rows = dict(zip([s.id for s in samples], features.astype(np.float32), strict=True))

    def features(self, samples: Sequence[Sample], **how: Any) -> NDArray[np.float32]:
        if how["layer"] > 3:
            raise IndexError("no such layer")
        return np.stack([self.rows[s.id] for s in samples])


def samples_of(labels: Sequence[int | None], prefix: str = "s") -> list[Sample]:
    """Samples with these labels; their ids rise with their place."""
    return [Sample(f"{prefix}{i:05}", (f"x = {i}",), "python", label) for i, label in enumerate(labels)]


def judge(
    plugin: Filter,
    samples: Sequence[Sample],
    features: NDArray[np.floating] | None = None,
    clean: Sequence[Sample] = (),
    clean_features: NDArray[np.floating] | None = None,
    info: TaskInfo = INFO,
    seed: int = 0,
) -> Suspicion:
    """The filter's answer where the victim represents samples as given."""
    model = None
    if features is not None:
        both = features if clean_features is None else np.concatenate([features, clean_features])
        model = FeaturesOnly([*samples, *(clean if clean_features is not None else ())], both)
    known = Known(
        plugin.needs,
        _clean=tuple(clean) if plugin.needs.clean else None,
        _training=tuple(samples),
        _model=cast(Any, model) if plugin.needs.model is Access.WEIGHTS else None,
    )
    return plugin.judge(known, info, Context(seeds={"defense": seed}, scratch=Path("unused")))


def two_clusters(
    share: float, shift: float = 8.0, n: int = 300, d: int = 24, seed: int = 7
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """One class: unit Gaussian noise around a point far from 0, and a share of it moved along one direction."""
    rng = np.random.default_rng(seed)
    poisoned = np.arange(n) < round(share * n)
    direction = rng.normal(size=d)
    rows = rng.normal(size=(n, d)) + 5.0
    rows[poisoned] += shift * direction / np.linalg.norm(direction)
    return rows, poisoned
