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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import ConfigError, StoreError
from bench.execute import RETRIES_AFTER_DEATH, Report, Run, StageFailed, StageLost
from bench.jobs import STAGE_VERSIONS, Stage, Workshop
from bench.mirror import opened
from bench.pipeline import package_versions
from bench.plugins import Registry
from bench.sharing import Peaks, on_device, peaks_of, share_of_device
from bench.stages import run_stage
from bench.store import Store, discard

VISIBLE_SECONDS = 60.0
"""How long a node waits for its network file system to show a parent that another node has just published."""


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
    """What became of a stage: ``done``, ``failed``, ``blocked``, or ``store`` (nothing more can be kept)."""

    what: str
    seconds: float = 0.0
    kind: str = ""
    message: str = ""
    traceback: str = ""
    node: str = ""


def versions() -> str:
    """Digest of what results depend on beside the store: Python, the packages of every key, and the stages' versions."""
    told = [platform.python_version(), package_versions(), dict(STAGE_VERSIONS)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ on a node


_workshops: dict[Setup, Workshop] = {}


def _workshop(setup: Setup) -> Workshop:
    """Open the store and find the plugins, once a worker process.

    Raises:
        StoreError: this node sees another disk or runs other code.
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
        if versions() != setup.versions:
            raise StoreError(
                f"node {node} has another Python, other packages or another harness than the driver: "
                "install the same versions (pip install -c constraints.txt …)"
            )
        os.chdir(setup.folder)
        registry = Registry().discover()
        for file in setup.plugins:
            registry.add_file(Path(file))
        _workshops[setup] = Workshop(Store(Path(setup.store), opened(setup.mirror)), registry)
    return _workshops[setup]


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeoutError`` in the stage after so many seconds. Code that never comes back to Python is not stopped by it."""
    if seconds is None:
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("it took longer than the suite's stage_seconds")

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


def run_remote(stage: Stage, setup: Setup, *parents: Outcome) -> Outcome:
    """One Ray task: run a stage, whose parents' outcomes have come."""
    node = socket.gethostname()
    if any(parent.what != "done" for parent in parents):
        return Outcome("blocked", node=node)
    started = time.perf_counter()
    try:
        workshop = _workshop(setup)
        _await_parents(stage, workshop.store)
        with _at_most(setup.seconds):
            run_stage(stage, workshop)
    except StoreError as error:
        return Outcome("store", message=str(error), node=node)
    except Exception as error:
        # Exceptions of plugins may not survive pickling; their text does.
        return Outcome("failed", 0.0, type(error).__name__, str(error), traceback.format_exc(), node)
    return Outcome("done", time.perf_counter() - started, node=node)


# -------------------------------------------------------------------------------------------------------- on the driver


@dataclass
class _Going:
    """A run on a cluster: what was handed in and has not come back."""

    run: Run
    references: dict[str, Any] = field(default_factory=dict)
    stages: dict[Any, Stage] = field(default_factory=dict)


def needs(stage: Stage, peaks: Peaks) -> dict[str, float]:
    """What Ray sets aside for a stage: its threads, of a graphics device where it computes on one as much as it needs, and the memory
    that stages of its kind were seen to take."""
    wanted: dict[str, float] = {"num_cpus": float(stage.inputs.get("numerics", {}).get("threads", 1))}
    if on_device(stage):
        wanted["num_gpus"] = share_of_device(stage, peaks)
    if stage.kind in peaks.memory:
        wanted["memory"] = float(peaks.memory[stage.kind])
    return wanted


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
        ConfigError: no Ray, or no cluster.
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
                versions=versions(),
                seconds=seconds,
            )
            going = _hand_in(ray, run, setup)
            _collect_all(ray, going)
        finally:
            discard(token)
    return run.report


def _hand_in(ray: Any, run: Run, setup: Setup) -> _Going:
    """Give Ray every missing stage at once, with its parents' references; what hangs most on comes first."""
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    task = ray.remote(max_retries=RETRIES_AFTER_DEATH, retry_exceptions=False, runtime_env={"env_vars": environment})(
        run_remote
    )
    going, peaks = _Going(run), peaks_of(run.store)
    for stage in run.by_weight(run.pending()):
        parents = [going.references[key] for _, key in stage.parents.values() if key in going.references]
        reference = task.options(name=stage.label or stage.kind, **needs(stage, peaks)).remote(stage, setup, *parents)
        going.references[stage.key] = reference
        going.stages[reference] = stage
    return going


def _collect_all(ray: Any, going: _Going) -> None:
    waiting: Sequence[Any] = list(going.stages)
    while waiting:
        finished, waiting = ray.wait(waiting, num_returns=1)
        for reference in finished:
            _collect(ray, going, going.stages[reference])


def _collect(ray: Any, going: _Going, stage: Stage) -> None:
    """Book what became of a stage, its parents' first.

    Raises:
        StoreError: nothing more can be kept.
    """
    run = going.run
    if stage.key in run.report.done or stage.key in run.report.failed or stage.key in run.report.blocked:
        return
    for _, key in stage.parents.values():
        if key in going.references:
            _collect(ray, going, going.stages[going.references[key]])
    if run.ready(stage) is None:
        run.block(stage)
        return
    try:
        outcome: Outcome = ray.get(going.references[stage.key])
    except ray.exceptions.RayError as error:  # after all retries
        lost = StageLost(
            f"its worker or node died {RETRIES_AFTER_DEATH + 1} times ({type(error).__name__}); out of memory?"
        )
        run.fail(stage, lost, "")
        return
    if outcome.what == "store":
        raise StoreError(outcome.message)
    if outcome.what == "done":
        run.finish(stage, outcome.seconds)
    else:
        run.fail(stage, StageFailed(outcome.kind, outcome.message, outcome.traceback), outcome.traceback)
