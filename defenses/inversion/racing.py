"""A race of candidate strings: many on a few samples, the best on more, the last few on all of them.

Source: successive halving (Jamieson & Talwalkar, AISTATS 2016). What is minimised does not change: only a loss over *all* samples is
ever returned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from defenses.inversion.objective import Floats, Objective, Strings, Trigger

GROWTH = 4
"""Each rung has so many times the samples of the one before, and that part of its candidates."""


def race(
    objective: Objective,
    candidates: Sequence[Sequence[Trigger]],
    rng: np.random.Generator,
    *,
    rung: int,
    known: Sequence[Floats] | None = None,
) -> tuple[Strings, float]:
    """Successive halving over the candidates of each part; samples enter in a random order, the same for all candidates.

    Args:
        objective: asked for losses.
        candidates: of each part, at least one.
        rng: draws the order of the samples.
        rung: samples of the first rung; each later one has :data:`GROWTH` times as many, and that part of the candidates.
        known: encodings on all samples of each part's *first* candidate, the current string, which then never leaves the race and
            to which the swaps that beat it are also applied together.

    Returns:
        The winning strings and their mean loss over all samples.
    """
    order = rng.permutation(objective.samples)
    racers = [_Racers(objective, part, list(own), order, known) for part, own in enumerate(candidates)]
    goal = min(max(rung, 1), len(order))
    while True:
        for each in racers:
            each.run(goal)
        table = objective.table([each.encoded for each in racers])
        if goal == len(order):
            break
        goal = min(GROWTH * goal, len(order))
        for axis, each in enumerate(racers):
            others = tuple(i for i in range(len(racers)) if i != axis)
            # What a swap does by itself: the other parts as they are.
            alone = table[tuple(slice(None) if i == axis else 0 for i in range(len(racers)))]
            joint = each.joint(alone) if known is not None and goal == len(order) else None
            each.halve(table.min(axis=others), joint)
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

    def halve(self, losses: Floats, joint: Trigger | None) -> None:
        """Keep the best; the current string, which costs nothing, stays in front."""
        ranking = np.argsort(losses, kind="stable")
        keep = list(ranking[: max(len(self.alive) // GROWTH, 1)])
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
