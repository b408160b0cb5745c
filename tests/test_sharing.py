"""Stages that share a graphics device: who goes in beside whom, and what happens when its memory runs out all the same.

No device is needed: a pool that hands out futures stands in for the workers.
"""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.execute
from bench import stages
from bench.errors import ModelError
from bench.execute import Event, Run, StageFailed, _Running
from bench.jobs import Job, Stage, Workshop
from bench.models.memory import may_cut, ran_out_of_memory
from bench.plugins import Registry
from bench.sharing import CONTEXT_BYTES, Peaks, Room, measured, on_device, peaks_of, share_of_device
from bench.store import Store

GIB = 2**30
CUDA = {"numerics": {"device": "cuda", "threads": 1}}


FULL = StageFailed("OutOfMemoryError", "CUDA out of memory", "traceback", True)


def device_stage(number: int, kind: str = "train", model: str = "tiny") -> Stage:
    return Stage(kind, {**CUDA, "number": number}, label=f"{kind} {number}", model=model)


class Workers:
    """A pool that runs nothing: every stage that starts is open until the test ends it."""

    def __init__(self, store: Store, **peaks: int) -> None:
        self.events: list[Event] = []
        self.open: dict[str, Future[float]] = {}
        self.shared: dict[str, bool] = {}
        self.store, self.peaks = store, {(kind, "tiny"): peak for kind, peak in peaks.items()}
        self.waiting: list[Stage] = []
        self.running: dict[Future[float], _Running] = {}

    def start(self, stages: list[Stage], free: int) -> Run:
        self.run = Run({stage.key: stage for stage in stages}, self.store, self.events.append)
        self.run._deaths = {}
        self.run._room = Room(free, self.peaks)
        self.waiting = self.run.pending()
        self.go_on()
        return self.run

    def go_on(self) -> None:
        self.waiting = self.run._submit(self, self.waiting, self.running, 4, None)

    def schedule(self, work: Any, arguments: tuple[Stage, bool], seconds: float | None) -> Future[float]:
        stage, shared = arguments
        self.open[stage.label] = found = Future()
        self.shared[stage.label] = shared
        return found

    def end(self, label: str, error: Exception | None = None) -> None:
        future = self.open.pop(label)
        started = self.running.pop(future)
        stage = started.stage
        if error is None:
            self.store.note_timing(
                stage.kind,
                stage.key,
                1.0,
                1,
                {"device_peak_bytes": 2 * GIB, "device_bytes": 9 * GIB, "model": stage.model},
            )
            future.set_result(1.0)
        else:
            future.set_exception(error)
        if self.run._collect(future, started, None):
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
    workers.end("train 1", FULL)
    assert [event.what for event in workers.events].count("lost") == 1
    assert "train 1" not in workers.open
    assert not run.report.failed
    workers.end("train 0")
    assert sorted(workers.open) == ["train 1"], "the whole device is its own"
    assert not workers.shared["train 1"], "and it is told so: it may cut its batches"
    workers.end("train 1", FULL)
    assert list(run.report.failed.values()) == ["OutOfMemoryError: CUDA out of memory"], "alone it is the method's own"
    assert sorted(workers.open) == ["train 2"]


def test_another_failure_beside_others_is_the_methods_own(store: Store) -> None:
    workers = Workers(store, train=4 * GIB)
    run = workers.start([device_stage(0), device_stage(1)], free=10 * GIB)
    workers.end("train 1", StageFailed("ValueError", "no", "traceback"))
    assert list(run.report.failed.values()) == ["ValueError: no"]


def test_a_stage_that_was_measured_shares_the_device_and_one_that_was_not_has_it_to_itself(store: Store) -> None:
    workers = Workers(store, train=4 * GIB)
    workers.start([device_stage(0), Stage("data", {"number": 1}, label="data"), device_stage(2, "repair")], 10 * GIB)
    assert workers.shared == {"train 0": True, "data": False}, "others may come at any time"
    workers.end("train 0")
    assert workers.shared["repair 2"] is False


def test_a_model_that_was_never_measured_computes_alone_whatever_a_smaller_one_took(store: Store) -> None:
    workers = Workers(store, train=1 * GIB)
    large = [device_stage(i, model="codet5-base") for i in range(8)]
    workers.start([device_stage(8), device_stage(9), *large], free=10 * GIB)
    assert sorted(workers.open) == ["train 8", "train 9"]
    workers.end("train 8")
    assert sorted(workers.open) == ["train 9"], "no stage of the large model beside it"
    workers.end("train 9")
    assert sorted(workers.open) == ["train 0"]
    assert not workers.shared["train 0"]
    workers.end("train 0")  # it took 2 GiB
    assert sorted(workers.open) == ["train 1", "train 2", "train 3", "train 4"]


def test_a_stage_that_takes_nothing_does_not_come_in_beside_one_that_has_it_all(store: Store) -> None:
    workers = Workers(store, predict=0)
    workers.start([device_stage(0), device_stage(1, "predict")], free=10 * GIB)
    assert sorted(workers.open) == ["train 0"]


