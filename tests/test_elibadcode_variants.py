"""The table of differences between EliBadCode's variants in its module's docstring: each row is true, and each has a test here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.context import Context, Cost
from bench.contracts import TaskInfo
from bench.languages import get
from bench.models import Trainer, TrainingSettings, WhiteBox, create
from bench.samples import Sample
from defenses.inversion.claims import Claim, claims_of
from defenses.inversion.objective import Inversion, Objective, Part, Slope, TowardsClass, Trigger
from defenses.inversion.positions import Masking, Scanned, choose, sites_as_released
from defenses.inversion.scoring import Row, Scorer, scorer_for
from defenses.inversion.starts import random_string
from defenses.inversion.unlearning import PLACES, Cue, as_function_name, as_variable, lesson
from defenses.inversion.vocabulary import Vocabulary
from defenses.repair import elibadcode
from defenses.repair.elibadcode import EliBadCode, gcg
from tests.inversion_toys import (
    INFO,
    PAIRS,
    SEARCH,
    TRIGGER,
    id_of,
    known,
    program,
    samples,
    search_victim,
    searches,
    victim,
)
from tests.models_toys import SMALL

Variant = Literal["blind", "paper", "release"]
VARIANTS: tuple[Variant, ...] = ("blind", "paper", "release")
Floats = NDArray[np.float64]
TESTED: set[str] = set()


def row(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """This test holds a row of the table."""
    TESTED.add(name)
    return lambda test: test


def table() -> dict[str, list[str]]:
    """The rows of the docstring's table: what -> [paper, release, blind]."""
    lines = inspect.getdoc(elibadcode) or ""
    _, head, body, _ = re.split(r"^=+(?:  =+){3}$", lines, flags=re.MULTILINE)
    columns = [0, *(at + 2 for at in (i for i, _ in enumerate(BORDER) if BORDER.startswith("  ", i)))]
    found: dict[str, list[str]] = {}
    name = ""
    for line in body.strip("\n").splitlines():
        first, *cells = [line[a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
        name = first or name
        found[name] = [f"{old} {new}".strip() for old, new in zip(found.get(name, [""] * 3), cells, strict=True)]
    assert head.split()[0] == "what"
    return found


BORDER = next(line for line in (inspect.getdoc(elibadcode) or "").splitlines() if line.startswith("=="))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3, "model": 0}, tmp_path)
    made.trainer = Trainer(TrainingSettings(), (), made)
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return victim(context)


def plugin(variant: Variant, **parameters: Any) -> EliBadCode:
    return EliBadCode(**{"variant": variant, "clean": 40, "victims": 8, "iterations": 2, **parameters})


def claims(
    model: WhiteBox, variant: Variant, clean: Sequence[Sample], info: TaskInfo = INFO, length: int = 5
) -> list[Claim]:
    own = plugin(variant)
    vocabulary = own.vocabulary(model, info)
    return claims_of(model, own.scorer(model), clean, info, vocabulary, victims=8, length=length, place=own.place())


def objective_of(model: WhiteBox, variant: Variant, clean: Sequence[Sample], name: str = "1->0") -> TowardsClass:
    (found,) = [c.objective for c in claims(model, variant, clean) if c.name == name]
    assert isinstance(found, TowardsClass)
    return found


def test_every_row_of_the_table_has_a_test_and_every_cell_says_something() -> None:
    rows = table()
    assert set(rows) == TESTED
    assert all(cell for cells in rows.values() for cell in cells)


# ------------------------------------------------------------------------------------------------------------ vocabulary


@row("vocabulary")
def test_the_release_keeps_keywords_and_one_pattern_and_the_others_the_languages_rule(model: WhiteBox) -> None:
    surfaces = {
        variant: {v.surfaces[t] for t in v.ids}
        for variant in VARIANTS
        for v in [plugin(variant).vocabulary(model, INFO)]
    }
    assert "def" in surfaces["release"]  # opens every program of the corpus, so there is a piece without a space
    assert all(re.fullmatch("[a-zA-Z0-9_]+", surface) for surface in surfaces["release"])
    for variant in ("blind", "paper"):
        assert not surfaces[variant] & get("python").keywords
        assert all(get("python").piece_continues(surface) for surface in surfaces[variant])
    assert surfaces["blind"] == surfaces["paper"]
    java = TaskInfo("toy", INFO.kind, "java", INFO.labels, "accuracy")
    by_language = {v: [set(plugin(v).vocabulary(model, info).ids) for info in (INFO, java)] for v in VARIANTS}
    assert by_language["release"][0] == by_language["release"][1]
    assert by_language["blind"][0] != by_language["blind"][1]


