"""From text to token ids, with a window, and from byte spans to what that window shows."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast


class Window:
    """A tokenizer that cuts to a window.

    It works on its own copy of the fast tokenizer, since truncation is state there and a shared tokenizer must not carry any.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._size: int | None = None
        pad_id = tokenizer.pad_token_id
        self.pad_id = int(pad_id) if pad_id is not None else 0

    def _cut(self, window: int | None) -> Tokenizer:
        if window != self._size:
            if window is None:
                self._tokenizer.no_truncation()
            else:
                self._tokenizer.enable_truncation(max_length=window)
            self._size = window
        return self._tokenizer

    def ids(self, texts: Sequence[str], window: int) -> list[list[int]]:
        """Token ids of each text, special tokens included."""
        return [e.ids for e in self._cut(window).encode_batch_fast(list(texts))]

    def encodings(self, texts: Sequence[str], window: int | None) -> list[Encoding]:
        """Encodings with character offsets, special tokens included; uncut where ``window`` is ``None``."""
        return list(self._cut(window).encode_batch(list(texts)))

    def visible(self, text: str, start: int, end: int, window: int) -> bool:
        """Are all tokens of the bytes ``[start, end)`` inside the window?"""
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        encoding = self._cut(None).encode(text, add_special_tokens=False)
        dropped = encoding.offsets[max(0, window - special) :]
        if not dropped:
            return True
        # Tokens stand in the order of the text, so the window shows everything before the first token that it drops.
        # A character of several bytes can be split over tokens; each of them then has the whole character as its offsets.
        return end <= len(text[: dropped[0][0]].encode())
