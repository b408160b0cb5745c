"""ABL isolates what is learnt fastest and unlearns it; its controls, and label smoothing, do what they say and no more."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import Known, TaskInfo, TaskKind, TrainingRule
from bench.errors import ConfigError, DataError, ModelError, PluginError
from bench.models import Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.models.network import CodeNetwork
from bench.models.training import Step
from bench.plugins import Registry, build, parameters_of
from bench.samples import Sample
from defenses.training.abl import ABL, Watch, held_up, sample_losses
from defenses.training.dece import DeCE, deceptive_cross_entropy
from defenses.training.label_smoothing import LabelSmoothing, smoothed_cross_entropy
from defenses.training.oracle import OracleTraining
from defenses.training.random import RandomTraining
from tests.models_toys import DEFECTS, INFOS, SEARCH, SMALL, TOYS, context, defects, one_thread, searches

one_thread()
SETTINGS = TrainingSettings(epochs=2, batch_size=16, learning_rate=5e-3)


def lent(folder: Path, settings: TrainingSettings = SETTINGS, valid: Sequence[Sample] = ()) -> Context:
    made = context(folder)
    made.trainer = Trainer(settings, valid, made)
    return made


def fresh(samples: Sequence[Sample], folder: Path, info: TaskInfo = DEFECTS) -> WhiteBox:
    return create("tiny", info, samples or defects(4), SMALL, context(folder))


def train(
    rule: TrainingRule,
    samples: Sequence[Sample],
    folder: Path,
    *,
    info: TaskInfo = DEFECTS,
    poisoned: frozenset[str] = frozenset(),
    settings: TrainingSettings = SETTINGS,
) -> tuple[WhiteBox, Trainer]:
    made = lent(folder, settings)
    known = Known(rule.needs, _training=tuple(samples), _poisoned=poisoned if rule.needs.truth else None)
    trained = rule.train(fresh(samples, folder, info), known, info, made)
    assert made.trainer is not None
    return trained, made.trainer


def with_an_easy_subset(count: int, easy: int) -> tuple[list[Sample], frozenset[str]]:
    """Labels by lot, which nothing tells, but for a few samples of class 0 whose text does."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(count) % 2)
    made = []
    for i, sample in enumerate(defects(count)):
        text = "wq = wq\nwq = wq\nwq = wq\n" if i < easy else sample.programs[0]
        made.append(Sample(sample.id, (text,), "python", 0 if i < easy else int(labels[i])))
    return made, frozenset(s.id for s in made[:easy])


# ---------------------------------------------------------------------------------------------------------- the losses


def test_the_loss_is_held_up_at_gamma_worked_by_hand() -> None:
    losses = torch.tensor([0.2, 0.4, 0.9, 1.5], requires_grad=True)
    local = held_up(losses, 0.5, "local")
    assert local.item() == pytest.approx((-0.2 - 0.4 + 0.9 + 1.5) / 4)
    assert torch.autograd.grad(local, losses)[0].tolist() == pytest.approx([-0.25, -0.25, 0.25, 0.25])
    assert held_up(losses, 0.5, "flooding").item() == pytest.approx(0.75)  # their mean, which is above gamma
    low = torch.tensor([0.1, 0.3], requires_grad=True)
    flooded = held_up(low, 0.5, "flooding")
    assert flooded.item() == pytest.approx(0.8)  # 0.3 below, so 0.3 above
    assert torch.autograd.grad(flooded, low)[0].tolist() == pytest.approx([-0.5, -0.5])


def test_a_watch_notes_each_samples_loss_and_minimises_what_it_is_told() -> None:
    logits, labels = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    each = [math.log(4 / 3), math.log(2)]
    for ascent, expected in (
        ("none", sum(each) / 2),
        ("unlearn", -sum(each) / 2),
        ("local", (-each[0] + each[1]) / 2),
        ("flooding", 1 - sum(each) / 2),
    ):
        watch = Watch(ascent, 0.5)  # type: ignore[arg-type]
        assert float(watch.objective(logits, labels, 0.0, ["a", "b"])) == pytest.approx(expected, abs=1e-6)
        watch.objective(logits[:1], labels[:1], 0.5, ["a"])
        watch.objective(logits[:0], labels[:0], 0.5, [])  # another piece of the same step
        assert watch.steps == 2
        assert watch.traces == {"a": pytest.approx([each[0]] * 2, abs=1e-5), "b": pytest.approx([each[1]], abs=1e-5)}


