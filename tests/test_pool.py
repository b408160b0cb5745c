"""The local pool where the machine, and no stage, is at fault: workers that die between stages or cannot begin, and a clock that is set.

The workers are forked from this process, so that stand-in stages and what is patched here hold in them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import execute, stages
from bench.errors import StoreError
from bench.execute import Event, Report, Run
from bench.jobs import Job, Stage
from bench.plugins import Registry
from bench.store import Store, write_json


def graph() -> dict[str, Stage]:
    """Two stages, and one that reads both."""
    first, second = (Stage("data", {"seed": seed}, label=f"data {seed}") for seed in range(2))
    last = Stage("train", {}, {"one": ("data", first.key), "two": ("data", second.key)}, "train")
    return {stage.key: stage for stage in (first, second, last)}


def _fill(job: Job) -> None:
    write_json(job.folder / "facts.json", {"label": job.stage.label})


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(Registry, "discover", lambda self: self)
    monkeypatch.setattr(stages, "STAGES", {"data": _fill, "train": _fill})


def ran(
    folder: Path, events: list[Event], files: tuple[Path, ...] = (), seconds: float | None = None, jobs: int = 2
) -> Report:
    run = Run(graph(), Store(folder / "store"), events.append)
    registry: Any = SimpleNamespace(files=lambda: files)
    return run.pool(registry, jobs, seconds)


def failures(folder: Path) -> list[Path]:
    return list((folder / "store" / "failures").iterdir())


def once(mark: Path) -> bool:
    """Is it the first time that somebody asks?"""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def beginning(monkeypatch: pytest.MonkeyPatch, first: Callable[[], object]) -> None:
    """Workers do something else before they prepare themselves."""
    prepare = execute._prepare_worker

    def prepared(*arguments: Any) -> None:
        first()
        prepare(*arguments)

    monkeypatch.setattr(execute, "_prepare_worker", prepared)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_worker_that_dies_before_a_stage_costs_no_stage_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    beginning(monkeypatch, lambda: once(tmp_path / "died") and dies())
    report = ran(tmp_path, [], jobs=jobs)
    assert (report.done, report.failed) == (set(graph()), {})
    assert failures(tmp_path) == []
    assert (tmp_path / "died").exists()


def test_workers_that_die_again_and_again_end_the_run_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning(monkeypatch, dies)
    events: list[Event] = []
    with pytest.raises(StoreError, match=r"a worker process died outside a stage .*3 times in a row.*is kept"):
        ran(tmp_path, events)
    assert {event.what for event in events} == {"start", "lost"}
    assert failures(tmp_path) == [], "it says nothing of a method"


class MadeUp:
    """A pool that gives up when it is handed something in, before that begins, or never tells; as pebble's does, but at will."""

    def __init__(self, how: str) -> None:
        self._how, self.active = how, True

    def schedule(self, function: Any, args: tuple[Any, ...] = (), timeout: float | None = None) -> execute.Future[Any]:
        self.active = self._how == "works"
        future: execute.Future[Any] = execute.Future()
        if self._how == "works":
            future.set_result(function(*args))
        elif self._how == "refuses":
            raise RuntimeError("Unexpected error within the Pool")
        elif self._how == "breaks":
            future.set_exception(execute.BrokenProcessPool("All workers expired"))
        return future

    def stop(self) -> None:
        pass

    join = close = stop


@pytest.mark.parametrize("how", ["refuses", "breaks", "is silent"])
def test_a_pool_that_gives_up_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    pools = [MadeUp(how), MadeUp(how), MadeUp("works")]
    monkeypatch.setattr(execute, "ProcessPool", lambda **told: pools.pop(0))
    monkeypatch.setattr(execute, "_work", lambda stage, shared: 1.0)
    monkeypatch.setattr(execute, "LOOK_SECONDS", 0.01)
    events: list[Event] = []
    report = ran(tmp_path, events)
    assert (report.done, report.failed, pools) == (set(graph()), {}, [])
    assert [event.what for event in events].count("lost") == 4


@pytest.mark.parametrize("how", ["refuses", "breaks", "is silent"])
def test_a_pool_that_gives_up_when_it_is_asked_for_its_device_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pools = [MadeUp(how), MadeUp("works"), MadeUp("none is left")]
    monkeypatch.setattr(execute, "ProcessPool", lambda **told: pools.pop(0))
    monkeypatch.setattr(execute, "_work", lambda stage, shared: 1.0)
    monkeypatch.setattr(execute, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(execute, "on_device", lambda stage: True)
    monkeypatch.setattr(execute, "free_device_memory", lambda: 8 * 2**30)
    report = ran(tmp_path, [])
    assert (report.done, report.failed, len(pools)) == (set(graph()), {}, 1)


def test_a_worker_that_cannot_begin_at_first_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = execute.opened

    def stumbles(url: str | None) -> Any:
        if once(tmp_path / "one") or once(tmp_path / "two"):
            raise OSError("the line is down")
        return opened(url)

    monkeypatch.setattr(execute, "opened", stumbles)
    events: list[Event] = []
    report = ran(tmp_path, events, jobs=1)
    assert (report.done, report.failed) == (set(graph()), {})
    assert [event.reason for event in events if event.what == "lost"] == [
        "its worker could not begin (OSError: the line is down); trying again"
    ]


def test_a_worker_that_can_never_begin_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a worker cannot begin: .*gone\.py.*3 times in a row"):
        ran(tmp_path, [], (tmp_path / "gone.py",))
    assert failures(tmp_path) == []


@pytest.mark.parametrize("times", [1, 3])
def test_a_clock_that_is_set_forward_fails_no_stage_that_was_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    real, set_by = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + set_by[0])
    marks = [tmp_path / f"waits {place}" for place in range(times)]

    def waits(job: Job) -> None:
        if job.stage.label == "data 1" and any(once(mark) for mark in marks):
            threading.Event().wait()  # until the pool kills it
        _fill(job)

    def sets_the_clock() -> None:
        for mark in marks:
            while not mark.exists():
                time.sleep(0.01)
            set_by[0] += 10_000.0

    monkeypatch.setattr(stages, "STAGES", {"data": waits, "train": _fill})
    events: list[Event] = []
    clock = threading.Thread(target=sets_the_clock)
    clock.start()
    report = ran(tmp_path, events, seconds=5_000.0, jobs=1)
    clock.join()
    reasons = [event.reason for event in events if event.what == "lost"]
    assert set(reasons) == {"the machine's clock was set forward while it ran; trying again"}
    assert len(reasons) == min(times, 2)
    lost = ["StageLost: the machine's clock was set forward while it ran 3 times"]
    assert list(report.failed.values()) == (lost if times == 3 else [])


def test_a_stage_past_its_time_is_the_methods_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(job: Job) -> None:
        threading.Event().wait()

    monkeypatch.setattr(stages, "STAGES", {"data": hangs, "train": _fill})
    report = ran(tmp_path, [], seconds=0.1)
    assert set(report.failed.values()) == {"TimeoutError: it took longer than the suite's stage_seconds"}
    assert len(report.blocked) == 1
