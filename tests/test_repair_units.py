"""Prunable units: found in every family of transformers, measured as their definition says, and silent once silenced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DistilBertConfig, GPT2Config, LlamaConfig, T5Config, T5EncoderModel
from transformers.models.distilbert import DistilBertModel
from transformers.models.gpt2 import GPT2Model
from transformers.models.llama import LlamaModel

from bench.context import Context
from bench.contracts import TaskKind
from bench.errors import ModelError
from bench.models import CodeNetwork, Trainer, TrainingSettings, WhiteBox
from bench.models.tokens import pad
from defenses.tuning.units import Kind, first_units, mean_activations, pruned, units_of, watching
from tests.inversion_toys import victim
from tests.models_toys import INFOS, SMALL, TOYS, defects, one_thread
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
    made = Context({"defense": 3, "model": 0}, tmp_path)
    made.trainer = Trainer(TrainingSettings(learning_rate=1e-2, weight_decay=0.1, batch_size=4), (), made)
    return made


FOUND = {  # (feed-forward groups, heads groups), each of 48 units or 2 heads: a whole T5 has two encoders' and two decoders' blocks
    "roberta": (2, 2),
    "bert": (2, 2),
    "t5 encoder": (2, 2),
    "t5": (4, 6),
    "gpt2": (2, 2),
}


def test_every_family_has_its_units(folders: dict[str, Path], family: str, context: Context) -> None:
    model = opened(folders, family, INFOS[TaskKind.CLASSIFICATION], context)
    units = 128 if family == "gpt2" else 48  # GPT-2's are four times its width
    fed, heads = units_of(model, "feed_forward"), units_of(model, "heads")
    assert (len(fed), len(heads)) == FOUND[family]
    assert {(u.count, u.width, u.kind) for u in fed} == {(units, 1, "feed_forward")}
    assert {(u.count, u.width, u.kind) for u in heads} == {(2, 16, "heads")}
    assert len(units_of(model, "both")) == sum(FOUND[family])
    for projection in (p for u in (*fed, *heads) for p in u.inward):
        assert model.network.get_parameter(f"{projection.name}.weight") is projection.module.weight


@pytest.mark.parametrize("kind", ["feed_forward", "heads"])
def test_a_silenced_unit_is_a_unit_whose_activation_is_zero(
    folders: dict[str, Path], family: str, kind: Kind, context: Context
) -> None:
    model, rows = opened(folders, family, INFOS[TaskKind.CLASSIFICATION], context), defects(5)
    groups = units_of(model, kind)
    chosen = [np.arange(group.count) % 2 == 1 for group in groups]
    handles = []
    for group, which in zip(groups, chosen, strict=True):
        keep = torch.from_numpy(np.repeat(~which, group.width)).float()
        handles.append(group.outward.register_forward_pre_hook(lambda _, inputs, keep=keep: (inputs[0] * keep,)))
    expected = model.predict(rows)
    for handle in handles:
        handle.remove()
    before = model.fingerprint()
    smaller = pruned(model, kind, chosen)
    np.testing.assert_allclose(smaller.predict(rows), expected, atol=1e-6)
    assert np.abs(expected - model.predict(rows)).max() > 1e-6
    assert model.fingerprint() == before


def test_silenced_units_stay_zero_in_training(folders: dict[str, Path], family: str, context: Context) -> None:
    model = opened(folders, family, INFOS[TaskKind.CLASSIFICATION], context)
    chosen = [np.arange(group.count) == 0 for group in units_of(model, "both")]
    assert context.trainer is not None
    trained = context.trainer.fit(pruned(model, "both", chosen), defects(12), axis="defense", epochs=3)
    moved = 0.0
    for group in units_of(trained, "both"):
        columns = group.outward.weight.T if isinstance(group.outward, torch.nn.Linear) else group.outward.weight
        assert not columns[: group.width].any()
        moved += float(columns[group.width :].detach().abs().sum())
        for projection in group.inward:
            rows = projection.by_output(projection.module.weight)[projection.start :]
            assert not rows[: group.width].any()
            if projection.module.bias is not None:
                assert not projection.module.bias[projection.start :][: group.width].any()
    assert moved > 0


@pytest.mark.parametrize("kind", list(TaskKind))
def test_mean_activations_are_those_of_each_program_alone(
    folders: dict[str, Path], family: str, kind: TaskKind, context: Context
) -> None:
    model, rows = opened(folders, family, INFOS[kind], context), TOYS[kind](5)
    groups = units_of(model, "both")
    found = mean_activations(model, groups, rows)
    texts = {(text, model.window) for s in rows for text in s.programs}
    texts |= {(s.query, model.query_window) for s in rows if s.query is not None}
    sums, tokens = [np.zeros(group.count) for group in groups], 0
    for text, window in sorted(texts):
        (ids,) = model.token_ids([text], window)
        with watching(groups) as seen, torch.no_grad():
            model.network.vector(pad([ids], model.pad_id))
        tokens += len(ids)
        for total, group, (activation,) in zip(sums, groups, seen, strict=True):
            total += activation[0].abs().double().sum(0).reshape(group.count, -1).mean(1).numpy()
    for total, mean in zip(sums, found, strict=True):
        np.testing.assert_allclose(mean, total / tokens, rtol=1e-4, atol=1e-7)
    assert not any(module._forward_pre_hooks for module in model.network.modules())


def wrapped(encoder: Any, context: Context) -> WhiteBox:
    model = victim(context)
    network = CodeNetwork(encoder, TaskKind.CLASSIFICATION, 2, pooling="mean")
    return WhiteBox("other", model.info, network, model.tokenizer, SMALL, context.device, context.cost)


def test_gated_and_grouped_architectures(context: Context) -> None:
    with torch.random.fork_rng():
        llama = LlamaModel(
            LlamaConfig(
                vocab_size=600,
                hidden_size=16,
                intermediate_size=20,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=2,
            )
        )
        gated = T5EncoderModel(
            T5Config(
                vocab_size=600, d_model=16, d_kv=4, d_ff=20, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
            )
        )
        small = DistilBertModel(DistilBertConfig(vocab_size=600, dim=16, hidden_dim=20, n_layers=1, n_heads=4))
    for encoder, paths in (
        (llama, ["encoder.layers.0.mlp.gate_proj", "encoder.layers.0.mlp.up_proj"]),
        (gated, [f"encoder.encoder.block.0.layer.1.DenseReluDense.wi_{i}" for i in (0, 1)]),
        (small, ["encoder.transformer.layer.0.ffn.lin1"]),
    ):
        (group,) = units_of(wrapped(encoder, context), "feed_forward")
        assert [p.name for p in group.inward] == paths
        assert group.count == 20
    # Two query heads share each value head: neither can be silenced without the other.
    with pytest.raises(ModelError, match="no attention heads that this project knows"):
        units_of(wrapped(llama, context), "heads")
    assert [(g.count, g.width) for g in units_of(wrapped(small, context), "heads")] == [(4, 4)]


def test_the_values_of_a_fused_layer_are_its_last_third(context: Context) -> None:
    with torch.random.fork_rng():
        encoder = GPT2Model(GPT2Config(vocab_size=600, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    (group,) = units_of(wrapped(encoder, context), "heads")
    (projection,) = group.inward
    assert (projection.start, projection.size, projection.stop) == (16, 8, 24)
    before = projection.module.weight.detach().clone()
    group.silence(np.array([False, True]))
    after = projection.module.weight.detach()
    assert torch.equal(after[:, :20], before[:, :20])
    assert not after[:, 20:].any()
    assert not group.outward.weight[4:].any()


def test_a_model_without_units_is_refused(context: Context) -> None:
    with pytest.raises(ModelError, match=r"'bag' \(Bag\) has no feed-forward units"):
        units_of(victim(context), "feed_forward")


def test_the_first_units_of_an_order(folders: dict[str, Path], context: Context) -> None:
    groups = units_of(opened(folders, "bert", INFOS[TaskKind.CLASSIFICATION], context), "feed_forward")
    first, second = first_units(groups, [50, 3, 0, 47], 3)
    assert np.flatnonzero(first).tolist() == [0, 3]
    assert np.flatnonzero(second).tolist() == [2]