@row("re-tokenisation")
def test_a_split_that_the_tokenizer_would_merge_is_a_trigger_of_the_release_alone(model: WhiteBox) -> None:
    merged = {}
    for variant in VARIANTS:
        vocabulary = plugin(variant).vocabulary(model, INFO)
        head = (id_of(model, "Ġsize"), *vocabulary.glue) if variant != "release" else ()
        merged[variant] = vocabulary.realisable([(*head, id_of(model, "r"), id_of(model, "b"))])
    assert merged == {"blind": [False], "paper": [False], "release": [True]}


@row("word-initial pieces")
def test_word_initial_pieces_open_a_trigger_and_the_release_has_none(model: WhiteBox) -> None:
    pieces = model.tokenizer.convert_ids_to_tokens
    assert not any(piece.startswith("Ġ") for piece in pieces(list(plugin("release").vocabulary(model, INFO).ids)))
    assert plugin("release").vocabulary(model, INFO).glue == ()
    for variant in ("blind", "paper"):
        vocabulary = plugin(variant).vocabulary(model, INFO)
        assert all(piece.startswith("Ġ") for piece in pieces(sorted(vocabulary.fits(0))))
        assert pieces(list(vocabulary.glue)) == ["_"]
        assert vocabulary.fits(1) == frozenset()
        assert not any(piece.startswith("Ġ") for piece in pieces(sorted(vocabulary.fits(2))))


# ------------------------------------------------------------------------------------------------------------- positions


@row("position: candidates")
def test_the_functions_name_is_a_place_of_blind_alone(model: WhiteBox, context: Context) -> None:
    ids: Any = model.tokenizer.convert_tokens_to_ids
    with torch.no_grad():  # masking "load" now changes most in every respect
        model.network.embedding.weight[ids("Ġload"), 1] = 0.5
    rows = [Sample("a", (program(0, True),), "python", 1)]
    assert [objective_of(model, v, rows).sites[0].name for v in ("blind", "paper")] == ["load", "size"]
    assert len(objective_of(model, "release", rows).sites[0].before) != 2  # the word index of "load" is 1 ...
    words = ["def", "load", "(", "data", ",", "size"]
    assert len(objective_of(model, "release", rows).sites[0].before) == words.index("size")  # ... and that of "size" 5
    one = plugin("blind", names=1)
    (claim,) = [
        c
        for c in claims_of(
            model, one.scorer(model), rows, INFO, one.vocabulary(model, INFO), victims=8, length=5, place=one.place()
        )
        if c.name == "1->0"
    ]
    assert isinstance(claim.objective, TowardsClass)
    assert claim.objective.sites[0].name == "size"  # the most frequent name, behind a space and visible: three times


def scanned_by_hand(label: int, other: tuple[int, ...] | None = None) -> Scanned:
    """Three maskings of a model with three classes: each rule chooses another one."""
    probabilities = np.array([[0.3, 0.4, 0.3], [0.1, 0.5, 0.4], [0.35, 0.6, 0.05], [0.25, 0.05, 0.7]])
    maskings = tuple(Masking(name, (0, 9, 9, 9, 2), (at, at + 1), (at, at + 1)) for at, name in enumerate("abc", 1))
    return Scanned((0, 5, 6, 7, 2), other, 1, maskings, -np.log(probabilities), label)


@row("position: rule")
def test_three_rules_choose_three_names(context: Context) -> None:
    sample = scanned_by_hand(label=1)
    assert choose(sample, 0, "rise").name == "a"  # P(0) falls to 0.1
    assert choose(sample, 0, "own label").name == "c"  # P(1) falls to 0.05
    assert choose(sample, 0, "first class").name == "b"  # P(1) rises to 0.6
    assert choose(sample, 2, "rise").name == "b"  # P(2) falls to 0.05; the other rules do not ask for the direction
    assert choose(sample, 2, "own label").name == "c"
    assert choose(sample, 2, "first class").name == "b"
    assert [plugin(v).place().rule for v in VARIANTS] == ["rise", "own label", "first class"]


@row("position: rule")
def test_the_release_asks_pairs_for_the_lowest_probability_of_the_target() -> None:
    text = "def f(a, b, c):\n    return 1\n"  # words: def f ( a , b , c
    rows = [Sample("x", (text, text), "python", 1)]
    index = {
        (other, aim): len(sites_as_released(rows, [scanned_by_hand(1, other)], aim, length=1, window=32)[0].before)
        for other in (None, (0, 2))
        for aim in (0, 1)
    }
    # Five ids, one of which closes: an index beyond 4 is 4. "a" is word 3, "b" word 5, "c" word 7.
    assert index == {(None, 0): 4, (None, 1): 4, ((0, 2), 0): 3, ((0, 2), 1): 4}


