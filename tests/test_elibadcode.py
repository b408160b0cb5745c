"""EliBadCode on a victim whose trigger is certain: a bag of tokens with hand-made weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.context import Context
from bench.contracts import Access, Known, Needs, TaskInfo, TaskKind
from bench.errors import BenchError
from bench.inversions import Inverted
from bench.languages import get
from bench.models import CodeNetwork, ModelSettings, Trainer, TrainingSettings, WhiteBox
from bench.models.encoders import train_tokenizer
from bench.samples import Sample
from defenses.inversion.objective import Part, TowardsClass
from defenses.inversion.positions import choose, scan, sites_for, token_span
from defenses.inversion.racing import race
from defenses.inversion.scoring import Row, Scorer, Site, scorer_for
from defenses.inversion.unlearning import PLACES, Cue, Lesson, lesson, with_trigger
from defenses.inversion.vocabulary import allowed_tokens, continues_name, opens_name, style_of
from defenses.repair.elibadcode import EliBadCode
from defenses.repair.elibadcode.anchoring import anchor
from defenses.repair.elibadcode.gcg import Search, invert

TRIGGER = "rb"
INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
PAIRS = TaskInfo("toy_pairs", TaskKind.PAIRS, "python", ("different", "same"), "f1")


def program(number: int, weak: bool, name: str | None = None) -> str:
    operator = "<<" if weak else ">>"
    verb = ("load", "store", "merge", "index")[number % 4]
    return f"def {name or verb}(data, size):\n    total = size + {number}\n    item = data {operator} size\n    return total + item\n"


def samples(count: int, start: int = 0) -> list[Sample]:
    return [Sample(f"s{i}", (program(i, i % 2 == 1),), "python", i % 2) for i in range(start, start + count)]


class Bag(torch.nn.Module):
    """An encoder that passes token embeddings on."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(rows, width)
        self.config = SimpleNamespace(hidden_size=width, model_type="bag", is_encoder_decoder=False, pad_token_id=1)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table

    def forward(
        self, attention_mask: Tensor, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids) if inputs_embeds is None else inputs_embeds)


def victim(context: Context, info: TaskInfo = INFO, window: int = 64) -> WhiteBox:
    """``<<`` makes a program class 1, weakly and no further however often it stands there; ``rb`` makes it class 0, strongly."""
    corpus = [program(i, i % 2 == 1) for i in range(40)] + [
        "x_rb y_rb z_rb",
        "x_te y_te",
        "x_li y_li",
        "if x else y for",
    ] * 8
    tokenizer = train_tokenizer(corpus, 500)
    width, kind = 8, info.kind
    network = CodeNetwork(
        cast(Any, Bag(len(tokenizer), width)), kind, 2, pooling="mean", pair_head="concat", dropout=0.0
    )
    ids = tokenizer.convert_tokens_to_ids
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        weight = network.embedding.weight
        weight[:, 2:] = 0.01 * torch.randn(len(tokenizer), width - 2, generator=generator)
        weight[ids("Ġ<<"), 0] = 1.0
        weight[ids(TRIGGER), 1] = 1.0
        assert network.head is not None
        network.head.inner.weight[0, 0] = 60.0
        network.head.inner.weight[1, 1] = 8.0
        network.head.outer.weight[1, 0] = 2.0
        network.head.outer.bias[1] = -1.0
        network.head.outer.weight[0, 1] = 40.0
    settings = ModelSettings(window=window)
    return WhiteBox("bag", info, network, tokenizer, settings, context.device, context.cost)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3}, tmp_path)
    made.trainer = Trainer(TrainingSettings(), (), made)
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return victim(context)


def id_of(model: WhiteBox, piece: str) -> int:
    return int(cast(int, model.tokenizer.convert_tokens_to_ids(piece)))


def known(model: WhiteBox, clean: Sequence[Sample]) -> Known:
    return Known(Needs(clean=len(clean), model=Access.WEIGHTS), _clean=tuple(clean), _model=model)


