"""Numbers that are made from sums over samples, stated once for a cell (:mod:`bench.metrics`) and for the mean over seeds (the board).

A :class:`Measure` keeps, for every sample, the few columns whose sums determine the number. The same columns give the value, the
interval of one cell, and the two-level bootstrap over seeds and groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.outcomes import Answers, Part, check
from bench.stats import Clustered, Estimate

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Sort(Enum):
    """What kind of number a measure is; it decides the interval."""

    SHARE = "share"
    """Wilson, at the effective size where samples come in groups."""
    SHARE_DIFFERENCE = "difference of shares of the same samples"
    """Newcombe's paired interval, likewise."""
    MEAN = "mean of values in [0, 1]"
    """Bootstrap over groups."""
    MEAN_DIFFERENCE = "difference of means of the same samples"
    """Bootstrap over groups."""
    F1 = "F1 of class 1"
    """Bootstrap over groups."""
    F1_DIFFERENCE = "difference of F1 of the same samples"
    """Bootstrap over groups."""


STATISTICS: Final[Mapping[Sort, stats.Statistic]] = {
    Sort.SHARE: stats.mean_statistic,
    Sort.SHARE_DIFFERENCE: stats.difference_statistic,
    Sort.MEAN: stats.mean_statistic,
    Sort.MEAN_DIFFERENCE: stats.difference_statistic,
    Sort.F1: stats.f1_statistic,
    Sort.F1_DIFFERENCE: stats.f1_difference_statistic,
}


@dataclass(frozen=True)
class Measure:
    """One number of one cell: columns of its samples, and what is done with their sums.

    Several measures share their ``data``: the columns of one part of the outcomes, of which ``picks`` are a measure's own.
    """

    sort: Sort
    data: Clustered
    picks: tuple[int, ...] | None = None
    """``None``: all columns, in order."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.data.columns)

    @property
    def places(self) -> Sequence[int]:
        """The measure's own columns."""
        return range(self.data.columns.shape[1]) if self.picks is None else self.picks

    def alone(self) -> Measure:
        """The same number with a table of its own columns, in order."""
        return Measure(self.sort, Clustered(self.data.columns[:, list(self.places)], self.data.groups))

    def estimate(self) -> Estimate | None:
        """The value with its 95 % interval; ``None`` where it is undefined (no samples; F1 without any positive)."""
        if self.n == 0:
            return None
        columns = [self.data.columns[:, place] for place in self.places]
        if self.sort is Sort.SHARE:
            return stats.grouped_share(columns[0] > 0, self.data.codes)
        if self.sort is Sort.SHARE_DIFFERENCE:
            return stats.grouped_difference(columns[0] > 0, columns[1] > 0, self.data.codes)
        found = stats.two_level_bootstraps([self.data], [(self.places, STATISTICS[self.sort])])[0]
        return _with_width(self, found) if found is not None else None


def values(cell: Mapping[str, Measure]) -> dict[str, Estimate | None]:
    """The numbers of a cell without intervals, for one of several seeds: the mean over them gets one."""
    found: dict[str, Estimate | None] = {}
    sums: dict[int, Floats] = {}
    for name, measure in cell.items():
        if id(measure.data) not in sums:
            sums[id(measure.data)] = measure.data.columns.sum(axis=0)
        value = float(STATISTICS[measure.sort](sums[id(measure.data)][list(measure.places)])) if measure.n else np.nan
        found[name] = None if np.isnan(value) else Estimate(value, None, None, measure.n)
    return found


def estimates(cell: Mapping[str, Measure]) -> dict[str, Estimate | None]:
    """:meth:`Measure.estimate` of all numbers of a cell; those that need a bootstrap of the same samples share its draws."""
    drawn = {name: measure for name, measure in cell.items() if measure.n and measure.sort not in _CLOSED}
    found = {name: measure.estimate() for name, measure in cell.items() if name not in drawn}
    for names in _of_same_data([drawn]):
        questions = [(drawn[name].places, STATISTICS[drawn[name].sort]) for name in names]
        for name, one in zip(names, stats.two_level_bootstraps([drawn[names[0]].data], questions), strict=True):
            found[name] = _with_width(drawn[name], one) if one is not None else None
    return {name: found[name] for name in cell}


_CLOSED: Final = (Sort.SHARE, Sort.SHARE_DIFFERENCE)
"""Sorts whose interval is a formula."""
_DIFFERENCES: Final = (Sort.SHARE_DIFFERENCE, Sort.MEAN_DIFFERENCE, Sort.F1_DIFFERENCE)


