"""How natural a program reads: its cross-entropy under an n-gram model of clean code, and where that lies in clean code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.languages import Leaf, parse
from bench.ngram import NgramModel

Floats = NDArray[np.float64]
RARE = 2
"""A token of fewer programs than this is spelled by its grammatical type: most names of a program are its own, and a new name
in itself is nothing unnatural."""
ORDER = 4


@dataclass(frozen=True)
class Naturalness:
    """An n-gram model of programs as sequences of leaf tokens (comments are none)."""

    language: str
    words: frozenset[str]
    ngrams: NgramModel

    @classmethod
    def fit(cls, language: str, programs: Sequence[str], order: int = ORDER) -> Naturalness:
        """Learn from clean programs."""
        leaves = [parse(language, text).leaves for text in programs]
        seen = Counter(text for program in leaves for text in {leaf.text for leaf in program})
        words = frozenset(text for text, count in seen.items() if count >= RARE)
        return cls(language, words, NgramModel.fit([_spelled(program, words) for program in leaves], order))

    def cross_entropy(self, text: str) -> float:
        """Bits for each token of a program, its end among them."""
        tokens = _spelled(parse(self.language, text).leaves, self.words)
        return float(-self.ngrams.log_probabilities(tokens).mean() / np.log(2))


def _spelled(leaves: Sequence[Leaf], words: frozenset[str]) -> list[str]:
    # NUL keeps a type apart from a token that happens to be spelled like it.
    return [leaf.text if leaf.text in words else f"\0{leaf.type}" for leaf in leaves]


def percentiles(values: Sequence[float], clean: Sequence[float]) -> Floats:
    """Share of the clean values below each value, in [0, 1]; an equal one counts half. Shape (len(values),).

    Raises:
        ValueError: there are no clean values.
    """
    if not len(clean):
        raise ValueError("a rank among no values is not defined")
    ordered = np.sort(np.asarray(clean, dtype=np.float64))
    wanted = np.asarray(values, dtype=np.float64)
    below = np.searchsorted(ordered, wanted, side="left")
    upto = np.searchsorted(ordered, wanted, side="right")
    return np.asarray((below + upto) / (2 * len(ordered)), dtype=np.float64)
