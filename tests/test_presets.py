"""Presets: what they fill in, what a suite may say instead, and that nothing is fetched without a full commit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

from bench.contracts import TaskKind
from bench.errors import ConfigError, ModelError
from bench.models import LoraSettings, ModelSettings, create
from bench.models.causal import load_causal
from bench.models.lora import TARGETS
from bench.models.presets import PRESETS, filled
from bench.pipeline import Builder
from bench.plugins import Registry
from bench.suite import cells, parse_suite
from tests.engine import PLUGINS, suite_content
from tests.families import on_disk
from tests.guides import blocks
from tests.models_toys import DEFECTS, context, defects, one_thread

GUIDE = Path(__file__).parents[1] / "docs" / "models.md"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LANGUAGE_MODELS = {"starcoderbase-1b", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


def of(name: str, kind: TaskKind = TaskKind.CLASSIFICATION, **stated: Any) -> ModelSettings:
    return filled(name, ModelSettings.model_validate(stated), kind)


# ------------------------------------------------------------------------------------------------------------ what stands


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_a_full_commit_and_where_it_was_read(name: str) -> None:
    preset = PRESETS[name]
    assert preset.revision is None or re.fullmatch(r"[0-9a-f]{40}", preset.revision)
    assert preset.stated_by
    assert name == name.lower()
    assert preset.architecture in (*TARGETS, "codet5p_embedding")


def test_the_guide_tells_the_same_of_every_preset() -> None:
    rows = [
        line.split(" | ")
        for line in GUIDE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `[^`]+` \| `[^`]+/", line)
    ]
    assert [row[0].strip("| `") for row in rows] == list(PRESETS)
    for row, preset in zip(rows, PRESETS.values(), strict=True):
        assert row[1] == f"`{preset.repository}`"
        assert row[2] == f"`{preset.revision}`"
        assert (row[3] == "yes") == ("lora" in preset.settings)
        assert preset.remark in row[4]


# ------------------------------------------------------------------------------------------------------------ filling in


def test_windows_and_heads_are_those_of_the_published_baselines() -> None:
    found = of("codebert")
    assert (found.window, found.query_window, found.pair_head, found.pooling) == (400, 128, "concat", "auto")
    assert of("codebert", TaskKind.SEARCH).window == 256
    assert found.revision == PRESETS["codebert"].revision
    assert of("codet5p-110m").pooling == "first"


def test_language_models_have_lora_and_the_others_only_on_request() -> None:
    assert {name for name in PRESETS if of(name).lora is not None} == LANGUAGE_MODELS
    assert of("codebert", lora=True).lora == LoraSettings()


def test_what_a_suite_states_wins() -> None:
    found = of("qwen2.5-coder-0.5b", window=64, lora=False, revision=COMMIT, pair_head="difference")
    assert (found.window, found.lora, found.revision, found.pair_head) == (64, None, COMMIT, "difference")
    assert found.query_window == 128
    assert of("codebert", revision=None).revision == PRESETS["codebert"].revision


def test_a_folder_in_place_of_the_hub_needs_no_commit() -> None:
    found = of("codebert", path="models/codebert")
    assert (found.path, found.revision, found.window) == ("models/codebert", None, 400)


def test_a_preset_without_a_known_commit_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "codebert", replace(PRESETS["codebert"], revision=None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="microsoft/codebert-base on the hub, and no full commit of it is known"):
        of("codebert")
    assert of("codebert", revision=COMMIT).revision == COMMIT
    assert of("codebert", path="here").path == "here"


def test_a_path_belongs_to_presets() -> None:
    for name in ("tiny", "some/model", "codebrt"):
        with pytest.raises(ConfigError, match="is no preset"):
            of(name, path="here")
    assert of("tiny") == ModelSettings()


# ----------------------------------------------------------------------------------------------------------------- suites


def train_model(entry: Any) -> dict[str, Any]:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    suite = parse_suite(suite_content(models=[entry], attacks=["none"]), "test")
    (graph,) = [Builder(suite).cell(plan) for plan in cells(suite, registry)]
    (stage,) = [s for s in graph.stages if s.kind == "train"]
    return dict(stage.inputs["model"])


def test_what_a_preset_fills_in_stands_in_the_key() -> None:
    model = train_model("starcoderbase-1b")
    assert model["name"] == "starcoderbase-1b"
    assert model["settings"]["revision"] == PRESETS["starcoderbase-1b"].revision
    assert model["settings"]["window"] == 400
    assert model["settings"]["lora"]["rank"] == 16


def test_full_fine_tuning_of_a_language_model_stays_full_in_the_stage() -> None:
    model = train_model("starcoderbase-1b[lora=false]")
    assert "lora" not in model["settings"]
    assert ModelSettings.model_validate(model["settings"]).lora is None


def test_the_models_of_the_guide_are_a_suite() -> None:
    (text,) = [block.text for block in blocks(GUIDE) if block.language == "yaml"]
    for entry in yaml.safe_load(text)["models"]:
        assert train_model(entry)["settings"]["batch_tokens"] == 8192


# ---------------------------------------------------------------------------------------------------------------- loading


def test_without_a_commit_nothing_is_asked_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=f"is microsoft/codebert-base .*pin it.*{PRESETS['codebert'].revision} is known"
    ):
        create("codebert", DEFECTS, (), ModelSettings(), context(tmp_path))
    with pytest.raises(ModelError, match=r"nor a folder here\. Did you mean 'codebert'\?"):
        create("codebrt", DEFECTS, (), ModelSettings(), context(tmp_path))


@pytest.mark.parametrize("revision", ["main", "v1.0", "3b0952f", COMMIT.upper()])
def test_a_branch_a_tag_or_half_a_commit_is_refused(revision: str, tmp_path: Path) -> None:
    for name in ("codebert", "some/model"):
        with pytest.raises(ModelError, match="no full commit"):
            create(name, DEFECTS, (), ModelSettings(revision=revision), context(tmp_path))
    with pytest.raises(ModelError, match="no full commit"):
        load_causal("some/model", context(tmp_path), revision=revision)


def test_a_commit_goes_to_the_hub_with_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def configuration(source: str, where: dict[str, Any]) -> Any:
        asked.append((source, where))
        raise OSError("no network")

    monkeypatch.setattr("bench.models.encoders.configuration", configuration)
    with pytest.raises(
        ModelError, match=f"hub model microsoft/unixcoder-base@{PRESETS['unixcoder'].revision} does not load"
    ):
        create("unixcoder", DEFECTS, (), of("unixcoder"), context(tmp_path))
    assert asked == [("microsoft/unixcoder-base", {"revision": PRESETS["unixcoder"].revision})]


@pytest.mark.parametrize("name", ["codebert", "codet5-base", "starcoderbase-1b", "qwen2.5-coder-0.5b"])
def test_tokens_are_those_of_the_published_class(name: str, tmp_path: Path) -> None:
    place = on_disk(name, tmp_path / "weights")
    model = create(name, DEFECTS, (), of(name, path=str(place), window=60, query_window=8), context(tmp_path))
    reference = AutoTokenizer.from_pretrained(place)
    texts = [s.programs[0] for s in defects(5)] + ["x = 'é' + 12345\n\n"]
    assert model.token_ids(texts) == [reference(text)["input_ids"][:60] for text in texts]


def test_the_conversion_of_the_guide_makes_a_folder_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = on_disk("codet5p-110m", tmp_path / "weights")
    settings = of("codet5p-110m", path=str(place), window=60, query_window=8)
    before = create("codet5p-110m", DEFECTS, (), settings, context(tmp_path)).predict(defects(4))
    weights = load_file(place / "model.safetensors")
    torch.save({**weights, "encoder.embed_tokens.weight": weights["shared.weight"]}, place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="is a pickle, which can run code"):
        create("codet5p-110m", DEFECTS, (), settings, context(tmp_path))
    (snippet,) = [block.text for block in blocks(GUIDE) if block.language == "python"]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(place))
    exec(compile(snippet, "models.md", "exec"), {})
    assert not (place / "pytorch_model.bin").exists()
    np.testing.assert_array_equal(
        create("codet5p-110m", DEFECTS, (), settings, context(tmp_path)).predict(defects(4)), before
    )
