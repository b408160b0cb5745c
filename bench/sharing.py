"""What stages take of a machine, as measured in a store, and which of them compute on one graphics device side by side.

A stage is known by its kind and its model (with its window, its batches and its task): the most that any such stage was seen to take in
this store. Stages start beside each other while their peaks, and each worker's own share of the device (its CUDA context), fit into what
was free when the run began. What was never measured on a device computes alone, and is known from then on. Where the device's memory runs
out all the same, nothing is cut into smaller batches: the stage is tried once more, alone, where it may be. That is no failure of its
method, and what a neighbour takes never shows in a result.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from bench.jobs import Stage
from bench.store import Store

CONTEXT_BYTES: Final = 600 * 2**20
"""Of a device's memory, for a process's CUDA context and libraries, outside the allocator's count. An allowance, not a measurement:
no device was lent to this version."""
RESERVE: Final = 0.05
"""Share of the free memory that is left alone: what a stage takes differs a little from run to run."""


Measured = tuple[str, str]
"""What a measurement of memory holds for: a stage's kind and its model; no model is one in itself."""


@dataclass(frozen=True)
class Peaks:
    """The most bytes that stages were measured to take."""

    memory: Mapping[Measured, int] = field(default_factory=dict)
    """Of the machine."""
    device: Mapping[Measured, int] = field(default_factory=dict)
    """Of a graphics device, by torch's allocator."""
    device_size: int | None = None
    """Memory of the smallest device that anything was measured on."""


def peaks_of(store: Store) -> Peaks:
    """All that was measured in a store."""
    memory: dict[Measured, int] = {}
    device: dict[Measured, int] = {}
    sizes: list[int] = []
    for path in (store.root / "timings").glob("*.json"):
        timing = store.timing(path.stem) or {}
        kind = timing.get("kind")
        if not isinstance(kind, str):
            continue
        known = kind, str(timing.get("model", ""))
        for name, largest in (("peak_bytes", memory), ("device_peak_bytes", device)):
            peak = timing.get(name)
            if isinstance(peak, int):
                largest[known] = max(largest.get(known, 0), peak)
        size = timing.get("device_bytes")
        if isinstance(size, int):
            sizes.append(size)
    return Peaks(memory, device, min(sizes, default=None))


def measured_as(stage: Stage) -> Measured:
    """What a stage's measurement holds for."""
    return stage.kind, stage.model


def on_device(stage: Stage) -> bool:
    """Does a stage compute on a graphics device?"""
    return str(stage.inputs.get("numerics", {}).get("device", "cpu")).startswith("cuda")


def share_of_device(stage: Stage, peaks: Peaks) -> float:
    """How much of a device a stage needs, in (0, 1]: hundredths, rounded up; all of it where that is not known."""
    peak = peaks.device.get(measured_as(stage))
    if peak is None or not peaks.device_size:
        return 1.0
    return min(1.0, math.ceil(100 * (peak + CONTEXT_BYTES) / (peaks.device_size * (1 - RESERVE))) / 100)


@contextmanager
def measured(device: torch.device) -> Iterator[dict[str, int]]:
    """What the block takes of a graphics device, filled in when it ends; its cached memory is given back to the others."""
    found: dict[str, int] = {}
    if device.type != "cuda":
        yield found
        return
    torch.cuda.reset_peak_memory_stats(device)
    try:
        yield found
    finally:
        found["device_peak_bytes"] = int(torch.cuda.max_memory_reserved(device))
        found["device_bytes"] = int(torch.cuda.mem_get_info(device)[1])
        torch.cuda.empty_cache()


def give_memory_back() -> None:
    """What a failed stage left in the device's cache, to the other processes; nothing where no device was used."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


def free_device_memory() -> int:
    """Bytes that are free on the device, beside this process's own context."""
    return int(torch.cuda.mem_get_info()[0])


class Room:
    """A graphics device's memory, and who computes there.

    Args:
        free: bytes that are free, all workers' contexts aside.
        peaks: of a store where stages were measured before.
    """

    def __init__(self, free: int, peaks: Mapping[Measured, int]) -> None:
        self._free = int(free * (1 - RESERVE))
        self._peaks = dict(peaks)
        self._inside: dict[str, int] = {}
        self._alone: set[str] = set()

    def enter(self, stage: Stage) -> bool:
        """Let a stage in if it fits beside those that are there; says whether it is in."""
        need = self._need(stage)
        if self._inside and sum(self._inside.values()) + need > self._free:
            return False
        self._inside[stage.key] = need
        return True

    def shared(self, stage: Stage) -> bool:
        """May others come in beside a stage that is inside? Whether they did is not asked: they may come at any time."""
        return self._inside.get(stage.key, self._free) < self._free

    def leave(self, stage: Stage, timing: Mapping[str, Any] | None) -> bool:
        """A stage is out; ``timing`` tells what it took, if it ended well. Returns whether it shared the device."""
        shared = self.shared(stage)
        self._inside.pop(stage.key, None)
        peak, known = (timing or {}).get("device_peak_bytes"), measured_as(stage)
        if isinstance(peak, int):
            self._peaks[known] = max(self._peaks.get(known, 0), peak)
        return shared

    def alone(self, stage: Stage) -> None:
        """From now on a stage has the device to itself."""
        self._alone.add(stage.key)

    def _need(self, stage: Stage) -> int:
        if stage.key in self._alone:
            return self._free
        # At least a byte, so that nobody comes in beside one that has it all.
        return max(1, min(self._peaks.get(measured_as(stage), self._free), self._free))
