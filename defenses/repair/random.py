"""The control without skill: weights shaken at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from defenses.tuning.exam import sound


@dataclass(frozen=True, kw_only=True)
class RandomRepair(Repair):
    """Adds Gaussian noise to every weight matrix, in proportion to its own size; aims at nothing.

    A repair whose drop in attack success costs no less accuracy than this one's has damaged the model and not found the
    backdoor. The other null of this family is ``fine_tuning``, which spends clean samples without any idea of a trigger.

    How far training on can go with all clean data and perfect knowledge of which it is: ``oracle``. The bound of every repair is
    the model that never saw the poison, ``filter/oracle``'s.

    Attributes:
        relative: norm of the noise over the norm of the matrix, in expectation.
    """

    name = "random"
    summary = "control: seeded noise on the weights, no skill"
    needs = Needs(model=Access.WEIGHTS)

    relative: Annotated[float, Field(ge=0)] = 0.2

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A noisy copy; biases and norms (vectors) stay as they are.

        Raises:
            ModelError: the weights that come out are not finite.
        """
        model = known.white_box.copy()
        with torch.no_grad():
            for name, weight in sorted(model.network.named_parameters()):
                if weight.ndim < 2:
                    continue
                generator = context.torch_generator("defense", "repair/random", name)
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
                size = weight.float().square().mean().sqrt()
                weight.add_((self.relative * size * noise.to(weight.device)).to(weight.dtype))
        return Repaired(sound(model, self), {"relative": self.relative})
