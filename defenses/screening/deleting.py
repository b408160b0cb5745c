"""How much more naturally a program reads without each of its tokens: an n-gram model of the clean set, or any causal model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.languages import Leaf, parse
from bench.models.causal import CausalModel
from bench.models.prefixes import variant_log_likelihoods
from bench.ngram import NgramModel
from bench.samples import Edit, apply_edits
from defenses.filter.killbadcode import pieces

Floats = NDArray[np.float64]
RARE = 2
"""A leaf must be seen this often in the clean set to be a word of its own; others are words by their grammatical type."""


@dataclass(frozen=True, slots=True)
class Source:
    """A program and its leaves."""

    text: str
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, language: str, text: str) -> Source:
        """Parse a program."""
        return cls(text, parse(language, text).leaves)


class Reader(ABC):
    """Something that finds programs more or less natural."""

    @abstractmethod
    def suspicions(self, programs: Sequence[Source]) -> list[Floats]:
        """By how much perplexity falls when a leaf is deleted, for each leaf of each program."""


@dataclass(frozen=True)
class NgramReader(Reader):
    """An n-gram model of programs as sequences of leaf tokens, names cut into subwords.

    A name is read as KillBadCode's pieces (``testo_init`` as ``testo``, ``_``, ``init``): most names in a program are new to
    any clean set, but most of their pieces are not, so that a piece that no clean name has is as unusual as it would be to a
    language model with a vocabulary of subwords. A leaf goes with all its pieces. Any other leaf is its text, or its grammatical
    type (``string_content``, ``number_literal`` …) where the text is rare: a rare literal reads like any other of its kind.

    Attributes:
        words: texts that the clean set has often enough.
        ngrams: trained on the pieces of the clean set.
    """

    words: frozenset[str]
    ngrams: NgramModel

    @classmethod
    def fit(cls, programs: Sequence[Sequence[Leaf]], order: int) -> NgramReader:
        """Learn from programs, each given as its leaves."""
        words = frequent(programs)
        return cls(words, NgramModel.fit([_flat(cut(leaves, words)) for leaves in programs], order))

    def suspicions(self, programs: Sequence[Source]) -> list[Floats]:
        """All deletions of all programs in one pass over what they touch."""
        cuts = [cut(program.leaves, self.words) for program in programs]
        sentences = [_flat(parts) for parts in cuts]
        widths = [[len(part) for part in parts] for parts in cuts]
        totals, without = self.ngrams.deletions(sentences, widths)
        leaves = np.array([len(parts) for parts in cuts], dtype=np.int64)
        lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
        # The end mark is a word too; a deletion leaves as many words fewer as the leaf has pieces.
        whole = np.repeat(np.exp(-totals / (lengths + 1)), leaves)
        left = np.repeat(lengths + 1, leaves) - np.array([w for row in widths for w in row], dtype=np.int64)
        shorter = np.exp(-without / np.maximum(left, 1))
        return np.split(whole - shorter, np.cumsum(leaves)[:-1]) if len(programs) else []


def frequent(programs: Sequence[Sequence[Leaf]]) -> frozenset[str]:
    """Texts of leaves that are words of their own."""
    seen = Counter(leaf.text for leaves in programs for leaf in leaves)
    return frozenset(text for text, count in seen.items() if count >= RARE)


def spelled(leaves: Sequence[Leaf], words: frozenset[str]) -> list[str]:
    """A program with its rare leaves as their grammatical types."""
    # The NUL keeps a type apart from a token that happens to be spelled like it.
    return [leaf.text if leaf.text in words else f"\0{leaf.type}" for leaf in leaves]


def cut(leaves: Sequence[Leaf], words: frozenset[str]) -> list[list[str]]:
    """A program as :class:`NgramReader` reads it: the pieces of each leaf, at least one."""
    whole = spelled(leaves, words)
    return [
        (pieces(leaf.text) or [word]) if leaf.type.endswith("identifier") else [word]
        for leaf, word in zip(leaves, whole, strict=True)
    ]


def _flat(parts: Sequence[Sequence[str]]) -> list[str]:
    return [piece for part in parts for piece in part]


@dataclass(frozen=True)
class CausalReader(Reader):
    """A causal language model that reads the program's text.

    Each leaf is deleted from the text as the defense would delete it, and the rest is tokenised anew. Of a program longer than
    the model's window only what the window shows is read: what lies behind it is nobody's suspect.
    """

    model: CausalModel

    def suspicions(self, programs: Sequence[Source]) -> list[Floats]:
        """One program after the other; what its variants share is read once."""
        return [self._of(program) for program in programs]

    def _of(self, program: Source) -> Floats:
        text, leaves = program.text, program.leaves
        if not leaves:
            return np.zeros(0)
        shown = _shown(self.model, text)
        read = [leaf for leaf in leaves if leaf.start < shown]
        variants = [apply_edits(text, deletions(text, [leaf], [True])) for leaf in read]
        rows = self.model.token_ids([text, *variants])
        room = None if self.model.window is None else self.model.window - 1
        lengths = np.array([max(len(row[:room]), 1) for row in rows], dtype=np.float64)
        scores = variant_log_likelihoods(self.model, rows[0], rows)
        perplexities = np.exp(-scores / lengths)
        found = np.zeros(len(leaves))
        found[: len(read)] = perplexities[0] - perplexities[1:]
        return found


def _shown(model: CausalModel, text: str) -> int:
    """The first byte of a text that the model's window does not show."""
    (encoding,) = model.encodings([text])
    room = len(encoding.offsets) if model.window is None else model.window - 1
    hidden = encoding.offsets[room:]
    return len(text[: hidden[0][0]].encode()) if hidden else len(text.encode())


def deletions(text: str, leaves: Sequence[Leaf], chosen: Sequence[bool], side: int = 0) -> list[Edit]:
    """Edits that delete leaves, and the blanks that would be left over.

    One blank stays between what was apart, and comes between neighbours that would grow together; line ends and indents stay.
    """
    data = text.encode()
    runs: list[tuple[int, int]] = []
    for leaf, delete in zip(leaves, chosen, strict=True):
        if delete and runs and not data[runs[-1][1] : leaf.start].strip(b" \t"):
            runs[-1] = (runs[-1][0], leaf.end)
        elif delete:
            runs.append((leaf.start, leaf.end))
    return [_deletion(data, start, end, side) for start, end in runs]


def _deletion(data: bytes, start: int, end: int, side: int) -> Edit:
    left, right = data[:start].rstrip(b" \t"), data[end:].lstrip(b" \t")
    alone = not left or left.endswith(b"\n")
    if right[:1] in (b"", b"\n", b"\r") and not alone:
        return Edit(len(left), end, "", side)
    if alone or len(left) < start:
        return Edit(start, len(data) - len(right), "", side)
    return Edit(start, end, " " if len(data) - len(right) == end else "", side)