def _of_same_data(cells: Sequence[Mapping[str, Measure]]) -> list[list[str]]:
    """Names whose measures rest on the same samples in every cell, grouped."""
    grouped: dict[tuple[int, ...], list[str]] = {}
    for name in cells[0]:
        grouped.setdefault(tuple(id(cell[name].data) for cell in cells), []).append(name)
    return list(grouped.values())


def over_seeds(measures: Sequence[Measure]) -> Estimate | None:
    """Mean over seeds, with a two-level bootstrap; one seed keeps the interval of its cell.

    The bootstrap's percentiles are too narrow for shares near 0 or 1, for differences that few samples make, and for few seeds. So the
    interval reaches at least as far as the one cell's formula on the samples of all seeds (at their effective number: the same inputs
    at three seeds are not three times as many), and, from five seeds on, as Student's interval over the seeds' values. Where every draw
    gives the same value, the widest of the seeds' own intervals stands instead. ``None`` where any seed lacks the number: a mean
    over the others would be another number.
    """
    return all_over_seeds([{"": measure} for measure in measures])[""] if measures else None


def all_over_seeds(cells: Sequence[Mapping[str, Measure]]) -> dict[str, Estimate | None]:
    """:func:`over_seeds` of every number that all cells (one a seed) have; what rests on the same samples shares its draws."""
    if not cells:
        return {}
    names = [name for name in cells[0] if all(name in cell for cell in cells)]
    each = {name: [cell[name].n > 0 for cell in cells] for name in names}
    if len(cells) == 1:
        return estimates({name: cells[0][name] for name in names})
    asked = [{name: cell[name] for name in names if all(each[name])} for cell in cells]
    for name in asked[0]:
        # The table that holds a number's columns may look otherwise in another seed.
        if len({(tuple(cell[name].places), cell[name].data.columns.shape[1]) for cell in asked}) > 1:
            for cell in asked:
                cell[name] = cell[name].alone()
    found: dict[str, Estimate | None] = dict.fromkeys(names)
    for same in _of_same_data(asked) if asked[0] else []:
        questions = [(asked[0][name].places, STATISTICS[asked[0][name].sort]) for name in same]
        parts = [cell[same[0]].data for cell in asked]
        pooled = Clustered(np.concatenate([p.columns for p in parts]), np.concatenate([p.groups for p in parts]))
        for name, one in zip(same, stats.two_level_bootstraps(parts, questions), strict=True):
            of_seeds = [cell[name] for cell in asked]
            found[name] = _reaching(of_seeds, pooled, _with_own_width(of_seeds, one))
    return found


def _reaching(measures: Sequence[Measure], pooled: Clustered, found: Estimate | None) -> Estimate | None:
    """The interval, no narrower than the formulas allow that do not depend on draws (:func:`over_seeds`).

    ``pooled`` holds the samples of all seeds, in the columns of the measures' own tables.
    """
    if found is None or found.low is None or found.high is None:
        return found
    down, up = found.value - found.low, found.high - found.value
    if measures[0].sort in _CLOSED:
        formula = Measure(measures[0].sort, pooled, measures[0].picks).estimate()
        assert formula is not None
        assert formula.low is not None
        assert formula.high is not None
        down, up = max(down, formula.value - formula.low), max(up, formula.high - formula.value)
    if len(measures) >= stats.MINIMUM_SEEDS:
        own = [found.value for found in (values({"": measure})[""] for measure in measures) if found is not None]
        half = stats.student_half_width(own)
        down, up = max(down, half), max(up, half)
    lowest = -1.0 if measures[0].sort in _DIFFERENCES else 0.0
    return Estimate(found.value, max(lowest, found.value - down), min(1.0, found.value + up), found.n)


def _with_own_width(measures: Sequence[Measure], found: Estimate | None) -> Estimate | None:
    if found is None or (found.low != found.high and found.low is not None):
        return found
    present = [one for one in (measure.estimate() for measure in measures) if one is not None]
    lows, highs = [one.low for one in present], [one.high for one in present]
    return Estimate(
        found.value,
        min((low for low in lows if low is not None), default=None),
        max((high for high in highs if high is not None), default=None),
        found.n,
    )


def _with_width(measure: Measure, found: Estimate) -> Estimate:
    """A bootstrap of identical values has no width, which would claim certainty: bound it as a share of that size."""
    if found.low is None or found.high is None or found.high - found.low > 1e-12:
        return found
    if measure.sort in (Sort.MEAN, Sort.F1):
        return stats.bounded_mean(found.value, found.n)
    slack = stats.bounded_mean(0.0, found.n).high
    assert slack is not None
    return Estimate(found.value, max(-1.0, found.value - slack), min(1.0, found.value + slack), found.n)


# ------------------------------------------------------------------------------------------------------------- the numbers


