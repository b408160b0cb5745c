"""The conformance suite's rule for near misses and placebos finds every way to break it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from attacks.composite import Composite
from bench.conformance.attacks import FAMILY, controls
from bench.conformance.checks import Broken, Skipped, Subject
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, TaskKind, Trigger
from bench.samples import Edit, Sample

Way = Literal["right", "never", "same", "broken", "other side", "returns early"]


def first_line(sample: Sample, side: int, line: str) -> Derivation:
    place = sample.programs[side].encode().index(b"\n") + 1
    return Derivation((Edit(place, place, f"    {line}\n", side),), line)


@dataclass(frozen=True)
class Line(Trigger):
    """A first line; its near miss goes the way that the test asks for."""

    way: Way

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        return first_line(sample, side, "boom = 1")

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        if self.way == "never":
            return None
        if self.way == "other side":
            return Derivation((Edit(0, 0, "room = 1\n", 1 - side),), "room")
        lines = {"same": "boom = 1", "broken": "room = (", "returns early": "return 7"}
        return first_line(sample, side, lines.get(self.way, "room = 1"))


@dataclass(frozen=True, kw_only=True)
class Lines(Attack):
    """The attack with that trigger."""

    name = "lines"
    summary = "a first line"
    paper = "unpublished"
    way: Way = "right"

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        return Line(self.way)


def subject(way: Way) -> Subject:
    found = Subject(Lines, TaskKind.CLASSIFICATION, FAMILY)
    found.__dict__["plugin"] = Lines(way=way)
    return found


def test_a_near_miss_that_is_none_of_these_passes() -> None:
    controls(subject("right"))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("never", "applies to no program"),
        ("same", "is the trigger itself"),
        ("broken", "no longer well-formed"),
        ("other side", "edits another side"),
        ("returns early", "behaves differently"),
    ],
)
def test_a_near_miss_that_breaks_the_rule_is_found(way: Way, message: str) -> None:
    with pytest.raises(Broken, match=message):
        controls(subject(way))


def test_a_trigger_that_offers_nothing_is_not_judged() -> None:
    @dataclass(frozen=True)
    class Silent(Trigger):
        def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
            return first_line(sample, side, "boom = 1")

    found = subject("right")
    object.__setattr__(found.plugin, "prepare", lambda *_: Silent())
    with pytest.raises(Skipped, match="offers no near miss"):
        controls(found)


def test_one_part_of_a_composite_alone_is_a_near_miss_and_not_the_trigger() -> None:
    controls(Subject(Composite, TaskKind.CLASSIFICATION, FAMILY))
