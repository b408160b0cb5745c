"""What a plan says before anything starts: trainings, tokens, hours at a rate, disk; and it agrees with what then happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.planning import bytes_by_kind
from bench.store import Store
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tests.engine import MODEL, run, write_suite

WINDOW = 160
assert MODEL["parameters"]["window"] == WINDOW  # type: ignore[index]


def test_a_plan_tells_trainings_tokens_and_hours_and_after_the_run_nothing_is_left(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    told = run("plan", suite, "--rate", "1000", folder=tmp_path).stdout
    tokens = 2 * 160 * WINDOW * 2  # two trainings of 160 samples, two epochs
    assert (
        f"2 trainings, {tokens:,} tokens at most: {tokens / 1000 / 3600:.1f} device hours at 1,000 tokens a second"
        in told
    )
    assert "disk" not in told.splitlines()[-1]
    assert "unmeasured" in told
    assert run("run", suite, folder=tmp_path).returncode == 0
    told = run("plan", suite, folder=tmp_path).stdout
    assert "missing: 0 stages" in told
    assert "trainings" not in told
    more = run("plan", write_suite(tmp_path, seeds=[0, 1]), folder=tmp_path).stdout
    assert re.search(r"2 trainings, [\d,]+ tokens at most; --rate TOKENS_PER_SECOND tells hours", more)
    assert re.search(r"disk: about \d+\.\d GB, by what results of the same kinds take", more)


def test_bytes_are_the_mean_over_results_of_a_kind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for place, size in enumerate((100, 300)):
        folder = store.root / "entries" / "train" / f"{place}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(bytes(size))
    assert bytes_by_kind(store) == {"train": 200.0}


@pytest.mark.parametrize(
    ("task", "samples"),
    [
        (DefectDetection(), 6000),
        (DefectDetection(train=50), 50),
        (DefectDetection(source="devign", path="x"), 21854),
        (DefectDetection(source="juliet", path="x"), None),
        (CloneDetection(source="bigclonebench", path="x"), 901028),
        (CodeSearch(), 8000),
        (CodeSearch(source="codesearchnet", path="x", language="java"), 454451),
    ],
)
def test_sizes_are_known_without_loading(task: DefectDetection, samples: int | None) -> None:
    assert task.training_samples == samples
