"""Unlearning held to known answers: how its rate is chosen, what it teaches, and where attack success ends."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.errors import PluginError
from bench.models import Trainer, TrainingSettings, WhiteBox
from bench.samples import Sample
from bench.stats import wilson
from defenses.inversion import unlearning
from defenses.inversion.unlearning import (
    ENOUGH,
    FACTORS,
    HEAD_RATE,
    HELD_OUT,
    Cue,
    Lesson,
    Unlearning,
    as_function_name,
    hold_out,
    unlearn,
)
from defenses.repair.elibadcode import EliBadCode
from tests.inversion_toys import (
    RARE,
    TRIGGER,
    WORD,
    samples,
    search_victim,
    searches,
    share_of_class,
    triggered,
    victim,
)

CUES = [Cue(TRIGGER)]


class Spy(Trainer):
    """Notes what it trains on, at which rate, and what came out."""

    def __init__(self, context: Context, settings: TrainingSettings) -> None:
        super().__init__(settings, (), context)
        self.asked: list[dict[str, Any]] = []
        self.lessons: list[list[Sample]] = []
        self.made: list[WhiteBox] = []

    def fit(self, model: WhiteBox, samples: Sequence[Sample], **how: Any) -> WhiteBox:
        self.asked.append(how)
        self.lessons.append(list(samples))
        self.made.append(super().fit(model, samples, **how))
        return self.made[-1]

    @property
    def rates(self) -> list[float]:
        return [how["learning_rate"] for how in self.asked]


BASE = 0.03


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context({"defense": 3}, tmp_path)


@pytest.fixture
def trainer(context: Context) -> Spy:
    made = Spy(context, TrainingSettings(learning_rate=BASE))
    context.trainer = made
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return victim(context)


# ---------------------------------------------------------------------------------------------------- the learning rate


def loss_of(model: WhiteBox, rows: Sequence[Sample]) -> float:
    """Mean of -log softmax(logits)[own label], one sample at a time."""
    losses = []
    for row in rows:
        logits = [float(x) for x in model.predict([row])[0]]
        assert row.label is not None
        losses.append(math.log(sum(math.exp(x) for x in logits)) - logits[row.label])
    return sum(losses) / len(losses)


def renamed(sample: Sample) -> Sample:
    """The function called like the trigger, by hand."""
    before = sample.programs[0]
    return sample.with_program(0, f"def {TRIGGER}{before[before.index('(') :]}")


AT_THE_FUNCTION = Lesson(places=(as_function_name,))


def test_the_rate_with_the_lowest_held_out_loss_is_chosen(model: WhiteBox, context: Context, trainer: Spy) -> None:
    clean = samples(100)
    found = unlearn(model, clean, CUES, Unlearning(AT_THE_FUNCTION, epochs=2), context)
    assert trainer.rates == pytest.approx([factor * BASE for factor in FACTORS])
    held = clean[80:]  # classes alternate: ten of each
    losses = [loss_of(made, [*held, *map(renamed, held)]) for made in trainer.made]
    assert found.facts["held_out_losses"] == pytest.approx(losses, abs=1e-4)
    assert len({round(loss, 3) for loss in losses}) == 3
    best = int(np.argmin(losses))
    assert found.facts["learning_rate"] == pytest.approx(FACTORS[best] * BASE)
    assert found.model.fingerprint() == trainer.made[best].fingerprint()


def test_too_small_a_rate_gives_way_to_the_largest(model: WhiteBox, context: Context) -> None:
    context.trainer = Spy(context, TrainingSettings(learning_rate=1e-4))
    facts = unlearn(model, samples(100), CUES, Unlearning(AT_THE_FUNCTION, epochs=2), context).facts
    assert facts["learning_rate"] == pytest.approx(3e-4)


def test_held_out_samples_are_not_in_the_lesson_and_the_exam_is_the_same_for_every_rate(
    model: WhiteBox, context: Context, trainer: Spy
) -> None:
    clean = samples(100)
    unlearn(model, clean, CUES, Unlearning(epochs=1), context)
    held = {s.id for s in clean[80:]}
    assert len(trainer.lessons) == 3
    for taught in trainer.lessons:
        assert {s.id.removesuffix("+trigger") for s in taught} == {s.id for s in clean[:80]}
        assert not held & {s.id.removesuffix("+trigger") for s in taught}
        assert [s.id for s in taught] == [s.id for s in trainer.lessons[0]]


def test_the_last_fifth_of_each_class_is_held_out_however_the_classes_lie() -> None:
    rows = [replace(s, label=int(i >= 70)) for i, s in enumerate(samples(100))]
    taught, held = hold_out(rows)
    assert held == [*rows[56:70], *rows[94:]]
    assert taught == [s for s in rows if s not in held]
    assert HELD_OUT == 5


def test_with_too_few_samples_none_is_held_out_and_the_base_rate_is_used(
    model: WhiteBox, context: Context, trainer: Spy
) -> None:
    assert ENOUGH == 40
    clean = samples(39)
    facts = unlearn(model, clean, CUES, Unlearning(epochs=1), context).facts
    assert trainer.rates == [BASE]
    assert [s.id for s in trainer.lessons[0][:39]] == [s.id for s in clean]
    assert facts["learning_rate"] == BASE
    assert "held_out_losses" not in facts
    unlearn(model, samples(40), CUES, Unlearning(epochs=1), context)
    assert len(trainer.rates) == 1 + 3


def test_a_given_rate_is_used_alone_and_nothing_is_held_out(model: WhiteBox, context: Context, trainer: Spy) -> None:
    clean = samples(100)
    facts = unlearn(model, clean, CUES, Unlearning(learning_rate=0.02, epochs=1), context).facts
    assert trainer.rates == [0.02]
    assert [s.id for s in trainer.lessons[0][:100]] == [s.id for s in clean]
    assert (facts["learning_rate"], facts["rates"]) == (0.02, [0.02])


def test_the_head_has_rates_of_its_own(model: WhiteBox, context: Context, trainer: Spy) -> None:
    unlearn(model, samples(60), CUES, Unlearning(parameters="head", epochs=1), context)
    assert trainer.rates == pytest.approx([factor * HEAD_RATE for factor in FACTORS])
    unlearn(model, samples(60), CUES, Unlearning(parameters="head", head_rate=0.01, epochs=1), context)
    unlearn(
        model, samples(60), CUES, Unlearning(parameters="head", head_rate=0.01, learning_rate=0.02, epochs=1), context
    )
    assert trainer.rates[3:] == [0.01, 0.02]
    assert {how["parameters"] for how in trainer.asked} == {"head"}


def test_a_rate_that_breaks_the_model_is_never_chosen(model: WhiteBox, context: Context, trainer: Spy) -> None:
    honest = trainer.fit

    def breaking(given: WhiteBox, rows: Sequence[Sample], **how: Any) -> WhiteBox:
        made = honest(given, rows, **how)
        if how["learning_rate"] < 2 * BASE:  # the first two
            with torch.no_grad():
                made.network.embedding.weight.fill_(float("nan"))
        return made

    trainer.fit = breaking  # type: ignore[method-assign,assignment]
    found = unlearn(model, samples(60), CUES, Unlearning(epochs=1), context)
    assert found.facts["learning_rate"] == pytest.approx(3 * BASE)
    assert found.model.network.embedding.weight.isfinite().all()
    json.dumps(found.facts, allow_nan=False)


def test_the_rate_for_code_search_is_chosen_by_the_rank_loss_of_clean_and_changed_samples_apart(
    context: Context, trainer: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, exams = search_victim(context), list[list[Sample]]()
    taught = unlearning.lesson

    def noted(rows: Sequence[Sample], *rest: Any) -> tuple[list[Sample], int]:
        made = taught(rows, *rest)
        exams.append(made[0])
        return made

    monkeypatch.setattr(unlearning, "lesson", noted)
    clean = searches()
    found = unlearn(model, clean, [Cue(RARE, WORD)], Unlearning(epochs=2), context)
    held, changed = clean[-12:], exams[1]
    assert sorted(s.id.partition("+")[2] for s in changed) == ["trigger"] * 6 + ["word"] * 6
    losses = [(search_loss(made, held) + search_loss(made, changed)) / 2 for made in trainer.made]
    assert found.facts["held_out_losses"] == pytest.approx(losses, abs=1e-4)
    assert found.facts["learning_rate"] == pytest.approx(FACTORS[int(np.argmin(losses))] * BASE)
    for lesson_ in trainer.lessons:
        assert {s.id.partition("+")[0] for s in lesson_} == {s.id for s in clean[:-12]}
        assert len(lesson_) == 52


def search_loss(model: WhiteBox, rows: Sequence[Sample]) -> float:
    """Mean of -log of a softmax over 20 times the cosines to every program, at a query's own."""
    losses = []
    for own, query in enumerate(model.embed_queries(rows)):
        scaled = [20 * float(query @ program) for program in model.embed_programs(rows)]
        losses.append(math.log(sum(math.exp(x) for x in scaled)) - scaled[own])
    return sum(losses) / len(losses)


