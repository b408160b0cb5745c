"""Rules for repairs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from bench.conformance.checks import (
    Answer,
    Broken,
    Check,
    Family,
    Setting,
    Subject,
    Variation,
    demand,
    one_class,
    ordinary_setting,
)
from bench.conformance.lending import WatchedContext, WatchedKnown
from bench.conformance.toy import TRAINING, odd_samples
from bench.contracts import Repair, Repaired
from bench.inversions import Inverted
from bench.models import WhiteBox

GENTLE = TRAINING.model_copy(update={"learning_rate": 1e-3})
"""How ``context.trainer`` trains for repairs: at the rate from which the toy's victim starts, one epoch would upset it."""
SKILL_KEPT = 0.5
"""Share of the victim's skill above chance that must be left on the toy."""


def exercise(subject: Subject, setting: Setting, context: WatchedContext, known: WatchedKnown | None) -> Answer:
    """Repair the victim."""
    assert known is not None
    repaired = cast(Repair, subject.plugin).repair(known, subject.world.info, context)
    facts = None
    if isinstance(repaired, Repaired) and isinstance(repaired.model, WhiteBox):
        facts = (
            repaired.model.fingerprint(),
            json.dumps(dict(repaired.facts), sort_keys=True, default=repr),
            dict(repaired.inversions),
        )
    return Answer(repaired, facts)


def valid(subject: Subject, answer: Answer, setting: Setting) -> None:
    """A new model that works, and facts that JSON can hold."""
    repaired: object = answer.result
    demand(isinstance(repaired, Repaired), f"repair() returned {type(repaired).__name__}, not a Repaired")
    repaired = cast(Repaired, repaired)
    check_model(repaired.model, subject)
    try:
        json.dumps(dict(repaired.facts), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"its facts are not JSON, so no record can hold them: {error}") from error
    declared = cast(Repair, subject.plugin).inverts
    demand(
        bool(repaired.inversions) == declared, f"inverts={declared}, and {len(repaired.inversions)} inversions returned"
    )
    for claim, found in repaired.inversions.items():
        demand(isinstance(found, Inverted), f"inversion {claim!r} is a {type(found).__name__}, not an Inverted")


def check_model(model: object, subject: Subject) -> None:
    """Raise :class:`~bench.conformance.checks.Broken` unless it is a new model whose outputs are finite."""
    demand(isinstance(model, WhiteBox), f"the model returned is a {type(model).__name__}, not a WhiteBox")
    model = cast(WhiteBox, model)
    demand(model is not subject.model, "the model returned is the one that came in; return a copy")
    shared = {p.data_ptr() for p in model.network.parameters()} & {
        p.data_ptr() for p in subject.model.network.parameters()
    }
    demand(not shared, "the model returned shares weights with the one that came in; work on white_box.copy()")
    demand(not model.network.training, "the model returned is left in training mode")
    skill = subject.world.skill(model)
    demand(math.isfinite(skill), "the model returned gives outputs that are not finite")


def ordinary(subject: Subject) -> Setting:
    """As usual, with a gentle trainer."""
    return replace(ordinary_setting(subject), schedule=GENTLE)


def variations(subject: Subject) -> Mapping[str, Variation]:
    """Tiny and one-class clean sets, and odd programs among the clean ones."""
    usual, needs = ordinary(subject), cast(Repair, subject.plugin).needs
    found: dict[str, Variation] = {}
    if needs.clean:
        found = {
            "odd programs among the clean samples": Variation(
                replace(usual, clean=odd_samples(subject.kind) + usual.clean)
            ),
            "two clean samples": Variation(replace(usual, clean=usual.clean[:2]), refusable=True),
            "clean samples of one class": Variation(replace(usual, clean=one_class(usual.clean)[:16]), refusable=True),
        }
    if needs.training_set:
        found["odd programs in the training set"] = Variation(
            replace(usual, training=odd_samples(subject.kind) + usual.training)
        )
    return found


def keeps_skill(subject: Subject) -> None:
    """The repaired model still does its task."""
    place = subject.world
    before, after, chance = place.skill(place.victim()), place.skill(subject.answer().result.model), place.chance()
    floor = chance + SKILL_KEPT * (before - chance)
    demand(
        after >= floor,
        f"the clean metric falls from {before:.2f} to {after:.2f} on the toy (at least {floor:.2f} expected, chance is {chance:.2f})",
    )


FAMILY = Family(
    exercise=exercise,
    valid=valid,
    ordinary=ordinary,
    variations=variations,
    checks=(Check("known answer", "At least half of the skill above chance is left on the toy.", keeps_skill),),
)
