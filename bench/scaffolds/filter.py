"""My filter: what makes a training sample suspicious."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Filter, Known, Needs, Suspicion, TaskInfo


@dataclass(frozen=True, kw_only=True)
class MyFilter(Filter):
    """One sentence.

    Attributes:
        share: of the training set that is dropped; every field is a parameter, with a type and a default.
    """

    name = "my_filter"
    version = 1  # raise it with every change of behaviour: stored results are then made anew
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(training_set=True, model=Access.WEIGHTS)  # all that ``known`` will hold

    share: Annotated[float, Field(ge=0, le=1)] = 0.05

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """A score (higher is more suspicious) and a decision for each of ``known.training``, in its order.

        ``known.white_box`` was trained on the unfiltered data; ``context.rng("defense")`` draws.
        """
        features = known.white_box.features(known.training).astype(np.float64)
        scores = np.linalg.norm(features - features.mean(axis=0), axis=1)
        keep = np.ones(len(scores), dtype=bool)
        keep[np.argsort(scores)[len(scores) - int(self.share * len(scores)) :]] = False
        return Suspicion(scores, keep)
