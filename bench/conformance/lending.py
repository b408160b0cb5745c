"""What the suite lends to a plugin: the harness's own :class:`Context` and :class:`Known`, with a note of how they are used."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bench import contracts
from bench.context import Context
from bench.contracts import Known

CONTRACTS = str(Path(contracts.__file__))


@dataclass
class WatchedContext(Context):
    """A context that notes which generators were taken.

    Attributes:
        draws: the names of every generator that was asked for (axis first).
    """

    draws: list[tuple[str, ...]] = field(default_factory=list)

    def rng(self, axis: str, *names: str) -> np.random.Generator:
        """See :meth:`Context.rng`."""
        self.draws.append((axis, *names))
        return Context.rng(self, axis, *names)

    def torch_generator(self, axis: str, *names: str) -> torch.Generator:
        """See :meth:`Context.torch_generator`."""
        self.draws.append((axis, *names))
        return Context.torch_generator(self, axis, *names)


class WatchedKnown(Known):
    """A defense's knowledge that notes every question for something undeclared, even where the plugin hides the error.

    Attributes:
        asked: what was asked for without having been declared, and private fields that were read past the properties.
    """

    __slots__ = ("asked",)

    asked: list[str]

    def __getattribute__(self, name: str) -> object:
        if name.startswith("_") and name in Known.__dataclass_fields__:
            caller = sys._getframe(1).f_code.co_filename
            if caller != CONTRACTS:
                object.__getattribute__(self, "asked").append(f"the private field {name}")
        elif name == "_get":
            return object.__getattribute__(self, "_noted_get")
        return object.__getattribute__(self, name)

    def _noted_get(self, value: object, what: str) -> object:
        if value is None:
            self.asked.append(what)
        return Known._get(self, value, what)
