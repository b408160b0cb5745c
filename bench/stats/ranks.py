"""Across blocks: signed ranks of paired differences, their size, and mean ranks with the interval of a place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr
from scipy.stats import binom, rankdata

from bench.stats.bootstrap import RESAMPLES
from bench.stats.estimates import LEVEL, Estimate, Floats

MINIMUM_BLOCKS: Final = 6
"""Below six blocks a two-sided signed-rank test can never reach p < 0.05 (2 / 2⁵ = 0.0625)."""
EXACT_BLOCKS: Final = 60
"""Up to so many differences that are not 0 the signed-rank distribution is exact; above, its normal approximation stands."""
NOT_ENOUGH_BLOCKS: Final = "not enough blocks"


@dataclass(frozen=True, slots=True)
class SignedRank:
    """Two-sided Wilcoxon signed-rank test across blocks. ``p`` is ``None`` with a ``reason`` below six blocks."""

    blocks: int
    p: float | None
    effect: float | None
    """Matched-pairs rank-biserial correlation, from −1 (all differences negative) to 1."""
    reason: str = ""


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Two-sided Wilcoxon signed-rank test of paired differences (one a block).

    Zero differences are dropped (Wilcoxon's rule) and ties get mid-ranks. The distribution is exact given the ranks, for any ties;
    above :data:`EXACT_BLOCKS` it is normal with the variance of those ranks and a continuity correction.
    """
    x = _differences(differences)
    count, effect = x.size, rank_biserial(x)
    if count < MINIMUM_BLOCKS:
        return SignedRank(count, None, effect, NOT_ENOUGH_BLOCKS)
    x = x[x != 0]
    if x.size == 0:
        return SignedRank(count, 1.0, effect)
    doubled = np.rint(2 * rankdata(np.abs(x))).astype(int)
    positive, total = int(doubled[x > 0].sum()), int(doubled.sum())
    smaller = min(positive, total - positive)
    exact = x.size <= EXACT_BLOCKS
    return SignedRank(count, min(1.0, 2 * (_exact_tail if exact else _normal_tail)(doubled, smaller)), effect)


def _exact_tail(doubled: np.ndarray, smaller: int) -> float:
    """P(sum of the positive ones of these doubled ranks ≤ smaller) where every sign is a fair coin."""
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: len(ways) - rank]
        ways = (ways + shifted) / 2
    return float(ways[: smaller + 1].sum())


def _normal_tail(doubled: np.ndarray, smaller: int) -> float:
    mean, spread = doubled.sum() / 2, float(np.sqrt((doubled.astype(float) ** 2).sum())) / 2
    return float(ndtr(min(0.0, smaller + 1 - mean) / spread))  # half a rank: one of the doubled ones


def _differences(values: ArrayLike) -> Floats:
    x = np.round(np.asarray(values, dtype=float), 12)  # 0.3 - 0.1 and 0.4 - 0.2 are the same difference
    if np.isnan(x).any():
        raise ValueError("a difference is NaN: leave blocks without a value out, and say how many")
    return x


def rank_biserial(differences: ArrayLike) -> float | None:
    """Matched-pairs rank-biserial correlation (Kerby 2014): (R⁺ − R⁻) / (R⁺ + R⁻); 0 if all differences are 0, ``None`` if none."""
    x = _differences(differences)
    if x.size == 0:
        return None
    x = x[x != 0]
    if x.size == 0:
        return 0.0
    ranks = rankdata(np.abs(x))
    return float((ranks[x > 0].sum() - ranks[x < 0].sum()) / ranks.sum())


def median_difference(differences: ArrayLike, level: float = LEVEL) -> Estimate | None:
    """Median of paired differences with the exact sign-test interval (order statistics); below six there is no 95 % interval.

    The sample median, and not the Hodges-Lehmann estimate: it asks for no symmetry of the differences, and neither does its interval.
    """
    x = np.sort(_differences(differences))
    if x.size == 0:
        return None
    rank = _median_rank(x.size, level)
    if rank == 0:
        return Estimate(float(np.median(x)), None, None, x.size)
    return Estimate(float(np.median(x)), float(x[rank - 1]), float(x[-rank]), x.size)


@lru_cache(maxsize=1024)
def _median_rank(n: int, level: float) -> int:
    """The largest k with P(X < k) within the half error: the k-th smallest and the k-th largest of n bound the median."""
    return int(binom.ppf((1 - level) / 2, n, 0.5))


@dataclass(frozen=True, slots=True)
class WinTieLoss:
    """Counts of blocks."""

    wins: int
    ties: int
    losses: int


def win_tie_loss(differences: ArrayLike, tie_margin: float = 0.0) -> WinTieLoss:
    """Wins are differences below ``−tie_margin`` (smaller is better), losses above it."""
    x = _differences(differences)
    wins, losses = int((x < -tie_margin).sum()), int((x > tie_margin).sum())
    return WinTieLoss(wins, x.size - wins - losses, losses)


@dataclass(frozen=True, slots=True)
class RankInterval:
    """Mean rank over blocks (1 is best), and intervals of two things when blocks are drawn again: it, and the item's place among all."""

    mean_rank: float
    mean_low: float
    """Of the mean rank (percentiles of the resamples)."""
    mean_high: float
    low: float
    """Of the place: one that an item really had, whole or half, and never narrower than the level asks for."""
    high: float
    blocks: int


def rank_intervals(
    values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> list[RankInterval] | None:
    """Mean rank of each column of ``values`` (blocks, items; smaller is better) with bootstrap intervals of it and of its place.

    ``None`` below six blocks or without items.

    Raises:
        ValueError: a value is NaN; rank complete blocks only.
    """
    table = np.round(np.asarray(values, dtype=float), 12)
    if table.ndim != 2 or table.shape[0] < MINIMUM_BLOCKS or table.shape[1] == 0:
        return None
    if np.isnan(table).any():
        raise ValueError("ranks need complete blocks")
    ranks = rankdata(table, axis=1)
    drawn = np.random.default_rng(seed).integers(len(ranks), size=(resamples, len(ranks)))
    means = ranks[drawn].mean(axis=1)
    places = rankdata(np.round(means, 12), axis=1)
    first, last = (1 - level) / 2, (1 + level) / 2
    mean_low, mean_high = np.quantile(means, [first, last], axis=0)
    # No interpolation, outwards: between two places there is none.
    low = np.quantile(places, first, axis=0, method="lower")
    high = np.quantile(places, last, axis=0, method="higher")
    return [
        RankInterval(float(mean), float(a), float(b), float(c), float(d), len(ranks))
        for mean, a, b, c, d in zip(ranks.mean(axis=0), mean_low, mean_high, low, high, strict=True)
    ]
