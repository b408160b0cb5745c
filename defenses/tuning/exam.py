"""What repairs that tune weights share: the trainer, held-out clean samples on which damage is seen, and outputs that are numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Plugin
from bench.errors import DataError, ModelError, PluginError
from bench.models.handles import WhiteBox
from bench.models.training import Trainer
from bench.samples import Sample
from defenses.inversion.unlearning import HELD_OUT, hold_out


def trainer_of(context: Context, plugin: Plugin) -> Trainer:
    """The harness's trainer.

    Raises:
        PluginError: there is none.
    """
    if context.trainer is None:
        raise PluginError(f"{plugin.family}/{plugin.name} was given no trainer (context.trainer)")
    return context.trainer


def sound(model: WhiteBox, plugin: Plugin) -> WhiteBox:
    """The model, if its weights are finite.

    Raises:
        ModelError: they are not.
    """
    for name, weight in model.network.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ModelError(
                f"{plugin.name}: weights {name!r} of model {model.name!r} are not finite after the repair; "
                "lower its learning rate, where it has one, or look whether the model that came in was sound"
            )
    return model


@dataclass(frozen=True)
class Exam:
    """Clean samples that were held out to see what a change costs, never test data.

    Attributes:
        trainer: measures the task's metric.
        held: the samples.
        base: metric of the model that came in.
        floor: a change after which the metric is below this costs too much.
    """

    trainer: Trainer
    held: tuple[Sample, ...]
    base: float
    floor: float

    def metric(self, model: WhiteBox) -> float:
        """The task's clean metric on the held-out samples; minus infinity where the outputs are not finite."""
        value = self.trainer.metric(model, self.held)
        return value if math.isfinite(value) else -math.inf

    def passes(self, model: WhiteBox) -> bool:
        """Is the change cheap enough?"""
        return self.metric(model) >= self.floor


def examination(
    model: WhiteBox, clean: Sequence[Sample], trainer: Trainer, plugin: Plugin, *, drop: float
) -> tuple[list[Sample], Exam]:
    """(clean samples to work with, exam on those held out).

    Args:
        model: as it came in.
        clean: one in :data:`~defenses.inversion.unlearning.HELD_OUT` of each class is held out.
        trainer: measures.
        plugin: who asks.
        drop: share of the metric that a change may cost; nothing may be changed where there is nothing to lose.

    Raises:
        DataError: too few clean samples to hold one out.
        ModelError: the model's outputs are not finite.
    """
    taught, held = hold_out(clean)
    if not held:
        raise DataError(
            f"{plugin.name} holds out one in {HELD_OUT} clean samples of each class to see what a change costs, and of "
            f"{len(clean)} none is left; give it at least {HELD_OUT} of a class (parameter 'clean', or the task's 'budget')"
        )
    base = trainer.metric(model, held)
    if not math.isfinite(base):
        raise ModelError(f"{plugin.name}: model {model.name!r} gives outputs that are not finite on clean samples")
    return taught, Exam(trainer, tuple(held), base, (1 - drop) * base if base > 0 else math.inf)
