"""Step 2: what a token does to the model's answers on clean programs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import ModelError
from bench.models.handles import WhiteBox
from bench.models.tokens import batches, pad
from bench.samples import Sample
from defenses.filter.codedetector.rows import Row, label_of, sides_of


class Insertion:
    """Clean samples into which a token can be put, each at a place drawn once: all tokens are tried at the same places."""

    def __init__(self, model: WhiteBox, samples: Sequence[Sample], rng: np.random.Generator) -> None:
        self._model = model
        self._sides = sides_of(model, samples)
        self._labels = np.array([label_of(sample) for sample in samples], dtype=np.int64)
        special = set(model.tokenizer.all_special_ids)
        self._bounds = [_inside(row, special) for row in self._sides[0]]
        self._places = [int(rng.integers(first, last + 1)) for first, last in self._bounds]
        # Tokens are put into the first program alone: the second ones are read once.
        self._others = [self._vectors(rows) for rows in self._sides[1:]]

    def accuracy(self, token: int | None = None) -> float:
        """The model's accuracy on the samples, as they are or with ``token`` put into their first program.

        Raises:
            ModelError: an output of the model is not finite.
        """
        rows = self._sides[0] if token is None else [self._with(i, token) for i in range(len(self._sides[0]))]
        predicted = self._predict(rows)
        return float((predicted == self._labels).mean())

    def _with(self, i: int, token: int) -> Row:
        row, place = self._sides[0][i], self._places[i]
        longer = [*row[:place], token, *row[place:]]
        if len(longer) > self._model.window:
            last = self._bounds[i][1]  # the last ordinary token falls out of the window, what closes the row stays
            del longer[last if place < last else last - 1]
        return longer

    def _predict(self, first: Sequence[Row]) -> NDArray[np.int64]:
        """The model's answers, given the first programs."""
        with torch.inference_mode():
            logits = self._model.network.scores(self._vectors(first), *self._others)
        if not torch.isfinite(logits).all():
            raise ModelError("codedetector: the victim's outputs are not finite. Its training has diverged.")
        predicted: NDArray[np.int64] = logits.argmax(dim=1).cpu().numpy()
        return predicted

    def _vectors(self, rows: Sequence[Row]) -> Tensor:
        """The pooled vector of each row, (n, d)."""
        model = self._model
        vectors = torch.empty((len(rows), model.network.width), device=model.device)
        with torch.inference_mode():
            for index in batches([len(row) for row in rows], model.settings.batch_tokens):
                padded = pad([rows[i] for i in index], model.pad_id).to(model.device)
                vectors[index] = model.network.vector(padded)
                model.cost.forward(padded.ids.numel())
        return vectors


def _inside(row: Row, special: set[int]) -> tuple[int, int]:
    """First and last place where a token can be put: behind what opens the row, before what closes it."""
    ordinary = [place for place, token in enumerate(row) if token not in special]
    if not ordinary:  # an empty program: between what opens and what closes it
        return len(row) // 2, len(row) // 2
    return ordinary[0], ordinary[-1] + 1
