"""What a cell's page shows beyond its numbers, counted from the per-sample outcomes: confusion, ranks and detector curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from bench.outcomes import Answers, Part, check

CURVE_POINTS: Final = 60
"""More cannot be told apart on a page."""
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
    """``filter`` (poisoned against clean training samples) or ``screen`` (triggered against clean test inputs)."""
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
    tenth = np.clip(np.ceil(DECILES * rank[found] / pool[found]).astype(int) - 1, 0, DECILES - 1)
    deciles = np.bincount(tenth, minlength=DECILES)
    return Ranks(inputs, model, tuple(map(int, deciles)), int((rank[found] == 1).sum()), int((~found).sum()), len(rows))


def _curves(outcomes: pd.DataFrame, filter_table: pd.DataFrame | None) -> Iterator[Curve]:
    if filter_table is not None:
        bad, removed = filter_table["poisoned"].to_numpy(dtype=bool), ~filter_table["keep"].to_numpy(dtype=bool)
        points = roc_points(filter_table["score"].to_numpy()[~bad], filter_table["score"].to_numpy()[bad])
        if points:
            yield Curve("filter", points, (float(removed[~bad].mean()), float(removed[bad].mean())))
    scored = outcomes[outcomes["part"] != Part.REVERSE.value]
    score, bad = scored["score"].to_numpy(dtype=float), (scored["part"] == Part.TRIGGERED.value).to_numpy()
    stopped = (scored["action"] != "accept").to_numpy()
    if len(score) and not np.isnan(score).any():
        points = roc_points(score[~bad], score[bad])
        if points:
            yield Curve("screen", points, (float(stopped[~bad].mean()), float(stopped[bad].mean())))


def roc_points(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """The corners of the curve, thinned to :data:`CURVE_POINTS` with both ends kept; empty unless there are both sorts."""
    if not len(negative) or not len(positive):
        return ()
    truth = np.concatenate([np.zeros(len(negative)), np.ones(len(positive))])
    false, true, _ = roc_curve(truth, np.concatenate([negative, positive]))
    kept = _thinned(len(false), CURVE_POINTS)
    return tuple((round(float(false[i]), 4), round(float(true[i]), 4)) for i in kept)


def _thinned(count: int, most: int) -> Sequence[int]:
    if count <= most:
        return range(count)
    return [int(i) for i in np.unique(np.linspace(0, count - 1, most).round().astype(int))]
