"""Fine-pruning: cut out the units that clean programs leave idle, then fine-tune."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.models.handles import WhiteBox
from defenses.tuning.exam import Exam, examination, sound, trainer_of
from defenses.tuning.units import Kind, Units, first_units, mean_activations, pruned, units_of

StoppedBy = Literal["accuracy", "nothing left to prune"]
"""What ended the pruning: the next step would have cost too much, or there was no next step."""


def ranked(activations: Sequence[NDArray[np.float64]], within: Collection[int]) -> list[int]:
    """Numbers of the units of some groups, counted over all groups, least active first; ties in the order of the blocks.

    Each activation is taken relative to the mean of its own group, so that no block is emptied because its scale is small.

    Args:
        activations: (count,) a group.
        within: the groups whose units are ranked.
    """
    relative = [group / group.mean() if group.mean() > 0 else group for group in activations]
    owner = np.repeat(np.arange(len(activations)), [len(group) for group in activations])
    order = np.argsort(np.concatenate(relative), kind="stable")
    return [int(number) for number in order if owner[number] in within]


@dataclass(frozen=True, kw_only=True)
class FinePruning(Repair):
    """Prunes units from the least active on clean data on, until clean accuracy suffers; then trains on with the rest.

    Source: Liu, Dolan-Gavitt, Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks", RAID 2018.
    The step of 1 % of the units and the stop at a loss of 10 % of the accuracy are BackdoorBench's. The loss is measured on
    a fifth of the clean samples, held out from the ranking, never on test data; what is pruned at the last step that does
    not cost too much counts. Pruned units stay zero while the rest is fine-tuned (on all clean samples);
    new adapters (``lora``) on a layer that makes or reads them would wake them, and are cut with them afterwards.

    What is a port: the paper prunes channels of the last convolution, through which all a network knows must pass. In a
    transformer nothing has to pass a block's feed-forward part, so the units of all blocks are ranked together, each relative to the
    mean of its block (``blocks="last"`` is the paper's own choice). A unit is a feed-forward intermediate unit; attention heads on
    demand. Its activation is the mean absolute one over real tokens, since GELU's can be negative. AdamW instead of SGD, a few
    epochs, no checkpoint chosen, as ``fine_tuning`` does.

    A small model can do its task with no feed-forward unit at all: then accuracy never stops the pruning, every unit goes, and the
    result is about that model rather than about the method. The fact ``stopped_by`` says so (``accuracy``, or ``nothing left
    to prune``); results from before it lack it.

    Attributes:
        clean: number of clean labelled samples (stratified by class).
        units: ``feed_forward``, ``heads`` or ``both``.
        blocks: rank the units of ``all`` blocks together, or prune in the ``last`` one alone.
        step: share of the units pruned at a time.
        drop: share of the clean metric that pruning may cost.
        epochs: of fine-tuning.
        learning_rate: of fine-tuning; ``None`` takes the one of the suite's training settings, as the victim had.
        batch_size: samples a step; ``None`` as above.
    """

    name = "fine_pruning"
    summary = "prunes units that clean programs leave idle, then fine-tunes"
    paper = "Liu et al.: Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks. RAID 2018"

    clean: Annotated[int, Field(ge=1)] = 300
    units: Kind = "feed_forward"
    blocks: Literal["all", "last"] = "all"
    step: Annotated[float, Field(gt=0, le=1)] = 0.01
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.1
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @property
    def needs(self) -> Needs:
        """The weights, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A pruned and fine-tuned copy.

        Raises:
            DataError: too few clean samples to hold some out.
            ModelError: the architecture has no units known here, or the model's outputs are not finite.
        """
        model, trainer = known.white_box, trainer_of(context, self)
        groups = units_of(model, self.units)
        taught, exam = examination(model, known.clean, trainer, self, drop=self.drop)
        last = {group.kind: place for place, group in enumerate(groups)}.values()
        within = range(len(groups)) if self.blocks == "all" else last
        order = ranked(mean_activations(model, groups, taught), within)
        smaller, metrics, count, stopped_by = self.prune(model, groups, order, exam, context)
        tuned = trainer.fit(
            smaller,
            known.clean,
            axis="defense",
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            select_best=False,
        )
        if model.settings.lora is not None:
            tuned = pruned(tuned, self.units, first_units(groups, order, count))
        facts = {
            "units": len(order),
            "pruned": count,
            "stopped_by": stopped_by,
            "metric_before": exam.base,
            "metrics": metrics,
            "history": list(trainer.history),
        }
        return Repaired(sound(tuned, self), facts)

    def prune(
        self, model: WhiteBox, groups: Sequence[Units], order: Sequence[int], exam: Exam, context: Context
    ) -> tuple[WhiteBox, list[float], int, StoppedBy]:
        """(the smallest model that passes, held-out metric after each step that passed, units pruned, what ended it)."""
        best, metrics, count = model, list[float](), 0
        stopped_by: StoppedBy = "nothing left to prune"
        each = max(1, round(self.step * len(order)))
        steps = range(each, len(order) + each, each)
        for wanted in context.progress(steps, f"{self.name}: pruning", total=len(steps)):
            candidate = pruned(model, self.units, first_units(groups, order, wanted))
            metric = exam.metric(candidate)
            if metric < exam.floor:
                stopped_by = "accuracy"
                break
            best, count = candidate, min(wanted, len(order))
            metrics.append(round(metric, 4))
        return best, metrics, count, stopped_by
