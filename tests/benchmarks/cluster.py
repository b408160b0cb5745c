"""How much of two Ray workers' time goes into stages of ten seconds (extra ``ray``)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.execute import Event, Run
from bench.pipeline import merge
from bench.ray_execution import run_on_cluster
from bench.running import graphs_of, load_registry
from bench.store import Store
from bench.suite import load_suite
from tests.benchmarks import Measure
from tests.engine import write_suite

STAGES, SECONDS, WORKERS = 24, 10.0, 2


def run() -> list[Measure]:
    """Stages that wait ten seconds each, on a cluster of two nodes that is up.

    The stages wait and compute nothing, so that what is measured is the harness's and Ray's share, whatever else the machine does:
    handing in, starting worker processes (each imports torch once), loading the victim, publishing, collecting.

    Returns:
        Useful stage time over wall time times workers. Useful is what a stage's method takes; loading its model and writing its result
        is not.
    """
    import ray
    from ray.cluster_utils import Cluster

    waits = [
        {"name": "sleepy", "label": f"s{i}", "parameters": {"seconds": SECONDS, "number": i}} for i in range(STAGES)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_suite(folder, attacks=["none"], defenses=["none", *waits])
        suite = load_suite(path)
        registry = load_registry(suite, [])
        stages = merge(graphs_of(suite, registry, {}))
        store = Store(folder / "store")
        first = {key: stage for key, stage in stages.items() if stage.kind in ("data", "train")}
        Run(first, store, lambda event: None).here(registry, show=False)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        ray.init(address=made.address, logging_level="warning", log_to_driver=False)
        try:
            wanted = {key: stage for key, stage in stages.items() if stage.kind == "repair"} | first
            events: list[Event] = []
            started = time.perf_counter()
            report = run_on_cluster(Run(wanted, store, events.append), registry, "auto", None)
            wall = time.perf_counter() - started
        finally:
            ray.shutdown()
            made.shutdown()
        assert len(report.done) == STAGES + len(first)
        assert not report.failed
    title = f"Ray, {STAGES} stages of {SECONDS:g} s on {WORKERS} nodes: useful time over wall time times workers"
    return [Measure(title, STAGES * SECONDS / (wall * WORKERS), at_least=0.9), Measure("the same: seconds", wall)]
