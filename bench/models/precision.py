"""The type that models compute in. Weights, losses and whatever leaves a model stay float32; the products inside may be bfloat16.

A stage computes in one type from its start to its end (it stands in its key with the device, where it is not float32), so it is set
for the process like the number of threads, not handed from call to call. Mixed precision is that of ``torch.autocast``: matrix products
in bfloat16, sums, norms and softmax in float32. What a network gives is float32 again, for losses, gradients at the embeddings, NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16"]
"""``auto``: bfloat16 on a graphics device that has it in hardware, else float32."""

TYPES: Final[Mapping[str, torch.dtype]] = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_computing: ContextVar[torch.dtype] = ContextVar("computing", default=torch.float32)


def resolve_precision(name: Precision, device: str) -> str:
    """The type's name on a device (``cpu``, ``cuda``), which is here.

    On processors ``auto`` is float32, whatever they can do: the laptop's numbers must not hang on its model. ``bfloat16`` is emulated
    where the hardware has none, slowly.
    """
    if name != "auto":
        return name
    return (
        "bfloat16"
        if device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
        else "float32"
    )


@contextmanager
def computing_in(name: str) -> Iterator[None]:
    """Models compute in this type for the time of the block.

    Raises:
        KeyError: no type of that name.
    """
    token = _computing.set(TYPES[name])
    try:
        yield
    finally:
        _computing.reset(token)


def lowered(device: torch.device) -> AbstractContextManager[object]:
    """Around a pass through a network: autocast, where the stage computes in less than float32."""
    dtype = _computing.get()
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def restored(values: Tensor) -> Tensor:
    """What came out of such a pass, in float32 again; other types stay."""
    return values.float() if values.dtype is torch.bfloat16 else values
