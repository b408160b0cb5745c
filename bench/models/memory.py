"""What is done where a graphics device's memory runs out: batches are cut, but only by a stage that has the device to itself.

Beside other stages it is their memory that is missing, and how far a batch would be cut would hang on them, and a result's last digits
with it. There the error goes up, and the stage is run again alone (:mod:`bench.sharing`). Like the type that models compute in
(:mod:`bench.models.precision`) this holds for a stage from its start to its end, so it is set for the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_shared: ContextVar[bool] = ContextVar("shared", default=False)

SAID_IN_WORDS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How libraries below torch's allocator say that the device is full: their errors are of no type of their own."""


@contextmanager
def beside_others(shared: bool) -> Iterator[None]:
    """For the time of the block the device is shared with other stages, or it is not."""
    token = _shared.set(shared)
    try:
        yield
    finally:
        _shared.reset(token)


def may_cut() -> bool:
    """Where memory runs out now, may the work be cut into smaller batches? If not, the error has to go up."""
    return not _shared.get()


def ran_out_of_memory(error: BaseException) -> bool:
    """Is a full graphics device what an error comes from, however often it was raised anew on the way?"""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, torch.OutOfMemoryError):
            return True
        if isinstance(at, RuntimeError) and any(words in str(at) for words in SAID_IN_WORDS):
            return True
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return False
