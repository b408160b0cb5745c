"""Intervals and tests. Pure functions of counts and arrays; nothing here knows what a cell is.

An empty sample gives ``None``, never NaN. ``scipy`` and ``statsmodels`` do what they can; the few formulas written here (Newcombe's
paired interval, the exact signed-rank distribution, the score interval of an AUROC) are checked against them and against
published values. Bootstraps take a seed, so that the same outcomes always render the same page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm, rankdata
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

LEVEL: Final = 0.95
RESAMPLES: Final = 2000
MINIMUM_BLOCKS: Final = 6
"""Below six blocks a two-sided signed-rank test can never reach p < 0.05 (2 / 2⁵ = 0.0625)."""
MINIMUM_SEEDS: Final = 5
"""Below five seeds the spread between seeds cannot be estimated: seeds are then held fixed."""
NOT_ENOUGH_BLOCKS: Final = "not enough blocks"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval (``None``: no interval is defined) and the count that it rests on."""

    value: float
    low: float | None
    high: float | None
    n: int


# ------------------------------------------------------------------------------------------------------------ one sample


def wilson(successes: int, n: int, level: float = LEVEL) -> Estimate | None:
    """Wilson's score interval of a share (Wilson 1927); ``None`` for ``n = 0``.

    Raises:
        ValueError: not ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return None
    low, high = _wilson_bounds(successes, n, level)
    return Estimate(successes / n, low, high, n)


def _wilson_bounds(successes: float, n: int, level: float) -> tuple[float, float]:
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def bounded_mean(mean: float, n: int, level: float = LEVEL) -> Estimate:
    """A mean of ``n > 0`` values in [0, 1] with Wilson's interval of a share of that size.

    It is conservative (a value in [0, 1] varies at most as a coin of the same mean) and keeps a width where a bootstrap has none:
    when all values are equal.
    """
    low, high = _wilson_bounds(mean * n, n, level)
    return Estimate(mean, min(low, mean), max(high, mean), n)


def paired_difference_counts(both: int, first_only: int, second_only: int, neither: int) -> Estimate | None:
    """Difference of two shares of the same samples, ``first − second``, with a 95 % interval.

    Newcombe (1998), Statistics in Medicine 17:2635-2650, method 10: Wilson's intervals of the two shares, combined by squaring
    and adding, with the continuity-corrected phi coefficient for their correlation. ``None`` where there are no samples.
    """
    n = both + first_only + second_only + neither
    if n == 0:
        return None
    share1, share2 = (both + first_only) / n, (both + second_only) / n
    low1, high1 = _wilson_bounds(both + first_only, n, LEVEL)
    low2, high2 = _wilson_bounds(both + second_only, n, LEVEL)
    phi = _corrected_phi(both, first_only, second_only, neither)
    down1, up1, down2, up2 = share1 - low1, high1 - share1, share2 - low2, high2 - share2
    difference = (first_only - second_only) / n
    below = math.sqrt(max(0.0, down1**2 - 2 * phi * down1 * up2 + up2**2))
    above = math.sqrt(max(0.0, down2**2 - 2 * phi * down2 * up1 + up1**2))
    return Estimate(difference, max(-1.0, difference - below), min(1.0, difference + above), n)


def _corrected_phi(a: int, b: int, c: int, d: int) -> float:
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    n, cross = a + b + c + d, a * d - b * c
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    return corrected / math.sqrt(margins)


def paired_difference(first: ArrayLike, second: ArrayLike) -> Estimate | None:
    """:func:`paired_difference_counts` of two boolean arrays over the same samples.

    Raises:
        ValueError: the arrays differ in length.
    """
    x, y = _paired(first, second)
    return paired_difference_counts(int((x & y).sum()), int((x & ~y).sum()), int((~x & y).sum()), int((~x & ~y).sum()))


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    x, y = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"paired arrays have shapes {x.shape} and {y.shape}")
    return x, y


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test: discordant counts, the exact two-sided p, and the less conservative mid-p."""

    first_only: int
    second_only: int
    p: float
    mid_p: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar | None:
    """Exact McNemar test that two shares of the same samples are equal; ``None`` without samples.

    With no discordant pair both p are 1: nothing speaks against equality. Mid-p: Fagerlund, Lydersen and Laake (2013).
    """
    x, y = _paired(first, second)
    if x.size == 0:
        return None
    b, c = int((x & ~y).sum()), int((~x & y).sum())
    if b + c == 0:
        return McNemar(0, 0, 1.0, 1.0)
    tail = 2 * float(binom.cdf(min(b, c), b + c, 0.5))
    return McNemar(b, c, min(1.0, tail), min(1.0, tail - float(binom.pmf(min(b, c), b + c, 0.5))))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment over the p-values that there are; ``None`` stays ``None`` and does not count."""
    present = [place for place, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    if present:
        values = multipletests([p_values[place] for place in present], method="holm")[1]
        for place, value in zip(present, values, strict=True):
            adjusted[place] = float(value)
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
    z, half = float(norm.ppf((1 + level) / 2)), (m + n) / 2 - 1

    def distance(theta: float) -> float:
        spread = 1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - area) ** 2 - z * z * theta * (1 - theta) * spread / (m * n)

    # At 0 and 1 the estimate itself is a trivial root; step off it.
    inside = min(max(area, 1e-9), 1 - 1e-9)
    low = 0.0 if area == 0 else float(brentq(distance, 0.0, inside))
    high = 1.0 if area == 1 else float(brentq(distance, inside, 1.0))
    return Estimate(area, low, high, m + n)


# ------------------------------------------------------------------------------------------------------------- bootstrap


@dataclass(frozen=True)
class Clustered:
    """Samples of one seed: ``columns`` of shape (n, k), whose sums a statistic is made from, and each sample's ``groups``."""

    columns: Floats
    groups: NDArray[np.object_]

    def __post_init__(self) -> None:
        if self.columns.ndim != 2 or len(self.columns) != len(self.groups):
            raise ValueError(f"columns of shape {self.columns.shape} for {len(self.groups)} groups")


