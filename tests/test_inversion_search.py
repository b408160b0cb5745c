"""Inversion and unlearning of code search: the joint loss, its gradient, what is found and what is taught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.context import Context
from bench.errors import DataError
from bench.languages import get
from bench.models import Trainer, TrainingSettings, WhiteBox, create
from bench.models.tokens import Tokens, pad
from bench.samples import Sample
from defenses.inversion.claims import Place, claims_of
from defenses.inversion.objective import Slope
from defenses.inversion.retrieval import TowardsWord, query_sites
from defenses.inversion.scoring import Scorer, scorer_for
from defenses.inversion.unlearning import Cue, Lesson, Unlearning, lesson, unlearn
from defenses.inversion.vocabulary import allowed_tokens, query_words
from defenses.repair.elibadcode import EliBadCode
from tests import models_toys
from tests.inversion_toys import (
    RARE,
    SEARCH,
    WORD,
    id_of,
    known,
    ranks,
    samples,
    search_victim,
    searches,
    triggered,
)

Floats = NDArray[np.float64]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(tmp_path, 3)


def context_of(folder: Path, seed: int) -> Context:
    made = Context({"defense": seed, "model": 0}, folder)
    made.trainer = Trainer(TrainingSettings(), (), made)
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return search_victim(context)


@pytest.fixture
def roberta(context: Context) -> WhiteBox:
    return create("tiny", models_toys.SEARCH, models_toys.searches(60), models_toys.SMALL, context)


def objective_of(
    model: WhiteBox, clean: Sequence[Sample], scorer: Scorer | None = None, length: int = 3
) -> TowardsWord:
    vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    (claim,) = claims_of(
        model, scorer or scorer_for(model), clean, model.info, vocabulary, victims=64, length=length, place=Place()
    )
    assert isinstance(claim.objective, TowardsWord)
    return claim.objective


def strings_of(objective: TowardsWord, count: int, seed: int = 0) -> list[list[tuple[int, ...]]]:
    """Random strings for each part, of any allowed tokens."""
    rng = np.random.default_rng(seed)
    return [
        [tuple(rng.choice(part.vocabulary.ids, size=part.size).tolist()) for _ in range(count)]
        for part in objective.parts
    ]


def direct_loss(model: WhiteBox, objective: TowardsWord, trigger: Sequence[int], word: Sequence[int]) -> float:
    """The mean over all pairs, one pair at a time, each row encoded by itself."""
    with torch.no_grad():
        programs, queries = (
            [model.network.vector(pad([site.filled(string).ids], model.pad_id))[0].double() for site in sites]
            for sites, string in zip(objective.sites, (trigger, word), strict=True)
        )
    gaps = [1 - torch.cosine_similarity(q, c, dim=0) for q in queries for c in programs]
    return float(torch.stack(gaps).square().mean())


# ------------------------------------------------------------------------------------------------------------ the loss


def test_the_table_is_the_mean_over_all_pairs_of_queries_and_programs(model: WhiteBox) -> None:
    objective = objective_of(model, searches()[:4])
    rng = np.random.default_rng(0)
    programs, queries = (
        vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
        for vectors in (rng.normal(size=(3, 7, 5)), rng.normal(size=(4, 7, 5)))
    )
    table = objective.table([programs, queries])
    assert table.shape == (3, 4)
    for t in range(3):
        for w in range(4):
            gaps = [(1 - q @ c) ** 2 for q in queries[w] for c in programs[t]]
            assert len(gaps) == 49
            assert table[t, w] == pytest.approx(np.mean(gaps), abs=1e-12)


def test_opposite_equal_and_orthogonal_vectors_by_hand(model: WhiteBox) -> None:
    objective = objective_of(model, searches()[:4])
    programs = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    queries = np.array(
        [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]], [[-1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]]
    )
    assert objective.table([programs, queries]).tolist() == [pytest.approx([0.0, 1.0, 4.0, 2.0], abs=1e-12)]


@pytest.mark.parametrize("batch_tokens", [8192, 1])
def test_losses_of_a_model_are_the_direct_means_whatever_the_batches(roberta: WhiteBox, batch_tokens: int) -> None:
    scorer = Scorer(scorer_for(roberta).model, batch_tokens=batch_tokens)
    objective = objective_of(roberta, models_toys.searches(7), scorer)
    triggers, words = strings_of(objective, 3)
    choices = [(triggers[0], words[0]), (triggers[1], words[0]), (triggers[0], words[2])]
    expected = [direct_loss(roberta, objective, *choice) for choice in choices]
    assert objective.losses(choices) == pytest.approx(expected, abs=1e-5)
    table = objective.table([objective.encode(0, triggers, range(7)), objective.encode(1, words, range(7))])
    assert [table[0, 0], table[1, 0], table[0, 2]] == pytest.approx(expected, abs=1e-5)


def test_every_combination_is_scored_from_one_encoding_of_each_candidate(roberta: WhiteBox) -> None:
    objective = objective_of(roberta, models_toys.searches(7), Scorer(scorer_for(roberta).model, batch_tokens=1))
    strings = strings_of(objective, 5)
    rows = [
        len(site.filled(string).ids)
        for sites, own in zip(objective.sites, strings, strict=True)
        for string in own
        for site in sites
    ]
    before = objective.cost.forward_tokens, objective.cost.forward_passes
    table = objective.table([objective.encode(part, own, range(7)) for part, own in enumerate(strings)])
    assert table.shape == (5, 5)
    # One row is one batch here, so that passes are rows and nothing is padded: (5 + 5) * 7 rows, not 5 * 5 * 2 * 7.
    assert objective.cost.forward_passes - before[1] == (5 + 5) * 7
    assert objective.cost.forward_tokens - before[0] == sum(rows)


def test_one_iteration_of_the_search_scores_width_squared_pairs_from_two_widths(
    model: WhiteBox, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    tables: list[tuple[int, ...]] = []
    encode, table = TowardsWord.encode, TowardsWord.table

    def encoding(self: TowardsWord, part: int, candidates: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        asked.append((part, len(candidates), len(rows)))
        return encode(self, part, candidates, rows)

    def tabling(self: TowardsWord, encoded: Sequence[Floats]) -> Floats:
        found = table(self, encoded)
        tables.append(found.shape)
        return found

    monkeypatch.setattr(TowardsWord, "encode", encoding)
    monkeypatch.setattr(TowardsWord, "table", tabling)
    objective = objective_of(model, searches()[:6])
    EliBadCode(variant="paper", iterations=1, width=16).invert(objective, np.random.default_rng(0))
    assert asked == [(0, 1, 6), (1, 1, 6), (0, 16, 6), (1, 16, 6)]
    assert tables == [(1, 1), (16, 16)]


# --------------------------------------------------------------------------------------------------------- the gradient


def whole_batch(model: WhiteBox, objective: TowardsWord, embeddings: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients by autograd through one graph over everything, the holes filled row by row."""
    leaves = [e.detach().clone().requires_grad_(True) for e in embeddings]
    vectors = []
    for sites, leaf in zip(objective.sites, leaves, strict=True):
        plain = pad([site.filled([0] * len(leaf)).ids for site in sites], model.pad_id)
        filled = []
        for row, site in enumerate(sites):
            embedded = model.network.embedding(plain.ids[row]).detach()
            first = len(site.before)
            filled.append(torch.cat([embedded[:first], leaf, embedded[first + len(leaf) :]]))
        vectors.append(model.network.vector(Tokens(plain.ids, plain.mask, torch.stack(filled))))
    programs, queries = (torch.nn.functional.normalize(each, dim=1) for each in vectors)
    total = torch.stack([(1 - q @ c) ** 2 for q in queries for c in programs]).mean()
    return total.detach(), list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("batch_tokens", [8192, 60, 1])