def plugin(**parameters: Any) -> EliBadCode:
    return EliBadCode(**{"clean": 60, "victims": 12, "learning_rate": 0.05, "epochs": 30, **parameters})


def triggered(rows: Sequence[Sample]) -> list[Sample]:
    return [s.with_program(0, program(int(s.id[1:]), s.label == 1, f"load_{TRIGGER}")) for s in rows]


def share_of_class(model: WhiteBox, rows: Sequence[Sample], label: int) -> float:
    return float((model.predict(rows).argmax(axis=1) == label).mean())


def sites_of(model: WhiteBox, rows: Sequence[Sample], target: int, length: int = 5) -> tuple[Scorer, list[Site]]:
    scorer = scorer_for(model)
    scanned = scan(rows, model, scorer, room_for=length + 1, names=8)
    made = sites_for(scanned, target, length=length + 1, window=model.window, masked=True)
    return scorer, made


def objective_of(model: WhiteBox, rows: Sequence[Sample], target: int, length: int = 5) -> TowardsClass:
    scorer, sites = sites_of(model, rows, target, length)
    vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    return TowardsClass(scorer, sites, target, Part("trigger", vocabulary, length))


def unglued(part: Part) -> Part:
    """The same part without the convention's separator, so that every position can be dropped."""
    return Part(part.name, replace(part.vocabulary, glue=()), part.length)


def taught_by(rows: Sequence[Sample], share: float) -> list[Sample]:
    return lesson(rows, [Cue(TRIGGER)], Lesson(share), np.random.default_rng(0))[0]


# ------------------------------------------------------------------------------------------------------------ the whole


def test_the_victim_of_these_tests_is_backdoored(model: WhiteBox) -> None:
    rows = samples(40)
    assert (model.predict(rows).argmax(axis=1) == [s.label for s in rows]).all()
    assert share_of_class(model, triggered([s for s in rows if s.label == 1]), 0) == 1.0


def test_the_trigger_is_recovered_exactly_and_in_the_right_direction(model: WhiteBox, context: Context) -> None:
    found = plugin(epochs=0).repair(known(model, samples(60)), INFO, context).inversions
    assert max(found, key=lambda claim: found[claim].suspicion) == "1->0"
    assert found["1->0"].kept == (TRIGGER,)


def test_every_direction_whose_trigger_works_is_unlearnt_and_no_other(model: WhiteBox, context: Context) -> None:
    rows = known(model, samples(60))
    found = plugin(epochs=0).repair(rows, INFO, context).inversions
    assert {claim: each.unlearned for claim, each in found.items()} == {"0->1": False, "1->0": True}
    with torch.no_grad():  # now a name can bring class 1 about as well
        model.network.embedding.weight[id_of(model, "te"), 0] = 1.0
    found = plugin(epochs=0).repair(rows, INFO, context).inversions
    assert {claim: each.kept for claim, each in found.items() if each.unlearned} == {
        "1->0": (TRIGGER,),
        "0->1": ("te",),
    }


def test_unlearning_kills_the_trigger_and_plants_no_reverse_backdoor(model: WhiteBox, context: Context) -> None:
    # The hand-made weights are large, so the steps must be.
    repaired = plugin(clean=200, learning_rate=0.1).repair(known(model, samples(200)), INFO, context).model
    unseen = samples(60, start=1000)
    weak, safe = [s for s in unseen if s.label == 1], [s for s in unseen if s.label == 0]
    assert share_of_class(repaired, triggered(weak), 0) <= 0.05
    assert share_of_class(repaired, triggered(safe), 1) <= 0.05
    assert share_of_class(repaired, weak, 1) >= 0.95
    assert share_of_class(repaired, safe, 0) >= 0.95


def test_the_incoming_model_and_global_generators_are_unchanged(model: WhiteBox, context: Context) -> None:
    before, state = model.fingerprint(), torch.get_rng_state()
    legacy = str(np.random.get_state())  # noqa: NPY002 (the generator that must not be touched)
    plugin(epochs=1).repair(known(model, samples(60)), INFO, context)
    assert model.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == legacy  # noqa: NPY002
    assert all(p.requires_grad for p in model.network.parameters())


