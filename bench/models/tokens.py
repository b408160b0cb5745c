"""Token batches: padded to their longest row, and cut from a length-sorted order under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A padded batch of n token rows.

    Attributes:
        ids: long, (n, L).
        mask: long, (n, L); 1 on real tokens. Rows are padded on the right.
        embeds: float, (n, L, d), or ``None``. When given, the network reads these instead of looking ``ids`` up, so that
            gradients with respect to the input can be had.
    """

    ids: Tensor
    mask: Tensor
    embeds: Tensor | None = None

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str) -> Tokens:
        """The same batch on another device."""
        embeds = None if self.embeds is None else self.embeds.to(device)
        return Tokens(self.ids.to(device), self.mask.to(device), embeds)

    def rows(self, index: Tensor | Sequence[int] | slice) -> Tokens:
        """Some of the rows, as wide as the batch."""
        key = index if isinstance(index, slice) else torch.as_tensor(index, device=self.ids.device)
        return Tokens(self.ids[key], self.mask[key], None if self.embeds is None else self.embeds[key])


def pad(rows: Sequence[Sequence[int] | NDArray[np.int64]], pad_id: int) -> Tokens:
    """Rows of token ids padded to the longest of them; an empty row becomes one visible pad token."""
    rows = [row if len(row) else [pad_id] for row in rows]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(lengths.max(initial=1))
    mask = np.arange(width)[None, :] < lengths[:, None]
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    if len(rows):
        ids[mask] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return Tokens(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row indices in batches of similar length, longest first (so that lack of memory shows at once).

    A batch holds at most ``budget`` padded tokens, and at least one row.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
