"""Trigger inversion against the plain form of the same search: every candidate on every sample, padded to the window.

Three attacks, five seeds, the direction of the backdoor; same victims, samples, positions, vocabulary and number of candidates. Processor
seconds on one thread (a stage has one; two stages run beside each other on two cores), so that other work on the machine does not count.

The published search has no rule to stop and runs 100 iterations, all of which cost the same. The plain search here runs until
``STALE`` iterations brought nothing, and its time is given in two readings: ``published``, its cost of an iteration times 100; and
``hindsight``, the time at which it *first* had its final loss, as if it had known to stop there. Ours runs to its own end. A ratio counts
only where our loss is no worse, so the difference of the losses stands beside it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from bench.context import Context
from bench.contracts import Attack, LabelGoal, Policy, Task
from bench.languages import get
from bench.models import ModelSettings, Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.plugins import Registry
from bench.poisoning import poison
from bench.samples import Sample, Splits
from defenses.inversion.objective import Part, TowardsClass
from defenses.inversion.positions import scan, sites_for
from defenses.inversion.scoring import Site, scorer_for
from defenses.inversion.vocabulary import Vocabulary, allowed_tokens
from defenses.repair.elibadcode import EliBadCode
from defenses.repair.elibadcode.gcg import invert
from tests.benchmarks import Measure

ATTACKS = ("renaming", "badcode", "dead_code")
SEEDS = 5
PUBLISHED = 100
STALE = 10
VICTIMS = 30
LENGTH = 5
TOP_K = 64
WIDTH = 64
TARGET = 0
THREADS = 1


@dataclass(frozen=True)
class Run:
    """One search: its last loss, and what it took to get there (the plain one: with hindsight)."""

    loss: float
    seconds: float
    forward: int
    backward: int
    iterations: int
    published: float = 0.0
    """The plain search: processor seconds of all published iterations."""


def run() -> list[Measure]:
    """For each attack the median ratios over seeds, and the median difference of the final losses."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            context = Context({"data": 0, "poison": 0, "model": 0, "training": 0}, Path(folder))
            registry = Registry().discover()
            task = cast(
                Task,
                registry.build("task", "defect_detection", {"train": 1500, "valid": 100, "budget": 200, "test": 100}),
            )
            splits = task.splits(context)
            return [
                row
                for attack in ATTACKS
                for row in _compared(attack, _victim(registry, task, splits, attack, context), splits.budget, context)
            ]
    finally:
        torch.set_num_threads(threads)


def _compared(attack: str, model: WhiteBox, clean: Sequence[Sample], context: Context) -> list[Measure]:
    pairs = []
    for seed in range(SEEDS):
        pair = _ours(model, clean, seed), _plain(model, clean, seed)
        print(f"  {attack}, seed {seed}: ours {pair[0]}, plain {pair[1]}", flush=True)
        pairs.append(pair)

    def median(ratio: list[float]) -> float:
        return statistics.median(ratio)

    return [
        Measure(
            f"{attack}: times faster than the published search",
            median([p.published / o.seconds for o, p in pairs]),
            at_least=20.0,
        ),
        Measure(f"{attack}: times faster than it with hindsight", median([p.seconds / o.seconds for o, p in pairs])),
        Measure(
            f"{attack}: times fewer forward tokens, with hindsight", median([p.forward / o.forward for o, p in pairs])
        ),
        Measure(
            f"{attack}: times fewer backward tokens, with hindsight",
            median([p.backward / o.backward for o, p in pairs]),
        ),
        Measure(
            f"{attack}: our final loss less the plain one's, nats",
            median([o.loss - p.loss for o, p in pairs]),
            at_most=0.001,
        ),
    ]


def _victim(registry: Registry, task: Task, splits: Splits, name: str, context: Context) -> WhiteBox:
    """A small model of defect detection with a backdoor."""
    attack = cast(Attack, registry.build("attack", name))
    trigger = attack.prepare(splits.train, LabelGoal(), task.info, context)
    poisoned = poison(splits, trigger, LabelGoal(), Policy(rate=0.1), task.info, context)
    model = create("tiny", task.info, splits.train, ModelSettings(), context)
    trainer = Trainer(TrainingSettings(epochs=3), (), context)
    return trainer.fit(model, poisoned.train, axis="training", select_best=False)


