"""NAD, CROW and the oracle: their losses are the published formulas, and with the extra term switched off they are fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from bench.context import Context
from bench.contracts import Access, Known, NotDeclared, Repair, Repaired, TaskInfo, TaskKind
from bench.errors import ConfigError, ModelError, PluginError
from bench.models import CodeNetwork, Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.models.tokens import pad
from bench.models.training import Batch
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.repair.crow import CROW, compared, inconsistency, moved
from defenses.repair.fine_tuning import FineTuning
from defenses.repair.nad import NAD, attention_map, distance
from defenses.repair.oracle import OracleRepair
from defenses.tuning.units import units_of, watching
from tests.models_toys import DEFECTS, INFOS, SMALL, TOYS, defects, one_thread
from tests.test_inversion_families import FAMILIES, folders, opened

__all__ = ["folders"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3, "model": 0, "training": 0}, tmp_path)
    made.trainer = Trainer(TrainingSettings(learning_rate=1e-3, batch_size=8, epochs=2), (), made)
    return made


@pytest.fixture
def model(context: Context) -> WhiteBox:
    return create("tiny", DEFECTS, defects(40), SMALL.model_copy(update={"layers": 3}), context)


def repaired(
    plugin: Repair, model: WhiteBox, context: Context, clean: Sequence[Sample], info: TaskInfo = DEFECTS
) -> Repaired:
    return plugin.repair(Known(plugin.needs, _clean=tuple(clean), _model=model), info, context)


# -------------------------------------------------------------------------------------------------- steps of the trainer


def test_the_plain_step_given_by_hand_is_the_trainer_s_own(model: WhiteBox, context: Context) -> None:
    assert context.trainer is not None

    def plain(network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]) -> Tensor:
        return objective(network(*sides))

    prints = [
        context.trainer.fit(model, defects(16), axis="defense", step=step).fingerprint() for step in (None, plain)
    ]
    assert prints[0] == prints[1]


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_step_is_handed_what_the_batches_hold(kind: TaskKind, context: Context) -> None:
    rows = TOYS[kind](10)
    trainer, model = context.trainer, create("tiny", INFOS[kind], rows, SMALL, context)
    assert trainer is not None
    losses: list[float] = []

    def double(network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]) -> Tensor:
        loss = objective(network(*sides))
        with torch.no_grad():
            losses.append(float(loss))
        return 2 * loss

    trainer.fit(model, rows, axis="defense", step=double, epochs=1, batch_size=10)
    (batch,) = trainer.batches(model, rows, 10).epoch(torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert losses == [pytest.approx(float(trainer.loss(model.network(*batch.sides), batch)), rel=1e-4)]
    assert trainer.history[0]["loss"] == pytest.approx(2 * losses[0])
    assert len(batch.sides) == (1 if kind is TaskKind.CLASSIFICATION else 2)
    assert batch.classes == (kind is not TaskKind.SEARCH)
    assert batch.tokens == sum(side.ids.numel() for side in batch.sides)


def test_an_epoch_of_batches_holds_every_sample_once_in_a_seeded_order(model: WhiteBox, context: Context) -> None:
    assert context.trainer is not None
    rows = defects(21)
    batches = context.trainer.batches(model, rows, 8)

    def epoch(seed: int) -> list[Batch]:
        return list(batches.epoch(torch.Generator().manual_seed(seed)))

    def texts(made: Sequence[Batch]) -> list[tuple[int, ...]]:
        sides = [batch.sides[0] for batch in made]
        return [
            tuple(ids[mask.bool()].tolist()) for side in sides for ids, mask in zip(side.ids, side.mask, strict=True)
        ]

    assert [len(batch.labels) for batch in epoch(0)] == [8, 8, 5]
    expected = model.token_ids([s.programs[0] for s in rows])
    assert sorted(texts(epoch(0))) == sorted(tuple(row) for row in expected)
    assert texts(epoch(0)) == texts(epoch(0)) != texts(epoch(1))
    label_of = {tuple(ids): s.label for ids, s in zip(expected, rows, strict=True)}
    found = [int(label) for batch in epoch(0) for label in batch.labels]
    assert found == [label_of[row] for row in texts(epoch(0))]


def test_the_embedding_alone_can_be_trained(model: WhiteBox, context: Context) -> None:
    assert context.trainer is not None
    trained = context.trainer.fit(model, defects(16), axis="defense", parameters="embedding")
    old = dict(model.network.named_parameters())
    moved_ones = [name for name, weight in trained.network.named_parameters() if not torch.equal(weight, old[name])]
    assert moved_ones == ["encoder.embeddings.word_embeddings.weight"]
    assert all(weight.requires_grad for weight in trained.network.parameters())


def test_layers_are_the_hidden_states(folders: dict[str, Path], family: str, context: Context) -> None:
    network = opened(folders, family, DEFECTS, context).network
    tokens = pad([[5, 6, 7, 8], [9, 10]], 1)
    with torch.no_grad():
        layers = network.layers(tokens)
        assert len(layers) == 3
        torch.testing.assert_close(layers[-1], network.hidden_states(tokens))
        torch.testing.assert_close(layers[1], network.hidden_states(tokens, 1))


# ------------------------------------------------------------------------------------------------------------------ NAD


def test_an_attention_map_is_the_normalised_strength_of_each_token() -> None:
    activations = torch.tensor([[[1.0, -1.0], [2.0, 0.0], [9.0, 9.0]]])
    found = attention_map(activations, torch.tensor([[1, 1, 0]]), 2.0)
    assert found[0].tolist() == pytest.approx([2 / math.sqrt(20), 4 / math.sqrt(20), 0.0])
    found = attention_map(activations, torch.tensor([[1, 1, 1]]), 1.0)
    assert found[0].tolist() == pytest.approx([2 / math.sqrt(332), 2 / math.sqrt(332), 18 / math.sqrt(332)])


def test_the_distance_of_maps() -> None:
    mask = torch.ones(2, 2, dtype=torch.long)
    left = torch.tensor([[[1.0], [0.0]], [[0.0], [3.0]]])
    right = torch.tensor([[[0.0], [5.0]], [[0.0], [1.0]]])
    assert float(distance(left, left, mask, 2.0)) == 0.0
    assert float(distance(left, right, mask, 2.0)) == pytest.approx((2 + 0) / 2)  # orthogonal maps, and equal ones
    # Scale and padding say nothing.
    assert float(distance(left, 7 * left, mask, 2.0)) == pytest.approx(0.0, abs=1e-12)
    padded = torch.cat([right, torch.full((2, 1, 1), 100.0)], dim=1)
    wider = torch.cat([left, torch.full((2, 1, 1), -3.0)], dim=1)
    hidden = torch.tensor([[1, 1, 0], [1, 1, 0]])
    assert float(distance(wider, padded, hidden, 2.0)) == pytest.approx(1.0)


def test_behind_bert_s_layer_norm_the_hidden_states_have_no_map(folders: dict[str, Path], context: Context) -> None:
    """Why the maps are taken from the feed-forward units."""
    model = opened(folders, "bert", DEFECTS, context)
    tokens = model.tokenize([defects(1)[0].programs[0]])
    with torch.no_grad(), watching(units_of(model, "feed_forward")) as seen:
        states = model.network.layers(tokens)[1]

    def spread(activations: Tensor) -> float:
        weights = attention_map(activations, tokens.mask, 2.0)[0]
        return float(weights.std() / weights.mean())

    assert spread(states) < 1e-3 < 0.05 < spread(seen[0][0])


def test_distillation_without_weight_is_fine_tuning(model: WhiteBox, context: Context) -> None:
    plain = repaired(FineTuning(epochs=2), model, context, defects(16)).model
    distilled = repaired(NAD(beta=0.0, teacher_epochs=1, epochs=2), model, context, defects(16)).model
    assert distilled.fingerprint() == plain.fingerprint()


def test_distillation_brings_the_maps_closer_to_the_teacher_s(model: WhiteBox, context: Context) -> None:
    rows, tokens = defects(16), model.tokenize([s.programs[0] for s in defects(16)])

    def maps(of: WhiteBox) -> list[Tensor]:
        with torch.no_grad(), watching(units_of(of, "feed_forward")) as seen:
            of.network.vector(tokens)
        return [attention_map(each, tokens.mask, 2.0) for (each,) in seen]

    teacher = repaired(FineTuning(epochs=6, learning_rate=5e-3), model, context, rows).model
    gaps = []
    for beta in (0.0, 1000.0):
        plugin = NAD(beta=beta, teacher_epochs=6, epochs=3, learning_rate=5e-3)
        student = repaired(plugin, model, context, rows).model
        gaps.append(sum(float((a - b).square().sum()) for a, b in zip(maps(student), maps(teacher), strict=True)))
    assert gaps[1] < 0.5 * gaps[0]


# ----------------------------------------------------------------------------------------------------------------- CROW


def test_the_inconsistency_is_the_mean_gap_of_adjacent_layers() -> None:
    east, north, west = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([-3.0, 0.0])

    def layer(*rows: Tensor) -> Tensor:
        return torch.stack(rows)[None]

    mask = torch.tensor([[1, 1, 0]])
    layers = [
        layer(west, west, west),
        layer(east, east, east),
        layer(east, north, west),
        layer(west, north, east),
        layer(east, east, east),
    ]
    # The first and the last are left out: token 1 has gaps 0 and 2, token 2 has 1 and 0, token 3 is padding.
    assert float(inconsistency(layers, mask)) == pytest.approx((0 + 2 + 1 + 0) / 4)


def test_which_layers_are_compared() -> None:
    def numbers(blocks: int) -> list[float]:
        return [float(layer) for layer in compared([torch.tensor(float(i)) for i in range(blocks + 1)])]

    assert [numbers(blocks) for blocks in (1, 2, 3, 4, 6)] == [[0, 1], [1, 2], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5]]


def test_moved_embeddings_disagree_more_and_no_coordinate_moves_farther(
    folders: dict[str, Path], family: str, context: Context
) -> None:
    network = opened(folders, family, DEFECTS, context).network
    tokens = pad([[5, 6, 7, 8], [9, 10]], 1)
    other = moved(network, tokens, 1e-3)
    assert other.embeds is not None
    step = (other.embeds - network.embedding(tokens.ids)).detach().abs()
    assert float(step.max()) == pytest.approx(1e-3, rel=1e-2)
    assert not step[1, 2:].any()  # padding has no gradient
    with torch.no_grad():
        before, after = (inconsistency(network.layers(t), tokens.mask) for t in (tokens, other))
    assert float(after) > float(before)


def test_consistency_without_weight_is_fine_tuning(model: WhiteBox, context: Context) -> None:
    plain = repaired(FineTuning(epochs=2, batch_size=8), model, context, defects(16)).model
    crow = repaired(CROW(alpha=0.0, epochs=2), model, context, defects(16)).model
    assert crow.fingerprint() == plain.fingerprint()


def test_consistency_training_makes_layers_agree(model: WhiteBox, context: Context) -> None:
    rows = defects(16)
    tokens = model.tokenize([s.programs[0] for s in rows])

    def gap(of: WhiteBox) -> float:
        return float(inconsistency(of.network.layers(moved(of.network, tokens, 0.1)), tokens.mask).detach())

    gaps = [gap(repaired(CROW(alpha=alpha, learning_rate=3e-3), model, context, rows).model) for alpha in (0.0, 5.5)]
    assert gaps[1] < 0.5 * gaps[0]


# --------------------------------------------------------------------------------------------------------------- oracle


def knowing(plugin: Repair, model: WhiteBox, training: Sequence[Sample], poisoned: set[str]) -> Known:
    return Known(plugin.needs, _training=tuple(training), _model=model, _poisoned=frozenset(poisoned))


def test_the_oracle_trains_on_with_what_is_not_poisoned(model: WhiteBox, context: Context) -> None:
    rows = defects(20)
    poisoned = {s.id for s in rows[::4]}
    result = OracleRepair(epochs=2).repair(knowing(OracleRepair(), model, rows, poisoned), DEFECTS, context)
    clean = [s for s in rows if s.id not in poisoned]
    plain = repaired(FineTuning(epochs=2), model, context, clean).model
    assert result.model.fingerprint() == plain.fingerprint() != model.fingerprint()
    assert result.facts["samples"] == 15


def test_the_oracle_of_a_clean_model_trains_on_with_everything(model: WhiteBox, context: Context) -> None:
    result = OracleRepair().repair(knowing(OracleRepair(), model, defects(8), set()), DEFECTS, context)
    assert result.facts["samples"] == 8
    assert len(result.facts["history"]) == 2  # type: ignore[arg-type]  # the settings' epochs


def test_the_oracle_is_told_no_goal_and_no_rate(model: WhiteBox) -> None:
    known = knowing(OracleRepair(), model, defects(8), set())
    for hidden in ("goal", "poison_rate", "clean"):
        with pytest.raises(NotDeclared):
            getattr(known, hidden)


# ---------------------------------------------------------------------------------------------------------- fine-tuning


def test_the_budget_of_fine_tuning_is_a_parameter_so_that_a_suite_can_draw_its_curve() -> None:
    curve = [cast(FineTuning, build(FineTuning, {"clean": clean})) for clean in (10, 50, 100)]
    assert [plugin.needs.clean for plugin in curve] == [10, 50, 100]
    assert len({str(parameters_of(plugin)) for plugin in curve}) == 3
    assert FineTuning().needs.clean == 300


# ------------------------------------------------------------------------------------------------- all of them, everywhere

TUNING = [NAD(teacher_epochs=1, epochs=1), CROW(epochs=1), FineTuning(epochs=1)]


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("plugin", TUNING[:2], ids=lambda p: p.name)
def test_they_run_for_every_family_and_task(
    folders: dict[str, Path], family: str, kind: TaskKind, plugin: Repair, context: Context
) -> None:
    model, rows = opened(folders, family, INFOS[kind], context), TOYS[kind](9)
    before = model.fingerprint()
    result = repaired(plugin, model, context, rows, INFOS[kind])
    assert result.model.fingerprint() != before == model.fingerprint()
    assert not result.model.network.training
    assert all(bool(weight.isfinite().all()) for weight in result.model.network.parameters())
    assert not any(module._forward_pre_hooks for module in result.model.network.modules())
    assert context.cost.backward_tokens > 0


@pytest.mark.parametrize("plugin", TUNING, ids=lambda p: p.name)
def test_training_that_leaves_the_numbers_is_an_error(plugin: Any, model: WhiteBox, context: Context) -> None:
    with torch.no_grad():
        model.network.head_parameters()[0][0, 0] = math.nan
    with pytest.raises(ModelError, match=f"{plugin.name}: weights .* of model 'tiny' are not finite after the repair"):
        repaired(plugin, model, context, defects(8))


@pytest.mark.parametrize("plugin", [*TUNING, OracleRepair()], ids=lambda p: p.name)
def test_without_a_trainer_they_say_so(plugin: Repair, model: WhiteBox, tmp_path: Path) -> None:
    known = Known(plugin.needs, _clean=defects(8), _model=model, _training=defects(8), _poisoned=frozenset())
    with pytest.raises(PluginError, match=f"repair/{plugin.name} was given no trainer"):
        plugin.repair(known, DEFECTS, Context({"defense": 0}, tmp_path))


def test_what_they_need_is_what_they_say() -> None:
    for plugin in (NAD(clean=7), CROW(clean=7), FineTuning(clean=7)):
        assert plugin.needs.clean == 7
        assert plugin.needs.model is Access.WEIGHTS
        assert not plugin.needs.truth
    assert OracleRepair().needs.truth
    assert OracleRepair().needs.clean == 0


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (NAD, {"beta": -1}),
        (NAD, {"power": 0}),
        (CROW, {"epsilon": -0.1}),
        (CROW, {"alpha": -1}),
        (OracleRepair, {"epochs": -1}),
        (OracleRepair, {"clean": 3}),
    ],
)
def test_impossible_parameters_are_refused(cls: type[Repair], parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cls, parameters)


@pytest.mark.parametrize("plugin", [NAD(beta=2.5), CROW(alpha=11), OracleRepair(epochs=4)], ids=lambda p: p.name)
def test_parameters_round_trip(plugin: Repair) -> None:
    assert build(type(plugin), parameters_of(plugin)) == plugin
