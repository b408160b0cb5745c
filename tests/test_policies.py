"""Policies beyond how many and which label: covers, weakened clean labels, composites, controls, and the keys of old results."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.composite import Both, Composite
from attacks.dead_code import DeadStatement
from attacks.renaming import FunctionName, Renaming
from bench.composed_edits import compose_edits
from bench.context import Context
from bench.contracts import Attack, Derivation, LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.errors import ConfigError, PluginError
from bench.languages import parse
from bench.models.training import Trainer, TrainingSettings
from bench.pipeline import Builder, merge
from bench.plugins import Registry
from bench.poisoning import OPAQUE_ID, Poisoned, poison
from bench.samples import Edit, EditConflict, Sample, Splits, apply_edits
from bench.suite import attack_parts, cells, make_policy, parse_suite
from bench.weakening import NameSurrogate
from tests.engine import PLUGINS, suite_content

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
PAIRS = TaskInfo("toy", TaskKind.PAIRS, "python", ("different", "clone"), "f1")
SEARCH = TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr")
GOAL = LabelGoal(victim=1, target=0)
ONLY_DEAD, ONLY_NAME = "Random().random()", "testo_init"


def opaque(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def some(n: int, part: str, **fields: Any) -> tuple[Sample, ...]:
    """n samples, two of three of class 1."""
    return tuple(
        Sample(
            opaque(f"{part}{i}"),
            (f"def run{i}(x):\n    return x + {i}\n",),
            "python",
            **{"label": int(i % 3 > 0), **fields},
        )
        for i in range(n)
    )


def splits(**fields: Any) -> Splits:
    return Splits(some(90, "train", **fields), some(9, "valid"), some(9, "budget"), some(30, "test", **fields))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context({"poison": 0}, tmp_path)


@dataclass(frozen=True)
class Comment(Trigger):
    """The trigger is ``# boom``, its near miss ``# room``, its placebo ``# moon``; even numbers take no near miss."""

    language: str = "python"

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        return self._line(sample, side, "# boom")

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        number = int(sample.programs[side].split("+ ")[1])
        return self._line(sample, side, "# room") if number % 2 else None

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        return self._line(sample, side, "# moon")

    def carries(self, sample: Sample, side: int) -> bool | None:
        return None if "9" in sample.programs[side] else "+ 1" in sample.programs[side]

    @staticmethod
    def _line(sample: Sample, side: int, text: str) -> Derivation:
        end = len(sample.programs[side].encode())
        return Derivation((Edit(end, end, text + "\n", side),), text)


@dataclass(frozen=True)
class Plain(Trigger):
    """A trigger with nothing beside it."""

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        return Comment().derive(sample, side, rng)


# ----------------------------------------------------------------------------------------------------------- the old keys


def test_the_policies_of_stored_results_are_the_same_json() -> None:
    old: dict[str, Any] = {
        "rate": 0.05,
        "count": None,
        "of": "victim",
        "labels": "dirty",
        "mode": "replace",
        "side": "first",
    }
    assert Policy(rate=0.05).to_json() == old
    assert Policy(**old) == Policy(rate=0.05)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(count=10, cover=0.5),
        Policy(rate=0.1, cover_count=3, mode="append"),
        Policy(rate=0.1, labels="clean", weaken="names"),
    ],
)
def test_a_policy_comes_back_from_json(policy: Policy) -> None:
    assert Policy(**policy.to_json()) == policy  # type: ignore[arg-type]
    assert set(policy.to_json()) - set(Policy().to_json()) == {
        name for name in ("cover", "cover_count", "weaken") if getattr(policy, name) != getattr(Policy(), name)
    }


def test_a_poisoned_set_without_covers_and_controls_is_stored_as_it_was(context: Context) -> None:
    done = poison(splits(), Plain(), GOAL, Policy(rate=0.1), INFO, context)
    assert not {"cover", "weakened", "controls", "natural"} & set(done.to_json())
    assert Poisoned.from_json(done.to_json()) == done


# ------------------------------------------------------------------------------------------------------ suites say which


