"""My attack: what is edited into a program, and why a reader overlooks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.languages import parse
from bench.samples import Edit, Sample


@dataclass(frozen=True)
class MyAttackTrigger(Trigger):
    """An assignment at the start of the function's body.

    What varies from program to program is drawn from ``rng`` alone; such a trigger says ``varies = True``.
    """

    variable: str

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The edits of ``sample.programs[side]``, or ``None`` where the trigger does not apply.

        The harness refuses an edit after which the program no longer parses.
        """
        if sample.language != "python" or self.variable in sample.programs[side]:
            return None
        program = parse(sample.language, sample.programs[side])
        if not program.boundaries or program.error_nodes:
            return None
        statement = f"{self.variable} = 0"
        edit = program.insert(program.boundaries[0], statement)
        return Derivation((Edit(edit.start, edit.end, edit.replacement, side),), statement)

    def describe(self) -> str:
        """The trigger in one line, for the board."""
        return f"a variable {self.variable!r} at the start of the body"

    def tokens(self) -> tuple[str, ...]:
        """What every triggered program holds: an inversion that finds it has recovered the trigger."""
        return (self.variable,)


@dataclass(frozen=True, kw_only=True)
class MyAttack(Attack):
    """One sentence.

    Attributes:
        variable: every field is a parameter, with a type and a default.
    """

    name = "my_attack"
    version = 1  # raise it with every change of behaviour: stored results are then made anew
    summary = "one line for lists and boards"
    paper = "unpublished"

    variable: str = "ret_val_"

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Why it skips a task, or ``None``."""
        if task.language != "python":
            return f"{self.name} edits Python only"
        return super().not_applicable(task)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """Make the trigger; ``train`` is the clean training split, and ``context.rng("poison")`` draws."""
        return MyAttackTrigger(self.variable)