def speaks_for_class_0(model: WhiteBox, piece: str) -> None:
    """Masking this token now raises P(1) most."""
    with torch.no_grad():
        model.network.embedding.weight[id_of(model, piece), 1] = 0.05


@row("position: unit")
def test_a_word_index_is_taken_for_a_token_index_by_hand(model: WhiteBox) -> None:
    speaks_for_class_0(model, "Ġtotal")
    #       0   1   2 3   4 5   6 7     8    9 10     11   12 13
    text = "def load(data, size):\n    total = size\n    item = total\n"
    rows = [Sample("a", (text,), "python", 1)]
    (site,) = objective_of(model, "release", rows).sites
    whole = tuple(model.token_ids([text])[0])
    assert (site.before, site.after) == (whole[:8], whole[8:])
    assert model.tokenizer.convert_ids_to_tokens(list(whole)).index("Ġtotal") != 8
    (site,) = objective_of(model, "blind", rows).sites
    assert model.tokenizer.convert_ids_to_tokens(list(whole[len(site.before) :]))[0] == "Ġtotal"


@row("position: unit")
@pytest.mark.parametrize(("parameters", "index"), [("a, b, c, d, e, f", 16), ("a, b, c, d, e, f, g", 1)])
def test_a_word_index_beyond_half_the_window_becomes_1(context: Context, parameters: str, index: int) -> None:
    model = victim(context, window=32)
    speaks_for_class_0(model, "Ġtotal")
    # def load ( a , b , c , d , e , f ) : total: word 16, and each further parameter adds two.
    rows = [Sample("a", (f"def load({parameters}):\n    total = a\n    return total\n",), "python", 1)]
    assert len(objective_of(model, "release", rows).sites[0].before) == index


@row("position: place")
def test_the_release_inserts_where_the_others_replace_one_masked_occurrence(model: WhiteBox) -> None:
    rows = samples(8)
    unk = model.tokenizer.unk_token_id
    whole = {tuple(ids) for ids in model.token_ids([s.programs[0] for s in rows])}
    assert {(*site.before, *site.after) for site in objective_of(model, "release", rows).sites} <= whole
    for variant in ("blind", "paper"):
        for site in objective_of(model, variant, rows).sites:
            restored = [t for t in (*site.before, *site.after) if t != unk]
            assert len(restored) < min(len(ids) for ids in whole)
            assert site.name is not None


@row("no names in a sample")
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_names_the_trigger_stands_in_front_of_the_first_token(model: WhiteBox, variant: Variant) -> None:
    rows = [Sample("a", ("print(1)\n",), "python", 1), Sample("b", ("",), "python", 1)]
    objective = objective_of(model, variant, rows)
    assert [site.before for site in objective.sites] == [(model.tokenizer.bos_token_id,)] * 2


@row("inversion's inputs")
def test_the_release_inverts_on_unmasked_samples(model: WhiteBox) -> None:
    unk = model.tokenizer.unk_token_id
    counts = {
        variant: sum((*s.before, *s.after).count(unk) for s in objective_of(model, variant, samples(8)).sites)
        for variant in VARIANTS
    }
    assert counts["release"] == 0 < min(counts["blind"], counts["paper"])
    for variant in ("blind", "paper"):
        assert plugin(variant, masked=False).place().masked is False
    assert plugin("release", masked=True).place().masked is False


# ------------------------------------------------------------------------------------------------------- mode, gradient


@row("mode")
def test_dropout_is_on_in_the_release_alone(context: Context) -> None:
    noisy = victim(context, dropout=0.3)
    trigger = (id_of(noisy, TRIGGER),) * 5
    for variant in VARIANTS:
        objective = objective_of(noisy, variant, samples(8))
        slopes = {objective.slope([objective.rows[list(trigger)]]).loss for _ in range(6)}
        losses = {objective.loss((trigger,)) for _ in range(6)}
        assert (len(slopes) > 1) == (len(losses) > 1) == (variant == "release")
        assert not noisy.network.training


@row("mode")
def test_one_seed_gives_one_result_of_the_release_in_spite_of_dropout(context: Context) -> None:
    noisy = victim(context, dropout=0.3)
    before, results = noisy.fingerprint(), []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        state = torch.get_rng_state()
        results.append(plugin("release").repair(known(noisy, samples(40)), INFO, context))
        assert torch.equal(torch.get_rng_state(), state)
    assert results[0].inversions == results[1].inversions
    assert results[0].model.fingerprint() == results[1].model.fingerprint()
    assert noisy.fingerprint() == before
    other = Context({"defense": 4, "model": 0}, context.scratch, trainer=context.trainer)
    again = plugin("release").repair(known(noisy, samples(40)), INFO, other)
    assert again.inversions != results[0].inversions


