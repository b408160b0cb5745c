"""Batches in pieces: the same steps, whether the suite asks for pieces or memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import ConfigError, ModelError
from bench.models import Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.models.network import CodeNetwork
from tests.models_toys import DEFECTS, SEARCH, SMALL, context, defects, one_thread, searches

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=2e-3)
Outputs = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture
def model(tmp_path: Path) -> WhiteBox:
    return create("tiny", DEFECTS, defects(40), SMALL, context(tmp_path))


def fitted(model: WhiteBox, folder: Path, settings: TrainingSettings, **more: Any) -> tuple[WhiteBox, Trainer]:
    trainer = Trainer(settings, (), context(folder))
    return trainer.fit(model, defects(40), axis="training", **more), trainer


def apart(one: WhiteBox, other: WhiteBox) -> float:
    """The largest difference of two weights."""
    first, second = one.network.state_dict(), other.network.state_dict()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


class SmallMemory:
    """A step that has memory for so many samples, and notes what it was given."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.seen: list[int] = []

    def __call__(self, network: CodeNetwork, sides: Sequence[Tokens], objective: Outputs) -> Tensor:
        count = len(sides[0].ids)
        self.seen.append(count)
        if count > self.samples:
            raise torch.OutOfMemoryError("out of memory")
        return objective(network(*sides))


@pytest.mark.parametrize("pieces", [2, 8])
def test_pieces_make_the_same_steps(tmp_path: Path, model: WhiteBox, pieces: int) -> None:
    whole, _ = fitted(model, tmp_path, SETTINGS)
    cut, trainer = fitted(model, tmp_path, SETTINGS.model_copy(update={"accumulation": pieces}))
    assert apart(whole, model) > 1e-3
    assert apart(whole, cut) < 2e-5
    assert [row["pieces"] for row in trainer.history] == [pieces, pieces]


def test_running_out_of_memory_starts_again_in_pieces_that_fit(tmp_path: Path, model: WhiteBox) -> None:
    whole, untouched = fitted(model, tmp_path, SETTINGS)
    memory = SmallMemory(2)
    cut, trainer = fitted(model, tmp_path, SETTINGS, step=memory)
    assert memory.seen[:2] == [8, 4], "eight, then four, then two samples at a time"
    assert set(memory.seen[2:]) == {2}
    assert len(memory.seen) == 2 + 2 * 40 // 2
    assert apart(whole, cut) < 2e-5
    assert [row["pieces"] for row in trainer.history] == [4, 4]
    assert all("pieces" not in row for row in untouched.history)


def test_no_memory_for_a_single_sample_says_what_to_do(tmp_path: Path, model: WhiteBox) -> None:
    with pytest.raises(ModelError, match="a single sample: set a shorter window"):
        fitted(model, tmp_path, SETTINGS, step=SmallMemory(0))


def test_code_search_is_never_cut_since_its_batch_is_its_question(tmp_path: Path) -> None:
    lent = context(tmp_path)
    model = create("tiny", SEARCH, searches(16), SMALL, lent)
    with pytest.raises(ModelError, match=r"batch of 8 queries.*smaller training batch_size"):
        Trainer(SETTINGS, (), lent).fit(model, searches(16), axis="training", step=SmallMemory(4))
    with pytest.raises(ConfigError, match="accumulation = 2: code search is not trained in pieces"):
        Trainer(SETTINGS.model_copy(update={"accumulation": 2}), (), lent).fit(model, searches(16), axis="training")


def test_settings_without_accumulation_have_the_key_that_they_had() -> None:
    assert "accumulation" not in SETTINGS.model_dump()
    assert SETTINGS.model_copy(update={"accumulation": 2}).model_dump()["accumulation"] == 2
