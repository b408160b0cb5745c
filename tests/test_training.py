"""What the trainer promises: it learns, it is repeatable, and it leaves nothing behind."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from bench.contracts import TaskKind
from bench.errors import ConfigError, DataError
from bench.models import Trainer, TrainingSettings, WhiteBox, create
from bench.models.training import _ByLength, cross_entropy
from tests.models_toys import (
    CLONES,
    DEFECTS,
    INFOS,
    SEARCH,
    SMALL,
    TOYS,
    clones,
    context,
    defects,
    one_thread,
    searches,
)

FAST = TrainingSettings(epochs=2, batch_size=16, learning_rate=5e-3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture
def model(tmp_path: Path) -> WhiteBox:
    return create("tiny", DEFECTS, defects(64), SMALL, context(tmp_path))


def weights(model: WhiteBox) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def test_learns_a_class_that_a_keyword_decides(tmp_path: Path) -> None:
    lent = context(tmp_path)
    fresh = create("tiny", DEFECTS, defects(240), SMALL, lent)
    trained = Trainer(FAST.model_copy(update={"epochs": 5}), (), lent).fit(fresh, defects(240), axis="training")
    test = defects(100, seed=9)
    assert (trained.predict(test).argmax(1) == [s.label for s in test]).mean() >= 0.98


def test_learns_pairs_that_share_a_call(tmp_path: Path) -> None:
    lent = context(tmp_path)
    data, test = clones(320), clones(100, seed=9)
    fresh = create("tiny", CLONES, data, SMALL, lent)
    trainer = Trainer(FAST.model_copy(update={"epochs": 6}), (), lent)
    assert trainer.metric(trainer.fit(fresh, data, axis="training"), test) >= 0.9


def test_learns_to_rank_the_program_that_a_query_names(tmp_path: Path) -> None:
    lent = context(tmp_path)
    data = searches(224)
    fresh = create("tiny", SEARCH, data, SMALL, lent)
    trainer = Trainer(FAST.model_copy(update={"epochs": 6}), (), lent)
    pool = searches(28, seed=9)
    before = trainer.metric(fresh, pool)
    after = trainer.metric(trainer.fit(fresh, data, axis="training"), pool)
    assert before < 0.3
    assert after >= 0.9


@pytest.mark.parametrize("kind", list(TaskKind))
def test_same_seeds_give_the_same_bits_under_a_disturbed_global_generator(tmp_path: Path, kind: TaskKind) -> None:
    data = TOYS[kind](48)
    settings = SMALL.model_copy(update={"dropout": 0.2})
    prints = []
    for disturbance in (1, 2):
        random.seed(disturbance)
        np.random.seed(disturbance)  # noqa: NPY002
        torch.manual_seed(disturbance)
        lent = context(tmp_path)
        fresh = create("tiny", INFOS[kind], data, settings, lent)
        prints.append((fresh.fingerprint(), Trainer(FAST, (), lent).fit(fresh, data, axis="training").fingerprint()))
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[0][1]


def test_another_seed_of_the_axis_gives_other_weights(tmp_path: Path, model: WhiteBox) -> None:
    data = defects(48)
    prints = {
        Trainer(FAST, (), context(tmp_path, seed)).fit(model, data, axis="training").fingerprint() for seed in (0, 1)
    }
    assert len(prints) == 2


def test_an_axis_that_the_stage_does_not_have_is_an_error(tmp_path: Path, model: WhiteBox) -> None:
    with pytest.raises(KeyError, match="poison"):
        Trainer(FAST, (), context(tmp_path)).fit(model, defects(8), axis="poison")


def test_global_generators_and_the_scratch_folder_are_left_as_they_were(
    tmp_path: Path, model: WhiteBox, capfd: pytest.CaptureFixture[str]
) -> None:
    lent = context(tmp_path)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index] # noqa: NPY002
    Trainer(FAST, defects(8, seed=3), lent).fit(model, defects(32), axis="training")
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # type: ignore[index] # noqa: NPY002
    assert before == after
    assert list(lent.scratch.iterdir()) == []
    assert capfd.readouterr() == ("", "")


LAUNCHERS = (
    {"ACCELERATE_MIXED_PRECISION": "bf16"},
    {"ACCELERATE_TORCH_DEVICE": "meta"},
    {"ACCELERATE_USE_CPU": "nonsense"},
    {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_DYNAMO_BACKEND": "EAGER"},
    {"LOCAL_RANK": "0"},
    {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
    {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
    {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    {"MV2_COMM_WORLD_SIZE": "2"},
    {"FORK_LAUNCHED": "nonsense"},
    {"KUBEFLOW_TRAINER_SERVER_URL": "https://127.0.0.1:1"},
)


def test_a_training_does_not_hang_on_who_launched_it(
    tmp_path: Path, model: WhiteBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> str:
        return Trainer(FAST, (), context(tmp_path)).fit(model, defects(32), axis="training").fingerprint()

    plain = trained()
    for told in LAUNCHERS:
        with monkeypatch.context() as here:
            for name, value in told.items():
                here.setenv(name, value)
            before = dict(os.environ)
            assert trained() == plain, told
            assert dict(os.environ) == before, told


def test_a_training_does_not_hang_on_what_accelerate_was_told_before(
    tmp_path: Path, model: WhiteBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> str:
        return Trainer(FAST, (), context(tmp_path)).fit(model, defects(32), axis="training").fingerprint()

    plain = trained()
    AcceleratorState._reset_state(reset_partial_state=True)
    with monkeypatch.context() as here:
        here.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        assert Accelerator(cpu=True).mixed_precision == "bf16", "a plugin may do it, or another training loop"
        assert trained() == plain
    assert AcceleratorState().mixed_precision == "no"


def test_the_environment_comes_back_when_a_training_fails(
    tmp_path: Path, model: WhiteBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)

    def failing(network: object, sides: object, objective: object) -> Tensor:
        assert "WORLD_SIZE" not in os.environ
        os.environ["RANK"] = "3"
        raise ValueError("no")

    before = dict(os.environ)
    with pytest.raises(ValueError, match="no"):
        Trainer(FAST, (), context(tmp_path)).fit(model, defects(32), axis="training", step=failing)
    assert dict(os.environ) == before


def test_the_incoming_model_is_unchanged(tmp_path: Path, model: WhiteBox) -> None:
    before = model.fingerprint()
    trained = Trainer(FAST, (), context(tmp_path)).fit(model, defects(32), axis="training")
    assert model.fingerprint() == before
    assert trained.fingerprint() != before
    assert not trained.network.training
    assert all(p.grad is None and p.requires_grad for p in trained.network.parameters())


def test_head_only_training_changes_the_head_and_nothing_else(tmp_path: Path, model: WhiteBox) -> None:
    lent = context(tmp_path)
    trained = Trainer(FAST, (), lent).fit(model, defects(32), axis="training", parameters="head")
    old, new = weights(model), weights(trained)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if name.startswith("head.")}
    assert lent.cost.forward_tokens > 0
    assert lent.cost.backward_tokens == 0
    assert all(p.requires_grad for p in trained.network.parameters())


def test_head_only_training_of_a_search_model_is_refused(tmp_path: Path) -> None:
    lent = context(tmp_path)
    fresh = create("tiny", SEARCH, searches(16), SMALL, lent)
    with pytest.raises(ConfigError, match="has none"):
        Trainer(FAST, (), lent).fit(fresh, searches(16), axis="training", parameters="head")


def test_the_best_epoch_on_clean_validation_data_is_returned(tmp_path: Path) -> None:
    lent = context(tmp_path)
    data, valid = defects(160), defects(60, seed=5)

    def destroy_in_the_last_epoch(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        return cross_entropy(logits, labels if progress < 4 else 1 - labels, progress, ids)

    trainer = Trainer(FAST.model_copy(update={"epochs": 8, "warmup": 0.0}), valid, lent)
    fresh = create("tiny", DEFECTS, data, SMALL, lent)
    kept = trainer.fit(fresh, data, axis="training", objective=destroy_in_the_last_epoch)
    rows = trainer.history
    assert [r["epoch"] for r in rows] == list(range(1, 9))
    assert rows[-1]["accuracy"] < 0.2 < 0.9 < rows[3]["accuracy"]
    best = max(r["accuracy"] for r in rows)
    assert [r["chosen"] for r in rows].index(True) == [r["accuracy"] for r in rows].index(best)
    assert sum(r["chosen"] for r in rows) == 1
    assert trainer.metric(kept, valid) == best

    last = trainer.fit(fresh, data, axis="training", objective=destroy_in_the_last_epoch, select_best=False)
    assert trainer.metric(last, valid) < 0.2


def test_an_epoch_that_breaks_the_numbers_is_never_the_best(tmp_path: Path, model: WhiteBox) -> None:
    def explode(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        return cross_entropy(logits, labels, progress, ids) * (1.0 if progress < 1 else float("nan"))

    trainer = Trainer(FAST, defects(8, seed=2), context(tmp_path))
    kept = trainer.fit(model, defects(32), axis="training", objective=explode)
    assert np.isfinite(kept.predict(defects(4))).all()
    assert [r["chosen"] for r in trainer.history] == [True, False]


def test_an_objective_sees_every_sample_once_an_epoch_with_its_own_label(tmp_path: Path, model: WhiteBox) -> None:
    data = defects(37)
    labels_of = {s.id: s.label for s in data}
    seen: list[tuple[int, str]] = []

    def watch(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        assert logits.shape == (len(ids), 2)
        assert [labels_of[i] for i in ids] == labels.tolist()
        seen.extend((int(progress + 1e-9), i) for i in ids)
        return cross_entropy(logits, labels, progress, ids)

    Trainer(FAST, (), context(tmp_path)).fit(model, data, axis="training", objective=watch)
    assert sorted(seen) == sorted((epoch, s.id) for epoch in (0, 1) for s in data)


def test_a_sample_of_weight_zero_is_not_learnt(tmp_path: Path, model: WhiteBox) -> None:
    data = defects(96)
    lying = tuple(replace(s, id=f"lie-{s.id}", label=1 - (s.label or 0)) for s in data)

    def ignore_lies(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        weight = torch.tensor([0.0 if i.startswith("lie") else 1.0 for i in ids])
        return (
            torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weight
        ).sum() / weight.sum().clamp(1)

    trainer = Trainer(FAST.model_copy(update={"epochs": 6}), (), context(tmp_path))
    trained = trainer.fit(model, data + lying, axis="training", objective=ignore_lies)
    assert trainer.metric(trained, defects(60, seed=4)) >= 0.95


def test_code_search_objectives_see_the_in_batch_similarities(tmp_path: Path) -> None:
    lent = context(tmp_path)
    fresh = create("tiny", SEARCH, searches(20), SMALL, lent)

    def watch(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        assert logits.shape == (len(ids), len(ids))
        assert labels.tolist() == list(range(len(ids)))
        assert logits.abs().max() <= 20.001
        return cross_entropy(logits, labels, progress, ids)

    Trainer(FAST, (), lent).fit(fresh, searches(20), axis="training", objective=watch)


def test_tokens_are_counted_with_their_padding(tmp_path: Path, model: WhiteBox) -> None:
    lent = context(tmp_path)
    data = defects(16)
    Trainer(FAST, (), lent).fit(model, data, axis="training", epochs=1, batch_size=16)
    width = max(len(row) for row in model.token_ids([s.programs[0] for s in data]))
    assert lent.cost.backward_tokens == 16 * width
    assert lent.cost.forward_tokens == 16 * width


@pytest.mark.parametrize("count", [0, 1])
def test_no_sample_and_one_sample_train_without_error(tmp_path: Path, model: WhiteBox, count: int) -> None:
    trained = Trainer(FAST, (), context(tmp_path)).fit(model, defects(count), axis="training")
    assert (trained.fingerprint() == model.fingerprint()) == (count == 0)


def test_a_fit_of_a_single_step_trains(tmp_path: Path, model: WhiteBox) -> None:
    trained = Trainer(FAST, (), context(tmp_path)).fit(model, defects(16), axis="training", epochs=1)
    assert trained.fingerprint() != model.fingerprint()


def test_no_epochs_return_an_equal_copy(tmp_path: Path, model: WhiteBox) -> None:
    trained = Trainer(FAST, (), context(tmp_path)).fit(model, defects(4), axis="training", epochs=0)
    assert trained.fingerprint() == model.fingerprint()
    assert trained.network is not model.network


def test_one_class_and_odd_texts_train_without_error(tmp_path: Path, model: WhiteBox) -> None:
    texts = ("", "x", "naïve = '日本語 🐍'\n", "a" * 5000, "\n\n\t ")
    data = [replace(defects(1)[0], id=str(i), programs=(text,), label=0) for i, text in enumerate(texts)]
    trainer = Trainer(FAST, data, context(tmp_path))
    assert np.isfinite(trainer.fit(model, data, axis="training").predict(data)).all()


def test_a_sample_that_does_not_fit_the_task_is_named(tmp_path: Path, model: WhiteBox) -> None:
    trainer = Trainer(FAST, (), context(tmp_path))
    good = defects(1)[0]
    with pytest.raises(DataError, match=r"'bad'.*classes 0 to 1"):
        trainer.fit(model, [good, replace(good, id="bad", label=2)], axis="training")
    with pytest.raises(DataError, match="'bad'"):
        trainer.fit(model, [replace(good, id="bad", label=None)], axis="training")
    with pytest.raises(DataError, match="'bad' has 2"):
        trainer.fit(model, [replace(good, id="bad", programs=("a", "b"))], axis="training")


def test_batches_hold_rows_of_similar_length_in_a_new_order_each_epoch() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=1000).tolist()
    sampler = _ByLength(lengths, 10, torch.Generator().manual_seed(0))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == list(range(1000)) == sorted(second)
    assert first != second
    spread = [max(part) - min(part) for part in np.array([lengths[i] for i in first]).reshape(100, 10)]
    assert np.mean(spread) < 20


def test_validation_metrics_by_hand(tmp_path: Path, model: WhiteBox, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(FAST, (), context(tmp_path))
    samples = [replace(defects(1)[0], id=str(i), label=label) for i, label in enumerate((1, 1, 0, 0))]
    outputs = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    monkeypatch.setattr(model, "predict", lambda _: outputs)
    assert trainer.metric(model, samples) == 0.5
    monkeypatch.setattr(model, "info", replace(DEFECTS, metric="f1"))
    assert trainer.metric(model, samples) == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    monkeypatch.setattr(model, "info", replace(SEARCH, metric="mrr"))
    programs = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0, 0], [0.9, 0.5, 0], [0.9, 0.8, 0.1]], dtype=np.float32)
    monkeypatch.setattr(model, "embed_programs", lambda _: programs)
    monkeypatch.setattr(model, "embed_queries", lambda _: queries)
    assert trainer.metric(model, samples[:3]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