# ------------------------------------------------------------------------------------------------- memory that runs out


def _hides(error: Exception) -> None:
    try:
        raise error
    except torch.OutOfMemoryError:
        raise ModelError("said anew") from None


def _stumbles(error: Exception) -> None:
    try:
        raise error
    except torch.OutOfMemoryError:
        raise ModelError("while handling it")  # noqa: B904 (as a plugin may)


def _wraps(error: Exception) -> None:
    try:
        _stumbles(error)
    except ModelError as found:
        raise ValueError("no") from found


@pytest.mark.parametrize(
    ("method", "known"),
    [(_stumbles, True), (_wraps, True), (_hides, False)],  # who hides where it comes from has dealt with it
)
def test_a_full_device_is_known_through_the_errors_that_are_raised_from_it(
    method: Callable[[Exception], None], known: bool
) -> None:
    with pytest.raises((ModelError, ValueError)) as caught:
        method(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out_of_memory(caught.value) == known


def test_a_full_device_is_known_by_the_words_of_the_libraries_below_torch() -> None:
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert ran_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not ran_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not ran_out_of_memory(ValueError("CUDA error: out of memory"))


def test_a_worker_tells_whether_it_shares_and_what_its_error_comes_from(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage wraps what it catches, as methods do: the run still learns that the device was full."""
    told: list[bool] = []

    def train(job: Job) -> None:
        told.append(may_cut())
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError as error:
            raise ModelError("memory ran out on a single sample") from error

    monkeypatch.setattr(stages, "STAGES", {"train": train})
    monkeypatch.setattr(bench.execute, "_workshop", Workshop(store, Registry()))
    stage = Stage("train", {})
    for shared in (True, False):
        with pytest.raises(StageFailed, match="single sample") as caught:
            bench.execute._work(stage, shared)
        assert pickle.loads(pickle.dumps(caught.value)).out_of_memory, "it goes from process to process"
        assert caught.value.__cause__ is caught.value.__context__ is None, "nothing holds the stage's tensors"
    assert told == [False, True]
    assert may_cut(), "as before"


def test_what_a_failed_stage_held_is_free_before_the_others_are_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tensors:
        pass

    alive: list[weakref.ref[Tensors]] = []
    seen: list[bool] = []

    def train(job: Job) -> None:
        held = Tensors()
        alive.append(weakref.ref(held))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stages, "STAGES", {"train": train})
    monkeypatch.setattr(bench.execute, "_workshop", Workshop(store, Registry()))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append(alive[0]() is None))
    with pytest.raises(StageFailed):
        bench.execute._work(Stage("train", {}), True)
    assert seen == [True]


# ---------------------------------------------------------------------------------------------------- what was measured


def test_peaks_are_the_largest_of_a_kind_and_model_on_the_smallest_device(store: Store) -> None:
    for key, peak, size, model in (
        ("a", 3, 80, "tiny"),
        ("b", 5, 40, "tiny"),
        ("c", 4, 80, "tiny"),
        ("e", 9, 80, "t5"),
    ):
        more = {"device_peak_bytes": peak * GIB, "device_bytes": size * GIB, "model": model}
        store.note_timing("train", key, 1.0, 100 + peak, more)
    store.note_timing("data", "d", 1.0, 7)
    device = {("train", "tiny"): 5 * GIB, ("train", "t5"): 9 * GIB}
    memory = {("train", "tiny"): 105, ("train", "t5"): 109, ("data", ""): 7}
    assert peaks_of(store) == Peaks(memory, device, 40 * GIB)


def test_a_stage_is_measured_with_its_model(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", {"train": lambda job: None})
    stage = device_stage(0, model="codet5-base 0123")
    here = replace(stage, inputs={"number": 0})
    stages.run_stage(here, Workshop(store, Registry()))
    timing = store.timing(here.key)
    assert timing is not None
    assert timing["model"] == "codet5-base 0123"
    assert replace(stage, model="").key == stage.key, "it is no part of the key"


def test_shares_of_a_device_are_rounded_up_and_whole_where_nothing_is_known() -> None:
    peaks = Peaks(device={("train", "tiny"): 3 * GIB, ("repair", "tiny"): 90 * GIB}, device_size=80 * GIB)
    expected = (3 * GIB + CONTEXT_BYTES) / (80 * GIB * 0.95)
    assert expected <= share_of_device(device_stage(0), peaks) < expected + 0.01
    assert share_of_device(device_stage(0, "repair"), peaks) == 1.0
    assert share_of_device(device_stage(0, "screen"), peaks) == 1.0
    assert share_of_device(device_stage(0, model="codet5-base"), peaks) == 1.0
    assert share_of_device(device_stage(0), Peaks()) == 1.0


def test_processors_have_no_device_to_measure() -> None:
    with measured(torch.device("cpu")) as taken:
        pass
    assert taken == {}
    assert not on_device(Stage("train", {"numerics": {"device": "cpu"}}))
    assert not on_device(Stage("data", {}))
