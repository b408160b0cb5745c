"""Random strings of allowed tokens: where searches start, and what a search without gradients draws."""

from __future__ import annotations

import numpy as np

from defenses.inversion.objective import Part, Trigger

TRIES = 16
"""Draws of a position, of which the first that re-tokenises is taken."""


def random_string(part: Part, rng: np.random.Generator) -> Trigger:
    """A random string that re-tokenises to itself, grown token by token.

    Where no draw fits behind what is there, the last draw stays: a search then replaces it.
    """
    vocabulary = part.vocabulary
    string: Trigger = ()
    for position in range(part.size):
        pool = vocabulary.ordered(position)
        if not pool:
            string = (*string, vocabulary.glue[position - 1])
            continue
        draws = [(*string, pool[i]) for i in rng.integers(len(pool), size=TRIES)]
        good = vocabulary.realisable(draws)
        string = draws[good.index(True) if any(good) else 0]
    return string
