"""Masked language models, from any folder or hub name: how well a piece of a text fits its place, and what would fit better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from bench.context import Context, Cost
from bench.errors import ModelError
from bench.models.loading import load_language_model
from bench.models.network import positions_before
from bench.models.precision import lowered, restored
from bench.models.tokens import batches, pad

Floats = NDArray[np.float64]
Span = tuple[int, int]
"""First character of a piece of a text, and the one after its last."""

BATCH_TOKENS = 2048
"""Padded tokens in one batch: each has a row of logits as wide as the vocabulary."""
STRIDE = 8
"""Every so many pieces are hidden in one reading; the others are their context."""


class MaskedModel:
    """A masked language model and its tokenizer; no call changes it.

    Attributes:
        name: folder or hub name.
        network: in evaluation mode.
        tokenizer: fast, without truncation or padding state.
        device: where the network lies.
        cost: counters of the stage.
        mask: id of the mask token.
    """

    def __init__(
        self, name: str, network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, device: torch.device, cost: Cost
    ) -> None:
        if not isinstance(tokenizer.mask_token_id, int):
            raise ModelError(f"masked model {name!r}: its tokenizer names no mask token")
        try:
            positions_before(network.config)
        except ModelError as error:
            raise ModelError(f"masked model {name!r}: {error}") from error
        moved: Any = network.to(cast(Any, device)).eval()
        self.name, self.network, self.tokenizer = name, cast(PreTrainedModel, moved), tokenizer
        self.device, self.cost, self.mask = device, cost, tokenizer.mask_token_id

    @property
    def window(self) -> int | None:
        """Tokens that the model can read, special tokens included; ``None`` where positions are relative."""
        config = self.network.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is None:
            return None
        return int(positions) - positions_before(config)

    def surprises(self, text: str, pieces: Sequence[Span]) -> Floats:
        """Mean surprise (nats a token) at each piece of a text when its tokens are hidden, (len(pieces),).

        Every :data:`STRIDE`-th piece is hidden at a time. A piece that the window does not show has surprise 0.
        """
        encoding = self._encode(text)
        places = [self._places(encoding, piece) for piece in pieces]
        rows, hidden = [], []
        for first in range(min(STRIDE, len(pieces))):
            covered = [place for at in places[first::STRIDE] for place in at]
            if covered:
                row = np.array(encoding.ids[: self.window], dtype=np.int64)
                row[covered] = self.mask
                rows.append(row)
                hidden.append(covered)
        own = np.zeros(len(encoding.ids))
        for covered, logits in zip(hidden, self._logits(rows, hidden), strict=True):
            truth = torch.tensor([encoding.ids[place] for place in covered], device=logits.device)
            own[covered] = -logits.log_softmax(-1).gather(1, truth[:, None])[:, 0].to("cpu", torch.float64).numpy()
        return np.array([own[at].mean() if at else 0.0 for at in places])

    def suggestions(self, text: str, pieces: Sequence[Span], count: int) -> list[list[str]]:
        """What the model would write in the place of each piece: the texts of its ``count`` likeliest single tokens, best first.

        The piece is replaced by one mask; the others stay. A piece that the window does not show has no suggestion.
        """
        rows, hidden, index = [], [], []
        for number, piece in enumerate(pieces):
            encoding = self._encode(text)
            places = self._places(encoding, piece)
            if places:
                ids = encoding.ids[: self.window]
                rows.append(np.array([*ids[: places[0]], self.mask, *ids[places[-1] + 1 :]], dtype=np.int64))
                hidden.append([places[0]])
                index.append(number)
        found: list[list[str]] = [[] for _ in pieces]
        for number, logits in zip(index, self._logits(rows, hidden), strict=True):
            best = logits[0].topk(min(count, logits.shape[-1])).indices.tolist()
            found[number] = [str(self.tokenizer.decode([token])).strip() for token in best]
        return found

    def _encode(self, text: str) -> Encoding:
        return self.tokenizer.backend_tokenizer.encode(text)

    def _places(self, encoding: Encoding, piece: Span) -> list[int]:
        """The tokens that hold a part of a piece, as far as the window shows them."""
        offsets = list(enumerate(encoding.offsets))[: self.window]
        return [place for place, (start, end) in offsets if start < piece[1] and end > piece[0]]

    def _logits(self, rows: Sequence[NDArray[np.int64]], places: Sequence[Sequence[int]]) -> list[Tensor]:
        """Scores of the whole vocabulary at some places of each row, (places, V) each."""
        found: dict[int, Tensor] = {}
        pad_id = self.tokenizer.pad_token_id
        with torch.inference_mode():
            for index in batches([len(row) for row in rows], BATCH_TOKENS):
                tokens = pad([rows[i] for i in index], pad_id if isinstance(pad_id, int) else 0).to(self.device)
                network: Any = self.network
                with lowered(self.device):
                    logits = restored(network(input_ids=tokens.ids, attention_mask=tokens.mask).logits)
                self.cost.forward(tokens.ids.numel())
                found.update((i, logits[row][list(places[i])]) for row, i in enumerate(index))
        if not all(torch.isfinite(scores).all() for scores in found.values()):
            raise ModelError(f"masked model {self.name!r} gives scores that are not finite")
        return [found[i] for i in range(len(rows))]


def load_masked(name: str, context: Context, *, revision: str | None = None) -> MaskedModel:
    """A masked language model from a local folder, or by hub name (``revision`` must pin it).

    Raises:
        ModelError: it does not load, it is no masked model, it has no weights as safetensors, or its configuration lacks what its
            positions are counted from.
    """
    network, tokenizer = load_language_model(name, revision, AutoModelForMaskedLM, _is_masked, "masked language model")
    return MaskedModel(name, network, tokenizer, context.device, context.cost)


def _is_masked(config: PretrainedConfig) -> bool:
    return type(config) in AutoModelForMaskedLM._model_mapping and not config.is_encoder_decoder
