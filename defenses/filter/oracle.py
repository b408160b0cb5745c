"""The control that shows what any filter could reach at best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.context import Context
from bench.contracts import Filter, Known, Needs, Suspicion, TaskInfo


@dataclass(frozen=True, kw_only=True)
class OracleFilter(Filter):
    """Removes exactly the poisoned samples.

    It bounds training rules and repairs too: the model trained on what is left was never poisoned. That is why training rules have no
    oracle of their own, and why ``repair/oracle`` is no bound.
    """

    name = "oracle"
    summary = "control: is told the poison and removes exactly that"
    needs = Needs(training_set=True, truth=True)

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Score 1 and out for poison, 0 and in for the rest."""
        poisoned = np.array([sample.id in known.poisoned for sample in known.training], dtype=np.bool_)
        return Suspicion(poisoned.astype(np.float64), ~poisoned)
