"""Running a graph of stages on a Ray cluster: each stage is one Ray task that waits for its parents' references.

What a task hands on is what became of it; the results themselves lie in the store, on a path that all nodes see. A worker or node that
dies is the machine's failure, and Ray runs its stage again elsewhere; a stage that raises is the method's failure, and is not run
again. The driver may die: what was published stays, and running again is resuming.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import BenchError, ConfigError, ResultLost, StoreError
from bench.execute import RETRIES_AFTER_DEATH, Report, Run, StageFailed, StageLost
from bench.finished import source_digests
from bench.jobs import STAGE_VERSIONS, Stage, Workshop
from bench.mirror import opened
from bench.models.memory import ran_out_of_memory
from bench.models.precision import Precision, resolve_precision
from bench.pipeline import Computing, computing_here, package_versions
from bench.plugins import Registry
from bench.sharing import Peaks, give_memory_back, measured_as, on_device, peaks_of, share_of_device
from bench.stages import run_stage
from bench.store import Store, discard

_log = logging.getLogger("bench")

VISIBLE_SECONDS = 60.0
"""How long a node waits for its network file system to show a parent that another node has just published."""
LOOK_SECONDS = 30.0
"""When nothing came back for so long, the driver looks whether nodes are left that could run what it waits for."""
RESOURCES: Mapping[str, str] = {"CPU": "num_cpus", "GPU": "num_gpus"}
"""What a node either has or has not, in Ray's two spellings: of nodes, and of tasks."""


@dataclass(frozen=True)
class Setup:
    """What every node must agree on.

    Attributes:
        store: the store's root, the same path on all nodes; with a mirror each node may have a disk of its own there.
        mirror: what nodes that share no disk share, or ``None``.
        token: a file that the driver made in it; a node that does not see it looks at another disk.
        folder: the working folder: relative paths in a suite start there.
        plugins: plugin files outside the tree.
        versions: see :func:`versions`.
        seconds: most wall seconds of a stage, or ``None``.
    """

    store: str
    mirror: str | None
    token: str
    folder: str
    plugins: tuple[str, ...]
    versions: str
    seconds: float | None


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: ``done``, ``failed``, ``blocked``, or ``stop`` (the run cannot go on).

    Attributes:
        what: one of these.
        seconds: wall seconds of one that is done.
        kind: of the exception of one that failed.
        message: why it failed, or why the run cannot go on.
        traceback: of the exception.
        node: the host name of the node that it came from.
        timing: what the node's store tells of one that is done (:meth:`bench.store.Store.timing`); ``None`` where it was there before.
        out_of_memory: it failed since a graphics device was full.
        lost: (kind, key) of a result that was taken for known and has to be made again, where that is why the run cannot go on.
    """

    what: str
    seconds: float = 0.0
    kind: str = ""
    message: str = ""
    traceback: str = ""
    node: str = ""
    timing: Mapping[str, Any] | None = None
    out_of_memory: bool = False
    lost: tuple[str, str] | None = None


def versions(plugins: Sequence[str] = ()) -> str:
    """Digest of what results depend on beside the store: Python, the packages of every key, the stages' versions, and the source of the
    harness and of the plugin files.

    Raises:
        OSError: a plugin file cannot be read.
    """
    files = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in plugins]
    told = [platform.python_version(), package_versions(), dict(STAGE_VERSIONS), source_digests(), files]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ on a node


_workshops: dict[Setup, Workshop] = {}


def _workshop(setup: Setup) -> Workshop:
    """Open the store and find the plugins, once a worker process.

    Raises:
        StoreError: this node sees another disk or runs other code.
        ConfigError: it cannot open the mirror, or a plugin.
    """
    if setup not in _workshops:
        node = socket.gethostname()
        if setup.mirror is None and not Path(setup.token).is_file():
            raise StoreError(
                f"node {node} does not see the store {setup.store}: put it on a path that all nodes share, or give --mirror"
            )
        if not Path(setup.folder).is_dir():
            raise StoreError(
                f"node {node} has no folder {setup.folder}: start the run in a folder that all nodes share"
            )
        os.chdir(setup.folder)
        missing = [file for file in setup.plugins if not Path(file).is_file()]
        if missing:
            raise StoreError(f"node {node} has no plugin file {missing[0]}: put it on a path that all nodes share")
        if versions(setup.plugins) != setup.versions:
            raise StoreError(
                f"node {node} has another Python, other packages, another harness or other plugin files than the driver: "
                "install the same versions (pip install -c constraints.txt …), check out the same commit, "
                "and leave it alone while a run goes on"
            )
        registry = Registry().discover()
        for file in setup.plugins:
            registry.add_file(Path(file))
        _workshops[setup] = Workshop(Store(Path(setup.store), opened(setup.mirror)), registry)
    return _workshops[setup]


class _OutOfTime(BaseException):
    """A stage is past its time. No ``Exception``: a plugin that catches those would go on, and the store would take it for the disk's."""


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Raise :class:`_OutOfTime` in the stage after so many seconds. Code that never comes back to Python is not stopped by it."""
    if seconds is None:
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime("it took longer than the suite's stage_seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _await_parents(stage: Stage, store: Store) -> None:
    """A network file system may show what another node published a little later."""
    until = time.monotonic() + (VISIBLE_SECONDS if store.mirror is None else 0.0)
    for kind, key in stage.parents.values():
        while not store.folder(kind, key).is_dir() and time.monotonic() < until:
            with contextlib.suppress(OSError):
                next(
                    iter((store.root / "entries" / kind).iterdir()), None
                )  # reading the folder refreshes what is known of it
            time.sleep(0.2)


def run_remote(stage: Stage, setup: Setup, *parents: Outcome, shared: bool = False) -> Outcome:
    """One Ray task: run a stage, whose parents' outcomes have come; ``shared``: it has a part of a graphics device."""
    node = socket.gethostname()
    if any(parent.what != "done" for parent in parents):
        return Outcome("blocked", node=node)
    started = time.perf_counter()
    try:
        workshop = _workshop(setup)
    except BenchError as error:
        return Outcome("stop", message=str(error), node=node)
    except Exception as error:  # the node's, never the method's
        return Outcome("stop", message=f"node {node} cannot begin: {type(error).__name__}: {error}", node=node)
    try:
        _await_parents(stage, workshop.store)
        with _at_most(setup.seconds):
            run_stage(stage, workshop, shared)
    except ResultLost as error:
        return Outcome("stop", message=str(error), node=node, lost=(error.kind, error.key))
    except StoreError as error:
        return Outcome("stop", message=str(error), node=node)
    except _OutOfTime as error:
        failed = Outcome("failed", 0.0, TimeoutError.__name__, str(error), traceback.format_exc(), node)
    except (Exception, SystemExit) as error:
        # Exceptions of plugins may not survive pickling; their text does.
        failed = Outcome("failed", 0.0, type(error).__name__, str(error), traceback.format_exc(), node)
        failed = replace(failed, out_of_memory=ran_out_of_memory(error))
    else:
        return Outcome("done", time.perf_counter() - started, node=node, timing=workshop.store.timing(stage.key))
    # Outside the handler, whose traceback holds what the stage had on the device: others wait for that memory.
    give_memory_back()
    return failed


