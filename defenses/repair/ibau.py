"""I-BAU: unlearn the universal perturbation that does most harm, minding how it answers to the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.errors import DataError, ModelError
from bench.models.handles import WhiteBox
from bench.models.network import CodeNetwork
from bench.models.tokens import Tokens
from bench.models.training import Batch, Trainer
from defenses.tuning.exam import sound, trainer_of

ASCENT = 0.25
"""Length of an ascent step, as a share of the radius."""


def hypergradient(
    inner: Callable[[Tensor], Tensor],
    outer: Callable[[Tensor], Tensor],
    delta: Tensor,
    parameters: Sequence[Tensor],
    *,
    rounds: int,
    rate: float,
) -> tuple[float, tuple[Tensor, ...]]:
    """Value, and gradient, of ``outer(delta*(parameters), parameters)``, where ``delta*`` minimises ``inner``, by implicit differentiation.

    With the map ``phi(delta) = delta - rate * d inner / d delta``, whose fixed point ``delta*`` is, it is ``d outer / d parameters +
    (d phi / d parameters)^T v`` with ``v = (I - d phi / d delta)^-T d outer / d delta``. The inverse is the sum of the first ``rounds``
    powers, by fixed-point iteration from zero.

    Args:
        inner: delta -> scalar, twice differentiable in delta and the parameters.
        outer: delta -> scalar.
        delta: where both are taken.
        parameters: the outer variables.
        rounds: iterations (K).
        rate: step of the map; the iteration converges where every eigenvalue of ``rate`` times the Hessian of ``inner`` is in (0, 2).

    Returns:
        ``outer(delta)``; one gradient a parameter.
    """
    delta = delta.detach().requires_grad_(True)
    loss = outer(delta)
    towards, *direct = torch.autograd.grad(loss, [delta, *parameters], allow_unused=True, materialize_grads=True)
    (slope,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    mapped = delta - rate * slope
    # From zero the first iteration leads to ``towards``, whatever the map.
    v = towards if rounds else torch.zeros_like(delta)
    for _ in range(1, rounds):
        (v,) = torch.autograd.grad(mapped, delta, v, retain_graph=True)
        v = v + towards
    indirect = torch.autograd.grad(mapped, list(parameters), v, allow_unused=True, materialize_grads=True)
    return float(loss.detach()), tuple(a + b for a, b in zip(direct, indirect, strict=True))


@dataclass(frozen=True)
class Places:
    """Where a perturbation stands in a batch.

    Attributes:
        side: of the batch's sides, for each row: (n,).
        start: its first token, for each row: (n,).
        carrying: does a row carry it: bool, (n,).
    """

    side: Tensor
    start: Tensor
    carrying: Tensor


def with_perturbation(network: CodeNetwork, batch: Batch, delta: Tensor, places: Places) -> list[Tokens]:
    """The batch's sides as embeddings, ``delta`` (length, d) added to successive real tokens of the rows that carry it."""
    sides = []
    for number, side in enumerate(batch.sides):
        offset = torch.arange(side.ids.shape[1], device=delta.device) - places.start[:, None]
        rows = (places.carrying & (places.side == number))[:, None]
        inside = (offset >= 0) & (offset < len(delta)) & side.mask.bool() & rows
        embeds = network.embedding(side.ids)
        added = delta[offset.clamp(0, len(delta) - 1)] * inside[..., None]
        sides.append(Tokens(side.ids, side.mask, embeds + added.to(embeds.dtype)))
    return sides


def drawn_places(batch: Batch, length: int, share: float, rng: np.random.Generator) -> Places:
    """Random places behind the first token, and random rows (at least one): a trigger may stand anywhere in a program.

    It stands in the program, never the query, and in either program of a pair.
    """
    count = len(batch.labels)
    lengths = np.stack([side.mask.sum(1).cpu().numpy() for side in batch.sides])
    last = len(batch.sides) - 1
    side = rng.integers(0, last + 1, count) if batch.classes else np.full(count, last)
    room = np.maximum(lengths[side, np.arange(count)] - length, 1)
    carrying = np.zeros(count, dtype=np.bool_)
    carrying[rng.permutation(count)[: max(1, round(share * count))]] = True
    device = batch.labels.device
    start = 1 + (rng.random(count) * room).astype(np.int64)
    return Places(*(torch.from_numpy(each).to(device) for each in (side, start, carrying)))


