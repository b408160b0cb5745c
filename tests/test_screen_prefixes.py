"""Shared prefixes under a causal model: the same numbers as from independent texts, with about half of the tokens read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from bench.context import Context
from bench.models.causal import CausalModel, load_causal
from bench.models.prefixes import variant_log_likelihoods
from tests.causal_toys import BUILDERS, save, tokenizer

TOLERANCE = 1e-4
"""Of a log-probability summed over some dozen tokens in single precision."""


def model(kind: str, folder: Path, *, positions: int = 64, batch_tokens: int = 256) -> CausalModel:
    save(kind, folder, positions=positions)
    return load_causal(str(folder), Context(seeds={}, scratch=folder), batch_tokens=batch_tokens)


def naive(lent: CausalModel, variants: list[list[int]]) -> np.ndarray:
    return np.array([values.sum() for values in lent.token_log_probabilities(variants)])


def deletions(text: list[int]) -> list[list[int]]:
    return [text[:i] + text[i + 1 :] for i in range(len(text))]


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("length", [1, 2, 40, 63, 90])
def test_every_deletion_scores_as_if_it_were_read_alone(kind: str, length: int, tmp_path: Path) -> None:
    lent = model(kind, tmp_path)
    text = np.random.default_rng(length).integers(5, 250, size=length).tolist()
    assert variant_log_likelihoods(lent, text, deletions(text)) == pytest.approx(
        naive(lent, deletions(text)), abs=TOLERANCE
    )


def test_variants_of_any_kind_and_length_score_as_if_they_were_read_alone(tmp_path: Path) -> None:
    lent = model("gpt2", tmp_path)
    rng = np.random.default_rng(0)
    text = rng.integers(5, 250, size=30).tolist()
    others = [text[:k] + rng.integers(5, 250, size=rng.integers(0, 40)).tolist() for k in (0, 3, 17, 29, 30)]
    variants = [*others, text, [], [*text, 7]]
    assert variant_log_likelihoods(lent, text, variants) == pytest.approx(naive(lent, variants), abs=TOLERANCE)
    assert variant_log_likelihoods(lent, text, []).shape == (0,)
    assert variant_log_likelihoods(lent, [], [[], [7]]) == pytest.approx(naive(lent, [[], [7]]), abs=TOLERANCE)


def test_about_half_of_the_tokens_are_read(tmp_path: Path) -> None:
    lent = model("llama", tmp_path, positions=256)
    text = np.random.default_rng(0).integers(5, 250, size=200).tolist()
    naive(lent, deletions(text))
    independent, lent.cost.forward_tokens = lent.cost.forward_tokens, 0
    variant_log_likelihoods(lent, text, deletions(text))
    assert independent / lent.cost.forward_tokens > 1.8


def test_a_model_that_forgets_is_read_the_plain_way(tmp_path: Path) -> None:
    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, sliding_window=8, max_position_embeddings=64, initializer_range=0.5,
        )  # fmt: skip
        MistralForCausalLM(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    lent = load_causal(str(tmp_path), Context(seeds={}, scratch=tmp_path))
    text = np.random.default_rng(0).integers(5, 250, size=30).tolist()
    assert variant_log_likelihoods(lent, text, deletions(text)) == pytest.approx(
        naive(lent, deletions(text)), abs=TOLERANCE
    )
