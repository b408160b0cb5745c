"""ONION's deletions through the n-gram window, against deleting each token and scoring the whole program again."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.ma.core

from bench.languages import parse
from bench.ngram import NgramModel
from tests.benchmarks import Measure

PROGRAMS = 40


def real_programs() -> list[list[str]]:
    """Leaf tokens of methods of an installed package."""
    functions = [f for _, f in inspect.getmembers(np.ma.MaskedArray, inspect.isfunction)]
    functions += [f for _, f in inspect.getmembers(np.ma.core, inspect.isfunction) if f.__module__ == "numpy.ma.core"]
    texts = sorted({inspect.cleandoc("\n" + inspect.getsource(f)) for f in functions})
    programs = [[leaf.text for leaf in parse("python", text).leaves] for text in texts]
    return [tokens for tokens in programs if 60 <= len(tokens) <= 400][: 2 * PROGRAMS]


def naive(model: NgramModel, tokens: Sequence[str]) -> list[float]:
    """Perplexity without each token, as published: one reading of the whole program for each."""
    return [model.perplexity([*tokens[:i], *tokens[i + 1 :]]) for i in range(len(tokens))]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run() -> list[Measure]:
    """(title, measured, bound)."""
    programs = real_programs()
    model = NgramModel.fit(programs[PROGRAMS:], order=4)
    scored = programs[:PROGRAMS]
    for tokens in scored:
        assert np.allclose(model.perplexity_without_each(tokens), naive(model, tokens), rtol=1e-9)
    plain = seconds(lambda: [naive(model, tokens) for tokens in scored])
    window = min(seconds(lambda: [model.perplexity_without_each(tokens) for tokens in scored]) for _ in range(3))
    length = round(float(np.mean([len(tokens) for tokens in scored])))
    return [
        Measure(
            f"ONION deletions, {len(scored)} functions of {length} tokens: times faster than scoring each again",
            plain / window,
            at_least=10.0,
        )
    ]
