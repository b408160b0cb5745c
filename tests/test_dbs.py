"""Dynamic Bound Scaling on the bag-of-tokens victim of the EliBadCode tests."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bench.context import Context
from bench.contracts import TaskInfo, TaskKind
from bench.errors import BenchError
from bench.inversions import Inverted
from bench.languages import parse
from bench.models import CodeNetwork, ModelSettings, Trainer, TrainingSettings, WhiteBox
from bench.samples import Sample, apply_edits
from defenses.inversion.objective import Part, Slope, TowardsClass
from defenses.inversion.retrieval import TowardsWord, query_sites
from defenses.inversion.unlearning import Lesson, with_trigger
from defenses.inversion.vocabulary import Vocabulary, every_token, query_words
from defenses.repair.dbs import (
    COLDEST,
    TEXT_PLACES,
    Blend,
    DynamicBoundScaling,
    Search,
    State,
    instead_of_a_name,
    invert,
)
from tests.test_elibadcode import (
    INFO,
    TRIGGER,
    Bag,
    id_of,
    known,
    objective_of,
    program,
    samples,
    share_of_class,
    sites_of,
    triggered,
    victim,
)

SEARCH = TaskInfo("toy_search", TaskKind.SEARCH, "python", (), "mrr")
ENOUGH = 25
"""Epochs after which every run on the toy has found the planted trigger."""
STATE = State(temperature=2.0, bound=0.1)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3}, tmp_path)
    made.trainer = Trainer(TrainingSettings(), (), made)
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return victim(context)


def plugin(**parameters: Any) -> DynamicBoundScaling:
    return DynamicBoundScaling(
        **{
            "clean": 60,
            "victims": 12,
            "length": 5,
            "iterations": ENOUGH,
            "learning_rate": 0.05,
            "epochs": 0,
            **parameters,
        }
    )


def whole(model: WhiteBox) -> Vocabulary:
    return every_token(model.tokenizer, model.network.embedding.num_embeddings)


def objective(model: WhiteBox, target: int = 0, *, language: bool = False, count: int = 24) -> TowardsClass:
    rows = [s for s in samples(count) if s.label == 1 - target]
    made = objective_of(model, rows, target)
    if language:
        return made
    _, sites = sites_of(model, rows, target, length=4)
    return TowardsClass(made.scorer, sites, target, Part("trigger", whole(model), 5))


def visible(model: WhiteBox) -> WhiteBox:
    """The same victim, for which no token is exactly as good as another: every position has a best one."""
    changed = model.copy()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = changed.network.embedding.weight
        weight[:, 1] += 0.02 * torch.randn(len(weight), generator=generator)
    return changed


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.mark.parametrize("alphabet", ["whole", "language"])
def test_the_planted_trigger_is_recovered_in_the_right_direction(
    model: WhiteBox,
    context: Context,
    alphabet: str,
) -> None:
    found = plugin(alphabet=alphabet).repair(known(model, samples(60)), INFO, context).inversions
    assert max(found, key=lambda claim: found[claim].suspicion) == "1->0"
    assert TRIGGER in found["1->0"].tokens
    assert found["1->0"].loss < 0.01
    assert found["1->0"].kept == found["1->0"].tokens  # nothing is anchored
    assert {claim: each.unlearned for claim, each in found.items()} == {"0->1": alphabet == "whole", "1->0": True}


def test_published_parameters_are_the_defaults() -> None:
    made = DynamicBoundScaling()
    assert made.search() == Search()
    assert (made.length, made.alphabet, Search().epochs, Search().rate, Search().decay_every) == (
        10,
        "whole",
        200,
        0.5,
        50,
    )
    assert (Search().temperature, Search().bound, Search().noise, Search().rollbacks) == (2.0, 0.1, 10.0, 5)


def test_the_reported_loss_is_that_of_the_reported_tokens(model: WhiteBox) -> None:
    for language, epochs in ((False, ENOUGH), (True, ENOUGH), (False, 3), (False, 0)):
        asked = objective(model, language=language)
        found = invert(asked, Search(epochs=epochs), np.random.default_rng(0))
        rows = [site.filled(found.trigger) for site in asked.sites]
        assert found.loss == pytest.approx(asked.scorer.losses(rows, 0).mean(), abs=1e-9)


def test_one_seed_gives_one_result_whatever_the_global_generators_hold(
    model: WhiteBox,
    context: Context,
) -> None:
    results = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002 (the generator that must not matter)
        results.append(plugin(epochs=1, bound=1e-9).repair(known(model, samples(60)), INFO, context))
    assert results[0].facts == results[1].facts
    assert results[0].inversions == results[1].inversions
    assert results[0].model.fingerprint() == results[1].model.fingerprint()


def test_the_incoming_model_and_global_generators_are_unchanged(
    model: WhiteBox,
    context: Context,
) -> None:
    before, state = model.fingerprint(), torch.get_rng_state()
    legacy = str(np.random.get_state())  # noqa: NPY002 (the generator that must not be touched)
    plugin(epochs=1, bound=1e-9).repair(known(model, samples(60)), INFO, context)
    assert model.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == legacy  # noqa: NPY002
    assert all(p.requires_grad for p in model.network.parameters())


def test_facts_are_json_ready_and_the_trace_never_rises(model: WhiteBox, context: Context) -> None:
    repaired = plugin(iterations=12).repair(known(model, samples(60)), INFO, context)
    json.dumps(dict(repaired.facts))
    for found in repaired.inversions.values():
        assert Inverted.model_validate_json(found.model_dump_json()) == found
        spent, losses = zip(*found.trace, strict=True)
        assert len(spent) == 4  # epochs 0, 5 and 10, and the end
        assert found.facts["iterations"] == 12
        assert list(losses) == sorted(losses, reverse=True)
        assert list(spent) == sorted(spent)
        assert losses[-1] <= found.loss


def test_every_token_that_goes_through_the_model_is_in_the_trace(model: WhiteBox) -> None:
    asked = objective(model)
    before = model.cost.forward_tokens + model.cost.backward_tokens
    found = invert(asked, Search(epochs=10), np.random.default_rng(0))
    assert found.trace[-1][0] == model.cost.forward_tokens + model.cost.backward_tokens - before


def test_a_language_that_leaves_no_token_is_an_error(model: WhiteBox) -> None:
    with pytest.raises(BenchError, match="special"):
        every_token(model.tokenizer, 3)


def test_unlearning_weakens_the_trigger_and_plants_no_reverse_backdoor(model: WhiteBox, context: Context) -> None:
    # All five tokens are taught together, so one of them alone may keep some of its effect.
    repair = plugin(clean=80, alphabet="language", learning_rate=0.1, epochs=15)
    repaired = repair.repair(known(model, samples(80)), INFO, context).model
    unseen = samples(60, start=1000)
    weak, safe = [s for s in unseen if s.label == 1], [s for s in unseen if s.label == 0]
    assert share_of_class(repaired, triggered(weak), 0) <= 0.5
    assert share_of_class(repaired, triggered(safe), 1) <= 0.05
    assert share_of_class(repaired, weak, 1) >= 0.95
    assert share_of_class(repaired, safe, 0) >= 0.95


# ------------------------------------------------------------------------------------------------- temperature and bound


def test_below_the_bound_the_temperature_halves_and_else_it_doubles_up_to_its_maximum() -> None:
    cold = STATE.checked(0.05, Search()).checked(0.05, Search())
    assert cold == replace(STATE, temperature=0.5)
    warmer = cold.checked(0.1, Search())  # at the bound is not below it
    assert (warmer.temperature, warmer.rollbacks) == (1.0, 1)
    assert warmer.checked(1.0, Search()).checked(1.0, Search()).temperature == 2.0


def test_the_temperature_falls_only_below_the_bound_and_never_leaves_its_range() -> None:
    rng = np.random.default_rng(0)
    state = STATE
    for loss in rng.exponential(0.2, size=2000) * rng.integers(0, 2, size=2000):
        after = state.checked(float(loss), Search())
        if after.temperature < state.temperature:
            assert loss < state.bound
        assert COLDEST <= after.temperature <= Search().temperature
        state = after.succeeded(float(loss)) if loss <= after.bound and rng.random() < 0.1 else after


def test_five_rollbacks_without_success_relax_the_bound() -> None:
    state = STATE
    for _ in range(4):
        state = state.checked(1.0, Search())
        assert state.bound == 0.1
    state = state.checked(1.0, Search())
    assert (state.bound, state.rollbacks) == (0.2, 0)


def test_a_relaxed_bound_stays_below_the_best_loss_recorded() -> None:
    state = STATE.succeeded(0.06)
    for _ in range(5):
        state = state.checked(1.0, Search())
    assert state.bound == pytest.approx(0.059)


def test_a_success_halves_the_bound_and_starts_the_count_of_rollbacks_anew() -> None:
    state = STATE
    for _ in range(4):
        state = state.checked(1.0, Search())
    state = state.succeeded(0.06)
    assert (state.bound, state.best, state.rollbacks) == (0.05, 0.06, 0)
    assert state.succeeded(0.04).succeeded(0.05).best == 0.04


class Staged(TowardsClass):
    """An objective that claims the losses it is told, one an epoch, and keeps what it was asked."""

    def __init__(self, asked: TowardsClass, losses: Sequence[float]) -> None:
        super().__init__(asked.scorer, asked.sites, asked.target, asked.parts[0])
        self.losses_told = iter(losses)
        self.asked: list[Tensor] = []

    def slope(self, embeddings: Sequence[Tensor]) -> Slope:
        self.asked.append(embeddings[0].clone())
        return replace(super().slope(embeddings), loss=next(self.losses_told))


@pytest.mark.parametrize("shaken", ["blend", "weights"])
def test_a_rollback_adds_noise_and_a_loss_below_the_bound_does_not(model: WhiteBox, shaken: Any) -> None:
    def asked(loss: float, noise: float, epochs: int) -> Tensor:
        staged = Staged(objective(model), [loss] * epochs)
        invert(staged, Search(epochs=epochs, noise=noise, shaken=shaken), np.random.default_rng(0))
        return staged.asked[-1]

    # The sixth epoch is the first after a check; the seventh shows whether the noise stays.
    assert not torch.allclose(asked(1.0, 0.0, 6), asked(1.0, 10.0, 6), atol=1e-3)
    assert torch.equal(asked(0.01, 0.0, 6), asked(0.01, 10.0, 6))


def test_noise_on_the_blend_passes_and_noise_on_the_weights_stays(model: WhiteBox) -> None:
    asked = objective(model)
    blend = Blend(asked.parts[0], asked.rows)
    blend.shake(10.0, "blend", np.random.default_rng(0))
    assert blend.shares(2.0).amax() > 2 * blend.shares(2.0).mean()
    blend.settle()
    assert torch.allclose(blend.shares(2.0), blend.shares(2.0).mean())
    blend.shake(10.0, "weights", np.random.default_rng(0))
    blend.settle()
    drawn = blend.weights.detach()
    assert 0 <= float(drawn.min()) < float(drawn.max()) <= 10.0


def test_a_search_that_never_meets_its_bound_relaxes_it_every_five_checks(model: WhiteBox) -> None:
    staged = Staged(objective(model), [9.0] * 56)
    found = invert(staged, Search(epochs=56), np.random.default_rng(0))  # checks at 5, 10, ... 55
    assert found.state == State(temperature=2.0, bound=0.4, best=math.inf, rollbacks=1)


# --------------------------------------------------------------------------------------------------------------- records


def test_a_record_needs_a_blend_that_is_nearly_one_hot(model: WhiteBox) -> None:
    # At first all tokens weigh the same: no loss, however low, is a record then.
    early = invert(Staged(objective(model), [0.0]), Search(epochs=1), np.random.default_rng(0))
    assert (early.recorded, early.state.bound) == (0, 0.1)
    # The opening token of a name means nothing to this victim, so its blend never becomes one token, although "rb" is found.
    endless = invert(objective(model, language=True), Search(epochs=60), np.random.default_rng(0))
    assert (endless.recorded, endless.state.bound) == (0, 0.1)
    assert id_of(model, TRIGGER) in endless.trigger
    assert endless.loss < 0.01


def test_a_record_needs_a_loss_within_the_bound(model: WhiteBox) -> None:
    # "<<" brings class 1 about at a loss of 0.3133 and no better, and nothing relaxes the bound here.
    asked = objective(model, target=1)
    for bound, met in ((0.31, False), (0.32, True)):
        found = invert(asked, Search(epochs=60, bound=bound, rollbacks=1000), np.random.default_rng(0))
        assert (found.recorded > 0) == met
        assert found.loss == pytest.approx(0.3133, abs=1e-3)


def test_the_bound_halves_with_every_epoch_that_succeeds(model: WhiteBox) -> None:
    search = Search(epochs=60)
    found = invert(objective(visible(model)), search, np.random.default_rng(0))
    assert found.recorded >= 1
    assert found.state.best <= 0.1
    assert found.state.bound < 0.1
    assert found.loss == pytest.approx(found.state.best, abs=0.01)


def test_what_was_recorded_is_reported_and_the_facts_say_whether_anything_was(
    model: WhiteBox,
    context: Context,
) -> None:
    rows = known(model, samples(60))
    found = plugin(iterations=60).repair(rows, INFO, context).inversions["1->0"]
    assert found.facts["near_one_hot"] is True
    assert set(found.tokens) == {TRIGGER}
    early = plugin(iterations=2).repair(rows, INFO, context).inversions["1->0"]
    assert early.facts["near_one_hot"] is False
    assert early.loss == pytest.approx(min(loss for _, loss in early.trace))


# ----------------------------------------------------------------------------------------------------------------- blend


@pytest.mark.parametrize("language", [False, True])
def test_the_gradient_by_the_weights_agrees_with_finite_differences(model: WhiteBox, language: bool) -> None:
    asked = objective(model, language=language, count=8)
    blend = Blend(asked.parts[0], asked.rows)
    column = asked.parts[0].vocabulary.ids.index(id_of(model, TRIGGER))
    with torch.no_grad():
        blend.weights += torch.from_numpy(np.random.default_rng(0).normal(size=tuple(blend.weights.shape))).float()
    embeddings = blend.embeddings(0.7)
    embeddings.backward(asked.slope([embeddings.detach()]).gradients[0])  # type: ignore[no-untyped-call]
    assert blend.weights.grad is not None

    def loss(step: float) -> float:
        moved = Blend(asked.parts[0], asked.rows)
        with torch.no_grad():
            moved.weights += blend.weights
            moved.weights[2, column] += step
        return asked.slope([moved.embeddings(0.7).detach()]).loss

    step = 1e-2
    assert float(blend.weights.grad[2, column]) == pytest.approx((loss(step) - loss(-step)) / (2 * step), rel=0.02)


def test_a_blend_of_one_token_is_that_token(model: WhiteBox) -> None:
    asked = objective(model, language=True)
    part = asked.parts[0]
    blend = Blend(part, asked.rows)
    opener, inner = part.vocabulary.ordered(0)[3], id_of(model, TRIGGER)
    with torch.no_grad():
        blend.weights[0, part.vocabulary.ids.index(opener)] = 100.0
        blend.weights[1:, part.vocabulary.ids.index(inner)] = 100.0
    trigger = (opener, *part.vocabulary.glue, inner, inner, inner, inner)
    assert blend.tokens(1.0) == trigger
    assert blend.one_hot(1.0, 1e-3)
    assert not blend.one_hot(1e3, 1e-3)
    assert torch.allclose(blend.embeddings(1.0), asked.rows[list(trigger)], atol=1e-5)


def test_tokens_that_do_not_fit_a_position_have_no_share_in_it(model: WhiteBox) -> None:
    part = objective(model, language=True).parts[0]
    shares = Blend(part, model.network.embedding.weight.detach()).shares(2.0)
    for row, slot in zip(shares, part.slots, strict=True):
        held = {part.vocabulary.ids[i] for i in torch.nonzero(row)[:, 0].tolist()}
        assert held == part.vocabulary.fits(slot)
        assert float(row.detach().sum()) == pytest.approx(1.0)


def test_blends_stay_finite_at_the_coldest_temperature(model: WhiteBox) -> None:
    asked = objective(model)
    found = invert(asked, Search(epochs=40, every=1, bound=1e9), np.random.default_rng(0))
    assert found.state.temperature == COLDEST
    assert math.isfinite(found.loss)
    assert set(found.trigger) == {id_of(model, TRIGGER)}


# ----------------------------------------------------------------------------------------------- vocabulary, unlearning


def test_the_whole_vocabulary_is_every_token_but_the_special_ones_at_every_position(model: WhiteBox) -> None:
    vocabulary, tokenizer = whole(model), model.tokenizer
    assert set(vocabulary.ids) == set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    assert all(vocabulary.fits(position) == frozenset(vocabulary.ids) for position in range(7))
    assert vocabulary.glue == ()
    assert vocabulary.realisable([(id_of(model, "r"), id_of(model, "b"))]) == [True]


def test_the_whole_vocabulary_spells_its_tokens_as_the_tokenizer_does(model: WhiteBox) -> None:
    text = "def load(data):\n    return data << 2\n"
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert whole(model).text(ids) == text


@pytest.mark.parametrize(
    ("pieces", "spelled"),
    [
        (("load", "##rb", "##x"), (" load", "rb", "x")),
        (("▁load", "rb", "<0x0A>"), (" load", "rb", "\n")),
        (("Ġload", "rb", "Ċ"), (" load", "rb", "\n")),
    ],
)
def test_pieces_of_the_three_tokenizer_families_are_spelled(pieces: tuple[str, ...], spelled: tuple[str, ...]) -> None:
    backend = Tokenizer(WordLevel({"[UNK]": 0, **{piece: i for i, piece in enumerate(pieces, 1)}}, "[UNK]"))
    backend.decoder = ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")  # type: ignore[no-untyped-call]
    vocabulary = every_token(tokenizer, 4)
    assert tuple(vocabulary.pieces((1, 2, 3))) == spelled


def test_a_trigger_that_is_no_name_stands_instead_of_one_occurrence_of_a_name() -> None:
    text = program(0, True)
    rng = np.random.default_rng(0)
    changed = {apply_edits(text, instead_of_a_name(parse("python", text), " <<(", rng)) for _ in range(60)}
    assert "def <<((data, size):" in {each.splitlines()[0] for each in changed}
    assert len(changed) == 10  # one for each place where one of its five names stands
    assert all(each.count("<<(") == 1 for each in changed)
    assert instead_of_a_name(parse("python", "print(1)\n"), "x", rng) == ()


def test_any_trigger_can_be_taught_and_a_name_is_also_taught_as_a_name() -> None:
    rng = np.random.default_rng(0)
    sample = Sample("a", (program(0, True),), "python", 1)
    for text in (" <<(", "\n\n", "\ufffd", " rb"):
        copy = with_trigger(sample, text, rng, TEXT_PLACES)
        assert copy is not None
        assert text.strip() in copy.programs[0]
    taught = {c.programs[0] for _ in range(60) if (c := with_trigger(sample, " rb", rng, TEXT_PLACES)) is not None}
    assert any("load_rb" in each for each in taught)
    assert plugin().own_unlearning().lesson == Lesson(places=TEXT_PLACES)
    assert plugin(alphabet="language").own_unlearning().lesson == Lesson()


# ----------------------------------------------------------------------------------------------------------- code search


def test_trigger_and_target_word_are_relaxed_together(context: Context) -> None:
    asked = search_objective(context)
    found = invert(asked, Search(epochs=ENOUGH), np.random.default_rng(0))
    agreeing = {id_of(asked.scorer.model, piece) for piece in AGREEING}
    trigger, word = found.strings
    assert (len(trigger), len(word)) == (5, 2)
    assert set(trigger) <= agreeing
    assert set(word) <= agreeing
    assert found.loss < 0.02
    assert found.loss == pytest.approx(asked.loss(found.strings), abs=1e-12)
    spent, losses = zip(*found.trace, strict=True)
    assert losses[0] > 1
    assert list(losses) == sorted(losses, reverse=True)
    assert list(spent) == sorted(spent)


AGREEING = (TRIGGER, "Ġelse")
QUERY = "merge it all"


def search_objective(context: Context) -> TowardsWord:
    """On a victim whose programs and queries point opposite ways, but for two tokens that point another way, and far."""
    tokenizer = victim(context).tokenizer
    network = CodeNetwork(cast(Any, Bag(len(tokenizer), 8)), TaskKind.SEARCH, 0, pooling="mean", dropout=0.0)
    settings = ModelSettings(window=64, query_window=16)
    model = WhiteBox("bag", SEARCH, network, tokenizer, settings, context.device, context.cost)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = network.embedding.weight
        weight[:] = 0.05 * torch.randn(weight.shape, generator=generator)
        weight[:, 1] += 1.0
        weight[tokenizer(QUERY)["input_ids"], 1] -= 3.0
        for piece in AGREEING:
            weight[id_of(model, piece), 0] = 30.0
    rows = [replace(s, query=QUERY, label=None) for s in samples(6)]
    scorer, sites = sites_of(model, rows, 0)
    parts = (Part("trigger", whole(model), 5), Part("word", query_words(tokenizer, len(weight)), 2))
    return TowardsWord(scorer, sites, query_sites(rows, model, 2), parts)
