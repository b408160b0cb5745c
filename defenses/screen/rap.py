"""RAP: an input whose answer a specially learnt token cannot shake is held up by a trigger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.context import Context
from bench.contracts import Access, Action, FittedScreen, Known, Needs, Screen, TaskInfo, TaskKind, Verdict
from bench.errors import ConfigError, ModelError
from bench.models.handles import WhiteBox
from bench.models.tokens import Tokens, batches, pad
from bench.samples import Sample
from defenses.screening.thresholds import conformal_threshold

Floats = NDArray[np.float64]
PLACE = 1
"""Where the token stands: behind the token that opens every row."""


@dataclass(frozen=True, kw_only=True)
class RAP(Screen):
    """Reject inputs whose answer loses less confidence than a clean input's when a learnt token is put in front.

    Source: Yang et al., "RAP: Robustness-Aware Perturbations for Defending against Backdoor Attacks on NLP Models", EMNLP 2021. The
    embedding of one rare word is learnt on clean samples, the model's weights frozen, so that the probability of their class falls by
    0.1 to 0.3; an input that falls by less than clean ones do is rejected. Learnt as in the authors' release (``lancopku/RAP`` at
    e769495, ``rap_defense.py``; OpenBackdoor has the same): 5 epochs at 1e-2 in batches of 32, plain steps along the sum of all
    gradients so far (the release never clears them, "to get faster convergence"), and the embedding's norm restored after each.

    What is a port: published, the defender protects one class, and OpenBackdoor reads which one off the poisoned data. Here each
    class has a token of its own, learnt on the clean samples of that class that the model gets right, and an input meets the token
    of the class that the model gives it: no target is known. The release's word is given (``cf``); here it is the last word of the
    vocabulary of those that the clean samples hold least often, the same for every class to begin with. The token exists as an
    embedding alone, behind the row's first token, in the first program of a pair; the last ordinary token of a full window makes room.
    Half of the clean samples teach, in an order drawn anew each epoch (the release: all of them, in theirs); the other half set
    the threshold, one for all classes: the conformal quantile of the negative fall (19 inputs for 5 %; with fewer nothing is
    rejected), where OpenBackdoor takes the 1 % quantile of the samples that taught. A class without a clean sample that the model
    gets right has an untrained token.

    Whether the token does what it is taught is another question. A run logs the share of taught samples whose fall is within the
    bounds; it was 11 of 122 on defect_detection (tiny model, dead-code trigger, seed 0, the defaults).

    Not defined for code search: a program has no class whose probability could fall.

    Attributes:
        clean: number of clean samples.
        low, high: the fall of probability that is taught lies between them.
        epochs: passes over the teaching half.
        learning_rate: of the steps, on the tokens alone.
        batch_size: samples a step.
        false_positive_rate: share of clean inputs that may be rejected.
    """

    name = "rap"
    version = 2  # 1 took Adam from the mean embedding, left the norm free, and cut what closes a full window
    summary = "rejects inputs whose answer a token learnt on clean samples cannot shake"
    paper = "Yang et al.: RAP: Robustness-Aware Perturbations for Defending against Backdoor Attacks on NLP Models. EMNLP 2021"
    kinds = frozenset({TaskKind.CLASSIFICATION, TaskKind.PAIRS})
    toy_parameters: ClassVar[Mapping[str, object]] = {"epochs": 2}

    clean: Annotated[int, Field(ge=1)] = 300
    low: Annotated[float, Field(ge=0, le=1)] = 0.1
    high: Annotated[float, Field(ge=0, le=1)] = 0.3
    epochs: Annotated[int, Field(ge=0)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    batch_size: Annotated[int, Field(ge=1)] = 32
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"screen 'rap': low ({self.low}) is above high ({self.high})")

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The weights (gradients), and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Learn the tokens and set the threshold.

        Raises:
            ModelError: an output of the model is not finite.
        """
        model = known.white_box
        # Classes are interleaved in the clean set: pairs of neighbours go to one half, so that both halves hold all classes.
        teaching = [sample for i, sample in enumerate(known.clean) if i // len(task.labels) % 2 == 0]
        setting = [sample for i, sample in enumerate(known.clean) if i // len(task.labels) % 2 == 1]
        tokens = self._learnt(model, teaching, len(task.labels), context)
        falls = falls_of(model, tokens, setting)
        return FittedRAP(model, tokens, conformal_threshold((-falls).tolist(), self.false_positive_rate))

    def _learnt(self, model: WhiteBox, samples: Sequence[Sample], classes: int, context: Context) -> Tensor:
        """One embedding a class, (classes, d); they begin as a rare word's."""
        answers = model.predict(samples).argmax(1) if samples else np.zeros(0, dtype=np.int64)
        labels = np.array([sample.label or 0 for sample in samples], dtype=np.int64)
        right = np.flatnonzero(answers == labels)
        sides = _rows(model, samples)
        word = model.network.embedding.weight.detach()[rare_word(model, sides)]
        tokens = word.repeat(classes, 1)
        gradients = torch.zeros_like(tokens)
        rng = context.rng("defense", "screen/rap")
        for _ in context.progress(range(self.epochs if len(right) else 0), "rap: learning its tokens"):
            for label in range(classes):
                order = rng.permutation(right[labels[right] == label])
                for start in range(0, len(order), self.batch_size):
                    index = order[start : start + self.batch_size].tolist()
                    batch = [[rows[i] for i in index] for rows in sides]
                    gradients[label] += self._slope(model, batch, label, tokens[label])
                    tokens[label] -= self.learning_rate * gradients[label]
                    tokens[label] *= word.norm() / tokens[label].norm().clamp(min=1e-12)
        falls = falls_of(model, tokens, [samples[i] for i in right.tolist()])
        taught = int(((falls >= self.low) & (falls <= self.high)).sum())
        context.log.info("rap: %d of %d taught samples fall by what was taught", taught, len(right))
        return tokens

    def _slope(self, model: WhiteBox, batch: Sequence[Rows], label: int, token: Tensor) -> Tensor:
        """The gradient of the loss of samples of one class by its token, (d,)."""
        token = token.detach().clone().requires_grad_()
        with torch.no_grad():
            before = _plain(model, batch)[:, label]
        fall = before - _with_token(model, batch, token.repeat(len(batch[0]), 1))[:, label]
        loss = (torch.relu(self.low - fall) + torch.relu(fall - self.high)).mean()
        (found,) = torch.autograd.grad(loss, [token])
        return found


Rows = list[list[int]]


def _rows(model: WhiteBox, samples: Sequence[Sample]) -> list[Rows]:
    """Token ids of each side of the samples."""
    sides = 2 if model.network.kind is TaskKind.PAIRS else 1
    return [model.token_ids([sample.programs[side] for sample in samples]) for side in range(sides)]


def rare_word(model: WhiteBox, sides: Sequence[Rows]) -> int:
    """The ordinary token that rows hold least often; of several the last, as vocabularies begin with what is frequent."""
    counts = Counter(token for rows in sides for row in rows for token in row)
    special = set(model.tokenizer.all_special_ids)
    ordinary = [token for token in range(model.tokenizer.vocab_size) if token not in special]
    return min(ordinary, key=lambda token: (counts[token], -token))


def with_room(row: Sequence[int], token: int, special: Collection[int], window: int) -> list[int]:
    """A row with a token behind its first one; where that is too long the last ordinary token falls out, what closes it stays."""
    place = min(PLACE, len(row))
    longer = [*row[:place], token, *row[place:]]
    if len(longer) > window:
        ordinary = [i for i in range(place + 1, len(longer)) if longer[i] not in special]
        del longer[ordinary[-1] if ordinary else -1]
    return longer


def _plain(model: WhiteBox, sides: Sequence[Rows]) -> Tensor:
    """Class probabilities (n, classes)."""
    padded = [pad(rows, model.pad_id).to(model.device) for rows in sides]
    for side in padded:
        model.cost.forward(side.ids.numel())
    found: Tensor = model.network.logits(*padded).softmax(1)
    return found


def _with_token(model: WhiteBox, sides: Sequence[Rows], embeddings: Tensor) -> Tensor:
    """Class probabilities with an embedding of its own put into each first program, (n, classes)."""
    special = set(model.tokenizer.all_special_ids)
    first = [with_room(row, model.pad_id, special, model.window) for row in sides[0]]
    padded = [pad(rows, model.pad_id).to(model.device) for rows in (first, *sides[1:])]
    embedded = model.network.embedding(padded[0].ids)
    place = torch.zeros_like(embedded[..., :1])
    place[range(len(first)), [min(PLACE, len(row)) for row in sides[0]]] = 1.0
    mixed = embedded * (1 - place) + embeddings[:, None, :] * place
    sides_in = [Tokens(padded[0].ids, padded[0].mask, mixed), *padded[1:]]
    for side in sides_in:
        model.cost.forward(side.ids.numel())
        if torch.is_grad_enabled():
            model.cost.backward(side.ids.numel())
    found: Tensor = model.network.logits(*sides_in).softmax(1)
    return found


def _chosen(probabilities: Tensor, labels: Tensor) -> Tensor:
    return probabilities.gather(1, labels[:, None])[:, 0]


def falls_of(model: WhiteBox, tokens: Tensor, samples: Sequence[Sample]) -> Floats:
    """By how much the probability of the model's own answer falls with that answer's token, (n,).

    Raises:
        ModelError: it is not finite.
    """
    sides = _rows(model, samples)
    found = np.zeros(len(samples))
    with torch.no_grad():
        for index in batches(
            [sum(len(rows[i]) for rows in sides) for i in range(len(samples))], model.settings.batch_tokens
        ):
            batch = [[rows[i] for i in index] for rows in sides]
            before = _plain(model, batch)
            answer = before.argmax(1)
            after = _chosen(_with_token(model, batch, tokens[answer]), answer)
            found[index] = (_chosen(before, answer) - after).to("cpu", torch.float64).numpy()
    if not np.isfinite(found).all():
        bad = samples[int(np.flatnonzero(~np.isfinite(found))[0])]
        raise ModelError(f"rap: the model gives input {bad.id!r} an output that is not finite; its training diverged")
    return found


@dataclass(frozen=True)
class FittedRAP(FittedScreen):
    """The model, the learnt embeddings and the threshold on the negative fall; it may be infinite."""

    model: WhiteBox
    tokens: Tensor
    threshold: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rejected above the threshold. The score is the negative fall of the answer's probability."""
        return [
            Verdict(sample.id, Action.REJECT if -fall > self.threshold else Action.ACCEPT, -float(fall))
            for sample, fall in zip(inputs, falls_of(self.model, self.tokens, inputs), strict=True)
        ]
