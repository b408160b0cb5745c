"""Dynamic Bound Scaling: invert a trigger as a blend of tokens that is cooled down to single ones, and unlearn it.

G. Shen et al., "Constrained Optimization with Dynamic Bound-scaling for Effective NLP Backdoor Defense", ICML 2022, arXiv 2202.05749.
Each of ``length`` positions holds softmax(w / temperature) over the allowed tokens; Adam minimises the loss of the blended embeddings
over w. Every ``every`` epochs, a loss below the bound halves the temperature (blends become tokens), and any other loss rolls it back,
with noise to leave the local optimum; a blend that is nearly one-hot at a loss within the bound is recorded, and the bound
halves, so that the search goes on for a better one.

*Published* is the authors' release (``PurduePAML/DBS``, ``trojai_r6``) and *port* the one in EliBadCode's release
(``wssun/EliBadCode`` at e315360), both from notes on what they do; "not known" means that the notes do not say it.

Whether a rollback's noise stays was open, and is decided in the method's favour: noise that stays in w is as large as 20 steps of Adam,
and a search that does not meet its bound early is soon a random walk. On the conformance suite's toy victims (100 epochs, 5 tokens,
median of 3 seeds) passing noise ended at the lower loss in 9 of 10 claims. Rollbacks happen from the first check on, whether or not the
bound was ever met, so that a bound that is never met is relaxed.

=====================  ==================================  ==================================  ==================================
what                   published                           EliBadCode's port                   here
=====================  ==================================  ==================================  ==================================
length, epochs         10, 200                             5, 100                              10, 200
samples                the victim examples supplied        10                                  ``victims`` of each class
direction              scans label pairs                   told: target 0                      every label direction
places                 token 1 and token 50                token 1                             one name of each sample, as EliBadCode
vocabulary             whole, no language filter           whole                               whole, special tokens out;
                                                                                               ``alphabet="language"``: EliBadCode's
temperature            2 at first and at most; / 2 below   the same                            the same; at least 1e-6, where
                       the bound, else * 2 (the                                                float32 ends
                       configured 5 is unused)
optimiser              Adam 0.5, StepLR(50, 0.5)           the same                            the same
start                  not known                           not known                           w = 0: all tokens alike
noise                  10; what is drawn, and whether it   10                                  uniform in [0, 10), on the logits of
                       stays, not known                                                        the next epoch alone;
                                                                                               ``shaken="weights"``: on w, to stay
bound relaxed          after 5 rollbacks, to               never (commented out)               as published; rollbacks count from the
                       min(2 * bound, best - 0.001)                                            last success or relaxation; *best* is
                                                                                               the lowest loss recorded, infinite
                                                                                               before the first
bound after success    halves                              halves                              halves
recorded               near one-hot (0.001) and loss       any lower loss as well              as published
                       within the bound
nothing recorded       not known                           does not occur                      the argmax with the lowest loss of
                                                                                               those re-scored, and
                                                                                               ``near_one_hot`` is false
loss reported          the blend's                         the blend's                         of the discrete tokens, re-scored
benign reference       a penalty that compares with a      none                                none: no clean model is known
                       clean model
code search            not defined                         trigger and word; pairs of a query  trigger and word, one temperature and
                                                           with its own program left out       one bound; all pairs
code search: word      not defined                         4 tokens                            2 tokens (EliBadCode's length), of
                                                                                               lower-case letters
anchoring              none                                none                                none: all tokens are kept
unlearning             not known                           EliBadCode's (inferred)             as EliBadCode here, and a trigger that
                                                                                               is no name stands instead of one
                                                                                               occurrence of a name
=====================  ==================================  ==================================  ==================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench.contracts import TaskInfo
from bench.languages import Program
from bench.models.handles import WhiteBox
from bench.samples import Edit
from defenses.inversion.objective import Inversion, Objective, Part, Strings, Trigger
from defenses.inversion.repair import InversionRepair, Kept
from defenses.inversion.unlearning import PLACES, Lesson, Place, Unlearning
from defenses.inversion.vocabulary import Vocabulary, every_token

Shaken = Literal["blend", "weights"]
"""What a rollback's noise is added to: the logits of the next epoch's blend, once; or the weights, for good."""


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of the search; the defaults are the published ones.

    Attributes:
        epochs: steps of Adam, each on all samples.
        rate: of Adam, multiplied by ``decay`` every ``decay_every`` epochs.
        temperature: of the softmax, at first and at most.
        factor: by which the temperature falls and rises.
        every: epochs between two checks of the loss against the bound.
        bound: on the loss, at first.
        noise: of a rollback: uniform from 0 to this.
        rollbacks: without success, after which the bound is relaxed.
        one_hot: a share of at least ``1 - one_hot`` at every position is nearly one-hot.
        shaken: see :data:`Shaken`.
    """

    epochs: int = 200
    rate: float = 0.5
    decay: float = 0.5
    decay_every: int = 50
    temperature: float = 2.0
    factor: float = 2.0
    every: int = 5
    bound: float = 0.1
    noise: float = 10.0
    rollbacks: int = 5
    one_hot: float = 1e-3
    shaken: Shaken = "blend"


