"""Running a graph of stages: in this process, or in a local pool of processes.

A stage that raises, dies or runs out of time blocks its descendants and nothing else. Whatever is published stays, so
running again is resuming. A worker that is killed (signal, out of memory) is the machine's failure, not the method's:
its stage is tried again, twice. Where workers die between stages, or cannot begin, nothing is said of any stage: that is tried again
too, and where it goes on the run stops and says why.
"""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from bench.children import single_threaded_children
from bench.errors import BenchError, StoreError
from bench.jobs import Stage, Workshop
from bench.mirror import opened
from bench.models.memory import ran_out_of_memory
from bench.plugins import Registry
from bench.sharing import CONTEXT_BYTES, Room, free_device_memory, give_memory_back, on_device, peaks_of
from bench.stages import run_stage
from bench.store import Store

RETRIES_AFTER_DEATH = 2
LOOK_SECONDS = 1.0
"""When nothing came back for so long, the run looks whether its pool still lives: one that breaks may forget what it was just given."""
DIED_OUTSIDE = "a worker process died outside a stage (out of memory? Try fewer processes, -j)"

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Something that happened to a stage, for whoever shows progress.

    Attributes:
        what: start, done, failed, blocked, lost (its worker died; it is tried again).
    """

    what: str
    stage: Stage
    seconds: float = 0.0
    reason: str = ""


@dataclass
class Report:
    """What became of the stages."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    """Key -> key of the failed ancestor."""


class StageLost(Exception):
    """A stage's worker died again and again."""


class WorkerUnfit(Exception):
    """A worker could not open the store, the mirror or a plugin: no stage has begun."""


def _reason(error: BaseException) -> str:
    kind = error.kind if isinstance(error, StageFailed) else type(error).__name__
    return f"{kind}: {error}"