# -------------------------------------------------------------------------------------------------------- on the driver


def needs(stage: Stage, peaks: Peaks) -> dict[str, float]:
    """What Ray sets aside for a stage: its threads, of a graphics device where it computes on one as much as it needs, and the memory
    that stages of its kind and model were seen to take."""
    wanted: dict[str, float] = {"num_cpus": float(stage.inputs.get("numerics", {}).get("threads", 1))}
    if on_device(stage):
        wanted["num_gpus"] = share_of_device(stage, peaks)
    if measured_as(stage) in peaks.memory:
        wanted["memory"] = float(peaks.memory[measured_as(stage)])
    return wanted


def fitting(stage: Stage, wanted: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """A stage's needs in a form that one of the nodes can meet; Ray waits without a word for a node that is large enough.

    Memory is a measurement of another machine and no condition: no more of it is asked for than the largest node has.

    Args:
        stage: for the message.
        wanted: its :func:`needs`.
        nodes: each node's resources, as Ray tells them.

    Raises:
        ConfigError: no node has so many processors, or so much of a graphics device.
    """
    able = _able(wanted, nodes)
    if not able:
        there = ", ".join(f"{node.get('CPU', 0):g} processors and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(
            f"{stage.label or stage.kind} needs {wanted['num_cpus']:g} processors and {wanted.get('num_gpus', 0):g} GPUs on one node, and "
            f"the cluster's nodes have {there or 'nothing'}. Lower the suite's threads, set its device, or start a node that has them."
        )
    told = dict(wanted)
    if "memory" in told:
        told["memory"] = min(told["memory"], max(node.get("memory", 0.0) for node in able))
    return told


def _able(wanted: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The nodes that could run it if nothing else ran there."""
    return [
        node for node in nodes if all(node.get(has, 0.0) >= wanted.get(asks, 0.0) for has, asks in RESOURCES.items())
    ]


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    """The resources of every node that lives."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def computing_on(ray: Any, device: str, precision: Precision) -> Computing:
    """What a suite's device and precision mean on a cluster: its nodes compute, and the driver's machine need have no device.

    Raises:
        ConfigError: ``cuda``, and no node has a device that torch sees.
    """
    found = Computing("cpu", resolve_precision(precision, "cpu"))
    if device != "cpu" and any(node.get("GPU", 0.0) > 0 for node in _nodes(ray)):
        ask = ray.remote(num_cpus=0, num_gpus=0.01, max_retries=RETRIES_AFTER_DEATH)(computing_here)
        reference = ask.options(name="which device").remote("auto", precision)
        while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            _log.warning("waiting for a node that has a free graphics device, to ask which type it computes in")
        try:
            found = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise ConfigError(f"a node with a graphics device cannot be asked what it has: {_told(error)}") from error
    if device == "cuda" and found.device != "cuda":
        raise ConfigError(
            "the suite asks for device 'cuda', and no node of the Ray cluster has a device that torch sees; start one "
            "(ray start --address … --num-gpus 1, with a torch for CUDA installed), or use 'auto' or 'cpu'"
        )
    return found


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster (``local``: one started here for this run alone).

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("running on a cluster needs Ray: pip install 'codebackdoorbench[ray]'") from error
    ours = not ray.is_initialized()
    # Nothing is sent to anybody (docs/trust.md); and what Ray's memory monitor ends is tried as often as what dies otherwise, not for ever.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES_AFTER_DEATH))
    try:
        if ours:
            ray.init(address=address, include_dashboard=None, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r} ({error}). Start one (ray start --head), or see docs/cluster.md"
        ) from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def run_on_cluster(run: Run, registry: Registry, address: str, seconds: float | None) -> Report:
    """Run what is missing of a graph on a cluster.

    Args:
        run: the graph and its bookkeeping.
        registry: the plugins; files outside the tree must lie at the same path on all nodes.
        address: of the cluster, as ``ray.init`` takes it.
        seconds: most wall seconds of a stage.

    Raises:
        ConfigError: no Ray, no cluster, or none that can run the stages.
        ResultLost: a result that was taken for known has to be made again.
        StoreError: a node cannot see or write the store, or runs other code.
    """
    store = run.store
    token = store.aside()
    with connected(address) as ray, store.writing():
        token.touch()
        try:
            setup = Setup(
                store=str(store.root.resolve()),
                mirror=None if store.mirror is None else store.mirror.url,
                token=str(token.resolve()),
                folder=str(Path.cwd()),
                plugins=tuple(str(path) for path in registry.files()),
                versions=versions([str(path) for path in registry.files()]),
                seconds=seconds,
            )
            Driver(ray, run, setup).drive()
        finally:
            discard(token)
    return run.report


class Driver:
    """One run on a cluster: hands its stages in, and books what comes back.

    Args:
        ray: the package, connected.
        run: the graph and its bookkeeping.
        setup: what every node must agree on.
    """

    def __init__(self, ray: Any, run: Run, setup: Setup) -> None:
        self._ray, self._run, self._setup = ray, run, setup
        environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._task = ray.remote(
            max_retries=RETRIES_AFTER_DEATH, retry_exceptions=False, runtime_env={"env_vars": environment}
        )(run_remote)
        self._missing: dict[str, Stage] = {}
        """Key -> stage, parents before children."""
        self._references: dict[str, Any] = {}
        """Key -> what will be the stage's outcome."""
        self._waiting: dict[Any, Stage] = {}
        self._wanted: dict[str, dict[str, float]] = {}
        self._alone: set[str] = set()

    def drive(self) -> None:
        """Run what is missing.

        Raises:
            ConfigError: no node can run a stage, or what Ray needs is missing on a node.
            ResultLost: a result that was taken for known has to be made again.
            StoreError: nothing more can be kept.
        """
        self._missing = {stage.key: stage for stage in self._run.by_weight(self._run.pending())}
        self._hand_in(list(self._missing.values()))
        while self._waiting:
            finished, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=LOOK_SECONDS)
            for reference in finished:
                stage = self._waiting.pop(reference, None)
                if stage is not None:  # else it was handed in again meanwhile
                    self._collect(stage)
            if not finished:
                self._look()

    def _hand_in(self, stages: Sequence[Stage]) -> None:
        """Give Ray stages, with their parents' references; what hangs most on comes first."""
        peaks, nodes = peaks_of(self._run.store), _nodes(self._ray)
        for stage in stages:
            wanted = needs(stage, peaks) | ({"num_gpus": 1.0} if stage.key in self._alone else {})
            self._wanted[stage.key] = fitting(stage, wanted, nodes)
        for stage in stages:
            parents = [self._references[key] for _, key in stage.parents.values() if key in self._references]
            task = self._task.options(name=stage.label or stage.kind, **self._wanted[stage.key])
            reference = task.remote(stage, self._setup, *parents, shared=self._shares(stage))
            self._references[stage.key] = reference
            self._waiting[reference] = stage

    def _look(self) -> None:
        """Say so where the nodes that are left can never run what is waited for: a node may have gone, and another may come."""
        nodes = _nodes(self._ray)
        stuck = [stage for stage in self._waiting.values() if not _fits(self._wanted[stage.key], nodes)]
        if stuck:
            _log.warning(
                "no node of the cluster is left that is large enough for %s%s; waiting for one to join. "
                "Ctrl-C ends the run and keeps what is finished.",
                stuck[0].label or stuck[0].kind,
                f" and {len(stuck) - 1} more" if len(stuck) > 1 else "",
            )

    def _collect(self, stage: Stage) -> None:
        """Book what became of a stage, its parents' first.

        Raises:
            ConfigError: what Ray needs is missing on a node.
            ResultLost: a result that was taken for known has to be made again.
            StoreError: nothing more can be kept.
        """
        ray, run = self._ray, self._run
        if stage.key in run.report.done or stage.key in run.report.failed or stage.key in run.report.blocked:
            return
        for _, key in stage.parents.values():
            if key in self._missing:
                self._collect(self._missing[key])
        ready = run.ready(stage)
        if ready is None:
            run.block(stage)
            return
        if not ready:  # a parent was handed in again, and this stage with it
            return
        try:
            outcome: Outcome = ray.get(self._references[stage.key])
        except ray.exceptions.RayError as error:
            run.fail(stage, self._lost(stage, error), "")
            return
        if outcome.what == "stop":
            told = outcome.message if outcome.node in outcome.message else f"node {outcome.node}: {outcome.message}"
            raise StoreError(told) if outcome.lost is None else ResultLost(told, *outcome.lost)
        if outcome.what == "done":
            self._note_timing(stage, outcome)
            run.finish(stage, outcome.seconds)
        elif outcome.out_of_memory and self._shares(stage):
            _log.warning("%s: the device's memory ran out beside others; trying again alone", stage.label)
            self._alone.add(stage.key)
            self._hand_in_again(stage)
        else:
            run.fail(
                stage,
                StageFailed(outcome.kind, outcome.message, outcome.traceback, outcome.out_of_memory),
                outcome.traceback,
            )

    def _shares(self, stage: Stage) -> bool:
        """Was a stage given a part of a graphics device, so that others may be on it?"""
        return self._wanted[stage.key].get("num_gpus", 1.0) < 1.0

    def _hand_in_again(self, stage: Stage) -> None:
        """Give Ray a stage once more, and what hangs on it: that waits for the outcome that does not count."""
        again, keys = [stage], {stage.key}
        for other in self._missing.values():
            if any(key in keys for _, key in other.parents.values()):
                again.append(other)
                keys.add(other.key)
        self._waiting = {reference: other for reference, other in self._waiting.items() if other.key not in keys}
        self._hand_in(again)

    def _lost(self, stage: Stage, error: Exception) -> StageLost:
        """Why Ray gave a stage up, where its worker or node died.

        Raises:
            ConfigError: it did not die: Ray cannot run it.
        """
        kinds = self._ray.exceptions
        if isinstance(error, kinds.OutOfMemoryError):
            return StageLost(
                f"the memory of its node ran out: Ray's memory monitor ended its worker {RETRIES_AFTER_DEATH + 1} times"
            )
        if isinstance(
            error, (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.RayActorError, kinds.ObjectLostError)
        ):
            return StageLost(
                f"its worker or node died {RETRIES_AFTER_DEATH + 1} times ({type(error).__name__}); out of memory?"
            )
        raise ConfigError(
            f"Ray cannot run {stage.label or stage.kind}: {_told(error)}. Every node needs the driver's Python, packages and checkout "
            "(docs/cluster.md); what is finished is kept."
        ) from error

    def _note_timing(self, stage: Stage, outcome: Outcome) -> None:
        """What a stage took is told where the next run plans by it: a node may have a store of its own."""
        store = self._run.store
        if outcome.timing is None or store.timing(stage.key) is not None:
            return
        told = {name: value for name, value in outcome.timing.items() if name != "kind"}
        store.note_timing(stage.kind, stage.key, told.pop("seconds"), told.pop("peak_bytes"), told)


def _fits(wanted: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> bool:
    return any(node.get("memory", 0.0) >= wanted.get("memory", 0.0) for node in _able(wanted, nodes))


def _told(error: Exception) -> str:
    """An error of Ray's in one line: the cause, where it wraps one of the node's; of a long one, how it begins and ends."""
    cause = getattr(error, "cause", None)
    shown = cause if isinstance(cause, Exception) else error
    lines = [line.strip() for line in str(shown).splitlines() if line.strip()]
    told = " … ".join(lines if len(lines) < 3 else (lines[0], lines[-1]))
    return f"{type(shown).__name__}: {told}"
