"""Running a graph of stages: in this process, or in a local pool of processes.

A stage that raises, dies or runs out of time blocks its descendants and nothing else. Whatever is published stays, so
running again is resuming. A worker that is killed (signal, out of memory) is the machine's failure, not the method's:
its stage is tried again, twice.
"""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from bench.children import single_threaded_children
from bench.errors import StoreError
from bench.jobs import Stage, Workshop
from bench.mirror import opened
from bench.models.memory import ran_out_of_memory
from bench.plugins import Registry
from bench.sharing import CONTEXT_BYTES, Room, free_device_memory, give_memory_back, on_device, peaks_of
from bench.stages import run_stage
from bench.store import Store

RETRIES_AFTER_DEATH = 2


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


def _reason(error: BaseException) -> str:
    kind = error.kind if isinstance(error, StageFailed) else type(error).__name__
    return f"{kind}: {error}"


class Run:
    """One execution of a graph."""

    def __init__(self, stages: Mapping[str, Stage], store: Store, watch: Callable[[Event], None]) -> None:
        self._stages = stages
        self.store = self._store = store
        self._watch = watch
        self.report = Report()

    def pending(self) -> list[Stage]:
        """Stages that are not in the store, in order; the stored ones count as done, and are put into the mirror where it has them not.

        Raises:
            StoreError: the mirror cannot be reached or written.
        """
        waiting = []
        for key, stage in self._stages.items():
            if self._store.has(stage.kind, key):
                self._store.share(stage.kind, key)
                self.report.done.add(key)
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
        self._room: Room | None = None
        running: dict[Future[float], Stage] = {}
        mirror = None if self._store.mirror is None else self._store.mirror.url
        arguments = (str(self._store.root), mirror, tuple(str(p) for p in registry.files()))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.stages"])
        pool: Any = ProcessPool(max_workers=jobs, context=context, initializer=_prepare_worker, initargs=arguments)
        try:
            with single_threaded_children():
                if jobs > 1 and any(on_device(stage) for stage in waiting):
                    free = pool.schedule(free_device_memory).result() - (jobs - 1) * CONTEXT_BYTES
                    self._room = Room(free, peaks_of(self._store).device)
                while waiting or running:
                    waiting = self._submit(pool, waiting, running, jobs, seconds)
                    if not running:
                        continue
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        stage = running.pop(future)
                        if self._collect(future, stage):
                            waiting.insert(0, stage)
        except BaseException:
            pool.stop()
            pool.join()
            raise
        pool.close()
        pool.join()
        return self.report

    def _submit(
        self, pool: Any, waiting: list[Stage], running: dict[Future[float], Stage], jobs: int, seconds: float | None
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
                running[pool.schedule(_work, args=(stage, shared), timeout=seconds)] = stage
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

    def _collect(self, future: Future[float], stage: Stage) -> bool:
        """Book a finished future; True when the stage shall be tried again."""
        shared = self._room.leave(stage, self._store.timing(stage.key)) if self._room is not None else False
        deaths = self._deaths
        try:
            seconds = future.result()
        except ProcessExpired as error:
            deaths[stage.key] = deaths.get(stage.key, 0) + 1
            if deaths[stage.key] <= RETRIES_AFTER_DEATH:
                self._watch(Event("lost", stage, reason=f"its worker died (exit code {error.exitcode}); trying again"))
                return True
            lost = StageLost(f"its worker died {deaths[stage.key]} times (exit code {error.exitcode}); out of memory?")
            self.fail(stage, lost, "")
        except (TimeoutError, concurrent.futures.TimeoutError):
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
        return False


_workshop: Workshop | None = None


def _prepare_worker(store: str, mirror: str | None, plugin_files: Sequence[str]) -> None:
    """Once a worker: open the store and find the plugins. Ctrl-C is the parent's business."""
    global _workshop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    registry = Registry().discover()
    for file in plugin_files:
        registry.add_file(Path(file))
    _workshop = Workshop(Store(Path(store), opened(mirror)), registry)
    # Every fit begins with a full collection (accelerate's), which walks half a million objects of imported modules for nothing.
    gc.freeze()


def _work(stage: Stage, shared: bool) -> float:
    """Run one stage in a worker, beside others on its graphics device or not; returns its wall seconds."""
    assert _workshop is not None
    started = time.perf_counter()
    try:
        run_stage(stage, _workshop, shared)
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
