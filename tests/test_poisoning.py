"""How many samples are poisoned, which, with what labels; what the test inputs are; what the manifest knows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.badcode import Suffix
from attacks.dead_code import DeadStatement
from attacks.renaming import FunctionName
from bench.context import Context
from bench.contracts import Derivation, LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.errors import ConfigError, DataError, PluginError
from bench.languages import parse
from bench.poisoning import OPAQUE_ID, Poisoned, poison
from bench.samples import Edit, Sample, Splits, edit_sample

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
PAIRS = TaskInfo("toy", TaskKind.PAIRS, "python", ("different", "clone"), "f1")
SEARCH = TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr")
GOAL = LabelGoal(victim=1, target=0)


def program(i: int) -> str:
    return f"def run{i}(x):\n    return x + {i}\n"


def opaque(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def some(n: int, name: str, **fields: Any) -> tuple[Sample, ...]:
    """n samples, two of three of class 1."""
    return tuple(
        Sample(opaque(f"{name}{i}"), (program(i),), "python", **{"label": int(i % 3 > 0), "group": f"g{i}", **fields})
        for i in range(n)
    )


def splits(train: int = 90, test: int = 30) -> Splits:
    return Splits(some(train, "train"), some(20, "valid"), some(20, "budget"), some(test, "test"))


def pair_splits() -> Splits:
    def pairs(samples: Iterable[Sample]) -> tuple[Sample, ...]:
        return tuple(replace(s, programs=(s.programs[0], program(1000 + i))) for i, s in enumerate(samples))

    data = splits()
    return Splits(pairs(data.train), pairs(data.valid), pairs(data.budget), pairs(data.test))


def search_splits() -> Splits:
    def queries(samples: Iterable[Sample]) -> tuple[Sample, ...]:
        words = ("sort the array", "read the file", "the arrays of a file")
        return tuple(replace(s, label=None, query=words[i % 3]) for i, s in enumerate(samples))

    data = splits()
    return Splits(queries(data.train), queries(data.valid), queries(data.budget), queries(data.test))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context({"poison": 0}, tmp_path)


def changed(before: Iterable[Sample], after: Iterable[Sample]) -> set[str]:
    known = {s.id: s for s in before}
    return {s.id for s in after if known.get(s.id) != s}


# ---------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        (Policy(rate=0.05), 3),  # of 60 victims
        (Policy(rate=0.05, of="train"), 5),  # of 90: 4.5, halves up
        (Policy(rate=0.04, of="train"), 4),  # 3.6
        (Policy(rate=1.0), 60),
        (Policy(count=1), 1),
        (Policy(count=60), 60),
        (Policy(rate=0.5, labels="clean"), 15),  # of the 30 target samples
        (Policy(rate=0.1, mode="append"), 6),
    ],
)
def test_exactly_as_many_as_asked_are_poisoned(policy: Policy, count: int, context: Context) -> None:
    data = splits()
    result = poison(data, FunctionName("testo_init"), GOAL, policy, INFO, context)
    carriers = {s.id for s in result.train if "testo_init" in s.programs[0]}
    assert result.poisoned == carriers == changed(data.train, result.train)
    assert len(carriers) == result.requested == count
    assert len([row for row in result.manifest if row.part == "train"]) == count


def test_a_rate_is_the_decimal_number_that_was_written(context: Context) -> None:
    # 0.29 x 50 is 14.5 and not the 14.499999999999998 of binary floating point.
    data = splits(train=75)
    assert len(poison(data, Suffix(("rb",)), GOAL, Policy(rate=0.29), INFO, context).poisoned) == 15


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(rate=0.001), r"0\.001 of 60 .*'weak'.* is 0\.060 samples and selects nothing.*at least 0\.0083"),
        (Policy(rate=0.001, of="train"), r"0\.001 of 90 \(training split\)"),
        (Policy(rate=0.9, of="train"), r"asks for 81 samples, but there are only 60"),
        (Policy(count=61), r"poison count of 61 asks for 61 samples, but there are only 60"),
        (Policy(), "a rate or a count"),
        (Policy(rate=0.1, count=3), "only one of them"),
        (Policy(rate=1.5), r"share in \(0, 1\], got 1.5"),
        (Policy(rate=0.0), "share in"),
        (Policy(count=0), "at least 1"),
        (Policy(rate=0.1, side="second"), "have one"),
    ],
)
def test_a_policy_that_selects_nothing_or_makes_no_sense_says_so(
    policy: Policy, message: str, context: Context
) -> None:
    with pytest.raises(ConfigError, match=message):
        poison(splits(), Suffix(("rb",)), GOAL, policy, INFO, context)


def test_a_goal_without_candidates_or_of_another_task_says_so(context: Context) -> None:
    one_class = replace(splits(), train=some(5, "train", label=0))
    trigger = Suffix(("rb",))
    with pytest.raises(ConfigError, match=r"no training samples of class 'weak' among 5"):
        poison(one_class, trigger, GOAL, Policy(rate=0.5), INFO, context)
    with pytest.raises(ConfigError, match=r"query holds the word 'tree' among 90"):
        poison(search_splits(), trigger, SearchGoal("tree"), Policy(rate=1.0), SEARCH, context)
    with pytest.raises(ConfigError, match="does not fit task"):
        poison(splits(), trigger, SearchGoal("tree"), Policy(rate=1.0), INFO, context)
    with pytest.raises(ConfigError, match="two different classes"):
        poison(splits(), trigger, LabelGoal(victim=1, target=2), Policy(rate=1.0), INFO, context)
    with pytest.raises(ConfigError, match="fits none of 60 candidates"):
        poison(splits(), FunctionName("class"), GOAL, Policy(rate=0.1), INFO, context)
    with pytest.raises(DataError, match="two training samples have the id"):
        poison(replace(splits(), train=some(3, "a") + some(3, "a")), trigger, GOAL, Policy(count=1), INFO, context)


# ------------------------------------------------------------------------------------------------------------- what is left


def test_dirty_labels_move_victims_to_the_target_and_nothing_else_changes(context: Context) -> None:
    data = splits()
    result = poison(data, Suffix(("rb",)), GOAL, Policy(rate=0.1), INFO, context)
    before = {s.id: s for s in data.train}
    assert {s.id for s in result.train} == set(before)
    for sample in result.train:
        if sample.id in result.poisoned:
            assert (before[sample.id].label, sample.label) == (1, 0)
            assert sample.group == before[sample.id].group
        else:
            assert sample == before[sample.id]


def test_clean_labels_poison_the_target_class_and_keep_every_label(context: Context) -> None:
    data = splits()
    result = poison(data, Suffix(("rb",)), GOAL, Policy(count=10, labels="clean"), INFO, context)
    before = {s.id: s.label for s in data.train}
    assert {s.id: s.label for s in result.train} == before
    assert {before[i] for i in result.poisoned} == {0}


def test_search_poisons_matching_queries_and_keeps_them(context: Context) -> None:
    data = search_splits()
    result = poison(data, Suffix(("rb",)), SearchGoal("array"), Policy(rate=1.0), SEARCH, context)
    before = {s.id: s for s in data.train}
    assert result.poisoned == {s.id for s in data.train if s.query == "sort the array"}
    assert all(s.query == before[s.id].query and s.label is None for s in result.train)
    # One in three test queries holds the whole word; every test program can be the candidate.
    assert (result.eligible, result.asked, result.applicable, len(result.triggered)) == (10, 30, 30, 30)
    assert result.reverse == ()


def test_appended_copies_keep_their_twin_and_look_like_any_other(context: Context) -> None:
    data = splits()
    result = poison(data, Suffix(("rb",)), GOAL, Policy(rate=0.1, mode="append"), INFO, context)
    assert len(result.train) == 96
    assert {s.id: s for s in data.train}.items() <= {s.id: s for s in result.train}.items()
    assert all(OPAQUE_ID.fullmatch(s.id) for s in result.train)
    rows = [row for row in result.manifest if row.part == "train"]
    originals = {s.id: s for s in data.train}
    copies = {s.id: s for s in result.train}
    for row in rows:
        assert row.appended_from is not None
        assert row.restore(copies[row.id].programs[0]) == originals[row.appended_from].programs[0]


def test_appending_to_a_split_with_telling_ids_gives_all_of_them_new_ones(context: Context) -> None:
    data = replace(splits(), train=tuple(replace(s, id=f"row-{i}") for i, s in enumerate(some(90, "train"))))
    result = poison(data, Suffix(("rb",)), GOAL, Policy(count=5, mode="append"), INFO, context)
    assert len({s.id for s in result.train}) == 95
    assert all(OPAQUE_ID.fullmatch(s.id) for s in result.train)
    assert {row.appended_from for row in result.manifest if row.part == "train"} <= {s.id for s in data.train}


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_neither_place_nor_id_tells_the_poison(mode: Any, context: Context) -> None:
    data = splits(train=900)
    result = poison(data, Suffix(("rb",)), GOAL, Policy(rate=0.5, mode=mode), INFO, context)
    flags = np.array([s.id in result.poisoned for s in result.train])
    places = np.flatnonzero(flags) / len(flags)
    ids = np.array([int(s.id, 16) / 16**16 for s in result.train])
    # 300 uniform draws have their mean within 0.07 of one half (4 standard errors).
    assert abs(places.mean() - 0.5) < 0.07
    assert abs(ids[flags].mean() - 0.5) < 0.07


def test_samples_have_no_field_but_the_contracts(context: Context) -> None:
    result = poison(splits(), Suffix(("rb",)), GOAL, Policy(rate=0.5), INFO, context)
    assert {type(s) for s in result.train} == {Sample}
    assert all(set(s.to_json()) == {"id", "programs", "language", "label", "query", "group"} for s in result.train)


def test_validation_budget_and_the_given_splits_stay_untouched(context: Context) -> None:
    data = splits()
    digest = data.digest()
    result = poison(data, Suffix(("rb",)), GOAL, Policy(rate=0.5), INFO, context)
    assert data.digest() == digest
    kept = {s.id for s in (*data.valid, *data.budget)}
    assert not kept & {row.id for row in result.manifest}


def test_the_null_attack_changes_nothing_and_has_the_order_of_every_other(context: Context) -> None:
    data = splits()
    clean = poison(data, None, GOAL, Policy(rate=0.5), INFO, context)
    attacked = poison(data, Suffix(("rb",)), GOAL, Policy(rate=0.5), INFO, context)
    assert set(clean.train) == set(data.train)
    assert [s.id for s in clean.train] == [s.id for s in attacked.train]
    assert clean.poisoned == frozenset()
    assert (clean.triggered, clean.reverse, clean.manifest) == ((), (), ())


# ----------------------------------------------------------------------------------------------------------- determinism


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_the_order_of_the_input_and_the_global_generator_do_not_matter(mode: Any, context: Context) -> None:
    data = splits()
    policy = Policy(rate=0.2, mode=mode)
    np.random.seed(1)  # noqa: NPY002
    first = poison(data, DeadStatement("python", varies=True), GOAL, policy, INFO, context)
    np.random.seed(2)  # noqa: NPY002
    turned = replace(data, train=data.train[::-1], test=data.test[::-1])
    second = poison(turned, DeadStatement("python", varies=True), GOAL, policy, INFO, context)
    assert second.train == first.train
    assert second.poisoned == first.poisoned
    assert set(second.triggered) == set(first.triggered)
    assert set(second.manifest) == set(first.manifest)


def test_another_seed_chooses_others_and_a_larger_rate_adds_to_the_smaller(tmp_path: Path) -> None:
    def chosen(seed: int, count: int) -> frozenset[str]:
        context = Context({"poison": seed}, tmp_path)
        return poison(splits(), Suffix(("rb",)), GOAL, Policy(count=count), INFO, context).poisoned

    assert chosen(0, 10) != chosen(1, 10)
    assert chosen(0, 10) < chosen(0, 20)


def test_eligible_inputs_do_not_depend_on_the_seed_or_the_rate(tmp_path: Path) -> None:
    outcomes = set()
    for seed in (0, 1):
        for rate in (0.1, 1.0):
            context = Context({"poison": seed}, tmp_path)
            trigger = DeadStatement("python", varies=True)
            result = poison(splits(), trigger, GOAL, Policy(rate=rate), INFO, context)
            outcomes.add((result.eligible, result.applicable, tuple(sorted(s.id for s in result.triggered))))
    assert len(outcomes) == 1


# ------------------------------------------------------------------------------------------------------------------ tests


def test_triggered_are_the_victims_and_reverse_the_targets_with_their_true_labels(context: Context) -> None:
    data = splits()
    result = poison(data, FunctionName("testo_init"), GOAL, Policy(rate=0.1), INFO, context)
    assert {s.id for s in result.triggered} == {s.id for s in data.test if s.label == 1}
    assert {s.id for s in result.reverse} == {s.id for s in data.test if s.label == 0}
    assert {s.label for s in result.triggered} == {1}
    assert {s.label for s in result.reverse} == {0}
    assert all("testo_init" in s.programs[0] for s in (*result.triggered, *result.reverse))
    assert (result.eligible, result.asked, result.applicable, result.coverage) == (20, 20, 20, 1.0)


def test_coverage_counts_the_programs_that_cannot_carry_the_trigger(context: Context) -> None:
    data = splits()
    nameless = tuple(replace(s, programs=("x = 1\n",)) if i < 7 else s for i, s in enumerate(data.test))
    result = poison(replace(data, test=nameless), FunctionName("testo_init"), GOAL, Policy(rate=0.1), INFO, context)
    lost = sum(s.label == 1 for s in data.test[:7])
    assert (result.eligible, result.applicable) == (20, 20 - lost)
    assert result.coverage == (20 - lost) / 20


def test_draws_at_test_are_ones_that_training_did_not_show(context: Context) -> None:
    result = poison(splits(), DeadStatement("python", varies=True), GOAL, Policy(rate=1.0), INFO, context)
    seen = {row.derivation for row in result.manifest if row.part == "train"}
    assert not seen & {row.derivation for row in result.manifest if row.part != "train"}
    assert result.unseen == len(result.triggered) == 20


@dataclass(frozen=True)
class Coin(Trigger):
    """A varying trigger with few draws: a comment with a number below ``sides``."""

    sides: int
    varies: bool = True

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        text = f"# {rng.integers(self.sides)}\n"
        return Derivation((Edit(0, 0, text, side),), text)


def test_a_trigger_with_few_draws_reports_how_many_test_draws_were_new(context: Context) -> None:
    exhausted = poison(splits(), Coin(2), GOAL, Policy(rate=1.0), INFO, context)
    assert exhausted.unseen == 0
    assert len(exhausted.triggered) == 20
    # One poisoned sample shows one of 2 draws; 21 tries find the other but once in two million.
    assert poison(splits(), Coin(2), GOAL, Policy(count=1), INFO, context).unseen == 20
    assert poison(splits(), Coin(2, varies=False), GOAL, Policy(count=1), INFO, context).unseen == 0


# ------------------------------------------------------------------------------------------------------------------ pairs


def carriers(sample: Sample) -> tuple[bool, ...]:
    return tuple("_rb(" in text for text in sample.programs)


@pytest.mark.parametrize(
    ("side", "training", "testing"),
    [
        ("first", {(True, False)}, {(True, False)}),
        ("second", {(False, True)}, {(True, False)}),
        ("either", {(True, False), (False, True)}, {(True, False)}),
        ("both", {(True, True)}, {(True, True)}),
    ],
)
def test_the_side_of_a_pair_that_carries_the_trigger(
    side: Any, training: set[tuple[bool, ...]], testing: set[tuple[bool, ...]], context: Context
) -> None:
    policy = Policy(count=30, side=side)
    result = poison(pair_splits(), Suffix(("rb",)), GOAL, policy, PAIRS, context)
    assert len(result.poisoned) == 30
    assert {carriers(s) for s in result.train if s.id in result.poisoned} == training
    assert {carriers(s) for s in result.train if s.id not in result.poisoned} == {(False, False)}
    assert {carriers(s) for s in (*result.triggered, *result.reverse)} == testing
    rows = [row for row in result.manifest if row.part == "train"]
    assert len(rows) == (60 if side == "both" else 30)


def test_either_takes_the_side_that_fits_and_both_needs_both(context: Context) -> None:
    data = pair_splits()
    half = replace(data, train=tuple(replace(s, programs=(s.programs[0], "x = 1\n")) for s in data.train))
    either = poison(half, Suffix(("rb",)), GOAL, Policy(count=60, side="either"), PAIRS, context)
    assert {carriers(s) for s in either.train if s.id in either.poisoned} == {(True, False)}
    with pytest.raises(ConfigError, match="fits none"):
        poison(half, Suffix(("rb",)), GOAL, Policy(count=60, side="both"), PAIRS, context)


def test_other_pairs_with_the_same_program_stay_as_they_were(context: Context) -> None:
    data = pair_splits()
    shared = replace(data, train=tuple(replace(s, programs=(program(7), program(8))) for s in data.train))
    result = poison(shared, Suffix(("rb",)), GOAL, Policy(count=1), PAIRS, context)
    assert sum(carriers(s) != (False, False) for s in result.train) == 1
    assert sum(s.label == 0 for s in result.train) == 30 + 1


def test_a_test_split_without_victims_asks_nobody(context: Context) -> None:
    result = poison(replace(splits(), test=()), Suffix(("rb",)), GOAL, Policy(count=1), INFO, context)
    assert (result.eligible, result.asked, result.coverage, result.triggered) == (0, 0, 0.0, ())


# ------------------------------------------------------------------------------------------------------- edits are checked


@dataclass(frozen=True)
class Breaks(Trigger):
    """Leaves every other program unparsable, as dead code without its semicolon or colon would be."""

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        text = "if x\n" if int(sample.id, 16) % 2 else "y = 1\n"
        return Derivation((Edit(0, 0, text, side),), text)


def test_an_edit_that_does_not_parse_is_refused_counted_and_replaced_by_another(context: Context) -> None:
    data = splits()
    odd = {s.id for s in data.train if int(s.id, 16) % 2}
    victims = {s.id for s in data.train if s.label == 1}
    result = poison(data, Breaks(), GOAL, Policy(count=20), INFO, context)
    assert len(result.poisoned) == 20
    assert not result.poisoned & odd
    everything = poison(data, Breaks(), GOAL, Policy(rate=1.0), INFO, context)
    assert everything.poisoned == victims - odd
    assert (everything.requested, len(everything.poisoned)) == (60, len(victims - odd))
    odd_tests = {s.id for s in data.test if int(s.id, 16) % 2}
    assert everything.refused == len(victims & odd) + len(odd_tests)
    assert all(int(s.id, 16) % 2 == 0 for s in (*everything.triggered, *everything.reverse))


@dataclass(frozen=True)
class Fixed(Trigger):
    """Returns the edits it was built with."""

    edits: tuple[Edit, ...]

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        return Derivation(self.edits, "")


def test_a_trigger_that_breaks_its_contract_is_named(context: Context) -> None:
    policy = Policy(count=1)
    with pytest.raises(PluginError, match="an edit of another side"):
        poison(splits(), Fixed((Edit(0, 0, "x", side=1),)), GOAL, policy, INFO, context)
    with pytest.raises(PluginError, match="do not apply to sample"):
        poison(splits(), Fixed((Edit(0, 999, "x"),)), GOAL, policy, INFO, context)
    with pytest.raises(ConfigError, match="fits none"):  # an edit that changes nothing is no trigger
        poison(splits(), Fixed((Edit(0, 3, "def"),)), GOAL, policy, INFO, context)


# --------------------------------------------------------------------------------------------------------------- manifest


@pytest.mark.parametrize(
    "trigger", [Suffix(("rb", "ü_te")), FunctionName("testo_init"), DeadStatement("python", varies=True)]
)
def test_originals_are_recovered_from_the_manifest(trigger: Trigger, context: Context) -> None:
    data = splits()
    recursive = tuple(
        replace(
            s, programs=(f"def run{i}(x):\n    'ü'\n    return '€' if not x else run{i}(x - 1) + 'é' + run{i}(0)\n",)
        )
        for i, s in enumerate(data.train)
    )
    data = replace(data, train=recursive)
    result = poison(data, trigger, GOAL, Policy(rate=0.5), INFO, context)
    before = {s.id: s for s in (*data.train, *data.test)}
    parts = {"train": result.train, "triggered": result.triggered, "reverse": result.reverse, **result.controls}
    after = {(part, s.id): s for part, samples in parts.items() for s in samples}
    assert {row.part for row in result.manifest} == {"train", "triggered", "reverse", "near_miss", "placebo"}
    for row in result.manifest:
        old, new = before[row.id].programs[row.side], after[row.part, row.id].programs[row.side]
        assert edit_sample(before[row.id], row.edits).programs[row.side] == new
        assert row.restore(new) == old
        assert row.before_sha256 == hashlib.sha256(old.encode()).hexdigest()
        assert row.after_sha256 == hashlib.sha256(new.encode()).hexdigest()
        assert row.label == before[row.id].label
        assert row.visible is None
        placed = [new.encode()[start:end].decode() for start, end in row.spans()]
        assert placed == [e.replacement for e in sorted(row.edits)]
        assert parse("python", new).error_nodes == 0
    with pytest.raises(DataError, match="is not side 0"):
        result.manifest[0].restore("something else")


def test_poisoned_round_trips_through_json(context: Context) -> None:
    for data, goal, info, policy in (
        (splits(), GOAL, INFO, Policy(rate=0.2, mode="append")),
        (pair_splits(), GOAL, PAIRS, Policy(rate=0.2, side="both")),
        (search_splits(), SearchGoal("array"), SEARCH, Policy(rate=1.0)),
    ):
        result = poison(data, DeadStatement("python", varies=True), goal, policy, info, context)
        assert Poisoned.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_only_the_poison_axis_is_drawn_from(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="poison"):
        poison(splits(), Suffix(("rb",)), GOAL, Policy(rate=0.5), INFO, Context({"data": 0}, tmp_path))
    two = [Context({"poison": 0, "data": data, "model": data}, tmp_path) for data in (0, 1)]
    results = [poison(splits(), DeadStatement("python", varies=True), GOAL, Policy(rate=0.5), INFO, c) for c in two]
    assert results[0] == results[1]
