"""What an inversion minimises: how far clean samples are from the attacker's aim, with a string in them that is being searched.

An :class:`Objective` answers two questions, and every search (:mod:`~defenses.repair.elibadcode.gcg`, ``dbs``, ``gradient_free``) asks
these two alone: what is the loss of these candidates on these samples, and how does the loss change with the embeddings of the string?
Both are asked at the same positions, in evaluation mode, of a private copy of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.context import Cost
from defenses.inversion.scoring import Scorer, Site
from defenses.inversion.vocabulary import Vocabulary

Trigger = tuple[int, ...]
"""Token ids."""
Strings = tuple[Trigger, ...]
"""One string for each part of an objective."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """One of the strings that are searched together: the trigger in the programs, or (code search) the target word in the queries.

    Attributes:
        name: ``trigger`` or ``word``.
        vocabulary: what may stand in it, and where.
        length: tokens that are searched; the vocabulary's separator is not counted.
    """

    name: str
    vocabulary: Vocabulary
    length: int

    @property
    def size(self) -> int:
        """Tokens of the string, separator included."""
        return self.length + len(self.vocabulary.glue)

    @property
    def slots(self) -> tuple[int, ...]:
        """The positions that are searched."""
        return tuple(i for i in range(self.size) if i not in self.vocabulary.separator)


@dataclass(frozen=True, slots=True)
class Inversion:
    """What a search found.

    Attributes:
        strings: one a part; the first is the trigger.
        loss: their mean loss over all samples.
        trace: (tokens spent so far, forward and backward; loss of the best strings so far), at the start and after each iteration.
    """

    strings: Strings
    loss: float
    trace: tuple[tuple[int, float], ...]

    @property
    def trigger(self) -> Trigger:
        """The first part's string."""
        return self.strings[0]

    @property
    def iterations(self) -> int:
        """Iterations that were run."""
        return len(self.trace) - 1


@dataclass(frozen=True, eq=False)
class Slope:
    """The loss at one point, and where it falls.

    Attributes:
        loss: mean over all samples.
        gradients: of that loss by the embeddings of each part's string, float32 of shape (size, width). Multiplied by embedding
            rows it is the gradient by the one-hot vectors, for those rows alone.
        encoded: what :meth:`Objective.encode` gives for this point on all samples, for each part: (1, samples, …).
    """

    loss: float
    gradients: tuple[Tensor, ...]
    encoded: tuple[Floats, ...]


class Objective(ABC):
    """A mean loss over ``samples`` clean samples, as a function of one string a part."""

    parts: tuple[Part, ...]
    samples: int
    rows: Tensor
    """The model's input embeddings, (vocabulary, width)."""
    cost: Cost
    """Counts every token that went through the model for this objective."""

    @property
    def spent(self) -> int:
        """Tokens that went forward and backward so far."""
        return self.cost.forward_tokens + self.cost.backward_tokens

    @abstractmethod
    def encode(self, part: int, candidates: Sequence[Sequence[int]], samples: Sequence[int]) -> Floats:
        """What the model makes of some samples with each candidate in them: (candidates, samples, …).

        Encodings of further samples are appended along axis 1, so no sample is ever encoded twice for a candidate.
        """

    @abstractmethod
    def table(self, encoded: Sequence[Floats]) -> Floats:
        """Mean loss of every combination of candidates over the samples encoded: one axis a part."""

    @abstractmethod
    def slope(self, embeddings: Sequence[Tensor]) -> Slope:
        """Loss and gradients at strings given as embeddings (size, width), real tokens' or blends of them, on all samples."""

    @abstractmethod
    def quiet(self) -> AbstractContextManager[None]:
        """Evaluation mode for a block, where an objective was built to search with dropout on."""

    def loss(self, strings: Sequence[Sequence[int]]) -> float:
        """Mean loss of one combination over all samples."""
        return float(self.losses([strings])[0])

    def losses(self, choices: Sequence[Sequence[Sequence[int]]]) -> Floats:
        """Mean loss over all samples of each choice of one string a part: (choices,). A string's length is free here."""
        everything = range(self.samples)
        distinct = [list(dict.fromkeys(tuple(choice[part]) for choice in choices)) for part in range(len(self.parts))]
        table = self.table([self.encode(part, strings, everything) for part, strings in enumerate(distinct)])
        places = [
            tuple(strings.index(tuple(choice[part])) for part, strings in enumerate(distinct)) for choice in choices
        ]
        return np.array([table[place] for place in places])


class TowardsClass(Objective):
    """Mean cross-entropy towards a class, in nats, over programs (or first programs of pairs) with the trigger in their hole.

    Candidates are scored where the gradient is taken, unless ``scored`` gives other holes (the release's defect, for its variant).
    """

    def __init__(
        self, scorer: Scorer, sites: Sequence[Site], target: int, part: Part, scored: Sequence[Site] | None = None
    ) -> None:
        self.scorer, self.sites, self.target = scorer, list(sites), target
        self.scored = self.sites if scored is None else list(scored)
        self.parts = (part,)
        self.samples = len(sites)
        self.rows = scorer.model.network.embedding.weight.detach()
        self.cost = scorer.model.cost

    def encode(self, part: int, candidates: Sequence[Sequence[int]], samples: Sequence[int]) -> Floats:
        """Losses (candidates, samples)."""
        rows = [self.scored[i].filled(candidate) for candidate in candidates for i in samples]
        return self.scorer.losses(rows, self.target).reshape(len(candidates), len(samples))

    def table(self, encoded: Sequence[Floats]) -> Floats:
        """Means over the samples."""
        (losses,) = encoded
        means: Floats = losses.mean(axis=1)
        return means

    def slope(self, embeddings: Sequence[Tensor]) -> Slope:
        """One forward and backward pass over all samples."""
        (embedding,) = embeddings
        losses, gradient = self.scorer.gradient(self.sites, embedding, self.target)
        return Slope(float(losses.mean()), (gradient,), (losses[None, :],))

    def quiet(self) -> AbstractContextManager[None]:
        """The scorer in evaluation mode."""
        return self.scorer.quiet()
