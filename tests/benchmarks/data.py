"""How long the embedded data take to build."""

from __future__ import annotations

import time
from pathlib import Path

from bench.context import Context
from bench.contracts import Task
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tests.benchmarks import Measure

SIZES = {"train": 7000, "valid": 500, "budget": 1000, "test": 1500}


def run() -> list[Measure]:
    """Build 10,000 samples of each task.

    Returns:
        Seconds by task: the aim is to stay below the limit on an idle machine of two cores.
    """
    rows = []
    kinds: list[type[Task]] = [DefectDetection, CloneDetection, CodeSearch]
    for kind in kinds:
        task = kind(**SIZES)
        start = time.perf_counter()
        splits = task.splits(Context({"data": 0}, Path("unused")))
        seconds = time.perf_counter() - start
        made = sum(len(part) for part in splits.parts().values())
        rows.append(Measure(f"seconds to build {made:,} samples of {task.name}", seconds, at_most=60.0))
    return rows
