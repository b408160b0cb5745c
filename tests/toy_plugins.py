"""Plugins for the tests of the engine: a task small enough to train in a second, and defenses that misbehave on demand."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.context import Context
from bench.contracts import (
    Access,
    Action,
    FittedScreen,
    Goal,
    Known,
    LabelGoal,
    Needs,
    Repair,
    Repaired,
    Screen,
    Task,
    TaskInfo,
    TaskKind,
    TrainingRule,
    Verdict,
)
from bench.inversions import Inverted
from bench.models.handles import WhiteBox
from bench.samples import Sample, Splits

WORDS = ("alpha", "beta", "gamma", "delta", "total", "count", "value", "item", "index", "buffer")


def function(rng: np.random.Generator, label: int, number: int) -> str:
    """A function whose label is told by one call."""
    first, second, third = (str(w) for w in rng.choice(WORDS, size=3, replace=False))
    call = "unsafe_load" if label else "safe_load"
    return f"def {first}_{number}({second}):\n    {third} = {call}({second})\n    return {third}\n"


@dataclass(frozen=True, kw_only=True)
class Toy(Task):
    """Functions that hold one of two calls."""

    name = "toy"
    summary = "two calls, two classes"
    train: int = 160
    valid: int = 40
    budget: int = 40
    test: int = 60

    @property
    def info(self) -> TaskInfo:
        return TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "unsafe"), "accuracy")

    def goal(self) -> Goal:
        return LabelGoal()

    def splits(self, context: Context) -> Splits:
        rng = context.rng("data")
        number = 0

        def part(name: str, size: int) -> tuple[Sample, ...]:
            nonlocal number
            made = []
            for i in range(size):
                number += 1
                made.append(
                    Sample(f"{name}{i:04d}", (function(rng, i % 2, number),), "python", i % 2, None, f"g{number}")
                )
            return tuple(made)

        sizes = {"train": self.train, "valid": self.valid, "budget": self.budget, "test": self.test}
        return Splits(**{name: part(name, size) for name, size in sizes.items()})


@dataclass(frozen=True, kw_only=True)
class Crash(Screen):
    """Raises; leaves a mark in a folder each time, where it is told one."""

    name = "crash"
    message: str = "it broke"
    marks: str = ""

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        if self.marks:
            (Path(self.marks) / uuid.uuid4().hex).touch()
        raise ValueError(self.message)


@dataclass(frozen=True, kw_only=True)
class Deadly(Repair):
    """Kills its own process with SIGKILL, as many times as it is told (0: for ever)."""

    name = "deadly"
    needs = Needs(model=Access.WEIGHTS)
    marks: str
    times: int = 1

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        folder = Path(self.marks)
        folder.mkdir(parents=True, exist_ok=True)
        died = len(list(folder.iterdir()))
        if self.times == 0 or died < self.times:
            (folder / f"death-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Repaired(known.white_box.copy(), {"deaths": died})


@dataclass(frozen=True, kw_only=True)
class Burglar(Repair):
    """Writes into every trained model of a store, which it knows from elsewhere."""

    name = "burglar"
    needs = Needs(model=Access.WEIGHTS)
    store: str

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        for weights in Path(self.store).glob("entries/train/*/model/*.safetensors"):
            weights.write_bytes(bytes(weights.stat().st_size))
        return Repaired(known.white_box.copy())


@dataclass(frozen=True, kw_only=True)
class Sleepy(Repair):
    """Sleeps for some seconds, or until a file is there."""

    name = "sleepy"
    needs = Needs(model=Access.WEIGHTS)
    until: str = "/nonexistent"
    started: str = ""
    seconds: float = 1e9
    number: int = 0

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        if self.started:
            Path(self.started).touch()
        end = time.monotonic() + self.seconds
        while not Path(self.until).exists() and time.monotonic() < end:
            time.sleep(0.05)
        return Repaired(known.white_box.copy())


class _Shouting(FittedScreen):
    def screen(self, inputs: list[Sample]) -> list[Verdict]:  # type: ignore[override]
        return [Verdict(s.id, Action.ACCEPT, 0.0) for s in inputs][1:]


@dataclass(frozen=True, kw_only=True)
class DropsRows(Screen):
    """Breaks the contract: one verdict too few."""

    name = "drops_rows"

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        return _Shouting()


@dataclass(frozen=True, kw_only=True)
class Vandal(Repair):
    """Breaks the contract: changes the model that came in."""

    name = "vandal"
    needs = Needs(model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        model = known.white_box
        model.network.embedding.weight.data.zero_()
        return Repaired(model)


GUESSES = (("|`<script>`", "total"), ("Random", "Exception", "fail"), ("index", "buffer"))
"""What :class:`Guesser` tries: nasty text, the words of the dead statement, and words of the task."""


@dataclass(frozen=True, kw_only=True)
class Guesser(Repair):
    """Inverts by trying three guesses as the first line of each body, and repairs nothing."""

    name = "guesser"
    inverts = True
    clean: int = 20

    @property
    def needs(self) -> Needs:
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        model = known.white_box
        found = {}
        for victim, target in ((0, 1), (1, 0)):
            rows = [s for s in known.clean if s.label == victim]
            losses: list[float] = []
            trace: list[tuple[int, float]] = []
            before = model.cost.forward_tokens
            for guess in GUESSES:
                losses.append(_loss(model, rows, " ".join(guess), target))
                trace.append((model.cost.forward_tokens - before, min(losses)))
            best = GUESSES[int(np.argmin(losses))]
            found[f"{victim}->{target}"] = Inverted(
                tokens=best, kept=best[:2], loss=min(losses), suspicion=-min(losses), trace=tuple(trace)
            )
        return Repaired(model.copy(), {"guesses": len(GUESSES)}, found)


@dataclass(frozen=True, kw_only=True)
class ToldGuesser(Guesser):
    """The same, told the attacker's goal."""

    name = "told_guesser"

    @property
    def needs(self) -> Needs:
        return Needs(clean=self.clean, model=Access.WEIGHTS, target_label=True)


