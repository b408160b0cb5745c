"""Stages that share a graphics device: who goes in beside whom, and what happens when its memory runs out all the same.

No device is needed: a pool that hands out futures stands in for the workers.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.execute import OUT_OF_MEMORY, Event, Run, StageFailed
from bench.jobs import Stage
from bench.sharing import CONTEXT_BYTES, Peaks, Room, measured, on_device, peaks_of, share_of_device
from bench.store import Store

GIB = 2**30
CUDA = {"numerics": {"device": "cuda", "threads": 1}}


def device_stage(number: int, kind: str = "train") -> Stage:
    return Stage(kind, {**CUDA, "number": number}, label=f"{kind} {number}")


class Workers:
    """A pool that runs nothing: every stage that starts is open until the test ends it."""

    def __init__(self, store: Store, **peaks: int) -> None:
        self.events: list[Event] = []
        self.open: dict[str, Future[float]] = {}
        self.store, self.peaks = store, peaks
        self.waiting: list[Stage] = []
        self.running: dict[Future[float], Stage] = {}

    def start(self, stages: list[Stage], free: int) -> Run:
        self.run = Run({stage.key: stage for stage in stages}, self.store, self.events.append)
        self.run._deaths = {}
        self.run._room = Room(free, self.peaks)
        self.waiting = self.run.pending()
        self.go_on()
        return self.run

    def go_on(self) -> None:
        self.waiting = self.run._submit(self, self.waiting, self.running, 4, None)

    def schedule(self, work: Any, args: tuple[Stage], timeout: float | None) -> Future[float]:
        self.open[args[0].label] = found = Future()
        return found

    def end(self, label: str, error: Exception | None = None) -> None:
        future = self.open.pop(label)
        stage = self.running.pop(future)
        if error is None:
            self.store.note_timing(
                stage.kind, stage.key, 1.0, 1, {"device_peak_bytes": 2 * GIB, "device_bytes": 9 * GIB}
            )
            future.set_result(1.0)
        else:
            future.set_exception(error)
        if self.run._collect(future, stage):
            self.waiting.insert(0, stage)
        self.go_on()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_stages_start_beside_each_other_while_their_measured_peaks_fit(store: Store) -> None:
    workers = Workers(store, train=4 * GIB)
    workers.start([device_stage(i) for i in range(4)], free=10 * GIB)
    assert sorted(workers.open) == ["train 0", "train 1"], "9.5 GiB hold two of 4, not three"
    workers.end("train 0")
    assert sorted(workers.open) == ["train 1", "train 2"]


def test_a_stage_of_an_unknown_kind_computes_alone_and_is_known_from_then_on(store: Store) -> None:
    workers = Workers(store)
    workers.start([device_stage(i) for i in range(6)], free=10 * GIB)
    assert sorted(workers.open) == ["train 0"]
    workers.end("train 0")  # it took 2 GiB
    assert sorted(workers.open) == ["train 1", "train 2", "train 3", "train 4"], "four workers, four of 2 GiB"


def test_stages_on_processors_do_not_wait_for_the_device(store: Store) -> None:
    workers = Workers(store, train=9 * GIB)
    workers.start([device_stage(0), device_stage(1), Stage("data", {"number": 2}, label="data")], free=10 * GIB)
    assert sorted(workers.open) == ["data", "train 0"]


def test_nothing_overtakes_a_stage_that_waits_for_room(store: Store) -> None:
    workers = Workers(store, train=6 * GIB, screen=1 * GIB)
    workers.start([device_stage(0), device_stage(1), device_stage(2, "screen")], free=10 * GIB)
    assert sorted(workers.open) == ["train 0"], "the screen would fit, and train 1 would wait for ever behind such"


def test_memory_that_runs_out_beside_others_is_tried_again_alone(store: Store) -> None:
    workers = Workers(store, train=4 * GIB)
    run = workers.start([device_stage(i) for i in range(3)], free=10 * GIB)
    workers.end("train 1", StageFailed(OUT_OF_MEMORY, "CUDA out of memory", "traceback"))
    assert [event.what for event in workers.events].count("lost") == 1
    assert "train 1" not in workers.open
    assert not run.report.failed
    workers.end("train 0")
    assert sorted(workers.open) == ["train 1"], "the whole device is its own"
    workers.end("train 1", StageFailed(OUT_OF_MEMORY, "CUDA out of memory", "traceback"))
    assert list(run.report.failed.values()) == [f"{OUT_OF_MEMORY}: CUDA out of memory"], "alone it is the method's own"
    assert sorted(workers.open) == ["train 2"]


def test_another_failure_beside_others_is_the_methods_own(store: Store) -> None:
    workers = Workers(store, train=4 * GIB)
    run = workers.start([device_stage(0), device_stage(1)], free=10 * GIB)
    workers.end("train 1", StageFailed("ValueError", "no", "traceback"))
    assert list(run.report.failed.values()) == ["ValueError: no"]


def test_torch_still_calls_it_so() -> None:
    assert torch.OutOfMemoryError.__name__ == OUT_OF_MEMORY


def test_peaks_are_the_largest_of_a_kind_on_the_smallest_device(store: Store) -> None:
    for key, peak, size in (("a", 3, 80), ("b", 5, 40), ("c", 4, 80)):
        more = {"device_peak_bytes": peak * GIB, "device_bytes": size * GIB}
        store.note_timing("train", key, 1.0, 100 + peak, more)
    store.note_timing("data", "d", 1.0, 7)
    assert peaks_of(store) == Peaks({"train": 105, "data": 7}, {"train": 5 * GIB}, 40 * GIB)


def test_shares_of_a_device_are_rounded_up_and_whole_where_nothing_is_known() -> None:
    peaks = Peaks(device={"train": 3 * GIB, "repair": 90 * GIB}, device_size=80 * GIB)
    expected = (3 * GIB + CONTEXT_BYTES) / (80 * GIB * 0.95)
    assert expected <= share_of_device(device_stage(0), peaks) < expected + 0.01
    assert share_of_device(device_stage(0, "repair"), peaks) == 1.0
    assert share_of_device(device_stage(0, "screen"), peaks) == 1.0
    assert share_of_device(device_stage(0), Peaks()) == 1.0


def test_processors_have_no_device_to_measure() -> None:
    with measured(torch.device("cpu")) as taken:
        pass
    assert taken == {}
    assert not on_device(Stage("train", {"numerics": {"device": "cpu"}}))
    assert not on_device(Stage("data", {}))
