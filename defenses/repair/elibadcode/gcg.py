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
- what the pass that gives the gradient says of the current string is not asked again, and the walk ``down`` never goes uphill;
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
from defenses.inversion.racing import race
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
        rung: samples that all candidates meet, see :func:`~defenses.inversion.racing.race`. A number of at least the samples makes
            every candidate meet every sample, as published.
        starts: random strings, the best of which the walk starts from.
        sure: is the best substitute of every position always among the candidates?
        walk: see :data:`Walk`.
        patience: stop after so many iterations in a row without gain; ``None`` never.
        tolerance: a gain in mean loss below this counts as none; a loss at or below it has none left to give.
    """

    iterations: int = 100
    top_k: int = 64
    width: int = 64
    rung: int = 1
    starts: int = 32
    sure: bool = True
    walk: Walk = "down"
    patience: int | None = 3
    tolerance: float = 0.01


def invert(objective: Objective, search: Search, rng: np.random.Generator) -> Inversion:
    """Search the strings that minimise an objective; the best ever seen are returned."""
    before = objective.spent
    starts = [[random_string(part, rng) for _ in range(max(search.starts, 1))] for part in objective.parts]
    current, loss = race(objective, starts, rng, rung=search.rung)
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
        return race(objective, candidates, rng, rung=search.rung, known=known)
    return race(objective, swaps, rng, rung=search.rung)


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

    Where ``sure``, the best substitute of every position is among them, so that no draw can miss what the gradient likes most.

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
    best = {group[0] for group in fitting if group} if search.sure else set()
    drawn = [i for i in rng.permutation(len(pool)) if pool[i] not in best]
    sure = [i for i, swap in enumerate(pool) if swap in best]
    return [pool[i] for i in sorted([*sure, *drawn][: search.width])]
