"""Many variants of one text under a causal model: what they share with the text, up to the first difference, is read once.

A causal model's state at a token depends on the tokens before it alone, so a variant that differs from position k on needs only its
tokens from there; keys and values of what comes before are the text's own. Over all single deletions of a text of n tokens this reads
about n²/2 tokens where independent variants read n².
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from bench.models.causal import CausalModel, chosen_log_probabilities
from bench.models.tokens import pad

Floats = NDArray[np.float64]

MOST_ROWS = 64
"""Variants in one pass: each of them gets its own copy of what the text's keys and values are up to there."""
LONGER = 1.05
"""By how much a pass may be longer than its shortest variant needs."""


def variant_log_likelihoods(model: CausalModel, text: Sequence[int], variants: Sequence[Sequence[int]]) -> Floats:
    """Natural log-probability of each variant of a text, given as token ids; shape (len(variants),).

    The same as ``model.token_log_probabilities(variants)`` summed, up to floating-point noise. All of them are cut to the window.
    """
    room = None if model.window is None else model.window - 1
    base = [model.start, *text[:room]]
    rows = [[model.start, *variant[:room]] for variant in variants]
    with torch.inference_mode():
        ids = torch.tensor([base], device=model.device)
        output = model.forward(ids, use_cache=True)
        cache = output.past_key_values
        if not _can_be_cut(cache):
            return np.array([values.sum() for values in model.token_log_probabilities(variants)])
        model.cost.forward(len(base))
        before = np.concatenate([[0.0], np.cumsum(_terms(output.logits, ids)[0])])  # before[k]: the text's tokens 1 … k
        found = np.zeros(len(rows))
        for start, group in _groups(rows, base, model.batch_tokens):
            # The token before the first difference is read again: its output predicts what differs.
            ids = pad([rows[i][start:] for i in group], 0).ids.to(model.device)
            logits = model.forward(ids, past_key_values=_shared(cache, start, len(group)), use_cache=True).logits
            model.cost.forward(ids.numel())
            for i, terms in zip(group, _terms(logits, ids), strict=True):
                found[i] = before[start] + terms[: len(rows[i]) - start - 1].sum()
    return found


def _can_be_cut(cache: Any) -> bool:
    """Is a model's state nothing but keys and values of every token? (Others forget, or keep a running state.)"""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def _shared(cache: Any, length: int, rows: int) -> DynamicCache:
    """Keys and values of the first tokens, for each of several rows."""
    shared: Any = DynamicCache()
    for number, layer in enumerate(cache.layers if length else ()):
        keys, values = (part[:, :, :length].expand(rows, -1, -1, -1) for part in (layer.keys, layer.values))
        shared.update(keys, values, number)
    return cast(DynamicCache, shared)


def _terms(logits: torch.Tensor, ids: torch.Tensor) -> Floats:
    """Log-probability of every token but the first of each row, (n, L - 1)."""
    values: Floats = chosen_log_probabilities(logits[:, :-1], ids[:, 1:]).to("cpu", torch.float64).numpy()
    return values


def _groups(rows: Sequence[Sequence[int]], base: Sequence[int], budget: int) -> Iterator[tuple[int, list[int]]]:
    """(first position to read, variants) of each pass: variants of about the same length from there."""
    starts = [max(_common(row, base) - 1, 0) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (-starts[i], i))
    group: list[int] = []
    for i in order:
        longest = max(len(rows[k]) for k in [*group, i]) - starts[i]
        shortest = len(rows[group[0]]) - starts[group[0]] if group else longest
        fits = longest <= LONGER * shortest + 2 and longest * (len(group) + 1) <= budget and len(group) < MOST_ROWS
        if group and not fits:
            yield starts[group[-1]], group
            group = []
        group.append(i)
    if group:
        yield starts[group[-1]], group


def _common(row: Sequence[int], base: Sequence[int]) -> int:
    """How many tokens two rows share at their start."""
    size = min(len(row), len(base))
    differing = np.flatnonzero(np.array(row[:size]) != np.array(base[:size]))
    return int(differing[0]) if len(differing) else size
