"""Stages on a Ray cluster: a real one of two nodes on this machine. Skipped where Ray is not installed (extra ``ray``)."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ConfigError, StoreError
from bench.execute import Event, Run
from bench.jobs import Stage
from bench.pipeline import merge
from bench.plugins import Registry
from bench.ray_execution import Outcome, Setup, connected, needs, run_on_cluster, run_remote, versions
from bench.running import graphs_of, load_registry
from bench.sharing import peaks_of
from bench.store import Store
from bench.suite import load_suite
from tests.engine import command, write_suite

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each; the second can be killed."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(address=made.address, logging_level="warning", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def repair(name: str, label: str, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "label": label, "parameters": parameters}


def suite_of(folder: Path) -> Path:
    """Every kind of end: well, raising, killing its worker once, and two that wait so that both nodes are busy."""
    (folder / "marks").mkdir(parents=True, exist_ok=True)
    waits = {"until": str(folder / "go")}
    defenses = [
        "none",
        "crash",
        repair("deadly", "deadly", marks=str(folder / "marks")),
        repair("sleepy", "one", started=str(folder / "one"), **waits),
        repair("sleepy", "two", started=str(folder / "two"), **waits),
    ]
    return write_suite(folder, attacks=["none"], defenses=defenses)


def graph_of(path: Path) -> tuple[dict[str, Stage], Registry]:
    suite = load_suite(path)
    registry = load_registry(suite, [])
    return merge(graphs_of(suite, registry, {})), registry


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in (root / "entries").rglob("*") if p.is_file()}


def within(seconds: float, *paths: Path) -> bool:
    until = time.monotonic() + seconds
    while not all(path.exists() for path in paths) and time.monotonic() < until:
        time.sleep(0.1)
    return all(path.exists() for path in paths)


@pytest.mark.slow
def test_a_worker_and_a_node_killed_in_the_middle_change_no_byte(tmp_path: Path, cluster: Any) -> None:
    node = cluster.add_node(num_cpus=1)
    stages, registry = graph_of(suite_of(tmp_path))
    alive: list[int] = []

    def kill() -> None:
        # Both nodes hold a waiting stage, one each: one of the two is lost with its node.
        if within(500, tmp_path / "one", tmp_path / "two"):
            cluster.remove_node(node, allow_graceful=False)
            until = time.monotonic() + 120  # the cluster takes a while to see that a node is gone
            while sum(n["Alive"] for n in ray.nodes()) > 1 and time.monotonic() < until:
                time.sleep(0.2)
            alive.append(sum(n["Alive"] for n in ray.nodes()))
        (tmp_path / "go").touch()

    events: list[Event] = []
    killer = threading.Thread(target=kill)
    killer.start()
    store = Store(tmp_path / "store")
    report = run_on_cluster(Run(stages, store, events.append), registry, "auto", None)
    killer.join()
    assert alive == [1]
    assert (tmp_path / "marks" / "death-0").exists()  # the worker died too, and its stage was run again
    assert not (tmp_path / "marks" / "death-1").exists()
    (failed,) = report.failed.values()  # the method's failure is not run again, and blocks its own cell alone
    assert failed == "ValueError: it broke"
    assert len(report.blocked) == 2
    assert len(report.done) == len(stages) - 3
    assert [e.what for e in events].count("failed") == 1

    # (marks/death-0 and go exist: the same suite now runs through in this process)
    here = Store(tmp_path / "here")
    alone = Run(stages, here, lambda event: None).here(registry, show=False)
    assert (alone.done, set(alone.failed), set(alone.blocked)) == (report.done, set(report.failed), set(report.blocked))
    assert bytes_of(store.root) == bytes_of(here.root)
    assert list((store.root / "partial").glob("*run*")) == []

    # Running again is resuming: nothing is there to be done but what failed.
    again = run_on_cluster(Run(stages, store, lambda event: None), registry, "auto", None)
    assert again.done == report.done
    assert bytes_of(store.root) == bytes_of(here.root)


@pytest.mark.slow
def test_a_driver_killed_in_the_middle_loses_nothing_that_was_published(tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    path = suite_of(tmp_path)
    arguments = [*command("run", path, folder=tmp_path), "--ray", cluster.address]
    with (tmp_path / "driver.log").open("wb") as log:
        driver = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
    assert within(500, tmp_path / "one", tmp_path / "two"), (tmp_path / "driver.log").read_text()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    kept = bytes_of(tmp_path / "store")
    assert kept, "the victim that both sleepers were given"
    (tmp_path / "go").touch()
    stages, registry = graph_of(path)
    report = run_on_cluster(Run(stages, Store(tmp_path / "store"), lambda event: None), registry, "auto", None)
    assert (len(report.done), len(report.failed)) == (len(stages) - 3, 1)
    after = bytes_of(tmp_path / "store")
    assert {name: after[name] for name in kept} == kept
    here = Store(tmp_path / "here")
    Run(stages, here, lambda event: None).here(registry, show=False)
    assert after == bytes_of(here.root)


# ------------------------------------------------------------------------------------------------- one task, no cluster


def setup_of(root: Path, **changes: Any) -> Setup:
    token = root / "token"
    root.mkdir(parents=True, exist_ok=True)
    token.touch()
    values = {
        "store": str(root / "store"),
        "mirror": None,
        "token": str(token),
        "folder": str(Path.cwd()),
        "plugins": (),
        "versions": versions(),
        "seconds": None,
    }
    return Setup(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "/nowhere/token"}, "does not see the store"),
        ({"folder": "/nowhere"}, "has no folder /nowhere"),
        ({"versions": "other"}, "has another Python, other packages or another harness"),
    ],
)
def test_a_node_that_sees_other_disks_or_runs_other_versions_says_so(
    tmp_path: Path, changes: Any, message: str
) -> None:
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, **changes))
    assert (outcome.what, message in outcome.message) == ("store", True)


def test_with_a_mirror_a_node_needs_no_shared_disk(tmp_path: Path) -> None:
    changes = {"token": "/nowhere/token", "mirror": f"file://{tmp_path}/mirror"}
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, **changes))
    assert "does not see the store" not in outcome.message
    assert outcome.what == "failed", "it came as far as the stage, which has no inputs"


def test_a_stage_below_a_failed_one_is_not_started(tmp_path: Path) -> None:
    assert run_remote(Stage("data", {}), setup_of(tmp_path), Outcome("done"), Outcome("failed")).what == "blocked"


def test_a_stage_past_its_time_is_a_failure_of_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import stages

    monkeypatch.setitem(stages.STAGES, "data", lambda job: time.sleep(60))  # type: ignore[arg-type]
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, seconds=0.2))
    assert (outcome.what, outcome.kind) == ("failed", "TimeoutError")
    assert "stage_seconds" in outcome.message


def test_a_stage_asks_for_its_threads_its_device_and_the_memory_that_was_measured(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.note_timing("train", "a", 1.0, 1000)
    store.note_timing("train", "b", 1.0, 3000)
    peaks = peaks_of(store)
    train = Stage("train", {"numerics": {"threads": 4, "device": "cuda"}})
    assert needs(train, peaks) == {"num_cpus": 4.0, "num_gpus": 1.0, "memory": 3000.0}
    store.note_timing("train", "c", 1.0, 10, {"device_peak_bytes": 8 * 2**30, "device_bytes": 80 * 2**30})
    assert needs(train, peaks_of(store))["num_gpus"] == 0.12  # (8 + 0.59) / (80 less 5 %) GiB
    assert needs(Stage("data", {}), peaks) == {"num_cpus": 1.0}


def test_no_cluster_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**more: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", none)
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 'auto'.*ray start --head"), connected("auto"):
        raise StoreError("there is one")
