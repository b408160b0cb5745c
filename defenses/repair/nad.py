"""Neural attention distillation: a fine-tuned copy teaches the backdoored model where to look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from bench.context import Context, Cost
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.models.handles import WhiteBox
from bench.models.network import CodeNetwork
from bench.models.tokens import Tokens
from bench.models.training import Step
from defenses.tuning.exam import sound, trainer_of
from defenses.tuning.units import Units, units_of, watching


def attention_map(activations: Tensor, mask: Tensor, power: float) -> Tensor:
    """How strongly each token excites a block: (n, L, units) -> (n, L), unit length a row, zero on padding."""
    strength = activations.abs().pow(power).sum(-1) * mask
    return functional.normalize(strength, dim=1)


def distance(student: Tensor, teacher: Tensor, mask: Tensor, power: float) -> Tensor:
    """Mean over rows of the squared distance of two blocks' attention maps: a scalar in [0, 2]."""
    difference = attention_map(student, mask, power) - attention_map(teacher, mask, power)
    return difference.square().sum(1).mean()


def distilling(teacher: WhiteBox, beta: float, power: float, cost: Cost) -> Step:
    """The loss of a step: the student's own, and ``beta`` times the distance of its maps from the teacher's, summed over blocks."""

    # Looking for them takes as long as reading a short batch, and the two networks are the same at every step.
    @lru_cache(maxsize=2)
    def units(network: CodeNetwork) -> list[Units]:
        return units_of(teacher, "feed_forward", network)

    def step(network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]) -> Tensor:
        with watching(units(network)) as student:
            loss = objective(network(*sides))
        with watching(units(teacher.network)) as example, torch.no_grad():
            teacher.network(*sides)
        cost.forward(sum(side.ids.numel() for side in sides))
        for mine, theirs in zip(student, example, strict=True):
            for side, own, shown in zip(sides, mine, theirs, strict=True):
                loss = loss + beta / len(sides) * distance(own, shown, side.mask, power)
        return loss

    return step


@dataclass(frozen=True, kw_only=True)
class NAD(Repair):
    """Fine-tunes a copy (the teacher), then trains the model itself to do its task with the teacher's attention maps.

    Source: Li, Lyu, Koren, Lyu, Li, Ma, "Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks",
    ICLR 2021: activation-based maps (sum over channels of ``|activation| ** 2``, scaled to unit length), teacher fine-tuned
    for 10 epochs, student trained for 20 (release).

    What is a port. The maps: tokens take the place of pixels and feed-forward intermediate units that of channels. The hidden
    states themselves would not do: behind BERT's layer norm every token has nearly the same length, and such a map says nothing.
    The weight: the release's 500, 1000 and 1000 multiply a *mean* over the 1024, 256 and 64 positions of its three stages, which
    is 0.5, 4 and 16 times the squared distance of two maps; programs differ in length, so the distance itself is weighted here,
    by the middle one, in every block. AdamW at the victim's own rate instead of SGD, dropout on for the student and off for the
    teacher, no checkpoint chosen. In code search and for pairs both texts' maps count, half each.

    Attributes:
        clean: number of clean labelled samples (stratified by class).
        teacher_epochs: epochs for which the teacher is fine-tuned.
        epochs: of distillation.
        beta: weight of a block's distance.
        power: of an activation in the map (p).
        learning_rate: of both; ``None`` takes the one of the suite's training settings, as the victim had.
        batch_size: samples a step; ``None`` as above.
    """

    name = "nad"
    summary = "distils the attention maps of a fine-tuned copy into the model"
    paper = "Li et al.: Neural Attention Distillation: Erasing Backdoor Triggers from Deep Neural Networks. ICLR 2021"
    toy_parameters: ClassVar[Mapping[str, object]] = {"teacher_epochs": 2, "epochs": 2}

    clean: Annotated[int, Field(ge=1)] = 300
    teacher_epochs: Annotated[int, Field(ge=0)] = 10
    epochs: Annotated[int, Field(ge=0)] = 20
    beta: Annotated[float, Field(ge=0)] = 4.0
    power: Annotated[float, Field(gt=0)] = 2.0
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @property
    def needs(self) -> Needs:
        """The weights, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A distilled copy.

        Raises:
            ModelError: the architecture has no feed-forward units known here, or training ends in weights that are not finite.
        """
        model, trainer = known.white_box, trainer_of(context, self)
        units_of(model, "feed_forward")  # says so before the teacher is trained in vain
        teacher = trainer.fit(
            model,
            known.clean,
            axis="defense",
            epochs=self.teacher_epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            select_best=False,
        )
        taught = list(trainer.history)
        student = trainer.fit(
            model,
            known.clean,
            axis="defense",
            step=distilling(sound(teacher, self), self.beta, self.power, context.cost),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            select_best=False,
        )
        return Repaired(sound(student, self), {"teacher": taught, "history": list(trainer.history)})
