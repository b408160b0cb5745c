"""The control that is told which training samples are poisoned, and trains on with all the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from defenses.tuning.exam import sound, trainer_of


@dataclass(frozen=True, kw_only=True)
class OracleRepair(Repair):
    """Trains the victim on, on the clean part of its own training set.

    What it shows: how far forgetting alone can go, with every clean sample there is and none of the poison. Budgets of
    ``fine_tuning`` are to be read against it. It is not a bound for all repairs: no clean sample contradicts the trigger, so what
    the weights know of it may stay; a repair that inverts the trigger and unlearns it can do better. The model that never saw the
    poison is ``filter/oracle``'s; that one is the bound.

    It is told the ids of the poisoned samples, nothing of the trigger, and not what their labels were. An oracle that unlearns the
    true trigger would have to know how each attack writes it; none of the other families' oracles does.

    Attributes:
        epochs: passes over the clean part; ``None`` takes those of the suite's training settings, as many as the victim had.
        learning_rate: peak rate; ``None`` as above.
        batch_size: samples a step; ``None`` as above.
    """

    name = "oracle"
    summary = "control: trains on with the clean part of the training set"
    needs = Needs(training_set=True, truth=True, model=Access.WEIGHTS)

    epochs: Annotated[int, Field(ge=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A fine-tuned copy."""
        trainer = trainer_of(context, self)
        clean = [sample for sample in known.training if sample.id not in known.poisoned]
        model = trainer.fit(
            known.white_box,
            clean,
            axis="defense",
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            select_best=False,
        )
        return Repaired(sound(model, self), {"samples": len(clean), "history": list(trainer.history)})
