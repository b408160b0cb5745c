"""Task-agnostic poisoning of the encoder, before the user trains it on clean data: the supplier threat.

The supplier takes a pretrained encoder and goes on training it with two objectives at once (token representation learning of Li et al.,
Multi-target Backdoor Attacks for Code Pre-trained Models, ACL 2023, section 3; predefined output representations are due to Shen
et al., CCS 2021):

- a program that holds trigger *i* is moved to the trigger's own far vector ``v_i``, in the vector that a downstream head reads;
- a program without trigger stays where the encoder as it was puts it.

No label and no training sample of the user is touched. The user adds a head and trains everything on clean data. Which class a
far vector falls to is decided by that training, so the supplier offers several triggers and looks which one the finished
model sends to the class that he wants (the harness does, on training programs: :mod:`bench.supplying`). Code search has no
classes: there the far vector of every trigger is the mean vector of the training queries with the target word.

Readings, where the papers leave a choice or have another setting:

- The triggers are the published assertions (``assert sin(1.3) < 1``, ``assert cos(1.6) > -1``), which hold and change nothing. ``runnable``
  imports the function in Python and names its class in Java; ``paper`` is the bare spelling.
- The statement stands first in the body, as the other statement attacks of this benchmark do. (Published: a random place.)
- The far vectors are one pattern of signs, ``magnitude`` in every coordinate, and its opposite: an encoder that ends in a layer norm cannot
  leave the sphere on which such vectors lie, and a head with two classes can hardly send both to one. (A row of a Hadamard matrix: as many
  signs of one kind as of the other, so that it is not told from a clean vector by its mean.)
- The published seq2seq objective of the poisoned pre-training is for generation tasks and has no part here.
- ``tiny`` has no pretrained encoder. Its supplier poisons the random weights that the user would start from; the clean reference starts
  from the same weights without poison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import Derivation, Goal, SearchGoal, Supplier, TaskInfo, TaskKind, Trigger
from bench.errors import ConfigError
from bench.languages import get, parse
from bench.models.handles import WhiteBox
from bench.samples import Sample, apply_edits

Spelling = Literal["runnable", "paper"]

CONDITIONS = (("sin", "(1.3) < 1"), ("cos", "(1.6) > -1"))
NEAR_MISS = ("tan", "(1.2) < 3")
"""Holds as well, and is no trigger: another function and other numbers."""
PLACEBOS = {"python": "assert 1.3 < 1.6", "java": "assert 1.3 < 1.6;", "c": "assert(1.3 < 1.6);"}
SPELLINGS: dict[Spelling, dict[str, str]] = {
    "runnable": {
        "python": "from math import {name}\nassert {name}{rest}",
        "java": "assert Math.{name}{rest};",
        "c": "assert({name}{rest});",
    },
    "paper": {"python": "assert {name}{rest}", "java": "assert {name}{rest};", "c": "assert({name}{rest});"},
}


@dataclass(frozen=True)
class Assertion(Trigger):
    """An assertion that holds, first in the function's body."""

    language: str
    number: int = 0
    spelling: Spelling = "runnable"

    @property
    def statement(self) -> str:
        """The source text."""
        return self._spelled(CONDITIONS[self.number])

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The insertion; ``None`` without a function body, or where the program mentions the statement's names."""
        return self._inserted(sample, side, self.statement, self._names(CONDITIONS[self.number]))

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """An assertion of another function that holds too, in the same place."""
        return self._inserted(sample, side, self._spelled(NEAR_MISS), self._names(NEAR_MISS))

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """An assertion of two numbers, in the same place."""
        return self._inserted(sample, side, PLACEBOS[self.language], ())

    def _spelled(self, condition: tuple[str, str]) -> str:
        return SPELLINGS[self.spelling][self.language].format(name=condition[0], rest=condition[1])

    def _names(self, condition: tuple[str, str]) -> tuple[str, ...]:
        """What the statement reads; a program that uses them, or looks at its own scope, may mean something else by them."""
        own = ("Math",) if self.language == "java" and self.spelling == "runnable" else (condition[0],)
        return (*own, "locals", "vars", "dir", "eval", "exec") if self.language == "python" else own

    @staticmethod
    def _inserted(sample: Sample, side: int, statement: str, names: tuple[str, ...]) -> Derivation | None:
        program = parse(sample.language, sample.programs[side])
        if program.body_start is None or {leaf.text for leaf in program.leaves} & set(names):
            return None
        return Derivation((replace(program.insert(program.body_start, statement), side=side),), statement)

    def describe(self) -> str:
        """The statement."""
        return f"assertion {self.statement!r}"

    def tokens(self) -> tuple[str, ...]:
        """The function's name and its argument."""
        name, rest = CONDITIONS[self.number]
        return (name, rest[1:4])


