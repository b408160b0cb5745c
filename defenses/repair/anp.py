"""Adversarial neuron pruning: prune the neurons that a small change of their weights turns against the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.errors import ModelError
from bench.models.handles import WhiteBox
from bench.models.training import Batch, Batches, Trainer
from defenses.tuning.exam import Exam, examination, sound, trainer_of
from defenses.tuning.units import Kind, Projection, units_of

PRUNING_STEP, PRUNING_MAX = 0.05, 0.9
"""Thresholds tried: from 0 in these steps up to the maximum (release)."""
StoppedBy = Literal["budget", "largest threshold"]
"""What ended the pruning: the next threshold would have cost too much accuracy, or there was no next one."""


def neurons_of(model: WhiteBox, units: Kind) -> list[Projection]:
    """What makes the neurons of a model: a neuron is an output of one of these (where units are gated, of the one without the gate).

    Raises:
        ModelError: the architecture has none that are known here.
    """
    return [group.inward[-1] for group in units_of(model, units)]


def perturbed(neurons: Sequence[Projection], weights: Sequence[Tensor], biases: Sequence[Tensor]) -> dict[str, Tensor]:
    """Parameters by name, each neuron's weights and bias times its factors; differentiable in the factors (size,) a projection."""
    found = {}
    for neuron, weight, bias in zip(neurons, weights, biases, strict=True):
        own = neuron.module.weight, neuron.module.bias
        found[f"{neuron.name}.weight"] = neuron.by_output(neuron.by_output(own[0]) * _widened(weight, neuron)[:, None])
        if own[1] is not None:
            found[f"{neuron.name}.bias"] = own[1] * _widened(bias, neuron)
    return found


def _widened(factors: Tensor, neuron: Projection) -> Tensor:
    """Factors for every output of the projection's module: 1 for those of others (queries and keys in a fused layer)."""
    outputs = len(neuron.by_output(neuron.module.weight))
    return torch.cat([factors.new_ones(neuron.start), factors, factors.new_ones(outputs - neuron.stop)])


def worst(
    loss_of: Callable[[Sequence[Tensor]], Tensor], start: Sequence[Tensor], epsilon: float, steps: int
) -> list[Tensor]:
    """Perturbations in [-epsilon, epsilon] that raise a loss: signed gradient steps of ``epsilon / steps`` from ``start``."""
    noise = [each.detach() for each in start]
    for _ in range(steps):
        leaves = [each.clone().requires_grad_(True) for each in noise]
        slopes = torch.autograd.grad(loss_of(leaves), leaves, allow_unused=True, materialize_grads=True)
        noise = [
            (each + epsilon / steps * slope.sign()).clamp(-epsilon, epsilon)
            for each, slope in zip(noise, slopes, strict=True)
        ]
    return noise


