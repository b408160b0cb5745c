"""Computing in bfloat16: near to float32, never mistaken for it, and gone when the stage is over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bench.contracts import TaskKind
from bench.models import Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.models.causal import load_causal
from bench.models.precision import computing_in, resolve_precision
from bench.models.prefixes import variant_log_likelihoods
from bench.pipeline import Builder
from bench.plugins import Registry
from bench.stages import _numerics
from bench.suite import cells, parse_suite
from tests.causal_toys import BUILDERS, TEXTS, save
from tests.engine import PLUGINS, run, suite_content, write_suite
from tests.models_toys import INFOS, SMALL, TOYS, context, defects, one_thread

STEP = 2.0**-8
"""The relative size of a rounding to bfloat16."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


def made(folder: Path, kind: TaskKind = TaskKind.CLASSIFICATION) -> WhiteBox:
    return create("tiny", INFOS[kind], TOYS[kind](40), SMALL, context(folder))


def outputs(model: WhiteBox, kind: TaskKind) -> np.ndarray[Any, Any]:
    samples = TOYS[kind](20)
    return model.embed_programs(samples) if kind is TaskKind.SEARCH else model.predict(samples)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_outputs_are_float32_and_near_those_of_float32(tmp_path: Path, kind: TaskKind) -> None:
    model = made(tmp_path, kind)
    exact = outputs(model, kind)
    with computing_in("bfloat16"):
        lowered = outputs(model, kind)
    assert lowered.dtype == np.float32
    assert 0 < np.abs(exact - lowered).max() < 20 * STEP * np.abs(exact).max()
    assert np.array_equal(outputs(model, kind), exact), "it ends with its block"


def test_the_weights_stay_float32_and_untouched(tmp_path: Path) -> None:
    model = made(tmp_path)
    before = model.fingerprint()
    with computing_in("bfloat16"):
        model.predict(defects(8))
    assert model.fingerprint() == before
    assert {value.dtype for value in model.network.state_dict().values() if value.is_floating_point()} == {
        torch.float32
    }


def slopes(model: WhiteBox) -> Tensor:
    """The loss's gradient at the input embeddings, as inversion asks for it."""
    tokens = model.tokenize([sample.programs[0] for sample in defects(8)])
    leaf = model.network.embedding(tokens.ids).detach().requires_grad_()
    logits = model.network.logits(Tokens(tokens.ids, tokens.mask, leaf))
    (found,) = torch.autograd.grad(functional.cross_entropy(logits, torch.arange(8) % 2), leaf)
    return found


def test_gradients_at_the_embeddings_are_float32_and_point_the_same_way(tmp_path: Path) -> None:
    model = made(tmp_path)
    exact = slopes(model)
    with computing_in("bfloat16"):
        lowered = slopes(model)
    assert lowered.dtype == torch.float32
    assert not torch.equal(exact, lowered)
    assert float(functional.cosine_similarity(exact.flatten(), lowered.flatten(), dim=0)) > 0.99


def test_training_in_bfloat16_learns_what_float32_learns(tmp_path: Path) -> None:
    model, lent = made(tmp_path), context(tmp_path)
    trainer = Trainer(TrainingSettings(epochs=5, batch_size=16, learning_rate=5e-3), (), lent)
    exact = trainer.fit(model, defects(240), axis="training")
    with computing_in("bfloat16"):
        lowered = trainer.fit(model, defects(240), axis="training")
        assert trainer.metric(lowered, defects(80, seed=1)) > 0.95
    assert lowered.fingerprint() != exact.fingerprint()
    assert trainer.metric(exact, defects(80, seed=1)) > 0.95


@pytest.mark.parametrize("kind", BUILDERS)
def test_causal_scores_are_near_those_of_float32(tmp_path: Path, kind: str) -> None:
    model = load_causal(str(save(kind, tmp_path / "model")), context(tmp_path))
    rows = model.token_ids([text for text in TEXTS if text])
    variants = [[token for place, token in enumerate(rows[0]) if place != gone] for gone in range(len(rows[0]))]
    exact = np.concatenate(model.token_log_probabilities(rows)), variant_log_likelihoods(model, rows[0], variants)
    with computing_in("bfloat16"):
        lowered = np.concatenate(model.token_log_probabilities(rows)), variant_log_likelihoods(model, rows[0], variants)
    for one, other in zip(exact, lowered, strict=True):
        assert 0 < np.abs(one - other).max() < 20 * STEP * np.abs(one).max()


def test_auto_is_bfloat16_only_on_a_graphics_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"
    for has_it, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has_it=has_it: has_it)
        assert resolve_precision("auto", "cuda") == expected
        assert resolve_precision("float32", "cuda") == "float32"


def keys(**changes: Any) -> tuple[dict[str, str], dict[str, Any]]:
    registry = Registry().discover()
    registry.add_file(PLUGINS)
    suite = parse_suite(suite_content(attacks=["none"], **changes), "test")
    (plan,) = cells(suite, registry)
    stages = Builder(suite).cell(plan).stages
    return {stage.kind: stage.key for stage in stages}, dict(cast(Any, stages[-1]).inputs)


def test_the_type_stands_in_every_key_that_depends_on_it_and_in_no_other() -> None:
    plain, _ = keys()
    assert keys(precision="float32")[0] == keys(precision="auto")[0] == plain
    lowered, inputs = keys(precision="bfloat16")
    assert lowered["data"] == plain["data"]
    assert all(lowered[kind] != plain[kind] for kind in ("train", "predict", "score"))
    assert inputs["settings"]["numerics"]["dtype"] == "bfloat16"


def test_a_cell_in_bfloat16_says_so_in_its_record(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, attacks=["none"], precision="bfloat16")
    done = run("run", suite, "-j", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results" / "toy" / "cells").glob("*.json")
    record = json.loads(path.read_text())
    assert (record["status"], record["dtype"], record["device"]) == ("ok", "bfloat16", "cpu")


@pytest.mark.parametrize(
    ("device", "before", "after"), [("cuda", None, ":4096:8"), ("cuda", ":16:8", ":16:8"), ("cpu", None, None)]
)
def test_products_on_cuda_get_the_workspace_that_makes_them_deterministic(
    monkeypatch: pytest.MonkeyPatch, device: str, before: str | None, after: str | None
) -> None:
    """Set before anything of the stage touches the device; whoever has set it knows better."""
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, before or "")  # so that it is put back whatever happens
    if before is None:
        monkeypatch.delenv(name)
    with _numerics({"device": device, "threads": 1}) as given:
        assert given.type == device
        assert os.environ.get(name) == after


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_products_of_float32_are_whole_in_every_stage_whatever_was_left_behind(before: str) -> None:
    """A plugin, or TORCH_ALLOW_TF32_CUBLAS_OVERRIDE: ``medium`` is bfloat16, on processors too."""
    left = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(before)
        with _numerics({"device": "cpu", "threads": 1}):
            assert torch.get_float32_matmul_precision() == "highest"
            torch.set_float32_matmul_precision("medium")  # a plugin's doing
        assert torch.get_float32_matmul_precision() == before
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        with _numerics({"device": "cpu", "threads": 1}):
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() in (before, "highest"), (
            "for one kind of device alone there may be no word"
        )
    finally:
        torch.set_float32_matmul_precision(left)


@pytest.mark.parametrize(("device", "after"), [("cuda", None), ("cpu", "1")])
def test_tf32_is_not_forced_on_a_device(monkeypatch: pytest.MonkeyPatch, device: str, after: str | None) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with _numerics({"device": device, "threads": 1}):
        assert os.environ.get("NVIDIA_TF32_OVERRIDE") == after
