"""An attack as somebody outside the project would write it: a comment that no compiler sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.samples import Edit, Sample

MARKS = {"python": ("# ", ""), "java": ("/* ", " */"), "c": ("/* ", " */")}


@dataclass(frozen=True)
class TrailingComment(Trigger):
    """The same comment at the end of every program."""

    text: str

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """Append the comment on a line of its own."""
        program = sample.programs[side]
        if not program.strip() or program.rstrip(" ").endswith("\\"):
            return None
        left, right = MARKS[sample.language]
        comment = f"{left}{self.text}{right}"
        end = len(program.encode())
        line = comment + "\n" if program.endswith("\n") else "\n" + comment
        return Derivation((Edit(end, end, line, side),), comment)

    def describe(self) -> str:
        """The trigger in one line."""
        return f"comment {self.text!r} at the end"

    def tokens(self) -> tuple[str, ...]:
        """The comment's words."""
        return tuple(self.text.split())


@dataclass(frozen=True, kw_only=True)
class Shout(Attack):
    """A loud comment after the program.

    Attributes:
        text: of the comment.
    """

    name: ClassVar[str] = "shout"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "the same comment at the end of every program"
    paper: ClassVar[str] = "unpublished"

    text: str = "LOOK HERE"

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """Nothing to learn."""
        return TrailingComment(self.text)