class Run:
    """One execution of a graph.

    Args:
        stages: key -> stage, parents before children.
        store: what is known, and where results go.
        watch: is told what happens.
        given_up: key -> reason, of stages that are not to be tried: they count as failed.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        store: Store,
        watch: Callable[[Event], None],
        given_up: Mapping[str, str] | None = None,
    ) -> None:
        self._stages = stages
        self._given_up = given_up or {}
        self.store = self._store = store
        self._watch = watch
        self.report = Report()

    def pending(self) -> list[Stage]:
        """Stages that are to be run, in order; the stored ones count as done, and are put into the mirror where it has them not.

        Raises:
            StoreError: the mirror cannot be reached or written.
        """
        waiting = []
        for key, stage in self._stages.items():
            if self._store.has(stage.kind, key):
                self._store.share(stage.kind, key)
                self.report.done.add(key)
            elif key in self._given_up:
                self.report.failed[key] = self._given_up[key]
                self._watch(Event("failed", stage, reason=self._given_up[key]))
            elif self.ready(stage) is None:
                self.block(stage)
            else:
                waiting.append(stage)
        return waiting

    def ready(self, stage: Stage) -> bool | None:
        """True when all parents are there, ``None`` when one of them can never be."""
        for _, key in stage.parents.values():
            if key in self.report.failed or key in self.report.blocked:
                self.report.blocked[stage.key] = self.report.blocked.get(key, key)
                return None
        return all(key in self.report.done for _, key in stage.parents.values())

    def finish(self, stage: Stage, seconds: float) -> None:
        """A stage published its result."""
        self.report.done.add(stage.key)
        self._store.note_published(stage.kind, stage.key)
        self._watch(Event("done", stage, seconds))

    def fail(self, stage: Stage, error: BaseException, text: str) -> None:
        """A stage failed: a record, and everything below it is blocked."""
        self.report.failed[stage.key] = _reason(error)
        self._store.fail(stage.kind, stage.key, _reason(error), text)
        self._watch(Event("failed", stage, reason=_reason(error)))

    def block(self, stage: Stage) -> None:
        """A stage cannot run because an ancestor failed."""
        self._watch(Event("blocked", stage, reason=self.report.blocked[stage.key]))

    # ------------------------------------------------------------------------------------------------ this process

    def here(self, registry: Registry, show: bool) -> Report:
        """Run in this process, one stage after the other.

        Raises:
            StoreError: the store cannot be written (full disk); nothing more can be kept.
        """
        workshop = Workshop(self._store, registry, show)
        for stage in self.pending():
            if self.ready(stage) is None:
                self.block(stage)
                continue
            self._watch(Event("start", stage))
            started = time.perf_counter()
            try:
                run_stage(stage, workshop)
            except StoreError:
                raise
            except (Exception, SystemExit) as error:  # a plugin that calls sys.exit ends its stage, not the run
                self.fail(stage, error, traceback.format_exc())
            else:
                self.finish(stage, time.perf_counter() - started)
        return self.report

    # ------------------------------------------------------------------------------------------------------- a pool

    def pool(self, registry: Registry, jobs: int, seconds: float | None) -> Report:
        """Run in ``jobs`` processes; each stage gets at most ``seconds``.

        Raises:
            StoreError: the store cannot be written.
        """
        waiting = self.pending()
        self._deaths: dict[str, int] = {}
        self._unbegun = 0
        self._room: Room | None = None
        running: dict[Future[float], _Running] = {}
        mirror = None if self._store.mirror is None else self._store.mirror.url
        workers = _Workers(jobs, (str(self._store.root), mirror, tuple(str(p) for p in registry.files())))
        try:
            with single_threaded_children():
                if jobs > 1 and any(on_device(stage) for stage in waiting):
                    free = self._asked(workers, free_device_memory) - (jobs - 1) * CONTEXT_BYTES
                    self._room = Room(free, peaks_of(self._store).device)
                while waiting or running:
                    waiting = self._submit(workers, waiting, running, jobs, seconds)
                    if not running:
                        continue
                    finished, _ = wait(running, LOOK_SECONDS, FIRST_COMPLETED)
                    broken = workers.broken
                    if broken:
                        workers.renew(running)
                        finished = set(running)
                    for future in finished:
                        started = running.pop(future)
                        if self._collect(future, started, seconds):
                            waiting.insert(0, started.stage)
                    if broken:
                        self._not_begun(DIED_OUTSIDE)
        except BaseException:
            workers.stop()
            raise
        workers.close()
        return self.report

    def _asked(self, workers: _Workers, function: Callable[[], T]) -> T:
        """What a function says in a worker.

        Raises:
            StoreError: workers die again and again.
        """
        while True:
            future = workers.schedule(function)
            while not (wait([future], LOOK_SECONDS).done or workers.broken):
                pass
            if workers.broken:
                workers.renew([future])
            try:
                found = future.result()
            except (BrokenProcessPool, ProcessExpired):
                self._not_begun(DIED_OUTSIDE)
            else:
                self._unbegun = 0
                return found

    def _not_begun(self, why: str) -> None:
        """Workers died, or could not begin, outside a stage: that is nothing to hold against one.

        Raises:
            StoreError: it happened again and again, and no stage came to its end in between.
        """
        self._unbegun += 1
        if self._unbegun > RETRIES_AFTER_DEATH:
            raise StoreError(f"{why}, {self._unbegun} times in a row. What is finished is kept; run again.")

    def _submit(
        self,
        workers: _Workers,
        waiting: list[Stage],
        running: dict[Future[float], _Running],
        jobs: int,
        seconds: float | None,
    ) -> list[Stage]:
        """Start what is ready, longest first, never more than there are workers (so that a start is a start).

        Where one does not fit on the graphics device, none behind it goes there first: it would wait for ever.
        """
        left: list[Stage] = []
        ready: list[Stage] = []
        for stage in waiting:
            state = self.ready(stage)
            if state is None:
                self.block(stage)
            elif state:
                ready.append(stage)
            else:
                left.append(stage)
        ready = self.by_weight(ready)
        full = False
        for stage in ready:
            if len(running) >= jobs or (full and on_device(stage)):
                left.append(stage)
            elif self._room is not None and on_device(stage) and not self._room.enter(stage):
                full = True
                left.append(stage)
            else:
                self._watch(Event("start", stage))
                shared = self._room is not None and self._room.shared(stage)
                started = _Running(stage, time.monotonic())
                running[workers.schedule(_work, (stage, shared), seconds)] = started
        order = {key: i for i, key in enumerate(self._stages)}
        return sorted(left, key=lambda s: order[s.key])

    def by_weight(self, stages: Sequence[Stage]) -> list[Stage]:
        """What most tokens hang on first; parents before children, since what hangs on a child hangs on its parents too."""
        return sorted(stages, key=lambda s: -self._weight(s))

    def _weight(self, stage: Stage) -> int:
        """Critical path first: how many tokens hang on this stage, itself included."""
        if not hasattr(self, "_weights"):
            children: dict[str, list[str]] = {}
            for key, s in self._stages.items():
                for _, parent in s.parents.values():
                    children.setdefault(parent, []).append(key)
            self._weights: dict[str, int] = {}
            for key in reversed(list(self._stages)):
                below = [self._weights.get(c, 0) for c in children.get(key, [])]
                self._weights[key] = self._stages[key].tokens + max(below, default=0) + sum(below) // 1000 + 1
        return self._weights[stage.key]

    def _collect(self, future: Future[float], started: _Running, limit: float | None) -> bool:
        """Book a finished future; True when the stage shall be tried again.

        Raises:
            StoreError: the store cannot be written, or workers cannot begin.
        """
        stage = started.stage
        shared = self._room.leave(stage, self._store.timing(stage.key)) if self._room is not None else False
        try:
            seconds = future.result()
        except BrokenProcessPool:
            self._watch(Event("lost", stage, reason="a worker died outside a stage; trying again with new workers"))
            return True
        except WorkerUnfit as error:
            self._not_begun(f"a worker cannot begin: {error}")
            self._watch(Event("lost", stage, reason=f"its worker could not begin ({error}); trying again"))
            return True
        except ProcessExpired as error:
            return self._again(stage, "its worker died", f" (exit code {error.exitcode})", "; out of memory?")
        except (TimeoutError, concurrent.futures.TimeoutError):
            # The pool goes by the clock on the wall, and kills all that runs where somebody sets that forward.
            if limit is not None and time.monotonic() - started.at < limit:
                return self._again(stage, "the machine's clock was set forward while it ran")
            self.fail(stage, TimeoutError("it took longer than the suite's stage_seconds"), "")
        except StoreError:
            raise
        except Exception as error:
            if shared and self._room is not None and isinstance(error, StageFailed) and error.out_of_memory:
                self._room.alone(stage)
                self._watch(
                    Event("lost", stage, reason="the device's memory ran out beside others; trying again alone")
                )
                return True
            self.fail(stage, error, getattr(error, "traceback", "") or traceback.format_exc())
        else:
            self.finish(stage, seconds)
        self._unbegun = 0
        return False

    def _again(self, stage: Stage, what: str, how: str = "", guess: str = "") -> bool:
        """Book what the machine did to a running stage: True when it shall be tried again, and after the last time a failure."""
        self._unbegun = 0
        self._deaths[stage.key] = times = self._deaths.get(stage.key, 0) + 1
        if times <= RETRIES_AFTER_DEATH:
            self._watch(Event("lost", stage, reason=f"{what}{how}; trying again"))
            return True
        self.fail(stage, StageLost(f"{what} {times} times{how}{guess}"), "")
        return False


@dataclass(frozen=True)
class _Running:
    """A stage in the pool, and when it went there, by a clock that nobody sets."""

    stage: Stage
    at: float


class _Workers:
    """A pool of processes, made anew where it breaks: pebble gives a whole pool up where a worker dies and none is in a task."""

    def __init__(self, jobs: int, arguments: tuple[str, str | None, tuple[str, ...]]) -> None:
        self._jobs, self._arguments = jobs, arguments
        self._pool = self._made()

    def _made(self) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.stages"])
        return ProcessPool(
            max_workers=self._jobs, context=context, initializer=_prepare_worker, initargs=self._arguments
        )

    @property
    def broken(self) -> bool:
        """Has the pool given up?"""
        return not self._pool.active

    def schedule(
        self, function: Callable[..., T], arguments: tuple[Any, ...] = (), seconds: float | None = None
    ) -> Future[T]:
        """Hand a function in; where the pool has given up, a future that says so."""
        try:
            future: Future[T] = self._pool.schedule(function, args=arguments, timeout=seconds)
        except RuntimeError as error:
            future = Future()
            future.set_exception(BrokenProcessPool(str(error)))
        return future

    def renew(self, running: Iterable[Future[Any]]) -> None:
        """End what is left of the pool and make another; what has not come to its end then never will, and is told so."""
        self.stop()
        for future in running:
            if not future.done():
                future.set_exception(BrokenProcessPool("its pool was given up"))
        self._pool = self._made()

    def stop(self) -> None:
        """End the processes, whatever they do."""
        self._pool.stop()
        self._pool.join()

    def close(self) -> None:
        """End the processes, which have nothing left to do."""
        self._pool.close()
        self._pool.join()


_arguments: tuple[str, str | None, Sequence[str]] = ("", None, ())
_workshop: Workshop | None = None


def _prepare_worker(store: str, mirror: str | None, plugin_files: Sequence[str]) -> None:
    """Once a worker: open the store and find the plugins. Ctrl-C is the parent's business."""
    global _arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _arguments = store, mirror, plugin_files
    with suppress(WorkerUnfit):  # the pool would break without a word of why; the first stage tries again, and tells
        _prepared()