RELAXED_BELOW = 1e-3
"""A relaxed bound stays so far below the lowest loss recorded."""
COLDEST = 1e-6
"""Below this temperature w / temperature leaves float32; blends are single tokens long before."""


@dataclass(frozen=True, slots=True)
class State:
    """Temperature and bound, and what decides their next change.

    Attributes:
        temperature: of the softmax.
        bound: on the loss; at or below 0 (after a recorded loss below :data:`RELAXED_BELOW`) nothing can meet it any more.
        best: lowest loss of a recorded blend; infinite before the first.
        rollbacks: since the last success or relaxation.
    """

    temperature: float
    bound: float
    best: float = math.inf
    rollbacks: int = 0

    def stuck(self, loss: float) -> bool:
        """Does this loss call for a rollback?"""
        return not loss < self.bound

    def checked(self, loss: float, search: Search) -> State:
        """After a check of the last epoch's loss against the bound: cooler, or rolled back."""
        if not self.stuck(loss):
            return replace(self, temperature=max(self.temperature / search.factor, COLDEST))
        warmer = replace(
            self,
            temperature=min(self.temperature * search.factor, search.temperature),
            rollbacks=self.rollbacks + 1,
        )
        if warmer.rollbacks < search.rollbacks:
            return warmer
        return replace(warmer, bound=min(2 * self.bound, self.best - RELAXED_BELOW), rollbacks=0)

    def succeeded(self, loss: float) -> State:
        """After a nearly one-hot blend with a loss within the bound."""
        return replace(self, bound=self.bound / 2, best=min(self.best, loss), rollbacks=0)


class Blend:
    """The string of one part as weights over the allowed tokens of each position that is searched.

    Attributes:
        weights: w, float32 of shape (slots, allowed tokens), a leaf of the autograd graph; 0 at first.
        shift: added to the logits w / temperature; 0 at first.
    """

    def __init__(self, part: Part, rows: Tensor) -> None:
        vocabulary = part.vocabulary
        self._vocabulary = vocabulary
        self._rows = rows[list(vocabulary.ids)].float()
        self._glue = rows[list(vocabulary.glue)].float()
        fits = np.stack([vocabulary.mask(slot) for slot in part.slots])
        self._barred = torch.from_numpy(~fits).to(rows.device)
        self.weights = torch.zeros(fits.shape, device=rows.device, requires_grad=True)
        self.shift = torch.zeros(fits.shape, device=rows.device)

    def _logits(self, temperature: float) -> Tensor:
        return (self.weights / temperature + self.shift).masked_fill(self._barred, -torch.inf)

    def shares(self, temperature: float) -> Tensor:
        """The softmax at each position: (slots, allowed tokens)."""
        return self._logits(temperature).softmax(dim=1)

    def embeddings(self, temperature: float) -> Tensor:
        """The blended embeddings, separator in its place: (size, width), differentiable in the weights."""
        soft = self.shares(temperature) @ self._rows
        return torch.cat([soft[:1], self._glue, soft[1:]])

    def one_hot(self, temperature: float, within: float) -> bool:
        """Is one token's share at least ``1 - within`` at every position?"""
        return bool((1 - self.shares(temperature).detach().amax(dim=1) <= within).all())

    def shake(self, noise: float, shaken: Shaken, rng: np.random.Generator) -> None:
        """Add uniform noise from [0, ``noise``)."""
        drawn = torch.from_numpy(rng.random(tuple(self.weights.shape), dtype=np.float32) * np.float32(noise))
        if shaken == "blend":
            self.shift += drawn.to(self.shift.device)
        else:
            with torch.no_grad():
                self.weights += drawn.to(self.weights.device)

    def settle(self) -> None:
        """Take the shift back."""
        self.shift.zero_()

    def tokens(self, temperature: float) -> Trigger:
        """The token with the largest share at each position, separator in its place; the first of equals."""
        largest = self._logits(temperature).detach().cpu().numpy().argmax(axis=1)
        first, *others = (self._vocabulary.ids[column] for column in largest)
        return (first, *self._vocabulary.glue, *others)


