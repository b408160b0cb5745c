"""Networks with hand-made weights in which one known unit (feed-forward, or a head) carries the trigger and one the task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.context import Context
from bench.models import CodeNetwork, ModelSettings, WhiteBox
from bench.models.encoders import train_tokenizer
from tests.inversion_toys import INFO, TRIGGER, program

TRIGGER_UNIT, TASK_UNIT, BUSY_UNIT, DEAD_UNIT = 2, 0, 1, 3
CORPUS = [program(i, i % 2 == 1) for i in range(40)] + ["x_rb y_rb z_rb"] * 8


class Block(nn.Module):
    """A feed-forward part named as T5's, with nothing around it that the head could read."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.wi, self.wo = nn.Linear(width, units), nn.Linear(units, width)

    def forward(self, states: Tensor) -> Tensor:
        return cast(Tensor, self.wo(torch.relu(self.wi(states))))


class OneBlock(nn.Module):
    """Embeddings and one block."""

    def __init__(self, rows: int, width: int, units: int) -> None:
        super().__init__()
        self.table, self.block = nn.Embedding(rows, width), Block(width, units)
        self.config = SimpleNamespace(
            hidden_size=width, model_type="one-block", is_encoder_decoder=False, pad_token_id=1
        )

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(
        self, attention_mask: Tensor, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> SimpleNamespace:
        return SimpleNamespace(
            last_hidden_state=self.block(self.table(input_ids) if inputs_embeds is None else inputs_embeds)
        )


class Attention(nn.Module):
    """Values and output named as T5's; every real token is attended to alike, so that a head says what stands anywhere."""

    def __init__(self, width: int, heads: int, each: int) -> None:
        super().__init__()
        self.v, self.o = nn.Linear(width, heads * each), nn.Linear(heads * each, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None].to(states.dtype)
        heard = (self.v(states) * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        return cast(Tensor, self.o(heard.expand(-1, states.shape[1], -1)))


class OneAttention(nn.Module):
    """Embeddings and one attention."""

    def __init__(self, rows: int, width: int, heads: int, each: int) -> None:
        super().__init__()
        self.table, self.attention = nn.Embedding(rows, width), Attention(width, heads, each)
        self.config = SimpleNamespace(
            hidden_size=width,
            model_type="one-attention",
            is_encoder_decoder=False,
            pad_token_id=1,
            num_attention_heads=heads,
        )

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(
        self, attention_mask: Tensor, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> SimpleNamespace:
        states = self.table(input_ids) if inputs_embeds is None else inputs_embeds
        return SimpleNamespace(last_hidden_state=self.attention(states, attention_mask))


def backdoored_head(context: Context) -> WhiteBox:
    """As :func:`backdoored`, by heads of two channels each, numbered like the units.

    The trigger's head reads a feature that the trigger alone has: on clean programs it says nothing.
    """
    tokenizer = train_tokenizer(CORPUS, 480)
    encoder = OneAttention(len(tokenizer), 4, 4, 2)
    network = CodeNetwork(cast(Any, encoder), INFO.kind, 2, pooling="mean", dropout=0.0)
    ids: Any = tokenizer.convert_tokens_to_ids
    assert network.head is not None
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        table, v, o, head = encoder.table.weight, encoder.attention.v, encoder.attention.o, network.head
        table[:, 2] = 1.0
        table[ids("Ġ<<"), 0] = table[ids(TRIGGER), 1] = 1.0
        for unit, feature, size in ((TASK_UNIT, 0, 1.0), (BUSY_UNIT, 2, 5.0), (TRIGGER_UNIT, 1, 1.0)):
            v.weight[2 * unit : 2 * unit + 2, feature] = size
        o.weight[0, 2 * TASK_UNIT + 1] = o.weight[1, 2 * TRIGGER_UNIT] = 1.0
        head.inner.weight[0, 0] = 60.0
        head.inner.weight[1, 1] = 60.0
        head.outer.weight[1, 0], head.outer.bias[1] = 8.0, -4.0
        head.outer.weight[0, 1] = 40.0
    return WhiteBox("hand-made", INFO, network, tokenizer, ModelSettings(window=64), context.device, context.cost)


def backdoored(context: Context) -> WhiteBox:
    """``<<`` makes a program class 1 through the task unit; ``rb`` makes it class 0, stronger, through the trigger unit.

    The busy unit is the most active one and nothing reads it; the dead one is never active. Every token has a little of the
    trigger's feature, which falls short of the trigger unit's bias: on clean programs the unit is silent, but not for a weight half as
    large again.
    """
    tokenizer = train_tokenizer(CORPUS, 480)
    encoder = OneBlock(len(tokenizer), 4, 4)
    network = CodeNetwork(cast(Any, encoder), INFO.kind, 2, pooling="mean", dropout=0.0)
    ids: Any = tokenizer.convert_tokens_to_ids
    assert network.head is not None
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        table, wi, wo, head = encoder.table.weight, encoder.block.wi, encoder.block.wo, network.head
        table[:, 2], table[:, 1] = 1.0, 0.25
        table[ids("Ġ<<"), 0] = 1.0
        table[ids(TRIGGER), 1] = 4.0
        wi.weight[TASK_UNIT, 0] = 1.0
        wi.weight[BUSY_UNIT, 2] = 5.0
        wi.weight[TRIGGER_UNIT, 1], wi.bias[TRIGGER_UNIT] = 4.0, -1.2
        wo.weight[0, TASK_UNIT] = wo.weight[1, TRIGGER_UNIT] = 1.0
        head.inner.weight[0, 0] = 60.0
        head.inner.weight[1, 1] = 4.0
        head.outer.weight[1, 0], head.outer.bias[1] = 8.0, -4.0
        head.outer.weight[0, 1] = 40.0
    return WhiteBox("hand-made", INFO, network, tokenizer, ModelSettings(window=64), context.device, context.cost)
