"""The units of a transformer that can be pruned: feed-forward intermediate units, and attention heads.

A unit is a piece of the input of an output projection: one channel for a feed-forward unit, the channels of a head for a head. It is
made by rows of the projections before ("inward") and read by columns of the output projection ("outward").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.contracts import TaskKind
from bench.errors import ModelError
from bench.models.handles import WhiteBox
from bench.models.network import CodeNetwork
from bench.models.tokens import Tokens
from bench.samples import Sample

Kind = Literal["feed_forward", "heads", "both"]
"""Which units."""

FEED_FORWARD: Sequence[tuple[Sequence[str], str]] = (
    (("intermediate.dense",), "output.dense"),  # BERT and its kin
    (("wi",), "wo"),  # T5
    (("wi_0", "wi_1"), "wo"),  # T5 1.1, CodeT5+
    (("c_fc",), "c_proj"),  # GPT-2, StarCoder
    (("gate_proj", "up_proj"), "down_proj"),  # Llama, Qwen
    (("fc_in",), "fc_out"),  # CodeGen, GPT-J
    (("fc1",), "fc2"),  # BART, OPT
    (("lin1",), "lin2"),  # DistilBERT
)
"""Names of the projections inside a block: into the unit (where gated, the one that is not gated last), and out of it."""

ATTENTION: Sequence[tuple[str, str]] = (
    ("self.value", "output.dense"),  # BERT and its kin
    ("v", "o"),  # T5, MPNet
    ("c_attn", "c_proj"),  # GPT-2, StarCoder: queries, keys and values in one, the values last
    ("v_proj", "o_proj"),  # Llama, Qwen
    ("v_proj", "out_proj"),  # BART, OPT, GPT-J
    ("v_lin", "out_lin"),  # DistilBERT
)
"""Names of the value projection and the output projection inside an attention."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer, as the place where the outputs ``start`` … ``start + size`` are made.

    Attributes:
        name: of its module in the network.
        module: ``Linear`` (weight: outputs by inputs) or ``Conv1D`` (weight: inputs by outputs).
        start: first output.
        size: outputs.
    """

    name: str
    module: nn.Linear | Conv1D
    start: int
    size: int

    def by_output(self, weight: Tensor) -> Tensor:
        """A view (or gradient-carrying transpose) of a weight with outputs first."""
        return weight if isinstance(self.module, nn.Linear) else weight.T

    @property
    def stop(self) -> int:
        """Behind the last output."""
        return self.start + self.size


@dataclass(frozen=True, eq=False)
class Units:
    """Like units of one block.

    Attributes:
        name: of the output projection in the network.
        kind: feed-forward or heads.
        inward: what makes them.
        outward: what reads them.
        width: channels a unit.
        count: units.
    """

    name: str
    kind: Kind
    inward: tuple[Projection, ...]
    outward: nn.Linear | Conv1D
    width: int
    count: int

    def silence(self, chosen: NDArray[np.bool_]) -> None:
        """Set everything that makes or reads the chosen units (bool, (count,)) to zero.

        They then stay zero in training: with both sides zero, neither gets a gradient.
        """
        channels = torch.from_numpy(np.repeat(chosen, self.width))
        with torch.no_grad():
            for projection in self.inward:
                rows = projection.by_output(projection.module.weight)[projection.start : projection.stop]
                rows[channels.to(rows.device)] = 0.0
                if projection.module.bias is not None:
                    projection.module.bias[projection.start : projection.stop][channels.to(rows.device)] = 0.0
            weight = self.outward.weight
            columns = weight.T if isinstance(self.outward, nn.Linear) else weight
            columns[channels.to(weight.device)] = 0.0


def units_of(model: WhiteBox, kind: Kind, network: CodeNetwork | None = None) -> list[Units]:
    """The units of a model, block by block.

    Args:
        model: named in errors; its network is looked at where ``network`` is not given.
        kind: which units.
        network: a network of the same architecture.

    Raises:
        ModelError: the architecture has none that are known here.
    """
    network = network or model.network
    found: list[Units] = []
    for name, module in network.encoder.named_modules(prefix="encoder"):
        if kind != "heads":
            found += _feed_forward(name, module)
        if kind != "feed_forward":
            found += _heads(name, module, int(getattr(network.encoder.config, "num_attention_heads", 0)))
    if not found:
        what = {"feed_forward": "feed-forward units", "heads": "attention heads", "both": "units"}[kind]
        raise ModelError(
            f"model {model.name!r} ({type(network.encoder).__name__}) has no {what} that this project knows: "
            "BERT-like encoders, T5, GPT-2, Llama and their kin have (defenses/tuning/units.py lists the names)"
        )
    return found


def _feed_forward(name: str, module: nn.Module) -> Iterator[Units]:
    for inward, outward in FEED_FORWARD:
        into, out = [_linear(module, path) for path in inward], _linear(module, outward)
        if out is None or any(each is None or _outputs(each) != _inputs(out) for each in into):
            continue
        size = _inputs(out)
        made = tuple(
            Projection(f"{name}.{path}", each, 0, size)
            for path, each in zip(inward, into, strict=True)
            if each is not None
        )
        yield Units(f"{name}.{outward}", "feed_forward", made, out, 1, size)
        return


def _heads(name: str, module: nn.Module, heads: int) -> Iterator[Units]:
    for inward, outward in ATTENTION:
        value, out = _linear(module, inward), _linear(module, outward)
        if value is None or out is None or not heads:
            continue
        size = _inputs(out)
        start = _outputs(value) - size
        # Values shared by several heads (grouped queries) have fewer outputs; such heads cannot be silenced one by one.
        if size % heads or start not in (0, 2 * size):
            continue
        yield Units(
            f"{name}.{outward}",
            "heads",
            (Projection(f"{name}.{inward}", value, start, size),),
            out,
            size // heads,
            heads,
        )
        return


def _linear(module: nn.Module, path: str) -> nn.Linear | Conv1D | None:
    try:
        found = module.get_submodule(path)
    except AttributeError:
        return None
    found = getattr(found, "base_layer", found)  # while an adapter is trained, it stands around its layer
    return found if isinstance(found, nn.Linear | Conv1D) else None


def _inputs(layer: nn.Linear | Conv1D) -> int:
    return int(layer.weight.shape[1 if isinstance(layer, nn.Linear) else 0])


def _outputs(layer: nn.Linear | Conv1D) -> int:
    return int(layer.weight.shape[0 if isinstance(layer, nn.Linear) else 1])


@contextmanager
def watching(groups: Sequence[Units]) -> Iterator[list[list[Tensor]]]:
    """Collect the activations (n, L, width * count) of each group, pass by pass, while the block lasts."""
    seen: list[list[Tensor]] = [[] for _ in groups]

    def note(place: int) -> Any:
        return lambda _, inputs: seen[place].append(inputs[0])

    with ExitStack() as stack:
        for place, group in enumerate(groups):
            stack.callback(group.outward.register_forward_pre_hook(note(place)).remove)
        yield seen


def mean_activations(model: WhiteBox, groups: Sequence[Units], samples: Sequence[Sample]) -> list[NDArray[np.float64]]:
    """Mean absolute activation of each unit, (count,) a group, over the real tokens of the samples' programs and queries.

    Each distinct text counts once.
    """
    sums = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    tokens_seen = 0

    def read(tokens: Tokens) -> Tensor:
        nonlocal tokens_seen
        with watching(groups) as seen:
            vectors = model.network.vector(tokens)
        real = tokens.mask.bool()
        for total, group, (activations, *_) in zip(sums, groups, seen, strict=True):
            total += activations[real].abs().double().sum(0).reshape(group.count, group.width).mean(1).cpu()
        tokens_seen += int(real.sum())
        return vectors

    model.vectors([text for s in samples for text in s.programs], model.window, read)
    if model.info.kind is TaskKind.SEARCH:
        model.vectors([s.query or "" for s in samples], model.query_window, read)
    return [cast(NDArray[np.float64], (total / max(tokens_seen, 1)).numpy()) for total in sums]


def first_units(groups: Sequence[Units], order: Sequence[int], count: int) -> list[NDArray[np.bool_]]:
    """The first ``count`` of an order over the units of all groups, as one choice a group."""
    borders = np.cumsum([group.count for group in groups])
    every = np.zeros(borders[-1], dtype=np.bool_)
    every[np.asarray(order[:count], dtype=np.int64)] = True
    return np.split(every, borders[:-1])


def pruned(model: WhiteBox, kind: Kind, chosen: Sequence[NDArray[np.bool_]]) -> WhiteBox:
    """A copy of a model without the chosen units (bool, (count,) for each group of :func:`units_of`)."""
    copy = model.copy()
    for group, which in zip(units_of(copy, kind), chosen, strict=True):
        group.silence(which)
    return copy
