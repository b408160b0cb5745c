"""Deceptive cross-entropy: a loss that stops learning what the model has already swallowed too well."""

from __future__ import annotations

import math
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


def deceptive_cross_entropy(logits: Tensor, labels: Tensor, alpha: float, smoothing: float) -> Tensor:
    """Mean DeCE loss of a batch.

    With ``p`` the softmax and ``y`` the smoothed label (``1 - smoothing`` on the label, the rest shared by the other
    classes): ``p' = alpha * p + (1 - alpha) * y`` and ``loss = -sum(y * log p')``.

    Args:
        logits: shape (n, classes).
        labels: shape (n,), class numbers.
        alpha: weight of the model's own prediction; at 1 this is cross-entropy with label smoothing.
        smoothing: in [0, 1).

    Returns:
        a scalar.
    """
    classes = logits.shape[-1]
    smoothed = torch.full_like(logits, smoothing / max(classes - 1, 1))
    # A lone class has nothing to share with: its label stays whole.
    smoothed.scatter_(1, labels.unsqueeze(1), 1.0 - smoothing if classes > 1 else 1.0)
    # The released code clamps so; it also keeps a label of weight 0 from meeting log 0.
    predicted = torch.softmax(logits, dim=-1).clamp(min=1e-7, max=1.0)
    deceived = alpha * predicted + (1.0 - alpha) * smoothed
    return -(smoothed * deceived.log()).sum(dim=-1).mean()


@dataclass(frozen=True, kw_only=True)
class DeCE(TrainingRule):
    """Train with the deceptive cross-entropy instead of cross-entropy; everything else is as for an undefended victim.

    The label is mixed into the prediction, more so with every epoch (``alpha = alpha_base ** epoch``, the first epoch is
    1), which bounds the gradient of samples that the model gets wrong late in training: the poison, so the paper argues.

    Source: Yang, Chen, et al., "DeCE: Deceptive Cross-Entropy Loss Designed for Defending Backdoor Attacks",
    arXiv 2407.08956; the defaults, the smoothing over the *other* classes, the clamp at 1e-7 and the count of epochs from 1
    are the released code's.

    What is a port: the paper trains generators and sums over output tokens; here it is one prediction a sample. In code
    search the trainer's prediction is the softmax over the programs of a batch with the own program as the label, and the
    loss is applied to that. The paper trains for 20 epochs; after 3, alpha has only come down to 0.956 with the default base,
    which differs little from label smoothing alone: sweep ``alpha_base``.

    Its control is ``label_smoothing``: the same labels without the deception.

    Attributes:
        alpha_base: decay of alpha per epoch, in (0, 1].
        smoothing: label mass given to the other classes.
    """

    name = "dece"
    summary = "trains with the deceptive cross-entropy loss"
    paper = "Yang et al.: DeCE: Deceptive Cross-Entropy Loss Designed for Defending Backdoor Attacks. arXiv 2407.08956"
    needs = Needs(training_set=True)

    alpha_base: Annotated[float, Field(gt=0, le=1)] = 0.985
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train with the suite's settings and seeds, so that the loss is the only difference from the undefended victim."""
        if context.trainer is None:
            raise PluginError("training/dece was given no trainer (context.trainer)")
        return context.trainer.fit(model, known.training, axis="training", objective=self.objective)

    def objective(self, logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        """The loss of a batch after ``progress`` epochs."""
        return deceptive_cross_entropy(logits, labels, self.alpha(progress), self.smoothing)

    def alpha(self, progress: float) -> float:
        """``alpha_base ** epoch`` of the running epoch, counted from 1."""
        # A step that ends an epoch may report a progress a rounding error below or above the whole number.
        return self.alpha_base ** (math.floor(progress + 1e-6) + 1)