@dataclass(frozen=True)
class Harm:
    """The task's loss with a perturbation, as a function of a batch, its places and ``delta`` (length, d).

    Attributes:
        model: whose loss.
        trainer: whose loss function.
        unit: what an entry of delta is measured in.
    """

    model: WhiteBox
    trainer: Trainer
    unit: float

    def __call__(self, batch: Batch, places: Places, delta: Tensor) -> Tensor:
        """The loss, a scalar.

        Raises:
            ModelError: it is not finite.
        """
        network = self.model.network
        sides = with_perturbation(network, batch, delta * self.unit, places)
        loss = self.trainer.loss(network(*sides), batch)
        if not bool(loss.isfinite()):
            raise ModelError(f"ibau: the loss of model {self.model.name!r} on clean samples is not finite")
        return loss

    def count(self, batch: Batch, forward: int, backward: int) -> None:
        """Count passes over a batch."""
        for _ in range(forward):
            self.model.cost.forward(batch.tokens)
        for _ in range(backward):
            self.model.cost.backward(batch.tokens)


def directed(slope: Tensor) -> Tensor:
    """A gradient at length 1, however small it is; zero stays zero.

    A victim that is sure of everything has gradients whose squares are no float32 numbers any more.
    """
    scaled = slope / slope.abs().max().clamp(min=torch.finfo(slope.dtype).tiny)
    direction: Tensor = scaled / torch.linalg.vector_norm(scaled).clamp(min=1.0)
    return direction


def unit_of(model: WhiteBox) -> float:
    """Mean length of the rows of the input embedding."""
    return float(model.network.embedding.weight.detach().norm(dim=1).mean())