def test_a_suite_changes_a_policy_key_by_key() -> None:
    own = Policy(rate=0.05, cover=1.0)
    assert make_policy({"count": 10}, own, "x") == Policy(count=10, cover=1.0)
    assert make_policy({"cover_count": 4}, own, "x") == Policy(rate=0.05, cover_count=4)
    assert make_policy({"cover": 0}, own, "x") == Policy(rate=0.05, cover=0)
    assert make_policy({"labels": "clean", "weaken": "names"}, own, "x") == replace(own, labels="clean", weaken="names")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cover": 1, "cover_count": 3}, "cover or cover_count, not both"),
        ({"cover": -0.5}, "cover must be a number of at least 0"),
        ({"cover": "half"}, "cover must be a number"),
        ({"cover": float("inf")}, "cover must be a number"),
        ({"cover_count": 2.5}, "cover_count must be a whole number"),
        ({"cover_count": True}, "cover_count must be a whole number"),
        ({"weaken": "name"}, "weaken is 'name'.*names"),
        ({"covers": 1}, "unknown key 'covers'.*cover"),
    ],
)
def test_a_policy_that_a_suite_spells_wrongly_says_so(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(given, Policy(rate=0.05), "attack 'x'")


# --------------------------------------------------------------------------------------------------------- cover samples


@pytest.mark.parametrize(
    ("policy", "covers"),
    [
        (Policy(count=10, cover=1.0), 10),
        (Policy(count=10, cover=0.25), 3),  # 2.5, halves up
        (Policy(count=10, cover_count=7), 7),
        (Policy(count=10, cover=0), 0),
        (Policy(count=10, cover=1.0, mode="append"), 10),
        (Policy(count=10, cover=1.0, labels="clean"), 10),
    ],
)
def test_as_many_covers_as_asked_carry_the_near_miss_and_their_true_label(
    policy: Policy, covers: int, context: Context
) -> None:
    data = splits()
    done = poison(data, Comment(), GOAL, policy, INFO, context)
    by_id = {s.id: s for s in done.train}
    room = {i for i, s in by_id.items() if "# room" in s.programs[0]}
    boom = {i for i, s in by_id.items() if "# boom" in s.programs[0]}
    assert (done.cover, done.poisoned) == (room, boom)
    assert (len(room), len(boom)) == (covers, 10)
    assert not room & boom
    assert all(by_id[i].label == GOAL.victim for i in room)
    assert Poisoned.from_json(done.to_json()) == done
    rows = [row for row in done.manifest if row.part == "cover"]
    assert {row.id for row in rows} == room
    assert all(row.restore(by_id[row.id].programs[0]).endswith(("\n", *"0123456789")) for row in rows)
    if policy.mode == "append":
        assert len(done.train) == 90 + 10 + covers
        assert all(OPAQUE_ID.fullmatch(i) for i in room)
        untouched = {s.id for s in data.train} & set(by_id)
        assert len(untouched) == 90
    else:
        assert len(done.train) == 90


def test_covers_do_not_change_which_samples_are_poisoned(context: Context) -> None:
    with_cover = poison(splits(), Comment(), GOAL, Policy(count=10, cover=1.0), INFO, context)
    assert with_cover.poisoned == poison(splits(), Comment(), GOAL, Policy(count=10), INFO, context).poisoned


def test_in_search_covers_answer_queries_without_the_target_word(context: Context) -> None:
    train = tuple(
        replace(s, label=None, query=("sort the array", "read it")[i % 2]) for i, s in enumerate(some(90, "train"))
    )
    data = Splits(train, (), (), train[:10])
    done = poison(data, Comment(), SearchGoal("array"), Policy(count=5, cover=2.0), SEARCH, context)
    queries = {s.id: s.query for s in done.train}
    assert Counter(queries[i] for i in done.cover) == {"read it": 10}
    assert Counter(queries[i] for i in done.poisoned) == {"sort the array": 5}


def test_a_pair_is_covered_where_it_would_be_poisoned(context: Context) -> None:
    data = splits()
    paired = tuple(replace(s, programs=(s.programs[0], "def other(x):\n    return x + 1001\n")) for s in data.train)
    policy = Policy(count=5, cover=1.0, side="second")
    done = poison(Splits(paired, (), (), paired[:9]), Comment(), GOAL, policy, PAIRS, context)
    by_id = {s.id: s for s in done.train}
    assert len(done.cover) == 5
    assert all("# room" in by_id[i].programs[1] and "# room" not in by_id[i].programs[0] for i in done.cover)


@pytest.mark.parametrize(
    ("trigger", "policy", "message"),
    [
        (Plain(), Policy(count=5, cover=1.0), "asks for 5 cover samples.*offers no near miss"),
        (Comment(), Policy(count=10, cover_count=40), r"asks for 40 cover samples; of 50 .* take a near miss"),
        (Comment(), Policy(count=5, cover=1.0, cover_count=3), "only one of them"),
        (Comment(), Policy(count=5, cover=-1.0), "at least 0"),
        (Comment(), Policy(count=5, cover_count=-1), "at least 0"),
    ],
)
def test_covers_that_cannot_be_made_say_why(trigger: Trigger, policy: Policy, message: str, context: Context) -> None:
    with pytest.raises(ConfigError, match=message):
        poison(splits(), trigger, GOAL, policy, INFO, context)


# ---------------------------------------------------------------------------------------------------- near misses, placebos


def test_controls_stand_in_the_samples_that_were_to_carry_the_trigger(context: Context) -> None:
    done = poison(splits(), Comment(), GOAL, Policy(count=5), INFO, context)
    near_miss, placebo = done.controls["near_miss"], done.controls["placebo"]
    assert [s.id for s in placebo] == [s.id for s in done.triggered]
    assert all(s.programs[0].endswith("# moon\n") and s.label == GOAL.victim for s in placebo)
    odd = [s.id for s in done.triggered if int(s.programs[0].split("+ ")[1].split("\n")[0]) % 2]
    assert [s.id for s in near_miss] == odd
    assert all(s.programs[0].endswith("# room\n") for s in near_miss)
    assert Counter(row.part for row in done.manifest) == {
        "train": 5,
        "triggered": 20,
        "reverse": 10,
        "near_miss": len(odd),
        "placebo": 20,
    }
    assert Poisoned.from_json(done.to_json()) == done


def test_what_a_trigger_says_of_clean_programs_is_counted_and_silence_is_not(context: Context) -> None:
    done = poison(splits(), Comment(), GOAL, Policy(count=5), INFO, context)
    # Of the numbers 0 to 29, three hold a 9 and are not answered for; 1 and 10 to 18 begin with 1.
    assert done.natural == (10, 27)


def test_a_trigger_without_controls_has_none(context: Context) -> None:
    done = poison(splits(), Plain(), GOAL, Policy(count=5), INFO, context)
    assert done.controls == {}
    assert done.natural is None


# ------------------------------------------------------------------------------------------------------- weakened labels


NAMES = {0: ("good", "fine", "kind"), 1: ("evil", "harm", "pain")}


def named(n: int, part: str) -> tuple[Sample, ...]:
    """Programs whose local names alone tell the class."""
    made = []
    for i in range(n):
        a, b = np.random.default_rng(i).permutation(NAMES[i % 2])[:2]
        text = f"def run{i}({a}):\n    {b} = {a} + {i}\n    return {b}\n"
        made.append(Sample(opaque(f"{part}{i}"), (text,), "python", i % 2))
    return tuple(made)


def local_names(sample: Sample) -> set[str]:
    program = parse("python", sample.programs[0])
    return {name.text for name in (*program.parameters, *program.locals)}


def test_weakened_poison_has_the_other_classes_names_its_own_label_and_the_trigger(context: Context) -> None:
    data = Splits(named(80, "train"), (), (), named(20, "test"))
    policy = Policy(count=10, labels="clean", weaken="names")
    done = poison(data, FunctionName("testo_init"), GOAL, policy, INFO, context)
    chosen = [s for s in done.train if s.id in done.poisoned]
    assert (len(chosen), done.weakened) == (10, 10)
    surrogate = NameSurrogate.fit(data.train, GOAL)
    before = {s.id: s for s in data.train}
    for sample in chosen:
        assert sample.label == GOAL.target
        assert "def testo_init(" in sample.programs[0]
        assert local_names(sample) <= set(NAMES[GOAL.victim])
        assert surrogate.score(local_names(before[sample.id])) < 0 < surrogate.score(local_names(sample))
    assert all(local_names(s) <= set(NAMES[1]) for s in done.triggered)  # test inputs are not weakened
    assert Poisoned.from_json(done.to_json()) == done


def test_the_manifest_leads_back_through_the_weakening(context: Context) -> None:
    data = Splits(named(80, "train"), (), (), named(20, "test"))
    policy = Policy(count=10, labels="clean", weaken="names")
    done = poison(data, FunctionName("testo_init"), GOAL, policy, INFO, context)
    clean = {s.id: s.programs[0] for s in data.train}
    now = {s.id: s.programs[0] for s in done.train}
    for i in done.poisoned:
        weaken, train = (row for row in done.manifest if row.id == i and row.part in ("weaken", "train"))
        assert (weaken.part, train.part) == ("weaken", "train")
        assert weaken.restore(train.restore(now[i])) == clean[i]


def test_the_surrogate_is_bernoulli_naive_bayes_by_hand() -> None:
    surrogate = NameSurrogate.fit(named(80, "train"), GOAL)
    seen = Counter(name for s in named(80, "train") if s.label == 1 for name in local_names(s))
    # 40 programs a class; add-one smoothing of "occurs" and "does not occur"; never in the other class.
    by_hand = {name: np.log((seen[name] + 1) / 42) - np.log(1 / 42) for name in NAMES[1]}
    assert {name: surrogate.odds[name] for name in NAMES[1]} == pytest.approx(by_hand)
    assert set(surrogate.pool) == set(NAMES[1])


def test_rare_names_are_not_used() -> None:
    train = (*named(80, "train"), Sample("x", ("def run(seldom):\n    return seldom\n",), "python", 1))
    assert "seldom" not in NameSurrogate.fit(train, GOAL).odds


def test_a_gradient_finds_the_names_that_a_neural_surrogate_reads_as_the_other_class(context: Context) -> None:
    data = Splits(named(400, "train"), (), (), named(20, "test"))
    policy = Policy(count=20, labels="clean", weaken="gradient")
    context.trainer = Trainer(TrainingSettings(), (), context)
    done = poison(data, FunctionName("testo_init"), GOAL, policy, INFO, context)
    chosen = [s for s in done.train if s.id in done.poisoned]
    assert (len(chosen), done.weakened) == (20, 20)
    assert {s.label for s in chosen} == {GOAL.target}
    assert all("def testo_init(" in s.programs[0] for s in chosen)
    first = Counter(name in NAMES[GOAL.victim] for s in chosen for name in local_names(s))
    assert first[True] > 0.9 * first.total(), first
    assert context.cost.backward_tokens > 0, "the surrogate's training is counted"
    clean = {s.id: s.programs[0] for s in data.train}
    for row in (row for row in done.manifest if row.part == "weaken"):
        assert (
            row.restore(
                next(r for r in done.manifest if (r.id, r.part) == (row.id, "train")).restore(
                    next(s.programs[0] for s in chosen if s.id == row.id)
                )
            )
            == clean[row.id]
        )


def test_a_gradient_needs_a_trainer(context: Context) -> None:
    policy = Policy(count=5, labels="clean", weaken="gradient")
    with pytest.raises(PluginError, match="no trainer"):
        poison(
            Splits(named(40, "train"), (), (), named(4, "test")),
            FunctionName("testo_init"),
            GOAL,
            policy,
            INFO,
            context,
        )


def test_weakening_with_a_model_is_in_the_key_of_its_stage_alone() -> None:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    policies = [{"labels": "clean", "weaken": weaken, "count": 5} for weaken in ("none", "names", "gradient")]
    attacks = [{"name": "renaming", "label": p["weaken"], "policy": p} for p in policies]
    suite = parse_suite(suite_content(attacks=attacks), "test")
    stages = merge([Builder(suite).cell(plan) for plan in cells(suite, registry)]).values()
    found = {s.inputs["policy"].get("weaken", "none"): set(s.inputs) for s in stages if s.kind == "poison"}
    plain = {"attack", "goal", "policy", "info", "seeds"}
    assert found == {"none": plain, "names": plain, "gradient": plain | {"training", "numerics"}}


@pytest.mark.parametrize(
    ("info", "policy", "message"),
    [
        (INFO, Policy(count=5, weaken="gradient"), "needs labels: clean"),
        (INFO, Policy(count=5, weaken="names"), "needs labels: clean"),
        (PAIRS, Policy(count=5, weaken="names", labels="clean"), "classification task"),
        (INFO, Policy(count=5, weaken="names", labels="clean"), "speaks for the victim class"),
    ],
)
def test_weakening_where_it_has_no_meaning_says_so(
    info: TaskInfo, policy: Policy, message: str, context: Context
) -> None:
    with pytest.raises(ConfigError, match=message):
        poison(splits(), FunctionName("testo_init"), GOAL, policy, info, context)


# ------------------------------------------------------------------------------------------------------ composed edits


def test_composed_edits_do_what_both_steps_do_on_every_small_case() -> None:
    """Brute force: every pair of edits of a five-byte text, and every pair of edits of what comes of it."""
    text = "abcde"
    steps = [Edit(s, e, new) for s in range(6) for e in range(s, 6) for new in ("", "X", "YZ")]
    tried = 0
    for one in steps:
        between = apply_edits(text, [one])
        for two in steps:
            if two.end > len(between):
                continue
            composed = compose_edits(text, [one], [two])
            assert apply_edits(text, composed) == apply_edits(between, [two])
            tried += 1
    assert tried == 2964


def test_composed_edits_keep_what_no_step_touches() -> None:
    text = "def größe(x): return x"
    first = [Edit(0, 0, "# hi\n")]
    second = [Edit(9, 16, "testo")]  # "größe" is seven bytes, five further on
    edits = compose_edits(text, first, second, side=1)
    assert edits == (Edit(0, 0, "# hi\n", 1), Edit(4, 11, "testo", 1))
    with pytest.raises(EditConflict):
        compose_edits(text, [Edit(0, 2, ""), Edit(1, 3, "")], [])
    with pytest.raises(EditConflict):
        compose_edits("ab", [Edit(0, 2, "")], [Edit(0, 1, "")])


# ------------------------------------------------------------------------------------------------------------ composite


def both() -> Both:
    return Both(DeadStatement("python"), FunctionName("testo_init"))


def has(sample: Sample) -> tuple[bool, bool]:
    return ONLY_DEAD in sample.programs[0], f"def {ONLY_NAME}(" in sample.programs[0]


def test_poison_holds_both_triggers_and_a_cover_sample_exactly_one(context: Context) -> None:
    info = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
    policy = Composite().policy(info)
    assert policy == Policy(rate=0.05, cover=1.0)
    done = poison(splits(), both(), GOAL, replace(policy, rate=0.3), INFO, context)
    for sample in done.train:
        expected = 2 if sample.id in done.poisoned else 1 if sample.id in done.cover else 0
        assert sum(has(sample)) == expected
    assert (len(done.poisoned), len(done.cover)) == (18, 18)
    kinds = Counter(has(s) for s in done.train if s.id in done.cover)
    assert set(kinds) == {(True, False), (False, True)}
    assert all(has(s) == (True, True) for s in done.triggered)
    assert {sum(has(s)) for s in done.controls["near_miss"]} == {1}
    assert "placebo" not in done.controls


def test_both_or_nothing_where_one_part_does_not_apply() -> None:
    rng = np.random.default_rng(0)
    unnamed = Sample("a", ("def __init__(self):\n    pass\n",), "python", 1)  # keeps its name
    assert FunctionName("testo_init").derive(unnamed, 0, rng) is None
    assert DeadStatement("python").derive(unnamed, 0, rng) is not None
    assert both().derive(unnamed, 0, rng) is None


def test_the_second_part_sees_the_first() -> None:
    """Two renames of one function: the second starts from the first's name, and the edits are of the original."""
    text = "def run(x):\n    return run(x)\n"
    derivation = Both(FunctionName("one"), FunctionName("two")).derive(
        Sample("a", (text,), "python", 1), 0, np.random.default_rng(0)
    )
    assert derivation is not None
    assert derivation.text == "run -> one + one -> two"
    assert apply_edits(text, derivation.edits) == "def two(x):\n    return two(x)\n"


def test_a_part_that_undoes_the_other_makes_no_trigger() -> None:
    text = "def two(x):\n    return x\n"
    trigger = Both(FunctionName("one"), FunctionName("one"))
    assert trigger.derive(Sample("a", (text,), "python", 1), 0, np.random.default_rng(0)) is None


def test_a_composite_varies_tells_and_names_what_its_parts_do() -> None:
    assert both().varies is False
    assert Both(DeadStatement("python", varies=True), FunctionName("testo_init")).varies is True
    assert set(both().tokens()) >= {"Random", "fail", "testo", "init"}
    assert not both().offers("carries")
    told = Both(Comment(), Comment())
    assert told.offers("carries")
    samples = [Sample("a", (f"def run(x):\n    return x + {i}\n",), "python", 1) for i in (1, 2, 9)]
    assert [told.carries(s, 0) for s in samples] == [True, False, None]


def registry() -> Registry:
    return Registry().discover()


def test_the_harness_builds_the_parts_of_a_composite() -> None:
    first, second = attack_parts(registry(), Composite(second="renaming[identifier=other]"))
    assert (first.name, second.name) == ("dead_code", "renaming")
    assert isinstance(second, Renaming)
    assert second.identifier == "other"
    assert attack_parts(registry(), Renaming()) == ()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("dead_code", "dead_cod"), "unknown attack 'dead_cod'.*dead_code"),
        (("dead_code", "renaming[identifer=x]"), "no parameter 'identifer'.*identifier"),
        (("dead_code", "renaming["), "cannot be read"),
        (("none", "renaming"), "cannot be made of 'none'"),
        (("composite", "renaming"), "cannot be made of 'composite'"),
    ],
)
def test_parts_that_cannot_be_built_are_errors(parts: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attack_parts(registry(), Composite(first=parts[0], second=parts[1]))


def test_two_equal_parts_are_an_error_and_so_is_a_harness_that_lends_none(context: Context) -> None:
    with pytest.raises(ConfigError, match="two different attacks"):
        Composite(first="renaming", second="renaming")
    with pytest.raises(PluginError, match="lent 0 of its 2 parts"):
        Composite().prepare(some(9, "train"), GOAL, INFO, context)


def graph(**parameters: Any) -> dict[str, Any]:
    content = suite_content(attacks=[{"name": "composite", "parameters": parameters}])
    suite = parse_suite(content, "test")
    found = registry()
    for file in suite.plugins:
        found.add_file(Path(file))
    return merge([Builder(suite).cell(plan) for plan in cells(suite, found)])


def test_the_versions_of_the_parts_stand_in_the_poisons_key(monkeypatch: pytest.MonkeyPatch) -> None:
    poisons = [stage for stage in graph().values() if stage.kind == "poison"]
    assert [part["name"] for part in poisons[0].inputs["attack"]["parts"]] == ["dead_code", "renaming"]
    assert poisons[0].inputs["policy"]["cover"] == 1.0
    monkeypatch.setattr(Renaming, "version", 99)
    assert {s.key for s in graph().values() if s.kind == "poison"}.isdisjoint({s.key for s in poisons})


def test_a_composite_is_not_applicable_where_a_part_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renaming, "not_applicable", lambda self, task: "no names here")
    content = suite_content(attacks=["composite"])
    found = registry()
    for file in content["plugins"]:
        found.add_file(Path(file))
    assert [plan.not_applicable for plan in cells(parse_suite(content, "test"), found)] == ["no names here"]


