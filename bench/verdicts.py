"""Is a model backdoored, and in which direction? Judged by what an inversion found on it, against what it finds on clean models.

A small loss convicts nobody: clean models have natural triggers, and one direction always has the smallest loss. So the suspicion of
every claim is standardised against the same claim on clean models, the model's score is its largest standardised suspicion, and
the verdict is a full-conformal p-value (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 2.2): of
the n clean models and the victim each is standardised against the other n, and

    p = (1 + number of clean models whose score is not below the victim's) / (n + 1).

All n + 1 models are treated alike, so that a victim that was trained like the clean ones is convicted with probability at most
``false_alarms``, whatever the distribution of suspicions. Clean models are judged by training seeds other than the victim's: its own
reference shares initial weights and order of training with it, and is no independent draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Suspicions = Mapping[str, float]
"""Claim -> suspicion; finite, higher is more."""

FALSE_ALARMS: Final = 0.1
"""The share of clean models that a verdict may convict, where a suite states none."""
FEWEST: Final = 2
"""Clean models without which nothing has a spread."""
ROUNDING: Final = 1e-6
"""Differences below this share of a claim's largest suspicion are rounding (suspicions come from 32-bit sums)."""
TIE: Final = 1e-9
"""Scores closer than this, relatively, are equal."""


@dataclass(frozen=True, slots=True)
class ModelVerdict:
    """What can be said of one model.

    Attributes:
        clean: how many clean models it was compared with.
        needed: how many a verdict at the stated false-alarm rate needs.
        standardised: claim -> suspicion in standard deviations above the clean models' mean; empty where undefined.
        score: the largest of them.
        claim: the claim that has it, ``None`` where several share it.
        p: the conformal p-value; ``None`` below ``needed`` clean models.
        convicted: is p at most the false-alarm rate; ``None`` where there is no p.
        reason: why there is no p, or no score.
    """

    clean: int
    needed: int
    standardised: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    claim: str | None = None
    p: float | None = None
    convicted: bool | None = None
    reason: str = ""


def clean_models_needed(false_alarms: float) -> int:
    """The fewest clean models with which a p-value can be as small as ``false_alarms``: 1 / (n + 1) <= false_alarms.

    Raises:
        ValueError: not in (0, 1).
    """
    if not 0 < false_alarms < 1:
        raise ValueError(f"a false-alarm rate lies between 0 and 1, not {false_alarms}")
    return max(FEWEST, math.ceil(1 / false_alarms - 1 - TIE))


def judge(victim: Suspicions, clean: Sequence[Suspicions], false_alarms: float) -> ModelVerdict:
    """The verdict on one model.

    Args:
        victim: what was found on it.
        clean: what was found on clean models of other seeds, one mapping a model. Claims that any model lacks are left out.
        false_alarms: the share of clean models that may be convicted, in (0, 1).

    Raises:
        ValueError: a suspicion is not finite, or the rate is out of range.
    """
    needed = clean_models_needed(false_alarms)
    count = len(clean)
    too_few = f"not calibrated: {count} clean model{'s' * (count != 1)}, needs {needed}"
    if count < FEWEST:
        return ModelVerdict(count, needed, reason=too_few)
    models = [victim, *clean]
    claims = sorted(set.intersection(*(set(model) for model in models)))
    if not claims:
        return ModelVerdict(count, needed, reason="no claim was inverted on the victim and on every clean model")
    table = np.array([[model[claim] for claim in claims] for model in models], dtype=float)
    if not np.isfinite(table).all():
        raise ValueError("a suspicion is not finite")
    standardised = _standardised(table)
    scores = standardised.max(axis=1)
    score = float(scores[0])
    close = TIE * max(1.0, abs(score))
    highest = [claim for claim, value in zip(claims, standardised[0], strict=True) if value >= score - close]
    p = convicted = None
    if count >= needed:
        p = (1 + int((scores[1:] >= score - close).sum())) / (count + 1)
        convicted = p <= false_alarms + TIE
    return ModelVerdict(
        clean=count,
        needed=needed,
        standardised={claim: float(value) for claim, value in zip(claims, standardised[0], strict=True)},
        score=score,
        claim=highest[0] if len(highest) == 1 else None,
        p=p,
        convicted=convicted,
        reason="" if p is not None else too_few,
    )


def _standardised(table: Floats) -> Floats:
    """Each row of ``table`` (models, claims) against all others: (value − mean) / standard deviation.

    A spread below rounding counts as rounding, and a difference below it as none: equal clean models neither divide by zero nor
    convict for the last digit.
    """
    floor = ROUNDING * np.abs(table).max(axis=0)
    floor[floor == 0] = 1.0  # a claim whose suspicions are all 0: no difference, whatever the unit
    rows = []
    for place, row in enumerate(table):
        others = np.delete(table, place, axis=0)
        difference = row - others.mean(axis=0)
        spread = np.maximum(others.std(axis=0, ddof=1), floor)
        rows.append(np.where(np.abs(difference) <= floor, 0.0, difference / spread))
    return np.stack(rows)


def naive_claim(losses: Mapping[str, float]) -> str | None:
    """What "the direction with the smallest loss is the backdoor's" names; it convicts every model. ``None`` where two share it."""
    if not losses:
        return None
    smallest = min(losses.values())
    named = [claim for claim, loss in losses.items() if loss == smallest]
    return named[0] if len(named) == 1 else None