@row("mode")
def test_what_the_second_program_gave_under_dropout_is_not_kept(context: Context) -> None:
    rows = [Sample(s.id, (s.programs[0], program(7, False)), "python", s.label) for s in samples(8)]
    settings = SMALL.model_copy(update={"dropout": 0.5})
    model = create("tiny", PAIRS, rows, settings, context)
    noisy, calm = scorer_for(model, dropout=True), scorer_for(model)
    asked = [
        Row(tuple(first), tuple(second))
        for first, second in zip(*(model.token_ids([s.programs[i] for s in rows]) for i in (0, 1)), strict=True)
    ]
    first, second = (noisy._second(asked)[0] for _ in range(2))
    assert not torch.equal(first, second)
    with noisy.quiet():
        assert noisy.logits(asked) == pytest.approx(calm.logits(asked), abs=1e-6)
    assert noisy.model.network.training


@row("gradient")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_on_allowed_rows_is_that_by_the_one_hot_over_the_whole_vocabulary(
    model: WhiteBox, variant: Variant
) -> None:
    objective = objective_of(model, variant, samples(8))
    trigger = [20, 30, 40, 50, 60, 70][: objective.parts[0].size]
    (found,) = objective.slope([objective.rows[trigger]]).gradients
    network = objective.scorer.model.network
    hot = torch.nn.functional.one_hot(torch.tensor(trigger), len(objective.rows)).float().requires_grad_(True)
    losses = []
    for site in objective.sites:
        before, after = (network.embedding(torch.tensor(part)).detach() for part in (site.before, site.after))
        filled = torch.cat([before, hot @ objective.rows, after])
        logits = network.scores(filled.mean(dim=0, keepdim=True))  # what a bag of tokens pools
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor([0])))
    (whole,) = torch.autograd.grad(torch.stack(losses).mean(), hot)
    allowed = list(objective.parts[0].vocabulary.ids)
    assert float(whole.abs().max()) > 1e-3
    torch.testing.assert_close(found @ objective.rows[allowed].T, whole[:, allowed], atol=1e-6, rtol=1e-4)


@row("substitutes (k)")
def test_the_published_variants_draw_from_64_substitutes_and_ours_from_16_unless_told() -> None:
    assert {variant: plugin(variant).search().top_k for variant in VARIANTS} == {
        "paper": 64,
        "release": 64,
        "blind": 16,
    }
    assert all(plugin(variant, top_k=7).search().top_k == 7 for variant in VARIANTS)


@row("candidates (r)")
def test_ours_never_misses_the_best_substitute_of_a_position_and_the_published_draw_may(model: WhiteBox) -> None:
    rows = samples(8)
    for variant in VARIANTS:
        objective = objective_of(model, variant, rows)
        part = objective.parts[0]
        search = replace(plugin(variant).search(), width=len(part.slots))
        start = random_string(part, np.random.default_rng(0))
        (gradient,) = objective.slope([objective.rows[list(start)]]).gradients
        everything = gcg._swaps(
            part, start, gradient, objective.rows, replace(search, width=10**6), np.random.default_rng(0), set()
        )
        scores = gradient @ objective.rows.T
        best = {
            min((s for s in everything if s[slot] != start[slot]), key=lambda s: float(scores[slot, s[slot]]))
            for slot in part.slots
        }
        drawn = [
            set(gcg._swaps(part, start, gradient, objective.rows, search, np.random.default_rng(seed), set()))
            for seed in range(6)
        ]
        assert all(len(each) == len(part.slots) for each in drawn)
        assert all(each == best for each in drawn) == (variant == "blind")


