"""A training that diverges fails by name, and is tried once more with another seed only where the suite allows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize("allowed", [False, True])
def test_results_from_before_the_option_keep_their_keys(allowed: bool) -> None:
    dumped = TrainingSettings(retry_diverged=allowed).model_dump(mode="json")
    assert ("retry_diverged" in dumped) == allowed
    assert TrainingSettings.model_validate(dumped).retry_diverged == allowed
