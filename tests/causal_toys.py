"""Tiny causal language models with random weights, saved as their makers would save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from bench.models.encoders import train_tokenizer

TEXTS = ("x = 1\n", "def f(a):\n    return a + 1\n", "", "value = value + 'é'\n" * 3)
BUILDERS = ("gpt2", "llama")


def tokenizer() -> PreTrainedTokenizerFast:
    made = train_tokenizer([*TEXTS, "for i in range(10):\n    total += i\n"] * 3, 300)
    made.backend_tokenizer.post_processor = None  # as causal models have it: nothing is added around a text
    return made


def save(kind: str, folder: Path, *, positions: int = 64, seed: int = 0) -> Path:
    """A randomly initialised model of a kind, as its maker would save it."""
    words = tokenizer()
    sizes: dict[str, Any] = {
        "vocab_size": len(words),
        "max_position_embeddings": positions,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any
        if kind == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, initializer_range=0.5, **sizes))
        elif kind == "llama":
            llama: dict[str, Any] = {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            }
            model = LlamaForCausalLM(LlamaConfig(initializer_range=0.5, **llama, **sizes))
        else:
            roberta: dict[str, Any] = {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            }
            model = RobertaForMaskedLM(RobertaConfig(**roberta, **sizes))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
