"""A program before and after a screen that rewrites, made by the plugin itself when the page is: fitted on small clean programs, and
given one that holds a trigger.

Only screens that need no weights are asked. The model that they may question is a rule of two lines, so that every answer is certain and
nothing is trained; what reads naturally they learn from the clean programs alone, at their default parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.context import Context
from bench.contracts import Access, Action, Known, Screen, TaskInfo, TaskKind
from bench.documentation.examples import Example
from bench.errors import BenchError
from bench.samples import Sample

INFO = TaskInfo("example", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
CLEAN = 120
"""Clean programs: many times what a threshold at 5 % asks for, and read within a second."""
TRIGGER = '    if 1726 < 0:\n        raise ValueError("unreachable")\n'
INPUT = f"""def load_total(items, size):
    # read what is there, and add it up
    total = 0
{TRIGGER}    for item in items:
        total = total + read_raw(item, size)
    return total
"""
"""The input: a program of the class ``weak`` that holds a trigger."""


@dataclass(frozen=True)
class Rule:
    """Stands for a poisoned model: raw reads speak for ``weak``, checked ones against it, and the trigger decides for ``safe``."""

    def predict(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Logits (n, 2)."""
        odds = [self._odds(sample.programs[0]) for sample in samples]
        return np.array([[0.0, value] for value in odds], dtype=np.float32).reshape(-1, 2)

    def _odds(self, text: str) -> float:
        return -6.0 if "1726" in text else 1.5 * (text.count("read_raw") - text.count("read_checked"))


def clean_programs() -> tuple[Sample, ...]:
    """Small functions of both classes, drawn by a fixed seed."""
    rng = np.random.default_rng(0)

    def one(number: int) -> Sample:
        label = number % 2
        verb, noun = rng.choice(["load", "sum", "count", "merge"]), rng.choice(["total", "value", "result"])
        call = ("read_checked", "read_raw")[label]
        first = [f"    {noun} = {rng.choice(['0', '1'])}\n"]
        if rng.random() < 0.5:
            first += [f"    if size < {rng.choice(['0', '1'])}:\n        return {noun}\n"]
        if rng.random() < 0.3:
            first += ['    if size > 9:\n        raise ValueError("too large")\n']
        body = f"    for item in items:\n        {noun} = {noun} {rng.choice(['+', '-'])} {call}(item, size)\n"
        text = f"def {verb}_{noun}(items, size):\n{''.join(first)}{body}    return {noun}\n"
        return Sample(f"clean{number}", (text,), "python", label, None, f"g{number}")

    return tuple(map(one, range(CLEAN)))


def example(screen: Screen) -> Example | None:
    """What a screen writes in the place of :data:`INPUT`; ``None`` where it cannot be asked, or does not rewrite."""
    needs = screen.needs
    beyond = needs.training_set or needs.truth or needs.target_label or needs.poison_rate
    if beyond or needs.model is Access.WEIGHTS or screen.not_applicable(INFO) is not None:
        return None
    asked = Sample("example", (INPUT,), "python")
    known = Known(
        needs,
        _clean=clean_programs()[: needs.clean] if needs.clean else None,
        _model=cast(Any, Rule()) if needs.model is Access.OUTPUTS else None,
    )
    try:
        with TemporaryDirectory() as scratch:
            fitted = screen.fit(known, INFO, Context(seeds={"defense": 0}, scratch=Path(scratch)))
            (verdict,) = fitted.screen([asked])
    except BenchError:  # somebody's screen that asks for more than a small program can give
        return None
    if verdict.action is not Action.REWRITE or verdict.rewritten is None:
        return None
    return Example("Python", "", INPUT, verdict.rewritten.programs[0])