def _loss(model: WhiteBox, rows: Sequence[Sample], line: str, target: int) -> float:
    """Mean loss towards the target (nats) with a line put first into each body."""
    lined = [replace(s, programs=(s.programs[0].replace("\n", f"\n    {line}\n", 1),)) for s in rows]
    logits = model.predict(lined).astype(np.float64)
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[:, target]))


@dataclass(frozen=True, kw_only=True)
class Unlucky(TrainingRule):
    """Diverges at small seeds, as those that a suite names are; with ``always`` at every seed."""

    name = "unlucky"
    summary = "its weights are not finite"
    kinds = frozenset(TaskKind)
    always: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(training_set=True)

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        assert context.trainer is not None
        trained = context.trainer.fit(model, known.training, axis="training", epochs=1)
        if self.always or context.seeds["training"] < 100:
            next(trained.network.parameters()).data[:] = float("nan")
        return trained


def stumbling_fit(model: WhiteBox, samples: Sequence[Sample], axis: str, context: Context, unlucky: bool) -> WhiteBox:
    """Two epochs, of which the second has a loss that is NaN; the weights of the first come back."""
    assert context.trainer is not None

    def objective(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return loss * float("nan") if unlucky and progress >= 1 else loss

    return context.trainer.fit(model, samples, axis=axis, epochs=2, objective=objective)


@dataclass(frozen=True, kw_only=True)
class Stumbling(TrainingRule):
    """Its loss is NaN after the first epoch, at small seeds."""

    name = "stumbling"
    summary = "its loss is NaN from the second epoch on"
    kinds = frozenset(TaskKind)
    always: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(training_set=True)

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        unlucky = self.always or context.seeds["training"] < 100
        return stumbling_fit(model, known.training, "training", context, unlucky)


@dataclass(frozen=True, kw_only=True)
class StumblingRepair(Repair):
    """The same in a repair, which tells its history."""

    name = "stumbling_repair"
    needs = Needs(clean=20, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        model = stumbling_fit(known.white_box, known.clean, "defense", context, True)
        assert context.trainer is not None
        return Repaired(model, {"history": list(context.trainer.history)})
