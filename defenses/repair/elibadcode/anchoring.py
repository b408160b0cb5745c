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

from defenses.inversion.objective import Objective, Strings, Trigger


@dataclass(frozen=True, slots=True)
class Anchored:
    """The tokens that are kept.

    Attributes:
        strings: one a part, as they came in but for the trigger, of which at least one token is left.
        loss: of these tokens alone, mean over the samples.
        whole: loss of the strings that came in.
        changes: ``|l - l_i|`` for each token that could be dropped.
        rule: ``paper`` where the published rule sufficed, else ``backward elimination``.
    """

    strings: Strings
    loss: float
    whole: float
    changes: tuple[float, ...]
    rule: str

    @property
    def trigger(self) -> Trigger:
        """What is left of the trigger."""
        return self.strings[0]


def anchor(objective: Objective, strings: Strings, beta: float, *, rescue: bool = True) -> Anchored:
    """Drop the trigger's tokens that the effect does not need (a target word stays as it is).

    The naming convention's separator, which was not searched, is never dropped here.

    Args:
        objective: asked for losses.
        strings: one a part; the first, the trigger, is thinned out.
        beta: change of the mean loss above which a token is needed.
        rescue: eliminate backward where the rule breaks down; without it, the rule alone, and the whole trigger where nothing would
            be left (the paper is silent there).
    """
    trigger, *others = strings
    fixed = objective.parts[0].vocabulary.separator
    slots = [i for i in range(len(trigger)) if i not in fixed]

    def only(kept: Sequence[int]) -> Strings:
        return (tuple(token for i, token in enumerate(trigger) if i in fixed or i in kept), *others)

    def means(choices: Sequence[Sequence[int]]) -> list[float]:
        return [float(loss) for loss in objective.losses([only(kept) for kept in choices])]

    full, *without = means([slots, *_without_one(slots)])
    changes = tuple(abs(full - loss) for loss in without)
    kept = [slot for slot, change in zip(slots, changes, strict=True) if change > beta]
    if not rescue:
        kept = kept or slots
        return Anchored(only(kept), means([kept])[0], full, changes, "paper")
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


def anchor_as_released(objective: Objective, strings: Strings, baseline: float, beta: float) -> Anchored:
    """Keep token i iff ``l_i - baseline > beta``, with a baseline from the search; what is left may be empty.

    Args:
        objective: asked for losses.
        strings: one a part.
        baseline: the search's best loss, which the release measured with dropout on.
        beta: as :func:`anchor`.
    """
    trigger, *others = strings
    slots = range(len(trigger))
    rises = [
        float(loss) - baseline for loss in objective.losses([(trigger[:i] + trigger[i + 1 :], *others) for i in slots])
    ]
    kept = (tuple(trigger[i] for i in slots if rises[i] > beta), *others)
    return Anchored(kept, objective.loss(kept), baseline, tuple(rises), "release")


def _without_one(slots: Sequence[int]) -> list[list[int]]:
    return [[*slots[:i], *slots[i + 1 :]] for i in range(len(slots))]