Statistic = Callable[[Floats], Floats]
"""From sums of shape (…, k) to values of shape (…); NaN where undefined."""


def mean_statistic(sums: Floats) -> Floats:
    """Sum over count, for columns (x, 1)."""
    return _ratio(sums[..., 0], sums[..., 1])


def difference_statistic(sums: Floats) -> Floats:
    """Difference of two means of the same samples, for columns (x, y, 1)."""
    return _ratio(sums[..., 0] - sums[..., 1], sums[..., 2])


def f1_statistic(sums: Floats) -> Floats:
    """F1 for columns (true positive, false positive, false negative)."""
    return _ratio(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def f1_difference_statistic(sums: Floats) -> Floats:
    """Difference of two F1 of the same samples, for columns (tp, fp, fn, tp', fp', fn')."""
    return f1_statistic(sums[..., :3]) - f1_statistic(sums[..., 3:])


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below == 0, np.nan, above / below)


def two_level_bootstrap(
    seeds: Sequence[Clustered], statistic: Statistic, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Estimate | None:
    """Mean over seeds of a statistic, with a percentile interval over seeds and samples; ``None`` where it is undefined.

    Samples are drawn by group (near-duplicates and functions of one module stand or fall together). Seeds that are tested on the
    same groups get the same draw, since three seeds on 1,000 inputs are not 3,000 inputs. With fewer than
    :data:`MINIMUM_SEEDS` seeds the seeds are held fixed: the interval then holds sample uncertainty only. ``n`` is the number of
    samples of one seed (the smallest).
    """
    if not seeds or any(len(part.columns) == 0 for part in seeds):
        return None
    values = np.array([float(statistic(part.columns.sum(axis=0))) for part in seeds])
    if np.isnan(values).any():
        return None
    drawn = _resampled(seeds, statistic, seed, resamples)
    if len(seeds) >= MINIMUM_SEEDS:
        chosen = np.random.default_rng([seed, 1]).integers(len(seeds), size=(resamples, len(seeds)))
        drawn = np.take_along_axis(drawn, chosen, axis=1)
    means = drawn.mean(axis=1)
    means = means[~np.isnan(means)]  # a draw without any sample of some seed says nothing
    n = min(len(part.columns) for part in seeds)
    if means.size == 0:
        return Estimate(float(values.mean()), None, None, n)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values.mean()), float(low), float(high), n)


@lru_cache(maxsize=4)
def _weights(count: int, seed: int, resamples: int) -> Floats:
    """How often each of ``count`` groups is drawn in each resample; kept, since a board asks for the same again and again."""
    draws = np.random.default_rng([seed, 0]).integers(count, size=(resamples, count))
    draws += count * np.arange(resamples)[:, None]
    weights = np.bincount(draws.ravel(), minlength=resamples * count).reshape(resamples, count).astype(float)
    weights.setflags(write=False)
    return weights