def _prepared() -> Workshop:
    """What this worker works with.

    Raises:
        WorkerUnfit: the store, the mirror or a plugin cannot be opened.
    """
    global _workshop
    if _workshop is None:
        store, mirror, plugin_files = _arguments
        try:
            registry = Registry().discover()
            for file in plugin_files:
                registry.add_file(Path(file))
            _workshop = Workshop(Store(Path(store), opened(mirror)), registry)
        except BenchError as error:
            raise WorkerUnfit(str(error)) from error
        except (Exception, SystemExit) as error:
            raise WorkerUnfit(f"{type(error).__name__}: {error}") from error
        # Every fit begins with a full collection (accelerate's), which walks half a million objects of imported modules for nothing.
        gc.freeze()
    return _workshop


def _work(stage: Stage, shared: bool) -> float:
    """Run one stage in a worker, beside others on its graphics device or not; returns its wall seconds."""
    workshop = _prepared()
    started = time.perf_counter()
    try:
        run_stage(stage, workshop, shared)
    except StoreError:
        raise
    except (Exception, SystemExit) as error:
        # Exceptions of plugins may not survive pickling; their text does.
        failed = StageFailed(type(error).__name__, str(error), traceback.format_exc(), ran_out_of_memory(error))
    else:
        return time.perf_counter() - started
    # Outside the handler, whose traceback holds what the stage had on the device: others wait for that memory.
    give_memory_back()
    raise failed


class StageFailed(Exception):
    """A stage raised in a worker.

    Attributes:
        kind: name of the error's type.
        message: its text.
        traceback: all of it.
        out_of_memory: it comes from a graphics device that was full.
    """

    def __init__(self, kind: str, message: str, text: str, out_of_memory: bool = False) -> None:
        super().__init__(kind, message, text, out_of_memory)
        self.kind, self.message, self.traceback, self.out_of_memory = kind, message, text, out_of_memory

    def __str__(self) -> str:
        return self.message
