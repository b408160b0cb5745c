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
from bench.models.memory import beside_others, ran_out_of_memory
from bench.models.network import CodeNetwork
from bench.models.training import equal_pieces
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


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory"),
)
"""As torch's allocator says it, and as libraries below it do."""


class SmallMemory:
    """A step that has memory for so many samples, and notes what it was given."""

    def __init__(self, samples: int, error: Exception = OUT_OF_MEMORY[0]) -> None:
        self.samples, self.error = samples, error
        self.seen: list[int] = []

    def __call__(self, network: CodeNetwork, sides: Sequence[Tokens], objective: Outputs) -> Tensor:
        count = len(sides[0].ids)
        self.seen.append(count)
        if count > self.samples:
            raise self.error
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


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_memory_runs_out_in_words_too(tmp_path: Path, model: WhiteBox, error: Exception) -> None:
    memory = SmallMemory(4, error)
    _, trainer = fitted(model, tmp_path, SETTINGS, step=memory)
    assert memory.seen[:2] == [8, 4]
    assert [row["pieces"] for row in trainer.history] == [2, 2]
    with pytest.raises(ModelError, match="a single sample: set a shorter window") as caught:
        fitted(model, tmp_path, SETTINGS, step=SmallMemory(0, error))
    assert ran_out_of_memory(caught.value)
    with beside_others(True), pytest.raises(type(error), match=str(error)[:20]):
        fitted(model, tmp_path, SETTINGS, step=SmallMemory(4, error))


def test_an_error_of_another_kind_starts_nothing_again(tmp_path: Path, model: WhiteBox) -> None:
    memory = SmallMemory(0, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        fitted(model, tmp_path, SETTINGS, step=memory)
    assert memory.seen == [8]


class Notes:
    """A plain step that notes how many samples it was given, and an objective that notes the progress."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.progress: list[float] = []

    def __call__(self, network: CodeNetwork, sides: Sequence[Tokens], objective: Outputs) -> Tensor:
        self.sizes.append(len(sides[0].ids))
        return objective(network(*sides))

    def objective(self, logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
        self.progress.append(progress)
        return torch.nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("batch", "wanted", "pieces"), [(12, 3, 3), (6, 3, 3), (20, 3, 4), (12, 8, 12), (12, 4, 4), (6, 4, 6), (7, 2, 7)]
)
def test_a_step_has_exactly_its_batch_whatever_the_pieces(
    tmp_path: Path, model: WhiteBox, batch: int, wanted: int, pieces: int
) -> None:
    whole_notes, cut_notes = Notes(), Notes()
    settings = SETTINGS.model_copy(update={"batch_size": batch})
    whole, plain = fitted(model, tmp_path, settings, step=whole_notes, objective=whole_notes.objective)
    settings = settings.model_copy(update={"accumulation": wanted})
    cut, trainer = fitted(model, tmp_path, settings, step=cut_notes, objective=cut_notes.objective)
    assert [row["pieces"] for row in trainer.history] == [pieces, pieces]
    assert set(cut_notes.sizes) - {batch // pieces} <= {40 % batch % (batch // pieces)}, "equal, but for the very last"
    assert sum(cut_notes.sizes) == 80
    assert set(cut_notes.progress) == set(whole_notes.progress), "an objective's schedule is the same"
    assert apart(whole, cut) < 2e-5, "the last step of an epoch is a short one, and its pieces may differ in size"
    losses = [[row["loss"] for row in each.history] for each in (plain, trainer)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("batch", "memory", "tried"), [(12, 3, [12, 6, 3]), (6, 2, [6, 3, 1]), (20, 4, [20, 10, 5, 2])]
)
def test_memory_that_runs_out_leads_through_equal_pieces(
    tmp_path: Path, model: WhiteBox, batch: int, memory: int, tried: list[int]
) -> None:
    settings = SETTINGS.model_copy(update={"batch_size": batch})
    whole, _ = fitted(model, tmp_path, settings)
    small = SmallMemory(memory)
    cut, trainer = fitted(model, tmp_path, settings, step=small)
    assert small.seen[: len(tried)] == tried
    assert [row["pieces"] for row in trainer.history] == [batch // tried[-1]] * 2
    assert apart(whole, cut) < 2e-5


@pytest.mark.parametrize("batch", range(1, 41))
def test_pieces_are_equal_and_as_few_as_are_wanted(batch: int) -> None:
    for wanted in range(1, 50):
        pieces = equal_pieces(batch, wanted)
        assert batch % pieces == 0
        assert pieces >= min(wanted, batch)
        assert not any(batch % n == 0 for n in range(wanted, pieces))


def test_beside_other_stages_nothing_is_cut_and_the_error_goes_up(tmp_path: Path, model: WhiteBox) -> None:
    memory = SmallMemory(4)
    with beside_others(True), pytest.raises(torch.OutOfMemoryError):
        fitted(model, tmp_path, SETTINGS, step=memory)
    assert memory.seen == [8]
    lent = context(tmp_path)
    search = create("tiny", SEARCH, searches(16), SMALL, lent)
    with beside_others(True), pytest.raises(torch.OutOfMemoryError):
        Trainer(SETTINGS, (), lent).fit(search, searches(16), axis="training", step=SmallMemory(4))


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
