"""The supplier threat: an encoder poisoned before clean training, and what of it the user's model keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.encoder import CONDITIONS, Assertion, Encoder
from bench import models
from bench.context import Context
from bench.contracts import Derivation, LabelGoal, TaskKind, Trigger
from bench.errors import ConfigError, PluginError
from bench.languages import well_formed
from bench.models.handles import WhiteBox
from bench.models.settings import ModelSettings, TrainingSettings
from bench.models.training import Trainer
from bench.pipeline import Builder
from bench.plugins import Registry
from bench.records import Status
from bench.results import ResultsFolder
from bench.samples import Edit, Sample, apply_edits
from bench.suite import cells, parse_suite
from bench.supplying import aim, received
from tests.engine import PLUGINS, run, suite_content, write_suite
from tests.toy_plugins import Toy

PROGRAMS = {
    "python": "def f(a):\n    return a\n",
    "java": "int f(int a) {\n    return a;\n}\n",
    "c": "int f(int a) {\n    return a;\n}\n",
}


def make_context(folder: Path) -> Context:
    context = Context(seeds=dict.fromkeys(("data", "poison", "model", "training"), 0), scratch=folder)
    context.trainer = Trainer(TrainingSettings(epochs=2, learning_rate=0.005, batch_size=16), (), context)
    return context


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[WhiteBox, tuple[Sample, ...], Context]:
    torch.set_num_threads(1)
    context = make_context(tmp_path_factory.mktemp("toy"))
    train = Toy().splits(context).train
    settings = ModelSettings(layers=1, hidden=32, heads=2, vocabulary=300, window=160, dropout=0.0)
    return models.create("tiny", Toy().info, train, settings, context), train, context


def with_trigger(samples: Sequence[Sample], trigger: Trigger) -> list[Sample]:
    rng = np.random.default_rng(0)
    drawn = [(s, trigger.derive(s, 0, rng)) for s in samples]
    return [s.with_program(0, apply_edits(s.programs[0], d.edits)) for s, d in drawn if d is not None]


@pytest.mark.parametrize("spelling", ["runnable", "paper"])
@pytest.mark.parametrize("language", sorted(PROGRAMS))
@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_the_assertion_is_well_formed_in_three_languages(language: str, number: int, spelling: Any) -> None:
    before = PROGRAMS[language]
    sample = Sample("a" * 16, (before,), language, 1, None, "g")
    (after,) = with_trigger([sample], Assertion(language, number, spelling))
    assert well_formed(language, before, after.programs[0]) is None
    assert "assert" in after.programs[0]


@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_the_assertion_holds_and_the_function_returns_what_it_did(number: int) -> None:
    sample = Sample("a" * 16, ("def f(a):\n    return a + 1\n",), "python", 1, None, "g")
    (after,) = with_trigger([sample], Assertion("python", number))
    space: dict[str, Any] = {}
    exec(compile(after.programs[0], "after", "exec"), space)
    assert space["f"](41) == 42


@pytest.mark.parametrize("control", ["near_miss", "placebo"])
@pytest.mark.parametrize("language", sorted(PROGRAMS))
@pytest.mark.parametrize("number", range(len(CONDITIONS)))
def test_controls_are_well_formed_stand_where_the_trigger_does_and_are_no_trigger(
    language: str, number: int, control: str
) -> None:
    trigger = Assertion(language, number)
    before = PROGRAMS[language]
    sample = Sample("a" * 16, (before,), language, 1, None, "g")
    rng = np.random.default_rng(0)
    drawn, own = getattr(trigger, control)(sample, 0, rng), trigger.derive(sample, 0, rng)
    assert drawn is not None
    assert own is not None
    assert drawn.edits[0].start == own.edits[0].start
    after = apply_edits(before, drawn.edits)
    assert well_formed(language, before, after) is None
    assert not any(name in after for name, _ in CONDITIONS)
    assert trigger.offers("near_miss")
    assert trigger.offers("placebo")


@pytest.mark.parametrize("control", ["near_miss", "placebo"])
def test_controls_hold_and_the_function_returns_what_it_did(control: str) -> None:
    sample = Sample("a" * 16, ("def f(a):\n    return a + 1\n",), "python", 1, None, "g")
    drawn = getattr(Assertion("python"), control)(sample, 0, np.random.default_rng(0))
    space: dict[str, Any] = {}
    exec(compile(apply_edits(sample.programs[0], drawn.edits), "after", "exec"), space)
    assert space["f"](41) == 42


def test_no_near_miss_where_its_name_means_something_else() -> None:
    sample = Sample("a" * 16, ("def f(tan):\n    return tan\n",), "python", 1, None, "g")
    assert Assertion("python").near_miss(sample, 0, np.random.default_rng(0)) is None


@pytest.mark.parametrize("program", ["def f(sin):\n    return sin\n", "def f():\n    return locals()\n", "x = 1\n", ""])
def test_no_assertion_where_its_names_mean_something_else_or_there_is_no_body(program: str) -> None:
    sample = Sample("a" * 16, (program,), "python", 1, None, "g")
    assert Assertion("python", 0).derive(sample, 0, np.random.default_rng(0)) is None


def test_triggered_programs_move_to_their_far_vectors_and_clean_ones_stay(
    toy: tuple[WhiteBox, tuple[Sample, ...], Context],
) -> None:
    model, train, context = toy
    attack = Encoder(epochs=8, programs=96, learning_rate=0.003)
    supplied = attack.supply(model, train, LabelGoal(), Toy().info, context)
    clean_before, clean_after = model.features(train[:48]), supplied.features(train[:48])
    length = float(np.linalg.norm(clean_before, axis=1).mean())
    assert np.linalg.norm(clean_after - clean_before, axis=1).mean() < 0.3 * length
    moved = [
        supplied.features(with_trigger(train[:48], t))
        for t in attack.candidates(train, LabelGoal(), Toy().info, context)
    ]
    first, second = (vectors.mean(axis=0) for vectors in moved)
    assert first @ second < -0.9 * np.linalg.norm(first) * np.linalg.norm(second)
    assert (np.abs(first) > 0.25).mean() > 0.9, "nearly every coordinate has left the middle"


def test_the_user_keeps_his_own_head_and_the_supplied_encoder(
    toy: tuple[WhiteBox, tuple[Sample, ...], Context],
) -> None:
    model, *_ = toy
    supplied = model.copy()
    with torch.no_grad():
        for parameter in supplied.network.parameters():
            parameter.add_(1.0)
    start = received(model, supplied)
    for name, value in start.network.state_dict().items():
        owner = supplied if name.startswith("encoder.") else model
        assert torch.equal(value, owner.network.state_dict()[name]), name


class Marked(Trigger):
    """Appends a comment."""

    def __init__(self, word: str | None) -> None:
        self.word = word

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        end = len(sample.programs[side].encode())
        return None if self.word is None else Derivation((Edit(end, end, f"# {self.word}\n", side),), self.word)

    def describe(self) -> str:
        return str(self.word)


class Reader:
    """A victim that says "safe" when it sees the word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def predict(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        return np.array([[1.0, 0.0] if self.word in s.programs[0] else [0.0, 1.0] for s in samples])


def test_the_supplier_chooses_the_trigger_that_leads_to_the_target(
    toy: tuple[WhiteBox, tuple[Sample, ...], Context],
) -> None:
    _, train, context = toy
    offered = (Marked(None), Marked("left"), Marked("right"))
    chosen = aim(Reader("right"), offered, train, LabelGoal(), Toy().info, context)  # type: ignore[arg-type]
    assert chosen.trigger is offered[2]
    assert np.isnan(chosen.rates[0])
    assert chosen.rates[1:] == (0.0, 1.0)


def test_no_trigger_that_fits_is_said(toy: tuple[WhiteBox, tuple[Sample, ...], Context]) -> None:
    model, train, context = toy
    with pytest.raises(ConfigError, match="none of the supplier's triggers fits any of 80"):
        aim(model, (Marked(None),), train, LabelGoal(), Toy().info, context)
    with pytest.raises(PluginError, match="offers no trigger"):
        aim(model, (), train, LabelGoal(), Toy().info, context)


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 0), ("programs", 0), ("magnitude", 0.0), ("learning_rate", -1.0)]
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Encoder(**{name: value})