@dataclass(frozen=True, slots=True)
class Relaxed(Inversion):
    """What the search found: discrete strings, and how the blends got there.

    ``loss`` is that of the discrete strings. ``trace`` has a point at the start, at each check and at the end: the lowest discrete loss of
    all strings scored so far, whether recorded or not.

    Attributes:
        epochs: that were run.
        recorded: different strings that a nearly one-hot blend within the bound stood for. With none, the strings are the best
            argmax of a blend that was perhaps far from any token.
        state: at the end.
    """

    epochs: int
    recorded: int
    state: State

    @property
    def iterations(self) -> int:
        """Epochs that were run."""
        return self.epochs


class _Book:
    """Discrete strings and their losses, each scored once."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._start = objective.spent
        self._losses: dict[Strings, float] = {}
        self._recorded: set[Strings] = set()
        self.trace: list[tuple[int, float]] = []

    def score(self, strings: Strings) -> None:
        """Score strings that were not scored before."""
        if strings not in self._losses:
            self._losses[strings] = self._objective.loss(strings)

    def record(self, strings: Strings) -> None:
        """A nearly one-hot blend met the bound."""
        self.score(strings)
        self._recorded.add(strings)

    def point(self, strings: Strings) -> None:
        """Add a point to the trace."""
        self.score(strings)
        self.trace.append((self._objective.spent - self._start, min(self._losses.values())))

    def found(self, epochs: int, state: State) -> Relaxed:
        """The best recorded strings, or the best scored where none was recorded."""
        choice = {s: loss for s, loss in self._losses.items() if s in self._recorded} or self._losses
        best = min(choice, key=lambda strings: choice[strings])
        return Relaxed(best, choice[best], tuple(self.trace), epochs, len(self._recorded), state)


def invert(objective: Objective, search: Search, rng: np.random.Generator) -> Relaxed:
    """Search the strings that minimise an objective; all its parts share one temperature and one bound."""
    blends = [Blend(part, objective.rows) for part in objective.parts]
    adam = torch.optim.Adam([blend.weights for blend in blends], lr=search.rate)
    schedule = torch.optim.lr_scheduler.StepLR(adam, search.decay_every, search.decay)
    state = State(search.temperature, search.bound)
    book = _Book(objective)
    loss = math.inf
    for epoch in range(search.epochs):
        if epoch % search.every == 0:
            book.point(_discrete(blends, state.temperature))
        if epoch and epoch % search.every == 0:
            if state.stuck(loss):
                for blend in blends:
                    blend.shake(search.noise, search.shaken, rng)
            state = state.checked(loss, search)
        loss = _backward(objective, blends, state.temperature)
        if loss <= state.bound and all(blend.one_hot(state.temperature, search.one_hot) for blend in blends):
            book.record(_discrete(blends, state.temperature))
            state = state.succeeded(loss)
        adam.step()
        schedule.step()
        for blend in blends:
            blend.settle()
    book.point(_discrete(blends, state.temperature))
    return book.found(search.epochs, state)


def _discrete(blends: Sequence[Blend], temperature: float) -> Strings:
    return tuple(blend.tokens(temperature) for blend in blends)


def _backward(objective: Objective, blends: Sequence[Blend], temperature: float) -> float:
    """The loss of the blends; its gradients by their weights are left in ``weights.grad``."""
    embeddings = [blend.embeddings(temperature) for blend in blends]
    slope = objective.slope([each.detach() for each in embeddings])
    for blend in blends:
        blend.weights.grad = None
    torch.autograd.backward(embeddings, slope.gradients)
    return slope.loss


def instead_of_a_name(program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    """The text as it is in the place of one occurrence of a name and the space in front of it, where it was inverted. May not parse."""
    names = [name for name in (program.function_name, *program.parameters, *program.locals) if name is not None]
    spans = [span for name in names for span in name.spans]
    if not spans:
        return ()
    start, end = spans[int(rng.integers(len(spans)))]
    spaced = start > 0 and program.text.encode()[start - 1 : start] == b" "
    return (Edit(start - spaced, end, text),)


def _without_spaces(place: Place, program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    return place(program, text.strip(), rng)


TEXT_PLACES: tuple[Place, ...] = (*(partial(_without_spaces, place) for place in PLACES), instead_of_a_name)
"""Where a trigger that need not be a name is put: where names can stand, if it is one, and instead of a name."""


@dataclass(frozen=True, kw_only=True)
class DynamicBoundScaling(InversionRepair):
    """Relax a trigger to blends of tokens for every claim, cool them down under a falling bound, and unlearn what works.

    Attributes:
        length: tokens of the trigger (n = 10).
        alphabet: what a trigger is made of: ``whole``: any token but the special ones, as published; ``language``: the names of the
            language, as in EliBadCode.
        iterations: epochs of each claim (200).
        rate: of Adam (0.5).
        temperature: of the softmax, at first and at most (2).
        every: epochs between two checks of the loss against the bound (5).
        bound: on the loss, at first (0.1): nats, or for code search the mean squared gap.
        noise: of a rollback (10).
        rollbacks: without success, after which the bound is relaxed (5).
        one_hot: how far from one-hot a recorded blend may be (0.001).
        shaken: what a rollback's noise is added to: the next epoch's blend, or the weights for good.
    """

    name = "dbs"
    summary = "inverts a trigger as a blend of tokens under a falling loss bound and unlearns it"
    paper = (
        "Shen et al., Constrained Optimization with Dynamic Bound-scaling for Effective NLP Backdoor Defense, ICML 2022"
    )
    toy_parameters: ClassVar[Mapping[str, object]] = {"iterations": 40, "length": 4, "victims": 8}

    length: Annotated[int, Field(ge=1)] = 10
    alphabet: Literal["language", "whole"] = "whole"
    iterations: Annotated[int, Field(ge=0)] = 200
    rate: Annotated[float, Field(gt=0)] = 0.5
    temperature: Annotated[float, Field(gt=0)] = 2.0
    every: Annotated[int, Field(ge=1)] = 5
    bound: Annotated[float, Field(gt=0)] = 0.1
    noise: Annotated[float, Field(ge=0)] = 10.0
    rollbacks: Annotated[int, Field(ge=1)] = 5
    one_hot: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    shaken: Shaken = "blend"

    def vocabulary(self, model: WhiteBox, task: TaskInfo) -> Vocabulary:
        """See ``alphabet``."""
        if self.alphabet == "language":
            return super().vocabulary(model, task)
        return every_token(model.tokenizer, model.network.embedding.num_embeddings)

    def search(self) -> Search:
        """The search's settings."""
        return Search(
            epochs=self.iterations,
            rate=self.rate,
            temperature=self.temperature,
            every=self.every,
            bound=self.bound,
            noise=self.noise,
            rollbacks=self.rollbacks,
            one_hot=self.one_hot,
            shaken=self.shaken,
        )

    def invert(self, objective: Objective, rng: np.random.Generator) -> Relaxed:
        """Search the strings that minimise an objective."""
        return invert(objective, self.search(), rng)

    def keep(self, objective: Objective, inversion: Inversion) -> Kept:
        """All tokens; the facts say whether blends became tokens."""
        assert isinstance(inversion, Relaxed)
        facts: dict[str, object] = {
            "near_one_hot": inversion.recorded > 0,
            "recorded": inversion.recorded,
            "bound": inversion.state.bound,
            "temperature": inversion.state.temperature,
        }
        return Kept(inversion.strings, inversion.loss, facts)

    def own_unlearning(self) -> Unlearning:
        """As EliBadCode's; a trigger of any tokens also stands where it was inverted, name or not."""
        return Unlearning(Lesson(places=TEXT_PLACES if self.alphabet == "whole" else PLACES))

    def facts(self) -> Mapping[str, object]:
        """The alphabet."""
        return {"alphabet": self.alphabet}
