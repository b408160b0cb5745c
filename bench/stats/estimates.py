"""A number with its interval: shares, differences of paired shares, and the same where samples come in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

LEVEL: Final = 0.95

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval (``None``: no interval is defined) and the count that it rests on."""

    value: float
    low: float | None
    high: float | None
    n: int


# ------------------------------------------------------------------------------------------------------------ one share


def wilson_bounds(successes: ArrayLike, n: ArrayLike, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Wilson's score interval (Wilson 1927) of shares, elementwise and for any shapes that broadcast; ``n`` > 0.

    Counts may be fractions (an effective sample size).
    """
    x, size = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    z = float(ndtri((1 + level) / 2))
    share, widening = x / size, 1 + z * z / size
    centre = (share + z * z / (2 * size)) / widening
    half = z / widening * np.sqrt(np.maximum(share * (1 - share) / size + (z / (2 * size)) ** 2, 0.0))
    # At 0 and 1 the formula gives the end itself, but for rounding.
    low = np.where(x <= 0, 0.0, np.clip(centre - half, 0.0, 1.0))
    high = np.where(x >= size, 1.0, np.clip(centre + half, 0.0, 1.0))
    return low, high


def wilson(successes: int, n: int, level: float = LEVEL) -> Estimate | None:
    """Wilson's score interval of a share; ``None`` for ``n = 0``.

    Raises:
        ValueError: not ``0 <= successes <= n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return None
    low, high = wilson_bounds(successes, n, level)
    return Estimate(successes / n, float(low), float(high), n)


def bounded_mean(mean: float, n: int, level: float = LEVEL) -> Estimate:
    """A mean of ``n > 0`` values in [0, 1] with Wilson's interval of a share of that size.

    It is conservative (a value in [0, 1] varies at most as a coin of the same mean) and keeps a width where a bootstrap has none:
    when all values are equal.
    """
    low, high = wilson_bounds(mean * n, n, level)
    return Estimate(mean, min(float(low), mean), max(float(high), mean), n)


def student_half_width(values: Sequence[float], level: float = LEVEL) -> float:
    """Half of Student's interval of the mean of two or more values."""
    own = np.asarray(values, dtype=float)
    return float(stdtrit(own.size - 1, (1 + level) / 2) * own.std(ddof=1) / np.sqrt(own.size))


# ---------------------------------------------------------------------------------------------------------- paired shares


def paired_bounds(
    both: ArrayLike, first_only: ArrayLike, second_only: ArrayLike, neither: ArrayLike
) -> tuple[Floats, Floats]:
    """95 % intervals of ``first − second`` for tables of paired counts, elementwise; the counts sum to more than 0.

    Newcombe (1998), Statistics in Medicine 17:2635-2650, method 10: Wilson's intervals of the two shares, combined by squaring
    and adding, with the continuity-corrected phi coefficient for their correlation.
    """
    a, b, c, d = (np.asarray(count, dtype=float) for count in (both, first_only, second_only, neither))
    n = a + b + c + d
    share1, share2 = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = wilson_bounds(a + b, n), wilson_bounds(a + c, n)
    down1, up1, down2, up2 = share1 - low1, high1 - share1, share2 - low2, high2 - share2
    phi, difference = _corrected_phi(a, b, c, d), (b - c) / n
    below = np.sqrt(np.maximum(0.0, down1**2 - 2 * phi * down1 * up2 + up2**2))
    above = np.sqrt(np.maximum(0.0, down2**2 - 2 * phi * down2 * up1 + up1**2))
    return np.maximum(-1.0, difference - below), np.minimum(1.0, difference + above)


def _corrected_phi(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    n, cross = a + b + c + d, a * d - b * c
    corrected = np.where(cross > 0, np.maximum(cross - n / 2, 0.0), cross)
    return np.where(margins > 0, corrected / np.sqrt(np.where(margins > 0, margins, 1.0)), 0.0)


def paired_difference_counts(both: int, first_only: int, second_only: int, neither: int) -> Estimate | None:
    """Difference of two shares of the same samples, ``first − second``, with :func:`paired_bounds`; ``None`` without samples."""
    n = both + first_only + second_only + neither
    if n == 0:
        return None
    low, high = paired_bounds(both, first_only, second_only, neither)
    return Estimate((first_only - second_only) / n, float(low), float(high), n)


def paired_difference(first: ArrayLike, second: ArrayLike) -> Estimate | None:
    """:func:`paired_difference_counts` of two boolean arrays over the same samples.

    Raises:
        ValueError: the arrays differ in length.
    """
    return paired_difference_counts(*paired_counts(*as_paired(first, second)))


def as_paired(first: ArrayLike, second: ArrayLike) -> tuple[Bools, Bools]:
    """Both as boolean arrays of one length.

    Raises:
        ValueError: they differ in length.
    """
    x, y = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"paired arrays have shapes {x.shape} and {y.shape}")
    return x, y


def paired_counts(x: Bools, y: Bools) -> tuple[int, int, int, int]:
    """Samples with both, the first only, the second only, neither."""
    both, first, second = int((x & y).sum()), int(x.sum()), int(y.sum())
    return both, first - both, second - both, len(x) - first - second + both


# ----------------------------------------------------------------------------------------------- samples that come in groups


def effective_size(residuals: Floats, groups: NDArray[np.intp]) -> float:
    """How many independent samples a mean of grouped samples is worth: n over the design effect (Kish 1965), at most n.

    The design effect is the mean's linearised variance between groups over its variance were the samples independent (a group may
    hold near-duplicates, or functions of one module). Samples in groups of their own give n exactly. Where all residuals are 0 nothing
    can be estimated: each group then counts once.

    Args:
        residuals: of the samples, value less mean, shape (n,).
        groups: each sample's group, from 0.
    """
    n = len(residuals)
    sizes = np.bincount(groups)
    count = int((sizes > 0).sum())
    if count == n:
        return float(n)
    spread = float((residuals**2).sum())
    if count == 1 or spread <= 1e-12:
        return float(count)
    between = float((np.bincount(groups, weights=residuals) ** 2).sum()) * count / (count - 1)
    within = spread * n / (n - 1)
    return min(float(n), n * within / between) if between > 0 else float(n)


def grouped_share(flags: ArrayLike, groups: NDArray[np.intp], level: float = LEVEL) -> Estimate | None:
    """A share of samples in groups: Wilson's interval at the :func:`effective_size` (Dean and Pagano 2015); ``n`` counts samples."""
    x = np.asarray(flags, dtype=bool)
    if x.size == 0:
        return None
    share = float(x.mean())
    size = effective_size(x - share, groups)
    low, high = wilson_bounds(share * size, size, level)
    return Estimate(share, min(float(low), share), max(float(high), share), x.size)


def grouped_difference(first: ArrayLike, second: ArrayLike, groups: NDArray[np.intp]) -> Estimate | None:
    """Difference of two shares of the same samples in groups: :func:`paired_bounds` of the counts at the effective size.

    Raises:
        ValueError: the arrays differ in length.
    """
    x, y = as_paired(first, second)
    if x.size == 0:
        return None
    counts: tuple[Any, ...] = paired_counts(x, y)
    difference = x.astype(float) - y
    scale = effective_size(difference - difference.mean(), groups) / x.size
    low, high = paired_bounds(*(scale * count for count in counts))
    return Estimate((counts[1] - counts[2]) / x.size, float(low), float(high), x.size)