def measures(
    outcomes: pd.DataFrame | Answers, metric: str, goal: Mapping[str, object] | None = None
) -> dict[str, Measure]:
    """All numbers of a cell that are sums over samples, by name (see :class:`bench.metrics.CellMetrics`).

    Args:
        outcomes: an outcome table, checked here unless it was.
        metric: the task's clean metric: ``accuracy``, ``f1`` or ``mrr``.
        goal: a record's: ``victim`` and ``target`` classes, or ``word``; without it the published ASR is not known.
    """
    answers = check(outcomes)
    parts = {part: _Rows(answers.of(part)) for part in Part}
    asked = {
        Part.CLEAN: _clean(parts[Part.CLEAN], metric),
        Part.TRIGGERED: _triggered(parts[Part.TRIGGERED]),
        Part.REVERSE: _reverse(parts[Part.REVERSE]),
    }
    found = {name: measure for part, rows in parts.items() for name, measure in rows.measures(asked[part]).items()}
    return found | _as_published(parts, found["asr"], goal or {})


def _as_published(parts: Mapping[Part, _Rows], asr: Measure, goal: Mapping[str, object]) -> dict[str, Measure]:
    """ASR over every test sample of the victim class: one that the trigger does not apply to stands as it is, and counts
    where the model calls it the target anyway."""
    triggered, clean = parts[Part.TRIGGERED], parts[Part.CLEAN].answers
    victim, target = goal.get("victim"), goal.get("target")
    if triggered.search or victim is None or target is None:
        return {}
    places = np.flatnonzero(clean["label"] == victim)
    carried = set(triggered.answers["id"])
    plain = places[[one not in carried for one in clean["id"][places]]] if carried else places[:0]
    if len(plain) == 0:  # the trigger applies to all of them
        return {"asr_published": asr}
    met = np.concatenate([triggered.flag("success"), clean["prediction"][plain] == target])
    names = np.concatenate([group_names(triggered.answers), group_names(clean)[plain]])
    return {"asr_published": Measure(Sort.SHARE, Clustered(np.stack([met, np.ones(len(met))], axis=1), names))}


def group_names(rows: Answers) -> NDArray[np.object_]:
    """The group of each row; a sample without one is a group of its own."""
    groups: NDArray[np.object_] = rows["group"]
    absent = groups == ""
    return np.where(absent, "\x1f" + rows["id"], groups) if absent.any() else groups