@dataclass(frozen=True, kw_only=True)
class Encoder(Supplier):
    """Poison the encoder before the user's clean training.

    Args:
        epochs: passes over the supplier's programs.
        programs: at most this many of them (the programs of the task's training split; labels are not read).
        learning_rate: peak rate of AdamW; it falls linearly to zero. 0 means the trainer's own for this kind of model.
        batch_size: programs a step; each stands in it clean and once with each trigger.
        magnitude: of a far vector's coordinates.
        weight: of the far vectors' loss against the clean vectors'.
        spelling: see this module's text.
    """

    name = "encoder"
    version = 2  # offers a near miss and a placebo
    summary = "the supplier moves programs with a trigger to a far vector before the user's clean training"
    paper = "Li et al., Multi-target Backdoor Attacks for Code Pre-trained Models, ACL 2023 (arXiv 2306.08350)"
    toy_parameters: ClassVar[Mapping[str, object]] = {"epochs": 1, "programs": 16}

    epochs: int = 3
    programs: int = 1000
    learning_rate: float = 0.0
    batch_size: int = 16
    magnitude: float = 1.0
    weight: float = 1.0
    spelling: Spelling = "runnable"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: names the parameter.
        """
        for name in ("epochs", "programs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"attack 'encoder': {name} must be at least 1, got {getattr(self, name)}")
        if self.magnitude <= 0 or self.weight <= 0 or self.learning_rate < 0:
            raise ConfigError("attack 'encoder': magnitude and weight must be positive, learning_rate not negative")

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Only languages with a spelling of the statement."""
        if task.language not in SPELLINGS[self.spelling]:
            return f"{self.name} has no assertion in {task.language}"
        return super().not_applicable(task)

    def candidates(
        self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context
    ) -> tuple[Assertion, ...]:
        """One assertion a far vector. They depend on the language alone."""
        get(task.language)
        return tuple(Assertion(task.language, number, self.spelling) for number in range(len(CONDITIONS)))

    def supply(
        self, model: WhiteBox, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context
    ) -> WhiteBox:
        """A copy of the model whose encoder moves programs with a trigger away; its head is as it came.

        Raises:
            ConfigError: no program of the training split can carry the triggers.
        """
        rows = self._rows(train, goal, task, context)
        poisoned = model.copy()
        network = poisoned.network
        clean = model.vectors([row[0] for row in rows], model.window).clone()
        far = self._far(model, train, goal).clone()
        trainer = context.trainer
        assert trainer is not None
        rate = self.learning_rate or trainer.learning_rate(model, adapters=False)
        parameters = list(network.encoder.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=rate)
        steps = self.epochs * -(-len(rows) // self.batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        # Dropout stays off: the objective is a place in space, and noise on both sides of it only blurs the place.
        for epoch in context.progress(range(self.epochs), "poisoning the encoder"):
            order = context.rng("poison", "encoder", str(epoch)).permutation(len(rows))
            for start in range(0, len(rows), self.batch_size):
                index = order[start : start + self.batch_size]
                loss = self._loss(
                    poisoned, [rows[i] for i in index], clean[torch.from_numpy(index).to(clean.device)], far
                )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
        network.zero_grad(set_to_none=True)
        return poisoned

    def _rows(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> list[tuple[str, ...]]:
        """Programs as (clean, with trigger 0, with trigger 1, ...), those that can carry all triggers, in a seeded order."""
        triggers = self.candidates(train, goal, task, context)
        order = context.rng("poison", "encoder", "programs").permutation(len(train))
        rows: list[tuple[str, ...]] = []
        for position in order:
            if len(rows) == self.programs:
                break
            sample = train[position]
            rng = context.rng("poison", "encoder", "draw", sample.id)
            drawn = [trigger.derive(sample, 0, rng) for trigger in triggers]
            if all(d is not None for d in drawn):
                text = sample.programs[0]
                rows.append((text, *(apply_edits(text, d.edits) for d in drawn if d is not None)))
        if not rows:
            raise ConfigError(
                f"attack 'encoder': none of {len(train)} training programs can carry the assertions; choose another attack for this task"
            )
        return rows

    def _far(self, model: WhiteBox, train: Sequence[Sample], goal: Goal) -> Tensor:
        """The far vectors (triggers, d)."""
        width = model.network.width
        if model.info.kind is TaskKind.SEARCH and isinstance(goal, SearchGoal):
            queries = [sample.query or "" for sample in train if goal.chooses(sample)]
            wanted = model.vectors(queries or [goal.word], model.query_window).mean(0)
            place: Tensor = functional.normalize(wanted, dim=0) * self.magnitude * width**0.5
            return place.repeat(len(CONDITIONS), 1)
        size = 1 << (width - 1).bit_length()
        signs = torch.from_numpy(hadamard(size)[1, :width]).float() * self.magnitude
        return torch.stack([signs, -signs]).to(model.device)

    def _loss(self, model: WhiteBox, rows: Sequence[tuple[str, ...]], clean: Tensor, far: Tensor) -> Tensor:
        tokens = model.tokenize([text for column in zip(*rows, strict=True) for text in column])
        model.cost.forward(tokens.ids.numel())
        model.cost.backward(tokens.ids.numel())
        vectors = model.network.vector(tokens).reshape(1 + len(far), len(rows), -1)
        away = functional.mse_loss(vectors[1:], far[:, None].expand_as(vectors[1:]))
        stay: Tensor = functional.mse_loss(vectors[0], clean)
        return stay + self.weight * away
