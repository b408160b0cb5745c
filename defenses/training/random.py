"""The control without skill: isolate and unlearn by lot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.context import Context, axis_seed
from bench.samples import Sample
from defenses.training.abl import ABL


@dataclass(frozen=True, kw_only=True)
class RandomTraining(ABL):
    """Does all that ``abl`` does with its defaults, and isolates as many samples, drawn by lot.

    What ``abl`` does better than this is the isolation's doing; what both do is that of holding the loss up, and of gradient ascent on
    any few samples. A sample's lot depends on its id and the seed of the axis ``training`` alone.
    """

    name = "random"
    summary = "control: as abl, isolating samples by lot"
    paper = ""

    def isolate(self, samples: Sequence[Sample], losses: NDArray[np.float64], context: Context) -> list[str]:
        """The ids of as many samples as ``abl`` isolates."""
        lots = {s.id: axis_seed(context.seeds, "training", "training/random", s.id) for s in samples}
        return sorted(lots, key=lambda name: lots[name])[: self.count(len(samples))]
