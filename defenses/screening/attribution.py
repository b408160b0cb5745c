"""How much of a model's answer rests on each leaf of a program, by integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench.contracts import TaskKind
from bench.errors import ModelError
from bench.models.handles import WhiteBox
from bench.models.tokens import Tokens, batches, pad
from bench.samples import Sample
from defenses.screening.confidence import SCALE
from defenses.screening.deleting import Source

Floats = NDArray[np.float64]
Answers = Callable[[Sequence[Tensor]], Tensor]
"""Pooled vectors of the sides of a batch -> log-probabilities (n, answers)."""


def answers_of(model: WhiteBox, queries: Floats | None) -> Answers:
    """How a network's vectors become log-probabilities; ``queries`` are the clean ones that a search model answers with."""
    network = model.network
    if queries is None:
        return lambda vectors: network.scores(*vectors).log_softmax(-1)
    table = torch.tensor(queries, dtype=torch.float32, device=model.device)
    return lambda vectors: (SCALE * functional.normalize(vectors[0], dim=1) @ table.T).log_softmax(-1)


def leaf_shares(
    model: WhiteBox, answers: Answers, samples: Sequence[Sample], sources: Sequence[Sequence[Source]], steps: int
) -> list[list[Floats]]:
    """For each leaf of each program of each sample, its share in what speaks for the model's own answer.

    Source of the attribution: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, by the midpoint
    rule from the padding token's embedding in every place. A leaf has the sum over its tokens; what speaks against the answer
    counts as 0, and the rest of a sample adds up to 1 (to 0 where nothing speaks for it).

    Raises:
        ModelError: an attribution is not finite.
    """
    sides = 2 if model.network.kind is TaskKind.PAIRS else 1
    encodings = [model.encodings([sources[i][side].text for i in range(len(samples))]) for side in range(sides)]
    lengths = [sum(len(of_side[i].ids) for of_side in encodings) for i in range(len(samples))]
    found: list[list[Floats]] = [[] for _ in samples]
    # A backward pass keeps every layer's activations: a quarter of what inference may hold.
    for index in batches(lengths, max(1, model.settings.batch_tokens // 4)):
        padded = [pad([of_side[i].ids for i in index], model.pad_id).to(model.device) for of_side in encodings]
        values = [side.cpu().double().numpy() for side in integrated_gradients(model, answers, padded, steps)]
        for row, i in enumerate(index):
            offsets = [of_side[i].offsets for of_side in encodings]
            sums = [_by_leaf(sources[i][s], offsets[s], values[s][row]) for s in range(sides)]
            total = sum(float(of_leaves.sum()) for of_leaves in sums)
            if not np.isfinite(total):
                raise ModelError(f"the model gives input {samples[i].id!r} an attribution that is not finite")
            found[i] = [of_leaves / total if total > 0 else of_leaves for of_leaves in sums]
    return found


def integrated_gradients(model: WhiteBox, answers: Answers, sides: Sequence[Tokens], steps: int) -> list[Tensor]:
    """What each token adds to the log-probability of the model's own answer, (n, L) a side; 0 on padding."""
    network = model.network
    with torch.no_grad():
        real = [network.embedding(side.ids) for side in sides]
        empty = [network.embedding(torch.full_like(side.ids, model.pad_id)) for side in sides]
        answer = answers([network.vector(side) for side in sides]).argmax(1, keepdim=True)
    sums = [torch.zeros_like(rows) for rows in real]
    tokens = sum(side.ids.numel() for side in sides)
    model.cost.forward(tokens)
    for step in range(steps):
        share = (step + 0.5) / steps
        points = [(low + share * (high - low)).requires_grad_() for low, high in zip(empty, real, strict=True)]
        inputs = [Tokens(side.ids, side.mask, point) for side, point in zip(sides, points, strict=True)]
        chosen = answers([network.vector(side) for side in inputs]).gather(1, answer).sum()
        for total, slope in zip(sums, torch.autograd.grad(chosen, points), strict=True):
            total += slope
        model.cost.forward(tokens)
        model.cost.backward(tokens)
    return [
        ((high - low) * total / steps).sum(dim=-1) * side.mask
        for side, low, high, total in zip(sides, empty, real, sums, strict=True)
    ]


def _by_leaf(source: Source, offsets: Sequence[tuple[int, int]], values: Floats) -> Floats:
    """What speaks for the answer in each leaf, (leaves,): its tokens' sum, or 0 where that is negative.

    A token belongs to the leaf that holds its last character (a leading blank belongs to no leaf).
    """
    found = np.zeros(len(source.leaves))
    if not len(found):
        return found
    starts = np.array([leaf.start for leaf in source.leaves])
    byte_of = np.cumsum([0, *(len(character.encode()) for character in source.text)])
    for (start, end), value in zip(offsets, values, strict=False):
        if end > start:
            last = int(byte_of[end - 1])
            leaf = int(np.searchsorted(starts, last, side="right")) - 1
            if leaf >= 0 and last < source.leaves[leaf].end:
                found[leaf] += value
    positive: Floats = np.where(np.isnan(found), found, np.maximum(found, 0.0))
    return positive
