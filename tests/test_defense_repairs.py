"""Fine-tuning forgets what clean samples contradict, noise is as large as stated, and the model that came in is unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.contracts import Known, Repair, Repaired, TaskInfo, TaskKind
from bench.errors import ConfigError, ModelError, PluginError
from bench.models import ModelSettings, Trainer, TrainingSettings, WhiteBox, create
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.repair.fine_tuning import FineTuning
from defenses.repair.random import RandomRepair

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
TINY = ModelSettings(window=16, layers=1, hidden=16, heads=2, vocabulary=300, dropout=0.0)


def toy(flip: bool = False, n: int = 32) -> tuple[Sample, ...]:
    """Label 1 where the program says ``w``; flipped, where it says ``s``."""
    return tuple(
        Sample(f"s{i}", (f"{'wwww' if (i + flip) % 2 else 'ssss'}({i // 2})",), "python", i % 2) for i in range(n)
    )


def make(folder: Path, seed: int = 0) -> Context:
    context = Context(seeds={"model": 0, "training": 0, "defense": seed}, scratch=folder)
    settings = TrainingSettings(epochs=12, batch_size=4, learning_rate=5e-3)
    # Validation data that contradicts the clean set: a repair that let it choose the checkpoint would be seen.
    context.trainer = Trainer(settings, toy(flip=True), context)
    return context


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> WhiteBox:
    """Has learnt the flipped rule."""
    context = make(tmp_path_factory.mktemp("victim"))
    assert context.trainer is not None
    return context.trainer.fit(create("tiny", INFO, toy(), TINY, context), toy(flip=True), axis="training")


def repaired(plugin: Repair, victim: WhiteBox, context: Context, clean: tuple[Sample, ...] = toy()) -> Repaired:
    known = Known(plugin.needs, _clean=clean if plugin.needs.clean else None, _model=victim)
    return plugin.repair(known, INFO, context)


def accuracy(model: WhiteBox, samples: tuple[Sample, ...]) -> float:
    return float((model.predict(samples).argmax(axis=1) == [s.label for s in samples]).mean())


def test_fine_tuning_unlearns_what_the_clean_samples_contradict(victim: WhiteBox, tmp_path: Path) -> None:
    before = victim.fingerprint()
    result = repaired(FineTuning(epochs=12), victim, make(tmp_path))
    assert accuracy(victim, toy()) < 0.1 < 0.9 < accuracy(result.model, toy())
    assert victim.fingerprint() == before
    history = result.facts["history"]
    assert isinstance(history, list)
    assert [row["epoch"] for row in history] == list(range(1, 13))


def test_fine_tuning_depends_on_the_defense_seed_alone(victim: WhiteBox, tmp_path: Path) -> None:
    prints = [repaired(FineTuning(epochs=1), victim, make(tmp_path, seed)).model.fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(("clean", "epochs"), [((), 3), (toy(), 0)])
def test_nothing_to_learn_from_gives_an_equal_copy(
    victim: WhiteBox, tmp_path: Path, clean: tuple[Sample, ...], epochs: int
) -> None:
    model = repaired(FineTuning(epochs=epochs), victim, make(tmp_path), clean).model
    assert model is not victim
    assert model.fingerprint() == victim.fingerprint()


@pytest.mark.parametrize("clean", [toy(n=1), toy(n=2), toy()[::2]])
def test_few_clean_samples_or_one_class_of_them_will_do(
    victim: WhiteBox, tmp_path: Path, clean: tuple[Sample, ...]
) -> None:
    model = repaired(FineTuning(epochs=1, batch_size=4), victim, make(tmp_path), clean).model
    assert np.isfinite(model.predict(toy())).all()


def test_fine_tuning_says_how_many_clean_samples_it_needs() -> None:
    assert FineTuning(clean=17).needs.clean == 17


def test_fine_tuning_without_a_trainer_says_so(victim: WhiteBox, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no trainer"):
        repaired(FineTuning(), victim, Context(seeds={"defense": 0}, scratch=tmp_path))


def test_random_noise_has_the_stated_size_and_spares_vectors(victim: WhiteBox, tmp_path: Path) -> None:
    before = victim.fingerprint()
    model = repaired(RandomRepair(relative=0.1), victim, make(tmp_path)).model
    old = {name: weight.detach() for name, weight in victim.network.named_parameters()}
    shares = []
    for name, new in model.network.named_parameters():
        difference = new.detach() - old[name]
        if new.ndim < 2:
            assert not difference.any()
        else:
            shares.append(float(difference.norm() / old[name].norm()))
    assert min(shares) > 0
    assert np.mean(shares) == pytest.approx(0.1, rel=0.1)
    assert victim.fingerprint() == before


def test_random_noise_is_seeded_and_leaves_the_global_generator_alone(victim: WhiteBox, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    prints = [repaired(RandomRepair(), victim, make(tmp_path, seed)).model.fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    assert torch.equal(state, torch.get_rng_state())


def test_noise_on_weights_that_are_no_numbers_is_refused_like_any_repair(victim: WhiteBox, tmp_path: Path) -> None:
    broken = victim.copy()
    with torch.no_grad():
        broken.network.embedding.weight[0, 0] = float("nan")
    for plugin in (RandomRepair(), FineTuning(epochs=0)):
        with pytest.raises(ModelError, match=rf"{plugin.name}: weights 'encoder.*' of model 'tiny' are not finite"):
            repaired(plugin, broken, make(tmp_path))


def test_noise_too_large_for_the_number_format_is_refused(victim: WhiteBox, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"random: weights .* are not finite"):
        repaired(RandomRepair(relative=1e39), victim, make(tmp_path))


def test_no_noise_is_no_change(victim: WhiteBox, tmp_path: Path) -> None:
    model = repaired(RandomRepair(relative=0.0), victim, make(tmp_path)).model
    assert model.fingerprint() == victim.fingerprint()


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (FineTuning, {"clean": 0}),
        (FineTuning, {"learning_rate": 0}),
        (FineTuning, {"epoch": 3}),
        (RandomRepair, {"relative": -1}),
    ],
)
def test_impossible_parameters_are_refused(cls: type[Repair], parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cls, parameters)


@pytest.mark.parametrize("plugin", [FineTuning(clean=5, learning_rate=1e-4), RandomRepair(relative=0.3)])
def test_parameters_round_trip(plugin: Repair) -> None:
    assert build(type(plugin), parameters_of(plugin)) == plugin
