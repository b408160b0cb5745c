"""What a plugin holds of a model: :class:`BlackBox` gives outputs, :class:`WhiteBox` also weights, gradients and features."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bench.context import Cost
from bench.contracts import TaskInfo, TaskKind
from bench.errors import DataError
from bench.models.memory import may_cut, ran_out_of_memory
from bench.models.network import CodeNetwork
from bench.models.settings import ModelSettings
from bench.models.tokenizing import Window
from bench.models.tokens import Tokens, batches, pad
from bench.samples import Sample

__all__ = ["BlackBox", "Tokens", "WhiteBox"]

Reader = Callable[[Tokens], Tensor]


class BlackBox:
    """A model's outputs and nothing else. Safe to share: no call changes it."""

    def __init__(self, model: WhiteBox) -> None:
        # Held in closures, so that no attribute of a black box leads to the weights.
        self.info: TaskInfo = model.info
        self._predict = model.predict
        self._embed_programs = model.embed_programs
        self._embed_queries = model.embed_queries

    def predict(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Logits (n, classes) in the order of ``samples`` (classification and pairs).

        A row does not depend on the other rows, up to floating-point noise.

        Raises:
            DataError: a sample holds the wrong number of programs for the task.
            TypeError: the task is code search.
        """
        return self._predict(samples)

    def embed_programs(self, samples: Sequence[Sample], side: int = 0) -> NDArray[np.float32]:
        """Unit vectors (n, d) of programs (code search)."""
        return self._embed_programs(samples, side)

    def embed_queries(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Unit vectors (n, d) of queries (code search)."""
        return self._embed_queries(samples)


class WhiteBox(BlackBox):
    """A model with its weights.

    Attributes:
        name: as a suite names it (``tiny``, ``minilm``, a folder or hub name).
        info: the task that it was made for.
        network: encoder and head, in evaluation mode outside the trainer.
        tokenizer: without truncation or padding state; use :meth:`tokenize`.
        settings: window, pooling, sizes.
        device: where the network lies.
        cost: counters of the stage; every pass of this handle is counted there.
        reader: of the same tokenizer, from another handle; making one takes a moment.
    """

    def __init__(
        self,
        name: str,
        info: TaskInfo,
        network: CodeNetwork,
        tokenizer: PreTrainedTokenizerFast,
        settings: ModelSettings,
        device: torch.device,
        cost: Cost,
        *,
        reader: Window | None = None,
    ) -> None:
        self.name = name
        self.info = info
        self.network = network.to(device).eval()
        self.tokenizer = tokenizer
        self.settings = settings
        self.device = device
        self.cost = cost
        self._window = reader or Window(tokenizer)

    @property
    def window(self) -> int:
        """Tokens of a program that the model sees, special tokens included."""
        return self.settings.window

    @property
    def query_window(self) -> int:
        """Tokens of a query that the model sees, special tokens included."""
        return self.settings.query_window

    @property
    def pad_id(self) -> int:
        """The id that fills short rows."""
        return self._window.pad_id

    def copy(self) -> WhiteBox:
        """An independent model with the same weights. The cost counters stay the stage's."""
        network = copy.deepcopy(self.network)
        return WhiteBox(
            self.name, self.info, network, self.tokenizer, self.settings, self.device, self.cost, reader=self._window
        )

    def outputs(self) -> BlackBox:
        """The same model with only its outputs in reach."""
        return BlackBox(self)

    def fingerprint(self) -> str:
        """sha256 (hex) over the weights: names, types, shapes and bytes."""
        total = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            total.update(f"{name}\x1f{value.dtype}\x1f{tuple(value.shape)}\x1e".encode())
            total.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    # ------------------------------------------------------------------------------------------------------------ tokens

    def token_ids(self, texts: Sequence[str], window: int | None = None) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to the window, not padded."""
        return self._window.ids(texts, window or self.window)

    def tokenize(self, texts: Sequence[str], window: int | None = None) -> Tokens:
        """Tokens padded to the longest text, on the model's device; cut to ``window`` (default: the program window)."""
        return pad(self.token_ids(texts, window), self.pad_id).to(self.device)

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodings with ids and character offsets, special tokens included, cut to the program window."""
        return self._window.encodings(texts, self.window)

    def query_encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """The same for queries, cut to the query window."""
        return self._window.encodings(texts, self.query_window)

    def visible(self, text: str, start: int, end: int) -> bool:
        """Does the model see the bytes ``[start, end)`` (UTF-8) of this program whole, or does its window cut them off?"""
        return self._window.visible(text, start, end, self.window)

    # ----------------------------------------------------------------------------------------------------------- outputs

    def predict(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """See :meth:`BlackBox.predict`."""
        if self.network.kind is TaskKind.SEARCH:
            raise TypeError("code search has no classes to predict; use embed_queries and embed_programs")
        joined = self._sides(samples)
        with torch.inference_mode(), _evaluating(self.network):
            return _numpy(self.network.scores(*joined))

    def embed_programs(self, samples: Sequence[Sample], side: int = 0) -> NDArray[np.float32]:
        """See :meth:`BlackBox.embed_programs`."""
        return _unit(_numpy(self.vectors([_program(s, side) for s in samples], self.window)))

    def embed_queries(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """See :meth:`BlackBox.embed_queries`."""
        for sample in samples:
            if sample.query is None:
                raise DataError(f"sample {sample.id!r} has no query to embed")
        return _unit(_numpy(self.vectors([s.query or "" for s in samples], self.query_window)))

    def features(
        self,
        samples: Sequence[Sample],
        side: int = 0,
        layer: int = -1,
        pooling: Literal["head", "mean", "first"] = "head",
    ) -> NDArray[np.float32]:
        """Representations (n, d) in the order of ``samples``.

        Args:
            samples: any number of them.
            side: which program; ignored by ``head`` for pairs, which needs both.
            layer: hidden layer, 0 for the embedding output, -1 for the last.
            pooling: ``head`` gives the vector the head sees (pairs: the joined pair vector; search: the program vector,
                not brought to unit length);
                ``mean`` and ``first`` pool the token vectors.
        """
        if pooling == "head" and layer == -1:
            if self.network.kind is TaskKind.PAIRS:
                return _numpy(self.network.join(*self._sides(samples)))
            return _numpy(self.vectors([_program(s, side) for s in samples], self.window))
        how = None if pooling == "head" else pooling

        def read(tokens: Tokens) -> Tensor:
            return self.network.pool(self.network.hidden_states(tokens, layer), tokens.mask, how)

        if pooling == "head" and self.network.kind is TaskKind.PAIRS:
            sides = [self.vectors([_program(s, i) for s in samples], self.window, read) for i in (0, 1)]
            return _numpy(self.network.join(*sides))
        return _numpy(self.vectors([_program(s, side) for s in samples], self.window, read))

    def vectors(self, texts: Sequence[str], window: int, read: Reader | None = None) -> Tensor:
        """``read`` (default: the network's pooled vector) of each text, (n, d), without gradients, on the model's device.

        Each distinct text is encoded once; batches are cut from the length-sorted order under ``settings.batch_tokens`` and
        halved when memory runs out (not beside other stages: :mod:`bench.models.memory`).
        """
        place: dict[str, int] = {}
        for text in texts:
            place.setdefault(text, len(place))
        rows = self.token_ids(list(place), window)
        result: Tensor | None = None
        with torch.inference_mode(), _evaluating(self.network):
            for index in batches([len(row) for row in rows], self.settings.batch_tokens):
                for part, values in self._read(rows, index, read or self.network.vector):
                    if result is None:
                        result = values.new_empty((len(rows), values.shape[1]))
                    result[torch.tensor(part, device=result.device)] = values
        if result is None:
            return torch.empty((0, self.network.width), device=self.device)
        return result[torch.tensor([place[text] for text in texts], device=result.device)]

    def _read(self, rows: list[list[int]], index: list[int], read: Reader) -> list[tuple[list[int], Tensor]]:
        try:
            tokens = pad([rows[i] for i in index], self.pad_id).to(self.device)
            values = read(tokens)
        except RuntimeError as error:
            if not ran_out_of_memory(error) or len(index) == 1 or not may_cut():
                raise
        else:
            self.cost.forward(tokens.ids.numel())
            return [(index, values)]
        # Outside the handler, whose traceback would keep the failed batch in memory.
        middle = len(index) // 2
        return self._read(rows, index[:middle], read) + self._read(rows, index[middle:], read)

    def _sides(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Pooled vectors of each program of the samples, one (n, d) a side."""
        count = 2 if self.network.kind is TaskKind.PAIRS else 1
        for sample in samples:
            if len(sample.programs) != count:
                raise DataError(
                    f"task {self.info.name!r} needs {count} program(s) a sample, sample {sample.id!r} has {len(sample.programs)}"
                )
        both = self.vectors([s.programs[i] for i in range(count) for s in samples], self.window)
        return list(both.reshape(count, len(samples), both.shape[1]))

    # ------------------------------------------------------------------------------------------------------------- files

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``model.json`` and ``tokenizer.json``; :func:`bench.models.load` reads them back."""
        from bench.models.files import save

        save(self, folder)


class _evaluating:
    """The network in evaluation mode for a block, and back in the mode it was."""

    def __init__(self, network: CodeNetwork) -> None:
        self.network = network
        self.was = network.training
        # Setting the mode of every module takes longer than reading a short program, and most callers evaluate anyway.
        self.switches = any(module.training for module in network.modules())

    def __enter__(self) -> None:
        if self.switches:
            self.network.eval()

    def __exit__(self, *_: object) -> None:
        if self.switches:
            self.network.train(self.was)


def _program(sample: Sample, side: int) -> str:
    if not 0 <= side < len(sample.programs):
        raise DataError(f"sample {sample.id!r} has {len(sample.programs)} program(s), none at side {side}")
    return sample.programs[side]


def _numpy(values: Tensor) -> NDArray[np.float32]:
    result: NDArray[np.float32] = values.detach().to("cpu", torch.float32).numpy()
    return result


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (values / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
