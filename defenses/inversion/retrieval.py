"""What an inversion minimises for code search: trigger and target word at once.

Source: EliBadCode (FSE 2025), Algorithm 2 of its online appendix: the mean over *all* pairs of queries with the target word and
programs with the trigger of the squared gap between their cosine and 1. The release encodes both anew for each of its
k x k combinations of candidates; here k triggers and k words are encoded once, and every combination comes from their vectors:
with unit vectors q_i and c_j,

    mean over i, j of (1 - q_i . c_j)^2  =  1 - 2 mean(q) . mean(c) + <Q'Q, C'C> / n^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from bench.models.handles import WhiteBox
from bench.models.tokens import Tokens, batches
from bench.samples import Sample
from defenses.inversion.objective import Floats, Objective, Part, Slope
from defenses.inversion.scoring import Scorer, Site


def query_sites(samples: Sequence[Sample], model: WhiteBox, size: int) -> list[Site]:
    """Queries with a hole of ``size`` tokens for the target word at their end, where it stands behind a space."""
    sites = []
    for encoding in model.query_encodings([s.query or "" for s in samples]):
        special = encoding.special_tokens_mask
        closing = special[::-1].index(0) if 0 in special else max(len(special) - 1, 0)
        end = len(special) - closing
        keep = max(min(end, model.query_window - closing - size), min(1, end))
        ids = tuple(encoding.ids)
        sites.append(Site(ids[:keep], ids[end:]))
    return sites


class TowardsWord(Objective):
    """Mean squared gap between 1 and the cosines of all queries with the word and all programs with the trigger."""

    def __init__(
        self, scorer: Scorer, programs: Sequence[Site], queries: Sequence[Site], parts: tuple[Part, Part]
    ) -> None:
        self.scorer = scorer
        self.sites = (list(programs), list(queries))
        self.parts = parts
        self.samples = len(programs)
        self.rows = scorer.model.network.embedding.weight.detach()
        self.cost = scorer.model.cost

    def encode(self, part: int, candidates: Sequence[Sequence[int]], samples: Sequence[int]) -> Floats:
        """Unit vectors (candidates, samples, width)."""
        rows = [self.sites[part][i].filled(candidate) for candidate in candidates for i in samples]
        return self.scorer.vectors(rows).reshape(len(candidates), len(samples), -1)

    def table(self, encoded: Sequence[Floats]) -> Floats:
        """Every combination of triggers and words: (triggers, words)."""
        programs, queries = encoded
        count = programs.shape[1]
        means = programs.mean(axis=1) @ queries.mean(axis=1).T
        spread = _grams(programs) @ _grams(queries).T / count**2
        table: Floats = 1 - 2 * means + spread
        return table

    def slope(self, embeddings: Sequence[Tensor]) -> Slope:
        """Vectors first, without a graph; then their gradients, carried back batch by batch, so that memory stays bounded."""
        units = [self._vectors(part, each) for part, each in enumerate(embeddings)]
        leaves = [unit.detach().requires_grad_(True) for unit in units]
        programs, queries = (torch.nn.functional.normalize(leaf, dim=1) for leaf in leaves)
        loss = (1 - queries @ programs.T).square().mean()
        wanted = torch.autograd.grad(loss, leaves)
        gradients = tuple(
            self._carried_back(part, each, want)
            for part, (each, want) in enumerate(zip(embeddings, wanted, strict=True))
        )
        encoded = tuple(each.detach().double().cpu().numpy()[None] for each in (programs, queries))
        return Slope(float(loss.detach()), gradients, encoded)

    def quiet(self) -> AbstractContextManager[None]:
        """The scorer in evaluation mode."""
        return self.scorer.quiet()

    def _batches(self, part: int, size: int) -> list[list[int]]:
        lengths = [len(site.before) + size + len(site.after) for site in self.sites[part]]
        return list(batches(lengths, self.scorer.batch_tokens))

    def _tokens(self, part: int, index: Sequence[int], embedding: Tensor) -> Tokens:
        return self.scorer.embedded([self.sites[part][i] for i in index], embedding)

    def _vectors(self, part: int, embedding: Tensor) -> Tensor:
        found = torch.empty(self.samples, self.scorer.model.network.width, device=self.scorer.model.device)

        def run(index: list[int]) -> Tensor:
            tokens = self._tokens(part, index, embedding)
            self.cost.forward(tokens.ids.numel())
            return self.scorer.model.network.vector(tokens).float()

        with torch.no_grad():
            for index in self._batches(part, len(embedding)):
                for own, vectors in self.scorer.halving(index, run):
                    found[own] = vectors
        return found

    def _carried_back(self, part: int, embedding: Tensor, wanted: Tensor) -> Tensor:
        total = torch.zeros_like(embedding)

        def run(index: list[int]) -> Tensor:
            soft = embedding.detach().requires_grad_(True)
            tokens = self._tokens(part, index, soft)
            vectors = self.scorer.model.network.vector(tokens)
            (gradient,) = torch.autograd.grad(vectors, soft, wanted[index].to(vectors.dtype))
            self.cost.forward(tokens.ids.numel())
            self.cost.backward(tokens.ids.numel())
            return gradient

        for index in self._batches(part, len(embedding)):
            for _, gradient in self.scorer.halving(index, run):
                total += gradient
        return total


def _grams(vectors: Floats) -> Floats:
    """V'V of each candidate, flattened: (candidates, width * width)."""
    grams: Floats = np.einsum("kni,knj->kij", vectors, vectors, optimize=True)
    return grams.reshape(len(vectors), -1)
