"""What could stand in the place of a suspected token: words of clean programs that an n-gram model or a masked model finds fitting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.languages import Leaf, parse
from bench.models.masked import MaskedModel
from bench.ngram import NgramModel
from bench.samples import Sample
from defenses.screening.deleting import Source, frequent, spelled

WORDS = 40
"""Clean words of one grammatical type that an n-gram model chooses from: the most frequent."""
TOKENS = 20
"""Tokens that a masked model proposes; most of them are no words."""


class Suggester(ABC):
    """Proposes replacements for leaves of a program."""

    @abstractmethod
    def words(self, program: Source, places: Sequence[int]) -> list[list[str]]:
        """For each of some leaves (by number), words to put in its place, best first; the leaf's own text is never among them."""


@dataclass(frozen=True)
class CodeModel:
    """An n-gram model of programs as sequences of leaf tokens.

    A leaf is its text, or its grammatical type (``identifier``, ``string_content`` …) where the text is rare: what is suggested
    are whole words, and most names around them are new to any clean set.
    """

    words: frozenset[str]
    ngrams: NgramModel

    @classmethod
    def fit(cls, programs: Sequence[Sequence[Leaf]], order: int) -> CodeModel:
        """Learn from programs, each given as its leaves."""
        words = frequent(programs)
        return cls(words, NgramModel.fit([spelled(leaves, words) for leaves in programs], order))


@dataclass(frozen=True)
class NgramSuggester(Suggester):
    """Words of the clean set, of the leaf's grammatical type, by the probability of the whole program with them.

    Attributes:
        model: trained on the clean set.
        by_type: grammatical type → its frequent words.
    """

    model: CodeModel
    by_type: Mapping[str, tuple[str, ...]]

    @classmethod
    def fit(cls, clean: Sequence[Sample], order: int) -> NgramSuggester:
        """Learn from the clean set."""
        programs = [parse(sample.language, text).leaves for sample in clean for text in sample.programs]
        model = CodeModel.fit(programs, order)
        counts: dict[str, Counter[str]] = {}
        for leaf in (leaf for leaves in programs for leaf in leaves if leaf.text in model.words):
            counts.setdefault(leaf.type, Counter())[leaf.text] += 1
        return cls(model, {kind: tuple(w for w, _ in seen.most_common(WORDS)) for kind, seen in counts.items()})

    def words(self, program: Source, places: Sequence[int]) -> list[list[str]]:
        """Each place with all others as they are."""
        sentence = spelled(program.leaves, self.model.words)
        return [self._ranked(sentence, place, program.leaves[place]) for place in places]

    def _ranked(self, sentence: list[str], place: int, leaf: Leaf) -> list[str]:
        # A word changes the predictions of itself and of the order - 1 words after it.
        reach = self.model.ngrams.order - 1
        near = sentence[max(0, place - reach) : place + reach + 1]
        at = place - max(0, place - reach)
        words = [word for word in self.by_type.get(leaf.type, ()) if word != leaf.text]
        # One pass for all words: a pass costs the same for one sentence as for forty.
        found = self.model.ngrams.log_probabilities_of([[*near[:at], w, *near[at + 1 :]] for w in words])
        score = {w: float(terms[at : len(near)].sum()) for w, terms in zip(words, found, strict=True)}
        return sorted(words, key=lambda word: (-score[word], word))


@dataclass(frozen=True)
class MaskedSuggester(Suggester):
    """The likeliest tokens under a masked model that are words of the same kind as what they replace."""

    model: MaskedModel

    def words(self, program: Source, places: Sequence[int]) -> list[list[str]]:
        """Each place hidden by itself; none where the model's window does not show it."""
        pieces = list(characters(program.text, [program.leaves[place] for place in places]))
        proposed = self.model.suggestions(program.text, pieces, TOKENS)
        own = [program.leaves[place].text for place in places]
        return [
            [word for word in dict.fromkeys(words) if word != text and _alike(word, text)]
            for words, text in zip(proposed, own, strict=True)
        ]


def characters(text: str, leaves: Sequence[Leaf]) -> Iterator[tuple[int, int]]:
    """Character spans of leaves."""
    data = text.encode()
    for leaf in leaves:
        start = len(data[: leaf.start].decode())
        yield start, start + len(leaf.text)


def _alike(word: str, other: str) -> bool:
    """Are both names, or both numbers?"""
    return word.isidentifier() if other.isidentifier() else word.isdigit() and other[:1].isdigit()
