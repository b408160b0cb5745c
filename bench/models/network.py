"""One network for the three kinds of task: an encoder, a pooling, and a head."""

from __future__ import annotations

import inspect
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from bench.contracts import TaskKind
from bench.errors import ModelError
from bench.models.precision import lowered, restored
from bench.models.tokens import Tokens

# Their position table starts after the padding index, and a model that is given embeddings would count padding as positions.
OFFSET_POSITIONS = frozenset({"roberta", "camembert", "xlm-roberta", "longformer", "mpnet", "data2vec-text"})


def positions_before(config: PretrainedConfig) -> int:
    """How many rows of a model's position table lie in front of the first token's; 0 but for RoBERTa and its kin.

    Raises:
        ModelError: the configuration does not name the padding token after which they are counted.
    """
    if config.model_type not in OFFSET_POSITIONS:
        return 0
    pad_id = getattr(config, "pad_token_id", None)
    if pad_id is None:
        raise ModelError(
            f"a {config.model_type!r} model counts its positions from its padding token on, and its configuration has pad_token_id "
            "null: set pad_token_id in its config.json to the number of its padding token (1 in the published ones)"
        )
    return int(pad_id) + 1


class Head(nn.Module):
    """Dropout, a tanh layer and the class scores: (n, width) -> (n, classes). The published head of CodeBERT and its kin."""

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        """Class scores of pooled vectors."""
        hidden = torch.tanh(self.inner(self.dropout(vectors)))
        return cast(Tensor, self.outer(self.dropout(hidden)))


class CodeNetwork(nn.Module):
    """Encoder + head for one task kind.

    Classification scores one program vector; pairs joins two (each program is encoded on its own); search is a bi-encoder
    with shared weights and no head.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        kind: TaskKind,
        classes: int,
        *,
        pooling: Literal["first", "mean", "last"],
        pair_head: Literal["difference", "concat"] = "difference",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = kind
        self.pooling = pooling
        self.pair_head = pair_head
        self.width = int(encoder.config.hidden_size)
        joined = {"difference": 4, "concat": 2}[pair_head] if kind is TaskKind.PAIRS else 1
        self.head = None if kind is TaskKind.SEARCH else Head(joined * self.width, self.width, classes, dropout)

    @property
    def embedding(self) -> nn.Embedding:
        """The input embedding; its weight is (V, d)."""
        return cast(nn.Embedding, self.encoder.get_input_embeddings())

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the head; empty for search."""
        return [] if self.head is None else list(self.head.parameters())

    def hidden_states(self, tokens: Tokens, layer: int = -1) -> Tensor:
        """Token vectors (n, L, d) of one layer: 0 is the embedding output, -1 the last layer.

        For an encoder-decoder these are the decoder's (fed with the input shifted right), as its published classifiers do.
        """
        if layer != -1:
            return self.layers(tokens)[layer]
        return restored(self._encode(tokens).last_hidden_state)

    def layers(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """Token vectors (n, L, d) of every layer, as :meth:`hidden_states` numbers them."""
        output = self._encode(tokens, output_hidden_states=True)
        states = cast(tuple[Tensor, ...], output.decoder_hidden_states if self._decodes else output.hidden_states)
        return tuple(map(restored, states))

    def _encode(self, tokens: Tokens, **more: Any) -> Any:
        with lowered(tokens.ids.device):
            return self.encoder(**self._inputs(tokens), **more)

    @property
    def _decodes(self) -> bool:
        return bool(self.encoder.config.is_encoder_decoder) and _has_decoder(self.encoder)

    def _inputs(self, tokens: Tokens) -> dict[str, Any]:
        config = self.encoder.config
        inputs: dict[str, Any] = {"attention_mask": tokens.mask}
        if tokens.embeds is None:
            inputs["input_ids"] = tokens.ids
        else:
            inputs["inputs_embeds"] = tokens.embeds
        before = positions_before(config)
        if before:
            inputs["position_ids"] = tokens.mask.cumsum(1) * tokens.mask + (before - 1)
        if self._decodes:
            inputs["decoder_attention_mask"] = tokens.mask
            inputs["use_cache"] = False
            start = torch.full_like(tokens.ids[:, :1], int(config.decoder_start_token_id or config.pad_token_id or 0))
            if tokens.embeds is None:
                inputs["decoder_input_ids"] = torch.cat([start, tokens.ids[:, :-1]], dim=1)
            else:
                inputs["decoder_inputs_embeds"] = torch.cat([self.embedding(start), tokens.embeds[:, :-1]], dim=1)
        return inputs

    def pool(self, states: Tensor, mask: Tensor, pooling: Literal["first", "mean", "last"] | None = None) -> Tensor:
        """(n, L, d) -> (n, d), over the real tokens."""
        pooling = pooling or self.pooling
        if pooling == "first":
            return states[:, 0]
        if pooling == "last":
            last = mask.sum(1) - 1
            return states[torch.arange(len(states), device=states.device), last]
        weights = mask.to(states.dtype)
        return torch.einsum("nld,nl->nd", states, weights) / weights.sum(1, keepdim=True)

    def vector(self, tokens: Tokens) -> Tensor:
        """Pooled vectors (n, d) of programs or queries; differentiable in ``tokens.embeds`` when given."""
        return self.pool(self.hidden_states(tokens), tokens.mask)

    def join(self, *vectors: Tensor) -> Tensor:
        """What the head sees: one vector for classification; two joined as ``pair_head`` says for pairs."""
        if self.kind is not TaskKind.PAIRS:
            (only,) = vectors
            return only
        first, second = vectors
        if self.pair_head == "concat":
            return torch.cat([first, second], dim=1)
        return torch.cat([first, second, (first - second).abs(), first * second], dim=1)

    def logits(self, *sides: Tokens) -> Tensor:
        """Class scores (n, classes): one side for classification, two for pairs.

        Raises:
            TypeError: the task is code search, which ranks and has no classes, or the number of sides is wrong.
        """
        return self.scores(*(self.vector(side) for side in sides))

    def scores(self, *vectors: Tensor) -> Tensor:
        """:meth:`logits` from pooled vectors."""
        if self.head is None:
            raise TypeError("a code search network has no classes; use vector() and similarity()")
        expected = 2 if self.kind is TaskKind.PAIRS else 1
        if len(vectors) != expected:
            raise TypeError(f"a {self.kind.value} network scores {expected} program(s) a sample, got {len(vectors)}")
        return cast(Tensor, self.head(self.join(*vectors)))

    def similarity(self, queries: Tensor, programs: Tensor) -> Tensor:
        """Cosines (n, m) of query vectors (n, d) and program vectors (m, d)."""
        return functional.normalize(queries, dim=1) @ functional.normalize(programs, dim=1).T

    def forward(self, *sides: Tokens) -> Tensor:
        """Same as :meth:`logits`, or the cosines of queries (first side) and programs (second) for search."""
        if self.kind is TaskKind.SEARCH:
            queries, programs = sides
            return self.similarity(self.vector(queries), self.vector(programs))
        return self.logits(*sides)


def _has_decoder(encoder: PreTrainedModel) -> bool:
    return "decoder_input_ids" in inspect.signature(encoder.forward).parameters
