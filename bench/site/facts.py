"""What a cell's page shows beyond its numbers, counted from the per-sample outcomes: confusion, ranks and detector curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from bench.metrics import under_poisons_labels, without_trigger
from bench.outcomes import Answers, Part, check

VISIBLE: Final = 0.004
"""A distance on a curve, of its axis: about a pixel of the chart."""
DECILES: Final = 10


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of inputs by true class (rows) and prediction (columns; the last column is rejected inputs)."""

    inputs: str
    """``clean`` or ``triggered``."""
    model: str
    """``reference``, ``undefended`` or ``defended``."""
    classes: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Code search: where the wanted program (clean) or the triggered one lands in its pool."""

    inputs: str
    model: str
    deciles: tuple[int, ...]
    """Queries by tenth of the pool, best first."""
    first: int
    """Queries whose program is ranked first."""
    rejected: int
    n: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A detector's ROC curve by its scores: (false positive rate, true positive rate), and its own decision."""

    what: str
    """``filter``: poisoned training samples against clean ones under the labels that poison stands under. ``screen``: triggered test inputs
    against the same inputs without the trigger (search: against all clean queries)."""
    points: tuple[tuple[float, float], ...]
    decision: tuple[float, float] | None
    """The rates of what it really removed, rejected or rewrote."""


@dataclass(frozen=True, slots=True)
class CellFacts:
    """All of them; empty where they do not apply."""

    confusions: tuple[Confusion, ...] = ()
    ranks: tuple[Ranks, ...] = ()
    curves: tuple[Curve, ...] = ()


def cell_facts(outcomes: pd.DataFrame | Answers, filter_table: pd.DataFrame | None, *, defended: bool) -> CellFacts:
    """Count one cell's tables.

    Args:
        outcomes: an outcome table, checked here unless it was.
        filter_table: what a filter thought of the training set.
        defended: is there a defense? Without one, undefended is all there is.
    """
    outcomes = check(outcomes).frame()
    parts = outcomes["part"].to_numpy(dtype=object)
    inputs = {"clean": parts == Part.CLEAN.value, "triggered": parts != Part.CLEAN.value}
    models = {"clean": ["reference", "undefended"], "triggered": ["reference", "undefended"]}
    shown = [(name, model) for name in inputs for model in models[name] + ["defended"] * defended]
    if (outcomes["pool"].to_numpy() > 0).any():
        inputs["triggered"] = parts == Part.TRIGGERED.value
        ranks = [_ranks(outcomes[inputs[name]], name, model) for name, model in shown if inputs[name].any()]
        return CellFacts(ranks=tuple(ranks), curves=tuple(_curves(outcomes, filter_table)))
    columns = ("label", "prediction", "reference_prediction", "undefended_prediction")
    classes = np.unique(np.concatenate([outcomes[name].to_numpy() for name in columns]))
    classes = classes[classes >= 0]
    confusions = [_confusion(outcomes[inputs[n]], n, model, classes) for n, model in shown if inputs[n].any()]
    return CellFacts(confusions=tuple(confusions), curves=tuple(_curves(outcomes, filter_table)))


def _column(model: str, name: str) -> str:
    return name if model == "defended" else f"{model}_{name}"


def _confusion(rows: pd.DataFrame, inputs: str, model: str, classes: NDArray[np.int64]) -> Confusion:
    label = np.searchsorted(classes, rows["label"].to_numpy())
    prediction = rows[_column(model, "prediction")].to_numpy()
    place = np.where(prediction < 0, len(classes), np.searchsorted(classes, prediction))
    counts = np.zeros((len(classes), len(classes) + 1), dtype=int)
    np.add.at(counts, (label, place), 1)
    return Confusion(inputs, model, tuple(map(int, classes)), tuple(tuple(map(int, row)) for row in counts))


def _ranks(rows: pd.DataFrame, inputs: str, model: str) -> Ranks:
    rank, pool = rows[_column(model, "rank")].to_numpy(), np.maximum(rows["pool"].to_numpy(), 1)
    found = (
        ~(rows["action"] == "reject").to_numpy(dtype=bool) if model == "defended" else np.ones(len(rows), dtype=bool)
    )
    # The first bar is what ASR counts: ranks up to a tenth of the pool, rounded up.
    ends = np.ceil(pool[found][:, None] * np.arange(1, DECILES) / DECILES)
    deciles = np.bincount((rank[found][:, None] > ends).sum(axis=1), minlength=DECILES)
    return Ranks(inputs, model, tuple(map(int, deciles)), int((rank[found] == 1).sum()), int((~found).sum()), len(rows))


def _curves(outcomes: pd.DataFrame, filter_table: pd.DataFrame | None) -> Iterator[Curve]:
    """Of the samples and inputs that the AUROC beside them is of."""
    if filter_table is not None:
        bad = filter_table["poisoned"].to_numpy(dtype=bool)
        good = under_poisons_labels(filter_table, bad) & ~bad
        removed = ~filter_table["keep"].to_numpy(dtype=bool)
        yield from _curve("filter", filter_table["score"].to_numpy(dtype=float), good, bad, removed)
    part = outcomes["part"].to_numpy(dtype=object)
    clean, bad = part == Part.CLEAN.value, part == Part.TRIGGERED.value
    names = outcomes["id"].to_numpy()
    good = np.zeros(len(part), dtype=bool)
    good[clean] = without_trigger(names[clean], names[bad], search=bool((outcomes["pool"].to_numpy()[bad] > 0).any()))
    stopped = (outcomes["action"] != "accept").to_numpy()
    yield from _curve("screen", outcomes["score"].to_numpy(dtype=float), good, bad, stopped)


def _curve(
    what: str, score: NDArray[np.float64], good: NDArray[np.bool_], bad: NDArray[np.bool_], stopped: NDArray[np.bool_]
) -> Iterator[Curve]:
    if np.isnan(score[good | bad]).any():  # no score for some: they order nothing
        return
    points = roc_points(score[good], score[bad])
    if points:
        yield Curve(what, points, (float(stopped[good].mean()), float(stopped[bad].mean())))


def roc_points(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """The corners of the curve, without those that nobody could see are missing (:data:`VISIBLE`); empty unless there are both sorts."""
    if not len(negative) or not len(positive):
        return ()
    truth = np.concatenate([np.zeros(len(negative)), np.ones(len(positive))])
    false, true, _ = roc_curve(truth, np.concatenate([negative, positive]))
    points = np.column_stack([false, true])
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in points[_corners(points)])


def _corners(points: NDArray[np.float64]) -> list[int]:
    """The places of the points that a line must go through so that none of the others lies further from it than :data:`VISIBLE`.

    Douglas and Peucker's algorithm (Cartographica 10(2), 1973): split at the point that lies furthest from the straight line.
    """
    kept, left = {0, len(points) - 1}, [(0, len(points) - 1)]
    while left:
        first, last = left.pop()
        if last - first < 2:
            continue
        way = points[last] - points[first]
        aside = points[first + 1 : last] - points[first]
        far = np.abs(way[0] * aside[:, 1] - way[1] * aside[:, 0]) / np.hypot(*way)
        place = first + 1 + int(far.argmax())
        if far.max() > VISIBLE:
            kept.add(place)
            left += [(first, place), (place, last)]
    return sorted(kept)