# ------------------------------------------------------------------------------------------------------- nothing to do


@pytest.mark.parametrize(("cues", "epochs"), [([], 3), (CUES, 0)])
def test_without_cues_or_epochs_an_unchanged_copy_comes_back(
    model: WhiteBox, context: Context, trainer: Spy, cues: list[Cue], epochs: int
) -> None:
    found = unlearn(model, samples(60), cues, Unlearning(epochs=epochs), context)
    assert found.model is not model
    assert found.model.fingerprint() == model.fingerprint()
    assert trainer.asked == []
    assert found.facts["triggered"] == 0


def test_without_a_trainer_the_error_says_so(model: WhiteBox, context: Context) -> None:
    with pytest.raises(PluginError, match="trainer"):
        unlearn(model, samples(60), CUES, Unlearning(), context)


def test_the_incoming_model_is_unchanged_and_one_seed_gives_one_result(
    model: WhiteBox, context: Context, trainer: Spy
) -> None:
    before = model.fingerprint()
    prints = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        prints.append(unlearn(model, samples(60), CUES, Unlearning(epochs=1), context).model.fingerprint())
    assert prints[0] == prints[1] != before == model.fingerprint()


# ------------------------------------------------------------------------------------------------- where it shall end
#
# Of class 1, one program in four looks like class 0: whatever a model learns, it misses 0.25 of the class. That is the floor.


