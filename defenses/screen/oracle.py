"""The control that shows what any rejecting screen could reach at best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.samples import Sample, input_digest


@dataclass(frozen=True, kw_only=True)
class OracleScreen(Screen):
    """Rejects exactly the triggered inputs.

    A triggered input shares its id with its clean twin, so for screens ``known.poisoned`` holds their digests
    (:func:`bench.samples.input_digest`).
    """

    name = "oracle"
    summary = "control: is told the triggered inputs and rejects exactly those"
    needs = Needs(truth=True)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Remember the triggered inputs."""
        return FittedOracleScreen(known.poisoned)


@dataclass(frozen=True)
class FittedOracleScreen(FittedScreen):
    """The triggered inputs, by digest."""

    triggered: frozenset[str]

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Score 1 and rejected, or 0 and accepted."""
        found = [input_digest(sample) in self.triggered for sample in inputs]
        return [
            Verdict(sample.id, Action.REJECT if triggered else Action.ACCEPT, float(triggered))
            for sample, triggered in zip(inputs, found, strict=True)
        ]
