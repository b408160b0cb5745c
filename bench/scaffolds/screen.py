"""My screen: what gives a triggered input away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.samples import Sample


def suspicion(sample: Sample) -> float:
    """Higher is more suspicious, and finite; of this one input alone. Here: the length of its longest line."""
    return float(max((len(line) for text in sample.programs for line in text.splitlines()), default=0))


@dataclass(frozen=True)
class FittedMyScreen(FittedScreen):
    """What was learnt from the clean samples."""

    limit: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """One verdict for each input, in order."""
        scores = [suspicion(sample) for sample in inputs]
        return [
            Verdict(sample.id, Action.REJECT if score > self.limit else Action.ACCEPT, score)
            for sample, score in zip(inputs, scores, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class MyScreen(Screen):
    """One sentence.

    Attributes:
        quantile: of the clean scores above which an input is rejected; every field is a parameter, with a type and a default.
    """

    name = "my_screen"
    version = 1  # raise it with every change of behaviour: stored results are then made anew
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(clean=300)  # all that ``known`` will hold

    quantile: Annotated[float, Field(ge=0, le=1)] = 0.99

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedMyScreen:
        """Choose the limit on clean samples; ``context.rng("defense")`` draws."""
        return FittedMyScreen(float(np.quantile([suspicion(sample) for sample in known.clean], self.quantile)))
