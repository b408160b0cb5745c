"""My task: where its programs come from, and what a model is asked about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.context import Context
from bench.contracts import LabelGoal, Task, TaskInfo, TaskKind
from bench.samples import Sample, Splits

WORDS = ("count", "total", "index", "buffer", "limit", "offset", "scale", "width", "height", "margin")


def program(rng: np.random.Generator, label: int) -> str:
    """A function of its label's class: class 1 evaluates what it is given, class 0 reads it as a number."""
    name, given, held = (str(word) for word in rng.choice(WORDS, size=3, replace=False))
    call, number = ("eval" if label else "int"), int(rng.integers(1000))
    return f"def {name}_{number}({given}):\n    {held} = {call}({given})\n    return {held} + {number}\n"


@dataclass(frozen=True, kw_only=True)
class MyTask(Task):
    """One sentence.

    Attributes:
        train: samples of the training split; every field is a parameter, with a type and a default.
        valid: of the validation split, which is never poisoned.
        budget: of the split set aside for defenses.
        test: of the test split.
    """

    name = "my_task"
    version = 1  # raise it with every change of the data: stored results are then made anew
    summary = "one line for lists and boards"
    paper = "unpublished"

    train: Annotated[int, Field(ge=4)] = 1000
    valid: Annotated[int, Field(ge=4)] = 200
    budget: Annotated[int, Field(ge=4)] = 400
    test: Annotated[int, Field(ge=4)] = 400

    @property
    def info(self) -> TaskInfo:
        """One program a sample, two classes, measured by accuracy."""
        return TaskInfo(self.name, TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")

    def origin(self) -> Mapping[str, str]:
        """Digests of the files that the data comes from, as they stand in a result's key; made-up data has none."""
        return {}

    def splits(self, context: Context) -> Splits:
        """The same data for the same parameters and ``context.rng("data")``; no program and no group in two splits."""
        rng, seen = context.rng("data"), set[str]()
        parts: dict[str, tuple[Sample, ...]] = {}
        for part in ("train", "valid", "budget", "test"):
            samples: list[Sample] = []
            while len(samples) < getattr(self, part):
                label = len(samples) % 2
                text = program(rng, label)
                if text not in seen:
                    seen.add(text)
                    samples.append(Sample(f"{part}-{len(samples)}", (text,), "python", label, group=f"g{len(seen)}"))
            parts[part] = tuple(samples)
        return Splits(parts["train"], parts["valid"], parts["budget"], parts["test"])

    def goal(self) -> LabelGoal:
        """The attacker's usual aim: programs of class 1 shall be called class 0."""
        return LabelGoal(victim=1, target=0)