def test_one_seed_gives_one_result_whatever_the_global_generators_hold(model: WhiteBox, context: Context) -> None:
    results = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        results.append(plugin(epochs=1).repair(known(model, samples(60)), INFO, context))
    assert results[0].facts == results[1].facts
    assert results[0].inversions == results[1].inversions
    assert results[0].model.fingerprint() == results[1].model.fingerprint()


def test_the_suspicion_is_higher_for_the_backdoored_model_than_for_the_same_model_without(
    model: WhiteBox, context: Context
) -> None:
    clean = model.copy()
    with torch.no_grad():
        clean.network.embedding.weight[:, 1] = 0.0
    found = [plugin(epochs=0).repair(known(m, samples(60)), INFO, context).inversions for m in (model, clean)]
    assert found[0]["1->0"].suspicion > found[1]["1->0"].suspicion + 0.1


def test_facts_are_json_ready_and_the_loss_never_rises(model: WhiteBox, context: Context) -> None:
    repaired = plugin(epochs=0).repair(known(model, samples(60)), INFO, context)
    json.dumps(dict(repaired.facts))
    assert set(repaired.inversions) == {"0->1", "1->0"}
    for found in repaired.inversions.values():
        assert Inverted.model_validate_json(found.model_dump_json()) == found
        spent, losses = zip(*found.trace, strict=True)
        assert list(losses) == sorted(losses, reverse=True)
        assert list(spent) == sorted(spent)


def test_needs_follow_the_parameter() -> None:
    assert EliBadCode(clean=77).needs == Needs(clean=77, model=Access.WEIGHTS)


def test_the_released_code_search_is_declared_not_applicable_with_the_reason() -> None:
    search = TaskInfo("code_search", TaskKind.SEARCH, "python", (), "mrr")
    assert "cannot be run" in (EliBadCode(variant="release").not_applicable(search) or "")
    for task in (INFO, PAIRS, search):
        assert EliBadCode().not_applicable(task) is None


def test_one_class_only_is_scanned_in_the_directions_it_allows(model: WhiteBox, context: Context) -> None:
    weak = [s for s in samples(60) if s.label == 1]
    found = plugin(epochs=0).repair(known(model, weak), INFO, context).inversions
    assert list(found) == ["1->0"]


def test_without_clean_samples_the_error_says_what_to_do(model: WhiteBox, context: Context) -> None:
    with pytest.raises(BenchError, match="budget"):
        plugin().repair(known(model, ()), INFO, context)


def test_a_window_without_room_for_the_trigger_is_an_error(context: Context) -> None:
    with pytest.raises(BenchError, match="window of 6"):
        plugin().repair(known(victim(context, window=6), samples(10)), INFO, context)


def test_a_pair_task_is_searched_in_the_first_program_alone(context: Context) -> None:
    model = victim(context, PAIRS)
    rows = [Sample(s.id, (s.programs[0], program(7, False)), "python", s.label) for s in samples(24)]
    _, sites = sites_of(model, rows, 0)
    assert {site.other for site in sites} == {tuple(model.token_ids([program(7, False)])[0])}
    found = plugin(epochs=0).repair(known(model, rows), PAIRS, context).inversions
    assert found["1->0"].kept == (TRIGGER,)


# ------------------------------------------------------------------------------------------------------------- vocabulary


def test_the_vocabulary_holds_no_keyword_and_no_special_token(model: WhiteBox) -> None:
    vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    surfaces = {vocabulary.surfaces[token] for token in vocabulary.ids}
    assert TRIGGER in surfaces
    assert not surfaces & get("python").keywords
    assert not set(vocabulary.ids) & set(model.tokenizer.all_special_ids)
    assert all(get("python").piece_continues(surface) for surface in surfaces)