@pytest.mark.parametrize("failing", [1, 2, 5])
def test_a_watch_forgets_the_attempts_that_memory_ran_out_on(tmp_path: Path, failing: int) -> None:
    samples, sizes = defects(24), list[int]()
    model = fresh(samples, tmp_path)
    settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3)

    def full_now_and_then(
        network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]
    ) -> Tensor:
        loss = objective(network(*sides))
        sizes.append(len(sides[0].ids))
        if sizes[-1] > 2 and sizes.count(sizes[-1]) == failing:
            raise torch.OutOfMemoryError("as on the pass back, when the losses stand in the notes")
        return loss

    def watched(step: Step | None, pieces: int) -> Watch:
        watch, made = Watch("none"), lent(tmp_path, settings.model_copy(update={"accumulation": pieces}))
        assert made.trainer is not None
        made.trainer.fit(model, samples, axis="training", objective=watch.objective, step=step)
        return watch

    again, alone = watched(full_now_and_then, 1), watched(None, 4)
    assert sizes == [8] * failing + [4] * failing + [2] * 24
    assert again.steps == alone.steps == 6
    assert again.traces == alone.traces
    assert {len(trace) for trace in again.traces.values()} == {2}, "one an epoch"


@pytest.mark.parametrize("kind", [TaskKind.CLASSIFICATION, TaskKind.PAIRS])
def test_sample_losses_are_the_cross_entropies(tmp_path: Path, kind: TaskKind) -> None:
    samples = TOYS[kind](14)
    model = fresh(samples, tmp_path, INFOS[kind])
    found = sample_losses(model, samples, 20.0, 4, np.random.default_rng(0))
    labels = torch.tensor([s.label for s in samples])
    expected = functional.cross_entropy(torch.from_numpy(model.predict(samples)), labels, reduction="none")
    assert found == pytest.approx(expected.numpy(), abs=1e-5)
    backwards = sample_losses(model, samples[::-1], 20.0, 4, np.random.default_rng(1))
    assert backwards[::-1] == pytest.approx(found, abs=1e-5)


def test_in_search_a_samples_loss_is_among_the_programs_of_a_batch(tmp_path: Path) -> None:
    samples = searches(10)
    model = fresh(samples, tmp_path, SEARCH)
    found = sample_losses(model, samples, 20.0, 16, np.random.default_rng(0))
    logits = torch.from_numpy(20.0 * model.embed_queries(samples) @ model.embed_programs(samples).T)
    expected = functional.cross_entropy(logits, torch.arange(10), reduction="none")
    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    in_halves = sample_losses(model, samples, 20.0, 5, np.random.default_rng(0))
    assert (in_halves < found).all()  # fewer programs to be mistaken for


def test_a_diverged_model_is_an_error(tmp_path: Path) -> None:
    model = fresh(defects(4), tmp_path)
    assert model.network.head is not None
    model.network.head.outer.bias.data[:] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        sample_losses(model, defects(4), 20.0, 4, np.random.default_rng(0))


# ----------------------------------------------------------------------------------------------------------------- ABL


@pytest.mark.parametrize("ascent", ["local", "flooding"])
def test_a_planted_easy_subset_is_isolated(tmp_path: Path, ascent: str) -> None:
    samples, easy = with_an_easy_subset(120, 12)
    rule = build(ABL, {"ascent": ascent, "share": 0.1, "isolation": 0.5, "unlearning_epochs": 0})
    _, trainer = train(rule, samples, tmp_path, settings=SETTINGS.model_copy(update={"epochs": 6}))  # type: ignore[arg-type]
    assert set(trainer.notes["isolated"]) == easy


