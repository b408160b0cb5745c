"""Label smoothing: what the deceptive cross-entropy is without its deception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TrainingRule
from bench.errors import PluginError
from bench.models.handles import WhiteBox


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy with ``1 - smoothing`` on the label and the rest shared by the other classes.

    PyTorch's own smoothing shares with the label as well, and so smooths less at the same number.

    Args:
        logits: shape (n, classes).
        labels: shape (n,), class numbers.
        smoothing: in [0, 1).
    """
    classes = logits.shape[-1]
    smoothed = torch.full_like(logits, smoothing / max(classes - 1, 1))
    # A lone class has nothing to share with: its label stays whole.
    smoothed.scatter_(1, labels.unsqueeze(1), 1.0 - smoothing if classes > 1 else 1.0)
    return -(smoothed * torch.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(TrainingRule):
    """Train with smoothed labels; everything else is as for an undefended victim.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7. It is the control of
    ``dece``, which after a few epochs differs little from it: the same labels at the same default (there named ``smoothing`` too),
    and alpha always 1. What ``dece`` does better than this is the deception's doing. In code search the classes are the programs
    of a batch.

    Attributes:
        smoothing: label mass given to the other classes.
    """

    name = "label_smoothing"
    summary = "control of dece: trains with smoothed labels and no deception"
    paper = "Szegedy et al.: Rethinking the Inception Architecture for Computer Vision. CVPR 2016"
    needs = Needs(training_set=True)

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train with the suite's settings and seeds, so that the loss is the only difference from the undefended victim."""
        if context.trainer is None:
            raise PluginError("training/label_smoothing was given no trainer (context.trainer)")
        return context.trainer.fit(model, known.training, axis="training", objective=self.objective)

    def objective(self, logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        """The loss of a batch."""
        return smoothed_cross_entropy(logits, labels, self.smoothing)
