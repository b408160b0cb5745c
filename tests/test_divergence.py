"""A training that diverges fails by name, and is tried once more with another seed only where the suite allows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import PluginError
from bench.jobs import save_model
from bench.models.settings import TrainingSettings
from tests.engine import run, write_suite

TRAINING = {"epochs": 1, "learning_rate": 0.005, "batch_size": 16}


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in (folder / "results" / "toy" / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        found[record["coordinates"]["defense"]] = record
    return found


def finished(folder: Path, **training: Any) -> tuple[str, dict[str, dict[str, Any]]]:
    defenses = ["none", "unlucky", {"name": "unlucky", "label": "hopeless", "parameters": {"always": True}}]
    suite = write_suite(folder, attacks=["none"], defenses=defenses, training={**TRAINING, **training})
    done = run("run", suite, folder=folder)
    return done.stdout + done.stderr, records(folder)


def test_divergence_fails_its_cell_alone_and_names_the_remedy(tmp_path: Path) -> None:
    _, found = finished(tmp_path)
    assert {name: record["status"] for name, record in found.items()} == {
        "none": "ok",
        "unlucky": "failed",
        "hopeless": "failed",
    }
    assert "not finite" in found["unlucky"]["reason"]
    assert "retry_diverged" in found["unlucky"]["reason"]


def test_where_the_suite_allows_it_the_next_seed_is_tried_once_and_the_record_says_so(tmp_path: Path) -> None:
    _, found = finished(tmp_path, retry_diverged=True)
    assert {name: record["status"] for name, record in found.items()} == {
        "none": "ok",
        "unlucky": "ok",
        "hopeless": "failed",
    }
    said = "trained again after it diverged"
    assert found["unlucky"]["facts"][said] == ["defended"]
    assert said not in found["none"]["facts"], "the undefended victim was trained once"
    assert found["unlucky"]["seeds"]["training"] == found["none"]["seeds"]["training"], "the cell is still that seed's"


HOPELESS = {"name": "stumbling", "label": "hopeless", "parameters": {"always": True}}
LATE = ["none", "stumbling", HOPELESS, "stumbling_repair"]


def stumbled(folder: Path, **training: Any) -> dict[str, dict[str, Any]]:
    """Trainings whose loss is NaN in the second epoch, and whose weights are those of the first."""
    suite = write_suite(folder, attacks=["none"], defenses=LATE, training={**TRAINING, **training})
    run("run", suite, folder=folder)
    return records(folder)


def test_a_loss_that_is_nan_after_the_best_epoch_is_divergence_too(tmp_path: Path) -> None:
    found = stumbled(tmp_path)
    assert {name: record["status"] for name, record in found.items()} == {
        "none": "ok",
        "stumbling": "failed",
        "hopeless": "failed",
        "stumbling_repair": "failed",
    }
    assert "training diverged: the loss of epoch 2 is not finite (nan)" in found["stumbling"]["reason"]
    assert "retry_diverged" in found["stumbling"]["reason"]
    assert "Its training diverged: the loss of epoch 2 is not finite" in found["stumbling_repair"]["reason"]


def test_such_a_training_is_tried_again_where_the_suite_allows_it(tmp_path: Path) -> None:
    found = stumbled(tmp_path, retry_diverged=True)
    assert {name: record["status"] for name, record in found.items()} == {
        "none": "ok",
        "stumbling": "ok",
        "hopeless": "failed",
        "stumbling_repair": "failed",
    }
    assert found["stumbling"]["facts"]["trained again after it diverged"] == ["defended"]
    assert "diverged, with the next training seed too: the loss of epoch 2" in found["hopeless"]["reason"]
    assert "retry_diverged" not in found["hopeless"]["reason"], "it was allowed, and done"
    first = [
        told["diverged"]
        for path in (tmp_path / "store" / "entries" / "train").glob("*/facts.json")
        if "diverged" in (told := json.loads(path.read_text()))
    ]
    assert [[row["epoch"] for row in history] for history in first] == [[1, 2]]
    assert first[0][1]["loss"] == "nan", "JSON has no such number"


def test_methods_that_train_for_themselves_are_not_told_of_an_option_that_does_nothing_for_them(tmp_path: Path) -> None:
    class Model:
        network = torch.nn.Linear(2, 2)

    Model.network.bias.data[0] = float("inf")
    for maker in ("repair 'fine_tuning'", "attack 'lm_snippet'"):
        with pytest.raises(PluginError, match=r"not finite .*'bias'.*Lower its learning rate") as raised:
            save_model(Model(), tmp_path, maker)  # type: ignore[arg-type]
        assert "retry_diverged" not in str(raised.value)


@pytest.mark.parametrize("allowed", [False, True])
def test_results_from_before_the_option_keep_their_keys(allowed: bool) -> None:
    dumped = TrainingSettings(retry_diverged=allowed).model_dump(mode="json")
    assert ("retry_diverged" in dumped) == allowed
    assert TrainingSettings.model_validate(dumped).retry_diverged == allowed