def test_what_was_isolated_is_unlearnt(tmp_path: Path) -> None:
    samples, easy = with_an_easy_subset(120, 12)
    settings = SETTINGS.model_copy(update={"epochs": 6})
    of_easy = [s for s in samples if s.id in easy]
    losses = []
    for epochs in (0, 5):
        rule = ABL(share=0.1, isolation=0.5, unlearning_epochs=epochs, unlearning_rate=5e-3)
        model, _ = train(rule, samples, tmp_path, settings=settings)
        losses.append(sample_losses(model, of_easy, 20.0, 16, np.random.default_rng(0)).mean())
    assert losses[1] > losses[0] + 0.5


@pytest.mark.parametrize(("epochs", "rate", "accumulation"), [(0, 5e-3, 1), (5, 5e-3, 1), (5, 5e-3, 2), (5, 1e-9, 1)])
def test_the_notes_say_what_unlearning_came_to(tmp_path: Path, epochs: int, rate: float, accumulation: int) -> None:
    samples, _ = with_an_easy_subset(120, 20)
    settings = SETTINGS.model_copy(update={"epochs": 6, "accumulation": accumulation})
    rule = ABL(share=20 / 120, isolation=0.5, unlearning_epochs=epochs, unlearning_rate=rate)
    model, trainer = train(rule, samples, tmp_path, settings=settings)
    found = json.loads(json.dumps(trainer.notes, allow_nan=False))["unlearning"]
    assert found["steps"] == 2 * epochs  # 20 samples in batches of 16
    isolated = [s for s in samples if s.id in trainer.notes["isolated"]]
    now = sample_losses(model, isolated, 20.0, 16, np.random.default_rng(0)).mean()
    assert found["loss_after"] == pytest.approx(now, abs=1e-4)
    if epochs and rate > 1e-6:
        assert found["loss_after"] > found["loss_before"] + 0.5
    else:
        assert found["loss_after"] == pytest.approx(found["loss_before"], abs=1e-4)


def test_the_notes_change_nothing_in_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 5e-3})
    for info, samples in ((DEFECTS, defects(40)), (SEARCH, searches(20))):
        noted, _ = train(ABL(share=0.2), samples, tmp_path, info=info, settings=settings)
        with monkeypatch.context() as patched:
            patched.setattr(ABL, "_mean_loss", lambda *_: None)
            silent, _ = train(ABL(share=0.2), samples, tmp_path, info=info, settings=settings)
        assert noted.fingerprint() == silent.fingerprint()


def test_diverged_unlearning_is_noted_and_left_to_the_harness(tmp_path: Path) -> None:
    model, trainer = train(ABL(share=0.2, unlearning_rate=1e30), defects(40), tmp_path)
    assert trainer.notes["unlearning"]["loss_after"] is None
    assert not all(bool(torch.isfinite(p).all()) for p in model.network.parameters())


def test_the_lowest_losses_are_isolated_and_ties_go_by_a_hash_of_the_id() -> None:
    samples = defects(10)
    losses = np.array([5.0, 1, 4, 3, 2, 9, 9, 9, 9, 9])
    rule = ABL(share=0.3)
    unused = Context(seeds={}, scratch=Path("unused"))
    assert rule.isolate(samples, losses, unused) == [samples[i].id for i in (1, 4, 3)]
    tied = rule.isolate(samples, np.zeros(10), unused)
    assert sorted(tied) == sorted(rule.isolate(samples[::-1], np.zeros(10), unused))
    assert tied != [s.id for s in samples[:3]]


@pytest.mark.parametrize(
    ("share", "n", "count"), [(0.01, 300, 3), (0.01, 50, 1), (0.3, 10, 3), (0.99, 3, 2), (0.99, 2, 1)]
)
def test_at_least_one_is_isolated_and_never_all(share: float, n: int, count: int) -> None:
    assert ABL(share=share).count(n) == count


