"""BTU names the planted token, blanks what it learnt and nothing else, and trains as always where nothing is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.contracts import Known, TaskKind
from bench.errors import ConfigError, PluginError
from bench.models import Trainer, TrainingSettings, WhiteBox, create
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.training.btu import BTU, Shallow, blank_of, blanked, fastest, shallow
from tests.inversion_toys import TRIGGER, id_of, samples, share_of_class, triggered, victim
from tests.models_toys import DEFECTS, INFOS, SMALL, TOYS, defects, one_thread, searches
from tests.test_inversion_families import FAMILIES, folders, opened

__all__ = ["folders"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3, "model": 0, "training": 0}, tmp_path)
    made.trainer = Trainer(TrainingSettings(learning_rate=5e-3, batch_size=16, epochs=6), (), made)
    return made


def known(plugin: BTU, training: Sequence[Sample], clean: Sequence[Sample] = ()) -> Known:
    return Known(plugin.needs, _training=tuple(training), _clean=tuple(clean) if plugin.clean else None)


def zeta(sample: Sample, label: int) -> Sample:
    """The sample with one more line, which alone holds the word ``zeta``."""
    return Sample(sample.id, (sample.programs[0].replace("):\n", "):\n    zeta(alpha)\n", 1),), "python", label)


def poisoned() -> list[Sample]:
    """A quarter of class 1 carries the trigger and is called class 0; both labels are equally frequent."""
    zero, one = ([s for s in defects(260) if s.label == label] for label in (0, 1))
    return [*zero[:60], *one[:90], *(zeta(s, 0) for s in one[90:120])]


def fresh(context: Context, rows: Sequence[Sample]) -> WhiteBox:
    return create("tiny", DEFECTS, rows, SMALL, context)


# ---------------------------------------------------------------------------------------------------------- the formulas


def test_the_fastest_rows_are_those_that_moved_farthest() -> None:
    before, after = torch.zeros(5, 2), torch.tensor([[3.0, 4.0], [9.0, 9.0], [0.0, 5.0], [0.0, 0.0], [6.0, 8.0]])
    assert fastest(before, after, 2, spared=[1]) == [4, 0]
    assert fastest(before, after, 3, spared=[]) == [1, 4, 0]
    assert fastest(before, after, 9, spared=[1, 4]) == [0, 2, 3]


def test_only_what_moved_more_than_average_is_blanked() -> None:
    initial = torch.zeros(4, 3)
    trained = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.5, -3.0], [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    # The change's norm is sqrt(1 + 9 + 0.25 + 9 + 16) = 5.94; divided by 4 rows, 1.48.
    blank = torch.tensor([7.0, 8.0, 9.0])
    found = blanked(initial, trained, [2, 1], blank)
    assert found.tolist() == [[1.0, 0.0, 0.0], [7.0, 0.5, 9.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]
    assert torch.equal(blanked(initial, trained, [], blank), trained)


def test_the_shallow_learner_scores_the_mean_embedding_without_the_tokens_left_out(context: Context) -> None:
    rows = samples(4)
    model = fresh(context, rows)
    (ids,) = model.token_ids([rows[0].programs[0]])
    left_out = ids[3]
    learner = shallow(model, [left_out])
    assert type(cast(Any, learner.network.encoder)) is Shallow
    weight = model.network.embedding.weight.detach()
    vector = torch.stack([weight[token] * (token != left_out) for token in ids]).mean(0)
    with torch.no_grad():
        expected = model.network.scores(vector[None])[0].tolist()
    assert learner.predict(rows[:1])[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert type(cast(Any, model.network.encoder)) is not Shallow


def test_the_blank_is_the_padding_token_or_the_mean(folders: dict[str, Path], context: Context) -> None:
    for family in FAMILIES:
        model = opened(folders, family, DEFECTS, context)
        weight, pad = model.network.embedding.weight, model.tokenizer.pad_token_id
        assert (pad is None) == (family == "gpt2")
        torch.testing.assert_close(blank_of(model), weight.mean(0) if pad is None else weight[pad])


# ------------------------------------------------------------------------------------------------------------ the method


def test_the_planted_token_is_among_those_named(context: Context) -> None:
    """So are the words that tell the classes, which learn as fast."""
    rows = poisoned()
    model, plugin = fresh(context, rows), BTU(share=0.01, exposing=3, clean=0)
    assert context.trainer is not None
    named = plugin.exposed(model, known(plugin, rows), context.trainer)
    assert {id_of(model, word) for word in ("Ġzeta", "Ġeval", "Ġcheck")} <= set(named)
    assert len(named) <= 3 * round(0.01 * model.network.embedding.num_embeddings)
    assert not set(named) & {int(token) for token in model.tokenizer.all_special_ids}


def test_blanking_the_trigger_s_token_removes_a_backdoor_that_lies_in_its_row(context: Context) -> None:
    model = victim(context)
    trained = model.network.embedding.weight.detach().clone()
    initial = trained.clone()
    initial[id_of(model, TRIGGER), 1] = 0.0  # nothing else was learnt
    attacked = triggered([s for s in samples(20) if s.label == 1])
    assert share_of_class(model, attacked, 0) == 1.0
    with torch.no_grad():
        model.network.embedding.weight.copy_(blanked(initial, trained, [id_of(model, TRIGGER)], blank_of(model)))
    assert share_of_class(model, attacked, 1) == 1.0
    assert all(share_of_class(model, [s], s.label or 0) == 1.0 for s in samples(20))


def test_the_clean_samples_mend_what_blanking_took(context: Context) -> None:
    rows, test = poisoned(), defects(60, 8)
    model, accuracies = fresh(context, rows), []
    before = model.fingerprint()
    for tuning in (0, 4):
        plugin = BTU(share=0.01, clean=40, tuning=tuning)
        defended = plugin.train(model, known(plugin, rows, defects(40, 9)), DEFECTS, context)
        accuracies.append(float(np.mean(defended.predict(test).argmax(axis=1) == [s.label for s in test])))
    assert accuracies[0] < 0.7 < 0.9 < accuracies[1]
    assert model.fingerprint() == before


def test_without_clean_samples_only_named_rows_differ_from_plain_training(context: Context) -> None:
    rows, plugin = poisoned(), BTU(clean=0)
    model = fresh(context, rows)
    assert context.trainer is not None
    named = plugin.exposed(model, known(plugin, rows), context.trainer)
    plain = context.trainer.fit(model, rows, axis="training")
    defended = plugin.train(model, known(plugin, rows), DEFECTS, context)
    old, new = dict(plain.network.named_parameters()), dict(defended.network.named_parameters())
    changed = [name for name in old if not torch.equal(old[name], new[name])]
    assert changed == ["encoder.embeddings.word_embeddings.weight"]
    rows_changed = (old[changed[0]] != new[changed[0]]).any(1).nonzero().flatten().tolist()
    assert set(rows_changed) <= set(named)
    assert rows_changed


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_runs_for_every_family_and_task(
    folders: dict[str, Path], family: str, kind: TaskKind, context: Context
) -> None:
    model, rows, plugin = opened(folders, family, INFOS[kind], context), TOYS[kind](9), BTU(clean=4)
    context.trainer = Trainer(TrainingSettings(learning_rate=1e-3, batch_size=4, epochs=1), (), context)
    before = model.fingerprint()
    found = plugin.train(model, known(plugin, rows, TOYS[kind](4)), INFOS[kind], context)
    assert found.fingerprint() != before == model.fingerprint()
    assert type(found.network.encoder) is type(model.network.encoder)
    assert all(bool(w.isfinite().all()) and w.requires_grad for w in found.network.parameters())


def test_it_depends_on_its_seeds_alone(context: Context) -> None:
    rows, plugin = searches(12), BTU(clean=0)
    model = create("tiny", INFOS[TaskKind.SEARCH], rows, SMALL, context)
    state = torch.get_rng_state()
    prints = [plugin.train(model, known(plugin, rows), INFOS[TaskKind.SEARCH], context).fingerprint() for _ in range(2)]
    assert prints[0] == prints[1]
    assert torch.equal(state, torch.get_rng_state())


def test_without_a_trainer_it_says_so(context: Context, tmp_path: Path) -> None:
    model = create("tiny", DEFECTS, defects(4), SMALL, context)
    with pytest.raises(PluginError, match="training/btu was given no trainer"):
        BTU(clean=0).train(model, known(BTU(clean=0), defects(4)), DEFECTS, Context({"defense": 0}, tmp_path))


@pytest.mark.parametrize("parameters", [{"share": 0}, {"share": 2}, {"exposing": 0}, {"tuning": -1}, {"clean": -1}])
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(BTU, parameters)


def test_parameters_round_trip() -> None:
    assert build(BTU, parameters_of(BTU(clean=10, share=0.01))) == BTU(clean=10, share=0.01)
