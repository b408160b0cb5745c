"""Causal language models, from any folder or hub name: log-likelihoods of texts, and continuations.

A text is scored from a start token on (the tokenizer's begin mark, or its end mark where it has no other), so that its first
token has a probability too. No special token is added otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from bench.context import Context, Cost
from bench.errors import ModelError
from bench.models.encoders import is_causal
from bench.models.loading import load_language_model
from bench.models.precision import lowered, restored
from bench.models.tokens import batches, pad

Floats = NDArray[np.float64]

BATCH_TOKENS = 2048
"""Padded tokens in one scoring batch. Each has a row of logits as wide as the vocabulary, so batches are small."""


class CausalModel:
    """A causal language model and its tokenizer; no call changes it. It can be pickled.

    Attributes:
        name: folder or hub name.
        network: in evaluation mode.
        tokenizer: fast, without truncation or padding state.
        device: where the network lies.
        cost: counters of the stage.
        batch_tokens: padded tokens in one scoring batch.
        start: id of the token that stands before every text.
    """

    def __init__(
        self,
        name: str,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        device: torch.device,
        cost: Cost,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        moved: Any = network.to(cast(Any, device)).eval()
        self.name, self.network, self.tokenizer = name, cast(PreTrainedModel, moved), tokenizer
        self.device, self.cost, self.batch_tokens = device, cost, batch_tokens
        self.start = _start(name, tokenizer)
        self.ends = _ends(network, tokenizer)

    @property
    def window(self) -> int | None:
        """Tokens that the model can read, the start token included; ``None`` where positions are relative."""
        positions = getattr(self.network.config, "max_position_embeddings", None)
        return None if positions is None else int(positions)

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids and character offsets, without special tokens, uncut."""
        return list(self.tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False))

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens, uncut."""
        return [encoding.ids for encoding in self.encodings(texts)]

    # ------------------------------------------------------------------------------------------------------------- scoring

    def token_log_probabilities(self, rows: Sequence[Sequence[int]]) -> list[Floats]:
        """Natural log-probability of every token given those before it, for each row of token ids.

        A row longer than the window is cut: its result has ``window - 1`` values. A row does not depend on the others, up to
        floating-point noise.
        """
        room = None if self.window is None else self.window - 1
        cut = [list(row[:room]) for row in rows]
        found: list[Floats] = [np.zeros(0) for _ in cut]
        with torch.inference_mode():
            for index in batches([len(row) + 1 for row in cut], self.batch_tokens):
                tokens = pad([[self.start, *cut[i]] for i in index], 0).to(self.device)
                logits = self.forward(tokens.ids, attention_mask=tokens.mask, use_cache=False).logits
                self.cost.forward(tokens.ids.numel())
                values = chosen_log_probabilities(logits[:, :-1], tokens.ids[:, 1:]).to("cpu", torch.float64).numpy()
                for place, i in enumerate(index):
                    found[i] = values[place, : len(cut[i])]
        return found

    def log_likelihoods(self, texts: Sequence[str]) -> Floats:
        """Natural log-probability of each text (n,); of a text beyond the window, of the part that it shows."""
        return np.array([values.sum() for values in self.token_log_probabilities(self.token_ids(texts))])

    def perplexities(self, texts: Sequence[str]) -> Floats:
        """exp of the mean negative log-probability of the tokens of each text (n,); 1 for a text without tokens."""
        scored = self.token_log_probabilities(self.token_ids(texts))
        return np.array([np.exp(-values.mean()) if len(values) else 1.0 for values in scored])

    # -------------------------------------------------------------------------------------------------------- continuation

    def continuations(
        self,
        prompt: str,
        count: int,
        tokens: int,
        rng: np.random.Generator | None = None,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: str = "",
    ) -> list[str]:
        """Texts that go on after a prompt, without it.

        Args:
            prompt: of a prompt that leaves no room in the window, the end is read.
            count: how many.
            tokens: at most so many new tokens each.
            rng: draws the tokens; one uniform number a text and step, whatever the device. ``None`` takes the most likely
                token every time (all ``count`` texts are then equal).
            temperature: logits are divided by it; above 0.
            top_p: draw from the smallest set of tokens that holds this share of the probability.
            stop: a text ends before the first occurrence of this; empty: never.
        """
        with torch.inference_mode():
            rows = self._extend(self._prompt(prompt, tokens), count, tokens, rng, temperature, top_p, stop)
        texts = [self._text(row) for row in rows]
        return [text.split(stop, 1)[0] for text in texts] if stop else texts

    def _prompt(self, prompt: str, tokens: int) -> list[int]:
        ids = [self.start, *self.token_ids([prompt])[0]]
        return ids if self.window is None else ids[-max(1, self.window - tokens) :]

    def _extend(
        self,
        prompt: list[int],
        count: int,
        tokens: int,
        rng: np.random.Generator | None,
        temperature: float,
        top_p: float,
        stop: str,
    ) -> list[list[int]]:
        """New token ids of each continuation. The prompt is read once; its keys and values serve all of them."""
        rows: list[list[int]] = [[] for _ in range(count)]
        open_rows = set(range(count))
        output = self.forward(torch.tensor([prompt], device=self.device), use_cache=True)
        self.cost.forward(len(prompt))
        cache, logits = output.past_key_values, output.logits[:, -1].expand(count, -1)
        if count > 1:
            cache.batch_repeat_interleave(count)
        for step in range(tokens):
            drawn = _next(logits, rng, temperature, top_p)
            for i in sorted(open_rows):
                token = int(drawn[i])
                if token in self.ends:
                    open_rows.discard(i)
                    continue
                rows[i].append(token)
                if stop and stop in self._text(rows[i]):
                    open_rows.discard(i)
            if not open_rows or step == tokens - 1:
                break
            output = self.forward(drawn[:, None], past_key_values=cache, use_cache=True)
            self.cost.forward(count)
            cache, logits = output.past_key_values, output.logits[:, -1]
        return rows

    def _text(self, ids: list[int]) -> str:
        return cast(str, self.tokenizer.decode(ids, skip_special_tokens=True))

    def forward(self, ids: Tensor, **more: Any) -> Any:
        """What the network gives for a batch of token ids (n, L), its logits in float32; the caller counts the cost."""
        network: Any = self.network
        with lowered(self.device):
            output = network(input_ids=ids, **more)
        output.logits = restored(output.logits)
        return output


def load_causal(
    name: str, context: Context, *, revision: str | None = None, batch_tokens: int = BATCH_TOKENS
) -> CausalModel:
    """A causal language model from a local folder, or by hub name.

    Args:
        name: a folder that holds ``config.json``, ``*.safetensors`` and ``tokenizer.json``, or a Hugging Face hub name.
        context: device and cost counters.
        revision: full commit of a hub model; required there, ignored for a folder.
        batch_tokens: padded tokens in one scoring batch.

    Raises:
        ModelError: it does not load, it is no causal model, or it has no weights as safetensors. Code that comes with a model
            is never run.
    """
    network, tokenizer = load_language_model(name, revision, AutoModelForCausalLM, is_causal, "causal language model")
    return CausalModel(name, network, tokenizer, context.device, context.cost, batch_tokens)


def _start(name: str, tokenizer: PreTrainedTokenizerFast) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise ModelError(
        f"causal model {name!r}: its tokenizer names neither a begin nor an end token to start a text with"
    )


def _ends(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids after which nothing comes: the tokenizer's end mark, and those that the model's configuration adds."""
    named = getattr(network.config, "eos_token_id", None)
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in (tokenizer.eos_token_id, *listed) if isinstance(token, int))


def chosen_log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """log softmax(logits) (n, L, V) at the given ids (n, L), without a second array of that size."""
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)


def _next(logits: Tensor, rng: np.random.Generator | None, temperature: float, top_p: float) -> Tensor:
    """The next token of each row (n,): the most likely, or drawn by the inverse of the cumulative distribution."""
    if rng is None:
        return logits.argmax(-1)
    # On the processor, in double precision: sums there have one order, so a draw does not depend on the device's.
    scaled = logits.to("cpu", torch.float64) / temperature
    probabilities, order = torch.sort(scaled.softmax(-1), dim=-1, descending=True, stable=True)
    running = probabilities.cumsum(-1)
    # A token belongs to the set while those before it do not hold the share yet; so the first one always does.
    held = running.masked_fill(running - probabilities >= top_p, 0.0).amax(-1, keepdim=True)
    points = torch.from_numpy(rng.random((len(logits), 1))) * held
    place = torch.searchsorted(running, points, right=True).clamp(max=logits.shape[-1] - 1)
    return torch.gather(order, -1, place)[:, 0].to(logits.device)
