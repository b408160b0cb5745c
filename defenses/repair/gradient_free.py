"""The control of gradient-guided inversion: the same race over random swaps, with no gradient, at a budget of tokens.

No published method. Everything is as in the variant ``blind`` of :mod:`~defenses.repair.elibadcode` (vocabulary, positions, start, race,
joint swaps, moves downhill alone, anchoring, unlearning) but for what a gradient gives:

=====================  ==================================  ==================================
what                   ``elibadcode``                      here
=====================  ==================================  ==================================
candidates             ``width`` of the ``top_k`` best     ``width`` random swaps: a random position and a
                       swaps by gradient of a position     random allowed token, each with equal chance
the current string's   from the gradient's own pass        asked once for each string moved to
losses
stops                  after ``patience`` iterations       once ``tokens`` are spent: an iteration without
                       without gain                        gain tells nothing of the next
=====================  ==================================  ==================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from defenses.inversion.claims import Place
from defenses.inversion.objective import Floats, Inversion, Objective, Part, Strings, Trigger
from defenses.inversion.racing import race
from defenses.inversion.repair import InversionRepair, Kept
from defenses.inversion.starts import random_string
from defenses.repair.elibadcode import EliBadCode
from defenses.repair.elibadcode.anchoring import anchor
from defenses.repair.elibadcode.gcg import Search

OVERSAMPLING = 4
"""Swaps drawn for each one wanted: some are drawn twice, some do not re-tokenise."""
DRY = 16
"""Iterations in a row without a single swap that re-tokenises, after which the search gives up."""


def invert(objective: Objective, search: Search, tokens: int, rng: np.random.Generator) -> Inversion:
    """Search the strings that minimise an objective by random swaps.

    Args:
        objective: to minimise.
        search: ``width``, ``starts``, ``tolerance`` and the race's settings; the others belong to gradients.
        tokens: spent at least, and at most by one race more, unless the loss falls to the tolerance before.
        rng: draws starts, swaps and the order of samples.
    """
    before = objective.spent
    starts = [[random_string(part, rng) for _ in range(max(search.starts, 1))] for part in objective.parts]
    current, loss = race(objective, starts, rng, rung=search.rung)
    trace = [(objective.spent - before, loss)]
    encoded: list[Floats] | None = None
    dry = 0
    while objective.spent - before < tokens and loss > search.tolerance and dry < DRY:
        swaps = [random_swaps(part, own, search.width, rng) for part, own in zip(objective.parts, current, strict=True)]
        dry = 0 if any(swaps) else dry + 1
        if not any(swaps):
            continue
        if encoded is None:
            encoded = _encoded(objective, current)
        candidates = [[own, *others] for own, others in zip(current, swaps, strict=True)]
        winner, loss = race(objective, candidates, rng, rung=search.rung, known=encoded)
        if winner != current:
            current, encoded = winner, None
        trace.append((objective.spent - before, loss))
    return Inversion(current, loss, tuple(trace))


def _encoded(objective: Objective, strings: Strings) -> list[Floats]:
    """What the model makes of each part's string in all samples."""
    return [objective.encode(part, [string], range(objective.samples)) for part, string in enumerate(strings)]


def random_swaps(part: Part, current: Trigger, width: int, rng: np.random.Generator) -> list[Trigger]:
    """At most ``width`` different single swaps that re-tokenise: a random position, a random token that fits there."""
    vocabulary = part.vocabulary
    drawn: dict[Trigger, None] = {}
    for slot in rng.choice(part.slots, size=OVERSAMPLING * width):
        fitting = vocabulary.ordered(int(slot))
        token = fitting[int(rng.integers(len(fitting)))]
        if token != current[slot]:
            drawn[(*current[:slot], token, *current[slot + 1 :])] = None
    swaps = list(drawn)
    good = vocabulary.realisable(swaps)
    return [swap for swap, fits in zip(swaps, good, strict=True) if fits][:width]


@dataclass(frozen=True, kw_only=True)
class GradientFree(InversionRepair):
    """Invert a trigger for every claim by random swaps, keep what carries the effect, and unlearn what works.

    Attributes:
        tokens: forward tokens, padding included, spent on each claim. The default is about what EliBadCode's variant ``blind`` spends,
            forward and backward; a comparison at the very same budget sets it from that method's own trace.
        width: candidates of an iteration, for each part.
        rung: samples that all candidates meet.
        starts: random triggers, the best of which the search starts from.
        tolerance: a loss at or below it ends the search: no more is left to gain.
        names: names of a sample that are masked to find its position, the most frequent first.
        masked: invert on the samples with the chosen name masked, or with it restored.
        beta: change of the loss above which a token of the trigger is needed.
    """

    name = "gradient_free"
    summary = "control: inverts a trigger by random swaps, without gradients, and unlearns it"
    paper = "unpublished"
    toy_parameters: ClassVar[Mapping[str, object]] = {"tokens": 20_000, "victims": 8}

    tokens: Annotated[int, Field(ge=0)] = 400_000
    # A control with other settings than the method's would compare two things at once.
    width: Annotated[int, Field(ge=1)] = EliBadCode.width
    rung: Annotated[int, Field(ge=1)] = EliBadCode.rung
    starts: Annotated[int, Field(ge=1)] = EliBadCode.starts
    tolerance: Annotated[float, Field(ge=0)] = EliBadCode.tolerance
    names: Annotated[int, Field(ge=1)] = EliBadCode.names
    masked: bool = True
    beta: Annotated[float, Field(ge=0)] = EliBadCode.beta

    def place(self) -> Place:
        """As EliBadCode's."""
        return Place(self.names, masked=self.masked)

    def search(self) -> Search:
        """The race's settings."""
        return Search(width=self.width, rung=self.rung, starts=self.starts, tolerance=self.tolerance)

    def invert(self, objective: Objective, rng: np.random.Generator) -> Inversion:
        """Search the strings that minimise an objective."""
        return invert(objective, self.search(), self.tokens, rng)

    def keep(self, objective: Objective, inversion: Inversion) -> Kept:
        """The tokens that carry the effect, as EliBadCode's."""
        found = anchor(objective, inversion.strings, self.beta)
        facts: dict[str, object] = {
            "anchored_loss": found.loss,
            "anchoring_rule": found.rule,
            "changes": [round(change, 4) for change in found.changes],
        }
        return Kept(found.strings, found.whole, facts)
