"""Spectral signatures: poisoned samples stand out along the top singular directions of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Filter, Known, Needs, Suspicion, TaskInfo
from defenses.filter.budget import (
    blind_share,
    keep_all_but_the_most_suspicious,
    ranks_within_labels,
    rows_by_label,
)
from defenses.filter.directions import top_directions
from defenses.filter.representations import Pooling, representations


def spectral_scores(representations: NDArray[np.floating], vectors: int = 1) -> NDArray[np.float64]:
    """Squared norm of each centred row's projection on the top right singular vectors of the centred matrix.

    Args:
        representations: shape (n, d), one class.
        vectors: how many directions; more than ``min(n, d)`` means all there are.

    Returns:
        float64 of shape (n,); zeros where the rows do not vary.
    """
    n, d = representations.shape
    if not n or not d:
        return np.zeros(n)
    coordinates = top_directions(representations, vectors).project(representations)
    return np.asarray((coordinates**2).sum(axis=1), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class SpectralSignatures(Filter):
    """Score each training sample by its squared projection on the top singular directions of its observed class.

    Source: Tran, Li and Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, Algorithm 1: per class, centre
    the learnt representations, take the top right singular vector, remove the 1.5 * eps highest squared projections.
    ``vectors > 1`` sums over several directions, as Ramakrishnan and Albarghouthi do for code (ICPR 2022).

    What is a port: the paper's eps is the true bound on the poison; here it is ``assumed_rate``, a blind guess that never
    looks at the truth, applied to every class. Pairs are scored by the vector that the head sees for the pair. Code search
    has no classes: the vectors of all programs are one class.

    Squared projections of different classes are taken on different directions, each with its own scale, and the paper never
    compares them: it removes class by class, and so does this. The score that is told is therefore the rank within the
    observed class (:func:`~defenses.filter.budget.ranks_within_labels`); the decision is the raw projections'. In code search, whose
    model compares unit vectors, the vectors are read at unit length.

    Attributes:
        assumed_rate: share of a class believed poisoned; 1.5 times as much of each class is removed (5 % removes 7.5 %).
        vectors: number of singular directions.
        layer: hidden layer the representations come from: 0 for the embedding output, -1 for the last.
        pooling: how token vectors become one, see :data:`~defenses.filter.representations.Pooling`.
    """

    name = "spectral_signatures"
    summary = "removes what stands out along the top singular directions of its class"
    paper = "Tran, Li and Madry: Spectral Signatures in Backdoor Attacks. NeurIPS 2018"
    needs = Needs(training_set=True, model=Access.WEIGHTS)
    version = 2  # 1 told raw projections, and read vectors of code search at their own length

    assumed_rate: Annotated[float, Field(ge=0, lt=2 / 3)] = 0.05
    vectors: Annotated[int, Field(ge=1)] = 1
    layer: int = -1
    pooling: Pooling = "head"

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Ranks of squared projections, and a decision that removes the budget of each class.

        Raises:
            bench.errors.ConfigError: the model has no such layer.
            bench.errors.ModelError: the model's representations are not finite (training diverged).
        """
        samples = known.training
        scores = np.zeros(len(samples))
        if samples:
            vectors = representations(known.white_box, samples, task, self.layer, self.pooling, self.name)
            for rows in rows_by_label(samples):
                scores[rows] = spectral_scores(vectors[rows], self.vectors)
        keep = keep_all_but_the_most_suspicious(scores, samples, blind_share(self.assumed_rate))
        return Suspicion(ranks_within_labels(scores, samples), keep)
