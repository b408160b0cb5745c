"""What a defense is handed: exactly what its ``needs`` declare, by type, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import outcomes
from bench.context import Context
from bench.contracts import Access, Defense, Known
from bench.errors import PluginError
from bench.jobs import Job, goal_from, read_poisoned, read_splits
from bench.models.handles import WhiteBox
from bench.poisoning import Poisoned, training_order
from bench.samples import Sample, Splits, input_digest


def training_set(job: Job) -> tuple[Splits, tuple[Sample, ...], Poisoned | None]:
    """(splits, training set as the victim got it or as a filter left it, what the attack did) of a stage's parents."""
    splits, train, poisoned = judged_set(job)
    if "filter" in job.parents:
        table = outcomes.read_filter(job.parents["filter"].folder / "filter.parquet")
        kept = set(table.loc[table["keep"], "id"])
        train = tuple(s for s in train if s.id in kept)
    return splits, train, poisoned


def judged_set(job: Job) -> tuple[Splits, tuple[Sample, ...], Poisoned | None]:
    """The same before any filter: what a filter judges."""
    splits = read_splits(job.parents["data"])
    poisoned = read_poisoned(job.parents["poison"]) if "poison" in job.parents else None
    return splits, training_order(splits.train) if poisoned is None else poisoned.train, poisoned


def clean_samples(budget: Sequence[Sample], count: int, context: Context) -> tuple[Sample, ...]:
    """``count`` clean samples in a seeded order with classes interleaved, so that every prefix is stratified.

    Raises:
        PluginError: the budget split is smaller.
    """
    if count > len(budget):
        raise PluginError(
            f"the defense needs {count} clean samples and the task's budget split has {len(budget)}; raise the task's 'budget' parameter"
        )
    order = context.rng("defense", "clean").permutation(len(budget))
    by_class: dict[int | None, list[Sample]] = {}
    for index in order:
        by_class.setdefault(budget[index].label, []).append(budget[index])
    queues = [by_class[label] for label in sorted(by_class, key=lambda x: (x is None, x))]
    picked: list[Sample] = []
    position = 0
    while len(picked) < count:
        picked += [queue[position] for queue in queues if position < len(queue)]
        position += 1
    return tuple(picked[:count])


def known(job: Job, defense: Defense, context: Context, model: WhiteBox | None, poisoned_inputs: bool = False) -> Known:
    """Hand over what the defense declares, and nothing else."""
    needs = defense.needs
    splits, train, poisoned = training_set(job)
    truth: frozenset[str] | None = None
    if needs.truth:
        if poisoned is None:
            truth = frozenset()
        elif poisoned_inputs:
            truth = frozenset(input_digest(s) for s in (*poisoned.triggered, *poisoned.reverse))
        else:
            truth = poisoned.poisoned
    rate = len(poisoned.poisoned) / len(poisoned.train) if poisoned is not None else 0.0
    return Known(
        needs=needs,
        _clean=clean_samples(splits.budget, needs.clean, context) if needs.clean else None,
        _training=train if needs.training_set else None,
        _model=None if needs.model is Access.NONE else model if needs.model is Access.WEIGHTS else _outputs_of(model),
        _goal=goal_from(job.inputs["goal"]) if needs.target_label and "goal" in job.inputs else None,
        _poison_rate=rate if needs.poison_rate else None,
        _poisoned=truth,
    )


def _outputs_of(model: WhiteBox | None) -> Any:
    """A handle that has no weights."""
    return None if model is None else model.outputs()