def _resampled(seeds: Sequence[Clustered], statistic: Statistic, seed: int, resamples: int) -> Floats:
    """The statistic of each seed in each resample of groups, shape (resamples, seeds)."""
    names = sorted({str(name) for part in seeds for name in part.groups})
    place = {name: index for index, name in enumerate(names)}
    count = len(names)
    weights = _weights(count, seed, resamples)
    per_seed = []
    for part in seeds:
        sums = np.zeros((count, part.columns.shape[1]))
        np.add.at(sums, [place[str(name)] for name in part.groups], part.columns)
        per_seed.append(statistic(weights @ sums))
    return np.stack(per_seed, axis=1)


# ---------------------------------------------------------------------------------------------------------- across blocks


@dataclass(frozen=True, slots=True)
class SignedRank:
    """Two-sided Wilcoxon signed-rank test across blocks. ``p`` is ``None`` with a ``reason`` below six blocks."""

    blocks: int
    p: float | None
    effect: float | None
    """Matched-pairs rank-biserial correlation, from −1 (all differences negative) to 1."""
    reason: str = ""


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Exact two-sided Wilcoxon signed-rank test of paired differences (one a block).

    Zero differences are dropped (Wilcoxon's rule) and ties get mid-ranks; the distribution is exact given the ranks, for any ties.
    """
    x = _differences(differences)
    effect = rank_biserial(x)
    if x.size < MINIMUM_BLOCKS:
        return SignedRank(x.size, None, effect, NOT_ENOUGH_BLOCKS)
    x = x[x != 0]
    if x.size == 0:
        return SignedRank(np.asarray(differences).size, 1.0, effect)
    doubled = np.rint(2 * rankdata(np.abs(x))).astype(int)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: len(ways) - rank]
        ways = (ways + shifted) / 2
    positive = int(doubled[x > 0].sum())
    smaller = min(positive, int(doubled.sum()) - positive)
    return SignedRank(np.asarray(differences).size, min(1.0, 2 * float(ways[: smaller + 1].sum())), effect)


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
    """Median of paired differences with the exact sign-test interval (order statistics); below six there is no 95 % interval."""
    x = np.sort(_differences(differences))
    if x.size == 0:
        return None
    # The largest k with P(X < k) within the half error: the k-th smallest and the k-th largest bound the median.
    rank = int(binom.ppf((1 - level) / 2, x.size, 0.5))
    if rank == 0:
        return Estimate(float(np.median(x)), None, None, x.size)
    return Estimate(float(np.median(x)), float(x[rank - 1]), float(x[-rank]), x.size)


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


def tie_groups(items: Sequence[str], different: Mapping[tuple[str, str], bool]) -> dict[str, str]:
    """Compact letter display (Piepho 2004, insert and absorb): two items share a letter iff they are not told apart.

    Args:
        items: from best to worst; letters are given in this order.
        different: for pairs (in either order), whether a test tells them apart; a missing pair is not told apart.
    """
    sets: list[set[str]] = [set(items)] if items else []
    for one, other in combinations(items, 2):
        if not (different.get((one, other)) or different.get((other, one))):
            continue
        split = [part - {drop} for part in sets if {one, other} <= part for drop in (one, other)]
        sets = _without_subsets([part for part in sets if not {one, other} <= part] + split)
    order = {item: place for place, item in enumerate(items)}
    sets.sort(key=lambda part: sorted(order[item] for item in part))
    return {item: "".join(_letter(place) for place, part in enumerate(sets) if item in part) for item in items}


def _without_subsets(sets: list[set[str]]) -> list[set[str]]:
    kept: list[set[str]] = []
    for part in sorted(sets, key=len, reverse=True):
        if part and not any(part <= other for other in kept):
            kept.append(part)
    return kept


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else f"({place + 1})"


@dataclass(frozen=True, slots=True)
class RankInterval:
    """Mean rank over blocks (1 is best) and the interval of the item's place among all when blocks are drawn again."""

    mean_rank: float
    low: float
    high: float
    blocks: int


def rank_intervals(
    values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> list[RankInterval] | None:
    """Mean rank of each column of ``values`` (blocks, items; smaller is better) with a bootstrap interval of its place.

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
    places = rankdata(np.round(ranks[drawn].mean(axis=1), 12), axis=1)
    low, high = np.quantile(places, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        RankInterval(float(mean), float(a), float(b), len(ranks))
        for mean, a, b in zip(ranks.mean(axis=0), low, high, strict=True)
    ]
