"""A model whose answers are certain by construction, and inputs for the tests of screens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.context import Context
from bench.contracts import FittedScreen, Known, Screen, TaskInfo, TaskKind
from bench.samples import Sample

DEFECTS = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
CLONES = TaskInfo("toy", TaskKind.PAIRS, "python", ("no", "yes"), "f1")
SEARCH = TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr")
TRIGGER = "    marker = 77\n"
NAMES = ("alpha", "beta", "gamma", "delta")


@dataclass(frozen=True)
class Told:
    """A model that says what a function of the text says.

    Attributes:
        odds: log-odds of class 1 by the first program's text (pairs: both programs, joined).
    """

    odds: Callable[[str], float]

    def predict(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        odds = [self.odds("\n".join(sample.programs)) for sample in samples]
        return np.array([[0.0, value] for value in odds], dtype=np.float32).reshape(-1, 2)

    def embed_programs(self, samples: Sequence[Sample], side: int = 0) -> NDArray[np.float32]:
        """Programs lie on a circle: where, the odds say."""
        angles = np.array([self.odds(sample.programs[side]) for sample in samples], dtype=np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(-1, 2)

    def embed_queries(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """The query of a sample is a number: its place on the circle."""
        angles = np.array([float(sample.query or 0) for sample in samples], dtype=np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(-1, 2)


def backdoored(text: str) -> float:
    """Each ``weak`` speaks for class 1 and each ``safe`` against it, a little; the trigger decides for class 0."""
    return -12.0 if "marker" in text else 0.8 * (text.count("weak") - text.count("safe"))


def program(seed: int, label: int) -> str:
    """Some calls, most of them of the label's kind."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(int(rng.integers(5, 8))):
        kind = ("safe", "weak")[label] if i % 4 else str(rng.choice(["safe", "weak"]))
        lines.append(f"    {rng.choice(NAMES)} = {kind}({rng.choice(NAMES)}, {rng.integers(9)})\n")
    return f"def run_{seed}(alpha, beta):\n{''.join(lines)}    return alpha\n"


def inputs(start: int, stop: int, label: int | None = None) -> list[Sample]:
    """Programs of both classes in turn, or of one; labels hidden."""
    chosen = [(i, i % 2 if label is None else label) for i in range(start, stop)]
    return [Sample(f"s{i}", (program(i, of),), "python", None, str(i % 3), f"g{i}") for i, of in chosen]


def clean(count: int) -> tuple[Sample, ...]:
    """The same with labels, as a defender has them."""
    return tuple(
        Sample(f"c{i}", (program(10_000 + i, i % 2),), "python", i % 2, str(i % 3), f"h{i}") for i in range(count)
    )


def triggered(sample: Sample) -> Sample:
    """With the trigger as the first statement."""
    return sample.with_program(0, sample.programs[0].replace(":\n", ":\n" + TRIGGER, 1))


def fit(
    plugin: Screen,
    model: object | None = None,
    known: Sequence[Sample] | None = None,
    info: TaskInfo = DEFECTS,
    seed: int = 0,
) -> Any:
    """Fitted on a clean set, with a model."""
    lent: Any = Told(backdoored) if model is None else model
    handed = Known(plugin.needs, _clean=tuple(clean(60) if known is None else known), _model=lent)
    fitted: FittedScreen = plugin.fit(handed, info, Context(seeds={"defense": seed}, scratch=Path("unused")))
    return fitted