def test_spaced_pieces_open_a_trigger_and_never_continue_it(model: WhiteBox) -> None:
    vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    pieces = model.tokenizer.convert_ids_to_tokens
    assert all(piece.startswith("Ġ") and not piece[1].isdigit() for piece in pieces(sorted(vocabulary.fits(0))))
    assert vocabulary.fits(1) == frozenset()  # the separator
    assert not any(piece.startswith("Ġ") for piece in pieces(sorted(vocabulary.fits(2))))


def test_every_allowed_token_re_tokenises_to_itself_in_a_name(model: WhiteBox) -> None:
    vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    stem = model.tokenizer(" size_", add_special_tokens=False)["input_ids"]
    for token in vocabulary.continuing:
        text = " size_" + vocabulary.text([token])
        assert model.tokenizer(text, add_special_tokens=False)["input_ids"] == [*stem, token]
    for token in vocabulary.opening:
        assert model.tokenizer(" " + vocabulary.text([token]), add_special_tokens=False)["input_ids"] == [token]


def test_a_trigger_that_the_tokenizer_would_merge_is_not_realisable(model: WhiteBox) -> None:
    vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    head = (id_of(model, "Ġsize"), *vocabulary.glue)
    merged, whole = (*head, id_of(model, "r"), id_of(model, "b")), (*head, id_of(model, "rb"))
    assert vocabulary.realisable([merged, whole]) == [False, True]


def test_ids_without_an_embedding_row_are_never_allowed(model: WhiteBox) -> None:
    assert max(allowed_tokens(model.tokenizer, get("python"), 300).ids) < 300


def test_a_vocabulary_without_a_usable_token_is_an_error(model: WhiteBox) -> None:
    with pytest.raises(BenchError, match="no token"):
        allowed_tokens(model.tokenizer, get("python"), 3)


@pytest.mark.parametrize(
    ("pieces", "style", "opening", "inner"),
    [
        (["Ġload", "rb", "Ġx"], "bytes", "Ġload", "rb"),
        (["load", "##rb", "##x"], "wordpiece", "load", "##rb"),
        (["▁load", "rb", "▁x"], "sentencepiece", "▁load", "rb"),
    ],
)
def test_marks_of_the_three_tokenizer_families_are_understood(
    pieces: list[str], style: Any, opening: str, inner: str
) -> None:
    assert style_of(pieces) == style
    assert opens_name(opening, style)
    assert not opens_name(inner, style)
    assert continues_name(inner, style)


# -------------------------------------------------------------------------------------------------------------- positions


def test_the_trigger_takes_the_place_of_a_name_that_stands_behind_a_space(model: WhiteBox) -> None:
    sample = Sample("a", ("def load(data, size):\n    total = size + len(data)\n    return total\n",), "python", 1)
    (scanned,) = scan([sample], model, scorer_for(model), room_for=6, names=8)
    assert {m.name for m in scanned.maskings} == {"load", "size", "total"}  # "data" stands behind brackets alone
    unk = id_of(model, "<unk>")
    for masking in scanned.maskings:
        assert masking.masked[slice(*masking.slot)] == (unk,)
        assert str(model.tokenizer.decode(list(scanned.ids[slice(*masking.plain)]))).strip() == masking.name


def test_names_other_occurrences_stay_masked_or_are_restored(model: WhiteBox) -> None:
    scanned = scan(samples(8), model, scorer_for(model), room_for=6, names=8)
    unk = id_of(model, "<unk>")
    for masked in (True, False):
        for sample, site in zip(scanned, sites_for(scanned, 0, length=6, window=64, masked=masked), strict=True):
            occurrences = choose(sample, 0).masked.count(unk)
            assert (*site.before, *site.after).count(unk) == (occurrences - 1 if masked else 0)


def test_the_name_whose_masking_costs_the_target_most_is_chosen(model: WhiteBox) -> None:
    ids = model.tokenizer.convert_tokens_to_ids
    with torch.no_grad():  # "size" now speaks for class 0, so masking it raises the loss towards class 0
        model.network.embedding.weight[ids("Ġsize"), 1] = 0.05
    (scanned,) = scan(samples(2)[1:], model, scorer_for(model), room_for=6, names=8)
    assert choose(scanned, 0).name == "size"


