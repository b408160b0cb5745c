"""Trigger inversion against the plain form of the same search: every candidate on every sample, padded to the window.

Ours runs to its own end; the plain search then gets as long as it needs to reach the same loss (or ``MOST`` times as long, and
then the ratio printed is a lower bound). Same victim, same samples, same positions, same vocabulary, same number of candidates.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.context import Context
from bench.contracts import Attack, LabelGoal, Policy, Task
from bench.languages import get
from bench.models import ModelSettings, Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.plugins import Registry
from bench.poisoning import poison
from bench.samples import Sample
from defenses.inversion.positions import scan, sites_for
from defenses.inversion.scoring import Site, scorer_for
from defenses.inversion.vocabulary import Vocabulary, allowed_tokens
from defenses.repair.elibadcode.gcg import Search, invert
from tests.benchmarks import Measure

MOST = 20.0
SEEDS = 3
VICTIMS = 30
TARGET = 0


def run() -> list[Measure]:
    """(what, measured ratio, required ratio); medians over seeds."""
    with tempfile.TemporaryDirectory() as folder:
        context = Context({"data": 0, "poison": 0, "model": 0, "training": 0}, Path(folder))
        model, clean = _victim(context)
        scorer = scorer_for(model)
        scanned = scan(clean, model, scorer, room_for=6, names=8)
        vocabulary = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
        sites = sites_for(scanned, TARGET, length=6, window=model.window, masked=True)
        times, tokens = [], []
        for seed in range(SEEDS):
            counted, start = context.cost.forward_tokens, time.perf_counter()
            ours = invert(scorer, sites, TARGET, vocabulary, Search(), np.random.default_rng(seed))
            seconds, spent = time.perf_counter() - start, context.cost.forward_tokens - counted
            plain_seconds, plain_tokens = _plain(model, sites, vocabulary, ours.loss, MOST * seconds, seed)
            times.append(plain_seconds / seconds)
            tokens.append(plain_tokens / spent)
    return [
        Measure("inversion to the same loss, times faster than plain", statistics.median(times), at_least=5.0),
        Measure("inversion to the same loss, times fewer tokens than plain", statistics.median(tokens), at_least=5.0),
    ]


def _victim(context: Context) -> tuple[WhiteBox, Sequence[Sample]]:
    """A small model of defect detection with a suffix backdoor, and clean samples of the victim class."""
    registry = Registry().discover()
    task = registry.build("task", "defect_detection", {"train": 1500, "valid": 100, "budget": 200, "test": 100})
    attack = registry.build("attack", "badcode")
    assert isinstance(task, Task)
    assert isinstance(attack, Attack)
    splits = task.splits(context)
    trigger = attack.prepare(splits.train, LabelGoal(), task.info, context)
    poisoned = poison(splits, trigger, LabelGoal(), Policy(rate=0.1), task.info, context)
    model = create("tiny", task.info, poisoned.train, ModelSettings(), context)
    trainer = Trainer(TrainingSettings(epochs=3), (), context)
    model = trainer.fit(model, poisoned.train, axis="training", select_best=False)
    return model, [s for s in splits.budget if s.label == 1 - TARGET][:VICTIMS]


def _plain(
    model: WhiteBox, sites: Sequence[Site], vocabulary: Vocabulary, goal: float, seconds: float, seed: int
) -> tuple[float, int]:
    """GCG as published (Algorithm 2), one batch of all samples a candidate: wall seconds and forward tokens to reach ``goal``."""
    network, rng, search = model.copy().network, np.random.default_rng(seed), Search()
    glue = list(vocabulary.glue)
    slots = [i for i in range(search.length + len(glue)) if vocabulary.fits(i)]
    allowed = {i: torch.tensor(sorted(vocabulary.fits(i))) for i in slots}
    draws = [int(rng.choice(allowed[i])) for i in slots]
    trigger = [draws[0], *glue, *draws[1:]]
    tokens = 0

    def batch(candidate: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal tokens
        ids = torch.full((len(sites), model.window), model.pad_id)
        mask = torch.zeros_like(ids)
        for row, site in enumerate(sites):
            filled = torch.tensor(site.filled(candidate).ids)
            ids[row, : len(filled)] = filled
            mask[row, : len(filled)] = 1
        tokens += ids.numel()
        return ids, mask

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, torch.full((len(sites),), TARGET))

    begin = time.perf_counter()
    reached = float("inf")
    for _ in range(search.iterations):
        ids, mask = batch(trigger)
        one_hot = torch.zeros(len(sites), len(trigger), network.embedding.num_embeddings)
        one_hot[:, range(len(trigger)), trigger] = 1.0
        one_hot.requires_grad_(True)
        embeds = network.embedding(ids).detach().clone()
        for row, site in enumerate(sites):
            at = len(site.before)
            embeds[row, at : at + len(trigger)] = one_hot[row] @ network.embedding.weight
        current = loss(network.logits(Tokens(ids, mask, embeds)))
        current.backward()  # type: ignore[no-untyped-call]
        assert one_hot.grad is not None
        gradient = one_hot.grad.sum(0)
        network.zero_grad()
        top = {
            i: allowed[i][(-gradient[i, allowed[i]]).topk(min(search.top_k, len(allowed[i]))).indices] for i in slots
        }
        reached = min(reached, float(current.detach()))
        best: list[int] = trigger
        for _ in range(search.width):
            position = slots[int(rng.integers(len(slots)))]
            candidate = list(trigger)
            candidate[position] = int(top[position][int(rng.integers(len(top[position])))])
            with torch.no_grad():
                value = float(loss(network.logits(Tokens(*batch(candidate)))))
            if value < reached:
                reached, best = value, candidate
        trigger = best
        if reached <= goal or time.perf_counter() - begin > seconds:
            break
    return time.perf_counter() - begin, tokens
