"""Training on programs in one spelling: the training-time half of the cheapest defense there is."""

from __future__ import annotations

from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TrainingRule
from bench.errors import PluginError
from bench.languages.normalising import STEPS, Step, check_steps
from bench.models.handles import WhiteBox
from bench.samples import Sample
from defenses.screening.respelling import respelled, takes_function_name


@dataclass(frozen=True, kw_only=True)
class NormalisedTraining(TrainingRule):
    """Train on normalised programs: what an attacker can write in many ways, and a program does not need, is never learnt.

    Without Unicode tricks, comments, dead code, odd layout or telling names there is little left that carries a trigger, and a
    poisoned sample keeps only its wrong label. The validation data is normalised too. Meant to stand together with
    ``screen/normalise`` under the same parameters: alone, the model meets spellings at test time that it has never seen.

    Source: a baseline without a paper of its own (a partial mitigation of style triggers, according to arXiv 2512.19215). What
    each step does and promises stands in :mod:`bench.languages.normalising`. Queries of code search are left as they are.

    Attributes:
        steps: what is normalised.
        function_name: whether the step ``names`` also takes the function's own name. ``None``: yes, but not in code search, where
            that name is most of what a query asks for (and where a trigger in it therefore stays).
    """

    name = "normalise"
    summary = "trains on programs in one spelling (no comments, dead code, names or layout of their own)"
    paper = "unpublished"
    needs = Needs(training_set=True)

    steps: tuple[Step, ...] = STEPS
    function_name: bool | None = None

    def __post_init__(self) -> None:
        check_steps(self.steps)

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train with the suite's settings and seeds, so that the programs are the only difference from the undefended victim."""
        if context.trainer is None:
            raise PluginError("training/normalise was given no trainer (context.trainer)")
        function_name = takes_function_name(self.function_name, task)

        def shown(sample: Sample) -> Sample:
            return respelled(sample, self.steps, function_name).sample

        samples = context.progress(known.training, "normalise: training programs")
        ready = {sample: shown(sample) for sample in samples}
        return context.trainer.fit(
            model, known.training, axis="training", shown=lambda sample: ready.get(sample) or shown(sample)
        )
