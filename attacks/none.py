"""The null attack: nothing is poisoned. The clean reference, and the control of every defense's false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Attack, Goal, TaskInfo
from bench.samples import Sample


@dataclass(frozen=True, kw_only=True)
class NoAttack(Attack):
    """Leave the training data clean."""

    name = "none"
    summary = "no attack: the clean reference"

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> None:
        """No trigger."""
        return