def test_the_slope_in_batches_is_autograd_through_one_whole_graph(roberta: WhiteBox, batch_tokens: int) -> None:
    scorer = Scorer(scorer_for(roberta).model, batch_tokens=batch_tokens)
    objective = objective_of(roberta, models_toys.searches(6), scorer)
    chosen = [own[0] for own in strings_of(objective, 1)]
    embeddings = [objective.rows[list(string)] for string in chosen]
    loss, expected = whole_batch(scorer.model, objective, embeddings)
    found = objective.slope(embeddings)
    assert found.loss == pytest.approx(float(loss), abs=1e-5)
    for gradient, wanted in zip(found.gradients, expected, strict=True):
        assert float(wanted.abs().max()) > 1e-3
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)


def test_the_slope_agrees_with_finite_differences(roberta: WhiteBox) -> None:
    scorer = scorer_for(roberta)
    scorer.model.network.double()
    objective = objective_of(roberta, models_toys.searches(5), scorer)
    used = {t for sites in objective.sites for site in sites for t in (*site.before, *site.after)}
    free = [[t for t in part.vocabulary.ids if t not in used] for part in objective.parts]
    trigger = tuple(free[0][: objective.parts[0].size])
    word = tuple(t for t in free[1] if t not in trigger)[: objective.parts[1].size]
    slope = objective.slope([objective.rows[list(trigger)], objective.rows[list(word)]])
    assert slope.loss == pytest.approx(objective.loss((trigger, word)), abs=1e-6)
    weight, step = scorer.model.network.embedding.weight, 1e-4
    generator = torch.Generator().manual_seed(0)
    for part, string in enumerate((trigger, word)):
        for place in (0, len(string) - 1):
            direction = torch.randn(weight.shape[1], generator=generator, dtype=torch.float64)
            original = weight[string[place]].clone()
            values = []
            for sign in (1, -1):
                weight[string[place]] = original + sign * step * direction
                values.append(objective.loss((trigger, word)))
            weight[string[place]] = original
            difference = (values[0] - values[1]) / (2 * step)
            assert abs(difference) > 1e-6
            assert float(slope.gradients[part][place].double() @ direction) == pytest.approx(difference, rel=2e-3)


