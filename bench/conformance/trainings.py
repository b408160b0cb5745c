"""Rules for training rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from bench.conformance.checks import (
    Answer,
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
from bench.conformance.repairs import check_model
from bench.conformance.toy import TRAINING, odd_samples
from bench.contracts import TrainingRule
from bench.models import WhiteBox

SHORT = TRAINING.model_copy(update={"epochs": 2})
SHORT_ROWS = 64
LEARNT = 0.15
"""By how much the trained model must beat chance on the toy's keyword."""


def exercise(subject: Subject, setting: Setting, context: WatchedContext, known: WatchedKnown | None) -> Answer:
    """Train the untrained model."""
    assert known is not None
    rule = cast(TrainingRule, subject.plugin)
    trained = rule.train(subject.model, known, subject.world.info, context)
    return Answer(trained, trained.fingerprint() if isinstance(trained, WhiteBox) else None)


def valid(subject: Subject, answer: Answer, setting: Setting) -> None:
    """A new model that works."""
    check_model(answer.result, subject)


def ordinary(subject: Subject) -> Setting:
    """A short training on part of the data: enough to see what it does, not enough to learn."""
    usual = ordinary_setting(subject)
    return replace(usual, training=usual.training[:SHORT_ROWS], schedule=SHORT)


def variations(subject: Subject) -> Mapping[str, Variation]:
    """Tiny and one-class training sets, and odd programs among ordinary ones."""
    usual = ordinary(subject)
    return {
        "odd programs among the training samples": Variation(
            replace(usual, training=odd_samples(subject.kind) + usual.training[:21])
        ),
        "two training samples": Variation(replace(usual, training=usual.training[:2]), refusable=True),
        "a training set of one class": Variation(
            replace(usual, training=one_class(usual.training)[:16]), refusable=True
        ),
    }


def learns(subject: Subject) -> None:
    """The keyword is learnt."""
    place = subject.world
    trained = subject.act(ordinary_setting(subject)).observation.value().result
    skill, chance = place.skill(trained), place.chance()
    demand(
        skill >= chance + LEARNT,
        f"the trained model's clean metric on the toy is {skill:.2f} (at least {chance + LEARNT:.2f} expected, chance is {chance:.2f})",
    )


FAMILY = Family(
    exercise=exercise,
    valid=valid,
    ordinary=ordinary,
    variations=variations,
    checks=(Check("known answer", "The trained model knows the toy's keyword better than chance.", learns),),
)