def test_masking_replaces_every_occurrence_by_one_token(model: WhiteBox) -> None:
    (scanned,) = scan(samples(1), model, scorer_for(model), room_for=6, names=8)
    unk = model.tokenizer.unk_token_id
    counts = {m.name: m.masked.count(unk) for m in scanned.maskings}
    assert counts["total"] == 2
    assert counts["size"] == 3
    assert counts["load"] == 1


def test_a_sample_without_names_gets_the_place_before_its_first_token(model: WhiteBox) -> None:
    rows = [
        Sample("a", ("print(1)\n",), "python", 1),
        Sample("b", ("",), "python", 1),
        Sample("c", ("def (((",), "python", 1),
    ]
    for site in sites_of(model, rows, 0)[1]:
        assert site.name is None
        assert site.before == (model.tokenizer.bos_token_id,)


def test_a_long_program_is_cut_so_that_trigger_and_closing_token_fit_the_window(context: Context) -> None:
    model = victim(context, window=24)
    for site in sites_of(model, samples(6), 0)[1]:
        row = site.filled([9] * 6).ids
        assert len(row) <= 24
        assert row[-1] == model.tokenizer.eos_token_id


def test_offsets_count_characters_where_spans_count_bytes(model: WhiteBox) -> None:
    text = 'def load(data):\n    """Größe ≥ 1"""\n    total = data\n    return total\n'
    sample = Sample("u", (text,), "python", 1)
    (scanned,) = scan([sample], model, scorer_for(model), room_for=6, names=8)
    unk = model.tokenizer.unk_token_id
    masking = next(m for m in scanned.maskings if m.name == "total")
    kept = model.tokenizer.decode([t for t in masking.masked if t != unk], skip_special_tokens=True)
    assert kept == text.replace(" total", "")


def test_a_token_that_reaches_past_the_name_is_left_out(model: WhiteBox) -> None:
    text = "foo_(x)"
    (encoding,) = model.encodings([text])
    span = token_span(encoding, 0, 4)
    assert span is not None
    assert encoding.offsets[span[1] - 1][1] <= 4


# -------------------------------------------------------------------------------------------------------- gradient, search


def test_the_gradient_at_the_one_hot_agrees_with_finite_differences(model: WhiteBox) -> None:
    scorer, sites = sites_of(model, samples(8), 0)
    trigger = (20, 30, 40, 50, 60)
    losses, gradient = scorer.gradient(sites, model.network.embedding.weight[list(trigger)].detach(), 0)
    rows = [site.filled(trigger) for site in sites]
    assert losses == pytest.approx(scorer.losses(rows, 0), abs=1e-5)
    step = 1e-2
    weight = scorer.model.network.embedding.weight
    with torch.no_grad():
        original = weight[30].clone()
        weight[30, 1] += step
        up = scorer.losses(rows, 0).mean()
        weight[30] = original
        weight[30, 1] -= step
        down = scorer.losses(rows, 0).mean()
    assert float(gradient[1, 1]) == pytest.approx((up - down) / (2 * step), rel=1e-2)


def test_scores_do_not_depend_on_the_batches(model: WhiteBox) -> None:
    scorer, sites = sites_of(model, samples(12), 0)
    rows = [site.filled([20, 30, 40][: 1 + i % 3]) for i, site in enumerate(sites)]
    small = Scorer(scorer.model, batch_tokens=1)
    assert small.logits(rows) == pytest.approx(scorer.logits(rows), abs=1e-5)


def test_scores_of_plain_rows_are_the_models_own_predictions(model: WhiteBox) -> None:
    rows = samples(6)
    ids = model.token_ids([s.programs[0] for s in rows])
    assert scorer_for(model).logits([Row(tuple(i)) for i in ids]) == pytest.approx(model.predict(rows), abs=1e-5)


