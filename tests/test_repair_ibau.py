"""I-BAU: the hypergradient agrees with finite differences, the perturbation stands where it says, and unlearning lowers its harm."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.context import Context
from bench.contracts import Known, TaskInfo, TaskKind
from bench.errors import ConfigError, DataError, ModelError, PluginError
from bench.models import Trainer, TrainingSettings, WhiteBox, create
from bench.models.tokens import pad
from bench.models.training import Batch
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.repair.ibau import IBAU, Harm, Places, drawn_places, hypergradient, unit_of, with_perturbation
from tests.models_toys import CLONES, DEFECTS, INFOS, SMALL, TOYS, clones, defects, one_thread, searches
from tests.test_inversion_families import FAMILIES, folders, opened

__all__ = ["folders"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3, "model": 0, "training": 0}, tmp_path)
    made.trainer = Trainer(TrainingSettings(learning_rate=1e-3, batch_size=8, epochs=20), (), made)
    return made


def repaired(
    plugin: IBAU, model: WhiteBox, context: Context, clean: tuple[Sample, ...], info: TaskInfo = DEFECTS
) -> WhiteBox:
    return plugin.repair(Known(plugin.needs, _clean=clean, _model=model), info, context).model


def harm_of(model: WhiteBox, context: Context) -> Harm:
    assert context.trainer is not None
    return Harm(model, context.trainer, unit_of(model))


def whole_batch(model: WhiteBox, context: Context, rows: tuple[Sample, ...]) -> Batch:
    assert context.trainer is not None
    (batch,) = context.trainer.batches(model, rows, len(rows)).epoch(torch.Generator().manual_seed(0))
    return batch


# -------------------------------------------------------------------------------------------------------- hypergradient


def quadratic() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    return (
        mixed @ mixed.T / 8 + torch.eye(4, dtype=torch.float64),
        torch.randn(4, 3, generator=generator, dtype=torch.float64),
        torch.randn(4, generator=generator, dtype=torch.float64),
    )


def test_the_hypergradient_of_a_quadratic_is_the_analytic_one() -> None:
    hessian, cross, aim = quadratic()
    weights = torch.randn(3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)

    def inner(delta: Tensor) -> Tensor:
        return delta @ hessian @ delta / 2 - delta @ cross @ weights

    def outer(delta: Tensor) -> Tensor:
        return (delta - aim).square().sum() + weights.square().sum()

    best = torch.linalg.solve(hessian, cross @ weights.detach())
    # delta* = H^-1 C w, so that d/dw |delta* - a|^2 + |w|^2 = 2 C^T H^-1 (delta* - a) + 2 w.
    expected = 2 * cross.T @ torch.linalg.solve(hessian, best - aim) + 2 * weights.detach()
    value, (found,) = hypergradient(inner, outer, best, [weights], rounds=200, rate=0.3)
    assert value == pytest.approx(float((best - aim).square().sum() + weights.detach().square().sum()))
    torch.testing.assert_close(found, expected)
    # K iterations are the first K terms of the series.
    step = torch.eye(4, dtype=torch.float64) - 0.3 * hessian
    series = sum((torch.linalg.matrix_power(step, k) for k in range(5)), torch.zeros(4, 4, dtype=torch.float64))
    _, (five,) = hypergradient(inner, outer, best, [weights], rounds=5, rate=0.3)
    torch.testing.assert_close(five, 0.3 * cross.T @ series @ (2 * (best - aim)) + 2 * weights.detach())
    _, (none,) = hypergradient(inner, outer, best, [weights], rounds=0, rate=0.3)
    torch.testing.assert_close(none, 2 * weights.detach())


def test_parameters_that_a_loss_does_not_reach_get_zero() -> None:
    used, unused = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    _, gradients = hypergradient(
        lambda delta: delta.square().sum(),
        lambda delta: (delta * used).sum(),
        torch.ones(2, dtype=torch.float64),
        [used, unused],
        rounds=3,
        rate=0.1,
    )
    assert gradients[0].tolist() == [1.0, 1.0]
    assert gradients[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("family", ["roberta", "gpt2"])  # a T5's norms compute in float32, whatever the weights
@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_hypergradient_of_a_network_agrees_with_finite_differences(
    folders: dict[str, Path], family: str, kind: TaskKind, context: Context
) -> None:
    """With a penalty under which the inner problem has one solution, solved anew for every change of the weights."""
    model = opened(folders, family, INFOS[kind], context)
    model.network.double()
    with torch.no_grad():
        for parameter in model.network.parameters():
            if family == "roberta":
                parameter.mul_(3.0)  # fresh weights are so small that the loss hardly answers to a perturbation
    batch, rng = whole_batch(model, context, TOYS[kind](4)), np.random.default_rng(0)
    plugin, harm = IBAU(length=2, penalty=2.0), harm_of(model, context)
    inner = plugin.inner(harm, batch, drawn_places(batch, 2, 1.0, rng))
    outer = partial(harm, batch, drawn_places(batch, 2, 0.5, rng))
    weights = list(model.network.parameters())
    shape = (2, model.network.embedding.embedding_dim)

    def solved(start: Tensor) -> Tensor:
        delta = start
        for _ in range(200):
            leaf = delta.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(inner(leaf), leaf)
            delta = delta - 0.2 * slope
            if float(slope.norm()) < 1e-11:
                break
        return delta

    with sdpa_kernel(SDPBackend.MATH):
        best = solved(torch.zeros(shape, dtype=torch.float64))
        _, gradients = hypergradient(inner, outer, best, weights, rounds=60, rate=0.2)
        _, direct = hypergradient(inner, outer, best, weights, rounds=0, rate=0.2)
    generator, step = torch.Generator().manual_seed(0), 1e-4
    directions = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
    # A direction in which the indirect part matters: the gradient's own, with noise.
    directions = [g - d + 1e-3 * n for g, d, n in zip(gradients, direct, directions, strict=True)]
    length = math.sqrt(sum(float(d.square().sum()) for d in directions))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(sign * step / length * direction)
        values.append(float(outer(solved(best)).detach()))
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.sub_(sign * step / length * direction)
    difference = (values[0] - values[1]) / (2 * step)
    whole, part = (
        sum(float((g * d).sum()) for g, d in zip(gs, directions, strict=True)) / length for gs in (gradients, direct)
    )
    assert whole == pytest.approx(difference, rel=2e-2)
    assert abs(part - difference) > 5 * abs(whole - difference)  # without the implicit part it would not agree


# --------------------------------------------------------------------------------------------------------- perturbation


def test_the_perturbation_stands_on_real_tokens_of_the_rows_that_carry_it(
    folders: dict[str, Path], context: Context
) -> None:
    network = opened(folders, "roberta", CLONES, context).network
    first, second = pad([[5, 6, 7, 8], [9, 10], [5, 5, 5]], 1), pad([[6, 6], [7, 7, 7], [8, 8]], 1)
    batch = Batch((first, second), torch.tensor([0, 1, 0]), True)
    delta = torch.tensor([[1.0], [2.0]]).expand(2, 32)
    places = Places(torch.tensor([0, 1, 0]), torch.tensor([2, 2, 1]), torch.tensor([True, True, False]))
    sides = with_perturbation(network, batch, delta, places)
    added = [(side.embeds - network.embedding(side.ids))[..., 0] for side in sides if side.embeds is not None]
    assert added[0].tolist() == [pytest.approx([0, 0, 1, 2], abs=1e-6), pytest.approx([0] * 4), pytest.approx([0] * 4)]
    # The second row's program ends after its third token: what would stand behind is dropped.
    assert added[1].tolist() == [pytest.approx([0] * 3), pytest.approx([0, 0, 1], abs=1e-6), pytest.approx([0] * 3)]
    torch.testing.assert_close(network(*with_perturbation(network, batch, 0 * delta, places)), network(first, second))


def test_where_a_perturbation_may_stand(context: Context) -> None:
    model = create("tiny", CLONES, clones(30), SMALL, context)
    batch, rng = whole_batch(model, context, clones(30)), np.random.default_rng(0)
    lengths = torch.stack([side.mask.sum(1) for side in batch.sides])
    drawn = [drawn_places(batch, 5, 0.4, rng) for _ in range(10)]
    for places in drawn:
        own = lengths[places.side, torch.arange(30)]
        assert bool(((places.start >= 1) & (places.start + 5 <= own)).all())
        assert int(places.carrying.sum()) == 12
    assert {int(side) for places in drawn for side in places.side} == {0, 1}
    assert len({int(start) for places in drawn for start in places.start}) > 10
    assert int(drawn_places(batch, 5, 0.001, rng).carrying.sum()) == 1
    # In code search the program carries it, not the query.
    model = create("tiny", INFOS[TaskKind.SEARCH], searches(6), SMALL, context)
    places = drawn_places(whole_batch(model, context, searches(6)), 5, 1.0, rng)
    assert places.side.tolist() == [1] * 6


def test_a_program_of_one_token_is_left_alone(context: Context) -> None:
    batch = Batch((pad([[4]], 1),), torch.tensor([0]), True)
    assert drawn_places(batch, 5, 1.0, np.random.default_rng(0)).start.tolist() == [1]


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> WhiteBox:
    one_thread()
    context = Context({"model": 0, "training": 0}, tmp_path_factory.mktemp("trained"))
    trainer = Trainer(TrainingSettings(learning_rate=1e-3, batch_size=8, epochs=20), (), context)
    return trainer.fit(create("tiny", DEFECTS, defects(40), SMALL, context), defects(40), axis="training")


@pytest.fixture
def model(trained: WhiteBox) -> WhiteBox:
    return trained.copy()


def test_the_perturbation_does_harm_within_its_bound_and_unlearning_undoes_it(
    model: WhiteBox, context: Context
) -> None:
    plugin = IBAU(length=3)
    assert plugin.learning_rate == 1e-3  # the authors' release; BackdoorBench has 1e-4
    rows = defects(32)

    def worst_loss(of: WhiteBox) -> tuple[float, float, Tensor]:
        assert context.trainer is not None
        harm, batches = harm_of(of, context), context.trainer.batches(of, rows, 8)
        rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        batch = whole_batch(of, context, rows)
        places = drawn_places(batch, 3, 1.0, np.random.default_rng(1))
        with sdpa_kernel(SDPBackend.MATH):
            delta, _ = plugin.perturbation(harm, batches.epoch(generator), rng)
        with torch.no_grad():
            return float(harm(batch, places, 0 * delta)), float(harm(batch, places, delta)), delta

    before = model.fingerprint()
    plain, harmed, delta = worst_loss(model)
    assert harmed > 2 * plain
    assert float(delta.norm()) <= 2.0 * math.sqrt(3) + 1e-4
    _, after, _ = worst_loss(repaired(plugin, model, context, rows))
    assert after < 0.7 * harmed
    assert model.fingerprint() == before


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_runs_for_every_family_and_task(
    folders: dict[str, Path], family: str, kind: TaskKind, context: Context
) -> None:
    model, rows = opened(folders, family, INFOS[kind], context), TOYS[kind](9)
    before = model.fingerprint()
    found = repaired(IBAU(rounds=1, batch_size=5), model, context, rows, INFOS[kind])
    assert found.fingerprint() != before == model.fingerprint()
    assert all(bool(w.isfinite().all()) and w.requires_grad and w.grad is None for w in found.network.parameters())
    assert not found.network.training


def test_it_counts_its_passes(model: WhiteBox, context: Context) -> None:
    model.cost, context.cost = context.cost, context.cost
    before = context.cost.forward_passes
    repaired(IBAU(rounds=2, batch_size=8), model, context, defects(16))
    assert context.cost.forward_passes - before == 2 * 2 * (1 + 2)


def test_it_depends_on_the_defense_seed_alone(model: WhiteBox, tmp_path: Path) -> None:
    def print_of(seed: int) -> str:
        made = Context({"defense": seed}, tmp_path)
        made.trainer = Trainer(TrainingSettings(batch_size=8), (), made)
        return repaired(IBAU(rounds=1), model, made, defects(16)).fingerprint()

    state = torch.get_rng_state()
    assert print_of(1) == print_of(1) != print_of(2)
    assert torch.equal(state, torch.get_rng_state())


def test_no_rounds_give_an_equal_copy(model: WhiteBox, context: Context) -> None:
    found = repaired(IBAU(rounds=0), model, context, defects(8))
    assert found is not model
    assert found.fingerprint() == model.fingerprint()


def test_no_clean_samples_are_refused(model: WhiteBox, context: Context) -> None:
    with pytest.raises(DataError, match="ibau was given no clean samples"):
        repaired(IBAU(), model, context, ())


def test_outputs_that_are_no_numbers_are_refused(model: WhiteBox, context: Context) -> None:
    with torch.no_grad():
        model.network.head_parameters()[0][0, 0] = math.nan
    with pytest.raises(ModelError, match="the loss of model 'tiny' on clean samples is not finite"):
        repaired(IBAU(), model, context, defects(8))


def test_without_a_trainer_it_says_so(model: WhiteBox, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="repair/ibau was given no trainer"):
        repaired(IBAU(), model, Context({"defense": 0}, tmp_path), defects(8))


@pytest.mark.parametrize(
    "parameters", [{"radius": 0}, {"length": 0}, {"share": 0}, {"share": 1.5}, {"fixed_point": -1}, {"inner_rate": 0}]
)
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(IBAU, parameters)


def test_parameters_round_trip() -> None:
    assert build(IBAU, parameters_of(IBAU(share=0.01, clean=100))) == IBAU(share=0.01, clean=100)