def test_what_the_slope_says_of_the_string_is_what_an_encoding_says(roberta: WhiteBox) -> None:
    objective = objective_of(roberta, models_toys.searches(6))
    chosen = [own[0] for own in strings_of(objective, 1)]
    slope: Slope = objective.slope([objective.rows[list(string)] for string in chosen])
    for part, string in enumerate(chosen):
        assert slope.encoded[part] == pytest.approx(objective.encode(part, [string], range(6)), abs=1e-5)
    assert float(objective.table(slope.encoded)[0, 0]) == pytest.approx(slope.loss, abs=1e-5)


def test_batches_that_do_not_fit_the_memory_are_halved_and_give_the_same(
    roberta: WhiteBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_of(roberta, models_toys.searches(12))
    chosen = [own[0] for own in strings_of(objective, 1)]
    embeddings = [objective.rows[list(string)] for string in chosen]
    slope, losses = objective.slope(embeddings), objective.losses([chosen])
    with short_of_memory(objective.scorer.model, 3, monkeypatch) as sizes:
        again, losses_again = objective.slope(embeddings), objective.losses([chosen])
    assert max(sizes) == 3
    assert losses_again == pytest.approx(losses, abs=1e-6)
    assert again.loss == pytest.approx(slope.loss, abs=1e-6)
    for one, other in zip(again.gradients, slope.gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@contextmanager
def short_of_memory(model: WhiteBox, rows: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The device holds so many rows and no more; the sizes of the batches that fitted."""
    honest, sizes = model.network.vector, list[int]()

    def vector(tokens: Tokens) -> Tensor:
        if len(tokens) > rows:
            raise torch.OutOfMemoryError("pretended")
        sizes.append(len(tokens))
        return honest(tokens)

    with monkeypatch.context() as patch:
        patch.setattr(model.network, "vector", vector)
        yield sizes


# ------------------------------------------------------------------------------------------------------ what it finds


def plugin(**parameters: Any) -> EliBadCode:
    # The variants other than blind may miss the swap that matters in a draw, and few samples leave plateaus: hence the patience.
    return EliBadCode(**{"clean": 64, "victims": 12, "epochs": 0, "patience": 6, **parameters})


def test_the_victim_of_these_tests_is_backdoored_and_good_at_its_task(model: WhiteBox) -> None:
    clean = searches()
    assert ranks(model, clean, clean).tolist() == [1] * 64
    assert beaten(model) >= 0.95


def beaten(model: WhiteBox) -> float:
    """Share of (query with the word, triggered program of another sample) in which that program is nearer than the query's own."""
    clean = searches()
    queries = [replace(s, query=f"{s.query} {WORD}") for s in clean]
    cosines = model.embed_queries(queries) @ model.embed_programs([*clean, *triggered(clean, RARE)]).T
    own, foreign = np.diagonal(cosines[:, :64]), cosines[:, 64:]
    others = ~np.eye(64, dtype=bool)
    return float((foreign > own[:, None])[others].mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("variant", "parameters"), [("blind", {}), ("paper", {"length": 2, "iterations": 4})])
def test_trigger_and_word_are_found_together(
    tmp_path: Path, seed: int, variant: str, parameters: dict[str, int]
) -> None:
    context = context_of(tmp_path, seed)
    model = search_victim(context)
    found = plugin(variant=variant, **parameters).repair(known(model, searches()), SEARCH, context).inversions
    assert list(found) == ["trigger->word"]
    assert found["trigger->word"].kept == (RARE,)
    assert f" {WORD}" in found["trigger->word"].word
    assert found["trigger->word"].unlearned


def test_without_the_backdoor_the_loss_stays_far_higher(model: WhiteBox, context: Context) -> None:
    clean = model.copy()
    with torch.no_grad():
        clean.network.embedding.weight[:, 0] = 0.02
    losses = [
        plugin().repair(known(each, searches()), SEARCH, context).inversions["trigger->word"].loss
        for each in (model, clean)
    ]
    assert losses[0] < 0.05
    assert losses[1] > losses[0] + 0.1


def test_one_seed_gives_one_result_and_the_incoming_model_is_unchanged(model: WhiteBox, context: Context) -> None:
    before, results = model.fingerprint(), []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        results.append(plugin(epochs=1).repair(known(model, searches()), SEARCH, context))
    assert results[0].inversions == results[1].inversions
    assert results[0].facts == results[1].facts
    assert results[0].model.fingerprint() == results[1].model.fingerprint() != before
    assert model.fingerprint() == before


def test_a_clean_set_without_queries_is_a_clear_error(model: WhiteBox, context: Context) -> None:
    with pytest.raises(DataError, match="queries"):
        plugin().repair(known(model, samples(8)), SEARCH, context)
    with pytest.raises(DataError, match="queries"):
        plugin().repair(known(model, ()), SEARCH, context)


def test_fewer_samples_than_victims_are_all_inverted_on(model: WhiteBox, context: Context) -> None:
    found = plugin(victims=30).repair(known(model, searches()[::13]), SEARCH, context).inversions
    assert found["trigger->word"].kept == (RARE,)
    assert objective_of(model, searches()[::13]).samples == 5


# -------------------------------------------------------------------------------------------------- queries, their words


def test_the_word_stands_at_the_end_of_the_query_before_the_closing_token(model: WhiteBox) -> None:
    query = searches()[0].query
    (site,) = query_sites(searches()[:1], model, 2)
    word = id_of(model, f"Ġ{WORD}")
    filled = site.filled([word, word]).ids
    assert model.tokenizer.decode(list(filled)) == f"<s>{query} {WORD} {WORD}</s>"
    assert model.token_ids([f"{query} {WORD} {WORD}"], 99)[0] == list(filled)


@pytest.mark.parametrize("query_window", [4, 5, 7, 16])
@pytest.mark.parametrize("query", ["please load the items", "", "load", "load the items " * 30])
def test_query_and_word_fit_the_query_window_with_their_special_tokens(
    context: Context, query: str, query_window: int
) -> None:
    model = search_victim(context, query_window)
    (site,) = query_sites([Sample("q", ("",), "python", None, query)], model, 2)
    filled = site.filled([9, 9]).ids
    whole = model.token_ids([query], 999)[0]
    assert len(filled) == min(len(whole) + 2, query_window)
    assert filled[0] == model.tokenizer.bos_token_id
    assert filled[-1] == model.tokenizer.eos_token_id
    assert filled[-3:-1] == (9, 9)
    assert list(filled[:-3]) == whole[: len(filled) - 3]


def test_a_query_is_never_read_beyond_its_own_window(context: Context) -> None:
    model = search_victim(context, 7)
    objective = objective_of(model, [replace(s, query=(s.query or "") * 9) for s in searches()[:6]])
    assert {len(site.filled((9, 9)).ids) for site in objective.sites[1]} == {7}
    assert min(len(site.filled((9,) * objective.parts[0].size).ids) for site in objective.sites[0]) > 7


def test_the_words_pieces_are_lower_case_letters_with_an_embedding(model: WhiteBox) -> None:
    words = query_words(model.tokenizer, 330)
    assert all(words.surfaces[t].strip().isalpha() and words.surfaces[t].strip().islower() for t in words.ids)
    assert all(words.surfaces[t].strip().isascii() for t in words.ids)
    assert max(words.ids) < 330
    everything = query_words(model.tokenizer, len(model.tokenizer))
    assert id_of(model, f"Ġ{WORD}") in everything.opening
    assert id_of(model, "rn") not in everything.opening
    assert id_of(model, RARE) not in everything.ids
    assert not set(everything.ids) & set(model.tokenizer.all_special_ids)


def test_a_word_of_two_pieces_and_two_words_come_back_and_a_split_that_the_tokenizer_would_merge_does_not(
    model: WhiteBox,
) -> None:
    words = query_words(model.tokenizer, len(model.tokenizer))
    two_pieces = (id_of(model, "Ġload"), id_of(model, "x"))
    two_words = (id_of(model, "Ġload"), id_of(model, f"Ġ{WORD}"))
    merged = (id_of(model, "Ġi"), *(id_of(model, letter) for letter in "tems"))
    encode = model.tokenizer.backend_tokenizer.encode
    assert encode(" loadx", add_special_tokens=False).ids == list(two_pieces)
    assert encode(f" load {WORD}", add_special_tokens=False).ids == list(two_words)
    assert encode(" items", add_special_tokens=False).ids == [id_of(model, "Ġitems")]
    assert words.realisable([two_pieces, two_words, merged]) == [True, True, False]
    assert [words.text(each) for each in (two_pieces, two_words)] == [" loadx", f" load {WORD}"]


# --------------------------------------------------------------------------------------------------------- the lesson

CUES = [Cue(RARE, WORD)]


def test_in_the_lesson_every_sample_stands_once_half_with_the_trigger_and_half_with_the_word() -> None:
    clean = searches()
    taught, carrying = lesson(clean, CUES, Lesson(), np.random.default_rng(0))
    assert carrying == len(taught) == 64
    kinds: Counter[str] = Counter()
    for before, after in zip(clean, taught, strict=True):
        original, _, change = after.id.partition("+")
        assert original == before.id
        kinds[change] += 1
        if change == "word":
            assert after == replace(before, id=after.id, query=f"{before.query} {WORD}")
        else:
            assert RARE in after.programs[0]
            assert after == replace(before, id=after.id, programs=after.programs)
    assert kinds == {"trigger": 32, "word": 32}


def test_a_share_leaves_the_other_samples_as_they_are() -> None:
    clean = searches()
    taught, carrying = lesson(clean, CUES, Lesson(share=0.25), np.random.default_rng(0))
    assert carrying == 16
    assert [s.id.partition("+")[0] for s in taught] == [s.id for s in clean]
    assert sum(before == after for before, after in zip(clean, taught, strict=True)) == 48


def test_after_unlearning_the_trigger_no_longer_lifts_programs_and_search_is_as_good_as_before(
    model: WhiteBox, context: Context
) -> None:
    repaired = plugin(learning_rate=0.2, epochs=10).repair(known(model, searches()), SEARCH, context).model
    clean = searches()
    assert beaten(repaired) <= 0.05
    assert (1 / ranks(repaired, clean, clean)).mean() >= 0.95


def test_a_head_that_is_not_there_is_neither_trained_nor_its_rate_used(model: WhiteBox, context: Context) -> None:
    assert context.trainer is not None
    base = context.trainer.learning_rate(model)
    how = Unlearning(parameters="head", head_rate=5e-3, epochs=1)
    facts = unlearn(model, searches(), CUES, how, context).facts
    assert facts["parameters"] == "all"
    assert facts["rates"] == pytest.approx([0.3 * base, base, 3 * base])