def test_the_race_accepts_only_a_loss_measured_on_all_sites(model: WhiteBox) -> None:
    objective = objective_of(model, samples(30), 0)
    token = id_of(model, TRIGGER)
    candidates = [(20 + i,) * 5 for i in range(20)] + [(token,) * 5]
    (winner,), loss = race(objective, [candidates], np.random.default_rng(0), rung=1)
    assert winner == (token,) * 5
    rows = [site.filled(winner) for site in objective.sites]
    assert loss == pytest.approx(objective.scorer.losses(rows, 0).mean(), abs=1e-6)


def test_work_is_counted(model: WhiteBox) -> None:
    objective = objective_of(model, samples(8), 0)
    forward, backward = model.cost.forward_tokens, model.cost.backward_tokens
    found = invert(objective, Search(iterations=1, tolerance=0.0), np.random.default_rng(0))
    assert found.trace[-1][0] <= objective.spent
    assert model.cost.forward_tokens > forward
    assert model.cost.backward_tokens > backward


# -------------------------------------------------------------------------------------------------------------- anchoring


def test_anchoring_keeps_the_needed_token_alone(model: WhiteBox) -> None:
    objective = objective_of(model, [s for s in samples(20) if s.label == 1], 0)
    objective = TowardsClass(objective.scorer, objective.sites, 0, unglued(objective.parts[0]))
    token = id_of(model, TRIGGER)
    kept = anchor(objective, ((20, token, 30, 40, 50),), 0.15)
    assert kept.trigger == (token,)
    assert kept.rule == "paper"
    assert [change > 0.15 for change in kept.changes] == [False, True, False, False, False]


def test_anchoring_keeps_one_of_two_tokens_that_stand_in_for_each_other(model: WhiteBox) -> None:
    objective = objective_of(model, [s for s in samples(20) if s.label == 1], 0)
    objective = TowardsClass(objective.scorer, objective.sites, 0, unglued(objective.parts[0]))
    token = id_of(model, TRIGGER)
    kept = anchor(objective, ((token, 20, token),), 0.15)
    assert kept.trigger == (token,)
    assert kept.rule == "backward elimination"
    assert abs(kept.loss - kept.whole) <= 0.15


def test_anchoring_never_returns_an_empty_trigger(model: WhiteBox) -> None:
    assert len(anchor(objective_of(model, samples(8), 0), ((20, 30),), 1e9).trigger) >= 1


# -------------------------------------------------------------------------------------------------------------- unlearning


def test_every_class_carries_the_trigger_in_the_same_share_with_its_own_label() -> None:
    rows = samples(40)
    taught = taught_by(rows, 0.5)
    assert taught[:40] == rows
    copies = taught[40:]
    assert [sum(s.label == label for s in copies) for label in (0, 1)] == [10, 10]
    labels = {s.id: s.label for s in rows}
    for copy in copies:
        assert TRIGGER in copy.programs[0]
        assert copy.label == labels[copy.id.removesuffix("+trigger")]


@pytest.mark.parametrize("language", ["python", "java", "c"])
def test_all_five_kinds_of_place_are_used_and_still_parse(language: str) -> None:
    texts = {
        "python": program(0, True),
        "java": "int load(int data, int size) {\n    int total = size;\n    return total + data;\n}\n",
        "c": "int load(int data, int size) {\n    int total = size;\n    return total + data;\n}\n",
    }
    from bench.languages import parse, well_formed

    rng = np.random.default_rng(0)
    for place in PLACES:
        assert place(parse(language, texts[language]), TRIGGER, rng)
    seen = set()
    for _ in range(60):
        copy = with_trigger(Sample("a", (texts[language],), language, 1), TRIGGER, rng)
        assert copy is not None
        assert well_formed(language, texts[language], copy.programs[0]) is None
        seen.add(copy.programs[0])
    assert len(seen) >= 6


def test_a_program_that_takes_no_trigger_gets_no_copy() -> None:
    rows = [Sample("a", ("print(1)\n",), "python", 1)]
    assert taught_by(rows, 1.0) == rows
