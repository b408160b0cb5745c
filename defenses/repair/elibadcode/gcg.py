"""Step 3: search the tokens that turn one class into another (greedy coordinate gradient, GCG).

Source: EliBadCode (FSE 2025), phase (c) and Algorithm 2 of its online appendix (the code-search form of the same search), after
GCG (Zou et al., arXiv 2307.15043): differentiate the loss towards the target with respect to the trigger's one-hot vectors; the
``top_k`` tokens with the most negative gradient at each position are substitutes; draw ``width`` single swaps; keep the best.

What makes it fast, none of which changes what is minimised (the mean loss over all sites):

- the gradient is multiplied with the embedding rows of the allowed tokens alone;
- candidates race (successive halving: Jamieson & Talwalkar, AISTATS 2016): all on a few sites, the best quarter on four times as
  many, the last few on all of them; only a loss over *all* sites is ever accepted;
- the swaps of several positions that do well in the race are also tried together, as one more candidate of the last rung;
- the pass that gives the gradient rescores the current trigger on all sites, so the walk never goes uphill;
- the search stops when ``patience`` iterations in a row gain less than ``tolerance``, or when the loss is itself no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defenses.inversion.scoring import Scorer, Site
from defenses.inversion.vocabulary import Vocabulary

Trigger = tuple[int, ...]
OVERSAMPLING = 4
"""The gradient's best ``OVERSAMPLING * top_k`` tokens of a position are tried for re-tokenisation until ``top_k`` are found."""


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of the search.

    Attributes:
        length: tokens of the trigger (n of the paper), the naming convention's separator not counted.
        iterations: at most so many (epsilon).
        top_k: substitutes of a position, by gradient (k).
        width: candidates of an iteration (r).
        rung: sites of the first rung of the race; each later rung has four times as many and a quarter of the candidates.
            A number of at least the sites makes every candidate meet every site, as published.
        starts: random triggers, the best of which the walk starts from.
        patience: stop after so many iterations in a row without gain.
        tolerance: a gain in mean loss (nats) below this counts as none; a loss at or below it has none left to give.
    """

    length: int = 5
    iterations: int = 100
    top_k: int = 64
    width: int = 64
    rung: int = 2
    starts: int = 32
    patience: int = 2
    tolerance: float = 0.02


@dataclass(frozen=True, slots=True)
class Inversion:
    """What the search found.

    Attributes:
        trigger: token ids.
        loss: mean loss towards the target over all sites, in nats.
        trace: (tokens spent so far, forward and backward; that loss) at the start and after each iteration; the loss never rises.
    """

    trigger: Trigger
    loss: float
    trace: tuple[tuple[int, float], ...]

    @property
    def iterations(self) -> int:
        """Iterations that were run."""
        return len(self.trace) - 1


def invert(
    scorer: Scorer, sites: Sequence[Site], target: int, vocabulary: Vocabulary, search: Search, rng: np.random.Generator
) -> Inversion:
    """Search a trigger that brings all sites to class ``target``."""
    rows = scorer.model.network.embedding.weight[list(vocabulary.ids)].detach()
    starts = [_random_trigger(vocabulary, search.length, rng) for _ in range(max(search.starts, 1))]
    current, loss = race(scorer, sites, starts, target, search.rung, rng)
    cost = scorer.model.cost
    before = cost.forward_tokens + cost.backward_tokens
    trace = [(0, loss)]
    stale = 0
    while len(trace) <= search.iterations and stale < search.patience and loss > search.tolerance:
        losses, gradient = scorer.gradient(sites, current, target)
        loss = float(losses.mean())
        candidates = _swaps(current, gradient @ rows.T, vocabulary, search, rng)
        gained = 0.0
        if candidates:
            best, best_loss = race(
                scorer, sites, candidates, target, search.rung, rng, merge=(current, losses, vocabulary)
            )
            gained = loss - best_loss
        if gained > 0:
            current, loss = best, best_loss
        stale = 0 if gained > search.tolerance else stale + 1
        trace.append((cost.forward_tokens + cost.backward_tokens - before, min(loss, trace[-1][1])))
    return Inversion(current, loss, tuple(trace))


def race(
    scorer: Scorer,
    sites: Sequence[Site],
    candidates: Sequence[Trigger],
    target: int,
    rung: int,
    rng: np.random.Generator,
    merge: tuple[Trigger, NDArray[np.float64], Vocabulary] | None = None,
) -> tuple[Trigger, float]:
    """Successive halving by four over candidates; sites enter in a random order, the same for all candidates.

    Args:
        scorer: asked for losses.
        sites: all of them; the winner's loss is its mean over all.
        candidates: at least one.
        target: class.
        rung: sites of the first rung.
        rng: draws the order of the sites.
        merge: current trigger, its losses by site, and the vocabulary: the survivors' swaps at different positions are then
            also tried together.

    Returns:
        The winner and its mean loss over all sites.
    """
    order = rng.permutation(len(sites))
    alive = list(candidates)
    table = np.empty((len(alive), 0))
    goal = min(max(rung, 1), len(sites))
    while True:
        fresh = order[table.shape[1] : goal]
        table = np.concatenate([table, _losses(scorer, [sites[i] for i in fresh], alive, target)], axis=1)
        if goal == len(sites):
            break
        means = table.mean(axis=1)
        ranking = np.argsort(means, kind="stable")
        seen, goal = goal, min(4 * goal, len(sites))
        keep = ranking[: max(len(alive) // 4, 1)]
        joint = None
        if merge is not None and goal == len(sites):
            joint = _merged([alive[i] for i in ranking], means[ranking], merge, order[:seen])
        alive, table = [alive[i] for i in keep], table[keep]
        if joint is not None and joint not in alive:
            alive.append(joint)
            table = np.concatenate([table, _losses(scorer, [sites[i] for i in order[:seen]], [joint], target)])
    winner = int(np.argmin(table.mean(axis=1)))
    return alive[winner], float(table[winner].mean())


def _losses(scorer: Scorer, sites: Sequence[Site], triggers: Sequence[Trigger], target: int) -> NDArray[np.float64]:
    rows = [site.filled(trigger) for trigger in triggers for site in sites]
    return scorer.losses(rows, target).reshape(len(triggers), len(sites))


def _merged(
    ranked: Sequence[Trigger],
    means: NDArray[np.float64],
    merge: tuple[Trigger, NDArray[np.float64], Vocabulary],
    seen: NDArray[np.int64],
) -> Trigger | None:
    """The best swap of every position that beat the current trigger on the sites seen so far, all at once."""
    current, losses, vocabulary = merge
    joint = list(current)
    changed = 0
    for candidate, mean in zip(ranked, means, strict=True):
        if mean >= losses[seen].mean():
            break
        for position, token in enumerate(candidate):
            if token == current[position] or joint[position] != current[position]:
                continue
            trial = [*joint[:position], token, *joint[position + 1 :]]
            if vocabulary.realisable([trial])[0]:
                joint = trial
                changed += 1
    return tuple(joint) if changed > 1 else None


def _random_trigger(vocabulary: Vocabulary, length: int, rng: np.random.Generator) -> Trigger:
    """A random trigger that re-tokenises to itself, grown token by token.

    Where no draw fits behind what is there, the last draw stays: the search then replaces it.
    """
    trigger: Trigger = ()
    for position in range(length + len(vocabulary.glue)):
        pool = sorted(vocabulary.fits(position))
        if not pool:
            trigger = (*trigger, vocabulary.glue[position - 1])
            continue
        draws = [(*trigger, pool[i]) for i in rng.integers(len(pool), size=16)]
        good = vocabulary.realisable(draws)
        trigger = draws[good.index(True) if any(good) else 0]
    return trigger


def _swaps(
    current: Trigger, scores: Tensor, vocabulary: Vocabulary, search: Search, rng: np.random.Generator
) -> list[Trigger]:
    """``width`` different single swaps of the current trigger: a random position, a random one of its ``top_k`` substitutes.

    Args:
        current: trigger.
        scores: gradient with respect to the one-hot vectors of the allowed tokens, (length, allowed); lower is better.
        vocabulary: the allowed tokens, in the order of the columns.
        search: settings.
        rng: draws.
    """
    swaps: list[list[Trigger]] = []
    for position, row in enumerate(scores):
        fits = torch.tensor([token in vocabulary.fits(position) for token in vocabulary.ids], device=row.device)
        wanted = min(OVERSAMPLING * search.top_k, int(fits.sum()))
        columns = torch.topk(-row.masked_fill(~fits, torch.inf), wanted).indices.cpu().tolist()
        tokens = [vocabulary.ids[column] for column in columns]
        swaps.append([(*current[:position], t, *current[position + 1 :]) for t in tokens if t != current[position]])
    good = iter(vocabulary.realisable([swap for group in swaps for swap in group]))
    fitting = [[swap for swap, fits in zip(group, [next(good) for _ in group], strict=True) if fits] for group in swaps]
    pool = [swap for group in fitting for swap in group[: search.top_k]]
    chosen = rng.permutation(len(pool))[: search.width]
    return [pool[i] for i in sorted(chosen)]
