"""CROW: train the layers to agree with each other, also on inputs that were moved to make them disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench.context import Context, Cost
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.models.network import CodeNetwork
from bench.models.tokens import Tokens
from bench.models.training import Step
from defenses.tuning.exam import sound, trainer_of


def compared(layers: Sequence[Tensor]) -> Sequence[Tensor]:
    """The layers that are compared: without the embedding output and the last one, where two or more are left.

    A network with two blocks keeps its last layer, one with a single block the embedding output too.
    """
    if len(layers) > 3:
        return layers[1:-1]
    return layers[1:] if len(layers) == 3 else layers


def inconsistency(layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean over adjacent layers (n, L, d) and real tokens of 1 - cosine: a scalar in [0, 2]."""
    chosen = compared(layers)
    gaps = [1 - functional.cosine_similarity(lower, upper, dim=-1) for lower, upper in pairwise(chosen)]
    return (torch.stack(gaps) * mask).sum() / (len(gaps) * mask.sum())


def moved(network: CodeNetwork, tokens: Tokens, epsilon: float) -> Tokens:
    """The tokens' embeddings after one step of the fast gradient sign method that raises the inconsistency."""
    embeds = network.embedding(tokens.ids)
    leaf = embeds.detach().requires_grad_(True)
    gap = inconsistency(network.layers(Tokens(tokens.ids, tokens.mask, leaf)), tokens.mask)
    (gradient,) = torch.autograd.grad(gap, leaf)
    return Tokens(tokens.ids, tokens.mask, embeds + epsilon * gradient.sign())


def regularised(epsilon: float, alpha: float, cost: Cost) -> Step:
    """The loss of a step: the task's, and ``alpha`` times the inconsistency on moved embeddings, averaged over the sides."""

    def step(network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]) -> Tensor:
        loss = objective(network(*sides))
        was = network.training
        network.eval()  # dropout alone would set layers apart
        for side in sides:
            other = moved(network, side, epsilon)
            loss = loss + alpha / len(sides) * inconsistency(network.layers(other), side.mask)
            for _ in range(2):
                cost.forward(side.ids.numel())
                cost.backward(side.ids.numel())
        network.train(was)
        return loss

    return step


@dataclass(frozen=True, kw_only=True)
class CROW(Repair):
    """Fine-tunes with a penalty on how much adjacent layers differ, under a small adversarial change of the input embeddings.

    Source: Min, Pham, Li, Sun, "CROW: Eliminating Backdoors from Large Language Models via Internal Consistency Regularization",
    ICML 2025: one fast-gradient-sign step of size 0.1 on the embeddings raises the mean of 1 - cosine between adjacent layers; the
    model then minimises its own loss on the clean input plus 5.5 times that mean on the moved one. 100 clean samples, 5 epochs,
    batches of 8; the embedding output and the last layer are left out, as in the release.

    What is a port: the task's own loss stands for the language-model loss, all weights are trained at the victim's own rate instead
    of LoRA's at 1e-3, padding does not count, and dropout is off while layers are compared (the published models have none).
    Networks of one or two blocks have no inner pair of layers; see :func:`compared`. For an encoder-decoder the layers are the
    decoder's; the change reaches both halves. The authors tried generators alone. A step of 0.1 is large beside the coordinates of a
    BERT's embeddings and small beside a T5's: sweep ``epsilon``.

    Attributes:
        clean: number of clean labelled samples (stratified by class).
        epsilon: step of the change, in units of an embedding's coordinate.
        alpha: weight of the penalty (the paper takes 11 for some goals of generators).
        epochs: passes over the clean samples.
        learning_rate: peak rate; ``None`` takes the one of the suite's training settings, as the victim had.
        batch_size: samples a step.
    """

    name = "crow"
    summary = "fine-tunes for agreement of adjacent layers under adversarial embeddings"
    paper = (
        "Min et al.: CROW: Eliminating Backdoors from Large Language Models via Internal Consistency Regularization. "
        "ICML 2025"
    )

    clean: Annotated[int, Field(ge=1)] = 100
    epsilon: Annotated[float, Field(ge=0)] = 0.1
    alpha: Annotated[float, Field(ge=0)] = 5.5
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8

    @property
    def needs(self) -> Needs:
        """The weights, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A fine-tuned copy.

        Raises:
            ModelError: training ends in weights that are not finite.
        """
        trainer = trainer_of(context, self)
        model = trainer.fit(
            known.white_box,
            known.clean,
            axis="defense",
            step=regularised(self.epsilon, self.alpha, context.cost),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            select_best=False,
        )
        return Repaired(sound(model, self), {"history": list(trainer.history)})
