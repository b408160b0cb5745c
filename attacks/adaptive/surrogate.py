"""The clean surrogate: its task, its training, and what a crafted program is to make of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import SearchGoal, TaskInfo, TaskKind
from bench.errors import ConfigError, PluginError
from bench.languages import Program, parse
from bench.models import ModelSettings, Tokens, WhiteBox, create
from bench.samples import Sample, digest_of

HIDDEN_NAME = "f"
"""What stands where the function's own name stood."""
RARE = 2
"""A first word must begin this many function names to be a class."""
HELD_OUT = 10
"""Every tenth sample is kept from the surrogate's training, to say what it has learned."""


class Aim(ABC):
    """What the names are to make the surrogate say. Picklable."""

    @abstractmethod
    def loss(self, model: WhiteBox, tokens: Tokens, sample: Sample, side: int) -> Tensor:
        """A scalar that falls as the program of ``side``, given as tokens, comes nearer to the target."""


@dataclass(frozen=True)
class TowardsClass(Aim):
    """A class of a classifier of programs, or of pairs (whose other program stays as it is)."""

    target: int

    def loss(self, model: WhiteBox, tokens: Tokens, sample: Sample, side: int) -> Tensor:
        """Cross-entropy of the target."""
        network = model.network
        vectors = [network.vector(tokens)]
        if network.kind is TaskKind.PAIRS:
            # A copy, since what was computed without gradients cannot take part in their computation.
            other = model.vectors([sample.programs[1 - side]], model.window).clone()
            vectors.insert(1 - side, other)
        target = torch.tensor([self.target], device=model.device)
        return functional.cross_entropy(network.scores(*vectors), target)


@dataclass(frozen=True, eq=False)
class TowardsQuery(Aim):
    """A unit vector (d,) of queries."""

    query: NDArray[np.float32]

    def loss(self, model: WhiteBox, tokens: Tokens, sample: Sample, side: int) -> Tensor:
        """Cosine distance of the program to the query."""
        query = torch.from_numpy(self.query).to(model.device)[None]
        return 1 - model.network.similarity(query, model.network.vector(tokens))[0, 0]


# --------------------------------------------------------------------------------------------------------- function names


def first_word(program: Program) -> str | None:
    """The first word of the function's name, lower-case: ``load`` of ``_loadData`` and ``load_data``; ``None`` without one."""
    if program.function_name is None:
        return None
    found = re.search(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", program.function_name.text)
    return found[0].lower() if found is not None else None


def hide_name(program: Program) -> str:
    """The program with its function's name hidden at all its places."""
    name = program.function_name
    if name is None or name.text == HIDDEN_NAME:
        return program.text
    data, pieces, reached = program.data, list[bytes](), 0
    for start, end in name.spans:
        pieces += [data[reached:start], HIDDEN_NAME.encode()]
        reached = end
    return b"".join([*pieces, data[reached:]]).decode()


def name_task(
    samples: Sequence[Sample], task: TaskInfo, classes: int, target: str
) -> tuple[TaskInfo, tuple[Sample, ...]]:
    """The task of telling the first word of a function's name from the rest, and its samples (each distinct program once).

    Raises:
        ConfigError: fewer than two first words are frequent enough, or the target begins no such name.
    """
    words: dict[str, str | None] = {}
    programs: dict[str, str] = {}
    for text in (text for sample in samples for text in sample.programs):
        if text not in words:
            program = parse(task.language, text)
            words[text], programs[text] = first_word(program), hide_name(program)
    counts = Counter(word for word in words.values() if word is not None)
    frequent = sorted((w for w, n in counts.items() if n >= RARE), key=lambda w: (-counts[w], w))
    if len(frequent) < 2 or target not in frequent:
        known = ", ".join(frequent[:10]) or "none"
        raise ConfigError(
            f"attack 'adaptive': {RARE} or more of {len(words)} programs must have a function name that begins with "
            f"{target!r}, and {counts[target]} do (frequent: {known}). Choose another target_name, or surrogate_task: label."
        )
    others = [word for word in frequent if word != target]
    kept = (target, *others[: classes - 1])
    place = {word: number for number, word in enumerate(kept)}
    named = tuple(
        Sample(digest_of(text)[:16], (programs[text],), task.language, place[word])
        for text, word in words.items()
        if word in place
    )
    return replace(task, name=f"{task.name}_names", kind=TaskKind.CLASSIFICATION, labels=kept, metric="accuracy"), named


# --------------------------------------------------------------------------------------------------------------- training


def train(
    name: str, info: TaskInfo, samples: Sequence[Sample], settings: ModelSettings, epochs: int, context: Context
) -> tuple[WhiteBox, str]:
    """A surrogate trained on clean samples, and in words what it does on those kept back.

    Raises:
        ModelError: the model does not load.
        PluginError: the harness lent no trainer.
    """
    if context.trainer is None:
        raise PluginError("attack 'adaptive' trains a surrogate, and its context has no trainer")
    order = context.rng("poison", "held out").permutation(len(samples))
    held = frozenset(int(i) for i in order[: len(samples) // HELD_OUT])
    model = create(name, info, samples, settings, context, axis="poison")
    fitted = context.trainer.fit(
        model, [s for i, s in enumerate(samples) if i not in held], axis="poison", epochs=epochs, select_best=False
    )
    if not held:
        return fitted, "not measured"
    skill = context.trainer.metric(fitted, [samples[i] for i in sorted(held)])
    return fitted, f"{info.metric} {skill:.2f} on {len(held)} samples kept back"


def target_query(model: WhiteBox, samples: Sequence[Sample], goal: SearchGoal) -> NDArray[np.float32]:
    """The mean direction (d,) of the training queries that hold the target word, a unit vector.

    Raises:
        ConfigError: there is none.
    """
    chosen = [sample for sample in samples if goal.chooses(sample)]
    if not chosen:
        raise ConfigError(
            f"attack 'adaptive': none of {len(samples)} training queries holds the word {goal.word!r}. Change the goal's word."
        )
    mean = model.embed_queries(chosen).mean(axis=0)
    unit: NDArray[np.float32] = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit
