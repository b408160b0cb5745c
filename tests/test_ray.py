"""Stages on a Ray cluster: a real one of two nodes on this machine, and what can be told without one.

Tests that start a cluster are skipped where Ray is not installed (extra ``ray``); the others need no Ray.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import ray_execution, stages
from bench.errors import ConfigError, ResultLost, StoreError
from bench.execute import Event, Run
from bench.finished import source_digests
from bench.jobs import Job, Stage, Workshop
from bench.mirror import Mirror
from bench.pipeline import Computing, merge
from bench.plugins import Registry
from bench.ray_execution import (
    Driver,
    Outcome,
    Setup,
    computing_on,
    connected,
    needs,
    run_on_cluster,
    run_remote,
    versions,
)
from bench.running import graphs_of, load_registry
from bench.sharing import peaks_of
from bench.store import Store
from bench.suite import load_suite
from tests.engine import command, write_suite


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one processor each; the second can be killed."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else it hangs on whether this user has a token
    ray = pytest.importorskip("ray")
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
    for name in ("marks", "crashes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    waits = {"until": str(folder / "go")}
    defenses = [
        "none",
        repair("crash", "crash", marks=str(folder / "crashes")),
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
    import ray

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
    assert len(list((tmp_path / "crashes").iterdir())) == 1
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
        ({"versions": "other"}, "has another Python, other packages, another harness or other plugin files"),
    ],
)
def test_a_node_that_sees_other_disks_or_runs_other_versions_says_so(
    tmp_path: Path, changes: Any, message: str
) -> None:
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, **changes))
    assert (outcome.what, message in outcome.message) == ("stop", True)


def test_with_a_mirror_a_node_needs_no_shared_disk(tmp_path: Path) -> None:
    changes = {"token": "/nowhere/token", "mirror": f"file://{tmp_path}/mirror"}
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, **changes))
    assert "does not see the store" not in outcome.message
    assert outcome.what == "failed", "it came as far as the stage, which has no inputs"


def test_a_stage_below_a_failed_one_is_not_started(tmp_path: Path) -> None:
    assert run_remote(Stage("data", {}), setup_of(tmp_path), Outcome("done"), Outcome("failed")).what == "blocked"


def test_a_stage_past_its_time_is_a_failure_of_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stages.STAGES, "data", lambda job: time.sleep(60))  # type: ignore[arg-type]
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, seconds=0.2))
    assert (outcome.what, outcome.kind) == ("failed", "TimeoutError")
    assert "stage_seconds" in outcome.message


def test_a_plugin_that_catches_everything_is_stopped_at_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stubborn(job: Job) -> None:
        with contextlib.suppress(Exception):
            time.sleep(60)

    monkeypatch.setitem(stages.STAGES, "data", stubborn)  # type: ignore[arg-type]
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, seconds=0.2))
    assert (outcome.what, outcome.kind) == ("failed", "TimeoutError")
    assert not Store(tmp_path / "store").here("data", Stage("data", {}).key)


@pytest.mark.parametrize("where", ["reading a parent", "putting a result into the mirror"])
def test_time_that_ends_while_the_store_works_is_no_failure_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = f"file://{tmp_path}/mirror"
    monkeypatch.setitem(stages.STAGES, "data", lambda job: (job.folder / "x.json").write_text("{}"))  # type: ignore[arg-type,return-value]
    monkeypatch.setitem(stages.STAGES, "train", stages.STAGES["data"])
    data = Stage("data", {})
    child = Stage("train", {}, {"data": ("data", data.key)})
    stages.run_stage(data, Workshop(Store(tmp_path / "store"), Registry()))
    put = "fsspec.implementations.local.LocalFileSystem.put_file"
    monkeypatch.setattr(
        "bench.store.sha256_of" if where == "reading a parent" else put, lambda *arguments: time.sleep(60)
    )
    outcome = run_remote(child, setup_of(tmp_path, seconds=0.2, mirror=url))
    assert (outcome.what, outcome.kind, outcome.lost) == ("failed", "TimeoutError", None)
    assert f"{outcome.kind}: {outcome.message}" == "TimeoutError: it took longer than the suite's stage_seconds"


def test_a_plugin_that_exits_is_a_failure_of_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stages.STAGES, "data", lambda job: sys.exit("enough"))  # type: ignore[arg-type]
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path))
    assert (outcome.what, outcome.kind, outcome.message) == ("failed", "SystemExit", "enough")


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
    assert needs(Stage("train", {}, model="larger"), peaks) == {"num_cpus": 1.0}, "another model's memory says nothing"


def test_no_cluster_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**more: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=none, is_initialized=lambda: False))
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 'auto'.*ray start --head"), connected("auto"):
        raise StoreError("there is one")


def test_ray_is_started_without_its_reports_and_with_a_bound_on_what_its_memory_monitor_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: dict[str, str] = {}
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_task_oom_retries"):
        monkeypatch.delenv(name, raising=False)
    ray = SimpleNamespace(
        init=lambda **more: told.update(os.environ), is_initialized=lambda: False, shutdown=lambda: None
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    with connected("local"):
        assert (told["RAY_USAGE_STATS_ENABLED"], told["RAY_task_oom_retries"]) == ("0", "2")
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_task_oom_retries"):
        monkeypatch.delenv(name)


def test_other_source_or_other_plugin_files_are_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("a = 1")
    before = versions([str(plugin)])
    assert before == versions([str(plugin)])
    plugin.write_text("a = 2")
    assert versions([str(plugin)]) != before
    plugin.write_text("a = 1")
    found = source_digests()
    assert [name for name, _ in found if name.endswith("/ray_execution.py")] == ["bench/ray_execution.py"]
    monkeypatch.setattr(ray_execution, "source_digests", lambda: [*found[:-1], [found[-1][0], "0" * 64]])
    assert versions([str(plugin)]) != before
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, plugins=(str(plugin),), versions=before))
    assert (outcome.what, "check out the same commit" in outcome.message) == ("stop", True)


def test_what_a_node_lacks_is_no_failure_of_the_method(tmp_path: Path) -> None:
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path, mirror="nowhere://x"))
    assert (outcome.what, "--mirror nowhere://x" in outcome.message) == ("stop", True)
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path / "other", plugins=("/nowhere/mine.py",)))
    assert (outcome.what, "has no plugin file /nowhere/mine.py" in outcome.message) == ("stop", True)


def test_a_parent_that_is_gone_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_execution, "VISIBLE_SECONDS", 0.0)
    child = Stage("train", {"numerics": {"device": "cpu", "threads": 1}}, {"data": ("data", "d" * 64)})
    outcome = run_remote(child, setup_of(tmp_path))
    assert (outcome.what, outcome.lost) == ("stop", ("data", "d" * 64))


def test_an_outcome_carries_what_the_stage_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stages.STAGES, "data", lambda job: (job.folder / "x.json").write_text("{}"))  # type: ignore[arg-type,return-value]
    outcome = run_remote(Stage("data", {}), setup_of(tmp_path))
    assert outcome.what == "done"
    assert outcome.timing is not None
    assert outcome.timing["peak_bytes"] > 0
    assert outcome.timing == Store(tmp_path / "store").timing(Stage("data", {}).key)


# ------------------------------------------------------------------------------------- the driver, on a cluster made up


class Errors:
    """As ``ray.exceptions``."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        pass

    class RuntimeEnvSetupError(RayError):
        pass

    class TaskUnschedulableError(RayError):
        pass

    class OutOfMemoryError(RayError):
        pass

    class WorkerCrashedError(RayError):
        pass

    class NodeDiedError(RayError):
        pass

    class RayActorError(RayError):
        pass

    class ObjectLostError(RayError):
        pass


class MadeUp:
    """A cluster without workers: what becomes of a task is told by a function of its stage and what was set aside for it.

    What was handed in last comes back first, so that children are heard of before their parents.
    """

    exceptions = Errors

    def __init__(self, answer: Any, *nodes: dict[str, float]) -> None:
        self._answer = answer
        self.alive = [{"CPU": 2.0, "memory": 8e9, **node} for node in nodes or ({},)]
        self.handed_in: list[tuple[str, dict[str, Any]]] = []
        self._tasks: dict[int, tuple[Any, dict[str, Any], tuple[Any, ...]]] = {}
        self._outcomes: dict[int, Any] = {}
        self.silent = 0
        self.next: Callable[[list[int]], int] = max

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": node} for node in self.alive] + [
            {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0, "memory": 1e15}}
        ]

    def remote(self, **told: Any) -> Any:
        def task(function: Any, **options: Any) -> Any:
            def hand_in(*arguments: Any, shared: bool = False) -> int:
                assert shared == (function is run_remote and options.get("num_gpus", 1.0) < 1.0)
                reference = len(self._tasks)
                self._tasks[reference] = (function, options, arguments)
                if function is run_remote:
                    self.handed_in.append((arguments[0].label, options))
                return reference

            return SimpleNamespace(remote=hand_in, options=lambda **more: task(function, **(told | more)))

        return task

    def wait(self, references: list[int], num_returns: int = 1, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing is waited for in silence"
        if self.silent:
            self.silent -= 1
            return [], references
        first = self.next(references)
        return [first], [reference for reference in references if reference != first]

    def get(self, reference: int) -> Any:
        if reference not in self._outcomes:
            function, options, arguments = self._tasks[reference]
            if function is not run_remote:
                self._outcomes[reference] = function(*arguments)
            elif any(self.get(parent).what != "done" for parent in arguments[2:]):
                self._outcomes[reference] = Outcome("blocked")
            else:
                self._outcomes[reference] = self._answer(arguments[0], options)
        found = self._outcomes[reference]
        if isinstance(found, Exception):
            raise found
        return found


GIB = 2**30


def small_graph(device: str = "cpu", threads: int = 1) -> dict[str, Stage]:
    numerics = {"numerics": {"device": device, "threads": threads}}
    data = Stage("data", {}, label="data", tokens=1)
    train = Stage("train", numerics, {"data": ("data", data.key)}, "train", tokens=1)
    predict = Stage("predict", numerics, {"data": ("data", data.key), "model": ("train", train.key)}, "predict")
    score = Stage("score", {}, {"predict": ("predict", predict.key)}, "score")
    return {stage.key: stage for stage in (data, train, predict, score)}


def driven(tmp_path: Path, cluster: MadeUp, graph: dict[str, Stage]) -> Run:
    run = Run(graph, Store(tmp_path / "store"), lambda event: None)
    Driver(cluster, run, setup_of(tmp_path)).drive()
    return run


FULL = Outcome("failed", kind="ModelError", message="CUDA out of memory", out_of_memory=True)


def measured_on_a_device(tmp_path: Path) -> None:
    sizes = {"device_peak_bytes": 8 * GIB, "device_bytes": 80 * GIB}
    for kind in ("train", "predict"):
        Store(tmp_path / "store").note_timing(kind, f"{kind}-before", 1.0, 10, sizes)


def test_a_stage_that_shared_its_device_and_ran_out_of_its_memory_is_tried_once_alone(tmp_path: Path) -> None:
    measured_on_a_device(tmp_path)

    def answer(stage: Stage, options: dict[str, Any]) -> Outcome:
        full = stage.label == "train" and options["num_gpus"] < 1.0
        return FULL if full else Outcome("done")

    cluster, graph = MadeUp(answer, {"GPU": 1.0}), small_graph("cuda")
    run = driven(tmp_path, cluster, graph)
    assert (run.report.done, run.report.failed, run.report.blocked) == (set(graph), {}, {})
    shares = [(label, options.get("num_gpus")) for label, options in cluster.handed_in]
    assert shares == [
        *(("data", None), ("train", 0.12), ("predict", 0.12), ("score", None)),
        *(("train", 1.0), ("predict", 0.12), ("score", None)),
    ]


@pytest.mark.parametrize(("device", "measured", "times"), [("cuda", True, 2), ("cuda", False, 1), ("cpu", False, 1)])
def test_a_stage_that_runs_out_of_memory_alone_is_a_failure(
    tmp_path: Path, device: str, measured: bool, times: int
) -> None:
    if measured:
        measured_on_a_device(tmp_path)

    def answer(stage: Stage, options: dict[str, Any]) -> Outcome:
        full = stage.label == "train"
        return FULL if full else Outcome("done")

    cluster, graph = MadeUp(answer, {"GPU": 1.0}), small_graph(device)
    run = driven(tmp_path, cluster, graph)
    assert list(run.report.failed.values()) == ["ModelError: CUDA out of memory"]
    assert len(run.report.blocked) == 2
    assert [label for label, _ in cluster.handed_in].count("train") == times


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Errors.WorkerCrashedError("gone"), r"its worker or node died 3 times \(WorkerCrashedError\); out of memory\?"),
        (Errors.NodeDiedError("gone"), r"its worker or node died 3 times \(NodeDiedError\)"),
        (
            Errors.OutOfMemoryError("long"),
            r"the memory of its node ran out: Ray's memory monitor ended its worker 3 times",
        ),
    ],
)
def test_what_died_again_and_again_is_a_record(tmp_path: Path, error: Exception, message: str) -> None:
    graph = small_graph()
    cluster = MadeUp(lambda stage, options: error if stage.label == "train" else Outcome("done"))
    run = driven(tmp_path, cluster, graph)
    (reason,) = run.report.failed.values()
    assert re.match(f"StageLost: {message}", reason)
    assert len(run.report.blocked) == 2


def caused(cause: Exception) -> Exception:
    error = Errors.RayTaskError("many lines")
    error.cause = cause  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            caused(ModuleNotFoundError("No module named 'bench'")),
            "ModuleNotFoundError: No module named 'bench'. Every node",
        ),
        (Errors.RuntimeEnvSetupError("Failed.\n\na\nno disk"), "RuntimeEnvSetupError: Failed. … no disk. Every node"),
        (Errors.TaskUnschedulableError("no node fits"), "TaskUnschedulableError: no node fits. Every node"),
        (Errors.RayError("something new"), "RayError: something new. Every node"),
    ],
)
def test_what_ray_cannot_run_stops_the_run_with_its_cause(tmp_path: Path, error: Exception, message: str) -> None:
    cluster = MadeUp(lambda stage, options: error if stage.label == "train" else Outcome("done"))
    with pytest.raises(ConfigError, match=rf"Ray cannot run train: {message}"):
        driven(tmp_path, cluster, small_graph())
    assert list((tmp_path / "store" / "failures").iterdir()) == [], "it says nothing of the method"


@pytest.mark.parametrize(("device", "threads"), [("cpu", 3), ("cuda", 1)])
def test_what_no_node_has_is_said_and_not_waited_for(tmp_path: Path, device: str, threads: int) -> None:
    cluster = MadeUp(lambda stage, options: Outcome("done"), {"CPU": 2.0}, {"CPU": 1.0})
    with pytest.raises(ConfigError, match=r"train needs . processors and . GPUs on one node.*have 2 .*, 1 .*Lower"):
        driven(tmp_path, cluster, small_graph(device, threads))
    assert cluster.handed_in == []


def test_processors_and_a_device_have_to_be_on_one_node(tmp_path: Path) -> None:
    cluster = MadeUp(lambda stage, options: Outcome("done"), {"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0})
    with pytest.raises(ConfigError, match="needs 4 processors and 1 GPUs on one node"):
        driven(tmp_path, cluster, small_graph("cuda", 4))


def test_no_more_memory_is_asked_for_than_a_node_has(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for kind in ("data", "train"):
        store.note_timing(kind, f"{kind}-before", 1.0, 10**12 if kind == "train" else 10**9)
    cluster = MadeUp(
        lambda stage, options: Outcome("done"), {"memory": 4e9}, {"memory": 16e9}, {"memory": 64e9, "CPU": 0.0}
    )
    run = driven(tmp_path, cluster, small_graph())
    assert len(run.report.done) == 4
    assert {label: options.get("memory") for label, options in cluster.handed_in} == {
        "data": 1e9,
        "train": 16e9,  # the largest of those that can run it
        "predict": None,
        "score": None,
    }


def test_a_cluster_that_has_lost_what_a_stage_needs_says_what_it_waits_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(stage: Stage, options: dict[str, Any]) -> Outcome:
        if stage.label == "data":
            cluster.alive, cluster.silent = cluster.alive[:1], 1
        return Outcome("done")

    cluster = MadeUp(answer, {"CPU": 1.0}, {"CPU": 4.0})
    cluster.next = min
    run = driven(tmp_path, cluster, small_graph(threads=4))
    assert len(run.report.done) == 4
    (told,) = caplog.messages
    assert told.startswith("no node of the cluster is left that is large enough for train and 1 more; waiting for one")


def test_a_node_that_cannot_go_on_stops_the_run(tmp_path: Path) -> None:
    cluster = MadeUp(lambda stage, options: Outcome("stop", message="node b does not see the store"))
    with pytest.raises(StoreError, match="node b does not see the store"):
        driven(tmp_path, cluster, small_graph())
    cluster = MadeUp(lambda stage, options: Outcome("stop", message="no space left", node="worker-7"))
    with pytest.raises(StoreError, match=r"^node worker-7: no space left$"):
        driven(tmp_path, cluster, small_graph())
    gone = Outcome("stop", message="no intact data", lost=("data", "d" * 64))
    with pytest.raises(ResultLost, match="no intact data") as error:
        driven(tmp_path, MadeUp(lambda stage, options: gone), small_graph())
    assert (error.value.kind, error.value.key) == ("data", "d" * 64)


def test_the_driver_notes_what_a_stage_took_elsewhere(tmp_path: Path) -> None:
    timing = {"kind": "train", "seconds": 2.5, "peak_bytes": 7, "device_peak_bytes": 5}
    cluster = MadeUp(lambda stage, options: Outcome("done", 3.0, timing=timing if stage.label == "train" else None))
    graph = small_graph()
    store = Store(tmp_path / "store")
    driven(tmp_path, cluster, graph)
    found = {stage.label: store.timing(key) for key, stage in graph.items()}
    assert found == {"data": None, "train": timing, "predict": None, "score": None}
    store.note_timing("train", next(k for k, s in graph.items() if s.label == "train"), 1.0, 1)
    driven(tmp_path, cluster, graph)
    assert (store.timing(next(k for k, s in graph.items() if s.label == "train")) or {})["seconds"] == 1.0


def test_what_only_the_driver_has_is_put_into_the_mirror_for_the_nodes(tmp_path: Path) -> None:
    url, graph = f"file://{tmp_path}/mirror", small_graph()
    data, train = list(graph.values())[:2]
    for stage in (data, train):  # of a run without the mirror
        Store(tmp_path / "store").publish(
            stage.kind,
            stage.key,
            stage.identity(),
            lambda folder: (folder / "x.json").write_text("{}"),  # type: ignore[arg-type,return-value]
        )
    cluster = MadeUp(lambda stage, options: Outcome("done"))
    run = Run(graph, Store(tmp_path / "store", Mirror(url)), lambda event: None)
    Driver(cluster, run, setup_of(tmp_path)).drive()
    assert [label for label, _ in cluster.handed_in] == ["predict", "score"]
    node = Store(tmp_path / "node", Mirror(url))
    assert node.find(data.kind, data.key) is not None
    assert node.find(train.kind, train.key) is not None


@pytest.mark.parametrize(
    ("device", "nodes", "there", "expected"),
    [
        ("auto", [{}, {"GPU": 1.0}], Computing("cuda", "bfloat16"), Computing("cuda", "bfloat16")),
        ("cuda", [{"GPU": 1.0}], Computing("cuda", "float32"), Computing("cuda", "float32")),
        ("cpu", [{"GPU": 1.0}], Computing("cuda", "bfloat16"), Computing("cpu", "float32")),
        ("auto", [{}, {"GPU": 0.0}], Computing("cuda", "bfloat16"), Computing("cpu", "float32")),
        ("auto", [{"GPU": 1.0}], Computing("cpu", "float32"), Computing("cpu", "float32")),
        ("cuda", [{}], Computing("cuda", "bfloat16"), None),
        ("cuda", [{"GPU": 1.0}], Computing("cpu", "float32"), None),
    ],
)
def test_the_nodes_decide_what_is_computed_on(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
    nodes: list[dict[str, float]],
    there: Computing,
    expected: Computing | None,
) -> None:
    asked: list[tuple[str, str]] = []

    def on_the_node(device: str, precision: str) -> Computing:
        asked.append((device, precision))
        return there

    monkeypatch.setattr(ray_execution, "computing_here", on_the_node)
    cluster = MadeUp(None, *nodes)
    cluster.silent = 1
    if expected is None:
        with pytest.raises(ConfigError, match=r"no node of the Ray cluster has a device.*--num-gpus"):
            computing_on(cluster, device, "auto")
        return
    assert computing_on(cluster, device, "auto") == expected
    assert asked in ([], [("auto", "auto")])
    assert bool(asked) == ("free graphics device" in caplog.text)


def test_stages_for_other_machines_have_the_keys_that_these_would_give_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(write_suite(tmp_path, device="auto"))
    registry = load_registry(suite, [])
    here = set(merge(graphs_of(suite, registry, {})))
    assert set(merge(graphs_of(suite, registry, {}, Computing("cpu", "float32")))) == here
    monkeypatch.setattr("bench.pipeline.resolve_device", lambda name: "cuda")
    monkeypatch.setattr("bench.pipeline.resolve_precision", lambda name, device: "bfloat16")
    with_device = set(merge(graphs_of(suite, registry, {})))
    monkeypatch.undo()
    assert set(merge(graphs_of(suite, registry, {}, Computing("cuda", "bfloat16")))) == with_device
    assert with_device != here
