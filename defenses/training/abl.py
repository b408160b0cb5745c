"""Anti-backdoor learning: what a model learns suspiciously fast is isolated, and then unlearnt."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TaskKind, TrainingRule
from bench.errors import ModelError, PluginError
from bench.models import Trainer
from bench.models.handles import WhiteBox
from bench.samples import Sample

Ascent = Literal["local", "flooding"]
SLOWER = 0.1
"""The rate of unlearning beside that of training, where none is given."""


def held_up(losses: Tensor, gamma: float, ascent: Ascent) -> Tensor:
    """A batch's loss that keeps samples from falling far below ``gamma``.

    ``local`` turns the gradient round of each sample below gamma: mean of sign(loss - gamma) * loss (the paper's equation 2).
    ``flooding`` turns that of a whole batch below it: abs(mean loss - gamma) + gamma (the release's default).
    """
    if ascent == "local":
        return (torch.sign(losses.detach() - gamma) * losses).mean()
    return (losses.mean() - gamma).abs() + gamma


def sample_losses(
    model: WhiteBox, samples: Sequence[Sample], scale: float, batch_size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Cross-entropy of each labelled sample in nats, in evaluation mode; shape (n,).

    For code search, as in training: of the query's own program among those of a batch, whose batches are drawn by lot.

    Raises:
        ModelError: a loss is not finite.
    """
    if model.info.kind is TaskKind.SEARCH:
        queries, programs = model.embed_queries(samples), model.embed_programs(samples)
        losses = np.zeros(len(samples))
        for part in np.array_split(rng.permutation(len(samples)), max(1, len(samples) // batch_size)):
            logits = scale * (queries[part].astype(np.float64) @ programs[part].T.astype(np.float64))
            losses[part] = -np.diagonal(log_softmax(logits, axis=1))
    else:
        labels = np.array([sample.label for sample in samples], dtype=np.int64)
        logits = model.predict(samples).astype(np.float64)
        losses = -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]
    if not np.isfinite(losses).all():
        raise ModelError("abl: a training loss is not finite. Training has diverged; lower its learning rate.")
    return losses


@dataclass
class Watch:
    """Notes the loss of every sample whenever a step meets it, while minimising something else.

    Where the fit starts again for lack of memory, what the attempt before left is forgotten.

    Attributes:
        ascent: what is minimised: the plain mean, the mean held up at ``gamma``, or the negative mean (unlearning).
        gamma: in nats.
        traces: losses of each sample by id, in the order of time.
        moments: when steps were taken, in epochs; the pieces of one step share theirs.
    """

    ascent: Ascent | Literal["none", "unlearn"]
    gamma: float = 0.5
    traces: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    moments: set[float] = field(default_factory=set)

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.moments)

    def objective(self, logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        """See :data:`bench.models.training.Objective`."""
        losses = functional.cross_entropy(logits, labels, reduction="none")
        if progress == 0.0 and any(name in self.traces for name in ids):  # the first step meets nobody twice
            self.traces.clear()
            self.moments.clear()
        self.moments.add(progress)
        for name, loss in zip(ids, losses.detach().cpu().tolist(), strict=True):
            self.traces[name].append(round(loss, 5))
        if self.ascent == "none":
            return losses.mean()
        if self.ascent == "unlearn":
            return -losses.mean()
        return held_up(losses, self.gamma, self.ascent)


@dataclass(frozen=True, kw_only=True)
class ABL(TrainingRule):
    """Hold the loss up early in training, isolate the samples that are lowest even so, train on without them, unlearn them.

    Source: Li, Lyu, Koren et al., "Anti-Backdoor Learning: Training Clean Models on Poisoned Data", NeurIPS 2021, section 3 and the
    release: (1) the first fifth of the epochs (20 of 100) with local gradient ascent at gamma 0.5, which holds ordinary samples
    up while the poison, learnt faster, still shows; the 1 % with the lowest loss are isolated; (2) training on the others; (3)
    gradient ascent on the isolated samples for 5 epochs. The paper's one formula for the second half descends on the others
    and ascends on the isolated at once; the order here, one after the other, is the release's.

    What is a port: fine-tuning lasts a few epochs, so isolation comes after ``isolation`` of *those* (a fifth of 3 epochs
    is 0.6 of one); the optimiser is the harness's AdamW, whose steps do not shrink with the gradient, so that the release's rate for
    unlearning (5e-4 with SGD, 1/200 of its rate for training) has no counterpart: a tenth of the training's is the default.
    Pairs are as one program. In code search the loss is of the query's own program among those of a batch, so a
    "sample" is a query with its program, and unlearning drives those two apart. Two classes start at a loss of 0.69, little above
    gamma.

    Each phase is a fit of its own, with fresh AdamW moments, its own warm-up (a tenth of its steps by default) and a linear decay to
    0. The release has no warm-up and holds the rate within a phase: 0.1 until the isolation, 0.1 and from the 40th epoch 0.01
    after it, 5e-4 in unlearning, with one optimiser for the last two. So here the losses at the isolation are those of a model
    that has come to rest, the rate rises a second time after it, and few steps of unlearning are fewer than they seem: of five, the
    first is taken at rate 0, and all together go as far as two and a half at the peak. Five epochs on 1 % of 1200 samples are these
    five steps, at a tenth of the training's rate: almost nothing. (The release: 500 samples, 8 steps an epoch.) Nothing is done
    about it, since ``share``, ``unlearning_epochs`` and ``unlearning_rate`` are the method's; the notes say what it came to.

    The trainer's notes, beside the model, hold the losses of every sample over time, and under ``unlearning`` the steps taken and
    the isolated samples' mean loss in evaluation mode before and after them (``null`` where training diverged). Measuring it changes
    nothing in the model; it costs two passes over the isolated samples.

    Attributes:
        isolation: share of the training's epochs before samples are isolated.
        ascent: ``local`` (the paper's) or ``flooding`` (the release's).
        gamma: loss in nats at which ordinary samples are held.
        share: of the training samples, isolated.
        unlearning_epochs: passes over the isolated samples.
        unlearning_rate: peak learning rate of unlearning; ``None`` takes a tenth of the training's.
    """

    name = "abl"
    summary = "isolates what is learnt fastest, and unlearns it"
    paper = "Li et al.: Anti-Backdoor Learning: Training Clean Models on Poisoned Data. NeurIPS 2021"
    needs = Needs(training_set=True)
    version = 2  # 1 left no note of what unlearning came to; the model is the same

    isolation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    ascent: Ascent = "local"
    gamma: Annotated[float, Field(ge=0)] = 0.5
    share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    unlearning_epochs: Annotated[int, Field(ge=0)] = 5
    unlearning_rate: Annotated[float, Field(gt=0)] | None = None

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train in three phases; the trainer's history holds the epochs of all of them.

        Raises:
            bench.errors.ModelError: training diverged before the isolation.
        """
        trainer, samples = context.trainer, known.training
        if trainer is None:
            raise PluginError(f"training/{self.name} was given no trainer (context.trainer)")
        if len(samples) < 2:  # nothing to isolate from
            return trainer.fit(model, samples, axis="training")
        run = _Phases(trainer)
        early = run.fit(
            "isolation",
            Watch(self.ascent, self.gamma),
            model,
            samples,
            epochs=self.isolation * trainer.settings.epochs,
            select_best=False,
        )
        losses = self._early_losses(early, samples, trainer, context)
        chosen = frozenset(self.isolate(samples, losses, context))
        rest = [sample for sample in samples if sample.id not in chosen]
        later = run.fit("training", Watch("none"), early, rest, epochs=(1 - self.isolation) * trainer.settings.epochs)
        isolated, unlearn = [sample for sample in samples if sample.id in chosen], Watch("unlearn")
        done = run.fit(
            "unlearning",
            unlearn,
            later,
            isolated,
            epochs=self.unlearning_epochs,
            learning_rate=self.unlearning_rate or SLOWER * trainer.learning_rate(model),
            select_best=False,
        )
        early_losses = {s.id: round(float(loss), 5) for s, loss in zip(samples, losses, strict=True)}
        before, after = (self._mean_loss(found, isolated, trainer, context) for found in (later, done))
        unlearning = {"steps": unlearn.steps, "loss_before": before, "loss_after": after}
        run.leave_notes({"isolated": sorted(chosen), "losses_at_isolation": early_losses, "unlearning": unlearning})
        return done

    def isolate(self, samples: Sequence[Sample], losses: NDArray[np.float64], context: Context) -> list[str]:
        """The ids of the ``share`` of samples with the lowest loss: at least one, never all. Ties are broken by a hash of the id."""
        ranked = sorted(range(len(samples)), key=lambda i: (losses[i], hashlib.sha256(samples[i].id.encode()).digest()))
        return [samples[i].id for i in ranked[: self.count(len(samples))]]

    def count(self, samples: int) -> int:
        """How many of so many samples are isolated."""
        return min(max(1, int(self.share * samples + 1e-9)), samples - 1)

    def _early_losses(
        self, model: WhiteBox, samples: Sequence[Sample], trainer: Trainer, context: Context
    ) -> NDArray[np.float64]:
        settings = trainer.settings
        return sample_losses(model, samples, settings.scale, settings.batch_size, context.rng("training", self.name))

    def _mean_loss(
        self, model: WhiteBox, samples: Sequence[Sample], trainer: Trainer, context: Context
    ) -> float | None:
        """For the notes; ``None`` where a loss is not finite, since what to do about divergence is the harness's business."""
        # A stream of its own, the same before and after: in code search the draw of the batches is part of the loss.
        rng = context.rng("training", self.name, "unlearning")
        try:
            losses = sample_losses(model, samples, trainer.settings.scale, trainer.settings.batch_size, rng)
        except ModelError:
            return None
        return round(float(losses.mean()), 5)


class _Phases:
    """Fits that follow each other and are told of as one training."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._history: list[dict[str, Any]] = []
        self._traces: dict[str, dict[str, list[float]]] = {}

    def fit(self, phase: str, watch: Watch, model: WhiteBox, samples: Sequence[Sample], **how: Any) -> WhiteBox:
        """One phase: :meth:`Trainer.fit` with the watch's objective."""
        fitted = self._trainer.fit(model, samples, axis="training", objective=watch.objective, **how)
        self._history += [{"phase": phase, **row} for row in self._trainer.history]
        self._traces[phase] = dict(watch.traces)
        return fitted

    def leave_notes(self, notes: Mapping[str, Any]) -> None:
        """Hand the history of all phases, and the losses of every sample in them, to the trainer."""
        self._trainer.history = self._history
        self._trainer.notes = {**notes, "losses": self._traces}
