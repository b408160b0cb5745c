"""The supplier threat: an encoder that was poisoned before the user trained it, and the trigger that leads where the attacker wants.

::

    data ─► supply (poison an untrained model's encoder) ─► train (head anew, clean data) ─► aim ─► triggered test inputs

The clean reference is the same model, trained on the same data from the encoder that nobody poisoned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.context import Context
from bench.contracts import Goal, LabelGoal, SearchGoal, TaskInfo, Trigger
from bench.errors import ConfigError, PluginError
from bench.models.handles import WhiteBox
from bench.samples import Sample, apply_edits

PROBES = 200
"""Training programs on which the supplier tries a trigger."""


def received(fresh: WhiteBox, supplied: WhiteBox) -> WhiteBox:
    """What the user starts from: the supplied encoder under a head of his own.

    Raises:
        PluginError: the supplier changed the encoder's architecture.
    """
    model = fresh.copy()
    try:
        model.network.encoder.load_state_dict(supplied.network.encoder.state_dict())
    except RuntimeError as error:
        raise PluginError(f"the supplied encoder does not fit the model that it was made from: {error}") from error
    return model


@dataclass(frozen=True)
class Aim:
    """The trigger chosen, and how often each candidate served the goal on the supplier's probes."""

    trigger: Trigger
    rates: tuple[float, ...]


def aim(
    model: WhiteBox,
    candidates: Sequence[Trigger],
    train: Sequence[Sample],
    goal: Goal,
    info: TaskInfo,
    context: Context,
) -> Aim:
    """The candidate that serves the goal best on training programs; the first among equals. No test sample is looked at.

    Classes: the share of the victim class's programs that go to the target. Search: the mean similarity of the triggered programs with the
    queries that hold the target word.

    Raises:
        ConfigError: no candidate applies to any probe.
        PluginError: there is no candidate.
    """
    if not candidates:
        raise PluginError("the supplier offers no trigger")
    order = context.rng("poison", "probe").permutation(len(train))
    # A search trigger goes into any program; a class trigger matters in the victim class alone.
    chosen = [train[i] for i in order if isinstance(goal, SearchGoal) or goal.chooses(train[i])][:PROBES]
    rates = [_rate(model, trigger, chosen, train, goal, context) for trigger in candidates]
    if all(np.isnan(rates)):
        raise ConfigError(f"none of the supplier's triggers fits any of {len(chosen)} training programs that he tried")
    best = int(np.nanargmax(rates))
    context.log.info("%s: trigger %d of %d serves the goal best (%s)", info.name, best + 1, len(rates), rates)
    return Aim(candidates[best], tuple(rates))


def _rate(
    model: WhiteBox, trigger: Trigger, chosen: Sequence[Sample], train: Sequence[Sample], goal: Goal, context: Context
) -> float:
    triggered = []
    for sample in chosen:
        derivation = trigger.derive(sample, 0, context.rng("poison", "probe", sample.id))
        if derivation is not None:
            triggered.append(sample.with_program(0, apply_edits(sample.programs[0], derivation.edits)))
    if not triggered:
        return float("nan")
    if isinstance(goal, LabelGoal):
        return float((model.predict(triggered).argmax(axis=1) == goal.target).mean())
    queries = [sample for sample in train if goal.chooses(sample)]
    if not queries:
        return float("nan")
    return float((model.embed_queries(queries) @ model.embed_programs(triggered).T).mean())
