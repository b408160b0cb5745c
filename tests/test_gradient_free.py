"""Random search, the control of the inversions by gradient, on the bag-of-tokens victim of the EliBadCode tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.inversions import Inverted
from bench.models import Trainer, TrainingSettings, WhiteBox
from defenses.inversion.objective import TowardsClass
from defenses.repair import gradient_free
from defenses.repair.elibadcode import EliBadCode, gcg
from defenses.repair.elibadcode.gcg import Search
from defenses.repair.gradient_free import GradientFree, invert, random_swaps
from tests.test_elibadcode import INFO, TRIGGER, id_of, known, objective_of, samples, victim


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3}, tmp_path)
    made.trainer = Trainer(TrainingSettings(), (), made)
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return victim(context)


def plugin(**parameters: Any) -> GradientFree:
    return GradientFree(
        **{"clean": 60, "victims": 12, "tokens": 60_000, "learning_rate": 0.05, "epochs": 0, **parameters}
    )


def objective(model: WhiteBox) -> TowardsClass:
    return objective_of(model, [s for s in samples(24) if s.label == 1], 0)


def test_with_enough_tokens_the_planted_trigger_is_found_and_anchored(model: WhiteBox, context: Context) -> None:
    found = plugin().repair(known(model, samples(60)), INFO, context).inversions
    assert max(found, key=lambda claim: found[claim].suspicion) == "1->0"
    assert found["1->0"].kept == (TRIGGER,)
    assert {claim: each.unlearned for claim, each in found.items()} == {"0->1": False, "1->0": True}


def test_no_gradient_is_asked_for(model: WhiteBox, context: Context) -> None:
    plugin(tokens=5_000).repair(known(model, samples(60)), INFO, context)
    assert model.cost.forward_tokens > 5_000
    assert model.cost.backward_tokens == 0


@pytest.mark.parametrize("tokens", [0, 1, 10_000, 30_000])
def test_the_budget_is_respected_to_within_one_race(model: WhiteBox, tokens: int) -> None:
    search = Search(width=16, starts=4, tolerance=0.0)
    spent = [spent for spent, _ in invert(objective(model), search, tokens, np.random.default_rng(0)).trace]
    races = np.diff([0, *spent])
    assert spent[-1] >= tokens
    assert spent[-1] <= tokens + max(races)
    assert all(each < tokens for each in spent[:-1])


def test_every_token_that_goes_through_the_model_is_in_the_trace(model: WhiteBox) -> None:
    asked = objective(model)
    before = model.cost.forward_tokens
    found = invert(asked, Search(tolerance=0.0), 20_000, np.random.default_rng(0))
    assert found.trace[-1][0] == model.cost.forward_tokens - before


def test_a_loss_within_the_tolerance_ends_the_search_before_the_budget_does(model: WhiteBox) -> None:
    found = invert(objective(model), Search(), 10**9, np.random.default_rng(0))
    assert found.loss <= Search().tolerance
    assert id_of(model, TRIGGER) in found.trigger


def test_the_loss_never_rises_and_is_that_of_the_strings(model: WhiteBox) -> None:
    asked = objective(model)
    found = invert(asked, Search(starts=1, width=8), 20_000, np.random.default_rng(1))
    spent, losses = zip(*found.trace, strict=True)
    assert list(losses) == sorted(losses, reverse=True)
    assert list(spent) == sorted(spent)
    assert found.loss == losses[-1]
    rows = [site.filled(found.trigger) for site in asked.sites]
    assert found.loss == pytest.approx(asked.scorer.losses(rows, 0).mean(), abs=1e-6)


def test_a_gradient_gets_further_with_as_many_tokens(model: WhiteBox) -> None:
    # One iteration from one start: by gradient the trigger is among the substitutes, by chance it seldom is.
    search = Search(iterations=1, starts=1, top_k=1, width=4, tolerance=0.0)
    guided, blind = [], []
    for seed in range(8):
        with_gradient = gcg.invert(objective(model), search, np.random.default_rng(seed))
        tokens = with_gradient.trace[-1][0]
        without = invert(objective(model), search, tokens, np.random.default_rng(seed))
        assert without.trace[-1][0] >= tokens
        guided.append(with_gradient.loss)
        blind.append(without.loss)
    assert max(guided) < 0.01
    assert np.mean(blind) > np.mean(guided) + 0.5


def test_swaps_change_one_searched_position_each_to_an_allowed_token_that_re_tokenises(model: WhiteBox) -> None:
    part = objective(model).parts[0]
    current = invert(objective(model), Search(), 0, np.random.default_rng(0)).trigger
    swaps = random_swaps(part, current, 64, np.random.default_rng(0))
    assert len(set(swaps)) == len(swaps) == 64
    assert all(part.vocabulary.realisable(swaps))
    for swap in swaps:
        (changed,) = [i for i in range(len(current)) if swap[i] != current[i]]
        assert changed in part.slots
        assert swap[changed] in part.vocabulary.fits(changed)


def test_all_allowed_tokens_are_drawn_and_none_more_often_than_chance_allows(model: WhiteBox) -> None:
    part = objective(model).parts[0]
    current = invert(objective(model), Search(), 0, np.random.default_rng(0)).trigger
    swaps = random_swaps(part, current, 100_000, np.random.default_rng(0))
    every = {
        (*current[:slot], token, *current[slot + 1 :])
        for slot in part.slots
        for token in part.vocabulary.fits(slot)
        if token != current[slot]
    }
    assert set(swaps) == {s for s, fits in zip(every, part.vocabulary.realisable(list(every)), strict=True) if fits}


def test_a_vocabulary_without_a_swap_ends_the_search(model: WhiteBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_free, "random_swaps", lambda *_: [])
    found = invert(objective(model), Search(tolerance=0.0), 10**9, np.random.default_rng(0))
    assert len(found.trace) == 1


def test_one_seed_gives_one_result_whatever_the_global_generators_hold(model: WhiteBox, context: Context) -> None:
    results = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002 (the generator that must not matter)
        results.append(plugin(epochs=1).repair(known(model, samples(60)), INFO, context))
    assert results[0].facts == results[1].facts
    assert results[0].inversions == results[1].inversions
    assert results[0].model.fingerprint() == results[1].model.fingerprint()


def test_the_incoming_model_and_global_generators_are_unchanged(model: WhiteBox, context: Context) -> None:
    before, state = model.fingerprint(), torch.get_rng_state()
    legacy = str(np.random.get_state())  # noqa: NPY002 (the generator that must not be touched)
    plugin(epochs=1).repair(known(model, samples(60)), INFO, context)
    assert model.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == legacy  # noqa: NPY002
    assert all(p.requires_grad for p in model.network.parameters())


def test_facts_are_json_ready(model: WhiteBox, context: Context) -> None:
    repaired = plugin(tokens=5_000).repair(known(model, samples(60)), INFO, context)
    json.dumps(dict(repaired.facts))
    for found in repaired.inversions.values():
        assert Inverted.model_validate_json(found.model_dump_json()) == found


def test_what_is_not_the_gradients_is_as_in_elibadcode() -> None:
    control, method = GradientFree(), EliBadCode()
    for name in ("clean", "victims", "length", "width", "rung", "starts", "tolerance", "names", "beta"):
        assert getattr(control, name) == getattr(method, name)
    assert control.place() == method.place()
    assert control.unlearning() == method.unlearning()