def _question(model: WhiteBox, clean: Sequence[Sample]) -> tuple[list[Site], Vocabulary]:
    """Where the trigger is tried, and of what it is made: the same for both sides.

    Neither asks that a trigger re-tokenises, which the paper does not: with fewer strings to choose from a search that asks ends higher.
    """
    asking = allowed_tokens(model.tokenizer, get("python"), model.network.embedding.num_embeddings)
    vocabulary = replace(asking, retokenises=False)
    size = LENGTH + len(vocabulary.glue)
    victims = [s for s in clean if s.label == 1 - TARGET][:VICTIMS]
    scanned = scan(victims, model, scorer_for(model), room_for=size, names=8)
    return sites_for(scanned, TARGET, length=size, window=model.window, masked=True), vocabulary


def _ours(model: WhiteBox, clean: Sequence[Sample], seed: int) -> Run:
    sites, vocabulary = _question(model, clean)
    plugin = EliBadCode(length=LENGTH, top_k=TOP_K, width=WIDTH)
    objective = TowardsClass(scorer_for(model), sites, TARGET, Part("trigger", vocabulary, LENGTH))
    cost = objective.cost
    forward, backward = cost.forward_tokens, cost.backward_tokens
    start = time.process_time()
    found = invert(objective, plugin.search(), np.random.default_rng(seed))
    seconds = time.process_time() - start
    return Run(found.loss, seconds, cost.forward_tokens - forward, cost.backward_tokens - backward, found.iterations)


def _plain(model: WhiteBox, clean: Sequence[Sample], seed: int) -> Run:
    """GCG as published (Algorithm 2), one batch of all samples a candidate, the best candidate taken even uphill."""
    sites, vocabulary = _question(model, clean)
    network, rng = model.copy().network, np.random.default_rng(seed)
    glue = list(vocabulary.glue)
    slots = [i for i in range(LENGTH + len(glue)) if vocabulary.fits(i)]
    allowed = {i: torch.tensor(sorted(vocabulary.fits(i))) for i in slots}
    draws = [int(rng.choice(allowed[i])) for i in slots]
    trigger = [draws[0], *glue, *draws[1:]]
    forward = backward = 0

    def batch(candidate: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal forward
        ids = torch.full((len(sites), model.window), model.pad_id)
        mask = torch.zeros_like(ids)
        for row, site in enumerate(sites):
            filled = torch.tensor(site.filled(candidate).ids)
            ids[row, : len(filled)] = filled
            mask[row, : len(filled)] = 1
        forward += ids.numel()
        return ids, mask

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, torch.full((len(sites),), TARGET))

    start = time.process_time()
    reached = Run(float("inf"), 0.0, 0, 0, 0)
    done = 0
    while done < PUBLISHED and done - reached.iterations < STALE:
        ids, mask = batch(trigger)
        one_hot = torch.zeros(len(sites), len(trigger), network.embedding.num_embeddings)
        one_hot[:, range(len(trigger)), trigger] = 1.0
        one_hot.requires_grad_(True)
        embeds = network.embedding(ids).detach().clone()
        for row, site in enumerate(sites):
            at = len(site.before)
            embeds[row, at : at + len(trigger)] = one_hot[row] @ network.embedding.weight
        loss(network.logits(Tokens(ids, mask, embeds))).backward()  # type: ignore[no-untyped-call]
        backward += ids.numel()
        assert one_hot.grad is not None
        gradient = one_hot.grad.sum(0)
        network.zero_grad()
        top = {i: allowed[i][(-gradient[i, allowed[i]]).topk(min(TOP_K, len(allowed[i]))).indices] for i in slots}
        values = {}
        for _ in range(WIDTH):
            position = slots[int(rng.integers(len(slots)))]
            candidate = list(trigger)
            candidate[position] = int(top[position][int(rng.integers(len(top[position])))])
            with torch.no_grad():
                values[tuple(candidate)] = float(loss(network.logits(Tokens(*batch(candidate)))))
        trigger = list(min(values, key=lambda each: values[each]))
        done += 1
        if values[tuple(trigger)] < reached.loss:
            reached = Run(values[tuple(trigger)], time.process_time() - start, forward, backward, done)
    return replace(reached, published=(time.process_time() - start) / done * PUBLISHED)
