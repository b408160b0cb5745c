"""What stages take of a machine, as measured in a store, and which of them compute on one graphics device side by side.

A stage is known by its kind: the most that any stage of the kind was seen to take in this store. Stages start beside each other while
their peaks, and each worker's own share of the device (its CUDA context), fit into what was free when the run began. One whose kind was
never measured on a device computes alone, and is known from then on. Where the device's memory runs out all the same, the stage is tried
once more, alone: that is no failure of its method.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Peaks:
    """Kind -> the most bytes that a stage of it was measured to take."""

    memory: Mapping[str, int] = field(default_factory=dict)
    """Of the machine."""
    device: Mapping[str, int] = field(default_factory=dict)
    """Of a graphics device, by torch's allocator."""
    device_size: int | None = None
    """Memory of the smallest device that anything was measured on."""


def peaks_of(store: Store) -> Peaks:
    """All that was measured in a store."""
    memory: dict[str, int] = {}
    device: dict[str, int] = {}
    sizes: list[int] = []
    for path in (store.root / "timings").glob("*.json"):
        timing = store.timing(path.stem) or {}
        kind = timing.get("kind")
        if not isinstance(kind, str):
            continue
        for name, found in (("peak_bytes", memory), ("device_peak_bytes", device)):
            peak = timing.get(name)
            if isinstance(peak, int):
                found[kind] = max(found.get(kind, 0), peak)
        size = timing.get("device_bytes")
        if isinstance(size, int):
            sizes.append(size)
    return Peaks(memory, device, min(sizes, default=None))


def on_device(stage: Stage) -> bool:
    """Does a stage compute on a graphics device?"""
    return str(stage.inputs.get("numerics", {}).get("device", "cpu")).startswith("cuda")


def share_of_device(stage: Stage, peaks: Peaks) -> float:
    """How much of a device a stage needs, in (0, 1]: hundredths, rounded up; all of it where that is not known."""
    peak = peaks.device.get(stage.kind)
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


def free_device_memory() -> int:
    """Bytes that are free on the device, beside this process's own context."""
    return int(torch.cuda.mem_get_info()[0])


class Room:
    """A graphics device's memory, and who computes there.

    Args:
        free: bytes that are free, all workers' contexts aside.
        peaks: by kind; of a store where stages were measured before.
    """

    def __init__(self, free: int, peaks: Mapping[str, int]) -> None:
        self._free = int(free * (1 - RESERVE))
        self._peaks = dict(peaks)
        self._inside: dict[str, int] = {}
        self._alone: set[str] = set()
        self._shared: set[str] = set()

    def enter(self, stage: Stage) -> bool:
        """Let a stage in if it fits beside those that are there; says whether it is in."""
        need = self._need(stage)
        if self._inside and sum(self._inside.values()) + need > self._free:
            return False
        self._inside[stage.key] = need
        if len(self._inside) > 1:
            self._shared |= self._inside.keys()
        return True

    def leave(self, stage: Stage, timing: Mapping[str, Any] | None) -> bool:
        """A stage is out; ``timing`` tells what it took, if it ended well. Returns whether it ever shared the device."""
        self._inside.pop(stage.key, None)
        peak = (timing or {}).get("device_peak_bytes")
        if isinstance(peak, int):
            self._peaks[stage.kind] = max(self._peaks.get(stage.kind, 0), peak)
        shared = stage.key in self._shared
        self._shared.discard(stage.key)
        return shared

    def alone(self, stage: Stage) -> None:
        """From now on a stage has the device to itself."""
        self._alone.add(stage.key)

    def _need(self, stage: Stage) -> int:
        if stage.key in self._alone:
            return self._free
        return min(self._peaks.get(stage.kind, self._free), self._free)
