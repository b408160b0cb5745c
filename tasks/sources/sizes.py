"""How many samples each split gets: asked for by parameters, or the source's own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, cast

import pydantic

from bench.context import Context
from bench.contracts import Task
from bench.errors import ConfigError, DataError
from bench.samples import Sample, Splits

Size = Annotated[int, pydantic.Field(ge=0)] | None
"""A number of samples, or ``None`` for the source's default."""

PUBLISHED_TRAIN: Mapping[str, int] = {
    "devign": 21_854,
    "bigclonebench": 901_028,
    "codesearchnet/python": 412_178,
    "codesearchnet/java": 454_451,
}
"""Training samples of the published sets, as their dataset cards tell (CodeXGLUE; CodeSearchNet): for plans, which load nothing."""
PUBLISHED_VALID: Mapping[str, int] = {
    "devign": 2_732,
    "bigclonebench": 415_416,
    "codesearchnet/python": 23_107,
    "codesearchnet/java": 15_328,
}
PUBLISHED_TEST: Mapping[str, int] = {
    "devign": 2_732,
    "bigclonebench": 415_416,
    "codesearchnet/python": 22_176,
    "codesearchnet/java": 26_909,
}


def planned(source: str, asked: int | None, embedded: int) -> int | None:
    """Training samples that there will be at most; ``None`` where nobody knows without loading."""
    if asked is not None:
        return asked
    return embedded if source == "embedded" else PUBLISHED_TRAIN.get(source)


BUDGET_SHARE = 0.1
"""Share of a published training split that is set aside for defenses where no number is asked for, at most a thousand."""


@dataclass(frozen=True)
class Published:
    """A data set as its authors split it; ``facts`` are told of it beside the data."""

    name: str
    train: Sequence[Sample]
    valid: Sequence[Sample]
    test: Sequence[Sample]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, parts: Mapping[str, Sequence[Sample]]) -> Published:
        """From the splits by name."""
        return cls(name, parts["train"], parts["valid"], parts["test"])


def refuse_unused(task: Task, source: str, *, published: Mapping[str, str], embedded: Sequence[str]) -> None:
    """Refuse parameters that a source has no use for: what a key tells must be what was done, and a path without its source a mistake.

    Args:
        task: with its parameters.
        source: where it takes its data from.
        published: parameters of published sources alone, and which sources those are.
        embedded: parameters of the embedded data alone.

    Raises:
        ConfigError: one of them is set to another value than its default.
    """
    for parameter in fields(cast(Any, task)):
        name = parameter.name
        if getattr(task, name) == parameter.default:
            continue
        if source == "embedded" and name in published:
            raise ConfigError(
                f"{task.name}: parameter {name} is for published data alone, and no source was named: name it as well "
                f"(source={published[name]}), or drop {name}"
            )
        if source != "embedded" and name in embedded:
            raise ConfigError(
                f"{task.name}: parameter {name} is for embedded data alone, and does nothing with source={source}: drop one of the two"
            )


def embedded_sizes(asked: Mapping[str, int | None], default: Mapping[str, int]) -> dict[str, int]:
    """What was asked for, and the defaults for the rest."""
    return {split: default[split] if number is None else number for split, number in asked.items()}


def published_sizes(data: Published, asked: Mapping[str, int | None], context: Context) -> Splits:
    """Cap the published splits and carve the budget from the training split, both by ``context.rng("data")``.

    Which split a sample is in stays as published, so groups are as disjoint as its authors made them. The rest of a capped
    split stays in the published order.

    Raises:
        DataError: more samples are asked for than a split holds.
    """
    available = len(data.train)
    budget = asked["budget"]
    if budget is None:
        budget = min(1000, int(available * BUDGET_SHARE), max(0, available - (asked["train"] or 0)))
    rng = context.rng("data", "published", data.name)
    order = rng.permutation(available).tolist()
    carved = sorted(order[:budget])
    if budget > available:
        _too_few(data.name, "train (for the budget)", budget, available)
    remaining = sorted(order[budget:])
    parts = {
        "train": [data.train[i] for i in _cap(remaining, asked["train"], data.name, "train", order[budget:])],
        "budget": [data.train[i] for i in carved],
    }
    for split, samples in (("valid", data.valid), ("test", data.test)):
        shuffled = rng.permutation(len(samples)).tolist()
        parts[split] = [samples[i] for i in _cap(sorted(shuffled), asked[split], data.name, split, shuffled)]
    return Splits(
        **{split: tuple(part) for split, part in parts.items()}, notes={"source": {"name": data.name, **data.facts}}
    )


def _cap(everything: list[int], number: int | None, name: str, split: str, shuffled: list[int]) -> list[int]:
    if number is None:
        return everything
    if number > len(everything):
        _too_few(name, split, number, len(everything))
    return sorted(shuffled[:number])


def _too_few(name: str, split: str, wanted: int, there: int) -> None:
    raise DataError(
        f"{name}: {wanted} samples of {split} were asked for, {there} are there. Ask for fewer, or leave the number out."
    )
