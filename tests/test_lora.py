"""LoRA: what is trained, what is left alone, what is stored, and what the keys of older results say of it (nothing)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from bench.context import Context, Cost
from bench.contracts import Known, TaskKind
from bench.errors import ConfigError, ModelError
from bench.models import (
    CodeNetwork,
    LoraSettings,
    ModelSettings,
    Tokens,
    Trainer,
    TrainingSettings,
    WhiteBox,
    create,
    load,
)
from bench.models.encoders import blank_encoder, make_network
from bench.models.lora import TARGETS, Adapters, chosen
from bench.models.training import LORA_RATE, PRETRAINED_RATE
from bench.pipeline import Builder
from bench.plugins import Registry
from bench.suite import cells, parse_suite
from defenses.repair.fine_pruning import FinePruning
from defenses.repair.fine_tuning import FineTuning
from defenses.repair.nad import NAD
from defenses.training.btu import BTU
from defenses.tuning.units import units_of
from tests.engine import MODEL, PLUGINS, suite_content
from tests.families import on_disk
from tests.inversion_toys import known
from tests.models_toys import DEFECTS, INFOS, SEARCH, TOYS, context, defects, one_thread

LORA = LoraSettings(rank=4, alpha=8)
WINDOW = ModelSettings(window=48, query_window=12, dropout=0.0, lora=LORA)
RATE = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.01)
FAMILIES = ("codebert", "codet5-base", "starcoderbase-1b", "qwen2.5-coder-0.5b")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: on_disk(name, tmp_path_factory.mktemp(name.replace(".", "_"))) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(
    folder: Path, tmp_path: Path, settings: ModelSettings = WINDOW, kind: TaskKind = TaskKind.CLASSIFICATION
) -> WhiteBox:
    return create(str(folder), INFOS[kind], (), settings, context(tmp_path))


def trainer_in(tmp_path: Path, seed: int = 0, valid: Sequence[Any] = ()) -> Trainer:
    return Trainer(RATE, valid, context(tmp_path, seed))


def own_weights(encoder: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in encoder.named_parameters()}


# -------------------------------------------------------------------------------------------------------------- training


def test_until_they_are_merged_adapters_leave_the_encoders_weights_as_they_were(
    folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    model = opened(folders[family], tmp_path)
    before, steps = own_weights(model.network.encoder), []

    def watch(network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]) -> Tensor:
        for name, weight in network.encoder.named_parameters():
            plain = name.replace(".base_layer", "")
            if "lora_" in name:
                assert weight.requires_grad
            else:
                assert not weight.requires_grad
                assert torch.equal(weight, before[plain])
        assert all(p.requires_grad for p in network.head_parameters())
        steps.append(len(sides))
        return objective(network(*sides))

    trained = trainer_in(tmp_path).fit(model, defects(24), axis="training", step=watch)
    assert len(steps) == 6
    after = own_weights(trained.network.encoder)
    assert set(after) == set(before)
    adapted = {f"{name}.weight" for name in chosen(model.network.encoder, LORA)}
    assert {name for name in after if not torch.equal(after[name], before[name])} == adapted
    for name in adapted:
        change = (after[name] - before[name]).double()
        assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-4) <= LORA.rank
    assert all(p.requires_grad and p.grad is None for p in trained.network.parameters())


def test_merging_changes_no_output(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    model = opened(folders[family], tmp_path)
    plain = model.predict(defects(6))
    adapters = Adapters(model.network.encoder, LORA, seed=3)
    np.testing.assert_array_equal(model.predict(defects(6)), plain)  # their product is zero at first
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.network.encoder.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    adapted = model.predict(defects(6))
    assert np.abs(adapted - plain).max() > 1e-3
    adapters.merge()
    np.testing.assert_allclose(model.predict(defects(6)), adapted, atol=2e-5)
    assert not any("lora" in name for name, _ in model.network.named_modules())


def test_a_fit_depends_on_the_seed_of_its_axis_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    model = opened(folders["qwen2.5-coder-0.5b"], tmp_path)

    def trained(seed: int) -> str:
        torch.manual_seed(seed + 50)
        state = torch.get_rng_state()
        found = trainer_in(tmp_path, seed).fit(model, defects(16), axis="training").fingerprint()
        assert torch.equal(torch.get_rng_state(), state)
        return found

    assert trained(0) == trained(0) != trained(1)


def test_a_second_fit_starts_from_new_adapters_on_merged_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    model, trainer = opened(folders["starcoderbase-1b"], tmp_path), trainer_in(tmp_path)
    once = trainer.fit(model, defects(16), axis="training")
    before = once.fingerprint()
    twice = trainer.fit(once, defects(16, seed=1), axis="training")
    assert once.fingerprint() == before != twice.fingerprint()
    assert set(twice.network.state_dict()) == set(model.network.state_dict())


def test_the_epoch_that_is_best_on_validation_data_comes_back(folders: dict[str, Path], tmp_path: Path) -> None:
    model, valid = opened(folders["codebert"], tmp_path), defects(20, seed=5)
    trainer = trainer_in(tmp_path, valid=valid)
    trained = trainer.fit(model, defects(32), axis="training", epochs=4)
    (best,) = [row for row in trainer.history if row["chosen"]]
    assert trainer.metric(trained, valid) == pytest.approx(best["accuracy"])


def test_head_and_embedding_fits_use_no_adapters(folders: dict[str, Path], tmp_path: Path) -> None:
    model = opened(folders["qwen2.5-coder-0.5b"], tmp_path)
    for parameters, moved in (("head", "head."), ("embedding", "encoder.embed_tokens")):
        trained = trainer_in(tmp_path).fit(model, defects(16), axis="training", parameters=parameters)  # type: ignore[arg-type]
        old = model.network.state_dict()
        changed = {k for k, v in trained.network.state_dict().items() if not torch.equal(v, old[k])}
        assert changed
        assert all(name.startswith(moved) for name in changed)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_every_kind_of_task_trains_and_counts_its_cost(
    folders: dict[str, Path], kind: TaskKind, tmp_path: Path
) -> None:
    model = opened(folders["starcoderbase-1b"], tmp_path, kind=kind)
    made = context(tmp_path)
    trained = Trainer(RATE, (), made).fit(model, TOYS[kind](16), axis="training")
    assert trained.fingerprint() != model.fingerprint()
    assert made.cost.forward_tokens == made.cost.backward_tokens > 0


def test_a_repair_that_fine_tunes_does_so_with_adapters_too(folders: dict[str, Path], tmp_path: Path) -> None:
    made = Context({"defense": 0, "model": 0}, tmp_path)
    made.trainer = Trainer(RATE, (), made)
    model = opened(folders["qwen2.5-coder-0.5b"], tmp_path)
    repaired = FineTuning(clean=16, epochs=1).repair(known(model, defects(16)), DEFECTS, made).model
    old, adapted = model.network.state_dict(), {f"encoder.{n}.weight" for n in chosen(model.network.encoder, LORA)}
    changed = {k for k, v in repaired.network.state_dict().items() if not torch.equal(v, old[k])}
    assert {name for name in changed if name.startswith("encoder.")} == adapted
    assert repaired.settings.lora == LORA


@pytest.mark.parametrize("targets", [("up_proj", "down_proj"), ("gate_proj", "up_proj", "down_proj")])
def test_what_was_pruned_stays_so_where_adapters_stand_on_the_units_layers(
    folders: dict[str, Path], tmp_path: Path, targets: tuple[str, ...]
) -> None:
    lora = LORA.model_copy(update={"targets": targets})
    model = opened(folders["qwen2.5-coder-0.5b"], tmp_path, WINDOW.model_copy(update={"lora": lora}))
    plugin = FinePruning(clean=40, step=0.25, drop=0.99, epochs=1)
    work = context(tmp_path)
    work.trainer = trainer_in(tmp_path)
    repaired = plugin.repair(known(model, defects(40)), DEFECTS, work)
    silent = sum(int((group.outward.weight == 0).all(0).sum()) for group in units_of(repaired.model, "feed_forward"))
    assert silent == repaired.facts["pruned"] > 0


def test_attention_is_distilled_through_adapters_on_feed_forward_layers(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    lora = LORA.model_copy(update={"targets": ("up_proj", "down_proj")})
    model = opened(folders["qwen2.5-coder-0.5b"], tmp_path, WINDOW.model_copy(update={"lora": lora}))
    plugin = NAD(clean=16, teacher_epochs=1, epochs=1)
    work = context(tmp_path)
    work.trainer = trainer_in(tmp_path)
    repaired = plugin.repair(known(model, defects(16)), DEFECTS, work)
    assert repaired.model.fingerprint() != model.fingerprint()


def test_btu_refuses_a_model_whose_table_adapters_leave_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    model = opened(folders["codebert"], tmp_path)
    plugin = BTU(clean=0)
    work = context(tmp_path)
    work.trainer = trainer_in(tmp_path)
    with pytest.raises(ModelError, match=r"adapters \(lora\) leave those of .*nothing to take"):
        plugin.train(model, Known(plugin.needs, _training=tuple(defects(16))), DEFECTS, work)


def test_adapters_have_a_learning_rate_of_their_own(folders: dict[str, Path], tmp_path: Path) -> None:
    model = opened(folders["codebert"], tmp_path)
    plain = opened(folders["codebert"], tmp_path, WINDOW.model_copy(update={"lora": None}))
    silent = Trainer(TrainingSettings(), (), context(tmp_path))
    assert (silent.learning_rate(model), silent.learning_rate(plain)) == (LORA_RATE, PRETRAINED_RATE)
    assert silent.learning_rate(model, adapters=False) == PRETRAINED_RATE
    assert trainer_in(tmp_path).learning_rate(model) == RATE.learning_rate


# --------------------------------------------------------------------------------------------------------------- storage


def test_a_stored_model_is_an_ordinary_one_and_needs_no_peft(
    folders: dict[str, Path], family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = trainer_in(tmp_path).fit(opened(folders[family], tmp_path), defects(16), axis="training")
    trained.save(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "model.safetensors",
        "model.json",
        "tokenizer.json",
    }
    assert "lora_" not in json.dumps(sorted(trained.network.state_dict()))
    monkeypatch.setitem(sys.modules, "peft", None)
    back = load(tmp_path / "kept", DEFECTS, torch.device("cpu"), Cost())
    assert back.settings.lora == LORA  # it says how it was trained
    assert back.fingerprint() == trained.fingerprint()
    np.testing.assert_array_equal(back.predict(defects(6)), trained.predict(defects(6)))


@pytest.mark.parametrize("told", [True, False])
def test_a_folder_that_holds_an_adapter_is_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = AutoModel.from_pretrained(folders["codebert"])
    for source in folders["codebert"].iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    get_peft_model(model, LoraConfig(target_modules=["query"])).save_pretrained(str(tmp_path))
    if not told:  # as from the hub, where no folder is looked at first
        monkeypatch.setattr("bench.models.encoders.check_folder", lambda folder: None)
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_config" if told else "comes with an adapter"):
        opened(tmp_path, tmp_path)


# ---------------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("kind", sorted(TARGETS))
def test_the_layers_of_auto_exist_in_their_architecture(kind: str) -> None:
    with torch.device("meta"):
        encoder = AutoModel.from_config(AutoConfig.for_model(kind))
    for target in TARGETS[kind]:
        found = chosen(encoder, LoraSettings(targets=(target,)))
        assert len(found) >= encoder.config.num_hidden_layers
    assert len(chosen(encoder, LoraSettings())) == sum(
        len(chosen(encoder, LoraSettings(targets=(t,)))) for t in TARGETS[kind]
    )


def test_targets_can_be_named_by_the_end_of_their_path(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = opened(folders["codebert"], tmp_path).network.encoder
    assert chosen(encoder, LoraSettings(targets=("attention.output.dense",))) == [
        f"encoder.layer.{i}.attention.output.dense" for i in (0, 1)
    ]
    assert len(chosen(encoder, LoraSettings(targets=("dense",)))) == 6
    with pytest.raises(
        ModelError, match=r"no linear layer of this 'roberta' model is called 'quary'\. Did you mean 'query'"
    ):
        chosen(encoder, LoraSettings(targets=("query", "quary")))


def test_an_architecture_without_known_layers_asks_for_their_names() -> None:
    encoder = blank_encoder({"model_type": "albert", "hidden_size": 8, "embedding_size": 8, "num_attention_heads": 1,
                             "intermediate_size": 8, "vocab_size": 20}, "first")  # fmt: skip
    with pytest.raises(ModelError, match=r"architecture 'albert'; name some in 'targets'. There is: .*query"):
        chosen(encoder, LoraSettings())
    network = make_network(encoder, SEARCH, WINDOW, "first")
    assert Adapters(network.encoder, LoraSettings(targets=("query",)), 0).trained > 0


def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def gone(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", gone)
    with pytest.raises(ConfigError, match=r"pip install 'codebackdoorbench\[lora\]'"):
        Adapters(
            blank_encoder({"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "vocab_size": 9}, "last"),
            LORA,
            0,
        )


# --------------------------------------------------------------------------------------------------------------- settings


def test_settings_take_a_switch_or_a_block_and_refuse_nonsense() -> None:
    assert ModelSettings.model_validate({"lora": True}).lora == LoraSettings()
    assert ModelSettings.model_validate({"lora": False}).lora is None
    assert ModelSettings.model_validate({"lora": {"rank": 2, "targets": ["query"]}}).lora == LoraSettings(
        rank=2, targets=("query",)
    )
    for wrong in ({"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": []}, {"targets": "all"}, {"ranks": 3}):
        with pytest.raises(ValueError, match="lora"):
            ModelSettings.model_validate({"lora": wrong})
    full = ModelSettings(lora=LoraSettings(targets=("q", "v")))
    assert ModelSettings.model_validate(full.model_dump(mode="json")) == full


def train_inputs(**parameters: Any) -> dict[str, Any]:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    model = MODEL | {"parameters": {**MODEL["parameters"], **parameters}}  # type: ignore[dict-item]
    suite = parse_suite(suite_content(models=[model], attacks=["none"]), "test")
    builder = Builder(suite)
    (graph,) = [builder.cell(plan) for plan in cells(suite, registry)]
    (stage,) = [s for s in graph.stages if s.kind == "train"]
    return dict(stage.inputs)


def test_the_key_of_a_model_without_lora_is_as_before_there_was_any() -> None:
    inputs = train_inputs()
    assert inputs["model"] == {
        "name": "tiny",
        "settings": {
            "window": 160, "query_window": 32, "pooling": "auto", "pair_head": "difference", "layers": 1, "hidden": 32, "heads": 2,
            "vocabulary": 300, "dropout": 0.1, "revision": None, "batch_tokens": 8192,
        },
    }  # fmt: skip
    assert set(inputs["numerics"]) == {"device", "threads", "torch", "transformers"}


def test_the_key_of_a_model_with_lora_holds_its_settings_and_the_version_of_peft() -> None:
    inputs = train_inputs(lora={"rank": 2})
    assert inputs["model"]["settings"]["lora"] == {"rank": 2, "alpha": 32.0, "dropout": 0.05, "targets": "auto"}
    assert inputs["numerics"]["peft"]
