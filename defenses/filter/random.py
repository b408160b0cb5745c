"""The control without skill: the same budget, spent blindly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.context import Context, axis_seed
from bench.contracts import Filter, Known, Needs, Suspicion, TaskInfo
from defenses.filter.budget import blind_share, keep_all_but_the_most_suspicious


@dataclass(frozen=True, kw_only=True)
class RandomFilter(Filter):
    """Removes as many samples of each class as ``spectral_signatures`` does with its defaults, drawn by lot.

    A sample's score depends on its id and the seed of the axis ``defense`` alone, so neither the programs, the model, nor
    the order of rows matters.

    Attributes:
        assumed_rate: as in ``spectral_signatures``: 1.5 times this share of each class is removed.
    """

    name = "random"
    summary = "control: the same budget as spectral_signatures, no skill"
    needs = Needs(training_set=True)

    assumed_rate: Annotated[float, Field(ge=0, lt=2 / 3)] = 0.05

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Scores uniform in [0, 1), one draw a sample."""
        samples = known.training
        draws = [axis_seed(context.seeds, "defense", "filter/random", sample.id) for sample in samples]
        scores = np.array(draws, dtype=np.float64) / 2.0**63
        return Suspicion(scores, keep_all_but_the_most_suspicious(scores, samples, blind_share(self.assumed_rate)))