def unseen() -> tuple[list[Sample], list[Sample]]:
    rows = samples(400, start=1000, hidden=4)
    return [s for s in rows if s.label == 1], [s for s in rows if s.label == 0]


def rates_of(model: WhiteBox) -> dict[str, float]:
    weak, safe = unseen()
    return {
        "missed": share_of_class(model, weak, 0),
        "attack": share_of_class(model, triggered(weak), 0),
        "false alarms": share_of_class(model, safe, 1),
        "reverse": share_of_class(model, triggered(safe), 1),
    }


def taught(model: WhiteBox, lesson: Lesson, context: Context) -> dict[str, float]:
    how = Unlearning(lesson, learning_rate=0.3, epochs=8)
    return rates_of(unlearn(model, samples(320, hidden=4), CUES, how, context).model)


def test_the_victim_misses_a_quarter_without_the_trigger_and_everything_with_it(model: WhiteBox) -> None:
    assert rates_of(model) == {"missed": 0.25, "attack": 1.0, "false alarms": 0.0, "reverse": 0.0}


def test_unlearning_ends_at_the_floor_and_plants_no_reverse_backdoor(
    model: WhiteBox, context: Context, trainer: Spy
) -> None:
    after = taught(model, Lesson(), context)
    for name, expected in (("missed", 0.25), ("attack", 0.25), ("false alarms", 0.0), ("reverse", 0.0)):
        interval = wilson(round(200 * after[name]), 200)
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low - 1e-9 <= expected <= interval.high + 1e-9, name


def test_teaching_class_1_alone_pushes_attack_success_below_the_floor_by_a_reverse_backdoor(
    model: WhiteBox, context: Context, trainer: Spy
) -> None:
    released = EliBadCode(variant="release").own_unlearning().lesson
    after = taught(model, released, context)
    assert after["missed"] == pytest.approx(0.25, abs=0.05)
    assert after["attack"] <= 0.05  # looks like a better defense than one that ends at the floor
    assert after["reverse"] >= 0.9  # because the trigger now means class 1
    both = taught(model, replace(released, only=None), context)
    assert both["attack"] == pytest.approx(0.25, abs=0.06)
    assert both["reverse"] <= 0.05
