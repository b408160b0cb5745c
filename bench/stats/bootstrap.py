"""The two-level bootstrap over seeds and groups of samples. It takes a seed: the same outcomes always give the same interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.stats.estimates import LEVEL, Estimate, Floats

RESAMPLES: Final = 2000
MINIMUM_SEEDS: Final = 5
"""Below five seeds the spread between seeds cannot be estimated: seeds are then held fixed."""


@dataclass(frozen=True)
class Clustered:
    """Samples of one seed: ``columns`` of shape (n, k), whose sums statistics are made from, and each sample's ``groups``."""

    columns: Floats
    groups: NDArray[np.object_]

    def __post_init__(self) -> None:
        if self.columns.ndim != 2 or len(self.columns) != len(self.groups):
            raise ValueError(f"columns of shape {self.columns.shape} for {len(self.groups)} groups")

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Each sample's group as a number from 0, in the order of names."""
        return pd.factorize(self.groups, sort=True)[0]


Statistic = Callable[[Floats], Floats]
"""From sums of shape (…, k) to values of shape (…); NaN where undefined."""
Question = tuple[Sequence[int], Statistic]
"""The columns that a statistic is made from, and the statistic."""


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
    if not seeds:
        return None
    questions = [(range(seeds[0].columns.shape[1]), statistic)]
    return two_level_bootstraps(seeds, questions, seed=seed, resamples=resamples, level=level)[0]


def two_level_bootstraps(
    seeds: Sequence[Clustered],
    questions: Sequence[Question],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[Estimate | None]:
    """:func:`two_level_bootstrap` of several statistics over the same samples, which are drawn once for all of them."""
    if not seeds or any(len(part.columns) == 0 for part in seeds):
        return [None] * len(questions)
    n = min(len(part.columns) for part in seeds)
    drawn = _resampled_sums(seeds, seed, resamples)
    chosen = None
    if len(seeds) >= MINIMUM_SEEDS:
        chosen = np.random.default_rng([seed, 1]).integers(len(seeds), size=(resamples, len(seeds)))
    values = [_of_seeds(seeds, columns, statistic) for columns, statistic in questions]
    asked = [place for place, own in enumerate(values) if own is not None]
    means = np.empty((len(asked), resamples))
    for row, place in enumerate(asked):
        columns, statistic = questions[place]
        each = statistic(drawn[:, :, list(columns)])
        means[row] = (each if chosen is None else np.take_along_axis(each, chosen, axis=1)).mean(axis=1)
    bounds = dict(zip(asked, _bounds(means, level), strict=True))
    found: list[Estimate | None] = []
    for place, own in enumerate(values):
        found.append(None if own is None else Estimate(float(own.mean()), *bounds[place], n))
    return found


def _of_seeds(seeds: Sequence[Clustered], columns: Sequence[int], statistic: Statistic) -> Floats | None:
    """The statistic of each seed; ``None`` where one of them has none."""
    values = np.array([float(statistic(part.columns[:, list(columns)].sum(axis=0))) for part in seeds])
    return None if np.isnan(values).any() else values


def _bounds(means: Floats, level: float) -> list[tuple[float | None, float | None]]:
    """Percentiles of each row's draws; a draw without any sample of some seed (NaN) says nothing."""
    whole = ~np.isnan(means).any(axis=1)
    found: list[tuple[float | None, float | None]] = [(None, None)] * len(means)
    if whole.any():
        for row, low, high in zip(
            np.flatnonzero(whole), *np.quantile(means[whole], _tails(level), axis=1), strict=True
        ):
            found[row] = float(low), float(high)
    for row in np.flatnonzero(~whole):
        kept = means[row][~np.isnan(means[row])]
        if kept.size:
            low, high = np.quantile(kept, _tails(level))
            found[row] = float(low), float(high)
    return found


def _tails(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


@lru_cache(maxsize=6)
def _weights(count: int, seed: int, resamples: int) -> Floats:
    """How often each of ``count`` groups is drawn in each resample; kept, since a board asks for the same again and again."""
    draws = np.random.default_rng([seed, 0]).integers(count, size=(resamples, count))
    draws += count * np.arange(resamples)[:, None]
    weights = np.bincount(draws.ravel(), minlength=resamples * count).reshape(resamples, count).astype(float)
    weights.setflags(write=False)
    return weights


def _resampled_sums(seeds: Sequence[Clustered], seed: int, resamples: int) -> Floats:
    """The sums of each seed's columns in each resample of groups, shape (resamples, seeds, k)."""
    codes, names = pd.factorize(np.concatenate([part.groups for part in seeds]), sort=True)
    count, width = len(names), seeds[0].columns.shape[1]
    starts = np.cumsum([0, *(len(part.groups) for part in seeds)])
    by_group = np.empty((count, width * len(seeds)))
    for place, part in enumerate(seeds):
        own = codes[starts[place] : starts[place + 1]]
        for column in range(width):
            by_group[:, place * width + column] = np.bincount(own, weights=part.columns[:, column], minlength=count)
    sums: Floats = _weights(count, seed, resamples) @ by_group
    return sums.reshape(resamples, len(seeds), width)
