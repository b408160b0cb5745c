"""A clean surrogate: a model that an attacker trains on the clean training split, and what a crafted program is to make of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import TaskInfo, TaskKind
from bench.errors import PluginError
from bench.models import ModelSettings, Tokens, WhiteBox, create
from bench.samples import Sample

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


def train(
    name: str, info: TaskInfo, samples: Sequence[Sample], settings: ModelSettings, epochs: int, context: Context
) -> tuple[WhiteBox, str]:
    """A surrogate trained on clean samples, and in words what it does on those kept back.

    Raises:
        ModelError: the model does not load.
        PluginError: the harness lent no trainer.
    """
    if context.trainer is None:
        raise PluginError("a surrogate is to be trained, and the context has no trainer")
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
