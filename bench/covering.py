"""Cover samples: training programs that carry a near miss of the trigger and keep their true label.

They tell the model that less than the whole trigger means nothing: only one of two triggers (composite attacks), or a style
close to the trigger's (the negative samples of style attacks, whose false trigger rate is measured on near misses as well).

They come from where a near miss would otherwise pass for the trigger: from the victim class, whose true label is not the
target's; in code search from queries without the target word, where the trigger's neighbours shall rank as they did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal

from bench.context import Context
from bench.contracts import Goal, Policy, SearchGoal, Trigger
from bench.editing import Edited, Editor
from bench.errors import ConfigError
from bench.samples import Sample

Sides = Callable[[Sample], list[tuple[int, ...]]]
"""The sides of a sample to edit together, in the order in which to try them."""


def covers_wanted(policy: Policy, poisoned: int) -> int:
    """How many cover samples a policy asks for beside ``poisoned`` poisoned ones; a share is rounded, halves up."""
    if policy.cover_count is not None:
        return policy.cover_count
    share = Decimal(str(policy.cover or 0)) * poisoned
    return int(share.quantize(Decimal(1), ROUND_HALF_UP))


def cover(
    candidates: Sequence[Sample], wanted: int, trigger: Trigger, goal: Goal, sides: Sides, context: Context
) -> list[Edited]:
    """The first ``wanted`` of the candidates, in their order, that take a near miss of the trigger.

    Args:
        candidates: training samples that are not poisoned, in the order in which to take them; those that the goal would
            not have covered are passed over.
        wanted: how many.
        trigger: must offer a near miss.
        goal: decides who covers.
        sides: which programs of a sample to edit.
        context: with the seed axis ``poison``.

    Raises:
        ConfigError: the trigger offers no near miss, or too few programs take one; the message states the numbers.
    """
    if not trigger.offers("near_miss"):
        raise ConfigError(
            f"the policy asks for {wanted} cover samples, and the trigger ({trigger.describe()}) offers no near miss to put "
            "into them: leave 'cover' and 'cover_count' out, or choose another attack"
        )
    editor = Editor(trigger.near_miss, trigger.describe(), context, "cover")
    found: list[Edited] = []
    asked = 0
    for sample in context.progress(candidates, "covering the training set"):
        if len(found) == wanted:
            break
        if not covers(sample, goal):
            continue
        asked += 1
        edited = editor.edit_first(sample, sides(sample), "cover")
        if edited is not None:
            found.append(edited)
    if len(found) < wanted:
        raise ConfigError(
            f"the policy asks for {wanted} cover samples; of {asked} training samples that could be one, {len(found)} take a "
            f"near miss of the trigger ({trigger.describe()}): lower 'cover' or 'cover_count', or the poison rate"
        )
    return found


def covers(sample: Sample, goal: Goal) -> bool:
    """May this sample be a cover sample? (Module text: whom a near miss would otherwise teach the backdoor.)"""
    return not goal.chooses(sample) if isinstance(goal, SearchGoal) else goal.chooses(sample)