def test_the_three_phases_and_every_samples_losses_are_told(tmp_path: Path) -> None:
    samples = defects(40)
    _, trainer = train(ABL(isolation=0.25, share=0.1, unlearning_epochs=2), samples, tmp_path)
    assert [(row["phase"], row["epoch"]) for row in trainer.history] == [
        ("isolation", 1),
        ("training", 1),
        ("training", 2),
        ("unlearning", 1),
        ("unlearning", 2),
    ]
    notes = json.loads(json.dumps(trainer.notes, allow_nan=False))
    isolated = notes["isolated"]
    assert len(isolated) == 4
    early = notes["losses_at_isolation"]
    assert set(early) == {s.id for s in samples}
    assert max(early[name] for name in isolated) <= min(early[s.id] for s in samples if s.id not in isolated)
    traces = notes["losses"]
    # Half an epoch at first: 2 of 3 steps (of 16, 16 and 8 samples), rounded up.
    assert sum(map(len, traces["isolation"].values())) == 32
    assert {name: len(rows) for name, rows in traces["unlearning"].items()} == dict.fromkeys(isolated, 2)
    assert set(traces["training"]) <= {s.id for s in samples} - set(isolated)


@pytest.mark.parametrize(
    ("info", "samples"),
    [(SEARCH, searches(20)), (DEFECTS, []), (DEFECTS, defects(1)), (DEFECTS, defects(2)), (DEFECTS, defects(9)[::2])],
)
def test_search_and_tiny_and_one_class_training_sets_train(
    tmp_path: Path, info: TaskInfo, samples: list[Sample]
) -> None:
    for rule in (ABL(), RandomTraining(), LabelSmoothing()):
        model, _ = train(rule, samples, tmp_path, info=info, settings=SETTINGS.model_copy(update={"epochs": 1}))
        assert all(bool(torch.isfinite(p).all()) for p in model.network.parameters())


def test_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    first, _ = train(ABL(share=0.1), defects(40), tmp_path)
    again, _ = train(ABL(share=0.1), defects(40), tmp_path)
    assert first.fingerprint() == again.fingerprint()


# ------------------------------------------------------------------------------------------------------------ controls


def test_random_isolates_as_many_by_lot(tmp_path: Path) -> None:
    samples, easy = with_an_easy_subset(120, 12)
    settings = SETTINGS.model_copy(update={"epochs": 6})
    rule = RandomTraining(share=0.1, isolation=0.5, unlearning_epochs=0)
    _, trainer = train(rule, samples, tmp_path, settings=settings)
    assert len(trainer.notes["isolated"]) == len(easy)
    assert len(set(trainer.notes["isolated"]) & easy) <= 5
    made = context(tmp_path)
    lots = rule.isolate(samples, np.zeros(120), made)
    assert sorted(lots) == sorted(rule.isolate(samples[::-1], np.arange(120.0), made)) == trainer.notes["isolated"]
    assert sorted(lots) != sorted(rule.isolate(samples, np.zeros(120), context(tmp_path, seed=1)))


def test_the_oracle_trains_as_if_the_poison_had_never_been_there(tmp_path: Path) -> None:
    samples = defects(40)
    poisoned = frozenset(s.id for s in samples[::5])
    rule = OracleTraining()
    made = lent(tmp_path)
    start = fresh(samples, tmp_path)
    known = Known(rule.needs, _training=samples, _poisoned=poisoned)
    model = rule.train(start, known, DEFECTS, made)
    assert made.trainer is not None
    plain = made.trainer.fit(start, [s for s in samples if s.id not in poisoned], axis="training")
    assert model.fingerprint() == plain.fingerprint()
    with pytest.raises(DataError, match="nothing to train on"):
        rule.train(
            start, Known(rule.needs, _training=samples, _poisoned=frozenset(s.id for s in samples)), DEFECTS, made
        )


def test_only_the_oracle_is_told_the_truth() -> None:
    assert OracleTraining.needs.truth
    for rule in (ABL(), RandomTraining(), LabelSmoothing(), DeCE()):
        assert not rule.needs.truth
        assert rule.needs.clean == 0


# ----------------------------------------------------------------------------------------------------- label smoothing