@dataclass(frozen=True, kw_only=True)
class ANP(Repair):
    """Learns a mask over neurons under the worst small change of their weights, and prunes where the mask is small.

    Source: Wu, Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021, Algorithm 1: with masks m in [0, 1]
    on neurons' weights, minimise ``alpha * loss(m * w, b) + (1 - alpha) * max loss((m + d) * w, (1 + x) * b)`` over the masks, d
    and x within [-epsilon, epsilon] from a random start; momentum 0.9, 2000 iterations of batches of 128 at rate 0.2 (release). Pruned
    neurons keep their bias, as there. Nothing is fine-tuned.

    What is a port: a neuron is a feed-forward intermediate unit (instead of a batch norm's channel), with its incoming weights and
    bias; value channels of attention on demand. Evaluation mode throughout, since the published networks have no dropout. The
    release's start and step can leave the interval together; here the perturbation is cut to it, as the paper says. The threshold:
    the paper picks it per experiment with the attack success in sight. Here it is the largest one of 0, 0.05 … 0.9 at which the clean
    metric on held-out clean samples (a fifth of them, not used for the masks) falls by no more than ``drop`` of itself; thresholds
    are tried in rising order, up to the first that costs more.

    A small model can do its task without most of these neurons: then no threshold costs too much, the largest one is taken, and
    the result is about that model rather than about the method. The fact ``stopped_by`` says so (``budget``, or ``largest
    threshold``); results from before it lack it.

    Attributes:
        clean: number of clean labelled samples (stratified by class).
        units: ``feed_forward``, ``heads`` (value channels) or ``both``.
        epsilon: largest relative change of weights and biases.
        steps: of the inner maximisation.
        alpha: weight of the loss without a change.
        iterations: batches that the masks are trained on.
        learning_rate: of the masks.
        momentum: of the masks.
        batch_size: samples a step (at most as many as there are).
        drop: share of the clean metric that pruning may cost.
    """

    name = "anp"
    summary = "prunes neurons whose adversarial perturbation does harm"
    paper = "Wu, Wang: Adversarial Neuron Pruning Purifies Backdoored Deep Models. NeurIPS 2021"
    toy_parameters: ClassVar[Mapping[str, object]] = {"iterations": 20, "batch_size": 16}

    clean: Annotated[int, Field(ge=1)] = 300
    units: Kind = "feed_forward"
    epsilon: Annotated[float, Field(ge=0)] = 0.4
    steps: Annotated[int, Field(ge=1)] = 1
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.2
    iterations: Annotated[int, Field(ge=0)] = 2000
    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Annotated[int, Field(ge=1)] = 128
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @property
    def needs(self) -> Needs:
        """The weights, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A pruned copy.

        Raises:
            DataError: too few clean samples to hold some out.
            ModelError: the architecture has no neurons known here, or the model's outputs are not finite.
        """
        model, trainer = known.white_box.copy(), trainer_of(context, self)
        neurons_of(model, self.units)  # says so before anything is measured
        taught, exam = examination(model, known.clean, trainer, self, drop=self.drop)
        batches = trainer.batches(model, taught, self.batch_size)
        masks = self.masks(model, batches, trainer, context)
        threshold, count, repaired, stopped_by = self.prune(model, masks, exam)
        values = np.concatenate(masks)
        facts = {
            "neurons": len(values),
            "pruned": count,
            "threshold": threshold,
            "stopped_by": stopped_by,
            "metric_before": exam.base,
            "mask_quantiles": [round(float(q), 4) for q in np.quantile(values, [0.0, 0.05, 0.25, 0.5, 1.0])],
        }
        return Repaired(sound(repaired, self), facts)

    def masks(self, model: WhiteBox, batches: Batches, trainer: Trainer, context: Context) -> list[NDArray[np.float64]]:
        """The trained mask of each neuron, in [0, 1], one array a projection. Gradients of the model's weights are switched off.

        Raises:
            ModelError: a loss is not finite.
        """
        model.network.requires_grad_(False)
        neurons, generator = neurons_of(model, self.units), context.torch_generator("defense", self.name, "noise")
        masks = [torch.ones(n.size, device=model.device, dtype=n.module.weight.dtype) for n in neurons]
        for mask in masks:
            mask.requires_grad_(True)
        optimizer = torch.optim.SGD(masks, lr=self.learning_rate, momentum=self.momentum)
        stream = _endless(batches, context.torch_generator("defense", self.name, "batches"))
        for _ in context.progress(range(self.iterations), f"{self.name}: masks"):
            loss = self.loss(model, neurons, masks, next(stream), trainer, generator)
            if not bool(loss.isfinite()):
                raise ModelError(f"{self.name}: the loss of model {model.name!r} on clean samples is not finite")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                for mask in masks:
                    mask.clamp_(0.0, 1.0)
        model.network.requires_grad_(True)
        return [mask.detach().double().cpu().numpy() for mask in masks]

    def loss(
        self,
        model: WhiteBox,
        neurons: Sequence[Projection],
        masks: Sequence[Tensor],
        batch: Batch,
        trainer: Trainer,
        generator: torch.Generator,
    ) -> Tensor:
        """What the masks minimise on one batch."""

        def at(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
            model.cost.forward(batch.tokens)
            model.cost.backward(batch.tokens)
            outputs = functional_call(model.network, perturbed(neurons, weights, biases), batch.sides)
            return trainer.loss(outputs, batch)

        def shifted(noise: Sequence[Tensor], by: Sequence[Tensor]) -> Tensor:
            half = len(neurons)
            return at([m + d for m, d in zip(by, noise[:half], strict=True)], [1 + x for x in noise[half:]])

        natural = at(masks, [torch.ones_like(mask) for mask in masks])
        if not self.epsilon:
            return self.alpha * natural + (1 - self.alpha) * natural
        start = [
            ((2 * torch.rand(mask.shape, generator=generator) - 1) * self.epsilon).to(mask) for mask in (*masks, *masks)
        ]
        still = [mask.detach() for mask in masks]
        noise = worst(lambda leaves: shifted(leaves, still), start, self.epsilon, self.steps)
        return self.alpha * natural + (1 - self.alpha) * shifted(noise, masks)

    def prune(
        self, model: WhiteBox, masks: Sequence[NDArray[np.float64]], exam: Exam
    ) -> tuple[float | None, int, WhiteBox, StoppedBy]:
        """(threshold, neurons pruned, pruned model, what ended it); no threshold where even the first costs too much."""
        threshold, count, best = None, 0, model
        stopped_by: StoppedBy = "largest threshold"
        for number in range(round(PRUNING_MAX / PRUNING_STEP) + 1):
            tried = round(number * PRUNING_STEP, 2)
            chosen = [mask <= tried for mask in masks]
            wanted = int(sum(which.sum() for which in chosen))
            if wanted > count:
                candidate = model.copy()
                silence(neurons_of(candidate, self.units), chosen)
                if not exam.passes(candidate):
                    stopped_by = "budget"
                    break
                best, count = candidate, wanted
            threshold = tried
        return threshold, count, best, stopped_by


def silence(neurons: Sequence[Projection], chosen: Sequence[NDArray[np.bool_]]) -> None:
    """Set the chosen neurons' incoming weights to zero, as a mask of zero does; biases stay."""
    with torch.no_grad():
        for neuron, which in zip(neurons, chosen, strict=True):
            rows = neuron.by_output(neuron.module.weight)[neuron.start : neuron.stop]
            rows[torch.from_numpy(which).to(rows.device)] = 0.0


def _endless(batches: Batches, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield from batches.epoch(generator)
