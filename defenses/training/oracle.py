"""The control that shows what any training rule could reach at best."""

from __future__ import annotations

from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TrainingRule
from bench.errors import DataError, PluginError
from bench.models.handles import WhiteBox


@dataclass(frozen=True, kw_only=True)
class OracleTraining(TrainingRule):
    """Trains on all samples but the poisoned ones, and otherwise as for an undefended victim.

    A rule that knew the poison could do no better than never to learn it. The model is the one that ``filter/oracle`` leads to.
    """

    name = "oracle"
    summary = "control: is told the poison and trains without it"
    needs = Needs(training_set=True, truth=True)

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train on what is not poisoned.

        Raises:
            bench.errors.DataError: every sample is poisoned.
        """
        if context.trainer is None:
            raise PluginError("training/oracle was given no trainer (context.trainer)")
        clean = [sample for sample in known.training if sample.id not in known.poisoned]
        if known.training and not clean:
            raise DataError(
                "training/oracle: every training sample is poisoned, so there is nothing to train on; lower the policy's rate"
            )
        return context.trainer.fit(model, clean, axis="training")