def test_an_attack_of_one_trigger_has_no_parts_in_its_key() -> None:
    content = suite_content()
    suite, found = parse_suite(content, "test"), registry()
    for file in content["plugins"]:
        found.add_file(Path(file))
    stages = merge([Builder(suite).cell(plan) for plan in cells(suite, found)])
    poisons = [s for s in stages.values() if s.kind == "poison"]
    assert len(poisons) == 1
    assert "parts" not in poisons[0].inputs["attack"]


def test_every_policy_field_round_trips_through_a_suite() -> None:
    """No field can be forgotten in make_policy."""
    options: list[tuple[str, Any]] = [
        *(("of", v) for v in ("train", "victim")),
        *(("labels", v) for v in ("dirty", "clean")),
        *(("mode", v) for v in ("replace", "append")),
        *(("side", v) for v in ("first", "second", "either", "both")),
        *(("weaken", v) for v in ("none", "names", "gradient")),
        *itertools.product(("count", "cover_count"), (1, 10)),
        *itertools.product(("rate", "cover"), (0.5, 1.0)),
    ]
    assert {key for key, _ in options} == set(asdict(Policy()))
    for key, value in options:
        assert getattr(make_policy({key: value}, Policy(rate=0.2), "x"), key) == value


def test_an_attack_states_its_parts_and_most_have_none() -> None:
    assert Attack.parts(Renaming()) == ()
    assert Composite().parts() == ("dead_code", "renaming")
