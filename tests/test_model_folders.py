"""Other weights in the same folder are another result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import models, stages
from bench.errors import DataError, ModelError
from bench.jobs import Job, Stage, Workshop
from bench.models.folders import digest_of_folder, local_folder
from bench.pipeline import Builder, _plugin_json, merge
from bench.plugins import Registry
from bench.stages import run_stage
from bench.store import Store
from bench.suite import cells, parse_suite
from tests.engine import MODEL, PLUGINS, suite_content


def train_keys(model: object) -> set[str]:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    suite = parse_suite(suite_content(models=[model]), "test")
    stages = merge([Builder(suite).cell(plan) for plan in cells(suite, registry)])
    return {key for key, stage in stages.items() if stage.kind == "train"}


def test_a_folders_digest_is_of_names_and_bytes_and_not_of_its_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
    assert digest_of_folder(one) == digest_of_folder(two)
    before = digest_of_folder(two)
    (two / "model.safetensors").write_bytes(b"weightz")
    assert digest_of_folder(two) != before
    (one / "model.safetensors").rename(one / "other.safetensors")
    assert digest_of_folder(one) != before
    assert digest_of_folder(tmp_path / "none") is None


def test_only_models_of_a_folder_have_one(tmp_path: Path) -> None:
    assert local_folder("tiny", None) is None
    assert local_folder("codebert", None) is None
    assert local_folder("some-owner/some-model", None) is None
    assert local_folder("codebert", str(tmp_path)) == tmp_path
    assert local_folder(str(tmp_path), None) == tmp_path


def test_other_weights_in_the_same_folder_change_the_key(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    model = {"name": str(tmp_path), "label": "mine"}
    first = train_keys(model)
    assert train_keys(model) == first
    (tmp_path / "model.safetensors").write_bytes(b"two, longer")
    assert not train_keys(model) & first
    assert train_keys(MODEL) == train_keys(MODEL)


@pytest.mark.parametrize(
    ("axis", "kind", "plugin"),
    [
        ("attacks", "poison", {"name": "lm_snippet", "parameters": {"prefix": "spare ="}}),
        ("defenses", "screen", {"name": "onion"}),
        ("defenses", "screen", {"name": "codepurify", "of": "repair"}),
        ("defenses", "screen", {"name": "attdef", "of": "validator"}),
    ],
)
def test_other_weights_in_the_folder_of_a_plugins_model_change_its_key(
    tmp_path: Path, axis: str, kind: str, plugin: dict[str, Any]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    size = {} if axis == "attacks" else {"clean": 20}
    parameters = {**plugin.get("parameters", {}), **size, plugin.get("of", "model"): str(tmp_path)}
    suite = parse_suite(suite_content(**{axis: ["none", {"name": plugin["name"], "parameters": parameters}]}), "test")
    registry = Registry().discover()
    registry.add_file(PLUGINS)

    def keys() -> set[str]:
        stages = merge([Builder(suite).cell(plan) for plan in cells(suite, registry)])
        return {key for key, stage in stages.items() if stage.kind == kind and str(tmp_path) in str(stage.inputs)}

    first = keys()
    assert first
    assert keys() == first
    (tmp_path / "model.safetensors").write_bytes(b"two, longer")
    assert keys()
    assert not keys() & first


@pytest.mark.parametrize("when", ["before it is read", "while it is read", "gone"])
def test_weights_that_are_replaced_while_a_suite_runs_are_not_published_under_the_old_key(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"one")
    suite = parse_suite(suite_content(models=[{"name": str(folder), "label": "mine"}], attacks=["none"]), "test")
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    stages = list(merge([Builder(suite).cell(plan) for plan in cells(suite, registry)]).values())
    workshop = Workshop(Store(tmp_path / "store"), registry)
    data, train = (next(stage for stage in stages if stage.kind == kind) for kind in ("data", "train"))
    run_stage(data, workshop)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        run_stage(train, workshop)  # it is what it was: no word of other files

    def replaced(*_: object) -> None:
        (folder / "model.safetensors").write_bytes(b"two, longer")

    if when == "before it is read":
        replaced()
    elif when == "gone":
        folder.rename(tmp_path / "elsewhere")
    else:
        monkeypatch.setattr(models, "create", replaced)
    with pytest.raises(ModelError, match=r"model: it is not what this run was planned with \((sha256|no such folder)"):
        run_stage(train, workshop)
    assert not workshop.store.has("train", train.key)


@pytest.mark.parametrize("when", ["before it is read", "while it is read", "gone", "of no folder"])
def test_the_folder_of_a_plugins_model_is_the_planned_one_when_its_stage_runs(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    workshop = Workshop(Store(tmp_path / "store"), Registry().discover())
    plugin = workshop.registry.build("screen", "onion", {"model": str(folder)})
    use = {name: value for name, value in _plugin_json(plugin).items() if when != "of no folder" or name != "origin"}
    assert ("origin" in use) == (when != "of no folder")
    stage = Stage("screen", {"defense": use})

    def replaced(*_: object) -> None:
        (folder / "model.safetensors").write_bytes(b"two, longer")

    def runs(job: Job) -> None:
        job.plugin("defense")
        if when == "while it is read":
            replaced()

    monkeypatch.setattr(stages, "STAGES", {"screen": runs})
    if when == "before it is read":
        replaced()
    elif when == "gone":
        folder.rename(tmp_path / "elsewhere")
    told = r"\(planned: (sha256 [0-9a-f]{12}|none), here: (sha256 [0-9a-f]{12}|none)\)"
    message = rf"screen 'onion', {folder}: model is not what this run was planned with {told}"
    with pytest.raises(DataError, match=message):
        run_stage(stage, workshop)
    assert not workshop.store.has("screen", stage.key)
