"""What the board tells of each attack beside its success: stealth of its texts, reach in its victims, and its controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from bench.board.rounding import rounded, rounded_number
from bench.measures import Measure, Sort, over_seeds
from bench.metrics import Number
from bench.records import ControlFacts, Count, Record, Spread, Status, StealthFacts
from bench.stats import Clustered

T = TypeVar("T", Count, ControlFacts)
NOT_TOLD = "older records do not tell it"
NOT_OFFERED = "the trigger offers none, or it applies to no test program"


class AttackRow(BaseModel):
    """One attack on one (task, model): means over the seeds whose records tell of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    model: str
    attack: str
    seeds: tuple[int, ...]
    tokens: float | None = None
    """Tokens changed, mean over programs."""
    tokens_median: float | None = None
    characters: float | None = None
    characters_median: float | None = None
    bits_before: float | None = None
    """Bits a token under an n-gram model of clean code."""
    bits_after: float | None = None
    rank_before: float | None = None
    """Median share of clean programs with fewer bits."""
    rank_after: float | None = None
    natural: Number
    """Clean test programs that carry the trigger."""
    coverage: Number
    visible: Number
    near_miss: Number
    """False trigger rate: near misses that meet the goal; ``near_miss_lift``: minus those on the clean reference, paired."""
    near_miss_lift: Number
    placebo: Number
    placebo_lift: Number
    cover: float | None = None
    """Cover samples in training."""
    weakened: float | None = None
    crafting: float | None = None
    """Tokens through models to make the trigger, mean over seeds."""
    reasons: tuple[str, ...] = ()
    """Why something was not measured."""


def attack_rows(records: Iterable[Record]) -> tuple[AttackRow, ...]:
    """A row for each attacked (task, model), in that order; one record a seed tells of it, whatever its defense."""
    told: dict[tuple[str, str, str], dict[int, StealthFacts]] = {}
    spent: dict[tuple[str, str, str], dict[int, int]] = {}
    for record in sorted(records, key=lambda record: record.coordinates.slug):
        at = record.coordinates
        if record.status is Status.OK and record.stealth is not None:
            key = (at.task, at.model, at.attack)
            told.setdefault(key, {}).setdefault(at.seed, record.stealth)
            if record.poison is not None and record.poison.crafting_tokens is not None:
                spent.setdefault(key, {}).setdefault(at.seed, record.poison.crafting_tokens)
    return tuple(_row(key, dict(sorted(told[key].items())), [*spent.get(key, {}).values()]) for key in sorted(told))


def _row(key: tuple[str, str, str], seeds: dict[int, StealthFacts], crafting: Sequence[float]) -> AttackRow:
    facts = list(seeds.values())
    texts = [f.text for f in facts if f.text is not None]
    reaches = [f.reach for f in facts if f.reach is not None]

    def middle(of: str, kind: str) -> float | None:
        spreads: list[Spread | None] = [getattr(text, of) for text in texts]
        return _mean([getattr(spread, kind) for spread in spreads if spread is not None])

    def control(name: str) -> tuple[Number, Number]:
        found: list[ControlFacts | None] = [getattr(reach, name) for reach in reaches]
        return _over(found, _hits, NOT_OFFERED), _over(found, _paired, NOT_OFFERED)

    near_miss, near_miss_lift = control("near_miss")
    placebo, placebo_lift = control("placebo")
    return AttackRow(
        task=key[0],
        model=key[1],
        attack=key[2],
        seeds=tuple(seeds),
        tokens=middle("tokens", "mean"),
        tokens_median=middle("tokens", "median"),
        characters=middle("characters", "mean"),
        characters_median=middle("characters", "median"),
        bits_before=middle("bits_before", "mean"),
        bits_after=middle("bits_after", "mean"),
        rank_before=middle("rank_before", "median"),
        rank_after=middle("rank_after", "median"),
        natural=_over([text.natural for text in texts], _share, "the trigger names no tokens and cannot tell"),
        coverage=_over([reach.coverage for reach in reaches], _share, NOT_TOLD),
        visible=_over([reach.visible for reach in reaches], _share, NOT_TOLD),
        near_miss=near_miss,
        near_miss_lift=near_miss_lift,
        placebo=placebo,
        placebo_lift=placebo_lift,
        cover=_mean([reach.cover for reach in reaches]),
        weakened=_mean([reach.weakened for reach in reaches]),
        crafting=_mean(crafting) if len(crafting) == len(seeds) else None,
        reasons=tuple(dict.fromkeys(f.reason for f in facts if f.reason)),
    )


def _mean(values: Sequence[float]) -> float | None:
    return rounded(float(np.mean(values))) if values else None


def _over(facts: Sequence[T | None], measure: Callable[[T], Measure], reason: str) -> Number:
    """Mean over seeds, undefined where one of them does not tell."""
    known = [fact for fact in facts if fact is not None]
    if not known or len(known) < len(facts):
        return Number.absent(reason)
    return rounded_number(Number.of(over_seeds([measure(fact) for fact in known]), "no inputs"))


def _share(count: Count) -> Measure:
    return _flags(Sort.SHARE, np.arange(count.n) < count.hits)


def _hits(facts: ControlFacts) -> Measure:
    return _flags(Sort.SHARE, np.arange(facts.n) < facts.hits)


def _paired(facts: ControlFacts) -> Measure:
    """Victim and reference on the same inputs, from the counts alone: what the victim has alone first, then ``both``, and what the
    reference has alone last. A difference then has its +1 and its −1 at the same ends at every seed, whatever the counts."""
    place = np.arange(facts.n)
    own = facts.hits - facts.both
    victim = place < facts.hits
    reference = ((place >= own) & (place < facts.hits)) | (place >= facts.n - (facts.reference - facts.both))
    return _flags(Sort.SHARE_DIFFERENCE, victim, reference)


def _flags(sort: Sort, *flags: np.ndarray) -> Measure:
    columns = np.stack([*(f.astype(float) for f in flags), np.ones(len(flags[0]))], axis=1)
    # The counts do not tell groups: each input is a cluster of its own. Successes stand first at every seed, as if seeds
    # agreed on the inputs as far as they can: the bootstrap then treats seeds as dependent, which is the careful side.
    return Measure(sort, Clustered(columns, np.arange(len(columns)).astype(str).astype(object)))
