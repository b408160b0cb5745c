"""Can one object be reached from another, by attributes, items, closures and whatever else the garbage collector knows?"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, GetSetDescriptorType, ModuleType

import numpy as np
import torch

LEAVES = (str, bytes, int, float, bool, type(None), np.ndarray, torch.Tensor, CodeType, BuiltinFunctionType)
WALLS = (ModuleType, type, FrameType, GetSetDescriptorType)
"""Everything is reachable through modules and classes; what counts is what was handed over."""
MOST_OBJECTS = 500_000


def path_to(start: Mapping[str, object], targets: Iterable[object]) -> str | None:
    """How one of ``targets`` (by identity) is reached from ``start``, as a chain of types, or ``None`` where it is not.

    Tensors and arrays are not entered. At most :data:`MOST_OBJECTS` objects are visited, nearest first.
    """
    wanted = {id(target) for target in targets}
    walls = {id(vars(module)) for module in list(sys.modules.values()) if isinstance(module, ModuleType)}
    queue: deque[tuple[object, str]] = deque((value, name) for name, value in start.items())
    seen: dict[int, object] = {}
    while queue and len(seen) < MOST_OBJECTS:
        value, path = queue.popleft()
        if id(value) in wanted:
            return path
        if id(value) in seen or id(value) in walls or isinstance(value, (*LEAVES, *WALLS)):
            continue
        seen[id(value)] = value
        for name, part in _parts(value):
            queue.append((part, f"{path} → {name}"))
    return None


def _parts(value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, FunctionType):  # not its globals
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        parts: list[object] = [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    else:
        parts = gc.get_referents(value)
    return [(type(part).__name__, part) for part in parts]


def _filled(cell: object) -> bool:
    try:
        cell.cell_contents  # type: ignore[attr-defined]  # noqa: B018
    except ValueError:
        return False
    return True
