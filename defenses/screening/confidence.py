"""How sure a model is of its answer: the one question that STRIP, OSeqL, CodePurify, AttDef and RAP ask.

Classification and pairs: the probabilities of the classes. Code search has no classes; there the "classes" are the queries of half
of the clean samples, and a program's probabilities are the softmax of its cosines with them, scaled as in training. A backdoored search
model draws whatever carries the trigger towards the target word's queries, so that an answer that hangs on a piece of the program
shows there as it does among classes.

The other half sets the threshold. A program whose own query is in the table is sure of its answer as no program of the test ever is,
and a threshold from such programs would say nothing about the test. To leave out the own query alone would set clean programs before
a table of one query less than the test's; with a table fixed beforehand clean and test programs are exchangeable, as the
conformal quantile asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from bench.contracts import TaskInfo, TaskKind
from bench.errors import ModelError, PluginError
from bench.models.handles import BlackBox
from bench.samples import Sample
from defenses.screening.thresholds import fold_numbers

Floats = NDArray[np.float64]

SCALE = 20.0
"""Cosines are multiplied by it before the softmax, as the trainer does by default."""


class Confidence(ABC):
    """Log-probabilities of a model's answers; a row depends on its sample alone."""

    def of(self, samples: Sequence[Sample]) -> Floats:
        """Natural log-probabilities (n, answers), finite.

        Raises:
            ModelError: an output of the model is not finite.
        """
        if not samples:
            return np.zeros((0, 1))
        scores = self._scores(samples)
        bad = ~np.isfinite(scores).all(axis=1)
        if bad.any():
            raise ModelError(
                f"the model gives {int(bad.sum())} of {len(samples)} inputs an output that is not finite (the first is "
                f"{samples[int(bad.argmax())].id!r}): its training diverged, and no screen can judge by it"
            )
        found: Floats = log_softmax(scores, axis=1)
        return found

    @abstractmethod
    def _scores(self, samples: Sequence[Sample]) -> Floats:
        """Scores (n, answers) before the softmax."""


class OfClasses(Confidence):
    """Of a classifier."""

    def __init__(self, model: BlackBox) -> None:
        self._model = model

    def _scores(self, samples: Sequence[Sample]) -> Floats:
        return self._model.predict(samples).astype(np.float64)


class OfQueries(Confidence):
    """Of a search model, among some clean samples' queries."""

    def __init__(self, model: BlackBox, clean: Sequence[Sample]) -> None:
        queries = list({sample.query: sample for sample in clean}.values())
        if len(queries) < 2:
            raise PluginError(
                f"a search model's confidence is told among the queries of half of the clean samples; {len(queries)} distinct query "
                "is too few"
            )
        self._model = model
        self.queries = model.embed_queries(queries).astype(np.float64)

    def _scores(self, samples: Sequence[Sample]) -> Floats:
        found: Floats = SCALE * (self._model.embed_programs(samples).astype(np.float64) @ self.queries.T)
        return found


def confidence(model: BlackBox, task: TaskInfo, clean: Sequence[Sample]) -> tuple[Confidence, list[Sample]]:
    """The confidence of a model in its task, and the clean samples that may set a threshold on it.

    Raises:
        PluginError: code search with fewer than two distinct queries in half of the clean samples.
    """
    if task.kind is not TaskKind.SEARCH:
        return OfClasses(model), list(clean)
    asked, setting = halves(clean)
    return OfQueries(model, asked), setting


def halves(clean: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """For code search: clean samples whose queries are the answers, and clean samples that set the threshold; groups whole."""
    of = fold_numbers([sample.group for sample in clean], 2)
    asked, setting = ([s for s, half in zip(clean, of, strict=True) if half == number] for number in (0, 1))
    return asked, setting


def entropies(log_probabilities: Floats) -> Floats:
    """Shannon entropy of each row, in nats."""
    found: Floats = -(np.exp(log_probabilities) * log_probabilities).sum(axis=-1)
    return found
