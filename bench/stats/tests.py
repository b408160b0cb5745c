"""Tests of one cell and of one table: McNemar, Holm, non-inferiority, and the area under a ROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, ndtri
from scipy.stats import rankdata

from bench.stats.estimates import LEVEL, Estimate, as_paired


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test: discordant counts, the exact two-sided p, and the less conservative mid-p."""

    first_only: int
    second_only: int
    p: float
    mid_p: float


def mcnemar(first: ArrayLike, second: ArrayLike, groups: NDArray[np.intp] | None = None) -> McNemar | None:
    """Exact McNemar test that two shares of the same samples are equal; ``None`` without samples.

    With no discordant pair both p are 1: nothing speaks against equality. Mid-p: Fagerlund, Lydersen and Laake (2013).

    With ``groups`` (each sample's group, from 0), the samples of a group change sides together: the exact sign-flip distribution of
    the groups' differences of discordant counts. Groups of one sample give McNemar's test itself; without regard to groups, samples
    that stand or fall together would be counted as independent.
    """
    x, y = as_paired(first, second)
    if x.size == 0:
        return None
    b, c = int((x & ~y).sum()), int((~x & y).sum())
    if b + c == 0:
        return McNemar(0, 0, 1.0, 1.0)
    if groups is not None:
        steps = np.rint(np.bincount(groups, weights=x.astype(float) - y)).astype(int)
        return McNemar(b, c, *_sign_flips(np.abs(steps[steps != 0]), abs(b - c)))
    tail, point = 2 * float(bdtr(min(b, c), b + c, 0.5)), float(bdtr(min(b, c), b + c, 0.5))
    point -= float(bdtr(min(b, c) - 1, b + c, 0.5)) if min(b, c) > 0 else 0.0
    return McNemar(b, c, min(1.0, tail), min(1.0, tail - point))


def _sign_flips(steps: NDArray[np.intp], observed: int) -> tuple[float, float]:
    """Two-sided (p, mid-p) of a sum of ``steps`` with random signs."""
    if steps.size == 0:
        return 1.0, 1.0
    total = int(steps.sum())
    ways = np.zeros(total + 1)  # place k: the steps that are positive sum to k
    ways[0] = 1.0
    for step in steps:
        shifted = np.zeros_like(ways)
        shifted[step:] = ways[: total + 1 - step]
        ways = (ways + shifted) / 2
    place = (total - observed) // 2
    tail, point = 2 * float(ways[: place + 1].sum()), float(ways[place])
    return min(1.0, tail), min(1.0, tail - point)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm 1979) over the p-values that there are; ``None`` stays ``None`` and does not count."""
    present = [place for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    if present:
        values = np.array([p_values[place] for place in present], dtype=float)
        order = np.argsort(values, kind="stable")
        stepped = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
        for place, value in zip(np.asarray(present)[order], stepped, strict=True):
            adjusted[int(place)] = float(value)
    return adjusted


def non_inferior(difference: Estimate | None, margin: float) -> bool | None:
    """Does the interval of ``new − old`` exclude a loss of ``margin`` or more? ``None`` where there is no interval.

    The lower end of the two-sided 95 % interval decides (one-sided level 2.5 %).

    Raises:
        ValueError: the margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"a non-inferiority margin must be positive, not {margin}")
    return None if difference is None or difference.low is None else difference.low > -margin


def auroc(negative: ArrayLike, positive: ArrayLike, level: float = LEVEL) -> Estimate | None:
    """Chance that a positive scores above a negative (ties count half); ``None`` unless there are both.

    Interval: the Hanley-McNeil variance inverted as a score interval, Newcombe (2006), Statistics in Medicine 25:559-573, method
    5; it stays inside [0, 1] and has a width at 0 and 1 too. ``n`` counts both sorts.
    """
    low_scores, high_scores = np.asarray(negative, dtype=float), np.asarray(positive, dtype=float)
    m, n = high_scores.size, low_scores.size
    if m == 0 or n == 0:
        return None
    ranks = rankdata(np.concatenate([high_scores, low_scores]))
    area = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    z, half = float(ndtri((1 + level) / 2)), (m + n) / 2 - 1

    def distance(theta: float) -> float:
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - area) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    # At 0 and 1 the estimate itself is a trivial root; step off it.
    inside = min(max(area, 1e-9), 1 - 1e-9)
    low = 0.0 if area == 0 else float(brentq(distance, 0.0, inside))
    high = 1.0 if area == 1 else float(brentq(distance, inside, 1.0))
    return Estimate(area, low, high, m + n)
