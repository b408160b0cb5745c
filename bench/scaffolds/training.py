"""My training: how the model is trained so that poison is not learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TrainingRule
from bench.errors import PluginError
from bench.models.handles import WhiteBox


@dataclass(frozen=True, kw_only=True)
class MyTraining(TrainingRule):
    """One sentence.

    Attributes:
        smoothing: of the labels, in [0, 1); every field is a parameter, with a type and a default.
    """

    name = "my_training"
    version = 1  # raise it with every change of behaviour: stored results are then made anew
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(training_set=True)  # all that ``known`` will hold

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train a copy of ``model`` on ``known.training`` with a loss of one's own."""
        if context.trainer is None:
            raise PluginError("this rule trains with context.trainer, and there is none")

        def loss(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
            return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)

        return context.trainer.fit(model, known.training, axis="training", objective=loss)
