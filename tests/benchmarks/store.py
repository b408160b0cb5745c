"""How long it takes to run a finished suite of a thousand cells again."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd

from bench import outcomes
from bench.jobs import Stage
from bench.pipeline import merge
from bench.records import Coordinates, Record, Status
from bench.running import graphs_of, load_registry
from bench.store import Store, write_json
from bench.suite import load_suite
from tests.benchmarks import Measure
from tests.engine import ATTACK, command, write_suite

ATTACKS = ["none", *(ATTACK | {"label": f"dead_code_{i}", "policy": {"rate": 0.01 * i}} for i in range(1, 5))]
DEFENSES = [
    "none",
    *(f"fine_tuning[clean=20,epochs={i}]" for i in range(1, 11)),
    *(f"onion[clean={i}]" for i in range(20, 29)),
]
WEIGHTS = 100_000
"""Bytes that stand in for a model's weights."""


def run() -> list[Measure]:
    """Fill a store with stand-ins for all stages of 5 attacks x 20 defenses x 10 seeds, run the suite once (export and board), then again.

    Returns:
        Wall and processor seconds of running it again, from the shell's prompt and back.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_suite(folder, attacks=ATTACKS, defenses=DEFENSES, seeds=list(range(10)))
        cells, stages = _fill(path, Store(folder / "store"))
        before = _state(folder)
        first, first_busy = _timed(path, folder)
        again, busy = _timed(path, folder)
        assert _state(folder) == before, "running again started something"
    title = f"a finished suite of {cells:,} cells ({stages:,} stages) run again"
    return [
        Measure(f"{title}: seconds", again, at_most=3.0),
        Measure(f"{title}: processor seconds", busy),
        Measure("the same where its board must be made first: seconds", first),
        Measure("the same: processor seconds", first_busy),
    ]


def _state(folder: Path) -> set[str]:
    return {p.name for p in (folder / "store" / "entries").glob("*/*")}


def _timed(path: Path, folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of ``codebackdoorbench run``."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        command("run", path, "-j", "1", folder=folder), check=True, stdout=subprocess.DEVNULL, env=environment
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _fill(path: Path, store: Store) -> tuple[int, int]:
    """Publish something of the right form under every key of a suite. Returns how many cells and stages."""
    suite = load_suite(path)
    graphs = graphs_of(suite, load_registry(suite, []), {})
    table = _table()
    stages = merge(graphs)
    for key, stage in stages.items():
        store.publish(stage.kind, key, stage.identity(), lambda folder, stage=stage: _write(stage, folder, table))
    return len(graphs), len(stages)


def _write(stage: Stage, folder: Path, table: pd.DataFrame) -> None:
    whole = {"hits": 1, "n": 1}
    write_json(folder / "facts.json", {"coverage": whole, "visible": whole} if stage.kind == "reach" else {})
    write_json(folder / "cost.json", {"forward_tokens": 0, "backward_tokens": 0, "forward_passes": 0})
    if stage.kind in ("train", "repair"):
        (folder / "model").mkdir()
        (folder / "model" / "model.safetensors").write_bytes(os.urandom(WEIGHTS))
        write_json(folder / "model" / "model.json", {})
    if stage.kind == "score":
        at = Coordinates(**stage.inputs["coordinates"])
        record = Record(
            suite="toy",
            coordinates=at,
            status=Status.OK,
            task_kind="classification",
            metric="accuracy",
            family=stage.inputs["family"],
        )
        write_json(folder / "record.json", record.model_dump(mode="json"))
        outcomes.write_outcomes(table, folder / "outcomes.parquet")


def _table(rows: int = 100) -> pd.DataFrame:
    """Outcomes of a cell in which every input but each tenth went well."""
    well = [i % 10 > 0 for i in range(rows)]
    columns: dict[str, object] = {
        "part": [part for part in ("clean", "triggered") for _ in range(rows // 2)],
        "id": [f"s{i}" for i in range(rows)],
        "group": [f"g{i}" for i in range(rows)],
        "label": [1] * rows,
        "prediction": [int(w) for w in well],
        "probability": [0.5] * rows,
        "rank": [0] * rows,
        "pool": [0] * rows,
        "action": ["accept"] * rows,
        "score": [0.0] * rows,
        "success": well,
        "visible": [True] * rows,
    }
    for other in ("reference", "undefended"):
        columns |= {
            f"{other}_prediction": columns["prediction"],
            f"{other}_rank": columns["rank"],
            f"{other}_success": well,
        }
    return outcomes.validate(pd.DataFrame(columns)[list(outcomes.OUTCOME_COLUMNS)])
