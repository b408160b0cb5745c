"""A stage's memory is its own: what an earlier stage of the same worker took is forgotten."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from bench import resident, stages
from bench.jobs import Job, Stage, Workshop
from bench.plugins import Registry
from bench.resident import forget_peak, peak_bytes
from bench.store import Store

LARGE = 256 * 2**20


def hold() -> None:
    """Take memory, touch it, and let it go."""
    held = bytearray(LARGE)
    held[:: 2**12] = b"x" * len(held[:: 2**12])


@pytest.fixture
def resets() -> None:
    try:
        resident.CLEAR.write_text(resident.RESET_PEAK)
    except OSError as error:
        pytest.skip(f"this system does not reset a process's peak: {error}")


@pytest.mark.usefixtures("resets")
def test_a_small_stage_after_a_large_one_does_not_inherit_its_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(job: Job) -> None:
        if job.inputs["large"]:
            hold()

    monkeypatch.setattr(stages, "STAGES", {"train": fill})
    store = Store(tmp_path)
    peaks = []
    for number, large in enumerate((False, True, False)):
        stage = Stage("train", {"large": large, "number": number})
        stages.run_stage(stage, Workshop(store, Registry()))
        timing = store.timing(stage.key)
        assert timing is not None
        peaks.append(timing["peak_bytes"])
    assert peaks[1] > peaks[0] + LARGE // 2
    assert peaks[2] < peaks[1] - LARGE // 2


def test_where_a_peak_cannot_be_reset_or_read_the_maximum_ever_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(resident, "STATUS", tmp_path / "status")
    hold()
    forget_peak()
    ever = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_bytes() == ever * (1 if resident.sys.platform == "darwin" else 1024)
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t 900 kB\nVmHWM:\t   17 kB\nVmRSS:\t 5 kB\n")
    assert peak_bytes() == 17 * 1024
