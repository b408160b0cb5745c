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

from defenses.repair.elibadcode.scoring import Scorer, Site


@dataclass(frozen=True, slots=True)
class Anchored:
    """The tokens that are kept.

    Attributes:
        trigger: token ids, in their order, at least one.
        loss: of these tokens alone, mean over the sites, in nats.
        whole: loss of the trigger that came in.
        changes: ``|l - l_i|`` for each token that came in.
        rule: ``paper`` where the published rule sufficed, else ``backward elimination``.
    """

    trigger: tuple[int, ...]
    loss: float
    whole: float
    changes: tuple[float, ...]
    rule: str


def anchor(scorer: Scorer, sites: Sequence[Site], trigger: Sequence[int], target: int, beta: float) -> Anchored:
    """Drop the tokens that the effect does not need.

    Args:
        scorer: asked for losses.
        sites: where the trigger is tried.
        trigger: at least one token.
        target: class.
        beta: change of the mean loss (nats) above which a token is needed.
    """
    whole = tuple(trigger)
    full, *without = _means(scorer, sites, [whole, *_without_one(whole)], target)
    changes = tuple(abs(full - loss) for loss in without)
    kept = tuple(token for token, change in zip(whole, changes, strict=True) if change > beta)
    if kept:
        loss = full if kept == whole else _means(scorer, sites, [kept], target)[0]
        if abs(loss - full) <= beta:
            return Anchored(kept, loss, full, changes, "paper")
    rest, loss = _eliminate(scorer, sites, whole, full, target, beta)
    return Anchored(rest, loss, full, changes, "backward elimination")


def _eliminate(
    scorer: Scorer, sites: Sequence[Site], trigger: tuple[int, ...], full: float, target: int, beta: float
) -> tuple[tuple[int, ...], float]:
    loss = full
    while len(trigger) > 1:
        shorter = _without_one(trigger)
        losses = _means(scorer, sites, shorter, target)
        best = int(np.argmin([abs(full - each) for each in losses]))
        if abs(full - losses[best]) > beta:
            break
        trigger, loss = shorter[best], losses[best]
    return trigger, loss


def _without_one(trigger: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [trigger[:i] + trigger[i + 1 :] for i in range(len(trigger))]


def _means(scorer: Scorer, sites: Sequence[Site], triggers: Sequence[Sequence[int]], target: int) -> list[float]:
    rows = [site.filled(trigger) for trigger in triggers for site in sites]
    return [float(part.mean()) for part in scorer.losses(rows, target).reshape(len(triggers), len(sites))]
