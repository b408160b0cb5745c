"""Rules for filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from bench.conformance.checks import (
    Answer,
    Check,
    Family,
    Setting,
    Skipped,
    Subject,
    Variation,
    demand,
    one_class,
    ordinary_setting,
)
from bench.conformance.lending import WatchedContext, WatchedKnown
from bench.conformance.toy import odd_samples
from bench.contracts import Filter, Suspicion

LEAST_KEPT = 0.5
"""Share of the *clean* toy training samples that a filter must keep."""
SCORE_TOLERANCE = 1e-3
"""By how much a score may move when the rows change places, as a share of the range of all scores."""
MOST_FLIPPED = 0.05
"""Share of decisions that may flip then: scores next to a threshold move by floating-point noise."""


def exercise(subject: Subject, setting: Setting, context: WatchedContext, known: WatchedKnown | None) -> Answer:
    """Judge the training set."""
    assert known is not None
    suspicion: object = cast(Filter, subject.plugin).judge(known, subject.world.info, context)
    if not isinstance(suspicion, Suspicion):
        return Answer(suspicion, None)
    return Answer(suspicion, (np.asarray(suspicion.scores).tolist(), np.asarray(suspicion.keep).tolist()))


def valid(subject: Subject, answer: Answer, setting: Setting) -> None:
    """A finite score and a decision for every row."""
    suspicion: object = answer.result
    demand(isinstance(suspicion, Suspicion), f"judge() returned {type(suspicion).__name__}, not a Suspicion")
    suspicion = cast(Suspicion, suspicion)
    n = len(setting.training)
    for what, array, dtype in (("scores", suspicion.scores, np.float64), ("keep", suspicion.keep, np.bool_)):
        demand(isinstance(array, np.ndarray), f"{what} is a {type(array).__name__}, not an array")
        demand(array.shape == (n,), f"{what} has shape {array.shape} for {n} training samples")
        demand(array.dtype == dtype, f"{what} has type {array.dtype}, not {np.dtype(dtype)}")
    odd = np.flatnonzero(~np.isfinite(suspicion.scores))
    demand(not len(odd), f"{len(odd)} of {n} scores are not finite, the first at row {odd[:1].sum()}")


def variations(subject: Subject) -> Mapping[str, Variation]:
    """Tiny and one-class training sets, and odd programs among ordinary ones."""
    usual = ordinary_setting(subject)
    return {
        "odd programs among the training samples": Variation(
            replace(usual, training=odd_samples(subject.kind) + usual.training)
        ),
        "one training sample": Variation(replace(usual, training=usual.training[:1]), refusable=True),
        "three training samples": Variation(replace(usual, training=usual.training[:3]), refusable=True),
        "a training set of one class": Variation(replace(usual, training=one_class(usual.training)), refusable=True),
    }


def aligned(subject: Subject) -> None:
    """When the rows change places, scores and decisions move with them."""
    usual = ordinary_setting(subject)
    by_row = [draw for draw in subject.first().draws if len(draw) < 2 or draw[1] != "clean"]
    if by_row:
        raise Skipped("it draws random numbers, which may go by row")
    order = np.random.default_rng(1).permutation(len(usual.training))
    moved = subject.act(replace(usual, training=tuple(usual.training[i] for i in order))).observation.value().result
    first = cast(Suspicion, subject.answer().result)
    spread = float(np.ptp(first.scores))
    worst = float(np.abs(first.scores[order] - moved.scores).max())
    demand(
        worst <= SCORE_TOLERANCE * spread + 1e-9,
        f"when the training samples change places, a score moves by {worst:.3g} (the range of all scores is {spread:.3g})",
    )
    flipped = float((first.keep[order] != moved.keep).mean())
    demand(flipped <= MOST_FLIPPED, f"when the training samples change places, {flipped:.0%} of the decisions flip")


def keeps_most(subject: Subject) -> None:
    """Most clean data is kept, and something of each class."""
    usual, suspicion = ordinary_setting(subject), cast(Suspicion, subject.answer().result)
    truth = subject.world.poisoned.poisoned
    clean = np.array([s.id not in truth for s in usual.training])
    kept = float(suspicion.keep[clean].mean())
    demand(
        kept >= LEAST_KEPT,
        f"it keeps only {kept:.0%} of the clean toy training samples (at least {LEAST_KEPT:.0%} expected)",
    )
    for label in {s.label for s in usual.training}:
        rows = np.array([s.label == label for s in usual.training])
        demand(suspicion.keep[rows].any(), f"it drops every training sample of class {label}")


def scores_point_up(subject: Subject) -> None:
    """Dropped samples are not less suspicious than kept ones."""
    suspicion = cast(Suspicion, subject.answer().result)
    dropped, kept = suspicion.scores[~suspicion.keep], suspicion.scores[suspicion.keep]
    if not len(dropped) or not len(kept):
        raise Skipped("it keeps or drops everything on the toy, so its scores and decisions cannot be compared")
    higher = (dropped[:, None] > kept).mean() + 0.5 * (dropped[:, None] == kept).mean()
    demand(
        higher >= 0.5,
        f"what it drops scores lower than what it keeps ({higher:.0%} of pairs are in order): a high score means suspicious",
    )


FAMILY = Family(
    exercise=exercise,
    valid=valid,
    ordinary=ordinary_setting,
    variations=variations,
    checks=(
        Check("aligned", "When the rows change places, scores and decisions move with them.", aligned),
        Check("known answer", "At least half of the clean data is kept, and something of each class.", keeps_most),
        Check("direction", "What is dropped scores higher than what is kept.", scores_point_up),
    ),
)