class _Rows:
    """Columns of one part as arrays, with the constructors of measures over them; all measures share one table of columns."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.rejected: Flags = answers["action"] == "reject"
        self.pool: NDArray[np.int64] = answers["pool"]
        self.search = bool((self.pool > 0).any())
        self._ones = np.ones(len(answers))

    def measures(self, asked: Mapping[str, Asked]) -> dict[str, Measure]:
        """Measures over one table that holds every column once: the same columns in the same places for every seed."""
        table: list[Floats] = []
        places: dict[int, int] = {}
        chosen: dict[str, tuple[int, ...]] = {}
        for name, (_, columns) in asked.items():
            picks = []
            for column in columns:
                place = places.setdefault(id(column), len(table))
                if place == len(table):
                    table.append(np.asarray(column, dtype=float))
                picks.append(place)
            chosen[name] = tuple(picks)
        data = Clustered(np.stack(table, axis=1), group_names(self.answers))
        return {name: Measure(sort, data, chosen[name]) for name, (sort, _) in asked.items()}

    def flag(self, name: str) -> Flags:
        return self.answers[name]

    def rank(self, prefix: str = "") -> Floats:
        """Ranks; a rejected input is found nowhere: infinite."""
        rank = self.answers[f"{prefix}rank"].astype(float)
        return np.where(self.rejected, np.inf, rank) if prefix == "" else rank

    def share(self, flags: Flags) -> Asked:
        return Sort.SHARE, (flags, self._ones)

    def share_difference(self, first: Flags, second: Flags) -> Asked:
        return Sort.SHARE_DIFFERENCE, (first, second, self._ones)

    def mean(self, values: Floats) -> Asked:
        return Sort.MEAN, (values, self._ones)

    def mean_difference(self, first: Floats, second: Floats) -> Asked:
        return Sort.MEAN_DIFFERENCE, (first, second, self._ones)

    def f1(self, prefix: str) -> Asked:
        return Sort.F1, self._confusion(prefix)

    def f1_difference(self, first: str, second: str) -> Asked:
        return Sort.F1_DIFFERENCE, (*self._confusion(first), *self._confusion(second))

    def _confusion(self, prefix: str) -> tuple[Flags, Flags, Flags]:
        """True positive, false positive, false negative. Rejected (−1) is wrong: a negative then counts as a false positive."""
        positive = self.answers["label"] == 1
        right = self.answers[f"{prefix}success"]
        return positive & right, ~positive & ~right, positive & ~right

    def normalised_rank(self, prefix: str = "") -> Floats:
        """Rank over pool; rejected: 1 (the end of the list)."""
        return np.minimum(self.rank(prefix) / np.maximum(self.pool, 1), 1.0)


Asked = tuple[Sort, tuple[Floats | Flags, ...]]
"""A sort of number and the columns that it is made from."""


def _clean(rows: _Rows, metric: str) -> dict[str, Asked]:
    if metric == "mrr":
        reciprocal = {prefix: 1 / np.maximum(rows.rank(prefix), 1) for prefix in ("", "undefended_", "reference_")}
        found = {
            "clean": rows.mean(reciprocal[""]),
            "clean_undefended": rows.mean(reciprocal["undefended_"]),
            "clean_reference": rows.mean(reciprocal["reference_"]),
            "clean_delta": rows.mean_difference(reciprocal[""], reciprocal["undefended_"]),
            "reference_delta": rows.mean_difference(reciprocal["undefended_"], reciprocal["reference_"]),
        }
    elif metric == "f1":
        found = {
            "clean": rows.f1(""),
            "clean_undefended": rows.f1("undefended_"),
            "clean_reference": rows.f1("reference_"),
            "clean_delta": rows.f1_difference("", "undefended_"),
            "reference_delta": rows.f1_difference("undefended_", "reference_"),
        }
    else:
        found = {
            "clean": rows.share(rows.flag("success")),
            "clean_undefended": rows.share(rows.flag("undefended_success")),
            "clean_reference": rows.share(rows.flag("reference_success")),
            "clean_delta": rows.share_difference(rows.flag("success"), rows.flag("undefended_success")),
            "reference_delta": rows.share_difference(rows.flag("undefended_success"), rows.flag("reference_success")),
        }
    found["clean_constant"] = _constant(rows, metric)
    found["false_reject"] = rows.share(rows.rejected)
    found["false_rewrite"] = rows.share(rows.answers["action"] == "rewrite")
    return found


def _constant(rows: _Rows, metric: str) -> Asked:
    """What the best answer that reads no program reaches: the larger class (F1: always class 1); in search an order by lot."""
    if metric == "mrr":
        expected = {pool: float((1 / np.arange(1, pool + 1)).mean()) for pool in np.unique(rows.pool).tolist() if pool}
        return rows.mean(np.array([expected.get(pool, 0.0) for pool in rows.pool.tolist()]))
    label = rows.answers["label"]
    if metric == "f1":
        return Sort.F1, (label == 1, label != 1, np.zeros(len(label), dtype=bool))
    classes, counts = np.unique(label, return_counts=True)
    return rows.share(label == (classes[counts.argmax()] if len(classes) else 0))


def _triggered(rows: _Rows) -> dict[str, Asked]:
    success, reference, undefended = (rows.flag(f"{prefix}success") for prefix in ("", "reference_", "undefended_"))
    found = {
        "asr": rows.share(success),
        "asr_reference": rows.share(reference),
        "asr_undefended": rows.share(undefended),
        "lift": rows.share_difference(success, reference),
        "asr_delta": rows.share_difference(success, undefended),
        "visible": rows.share(rows.flag("visible")),
        "caught": rows.share(rows.answers["action"] != "accept"),
    }
    if not rows.search:
        right = rows.answers["prediction"] == rows.answers["label"]
        found["robust_accuracy"] = rows.share(right & ~rows.rejected)
        return found
    found["anr"] = rows.mean(rows.normalised_rank())
    found["anr_reference"] = rows.mean(rows.normalised_rank("reference_"))
    found["anr_undefended"] = rows.mean(rows.normalised_rank("undefended_"))
    # The papers rank among all programs, the query's own too. It is not known whether that stands above the candidate: taken as if.
    with_own = np.minimum((rows.rank() + 1) / (rows.pool + 1), 1.0)
    found["anr_published"] = rows.mean(with_own)
    found["anr_lift"] = rows.mean_difference(rows.normalised_rank(), rows.normalised_rank("reference_"))
    for k in (1, 5, 10):
        found[f"asr_at_{k}"] = rows.share(rows.rank() <= k)
    found["asr_top_tenth"] = rows.share(rows.rank() <= -(-rows.pool // 10))
    return found


def _reverse(rows: _Rows) -> dict[str, Asked]:
    success, reference = rows.flag("success"), rows.flag("reference_success")
    return {
        "reverse_asr": rows.share(success),
        "reverse_asr_reference": rows.share(reference),
        "reverse_lift": rows.share_difference(success, reference),
    }
