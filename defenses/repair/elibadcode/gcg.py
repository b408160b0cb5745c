"""Step 3: search the tokens that bring the attacker's aim about (greedy coordinate gradient, GCG).

Source: EliBadCode (FSE 2025), phase (c) and Algorithm 2 of its online appendix, after GCG (Zou et al., arXiv 2307.15043):
differentiate the loss with respect to the string's one-hot vectors; the ``top_k`` tokens with the most negative gradient at each
position are substitutes; draw ``width`` single swaps; keep the best. For code search trigger and target word are searched together,
and all ``width`` x ``width`` combinations are scored (lines 23-24), here from ``width`` + ``width`` encodings.

What makes it fast, none of which changes what is minimised (the mean loss over all samples):

- the gradient is multiplied with the embedding rows of the allowed tokens alone;
- candidates race (successive halving: Jamieson & Talwalkar, AISTATS 2016): all on a few samples, the best on more, the last few
  on all of them; only a loss over *all* samples is ever accepted;
- swaps of several positions that do well in the race are also tried together, as one more candidate of the last rung;
- what the pass that gives the gradient says of the current string is not asked again, and the walk never goes uphill;
- the search stops when ``patience`` iterations in a row gain less than ``tolerance``, or when the loss is itself no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from defenses.inversion.objective import Floats, Inversion, Objective, Part, Strings, Trigger
from defenses.inversion.starts import random_string

OVERSAMPLING = 4
"""The gradient's best ``OVERSAMPLING * top_k`` tokens of a position are tried for re-tokenisation until ``top_k`` are found."""

