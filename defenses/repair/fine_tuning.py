"""Plain fine-tuning on a small clean set: the baseline of every repair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from defenses.tuning.exam import sound, trainer_of


@dataclass(frozen=True, kw_only=True)
class FineTuning(Repair):
    """Train on, on clean samples alone, in the hope that the backdoor is forgotten.

    Source: the vanilla fine-tuning (FT) baseline of BackdoorBench (Wu et al., NeurIPS 2022), there with 5 % of the training
    data. What is a port: AdamW at the rate that the victim itself was trained with, for a few epochs, instead of SGD for
    100, through the harness's trainer. No checkpoint is chosen on validation data, which a defender is not given: the last
    one counts. Every part of the budget is a parameter, so that a suite can draw its curve (``clean`` of 10, 50, 100 … samples).

    Attributes:
        clean: number of clean labelled samples (stratified by class).
        epochs: passes over them.
        learning_rate: peak rate; ``None`` takes the one of the suite's training settings, as the victim had.
        batch_size: samples a step; ``None`` as above.
    """

    name = "fine_tuning"
    summary = "trains on with a few clean samples"
    paper = "FT baseline of Wu et al.: BackdoorBench. NeurIPS 2022 Datasets and Benchmarks"

    clean: Annotated[int, Field(ge=1)] = 300
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The weights, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A fine-tuned copy.

        Raises:
            ModelError: training ends in weights that are not finite.
        """
        trainer = trainer_of(context, self)
        model = trainer.fit(
            known.white_box,
            known.clean,
            axis="defense",
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            select_best=False,
        )
        return Repaired(sound(model, self), {"history": list(trainer.history)})