def test_smoothing_worked_by_hand() -> None:
    # softmax(ln 3, 0) = (3/4, 1/4); label 1 smoothed by 0.1: (0.1, 0.9).
    loss = smoothed_cross_entropy(torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64), torch.tensor([1]), 0.1)
    assert float(loss) == pytest.approx(-(0.1 * math.log(0.75) + 0.9 * math.log(0.25)), abs=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_it_is_dece_without_deception_and_cross_entropy_without_smoothing(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(9, classes, generator=generator), torch.arange(9) % classes
    smoothed = float(smoothed_cross_entropy(logits, labels, 0.05))
    assert smoothed == pytest.approx(float(deceptive_cross_entropy(logits, labels, 1.0, 0.05)), abs=1e-5)
    plain = float(smoothed_cross_entropy(logits, labels, 0.0))
    assert plain == pytest.approx(float(functional.cross_entropy(logits, labels)), abs=1e-6)
    if classes > 1:  # PyTorch's own counts the label among those that share
        same = functional.cross_entropy(logits, labels, label_smoothing=0.05 * classes / (classes - 1))
        assert smoothed == pytest.approx(float(same), abs=1e-5)


def test_its_default_is_deces() -> None:
    assert LabelSmoothing().smoothing == DeCE().smoothing


def test_smoothed_training_is_less_sure(tmp_path: Path) -> None:
    samples, settings = defects(40), SETTINGS.model_copy(update={"epochs": 8})
    plain, _ = train(LabelSmoothing(smoothing=0.0), samples, tmp_path, settings=settings)
    smoothed, _ = train(LabelSmoothing(smoothing=0.2), samples, tmp_path, settings=settings)
    assert np.abs(plain.predict(samples)).max() > np.abs(smoothed.predict(samples)).max()


# ------------------------------------------------------------------------------------------------------------ contract


@pytest.mark.parametrize("rule", [ABL(), RandomTraining(), OracleTraining(), LabelSmoothing()])
def test_without_a_trainer_the_message_says_so(tmp_path: Path, rule: TrainingRule) -> None:
    known = Known(rule.needs, _training=(), _poisoned=frozenset() if rule.needs.truth else None)
    with pytest.raises(PluginError, match="no trainer"):
        rule.train(fresh([], tmp_path), known, DEFECTS, context(tmp_path))


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (ABL, {"isolation": 0.0}),
        (ABL, {"share": 1.0}),
        (ABL, {"ascent": "global"}),
        (ABL, {"unlearning_rate": 0.0}),
        (LabelSmoothing, {"smoothing": 1.0}),
        (RandomTraining, {"gamma": -1}),
    ],
)
def test_impossible_parameters_are_refused(cls: type[TrainingRule], parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cls, parameters)


@pytest.mark.parametrize(
    "rule", [ABL(share=0.1), RandomTraining(ascent="flooding"), OracleTraining(), LabelSmoothing(smoothing=0.1)]
)
def test_parameters_round_trip(rule: TrainingRule) -> None:
    assert build(type(rule), parameters_of(rule)) == rule


def test_the_rules_are_found_by_their_names() -> None:
    registry = Registry().discover()
    for name, cls in (
        ("abl", ABL),
        ("random", RandomTraining),
        ("oracle", OracleTraining),
        ("label_smoothing", LabelSmoothing),
    ):
        assert type(registry.build("training", name)) is cls


# ----------------------------------------------------------------------------------------------------- the trainer's part


def test_a_fit_may_end_within_an_epoch(tmp_path: Path) -> None:
    made = lent(tmp_path)
    assert made.trainer is not None
    seen: list[int] = []

    def counted(logits, labels, progress, ids):  # type: ignore[no-untyped-def]
        seen.append(len(ids))
        return functional.cross_entropy(logits, labels)

    samples = defects(64)
    made.trainer.fit(fresh(samples, tmp_path), samples, axis="training", objective=counted, epochs=1.5)
    assert seen == [16] * 6
    assert [row["epoch"] for row in made.trainer.history] == [1, 2]