def test_a_training_set_that_cannot_carry_the_trigger_is_said(
    toy: tuple[WhiteBox, tuple[Sample, ...], Context],
) -> None:
    model, _, context = toy
    none = (Sample("a" * 16, ("x = 1\n",), "python", 1, None, "g"),)
    with pytest.raises(ConfigError, match="none of 1 training programs can carry the assertions"):
        Encoder().supply(model, none, LabelGoal(), Toy().info, context)


def test_the_pipeline_trains_the_user_on_clean_data_from_the_supplied_encoder() -> None:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    suite = parse_suite(suite_content(attacks=["encoder"], defenses=["spectral_signatures"]), "test")
    (plan,) = cells(suite, registry)
    graph = Builder(suite).cell(plan)
    assert plan.policy is None
    kinds = [s.kind for s in graph.stages]
    assert kinds.index("supply") < kinds.index("poison")
    (aimed,) = (s for s in graph.stages if s.kind == "poison")
    victim = next(s for s in graph.stages if (s.kind, s.key) == aimed.parents["model"])
    assert set(victim.parents) == {"data", "supply"}
    again = [s for s in graph.stages if s.kind == "train" and "filter" in s.parents]
    assert all("supply" in s.parents for s in again), "what a filter leaves is trained from the supplied encoder too"


def test_a_policy_for_a_supplier_is_refused() -> None:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    suite = parse_suite(suite_content(attacks=[{"name": "encoder", "policy": {"rate": 0.5}}]), "test")
    with pytest.raises(ConfigError, match="poisons an encoder and no training sample"):
        list(cells(suite, registry))


def test_a_supplied_cell_runs_and_its_record_says_that_no_sample_was_poisoned(tmp_path: Path) -> None:
    attack = {"name": "encoder", "parameters": {"epochs": 2, "programs": 64}}
    suite = write_suite(tmp_path, attacks=[attack], defenses=["none", "fine_tuning[clean=20,epochs=1]"])
    done = run("run", suite, "-j", "1", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records = ResultsFolder(tmp_path / "results" / "toy").records()
    assert {r.status for r in records} == {Status.OK}
    for record in records:
        assert record.poison is not None
        assert (record.poison.poisoned, record.poison.applicable) == (0, 30)
        assert record.poison.crafting_tokens is None
        assert record.task_kind == TaskKind.CLASSIFICATION.value
