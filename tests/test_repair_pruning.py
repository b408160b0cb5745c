"""Fine-pruning and adversarial neuron pruning take out the unit that carries the trigger, and stop before the task suffers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.contracts import Known, Repair, Repaired
from bench.errors import ConfigError, DataError, ModelError, PluginError
from bench.models import Trainer, TrainingSettings, WhiteBox
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.repair.anp import ANP, neurons_of, perturbed, worst
from defenses.repair.fine_pruning import FinePruning, ranked
from defenses.tuning.exam import examination
from defenses.tuning.units import Kind
from tests.inversion_toys import INFO, samples, share_of_class, triggered
from tests.models_toys import one_thread
from tests.pruning_toys import BUSY_UNIT, DEAD_UNIT, TASK_UNIT, TRIGGER_UNIT, backdoored, backdoored_head


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3}, tmp_path)
    made.trainer = Trainer(TrainingSettings(learning_rate=1e-3, batch_size=8), (), made)
    return made


def repaired(plugin: Repair, model: WhiteBox, context: Context, clean: list[Sample]) -> Repaired:
    return plugin.repair(Known(plugin.needs, _clean=tuple(clean), _model=model), INFO, context)


def unit_weights(model: WhiteBox) -> torch.Tensor:
    weight = model.network.get_parameter("encoder.block.wi.weight")
    return weight.detach().abs().sum(1)


def victims(count: int = 8) -> list[Sample]:
    return [s for s in samples(2 * count, 100) if s.label == 1]


def test_the_hand_made_model_does_its_task_and_obeys_the_trigger(context: Context) -> None:
    model = backdoored(context)
    assert all(share_of_class(model, [s], s.label or 0) == 1.0 for s in samples(10, 50))
    assert share_of_class(model, triggered(victims()), 0) == 1.0


# --------------------------------------------------------------------------------------------------------- fine-pruning


def test_fine_pruning_removes_the_unit_that_carries_the_trigger(context: Context) -> None:
    model = backdoored(context)
    before = model.fingerprint()
    result = repaired(FinePruning(step=0.25, epochs=0), model, context, samples(40))
    # Idle units go first, the trigger's among them; the task's own unit costs half the accuracy and stays.
    assert result.facts["pruned"] == 2
    assert result.facts["stopped_by"] == "accuracy"
    assert result.facts["metrics"] == [1.0, 1.0]
    kept = unit_weights(result.model)
    assert kept[TRIGGER_UNIT] == kept[DEAD_UNIT] == 0.0 < min(kept[TASK_UNIT], kept[BUSY_UNIT])
    assert share_of_class(result.model, triggered(victims()), 1) == 1.0
    assert all(share_of_class(result.model, [s], s.label or 0) == 1.0 for s in samples(10, 50))
    assert model.fingerprint() == before


def test_pruned_units_stay_away_in_fine_tuning(context: Context) -> None:
    result = repaired(FinePruning(step=0.25, epochs=3), backdoored(context), context, samples(40))
    kept = unit_weights(result.model)
    assert kept[TRIGGER_UNIT] == kept[DEAD_UNIT] == 0.0
    assert len(result.facts["history"]) == 3  # type: ignore[arg-type]
    assert share_of_class(result.model, triggered(victims()), 1) == 1.0


def test_a_finer_step_stops_at_the_same_units(context: Context) -> None:
    result = repaired(FinePruning(step=0.01, epochs=0), backdoored(context), context, samples(40))
    assert result.facts["pruned"] == 2


def head_weights(model: WhiteBox) -> torch.Tensor:
    values = model.network.get_parameter("encoder.attention.v.weight").detach().abs().sum(1)
    read = model.network.get_parameter("encoder.attention.o.weight").detach().abs().sum(0)
    return torch.stack([values, read]).reshape(2, -1, 2).sum(2)  # by head: what makes it, what reads it


@pytest.mark.parametrize(("units", "epochs"), [("heads", 0), ("heads", 3), ("both", 0)])
def test_fine_pruning_removes_the_head_that_carries_the_trigger(context: Context, units: Kind, epochs: int) -> None:
    model = backdoored_head(context)
    assert all(share_of_class(model, [s], s.label or 0) == 1.0 for s in samples(10, 50))
    assert share_of_class(model, triggered(victims()), 0) == 1.0
    assert (head_weights(model)[:, TRIGGER_UNIT] > 0).all()
    result = repaired(FinePruning(units=units, step=0.25, epochs=epochs), model, context, samples(40))
    assert (result.facts["units"], result.facts["pruned"], result.facts["stopped_by"]) == (4, 2, "accuracy")
    made, read = head_weights(result.model)
    assert made[TRIGGER_UNIT] == read[TRIGGER_UNIT] == made[DEAD_UNIT] == read[DEAD_UNIT] == 0.0
    assert min(made[TASK_UNIT], read[TASK_UNIT], made[BUSY_UNIT]) > 0
    assert share_of_class(result.model, triggered(victims()), 1) == 1.0
    assert all(share_of_class(result.model, [s], s.label or 0) == 1.0 for s in samples(10, 50))


def test_a_network_of_heads_alone_has_no_feed_forward_unit_to_prune(context: Context) -> None:
    with pytest.raises(ModelError, match="no feed-forward units that this project knows"):
        repaired(FinePruning(), backdoored_head(context), context, samples(40))


def test_a_drop_that_allows_everything_prunes_everything(context: Context) -> None:
    result = repaired(FinePruning(step=0.4, drop=0.9, epochs=0), backdoored(context), context, samples(40))
    assert result.facts["pruned"] == result.facts["units"] == 4
    assert result.facts["stopped_by"] == "nothing left to prune"
    assert not unit_weights(result.model).any()


def test_a_model_that_knows_nothing_is_not_pruned(context: Context) -> None:
    model = backdoored(context)
    wrong = [Sample(s.id, s.programs, s.language, 1 - (s.label or 0)) for s in samples(40)]
    result = repaired(FinePruning(step=0.25, epochs=0), model, context, wrong)
    assert result.facts["metric_before"] == 0.0
    assert result.facts["pruned"] == 0
    assert result.model.fingerprint() == model.fingerprint()


def test_units_are_ranked_within_their_block_s_scale() -> None:
    activations = [np.array([10.0, 1.0, 10.0]), np.array([0.3, 0.1]), np.zeros(2)]
    # Relative: 1.43, 0.14, 1.43 | 1.5, 0.5 | 0, 0.
    assert ranked(activations, range(3)) == [5, 6, 1, 4, 0, 2, 3]
    assert ranked(activations, [1]) == [4, 3]


def test_the_exam_holds_out_a_fifth_of_each_class(context: Context) -> None:
    assert context.trainer is not None
    taught, exam = examination(backdoored(context), samples(42), context.trainer, FinePruning(), drop=0.1)
    assert len(taught) == 34
    assert [s.label for s in exam.held].count(0) == [s.label for s in exam.held].count(1) == 4
    assert not {s.id for s in taught} & {s.id for s in exam.held}
    assert (exam.base, exam.floor) == (1.0, 0.9)


# ------------------------------------------------------------------------------------------------------------------ ANP


def test_anp_prunes_the_unit_that_a_small_change_turns_against_the_task(context: Context) -> None:
    model = backdoored(context)
    before = model.fingerprint()
    result = repaired(ANP(iterations=60, batch_size=8), model, context, samples(40))
    kept = unit_weights(result.model)
    assert kept[TRIGGER_UNIT] == 0.0 < kept[TASK_UNIT]
    assert share_of_class(result.model, triggered(victims()), 1) == 1.0
    assert all(share_of_class(result.model, [s], s.label or 0) == 1.0 for s in samples(10, 50))
    assert model.fingerprint() == before
    assert result.facts["pruned"] == 1
    assert all(p.requires_grad and p.grad is None for p in result.model.network.parameters())


def test_without_a_perturbation_no_mask_moves_from_one_that_the_task_does_not_mind(context: Context) -> None:
    result = repaired(ANP(iterations=30, epsilon=0.0, batch_size=8), backdoored(context), context, samples(40))
    assert unit_weights(result.model)[TRIGGER_UNIT] > 0
    assert result.facts["pruned"] == 0


def test_without_iterations_nothing_is_pruned(context: Context) -> None:
    model = backdoored(context)
    result = repaired(ANP(iterations=0), model, context, samples(40))
    assert result.model.fingerprint() == model.fingerprint()
    assert (result.facts["threshold"], result.facts["stopped_by"]) == (0.9, "largest threshold")


@pytest.mark.parametrize(("drop", "stopped_by"), [(0.1, "budget"), (0.9, "largest threshold")])
def test_anp_says_whether_accuracy_ended_the_pruning(context: Context, drop: float, stopped_by: str) -> None:
    model, plugin = backdoored(context), ANP(drop=drop)
    assert context.trainer is not None
    _, exam = examination(model, samples(40), context.trainer, plugin, drop=drop)
    masks = [np.zeros(4)]  # every neuron falls at the first threshold
    threshold, count, _, found = plugin.prune(model, masks, exam)
    assert found == stopped_by
    assert (threshold, count) == ((None, 0) if stopped_by == "budget" else (0.9, 4))


def test_anp_counts_what_it_costs(context: Context) -> None:
    model, clean = backdoored(context), samples(40)
    repaired(ANP(iterations=0), model, context, clean)
    idle = context.cost.forward_passes
    repaired(ANP(iterations=4, steps=2, batch_size=32), model, context, clean)
    # Each iteration: the plain loss, two inner steps, and the loss at the worst place.
    assert context.cost.forward_passes - 2 * idle == 4 * 4
    assert context.cost.backward_tokens > 0


def test_anp_depends_on_the_defense_seed_alone(context: Context, tmp_path: Path) -> None:
    def masks(seed: int) -> object:
        made = Context({"defense": seed}, tmp_path)
        made.trainer = Trainer(TrainingSettings(), (), made)
        return repaired(ANP(iterations=3, batch_size=8), model, made, samples(40)).facts["mask_quantiles"]

    model = backdoored(context)
    state = torch.get_rng_state()
    assert masks(1) == masks(1) != masks(2)
    assert torch.equal(state, torch.get_rng_state())


def test_perturbed_parameters_are_those_of_the_formula(context: Context) -> None:
    model = backdoored(context)
    neurons = neurons_of(model, "feed_forward")
    factors, biases = torch.tensor([1.0, 0.5, 2.0, 0.0]), torch.tensor([1.0, 1.0, 0.5, 3.0])
    found = perturbed(neurons, [factors], [biases])
    (neuron,) = neurons
    assert set(found) == {"encoder.block.wi.weight", "encoder.block.wi.bias"}
    assert torch.equal(found["encoder.block.wi.weight"], neuron.module.weight * factors[:, None])
    assert torch.equal(found["encoder.block.wi.bias"], neuron.module.bias * biases)


def test_the_worst_perturbation_of_a_linear_loss_is_a_corner() -> None:
    slopes = [torch.tensor([1.0, -2.0]), torch.tensor([3.0])]

    def loss(noise: Any) -> torch.Tensor:
        return sum(((n * s).sum() for n, s in zip(noise, slopes, strict=True)), torch.tensor(0.0))

    found = worst(loss, [torch.zeros(2), torch.zeros(1)], 0.4, 1)
    assert [each.tolist() for each in found] == [pytest.approx([0.4, -0.4]), pytest.approx([0.4])]
    # From the start's far side one step ends inside, and never outside the box.
    (side,) = worst(lambda noise: noise[0].sum(), [torch.tensor([-0.4, 0.3])], 0.4, 1)
    assert side.tolist() == pytest.approx([0.0, 0.4])
    (side,) = worst(lambda noise: torch.zeros((), requires_grad=True), [torch.tensor([0.1])], 0.4, 3)
    assert side.tolist() == pytest.approx([0.1])


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("plugin", [FinePruning(), ANP(iterations=1)], ids=lambda p: p.name)
def test_too_few_clean_samples_are_refused(plugin: Repair, context: Context) -> None:
    with pytest.raises(DataError, match=r"of 4 none is left; give it at least 5 of a class"):
        repaired(plugin, backdoored(context), context, samples(4))


@pytest.mark.parametrize("plugin", [FinePruning(), ANP(iterations=1)], ids=lambda p: p.name)
def test_a_model_whose_outputs_are_no_numbers_is_refused(plugin: Repair, context: Context) -> None:
    model = backdoored(context)
    with torch.no_grad():
        model.network.embedding.weight[:] = math.nan
    with pytest.raises(ModelError, match="'hand-made' gives outputs that are not finite"):
        repaired(plugin, model, context, samples(40))


@pytest.mark.parametrize("plugin", [FinePruning(), ANP(iterations=1)], ids=lambda p: p.name)
def test_without_a_trainer_they_say_so(plugin: Repair, tmp_path: Path) -> None:
    context = Context({"defense": 0}, tmp_path)
    with pytest.raises(PluginError, match=f"repair/{plugin.name} was given no trainer"):
        repaired(plugin, backdoored(context), context, samples(40))


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (FinePruning, {"step": 0}),
        (FinePruning, {"drop": 1}),
        (FinePruning, {"units": "neurons"}),
        (FinePruning, {"blocks": "first"}),
        (ANP, {"alpha": 1.1}),
        (ANP, {"epsilon": -0.1}),
        (ANP, {"momentum": 1}),
        (ANP, {"steps": 0}),
    ],
)
def test_impossible_parameters_are_refused(cls: type[Repair], parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cls, parameters)


@pytest.mark.parametrize("plugin", [FinePruning(units="both", blocks="last"), ANP(units="heads", alpha=0.5)])
def test_parameters_round_trip(plugin: Repair) -> None:
    assert build(type(plugin), parameters_of(plugin)) == plugin
