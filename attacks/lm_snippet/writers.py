"""Who continues a program: an n-gram model of code, or a causal language model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.languages import Boundary, Program, parse
from bench.models.causal import CausalModel
from bench.ngram import BEGIN, END, UNKNOWN, NgramModel

LINE_END = "\n"
READ = 5000
"""Programs that an n-gram model is trained on at most."""
RARE = 2
"""A token must be seen this often to be a word that can be written."""
AT_ONCE = 8
"""Drafts that a causal model writes together."""


class Writer(ABC):
    """Writes what comes after a prefix at a place of a program. Picklable; what it writes depends on the generator alone."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For people."""

    @abstractmethod
    def drafts(
        self, program: Program, boundary: Boundary, prefix: str, longest: int, tries: int, rng: np.random.Generator
    ) -> Iterator[str]:
        """At most ``tries`` continuations of the prefix, each to the end of its line or a little further, without the prefix.

        A draft begins with the blank that the prefix may end with. It may be anything: the caller judges.
        """


@dataclass(frozen=True, eq=False)
class NgramWriter(Writer):
    """Draws words one by one from an n-gram model of programs.

    A word is a token with the blank before it, if there is one, so that what is written looks as code does. The end of a
    line is a word too.

    Attributes:
        model: the n-gram model.
        vocabulary: its words, by number.
    """

    model: NgramModel
    vocabulary: tuple[str, ...]

    @classmethod
    def fit(cls, language: str, texts: Sequence[str], order: int) -> NgramWriter:
        """Learn from the first programs."""
        sentences = (words(parse(language, text)) for text in texts[:READ])
        model = NgramModel.fit(sentences, order, min_count=RARE)
        return cls(model, ("", "", "", *sorted(model.vocabulary, key=lambda word: model.vocabulary[word])))

    @property
    def name(self) -> str:
        """The order says which."""
        return f"a {self.model.order}-gram model of the training split"

    def drafts(
        self, program: Program, boundary: Boundary, prefix: str, longest: int, tries: int, rng: np.random.Generator
    ) -> Iterator[str]:
        """Each word is drawn from what follows the words before it, those of the program included."""
        before = words(parse(program.language.name, program.data[: boundary.start].decode()))
        begun = words(parse(program.language.name, prefix))
        context = self.model.encode([*before[-self.model.order :], LINE_END, *begun]).tolist()
        context = [BEGIN] * self.model.order + context
        for _ in range(tries):
            yield self._draft(context, longest, rng)

    def _draft(self, context: Sequence[int], longest: int, rng: np.random.Generator) -> str:
        reached, written = list(context), list[str]()
        for _ in range(longest):
            word = self.model.draw(reached, rng)
            if word in (END, UNKNOWN) or self.vocabulary[word] == LINE_END:
                break
            reached.append(word)
            written.append(self.vocabulary[word])
            if written[-1].endswith(";"):
                break
        return "".join(written)


def words(program: Program) -> list[str]:
    """A program's tokens without comments, each with the blank before it, and the ends of its lines."""
    found: list[str] = []
    reached = 0
    for leaf in program.leaves:
        gap = program.data[reached : leaf.start]
        reached = leaf.end
        if b"\n" in gap and found:
            found += [LINE_END, leaf.text]
        else:
            found.append(f" {leaf.text}" if gap and found else leaf.text)
    return found


@dataclass(frozen=True, eq=False)
class CausalWriter(Writer):
    """Asks a causal language model to go on after the program's text up to the place and the prefix."""

    model: CausalModel

    @property
    def name(self) -> str:
        """The model's own."""
        return self.model.name

    def drafts(
        self, program: Program, boundary: Boundary, prefix: str, longest: int, tries: int, rng: np.random.Generator
    ) -> Iterator[str]:
        """Sampled at temperature 1, some at a time."""
        edit = program.insert(boundary, prefix.rstrip())
        begun = edit.replacement[: edit.replacement.index(prefix.rstrip()) + len(prefix.rstrip())]
        prompt = program.data[: edit.start].decode() + begun
        left = tries
        while left:
            count = min(AT_ONCE, left)
            yield from self.model.continuations(prompt, count, 2 * longest, rng, stop=LINE_END)
            left -= count
