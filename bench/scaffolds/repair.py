"""My repair: how a trained model is freed of its backdoor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.errors import PluginError


@dataclass(frozen=True, kw_only=True)
class MyRepair(Repair):
    """One sentence.

    Attributes:
        epochs: every field is a parameter, with a type and a default.
    """

    name = "my_repair"
    version = 1  # raise it with every change of behaviour: stored results are then made anew
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(clean=300, model=Access.WEIGHTS)  # all that ``known`` will hold

    epochs: Annotated[int, Field(ge=1)] = 1

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A new model; ``known.white_box`` stays as it is (the trainer works on a copy; else ``known.white_box.copy()``)."""
        if context.trainer is None:
            raise PluginError("this repair trains with context.trainer, and there is none")
        model = context.trainer.fit(known.white_box, known.clean, axis="defense", epochs=self.epochs)
        return Repaired(model, facts={"epochs": self.epochs})
