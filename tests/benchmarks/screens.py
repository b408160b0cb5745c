"""ONION's deletions with what they share scored once, against scoring each shortened program anew: one run, equal scores."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.ma.core
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bench.context import Context
from bench.languages.normalising import normalise
from bench.models.causal import CausalModel, load_causal
from bench.models.encoders import train_tokenizer
from bench.models.prefixes import variant_log_likelihoods
from bench.ngram import NgramModel
from bench.samples import apply_edits
from defenses.screening.deleting import NgramReader, Source, cut, deletions
from tests.benchmarks import Measure

PROGRAMS = 40
CAUSAL_PROGRAMS = 3
CAUSAL = {"n_embd": 96, "n_layer": 3, "n_head": 4, "n_positions": 512}
TOLERANCE = 1e-3
"""In nats, of the log-probability of a whole program in single precision."""


def real_programs() -> list[Source]:
    """Methods of an installed package."""
    functions = [f for _, f in inspect.getmembers(np.ma.MaskedArray, inspect.isfunction)]
    functions += [f for _, f in inspect.getmembers(np.ma.core, inspect.isfunction) if f.__module__ == "numpy.ma.core"]
    texts = sorted({inspect.cleandoc("\n" + inspect.getsource(f)) for f in functions})
    programs = [Source.of("python", text) for text in texts]
    return [program for program in programs if 60 <= len(program.leaves) <= 400][: 2 * PROGRAMS]


def naive(model: NgramModel, leaves: Sequence[Sequence[str]]) -> list[float]:
    """Perplexity without each leaf, as published: one reading of the whole program for each."""
    return [model.perplexity(joined([*leaves[:i], *leaves[i + 1 :]])) for i in range(len(leaves))]


def joined(leaves: Sequence[Sequence[str]]) -> list[str]:
    """The pieces of leaves one after the other."""
    return [piece for leaf in leaves for piece in leaf]


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call: what else the machine does has no part in it."""
    started = time.process_time()
    work()
    return time.process_time() - started


def ngrams(programs: Sequence[Source]) -> Measure:
    """All deletions of all programs through the n-gram model."""
    model = NgramReader.fit([program.leaves for program in programs[PROGRAMS:]], order=4)
    scored = programs[:PROGRAMS]
    sentences = [cut(program.leaves, model.words) for program in scored]
    for leaves, suspicions in zip(sentences, model.suspicions(scored), strict=True):
        expected = model.ngrams.perplexity(joined(leaves)) - np.array(naive(model.ngrams, leaves))
        assert np.allclose(suspicions, expected, rtol=1e-9, atol=1e-9)
    plain = seconds(lambda: [naive(model.ngrams, leaves) for leaves in sentences])
    shared = min(seconds(lambda: model.suspicions(scored)) for _ in range(3))
    length = round(float(np.mean([len(leaves) for leaves in sentences])))
    return Measure(
        f"ONION, n-grams: deletions in {len(scored)} functions of {length} tokens, times faster than scoring each again",
        plain / shared,
        at_least=50.0,
    )


def gpt2(folder: Path, programs: Sequence[Source]) -> CausalModel:
    """A small GPT-2 with random weights: what it says does not matter here, only what it costs."""
    words = train_tokenizer([program.text for program in programs], 2000)
    words.backend_tokenizer.post_processor = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=len(words), bos_token_id=0, eos_token_id=2, **CAUSAL)
        GPT2LMHeadModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return load_causal(str(folder), Context(seeds={}, scratch=folder))


def causal(programs: Sequence[Source]) -> Measure:
    """All deletions of some programs through the GPT-2, as texts that are read alone, and with shared prefixes."""
    scored = [program for program in programs if 120 <= len(program.leaves) <= 200][:CAUSAL_PROGRAMS]
    with tempfile.TemporaryDirectory() as folder:
        model = gpt2(Path(folder), programs)
        rows = []
        for program in scored:
            texts = [apply_edits(program.text, deletions(program.text, [leaf], [True])) for leaf in program.leaves]
            rows.append(model.token_ids([program.text, *texts]))

        def alone() -> list[list[float]]:
            return [[float(values.sum()) for values in model.token_log_probabilities(row)] for row in rows]

        def sharing() -> list[list[float]]:
            return [variant_log_likelihoods(model, row[0], row).tolist() for row in rows]

        for one, other in zip(alone(), sharing(), strict=True):
            assert np.allclose(one, other, rtol=0, atol=TOLERANCE)
        plain, shared = seconds(alone), seconds(sharing)
    length = round(float(np.mean([len(row[0]) for row in rows])))
    return Measure(
        f"ONION, GPT-2: deletions in {len(scored)} functions of {length} tokens, times faster than independent texts",
        plain / shared,
        at_least=1.8,
    )


def normalising(programs: Sequence[Source]) -> Measure:
    """All six steps, until nothing changes."""
    spent = seconds(lambda: [normalise("python", program.text) for program in programs])
    return Measure("normalise: milliseconds of processor time a function", 1000 * spent / len(programs))


def run() -> list[Measure]:
    """(title, measured, bound)."""
    programs = real_programs()
    return [ngrams(programs), causal(programs), normalising(programs)]
