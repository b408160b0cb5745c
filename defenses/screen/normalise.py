"""Every input rewritten into one spelling: the inference-time half of the cheapest defense there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Screen, TaskInfo, Verdict
from bench.languages.normalising import STEPS, Step, check_steps
from bench.samples import Sample
from defenses.screening.respelling import respelled, takes_function_name


@dataclass(frozen=True, kw_only=True)
class NormalisedScreen(Screen):
    """Normalise every input, clean or not.

    A trigger that is a comment, dead code that can be proved dead, a name, a layout or an odd character is gone before the model
    sees it. It needs no clean samples and has no threshold; what it costs is the model's familiarity with what it is shown, so
    it is meant for a model trained under ``training/normalise`` with the same parameters. On a model trained as usual it is the
    honest lower bound of that.

    Source: a baseline without a paper of its own (a partial mitigation of style triggers, according to arXiv 2512.19215). What
    each step does and promises stands in :mod:`bench.languages.normalising`. Queries of code search are left as they are.

    An input's score is the number of dead statements and of look-alike or invisible characters that were found in it: what hardly
    any honest author writes.

    Attributes:
        steps: what is normalised.
        function_name: whether the step ``names`` also takes the function's own name. ``None``: yes, but not in code search, where
            that name is most of what a query asks for (and where a trigger in it therefore stays).
    """

    name = "normalise"
    summary = "rewrites every input in one spelling (no comments, dead code, names or layout of its own)"
    paper = "unpublished"

    steps: tuple[Step, ...] = STEPS
    function_name: bool | None = None

    def __post_init__(self) -> None:
        check_steps(self.steps)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Nothing to fit."""
        return FittedNormalisation(self.steps, takes_function_name(self.function_name, task))


@dataclass(frozen=True)
class FittedNormalisation(FittedScreen):
    """The steps."""

    steps: tuple[Step, ...]
    function_name: bool

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rewritten where the spelling changes, else accepted."""
        return [self._verdict(sample) for sample in inputs]

    def _verdict(self, sample: Sample) -> Verdict:
        result = respelled(sample, self.steps, self.function_name)
        if result.sample == sample:
            return Verdict(sample.id, Action.ACCEPT, float(result.oddities))
        return Verdict(sample.id, Action.REWRITE, float(result.oddities), result.sample)
