"""What the harness lends to a plugin while it works: generators, device, trainer, scratch folder, progress, cost counters."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

if TYPE_CHECKING:
    from bench.contracts import Attack
    from bench.models.training import Trainer

T = TypeVar("T")


def axis_seed(seeds: Mapping[str, int], axis: str, *names: str) -> int:
    """A 63-bit seed that depends on the named axes alone.

    ``axis`` must be one of ``seeds``: a stage may draw only from axes that stand in its key, so that a result
    can never depend on a seed that its key does not show.

    Raises:
        KeyError: the axis is not one of this stage's.
    """
    if axis not in seeds:
        raise KeyError(f"this stage has no seed axis {axis!r}; it has {', '.join(sorted(seeds)) or 'none'}")
    text = "\x1f".join([axis, str(seeds[axis]), *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass
class Cost:
    """Counted work of one stage: tokens that went forward and backward through a model, padding included."""

    forward_tokens: int = 0
    backward_tokens: int = 0
    forward_passes: int = 0

    def forward(self, tokens: int) -> None:
        """Count one forward pass over ``tokens`` (padding included)."""
        self.forward_passes += 1
        self.forward_tokens += tokens

    def backward(self, tokens: int) -> None:
        """Count one backward pass."""
        self.backward_tokens += tokens


@dataclass
class Context:
    """Lent to a plugin for one stage.

    Attributes:
        seeds: seed by named axis (``data``, ``poison``, ``model``, ``defense``); only those of the stage.
        scratch: the only folder a plugin may write to; deleted afterwards.
        device: where models run.
        trainer: the harness's trainer (:class:`bench.models.training.Trainer`); ``None`` where no model is trained.
        parts: the other attacks that an attack says it is made of, built; empty for all others.
        cost: counters, filled by the model handles and the trainer.
        show: whether to draw progress.
    """

    seeds: Mapping[str, int]
    scratch: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    trainer: Trainer | None = None
    parts: tuple[Attack, ...] = ()
    cost: Cost = field(default_factory=Cost)
    show: bool = False
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("bench"))

    def rng(self, axis: str, *names: str) -> np.random.Generator:
        """A NumPy generator for a named axis; further names give independent streams (``rng("poison", sample.id)``)."""
        return np.random.default_rng(axis_seed(self.seeds, axis, *names))

    def torch_generator(self, axis: str, *names: str) -> torch.Generator:
        """A CPU torch generator for a named axis."""
        return torch.Generator().manual_seed(axis_seed(self.seeds, axis, *names))

    def progress(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Iterate with progress shown (plain lines where there is no terminal)."""
        from bench.progress import track

        return track(items, description, total=total, show=self.show)
