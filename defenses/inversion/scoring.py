"""What the steps share: programs with a hole for the trigger, and their losses and gradients, in length buckets.

Every step evaluates through this one file, so that the position used for a gradient is the position used for a candidate
(the release differentiates at one index and scores at index 10). The model is a copy in evaluation mode whose parameters
take no gradients (the release searches with dropout on).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import TaskKind
from bench.models.handles import WhiteBox
from bench.models.memory import may_cut, ran_out_of_memory
from bench.models.tokens import Tokens, batches, pad
from bench.samples import Sample

T = TypeVar("T")

BATCH_TOKENS = 8192
"""Tokens of one forward pass, padding included: bounds memory, and is large enough to keep a core busy."""


@dataclass(frozen=True, slots=True)
class Row:
    """One input as token ids, special tokens included; ``other`` is the second program of a pair."""

    ids: tuple[int, ...]
    other: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A program with a hole for the trigger.

    Attributes:
        before: token ids in front of the hole, special tokens included.
        after: token ids behind it; cut so that the trigger fits the window, the closing special tokens kept.
        other: the second program of a pair, never touched.
        name: the name whose place the hole takes, or ``None`` for the fallback position.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    other: tuple[int, ...] | None = None
    name: str | None = None

    def filled(self, trigger: Sequence[int]) -> Row:
        """The input with the trigger in the hole."""
        return Row((*self.before, *trigger, *self.after), self.other)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Losses towards a class, in evaluation mode, batched by length. Built by :func:`scorer_for`.

    The vector of a pair's second program is computed once: it never changes (but with dropout on, where each pass is another draw).

    Attributes:
        model: a private copy.
        batch_tokens: tokens of one pass, padding included; a batch that does not fit the memory is halved.
    """

    model: WhiteBox
    batch_tokens: int = BATCH_TOKENS
    _seconds: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def every_loss(self, rows: Sequence[Row], owners: Sequence[Sample]) -> NDArray[np.float64]:
        """Losses of rows towards each class, (n, classes), in nats; code search: cosine gap to the owner's query, (n, 1)."""
        if self.model.info.kind is not TaskKind.SEARCH:
            logits = self.logits(rows)
            return np.stack([cross_entropy(logits, target) for target in range(logits.shape[1])], axis=1)
        queries = {query: number for number, query in enumerate(dict.fromkeys(s.query or "" for s in owners))}
        asked = self.model.token_ids(list(queries), self.model.query_window)
        vectors = self.vectors([Row(tuple(ids)) for ids in asked])[[queries[s.query or ""] for s in owners]]
        gaps: NDArray[np.float64] = 1 - (vectors * self.vectors(rows)).sum(axis=1, keepdims=True)
        return gaps

    def vectors(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Unit vectors of programs or queries, float64 of shape (n, width), in the order given."""
        found = np.empty((len(rows), self.model.network.width))
        with torch.inference_mode():
            for index in batches([len(row.ids) for row in rows], self.batch_tokens):
                for part, values in self.halving(index, lambda i: self._vectors([rows[k] for k in i])):
                    found[part] = values
        units: NDArray[np.float64] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return units

    def _vectors(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        tokens = pad([row.ids for row in rows], self.model.pad_id).to(self.model.device)
        values: NDArray[np.float64] = self.model.network.vector(tokens).double().cpu().numpy()
        self.model.cost.forward(tokens.ids.numel())
        return values

    def losses(self, rows: Sequence[Row], target: int) -> NDArray[np.float64]:
        """Cross-entropy towards class ``target`` for each row: float64 of shape (n,)."""
        return cross_entropy(self.logits(rows), target)

    def logits(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Logits for each row, float64 of shape (n, classes), in the order given."""
        logits = np.empty((len(rows), len(self.model.info.labels)))
        with torch.inference_mode():
            for index in batches([len(row.ids) for row in rows], self.batch_tokens):
                for part, values in self.halving(index, lambda i: self._forward([rows[k] for k in i])):
                    logits[part] = values
        return logits

    def gradient(self, sites: Sequence[Site], trigger: Tensor, target: int) -> tuple[NDArray[np.float64], Tensor]:
        """Losses of the filled sites, and the gradient of their mean with respect to the trigger's embeddings.

        Args:
            sites: holes.
            trigger: its embeddings, float32 of shape (length, width).
            target: class.

        Returns:
            losses, float64 of shape (sites,); gradient, of the trigger's shape.
        """
        losses = np.empty(len(sites))
        total = torch.zeros_like(trigger)
        lengths = [len(site.before) + len(trigger) + len(site.after) for site in sites]
        for index in batches(lengths, self.batch_tokens):
            for part, (each, gradient) in self.halving(
                index, lambda i: self._backward([sites[k] for k in i], trigger, target)
            ):
                losses[part] = each
                total += gradient
        return losses, total / max(len(sites), 1)

    def _forward(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        tokens = pad([row.ids for row in rows], self.model.pad_id).to(self.model.device)
        out = self.model.network.scores(self.model.network.vector(tokens), *self._second(rows))
        self.model.cost.forward(tokens.ids.numel())
        values: NDArray[np.float64] = out.double().cpu().numpy()
        return values

    def _backward(self, sites: Sequence[Site], trigger: Tensor, target: int) -> tuple[NDArray[np.float64], Tensor]:
        """Losses, and the sum over sites of the gradients with respect to the trigger's embeddings."""
        network = self.model.network
        soft = trigger.detach().requires_grad_(True)
        tokens = self.embedded(sites, soft)
        logits = network.scores(network.vector(tokens), *self._second([site.filled(()) for site in sites]))
        wanted = torch.full((len(sites),), target, device=logits.device)
        each = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
        (gradient,) = torch.autograd.grad(each.sum(), soft)
        self.model.cost.forward(tokens.ids.numel())
        self.model.cost.backward(tokens.ids.numel())
        return each.detach().double().cpu().numpy(), gradient

    def embedded(self, sites: Sequence[Site], trigger: Tensor) -> Tokens:
        """Sites filled with a trigger that is given as embeddings (length, width); differentiable in it."""
        gap = (self.model.pad_id,) * len(trigger)
        plain = pad([site.filled(gap).ids for site in sites], self.model.pad_id).to(self.model.device)
        embeds = self.model.network.embedding(plain.ids).detach()
        rows = torch.arange(len(sites), device=embeds.device)[:, None]
        columns = torch.tensor([len(site.before) for site in sites], device=embeds.device)[:, None]
        columns = columns + torch.arange(len(trigger), device=embeds.device)
        embeds = embeds.index_put(
            (rows.expand_as(columns), columns), trigger.to(embeds.dtype).expand(len(sites), *trigger.shape)
        )
        return Tokens(plain.ids, plain.mask, embeds)

    def _second(self, rows: Sequence[Row]) -> list[Tensor]:
        """The vectors of the rows' second programs, as a list of one tensor (n, d); empty where there are none."""
        others = [row.other for row in rows if row.other is not None]
        # What was drawn under dropout must not stay: not for the next pass, and not for evaluation mode.
        seconds = {} if self.model.network.training else self._seconds
        missing = [other for other in dict.fromkeys(others) if other not in seconds]
        with torch.no_grad():
            for index in batches([len(other) for other in missing], self.batch_tokens):
                tokens = pad([missing[i] for i in index], self.model.pad_id).to(self.model.device)
                for i, vector in zip(index, self.model.network.vector(tokens), strict=True):
                    seconds[missing[i]] = vector.clone()
                self.model.cost.forward(tokens.ids.numel())
        return [torch.stack([seconds[other] for other in others])] if others else []

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Evaluation mode for a block."""
        was = self.model.network.training
        self.model.network.eval()
        try:
            yield
        finally:
            self.model.network.train(was)

    def halving(self, index: list[int], run: Callable[[list[int]], T]) -> list[tuple[list[int], T]]:
        """Run one batch; where a device that is not shared has no memory for it, run its halves."""
        try:
            return [(index, run(index))]
        except RuntimeError as error:
            if not ran_out_of_memory(error) or len(index) == 1 or not may_cut():
                raise
        # Outside the handler, whose traceback would keep the failed batch in memory.
        middle = len(index) // 2
        return self.halving(index[:middle], run) + self.halving(index[middle:], run)


def cross_entropy(logits: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """-log softmax(logits)[target] for each row, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1)) - shifted[:, target]
    return loss


def scorer_for(model: WhiteBox, *, dropout: bool = False) -> Scorer:
    """A scorer on a private copy of the model: no parameter gradients, evaluation mode (``dropout``: training mode, as released).

    The model that came in is unchanged.
    """
    private = model.copy()
    private.network.train(dropout)
    private.network.requires_grad_(False)
    return Scorer(private)
