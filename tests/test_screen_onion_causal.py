"""ONION with a causal model: the published definition, token by token, and a model that learnt what is usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, TaskInfo, TaskKind
from bench.errors import ModelError
from bench.models.causal import CausalModel, load_causal
from bench.models.encoders import train_tokenizer
from bench.models.tokens import pad
from bench.plugins import build
from bench.samples import Sample
from defenses.screen.onion import FittedOnion, Onion
from defenses.screening.deleting import CausalReader, Source
from tests.causal_toys import save

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")


def program(seed: int, alien: str = "") -> str:
    rng = np.random.default_rng(seed)
    names = ("alpha", "beta", "gamma", "delta")
    lines = [f"    {rng.choice(names)} = {rng.choice(names)} + {rng.integers(3)}" for _ in range(rng.integers(2, 4))]
    return "\n".join([f"def {rng.choice(names)}(alpha):", *lines, f"    return {rng.choice(names)}", ""]).replace(
        " = ", f" = {alien}", 1
    )


def inputs(start: int, stop: int, alien: str = "") -> list[Sample]:
    return [Sample(f"s{i}", (program(i, alien),), "python") for i in range(start, stop)]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model that knows the toy grammar, and the word ``quux`` from nowhere in particular."""
    folder = tmp_path_factory.mktemp("causal")
    texts = [program(i) for i in range(3000, 3120)]
    words = train_tokenizer([*texts, *["quux quux"] * 3], 320)
    words.backend_tokenizer.post_processor = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"vocab_size": len(words), "n_positions": 128, "n_embd": 32, "n_layer": 1, "n_head": 2}
        model: Any = GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=2, resid_pdrop=0.0, **sizes))
        rows = [[0, *words.backend_tokenizer.encode(text).ids] for text in texts]
        steps = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(90):
            batch = pad(rows[(step * 8) % 120 :][:8], 1)
            labels = batch.ids.masked_fill(batch.mask == 0, -100)
            steps.zero_grad()
            model(input_ids=batch.ids, labels=labels).loss.backward()
            steps.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def fit(plugin: Onion, clean: list[Sample]) -> FittedScreen:
    return plugin.fit(Known(plugin.needs, _clean=tuple(clean)), INFO, Context(seeds={}, scratch=Path("unused")))


def lent(folder: Path) -> CausalModel:
    return load_causal(str(folder), Context(seeds={}, scratch=folder))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_suspicion_is_the_perplexity_lost_by_deleting_a_leaf_and_reading_again(kind: str, tmp_path: Path) -> None:
    model = lent(save(kind, tmp_path))
    text = "a.b = é * 2\n"
    without = [".b = é * 2\n", "a b = é * 2\n", "a. = é * 2\n", "a.b é * 2\n"]
    without += ["a.b = * 2\n", "a.b = é 2\n", "a.b = é *\n"]
    (suspicions,) = CausalReader(model).suspicions([Source.of("python", text)])
    whole, *shorter = model.perplexities([text, *without])
    assert suspicions == pytest.approx(whole - np.array(shorter), rel=1e-3)


def test_the_alien_word_is_deleted_and_clean_programs_mostly_stay(learnt: Path) -> None:
    screen = fit(Onion(model=str(learnt), clean=80), inputs(0, 80))
    verdicts = screen.screen(inputs(500, 530, "quux "))
    found = [v.rewritten.programs[0] for v in verdicts if v.rewritten is not None]
    assert len(found) >= 27
    assert sum("quux" not in text for text in found) >= 27
    changed = [v.action is not Action.ACCEPT for v in screen.screen(inputs(600, 660))]
    assert np.mean(changed) <= 0.05 + 3 * (0.05 * 0.95 / 60) ** 0.5


def test_verdicts_do_not_depend_on_the_batch(learnt: Path) -> None:
    screen = fit(Onion(model=str(learnt), clean=20, threshold=0.0), inputs(0, 20))
    batch = inputs(500, 504, "quux ")
    together = screen.screen(batch)
    alone = [screen.screen([sample])[0] for sample in batch]
    assert [v.rewritten for v in together] == [v.rewritten for v in alone]


def test_what_the_window_does_not_show_is_not_suspected(tmp_path: Path) -> None:
    model = lent(save("gpt2", tmp_path, positions=16))
    source = Source.of("python", "x = 1\n" * 20)
    (suspicions,) = CausalReader(model).suspicions([source])
    shown = len(model.tokenizer.decode(model.token_ids([source.text])[0][:15]))
    assert all((value != 0.0) <= (leaf.start < shown) for leaf, value in zip(source.leaves, suspicions, strict=True))
    assert np.count_nonzero(suspicions) > 3


@pytest.mark.parametrize("text", ["", "\n", "x", "# only a comment", "é = '名前 😀'\n", "def f(:\n  (((", "a" * 300])
def test_odd_programs_get_a_verdict(text: str, tmp_path: Path) -> None:
    screen = fit(Onion(model=str(save("gpt2", tmp_path)), threshold=-1e9), inputs(0, 3))
    (verdict,) = screen.screen([Sample("odd", (text,), "python")])
    assert np.isfinite(verdict.score)
    assert verdict.rewritten is None or verdict.rewritten.programs[0].strip()


def test_a_missing_model_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        fit(Onion(model="./no/such/folder"), inputs(0, 3))
    with pytest.raises(ModelError, match="pin it"):
        fit(build(Onion, {"model": "some/model"}), inputs(0, 3))  # type: ignore[arg-type]


def test_a_model_that_gives_no_numbers_is_a_clear_error(tmp_path: Path) -> None:
    model = lent(save("gpt2", tmp_path))
    with torch.no_grad():
        next(iter(model.network.parameters())).fill_(float("nan"))
    screen = FittedOnion(CausalReader(model), 0.0, Context(seeds={}, scratch=tmp_path))
    with pytest.raises(ModelError, match="no finite perplexity"):
        screen.screen(inputs(0, 1))