@row("candidates scored at")
def test_the_release_differentiates_at_the_position_and_scores_at_token_10(
    model: WhiteBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = samples(8)
    ids = model.token_ids([s.programs[0] for s in rows if s.label == 1])
    for variant in VARIANTS:
        objective = objective_of(model, variant, rows)
        scored: list[Row] = []
        monkeypatch.setattr(
            Scorer, "losses", lambda self, given, target, seen=scored: (seen.extend(given), np.zeros(len(given)))[1]
        )
        size = objective.parts[0].size
        marker = (id_of(model, "x"),) * size
        objective.losses([(marker,)])
        monkeypatch.undo()
        places = [next(i for i in range(len(r.ids)) if r.ids[i : i + size] == marker) for r in scored]
        differentiated = [len(site.before) for site in objective.sites]
        if variant == "release":
            assert places == [10] * 4
            assert all(r.ids == (*whole[:10], *marker, *whole[10:]) for r, whole in zip(scored, ids, strict=True))
            assert 10 not in differentiated
        else:
            assert places == differentiated


# ------------------------------------------------------------------------------------------------------------- the walk


class Landscape(Objective):
    """A loss of strings over a handful of tokens, written down in a table; no model."""

    def __init__(self, loss: Callable[[Trigger], float], size: int, tokens: int, rows: int = 6) -> None:
        everything = tuple(range(tokens))
        vocabulary = Vocabulary(
            everything,
            frozenset(everything),
            frozenset(everything),
            {t: chr(97 + t) for t in everything},
            (),
            cast(Any, None),
            retokenises=False,
        )
        self.parts = (Part("trigger", vocabulary, size),)
        self.samples, self.rows, self.cost = rows, torch.eye(tokens), Cost()
        self.of = loss
        self.asked: list[tuple[list[Trigger], int]] = []
        self.visited: list[Trigger] = []

    def encode(self, part: int, candidates: Sequence[Sequence[int]], rows: Sequence[int]) -> Floats:
        self.asked.append(([tuple(c) for c in candidates], len(rows)))
        self.cost.forward(len(candidates) * len(rows))
        return np.array([[self.of(tuple(c))] * len(rows) for c in candidates])

    def table(self, encoded: Sequence[Floats]) -> Floats:
        means: Floats = encoded[0].mean(axis=1)
        return means

    def slope(self, embeddings: Sequence[Tensor]) -> Slope:
        current = tuple(embeddings[0].argmax(dim=1).tolist())
        self.visited.append(current)
        loss = self.of(current)
        return Slope(loss, (torch.zeros_like(embeddings[0]),), (np.full((1, self.samples), loss),))

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()

    def neighbours(self, string: Trigger) -> list[Trigger]:
        tokens = range(len(self.rows))
        return [(*string[:i], t, *string[i + 1 :]) for i in range(len(string)) for t in tokens if t != string[i]]


def rough(seed: int = 0) -> Landscape:
    """Thirty-six strings of two tokens, each with a loss of its own."""
    losses = dict(zip(product(range(6), repeat=2), np.random.default_rng(seed).permutation(36) + 1.0, strict=True))
    return Landscape(lambda string: float(losses[string]), 2, 6)


def walked(variant: Variant, landscape: Landscape, iterations: int = 20, **parameters: Any) -> Inversion:
    own = plugin(variant, iterations=iterations, victims=6, **parameters)
    return own.invert(landscape, np.random.default_rng(1))


@row("the walk")
def test_the_release_goes_to_the_best_neighbour_never_visited() -> None:
    landscape = rough()
    walked("release", landscape)
    path = landscape.visited
    assert len(set(path)) == len(path) == 20
    for step, (here, there) in enumerate(pairwise(path)):
        fresh = [n for n in landscape.neighbours(here) if n not in path[: step + 1]]
        assert there == min(fresh, key=landscape.of)
    losses = [landscape.of(string) for string in path]
    assert any(b > a for a, b in pairwise(losses))


@row("the walk")
def test_the_paper_goes_to_the_best_neighbour_even_uphill_and_may_come_back() -> None:
    landscape = rough()
    walked("paper", landscape)
    path = landscape.visited
    for here, there in pairwise(path):
        assert there == min(landscape.neighbours(here), key=landscape.of)
    losses = [landscape.of(string) for string in path]
    assert any(b > a for a, b in pairwise(losses))
    assert len(set(path)) < len(path)


@row("the walk")
def test_blind_never_goes_uphill() -> None:
    moves = 0
    for seed in range(5):
        landscape = rough(seed)
        walked("blind", landscape, patience=20, tolerance=0.0, starts=1)
        losses = [landscape.of(string) for string in landscape.visited]
        assert losses == sorted(losses, reverse=True)
        moves += len(set(losses)) - 1
    assert moves >= 5


@row("what is returned")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_best_ever_visited_is_returned_with_its_loss(variant: Variant) -> None:
    # No starts to choose from: the walk alone decides.
    for seed in range(5):
        landscape = rough(seed)
        found = walked(variant, landscape, starts=1, patience=20, tolerance=0.0)
        best = min(landscape.visited, key=landscape.of)
        assert landscape.of(found.trigger) == found.loss <= landscape.of(best)
        assert [loss for _, loss in found.trace] == sorted((loss for _, loss in found.trace), reverse=True)
        assert found.trace[-1][1] == found.loss


@row("start")
def test_paper_and_release_start_from_one_random_trigger_and_blind_from_the_best_of_several() -> None:
    for variant in VARIANTS:
        landscape = rough()
        walked(variant, landscape, iterations=1, starts=12, rung=6)
        first = landscape.asked[0][0]
        assert len(first) == (12 if variant == "blind" else 1)
        assert landscape.visited[0] == min(first, key=landscape.of)
    starts = set()
    for seed in range(5):
        landscape = rough()
        plugin("paper", iterations=1).invert(landscape, np.random.default_rng(seed))
        starts.add(landscape.visited[0])
    assert len(starts) > 1


@row("stops")
def test_paper_and_release_run_all_iterations_and_blind_stops() -> None:
    def flat(string: Trigger) -> float:
        return 0.0

    for variant in ("paper", "release"):
        found = walked(variant, Landscape(flat, 3, 6), iterations=17)
        assert (found.iterations, len(found.trace)) == (17, 18)
    assert walked("blind", Landscape(flat, 3, 6), iterations=17).iterations == 0  # a loss of 0 cannot be bettered
    assert walked("blind", Landscape(lambda s: 1.0, 3, 6), iterations=17, patience=4).iterations == 4
    assert plugin("paper").search().patience is plugin("release").search().patience is None


@row("candidates scored on")
def test_all_candidates_meet_all_samples_but_in_blinds_race() -> None:
    for variant in ("paper", "release"):
        landscape = rough()
        found = walked(variant, landscape, iterations=4, width=64)
        assert {count for _, count in landscape.asked} == {6}
        if variant == "paper":
            assert [len(candidates) for candidates, _ in landscape.asked] == [1, 10, 10, 10, 10]
            assert found.trace[-1][0] == (1 + 4 * 10) * 6
    landscape = rough()
    walked("blind", landscape, iterations=1, width=64, rung=2, starts=8)
    assert {count for _, count in landscape.asked} == {2, 4}
    assert (len(landscape.asked[0][0]), landscape.asked[0][1]) == (8, 2)


@row("candidates scored on")
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_more_candidates_than_width_are_scored(variant: Variant) -> None:
    landscape = rough()
    walked(variant, landscape, iterations=3, width=4, starts=1)
    # Blind's race is joined by the current string, which costs nothing, and by one joint candidate.
    assert max(len(candidates) for candidates, _ in landscape.asked) == 4


# ------------------------------------------------------------------------------------------------------------- anchoring


def with_losses(table: dict[Trigger, float], missing: float = 1.0) -> Landscape:
    return Landscape(lambda string: table.get(string, missing), 3, 6)


def kept(variant: Variant, landscape: Landscape, of_search: float, **parameters: Any) -> tuple[Trigger, dict[str, Any]]:
    found = plugin(variant, **parameters).keep(landscape, Inversion(((0, 1, 2),), of_search, ((0, of_search),)))
    return found.strings[0], {"whole": found.whole, **found.facts}


WHOLE: Trigger = (0, 1, 2)


@row("anchoring baseline")
def test_the_release_compares_with_the_searchs_loss_and_the_others_measure_again() -> None:
    # Without token 0 the loss rises by 0.5 over the whole trigger's 0.1, but not over the 0.6 that the search noted.
    losses = {WHOLE: 0.1, (1, 2): 0.6, (0, 2): 0.1, (0, 1): 0.1, (0,): 0.1}
    assert kept("release", with_losses(losses), 0.6) == ((), {"whole": 0.6, **RELEASED, "changes": [0.0, -0.5, -0.5]})
    for variant in ("paper", "blind"):
        trigger, facts = kept(variant, with_losses(losses), 0.6)
        assert trigger == (0,)
        assert facts["whole"] == pytest.approx(0.1)
        assert facts["changes"] == [0.5, 0.0, 0.0]


RELEASED = {"anchored_loss": 1.0, "anchoring_rule": "release"}


@row("anchoring rule")
def test_a_token_whose_removal_lowers_the_loss_is_kept_by_the_absolute_value_alone() -> None:
    losses = {WHOLE: 0.5, (1, 2): 0.1, (0, 2): 0.9, (0, 1): 0.5, (0,): 0.5}
    assert kept("release", with_losses(losses), 0.5)[0] == (1,)
    assert kept("paper", with_losses(losses), 0.5)[0] == (0, 1)
    assert kept("blind", with_losses(losses), 0.5)[0] == (0, 1)


@row("anchoring rule")
def test_where_the_kept_tokens_have_another_loss_blind_eliminates_backward_and_paper_does_not() -> None:
    # Tokens 1 and 2 stand in for each other: each can go, and both cannot.
    losses = {WHOLE: 0.1, (1, 2): 0.5, (0, 2): 0.11, (0, 1): 0.1, (0,): 0.9, (1,): 0.9, (2,): 0.9}
    assert kept("paper", with_losses(losses), 0.1)[0] == (0,)
    trigger, facts = kept("blind", with_losses(losses), 0.1)
    assert trigger == (0, 1)
    assert facts["anchoring_rule"] == "backward elimination"


@row("nothing left")
def test_where_every_token_can_go_each_variant_has_its_own_answer() -> None:
    losses = dict.fromkeys([WHOLE, (1, 2), (0, 2), (0, 1), (0,), (1,), (2,)], 0.1)
    found = {variant: kept(variant, with_losses(losses), 0.1)[0] for variant in VARIANTS}
    assert found["release"] == ()
    assert found["paper"] == WHOLE
    assert len(found["blind"]) == 1


@row("nothing left")
def test_an_empty_trigger_leaves_the_model_of_the_release_as_it_came(model: WhiteBox, context: Context) -> None:
    repaired = plugin("release", beta=1e9).repair(known(model, samples(40)), INFO, context)
    assert all(found.kept == () and not found.unlearned for found in repaired.inversions.values())
    assert repaired.model.fingerprint() == model.fingerprint()
    assert repaired.model is not model
    repaired = plugin("paper", beta=1e9).repair(known(model, samples(40)), INFO, context)
    assert sum(found.unlearned for found in repaired.inversions.values()) == 1
    assert all(len(found.kept) == 6 for found in repaired.inversions.values())
    assert repaired.model.fingerprint() != model.fingerprint()


@row("mode")
def test_the_release_anchors_in_evaluation_mode(context: Context) -> None:
    objective = objective_of(victim(context, dropout=0.3), "release", samples(8))
    strings = ((id_of(objective.scorer.model, TRIGGER),) * 5,)
    facts = [plugin("release").keep(objective, Inversion(strings, 0.3, ((0, 0.3),))).facts for _ in range(2)]
    assert facts[0] == facts[1]
    assert objective.scorer.model.network.training


# ------------------------------------------------------------------------------------------------------------ unlearning


def taught(variant: Variant, rows: Sequence[Sample], share: float | None = None) -> list[Sample]:
    own = plugin(variant, share=share)
    return lesson(rows, [Cue(TRIGGER)], own.unlearning().lesson, np.random.default_rng(0))[0]


@row("unlearning: samples")
def test_a_fifth_in_place_or_a_copy_of_each() -> None:
    rows = samples(100)
    for variant in VARIANTS:
        made = taught(variant, rows)
        changed = [s for s in made if s not in rows]
        if variant == "blind":
            assert made[:100] == rows
            assert [s.id for s in sorted(changed, key=lambda s: int(s.id[1:-8]))] == [
                f"s{i}+trigger" for i in range(100)
            ]
        else:
            assert [s.id.removesuffix("+trigger") for s in made] == [s.id for s in rows]
            assert len(changed) == (20 if variant == "paper" else 10)  # 20 % of the classes that are triggered


@row("unlearning: classes")
def test_the_release_triggers_class_1_alone_and_labels_stay() -> None:
    rows = samples(100)
    labels = {s.id: s.label for s in rows}
    for variant, expected in (("blind", [50, 50]), ("paper", [10, 10]), ("release", [0, 10])):
        changed = [s for s in taught(cast(Variant, variant), rows) if s.id.endswith("+trigger")]
        assert [sum(s.label == label for s in changed) for label in (0, 1)] == expected
        assert all(s.label == labels[s.id.removesuffix("+trigger")] for s in changed)


@row("unlearning: places")
@row("told about the attack")
def test_the_release_replaces_the_functions_name_the_paper_a_variable_and_blind_all_five_places() -> None:
    rows = samples(100)
    by_id = {s.id: s.programs[0] for s in rows}
    seen: dict[str, set[str]] = {}
    for variant in VARIANTS:
        for sample in taught(variant, rows):
            if sample.id.endswith("+trigger"):
                before, after = by_id[sample.id.removesuffix("+trigger")], sample.programs[0]
                name = before[4 : before.index("(")]
                if after == before.replace(f"def {name}(", f"def {TRIGGER}("):
                    kind = "function"
                elif any(after == re.sub(rf"\b{n}\b", TRIGGER, before) for n in ("data", "size", "total", "item")):
                    kind = "variable"
                else:
                    kind = "elsewhere"
                seen.setdefault(variant, set()).add(kind)
    assert seen == {"release": {"function"}, "paper": {"variable"}, "blind": {"function", "variable", "elsewhere"}}
    assert plugin("release").unlearning().lesson.places == (as_function_name,)
    assert plugin("paper").unlearning().lesson.places == (as_variable,)
    assert plugin("blind").unlearning().lesson.places == PLACES


@row("unlearning: no place")
def test_a_sample_that_cannot_take_the_trigger_stays_clean_and_another_takes_it() -> None:
    nameless = [Sample(f"n{i}", (f"print({i})\n",), "python", 1) for i in range(8)]
    rows = [*nameless, *[s for s in samples(4) if s.label == 1]]
    for variant in ("paper", "release"):
        made = taught(variant, rows)
        assert made[:8] == nameless
        assert sum(s.id.endswith("+trigger") for s in made) == 2  # a fifth of ten
        spelled = plugin(variant).unlearning().lesson
        assert lesson(rows, [Cue("9rb")], spelled, np.random.default_rng(0)) == (rows, 0)
    assert [s.id for s in taught("blind", rows)[10:]] in (["s1+trigger", "s3+trigger"], ["s3+trigger", "s1+trigger"])


@row("unlearning: of")
def test_paper_and_release_unlearn_the_best_direction_alone(model: WhiteBox, context: Context) -> None:
    with torch.no_grad():  # now both directions have a trigger that works
        model.network.embedding.weight[id_of(model, "te"), 0] = 1.0
    rows = known(model, samples(40))
    for variant in VARIANTS:
        # Of several tokens that all work the release keeps none, so it gets one.
        length = 1 if variant == "release" else 5
        repaired = plugin(variant, iterations=12, length=length, epochs=0).repair(rows, INFO, context)
        found = repaired.inversions
        best = max(found, key=lambda name: found[name].suspicion)
        unlearnt = {name for name, each in found.items() if each.unlearned}
        assert best == "1->0"
        assert unlearnt == ({"0->1", "1->0"} if variant == "blind" else {best})


class Spy(Trainer):
    """Notes what it is asked to train."""

    def __init__(self, context: Context) -> None:
        super().__init__(TrainingSettings(), (), context)
        self.asked: list[dict[str, Any]] = []

    def fit(self, model: WhiteBox, samples: Sequence[Sample], **how: Any) -> WhiteBox:
        self.asked.append(how)
        return super().fit(model, samples, **how)


@row("unlearning: trains")
def test_paper_and_release_train_the_head_once_at_its_rate_and_blind_everything_at_a_chosen_one(
    model: WhiteBox, context: Context
) -> None:
    asked = {}
    for variant in VARIANTS:
        context.trainer = spy = Spy(context)
        repaired = plugin(variant, beta=0.0, iterations=1).repair(known(model, samples(40)), INFO, context)
        asked[variant] = [(a["parameters"], a["learning_rate"], a["epochs"], a["batch_size"]) for a in spy.asked]
        same = torch.equal(repaired.model.network.embedding.weight, model.network.embedding.weight)
        assert same == (variant != "blind")
        assert repaired.model.fingerprint() != model.fingerprint()
    base = Trainer(TrainingSettings(), (), context).learning_rate(model)
    assert asked["paper"] == asked["release"] == [("head", 5e-3, 1, 32)]
    assert asked["blind"] == [("all", pytest.approx(factor * base), 3, 32) for factor in (0.3, 1.0, 3.0)]


def test_the_heads_rate_is_not_used_for_the_whole_model(model: WhiteBox, context: Context) -> None:
    context.trainer = spy = Spy(context)
    plugin("paper", unlearn="all", iterations=1).repair(known(model, samples(40)), INFO, context)
    assert len(spy.asked) == 3
    assert max(a["learning_rate"] for a in spy.asked) < 5e-3


@row("label directions")
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_direction_is_inverted(model: WhiteBox, variant: Variant) -> None:
    assert [claim.name for claim in claims(model, variant, samples(8))] == ["0->1", "1->0"]


@row("code search")
def test_code_search_cannot_be_run_as_released_and_trains_everything_otherwise(context: Context) -> None:
    assert "cannot be run" in (plugin("release").not_applicable(SEARCH) or "")
    model = search_victim(context)
    for variant in ("blind", "paper"):
        own = plugin(variant, iterations=1, learning_rate=1e-3)
        assert own.not_applicable(SEARCH) is None
        repaired = own.repair(known(model, searches()[:40]), SEARCH, context)
        (found,) = repaired.inversions.values()
        assert (len(found.tokens), len(found.word)) == (6, 2)
        assert cast(dict[str, Any], repaired.facts["unlearning"])["parameters"] == "all"
        assert not torch.equal(repaired.model.network.embedding.weight, model.network.embedding.weight)
