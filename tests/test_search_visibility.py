"""In code search a triggered row tells of the program that got the trigger, not of the query's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench.contracts import SearchGoal, TaskKind
from bench.manifest import ManifestRow
from bench.poisoning import Poisoned
from bench.predicting import predictions
from bench.samples import Edit, Sample

NAMES = ("own", "near", "middle", "far")


def sample(name: str, text: str) -> Sample:
    return Sample(name, (text,), "python", None, "sort numbers" if name == "own" else "read files", name)


class Model:
    """The query of ``own`` finds own, near, middle and far in this order; its window hides what one program has."""

    info = SimpleNamespace(kind=TaskKind.SEARCH)

    def __init__(self, hidden: str) -> None:
        self.hidden = hidden

    def embed_queries(self, samples: Any) -> np.ndarray:
        return np.ones((len(samples), 1))

    def embed_programs(self, samples: Any) -> np.ndarray:
        return np.array([[4.0 - NAMES.index(one.id)] for one in samples])

    def visible(self, text: str, start: int, end: int) -> bool:
        return self.hidden not in text


@pytest.mark.parametrize(("hidden", "visible"), [("own", True), ("middle", False)])
def test_the_window_is_asked_for_the_candidates_trigger(hidden: str, visible: bool) -> None:
    clean = [sample(name, f"x = '{name}'") for name in NAMES]
    triggered = [sample(name, f"trigger; x = '{name}'") for name in NAMES]
    edits = (Edit(0, 0, "trigger; "),)
    manifest = tuple(ManifestRow(name, "triggered", 0, edits, ("",), "", None, "", "") for name in NAMES)
    poisoned = Poisoned(train=(), triggered=tuple(triggered), manifest=manifest)
    inputs = {"clean": clean, "triggered": triggered}
    frame, _ = predictions(cast(Any, Model(hidden)), inputs, poisoned, SearchGoal("sort"), {})
    (row,) = frame[frame["part"] == "triggered"].to_dict("records")
    assert row["id"] == "own", "one eligible query, whose middle candidate of near, middle and far carries the trigger"
    assert row["visible"] is visible
    assert "carrier" not in frame
