"""Class by class: the blind budget that ``spectral_signatures`` and its null ``random`` share, and scores as ranks within a class."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bench.samples import Sample


def blind_share(assumed_rate: float) -> float:
    """What is removed when ``assumed_rate`` of a class is believed poisoned: 1.5 times that (Tran et al. 2018, Algorithm 1)."""
    return 1.5 * assumed_rate


def keep_all_but_the_most_suspicious(
    scores: NDArray[np.float64], samples: Sequence[Sample], share: float
) -> NDArray[np.bool_]:
    """Keep all but the ``floor(share * n)`` highest scores of each observed label (search: of all samples).

    Ties are broken by a hash of the sample's id, so that neither the row order nor the data decides them.

    Args:
        scores: shape (n,), row-aligned with ``samples``.
        samples: with the labels as an analyst finds them.
        share: in [0, 1); a class is never emptied.

    Returns:
        bool of shape (n,).
    """
    keep = np.ones(len(samples), dtype=np.bool_)
    for rows in rows_by_label(samples):
        budget = math.floor(share * len(rows) + 1e-9)  # 1.5 * 0.05 * 40 is 3, whatever binary fractions say
        ranked = sorted(rows, key=lambda row: (-scores[row], hashlib.sha256(samples[row].id.encode()).digest()))
        keep[ranked[:budget]] = False
    return keep


def rows_by_label(samples: Sequence[Sample]) -> list[NDArray[np.intp]]:
    """The row numbers of each observed label, in the order of labels; one group where samples have none (search)."""
    labels = np.array([-1 if sample.label is None else sample.label for sample in samples], dtype=np.int64)
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def ranks_within_labels(scores: NDArray[np.floating], samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Each score's rank among those of its own observed label (search: of all samples), in (0, 1); the most suspicious near 1.

    For scores that a method makes class by class and never compares between classes. Poison stands under one label, so that a
    pooled AUROC of such scores measures, beside the detection, which label's scores happen to be the larger ones.

    The k-th smallest of n gets ``(k - 1/2) / n`` and tied scores their mean, so that every label's mean is 1/2 whatever its size: a
    score that says nothing has an AUROC of 1/2, and a label whose samples all look alike gets 1/2 throughout. The board compares poison
    with clean samples of its own label, where ranks order as the scores do. Who pools all labels should know the price: in every label
    somebody ranks highest, so that the very top holds as many clean samples of the other labels as poison.

    Args:
        scores: shape (n,), row-aligned with ``samples``.
        samples: with the labels as an analyst finds them.

    Returns:
        float64 of shape (n,).
    """
    ranks = np.zeros(len(samples))
    for rows in rows_by_label(samples):
        ranks[rows] = (rankdata(scores[rows], method="average") - 0.5) / len(rows)
    return ranks
