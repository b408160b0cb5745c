"""DeCE: the loss by hand, its limits, and a victim trained with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench.context import Context
from bench.contracts import Known, TaskInfo, TaskKind
from bench.errors import ConfigError, PluginError
from bench.models import ModelSettings, Trainer, TrainingSettings, WhiteBox, create
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.training.dece import DeCE, deceptive_cross_entropy

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
SEARCH = TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr")
TINY = ModelSettings(window=16, layers=1, hidden=16, heads=2, vocabulary=300, dropout=0.0)
SEEDS = {"data": 0, "model": 0, "training": 0, "defense": 0}


def test_the_loss_of_two_classes_worked_by_hand() -> None:
    # softmax(ln 3, 0) = (3/4, 1/4); label 1 smoothed by 0.1: (0.1, 0.9); alpha 0.5: p' = (0.425, 0.575).
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    loss = deceptive_cross_entropy(logits, torch.tensor([1]), alpha=0.5, smoothing=0.1)
    assert float(loss) == pytest.approx(-(0.1 * math.log(0.425) + 0.9 * math.log(0.575)), abs=1e-12)


def test_the_loss_of_four_classes_worked_by_hand() -> None:
    # softmax(0, 0, 0, 0) = 1/4 each; smoothing 0.3 leaves 0.7 on the label and 0.1 on each other; alpha 0.8.
    loss = deceptive_cross_entropy(torch.zeros(2, 4, dtype=torch.float64), torch.tensor([0, 3]), 0.8, 0.3)
    label, other = 0.8 * 0.25 + 0.2 * 0.7, 0.8 * 0.25 + 0.2 * 0.1
    assert float(loss) == pytest.approx(-(0.7 * math.log(label) + 0.3 * math.log(other)), abs=1e-12)


def test_alpha_one_without_smoothing_is_cross_entropy() -> None:
    logits, labels = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5
    assert float(deceptive_cross_entropy(logits, labels, 1.0, 0.0)) == pytest.approx(
        float(functional.cross_entropy(logits, labels)), rel=1e-5
    )


def test_alpha_one_is_label_smoothing() -> None:
    # torch spreads its smoothing over all classes, DeCE over the others: eps over K - 1 others is eps * K / (K - 1) of torch's.
    logits, labels = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 5
    expected = float(functional.cross_entropy(logits, labels, label_smoothing=0.05 * 5 / 4))
    assert float(deceptive_cross_entropy(logits, labels, 1.0, 0.05)) == pytest.approx(expected, rel=1e-5)


def gradient(logits: torch.Tensor, labels: list[int], alpha: float, smoothing: float) -> torch.Tensor:
    logits.requires_grad_(True)
    loss = deceptive_cross_entropy(logits, torch.tensor(labels), alpha, smoothing)
    return torch.autograd.grad(loss, logits)[0]


def test_alpha_zero_has_nothing_to_learn() -> None:
    assert not gradient(torch.randn(4, 3), [0, 1, 2, 0], 0.0, 0.05).any()


def test_a_lower_alpha_pulls_less_at_a_sample_the_model_contradicts() -> None:
    pulls = [float(gradient(torch.tensor([[4.0, -4.0]]), [1], alpha, 0.05).abs().sum()) for alpha in (1.0, 0.9, 0.5)]
    assert pulls[0] > 10 * pulls[1]
    assert pulls[1] > pulls[2]


@pytest.mark.parametrize("smoothing", [0.0, 0.05])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("logits", [[1e4, -1e4], [-1e4, 1e4], [3.0]])
def test_extreme_logits_and_a_lone_class_stay_finite(smoothing: float, alpha: float, logits: list[float]) -> None:
    assert torch.isfinite(deceptive_cross_entropy(torch.tensor([logits]), torch.tensor([0]), alpha, smoothing))
    assert torch.isfinite(gradient(torch.tensor([logits]), [0], alpha, smoothing)).all()


def test_a_batch_of_one_query_in_code_search_costs_nothing() -> None:
    assert float(deceptive_cross_entropy(torch.tensor([[7.0]]), torch.tensor([0]), 0.9, 0.05)) == 0.0


@pytest.mark.parametrize(
    ("progress", "epoch"), [(0.0, 1), (0.5, 1), (0.999, 1), (1.0, 2), (2.9999999, 3 + 1), (3.2, 4)]
)
def test_alpha_falls_by_whole_epochs_counted_from_one(progress: float, epoch: int) -> None:
    assert DeCE().alpha(progress) == pytest.approx(0.985**epoch)


def toy(search: bool = False, n: int = 32) -> list[Sample]:
    """Label 1 where the program says ``w``; in search the query names the program's number."""
    return [
        Sample(
            f"s{i}",
            (f"{'wwww' if i % 2 else 'ssss'}({i // 2})",),
            "python",
            None if search else i % 2,
            f"number {i}" if search else None,
        )
        for i in range(n)
    ]


def trained(
    info: TaskInfo, samples: list[Sample], folder: Path, rule: DeCE, epochs: int = 3
) -> tuple[WhiteBox, WhiteBox]:
    context = Context(seeds=SEEDS, scratch=folder)
    context.trainer = Trainer(TrainingSettings(epochs=epochs, batch_size=8, learning_rate=5e-3), (), context)
    fresh = create("tiny", info, samples or toy(), TINY, context)
    known = Known(rule.needs, _training=tuple(samples))
    return fresh, rule.train(fresh, known, info, context)


def test_a_victim_trained_with_it_learns_the_task_and_leaves_the_fresh_model_alone(tmp_path: Path) -> None:
    samples = toy()
    fresh, model = trained(INFO, samples, tmp_path, DeCE(), epochs=8)
    again, same = trained(INFO, samples, tmp_path, DeCE(), epochs=8)
    assert (model.predict(samples).argmax(axis=1) == np.arange(32) % 2).mean() == 1.0
    assert model.fingerprint() == same.fingerprint()
    assert fresh.fingerprint() == again.fingerprint() != model.fingerprint()


def test_it_learns_otherwise_than_cross_entropy(tmp_path: Path) -> None:
    _, plain = trained(INFO, toy(), tmp_path, DeCE(alpha_base=1.0, smoothing=0.0))
    _, smoothed = trained(INFO, toy(), tmp_path, DeCE(alpha_base=0.9))
    assert np.abs(plain.predict(toy())).max() > np.abs(smoothed.predict(toy())).max()


@pytest.mark.parametrize(
    ("info", "samples"), [(SEARCH, toy(search=True, n=20)), (INFO, []), (INFO, toy(n=1)), (INFO, toy(n=9)[::2])]
)
def test_search_and_tiny_and_one_class_training_sets_train(
    tmp_path: Path, info: TaskInfo, samples: list[Sample]
) -> None:
    _, model = trained(info, samples, tmp_path, DeCE(), epochs=1)
    assert all(bool(torch.isfinite(p).all()) for p in model.network.parameters())


def test_without_a_trainer_the_message_says_so(tmp_path: Path) -> None:
    context = Context(seeds=SEEDS, scratch=tmp_path)
    model = create("tiny", INFO, toy(), TINY, context)
    with pytest.raises(PluginError, match="no trainer"):
        DeCE().train(model, Known(DeCE.needs, _training=()), INFO, context)


@pytest.mark.parametrize("parameters", [{"alpha_base": 0}, {"alpha_base": 1.1}, {"smoothing": 1.0}, {"alpha": 0.9}])
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(DeCE, parameters)


def test_parameters_round_trip() -> None:
    assert build(DeCE, parameters_of(DeCE(alpha_base=0.9))) == DeCE(alpha_base=0.9)