Walk = Literal["down", "best", "new"]
"""Where an iteration moves: to a better candidate or nowhere; to the best candidate, even uphill; to the best one never visited."""


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of the search.

    Attributes:
        iterations: at most so many (epsilon).
        top_k: substitutes of a position, by gradient (k).
        width: candidates of an iteration, for each part (r).
        rung: samples of the first rung of the race; each later rung has ``growth`` times as many and that part of the candidates.
            A number of at least the samples makes every candidate meet every sample, as published.
        growth: see ``rung``.
        starts: random strings, the best of which the walk starts from.
        walk: see :data:`Walk`.
        patience: stop after so many iterations in a row without gain; ``None`` never.
        tolerance: a gain in mean loss below this counts as none; a loss at or below it has none left to give.
    """

    iterations: int = 100
    top_k: int = 64
    width: int = 64
    rung: int = 2
    growth: int = 4
    starts: int = 32
    walk: Walk = "down"
    patience: int | None = 2
    tolerance: float = 0.02


def invert(objective: Objective, search: Search, rng: np.random.Generator) -> Inversion:
    """Search the strings that minimise an objective; the best ever seen are returned."""
    before = objective.spent
    starts = [[random_string(part, rng) for _ in range(max(search.starts, 1))] for part in objective.parts]
    current, loss = race(objective, starts, search, rng)
    best, best_loss = current, loss
    trace = [(objective.spent - before, best_loss)]
    visited = {current}
    stale = 0
    while len(trace) <= search.iterations and not _over(search, stale, best_loss):
        slope = objective.slope([objective.rows[list(string)] for string in current])
        kept = best_loss
        swaps = [
            _swaps(part, string, gradient, objective.rows, search, rng, visited if search.walk == "new" else ())
            for part, string, gradient in zip(objective.parts, current, slope.gradients, strict=True)
        ]
        if all(swaps):
            current, loss = _move(objective, current, swaps, slope.encoded, search, rng)
            visited.add(current)
        if loss < best_loss:
            best, best_loss = current, loss
        stale = 0 if kept - best_loss > search.tolerance else stale + 1
        trace.append((objective.spent - before, best_loss))
    return Inversion(best, best_loss, tuple(trace))


def _over(search: Search, stale: int, loss: float) -> bool:
    return search.patience is not None and (stale >= search.patience or loss <= search.tolerance)


def _move(
    objective: Objective,
    current: Strings,
    swaps: Sequence[Sequence[Trigger]],
    known: Sequence[Floats],
    search: Search,
    rng: np.random.Generator,
) -> tuple[Strings, float]:
    if search.walk == "down":
        candidates = [[string, *own] for string, own in zip(current, swaps, strict=True)]
        return race(objective, candidates, search, rng, known)
    return race(objective, swaps, search, rng)


def race(
    objective: Objective,
    candidates: Sequence[Sequence[Trigger]],
    search: Search,
    rng: np.random.Generator,
    known: Sequence[Floats] | None = None,
) -> tuple[Strings, float]:
    """Successive halving over the candidates of each part; samples enter in a random order, the same for all candidates.

    Args:
        objective: asked for losses.
        candidates: of each part, at least one.
        search: ``rung`` and ``growth``.
        rng: draws the order of the samples.
        known: encodings on all samples of each part's *first* candidate, the current string, which then never leaves the race and
            to which the swaps that beat it are also applied together.

    Returns:
        The winning strings and their mean loss over all samples.
    """
    order = rng.permutation(objective.samples)
    racers = [_Racers(objective, part, list(own), order, known) for part, own in enumerate(candidates)]
    goal = min(max(search.rung, 1), len(order))
    while True:
        for each in racers:
            each.run(goal)
        table = objective.table([each.encoded for each in racers])
        if goal == len(order):
            break
        goal = min(search.growth * goal, len(order))
        for axis, each in enumerate(racers):
            others = tuple(i for i in range(len(racers)) if i != axis)
            # What a swap does by itself: the other parts as they are.
            alone = table[tuple(slice(None) if i == axis else 0 for i in range(len(racers)))]
            joint = each.joint(alone) if known is not None and goal == len(order) else None
            each.halve(table.min(axis=others), search.growth, joint)
    winner = np.unravel_index(int(np.argmin(table)), table.shape)
    return tuple(each.alive[i] for each, i in zip(racers, winner, strict=True)), float(table[winner])


class _Racers:
    """The candidates of one part that are still in the race, and what the samples so far made of them."""

    def __init__(
        self,
        objective: Objective,
        part: int,
        candidates: list[Trigger],
        order: np.ndarray[tuple[int], np.dtype[np.int64]],
        known: Sequence[Floats] | None,
    ) -> None:
        self.alive = candidates
        self._objective, self._part, self._order = objective, part, order
        self._known = None if known is None else known[part]
        self._seen = 0
        self.encoded: Floats = np.empty((len(candidates), 0))

    def run(self, goal: int) -> None:
        """Meet the samples up to the ``goal``-th of the order."""
        fresh = self._encode(self.alive, self._order[self._seen : goal].tolist(), first_known=self._known is not None)
        self.encoded = fresh if self._seen == 0 else np.concatenate([self.encoded, fresh], axis=1)
        self._seen = goal

    def _encode(self, strings: Sequence[Trigger], samples: Sequence[int], *, first_known: bool) -> Floats:
        if not first_known or self._known is None:
            return self._objective.encode(self._part, strings, samples)
        known = self._known[:, samples]
        return (
            np.concatenate([known, self._objective.encode(self._part, strings[1:], samples)]) if strings[1:] else known
        )

    def halve(self, losses: Floats, growth: int, joint: Trigger | None) -> None:
        """Keep the best; the current string, which costs nothing, stays in front."""
        ranking = np.argsort(losses, kind="stable")
        keep = list(ranking[: max(len(self.alive) // growth, 1)])
        if self._known is not None:
            keep = [0, *(i for i in keep if i != 0)]
        self.alive, self.encoded = [self.alive[i] for i in keep], self.encoded[keep]
        if joint is not None and joint not in self.alive:
            fresh = self._encode([joint], self._order[: self._seen].tolist(), first_known=False)
            self.alive, self.encoded = [*self.alive, joint], np.concatenate([self.encoded, fresh])

    def joint(self, losses: Floats) -> Trigger | None:
        """The best swap of every position that beat the current string on the samples so far, all at once."""
        current, vocabulary = self.alive[0], self._objective.parts[self._part].vocabulary
        together, changed = list(current), 0
        for index in np.argsort(losses, kind="stable"):
            if losses[index] >= losses[0]:
                break
            for position, token in enumerate(self.alive[index]):
                if token == current[position] or together[position] != current[position]:
                    continue
                trial = [*together[:position], token, *together[position + 1 :]]
                if vocabulary.realisable([trial])[0]:
                    together = trial
                    changed += 1
        return tuple(together) if changed > 1 else None


def _swaps(
    part: Part,
    current: Trigger,
    gradient: Tensor,
    rows: Tensor,
    search: Search,
    rng: np.random.Generator,
    banned: Sequence[Strings] | set[Strings],
) -> list[Trigger]:
    """``width`` different single swaps of the current string: a random position, a random one of its ``top_k`` substitutes.

    Args:
        part: what may stand where.
        current: string.
        gradient: by its embeddings, (size, width of the model).
        rows: the model's embeddings.
        search: settings.
        rng: draws.
        banned: strings of all parts that were visited and may not come again (one part only).
    """
    vocabulary = part.vocabulary
    scores = gradient @ rows[list(vocabulary.ids)].T.to(gradient.dtype)
    swaps: list[list[Trigger]] = []
    for position, row in enumerate(scores):
        fits = torch.from_numpy(vocabulary.mask(position)).to(row.device)
        wanted = min(OVERSAMPLING * search.top_k, int(fits.sum()))
        columns = torch.topk(-row.masked_fill(~fits, torch.inf), wanted).indices.cpu().tolist()
        tokens = [vocabulary.ids[column] for column in columns]
        swaps.append([(*current[:position], t, *current[position + 1 :]) for t in tokens if t != current[position]])
    good = iter(vocabulary.realisable([swap for group in swaps for swap in group]))
    fitting = [[swap for swap, fits in zip(group, [next(good) for _ in group], strict=True) if fits] for group in swaps]
    pool = [swap for group in fitting for swap in group[: search.top_k] if (swap,) not in banned]
    chosen = rng.permutation(len(pool))[: search.width]
    return [pool[i] for i in sorted(chosen)]
