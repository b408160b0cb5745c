"""Step 4: keep the tokens that carry the effect.

Source: EliBadCode (FSE 2025), "trigger anchoring", Algorithm 2 lines 29-39 of its online appendix: with l the loss of the whole
trigger and l_i the loss without token i, keep token i iff ``|l - l_i| > beta``. The release compares with a loss that was
measured under dropout during the search, drops the absolute value, and returns the empty string when every token is
redundant by itself (two tokens that stand in for each other). Here l is measured again, in evaluation mode, and when the rule
fails (nothing left, or what is left has another loss than the whole), tokens go one at a time instead, always the one whose
removal changes the loss least, as long as the loss of what remains stays within beta of l. At least one token remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from defenses.inversion.scoring import Scorer, Site


@dataclass(frozen=True, slots=True)
class Anchored:
    """The tokens that are kept.

    Attributes:
        trigger: token ids, in their order, at least one.
        loss: of these tokens alone, mean over the sites, in nats.
        whole: loss of the trigger that came in.
        changes: ``|l - l_i|`` for each token that could be dropped.
        rule: ``paper`` where the published rule sufficed, else ``backward elimination``.
    """

    trigger: tuple[int, ...]
    loss: float
    whole: float
    changes: tuple[float, ...]
    rule: str


def anchor(
    scorer: Scorer,
    sites: Sequence[Site],
    trigger: Sequence[int],
    target: int,
    beta: float,
    fixed: frozenset[int] = frozenset(),
) -> Anchored:
    """Drop the tokens that the effect does not need.

    Args:
        scorer: asked for losses.
        sites: where the trigger is tried.
        trigger: at least one token outside ``fixed``.
        target: class.
        beta: change of the mean loss (nats) above which a token is needed.
        fixed: indices that are never dropped (the naming convention's separator, which was not searched either).
    """
    slots = [i for i in range(len(trigger)) if i not in fixed]

    def only(kept: Sequence[int]) -> tuple[int, ...]:
        return tuple(token for i, token in enumerate(trigger) if i in fixed or i in kept)

    def means(choices: Sequence[Sequence[int]]) -> list[float]:
        return _means(scorer, sites, [only(kept) for kept in choices], target)

    full, *without = means([slots, *_without_one(slots)])
    changes = tuple(abs(full - loss) for loss in without)
    kept = [slot for slot, change in zip(slots, changes, strict=True) if change > beta]
    if kept:
        loss = full if kept == slots else means([kept])[0]
        if abs(loss - full) <= beta:
            return Anchored(only(kept), loss, full, changes, "paper")
    kept, loss = slots, full
    while len(kept) > 1:
        shorter = _without_one(kept)
        losses = means(shorter)
        best = int(np.argmin([abs(full - each) for each in losses]))
        if abs(full - losses[best]) > beta:
            break
        kept, loss = shorter[best], losses[best]
    return Anchored(only(kept), loss, full, changes, "backward elimination")


def _without_one(slots: Sequence[int]) -> list[list[int]]:
    return [[*slots[:i], *slots[i + 1 :]] for i in range(len(slots))]


def _means(scorer: Scorer, sites: Sequence[Site], triggers: Sequence[Sequence[int]], target: int) -> list[float]:
    """Mean loss of each trigger; equal ones (a repeated token left out here or there) are tried once."""
    distinct = list(dict.fromkeys(tuple(trigger) for trigger in triggers))
    rows = [site.filled(trigger) for trigger in distinct for site in sites]
    losses = scorer.losses(rows, target).reshape(len(distinct), len(sites)).mean(axis=1)
    means = dict(zip(distinct, losses, strict=True))
    return [float(means[tuple(trigger)]) for trigger in triggers]
