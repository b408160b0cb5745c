"""The embedded data of the committed boards are still made as they were: their digests stand in the records.

What rewrites and renames programs is used to make data, too, so that a mend there may change a set under its old key.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest

from bench.context import Context
from bench.plugins import Registry
from bench.suite import CellPlan, cells, load_suite
from tasks.sources import installed
from tasks.sources.origin import UNTOLD

COMMITTED = ("quickstart", "attacks", "attack_curves", "clean_label", "inversion", "defenses", "laptop")


def stated(suite: str, task: str) -> set[str]:
    """What the records of a suite say of a task's data."""
    records = (json.loads(path.read_text()) for path in Path("results", suite, "cells").glob("*.json"))
    return {r["data_digest"] for r in records if r["coordinates"]["task"] == task and r["data_digest"]}


@lru_cache
def sets() -> dict[tuple[str, str], tuple[CellPlan, frozenset[tuple[str, str]]]]:
    """Each set of data that some suite asks for, and the (suite, task) that do; by the first of these."""
    registry = Registry().discover()
    found: dict[str, tuple[CellPlan, set[tuple[str, str]]]] = {}
    for suite in COMMITTED:
        for plan in cells(load_suite(suite), registry):
            which = f"{plan.task!r} {plan.seeds['data']}"
            found.setdefault(which, (plan, set()))[1].add((suite, plan.coordinates.task))
    return {min(asked): (plan, frozenset(asked)) for plan, asked in found.values()}


# Looked up when a test runs: to read all suites takes seconds, in every process that collects tests.
SETS = [
    ("attack_curves", "defect_detection"),
    ("attacks", "clone_detection"),
    ("attacks", "code_search"),
    ("defenses", "clone_detection"),
    ("defenses", "code_search"),
    ("defenses", "defect_detection"),
    ("quickstart", "defect_detection"),
]


@pytest.mark.slow
def test_no_set_is_missing_here() -> None:
    assert sorted(sets()) == SETS


@pytest.mark.slow
@pytest.mark.parametrize("which", SETS, ids="-".join)
def test_the_data_of_committed_records_are_made_again_as_they_were(which: tuple[str, str], tmp_path: Path) -> None:
    others = {name: version for name, version in installed.versions().items() if UNTOLD.get(name) != version}
    if others:
        pytest.skip(f"made from other packages: {others}")
    plan, asked = sets()[which]
    digests = set().union(*(stated(suite, task) for suite, task in asked))
    assert digests == {plan.task.splits(Context({"data": plan.seeds["data"]}, tmp_path)).digest()}
