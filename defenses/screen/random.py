"""The control without skill: inputs rejected by lot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bench.context import Context, axis_seed
from bench.contracts import Action, FittedScreen, Known, Screen, TaskInfo, Verdict
from bench.samples import Sample


@dataclass(frozen=True, kw_only=True)
class RandomScreen(Screen):
    """Rejects a stated share of inputs, whatever they hold.

    The draw depends on the input's id and the seed of the axis ``defense`` alone, so that a triggered input meets the fate
    of its clean twin, whatever batch it comes in.

    Attributes:
        rate: share rejected, in expectation.
    """

    name = "random"
    summary = "control: rejects a share of the inputs, no skill"

    rate: Annotated[float, Field(ge=0, le=1)] = 0.05

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Nothing to fit."""
        return FittedRandomScreen(self.rate, dict(context.seeds))


@dataclass(frozen=True)
class FittedRandomScreen(FittedScreen):
    """The lot itself."""

    rate: float
    seeds: Mapping[str, int]

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Scores uniform in [0, 1); the highest are rejected."""
        verdicts = []
        for sample in inputs:
            score = axis_seed(self.seeds, "defense", "screen/random", sample.id) / 2.0**63
            verdicts.append(Verdict(sample.id, Action.REJECT if score >= 1.0 - self.rate else Action.ACCEPT, score))
        return verdicts