@dataclass(frozen=True, kw_only=True)
class IBAU(Repair):
    """Finds one perturbation of the input embeddings that does most harm on clean samples, unlearns it, and starts again.

    Source: Zeng, Chen, Park, Mao, Jin, Jia, "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR 2022, Algorithm 1:
    minimise over the weights, maximise over a universal bounded perturbation, the loss on clean samples with the perturbation. The outer
    gradient is the implicit one (:func:`hypergradient`), K = 5 fixed-point iterations of step 0.1 on the negative loss plus 0.001
    times the squared norm; 5 rounds; Adam at 1e-3 (release); evaluation mode throughout.

    What is a port: the perturbation is a block of ``length`` vectors, added to as many successive token embeddings from a random place
    in each program, instead of an image. Its unit is the mean length of the model's embeddings; two units a token are as far as one
    token of that length can be from another. The release ascends with SGD at rate 10, which is a matter of pixels, with the penalty
    and without the paper's bound; here each step is a quarter of the bound along the gradient's direction, cut to the bound, one
    pass over the clean samples a round as there. Inner and outer loss are taken on the same batch (release: the inner one always on
    the first). All samples carry the perturbation, as in the paper's objective; ``share`` lowers that (the release: 1 of 100). For
    pairs either program carries it, in code search the program. It knows no trigger; against triggers that are not a local change
    of tokens one expects little.

    Attributes:
        clean: number of clean labelled samples (stratified by class).
        length: tokens that are perturbed.
        radius: bound of the perturbation's norm, in mean embedding lengths, for one token (``sqrt(length)`` of it for all).
        share: of the samples that carry it in the outer loss.
        rounds: of finding and unlearning.
        fixed_point: iterations of the hypergradient (K).
        inner_rate: step of the fixed-point map.
        penalty: weight of the squared norm in the inner loss.
        learning_rate: of the weights (Adam). 1e-3 is the default of the authors' release; BackdoorBench takes 1e-4.
        batch_size: samples a step; ``None`` takes the one of the suite's training settings.
    """

    name = "ibau"
    summary = "unlearns universal perturbations of embeddings by implicit hypergradients"
    paper = "Zeng et al.: Adversarial Unlearning of Backdoors via Implicit Hypergradient. ICLR 2022"
    version = 2  # 1 had BackdoorBench's learning rate
    toy_parameters: ClassVar[Mapping[str, object]] = {"rounds": 2}

    clean: Annotated[int, Field(ge=1)] = 300
    length: Annotated[int, Field(ge=1)] = 5
    radius: Annotated[float, Field(gt=0)] = 2.0
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    rounds: Annotated[int, Field(ge=0)] = 5
    fixed_point: Annotated[int, Field(ge=0)] = 5
    inner_rate: Annotated[float, Field(gt=0)] = 0.1
    penalty: Annotated[float, Field(ge=0)] = 0.001
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @property
    def needs(self) -> Needs:
        """The weights, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """An unlearnt copy.

        Raises:
            DataError: no clean samples.
            ModelError: a loss is not finite.
        """
        if not known.clean:
            raise DataError(f"{self.name} was given no clean samples; set its parameter 'clean'")
        model, trainer = known.white_box.copy(), trainer_of(context, self)
        harm = Harm(model, trainer, unit_of(model))
        batches = trainer.batches(model, known.clean, self.batch_size)
        optimizer = torch.optim.Adam(model.network.parameters(), lr=self.learning_rate)
        losses: list[list[float]] = []
        # The fused attention kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for number in context.progress(range(self.rounds), f"{self.name}: rounds"):
                rng = context.rng("defense", self.name, "places", str(number))
                generator = context.torch_generator("defense", self.name, "batches", str(number))
                delta, ascended = self.perturbation(harm, batches.epoch(generator), rng)
                unlearnt = self.unlearn(harm, batches.epoch(generator), optimizer, delta, rng)
                losses.append([round(ascended, 4), round(unlearnt, 4)])
        model.network.zero_grad(set_to_none=True)
        return Repaired(sound(model, self), {"losses": losses})

    def perturbation(self, harm: Harm, batches: Iterable[Batch], rng: np.random.Generator) -> tuple[Tensor, float]:
        """(delta, mean loss met on the way): one pass of ascent from zero."""
        bound = self.radius * math.sqrt(self.length)
        delta = torch.zeros(self.length, harm.model.network.embedding.embedding_dim, device=harm.model.device)
        losses = []
        for batch in batches:
            leaf = delta.clone().requires_grad_(True)
            loss = harm(batch, drawn_places(batch, self.length, 1.0, rng), leaf)
            (slope,) = torch.autograd.grad(loss, leaf)
            harm.count(batch, forward=1, backward=1)
            losses.append(float(loss.detach()))
            delta = delta + ASCENT * bound * directed(slope)
            delta = delta * min(1.0, bound / max(float(delta.norm()), 1e-12))
        return delta, float(np.mean(losses))

    def unlearn(
        self,
        harm: Harm,
        batches: Iterable[Batch],
        optimizer: torch.optim.Optimizer,
        delta: Tensor,
        rng: np.random.Generator,
    ) -> float:
        """One pass of outer steps; returns the mean outer loss met on the way."""
        weights, losses = list(harm.model.network.parameters()), []
        for batch in batches:
            inner = self.inner(harm, batch, drawn_places(batch, self.length, 1.0, rng))
            outer = partial(harm, batch, drawn_places(batch, self.length, self.share, rng))
            loss, gradients = hypergradient(inner, outer, delta, weights, rounds=self.fixed_point, rate=self.inner_rate)
            harm.count(batch, forward=2, backward=max(self.fixed_point - 1, 0) + 3)
            losses.append(loss)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
        return float(np.mean(losses))

    def inner(self, harm: Harm, batch: Batch, places: Places) -> Callable[[Tensor], Tensor]:
        """The inner loss as a function of delta: the negative harm, and a penalty on its size."""
        return lambda delta: self.penalty * delta.square().sum() - harm(batch, places, delta)
