"""Low-rank adapters (LoRA): trained in place of an encoder's weights, then merged into them.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; the layers are those of ``peft``.

::

    fit: copy the model ─► adapters beside chosen linear layers, all else of the encoder frozen ─► train adapters and head ─► merge

A model whose settings hold ``lora`` is trained so by every fit of the harness's trainer that trains all parameters: the victim's, the
reference's, and a repair's fine-tuning, which thus costs the memory that the victim's training cost. Each fit starts from new adapters
(their product is zero) and ends by merging them, so what is stored, inverted, pruned or screened is an ordinary model with ordinary
weights, and safetensors alone hold it. The price is stated here: a method with a training loop of its own (ANP's masks, I-BAU,
the ``encoder`` attack) reaches all merged weights, and no defense can look at, or drop, the adapters alone.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bench.errors import ConfigError, ModelError, suggest
from bench.models.settings import LoraSettings

TARGETS: Mapping[str, Sequence[str]] = {
    "bert": ("query", "value"),
    "roberta": ("query", "value"),
    "electra": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "t5": ("q", "v"),
    "bart": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "gpt_bigcode": ("c_attn",),
    "codegen": ("qkv_proj",),
    "starcoder2": ("q_proj", "v_proj"),
    "llama": ("q_proj", "v_proj"),
    "mistral": ("q_proj", "v_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("q_proj", "v_proj"),
}
"""By ``model_type``: the projections to queries and values (the paper's choice under one budget, section 7.1), or the layer that
holds both where they are one."""

NAME = "default"


def peft_version() -> str:
    """The version of ``peft``, on which the numbers of an adapted model depend.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.metadata.version("peft")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "a model with 'lora' needs an optional package: pip install 'codebackdoorbench[lora]'"
        ) from None


class Adapters:
    """Adapters beside linear layers of an encoder, in place. Until :meth:`merge` the encoder's own weights are frozen.

    Args:
        encoder: changed: the chosen layers get adapters, and nothing but these requires gradients.
        settings: rank, scale, dropout and targets.
        seed: of the adapters' first weights; the global generator is left as it was.

    Attributes:
        trained: number of the adapters' weights.
        layers: names of the adapted layers within the encoder.

    Raises:
        ConfigError: ``peft`` is not installed.
        ModelError: no layer of the encoder has such a name, or ``auto`` knows no names for its architecture.
    """

    def __init__(self, encoder: PreTrainedModel, settings: LoraSettings, seed: int) -> None:
        peft_version()
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        self.layers = chosen(encoder, settings)
        self._asked = [p for p in encoder.parameters() if p.requires_grad]
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=cast(int, settings.alpha),  # peft divides by it and asks for no whole number
            lora_dropout=settings.dropout,
            target_modules=self.layers,
            fan_in_fan_out=isinstance(encoder.get_submodule(self.layers[0]), Conv1D),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._tuner: Any = LoraModel(encoder, config, NAME)
        self.trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)

    def merge(self) -> None:
        """Add each adapter's product to its layer's weight and take the adapter away; the encoder trains as before again."""
        self._tuner.merge_and_unload()
        for parameter in self._asked:
            parameter.requires_grad_(True)


def chosen(encoder: PreTrainedModel, settings: LoraSettings) -> list[str]:
    """Full names of the layers that get an adapter, in the encoder's order.

    Raises:
        ModelError: as :class:`Adapters`.
    """
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    kind = encoder.config.model_type
    ends = sorted({name.rpartition(".")[2] for name in linear})
    targets = settings.targets
    if targets == "auto":
        if kind not in TARGETS:
            raise ModelError(
                f"lora: no layers are known for the architecture {kind!r}; name some in 'targets'. There is: {', '.join(ends)}."
            )
        targets = tuple(TARGETS[kind])
    for target in targets:
        if not any(_is(name, target) for name in linear):
            raise ModelError(
                f"lora: no linear layer of this {kind!r} model is called {target!r}.{suggest(target, ends)}"
            )
    return [name for name in linear if any(_is(name, target) for target in targets)]


def _is(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
