"""Thresholds in code search: programs that set one are as new to the table of answers as programs of the test are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.contracts import Action, Screen
from bench.samples import Sample
from defenses.screen.codepurify import CodePurify
from defenses.screen.oseql import OSeqL
from defenses.screen.strip import Strip
from defenses.screening.confidence import confidence, halves
from tests.screen_toys import DEFECTS, SEARCH, Told, backdoored, clean, fit

SCREENS = [
    Strip(copies=2, false_positive_rate=0.2),
    OSeqL(false_positive_rate=0.2),
    CodePurify(false_positive_rate=0.2),
]


@dataclass
class Twins:
    """A perfect search model: a program lies where its query does, and every twin elsewhere; it remembers what it was asked."""

    asked: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)

    def embed_programs(self, samples: Sequence[Sample], side: int = 0) -> NDArray[np.float32]:
        """Each statement pushes the program a little off its query, in a direction of its own."""
        self.programs |= {sample.id for sample in samples}
        places = [
            vector(int(s.id)) + sum(0.2 * vector(hash_of(line)) for line in s.programs[0].splitlines()) for s in samples
        ]
        return np.array([place / np.linalg.norm(place) for place in places], dtype=np.float32).reshape(-1, 32)

    def embed_queries(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        self.asked |= {sample.id for sample in samples}
        return np.array([vector(int(sample.query or 0)) for sample in samples], dtype=np.float32)


def vector(seed: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng(seed).normal(size=32)
    unit: NDArray[np.float64] = drawn / np.linalg.norm(drawn)
    return unit


def hash_of(text: str) -> int:
    return sum(ord(character) * 31**i for i, character in enumerate(text)) % 10**6


def found(start: int, stop: int) -> list[Sample]:
    """Programs with a query and a group of their own each."""
    texts = [f"def f(a):\n    b = {i}\n    c = a + {i % 7}\n    return c\n" for i in range(start, stop)]
    return [Sample(str(i), (text,), "python", None, str(i), f"g{i}") for i, text in enumerate(texts, start)]


@pytest.mark.parametrize("plugin", SCREENS, ids=lambda plugin: plugin.name)
def test_no_program_that_sets_a_threshold_has_its_query_among_the_answers(plugin: Screen) -> None:
    model, known = Twins(), found(0, 40)
    fit(plugin, model, known, SEARCH)
    assert len(model.asked) == len(model.programs) == 20
    assert not model.asked & model.programs


@pytest.mark.parametrize("plugin", SCREENS, ids=lambda plugin: plugin.name)
def test_clean_programs_of_the_test_pass_a_threshold_as_often_as_it_says(plugin: Screen) -> None:
    """Between a fifth more or less three deviations: 100 programs set each threshold, 300 are judged by it."""
    screen = fit(plugin, Twins(), found(0, 200), SEARCH)
    exceeding = np.mean([verdict.score > screen.threshold for verdict in screen.screen(found(1000, 1300))])
    assert exceeding == pytest.approx(0.2, abs=3 * np.sqrt(0.2 * 0.8 * (1 / 100 + 1 / 300)))
    own = screen.screen([Sample(s.id, s.programs, "python", None, None) for s in halves(found(0, 200))[0]])
    rates = np.mean([verdict.score > screen.threshold for verdict in own])
    assert abs(rates - 0.2) > 0.15, "programs whose own queries are answers are of another kind"
    if isinstance(plugin, Strip):
        assert np.mean([verdict.action is Action.REJECT for verdict in own]) > 0.9


def test_groups_are_never_parted() -> None:
    samples = [Sample(str(i), ("x",), "python", None, str(i), f"g{i // 3}") for i in range(30)]
    asked, setting = halves(samples)
    assert len(asked) == len(setting) == 15
    assert not {s.group for s in asked} & {s.group for s in setting}


def test_among_classes_every_clean_sample_sets_the_threshold() -> None:
    known = clean(20)
    assert confidence(Told(backdoored), DEFECTS, known)[1] == list(known)  # type: ignore[arg-type]
