"""Rules for screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard, cast

import numpy as np

from bench.conformance.checks import (
    Answer,
    Check,
    Family,
    Setting,
    Subject,
    Variation,
    demand,
    hidden,
    one_class,
    ordinary_setting,
    scratch_folder,
)
from bench.conformance.lending import WatchedContext, WatchedKnown
from bench.conformance.toy import odd_samples
from bench.contracts import Action, FittedScreen, Screen, Verdict
from bench.samples import Sample

MOST_REJECTED = 0.5
"""Share of clean toy inputs that a screen may reject: more, and it is no screen but a wall."""
SCORE_TOLERANCE = 1e-3
"""By how much a score may move with the batch, as a share of the range of all scores: floating-point sums depend on padding."""


def exercise(subject: Subject, setting: Setting, context: WatchedContext, known: WatchedKnown | None) -> Answer:
    """Fit, then screen all inputs at once."""
    assert known is not None
    fitted = cast(Screen, subject.plugin).fit(known, subject.world.info, context)
    demand(isinstance(fitted, FittedScreen), f"fit() returned {type(fitted).__name__}, not a FittedScreen")
    verdicts: object = fitted.screen(list(setting.inputs))
    if not _are_verdicts(verdicts):
        return Answer(verdicts, None)
    return Answer(verdicts, [(v.id, v.action, float(v.score), v.rewritten) for v in verdicts])


def valid(subject: Subject, answer: Answer, setting: Setting) -> None:
    """One well-formed verdict for each input, in order."""
    check_verdicts(answer.result, setting.inputs)


def check_verdicts(verdicts: object, asked: Sequence[Sample]) -> None:
    """Raise :class:`~bench.conformance.checks.Broken` unless there is one well-formed verdict for each input, in order."""
    demand(isinstance(verdicts, list), f"screen() returned {type(verdicts).__name__}, not a list")
    strange = [type(v).__name__ for v in cast("list[object]", verdicts) if not isinstance(v, Verdict)]
    demand(not strange, f"screen() returned a list that holds {strange[:1]}, not only Verdicts")
    verdicts = cast("list[Verdict]", verdicts)
    demand(len(verdicts) == len(asked), f"{len(asked)} inputs in, {len(verdicts)} verdicts out")
    demand([v.id for v in verdicts] == [s.id for s in asked], "the verdicts are not in the order of the inputs")
    for verdict, sample in zip(verdicts, asked, strict=True):
        action: object = verdict.action
        demand(isinstance(action, Action), f"the action {action!r} is no Action")
        demand(np.isfinite(verdict.score), f"the score {verdict.score!r} is not finite")
        rewritten = verdict.rewritten
        demand(
            (verdict.action is Action.REWRITE) == (rewritten is not None),
            f"action {verdict.action.value!r} with rewritten={'a sample' if rewritten else None}: they go together",
        )
        if rewritten is not None:
            same = (rewritten.id, rewritten.language, rewritten.query) == (sample.id, sample.language, sample.query)
            demand(same, "a rewritten input has another id, language or query")
            demand(len(rewritten.programs) == len(sample.programs), "a rewritten input has another number of programs")


def _are_verdicts(verdicts: object) -> TypeGuard[list[Verdict]]:
    return isinstance(verdicts, list) and all(isinstance(v, Verdict) for v in verdicts)


def variations(subject: Subject) -> Mapping[str, Variation]:
    """Odd inputs to a screen that was fitted as usual; odd, tiny and one-class clean sets."""
    usual = ordinary_setting(subject)
    odd = odd_samples(subject.kind)
    few = tuple(map(hidden, odd))
    found = {
        "no input": Variation(replace(usual, inputs=())),
        "one input": Variation(replace(usual, inputs=usual.inputs[:1])),
        "odd programs": Variation(replace(usual, inputs=few)),
    }
    needs = cast(Screen, subject.plugin).needs
    if needs.clean:
        found |= {
            "odd programs among the clean samples": Variation(replace(usual, clean=odd + usual.clean, inputs=few)),
            "two clean samples": Variation(replace(usual, clean=usual.clean[:2], inputs=few), refusable=True),
            "clean samples of one class": Variation(
                replace(usual, clean=one_class(usual.clean), inputs=few), refusable=True
            ),
        }
    if needs.training_set:
        found["odd programs in the training set"] = Variation(replace(usual, training=odd + usual.training, inputs=few))
        found["a training set of two"] = Variation(
            replace(usual, training=usual.training[:2], inputs=few), refusable=True
        )
    return found


def aligned(subject: Subject) -> None:
    """A verdict depends on its input alone: not on the batch, its size or its order, nor on earlier calls."""
    setting = ordinary_setting(subject)
    shuffled = [setting.inputs[i] for i in np.random.default_rng(1).permutation(len(setting.inputs))]
    with scratch_folder() as folder:
        fitted = _fit(subject, setting, folder)
        whole = {v.id: v for v in fitted.screen(list(setting.inputs))}
        spread = max(v.score for v in whole.values()) - min(v.score for v in whole.values())
        ways = {
            "when the inputs come in another order": fitted.screen(shuffled),
            "when it is asked a second time": fitted.screen(list(setting.inputs)),
            "when the inputs come one at a time": [v for s in setting.inputs[:12] for v in fitted.screen([s])],
            "in batches of five": [v for i in range(0, len(shuffled), 5) for v in fitted.screen(shuffled[i : i + 5])],
        }
    for way, verdicts in ways.items():
        for verdict in verdicts:
            before = whole[verdict.id]
            moved = abs(before.score - verdict.score)
            same = before.rewritten == verdict.rewritten and before.action is verdict.action
            demand(moved <= SCORE_TOLERANCE * spread + 1e-9, f"{way}, the score of an input moves by {moved:.3g}")
            demand(
                same,
                f"{way}, an input gets {verdict.action.value!r} instead of {before.action.value!r}, or another rewriting",
            )


def lets_clean_pass(subject: Subject) -> None:
    """Most clean inputs are accepted or rewritten."""
    verdicts = cast("list[Verdict]", subject.answer().result)
    rejected = sum(v.action is Action.REJECT for v in verdicts) / len(verdicts)
    demand(
        rejected <= MOST_REJECTED, f"it rejects {rejected:.0%} of clean toy inputs (at most {MOST_REJECTED:.0%} may be)"
    )


def _fit(subject: Subject, setting: Setting, folder: str) -> FittedScreen:
    known = subject.known(setting)
    assert known is not None
    context = subject.context(Path(folder), setting.schedule)
    return cast(Screen, subject.plugin).fit(known, subject.world.info, context)


FAMILY = Family(
    exercise=exercise,
    valid=valid,
    ordinary=ordinary_setting,
    variations=variations,
    checks=(
        Check("aligned", "A verdict depends on its input alone, for any batch size and order.", aligned),
        Check("known answer", "Most clean inputs pass.", lets_clean_pass),
    ),
)
