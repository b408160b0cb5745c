"""ONION: delete the tokens without which a program reads more naturally."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.languages import Leaf, parse
from bench.ngram import NgramModel
from bench.samples import Edit, Sample, edit_sample

Floats = NDArray[np.float64]
RARE = 2
"""A token must be seen this often in the clean set to be a word of its own; others are words by their grammatical type."""


@dataclass(frozen=True)
class CodeModel:
    """A language model of programs as sequences of leaf tokens.

    A leaf is its text, or its grammatical type (``identifier``, ``string_content`` …) where the text is rare: most names
    in a program are new to any clean set, and calling them all unknown would make every one of them suspicious.
    """

    words: frozenset[str]
    ngrams: NgramModel

    @classmethod
    def fit(cls, programs: Sequence[Sequence[Leaf]], order: int) -> CodeModel:
        """Learn from programs, each given as its leaves."""
        seen = Counter(leaf.text for leaves in programs for leaf in leaves)
        words = frozenset(text for text, count in seen.items() if count >= RARE)
        return cls(words, NgramModel.fit([_spell(leaves, words) for leaves in programs], order))

    def suspicions(self, leaves: Sequence[Leaf]) -> Floats:
        """By how much perplexity falls when a leaf is deleted, for each leaf; shape (n,)."""
        tokens = _spell(leaves, self.words)
        return self.ngrams.perplexity(tokens) - self.ngrams.perplexity_without_each(tokens)


def _spell(leaves: Sequence[Leaf], words: frozenset[str]) -> list[str]:
    # The NUL keeps a type apart from a token that happens to be spelled like it.
    return [leaf.text if leaf.text in words else f"\0{leaf.type}" for leaf in leaves]


@dataclass(frozen=True, kw_only=True)
class Onion(Screen):
    """Delete every token whose deletion lowers the program's perplexity by more than a threshold.

    Source: Qi et al., "ONION: A Simple and Effective Defense Against Textual Backdoor Attacks", EMNLP 2021: suspicion of
    token i is ``ppl(x) - ppl(x without i)``; all tokens above the threshold are deleted at once.

    What is a port: tokens are the leaves of the syntax tree without comments, instead of words between blanks (ports to
    code split at blanks, where ``foo(bar)`` is one word); the language model is an n-gram model (Kneser-Ney) trained on the
    clean set alone, instead of GPT-2, so that all deletions of a program cost as much as a few readings of it; and the
    threshold is set so that at most ``false_positive_rate`` of clean inputs are changed, where the paper tunes it on
    validation accuracy: the conformal quantile of the largest suspicion in each clean input, by models that have not seen
    it (``folds``-fold cross-fitting), but never below 0. A clean set too small to vouch for that rate (19 inputs for 5 %)
    deletes nothing.

    The rewritten program keeps its other tokens apart and keeps at least one; like the paper's, it need not parse.

    Attributes:
        clean: number of clean samples.
        order: of the n-grams.
        false_positive_rate: share of clean inputs that may be changed.
        folds: parts of the clean set for setting the threshold.
        threshold: a fixed threshold on suspicion instead (0 is what released re-implementations use).
    """

    name = "onion"
    summary = "deletes tokens that make the program read less naturally (n-gram language model)"
    paper = "Qi et al.: ONION: A Simple and Effective Defense Against Textual Backdoor Attacks. EMNLP 2021"

    clean: Annotated[int, Field(ge=1)] = 300
    order: Annotated[int, Field(ge=1)] = 4
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    folds: Annotated[int, Field(ge=2)] = 5
    threshold: float | None = None

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """``clean`` samples, no model."""
        return Needs(clean=self.clean)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Train the language model and set the threshold."""
        inputs = [
            [parse(sample.language, text).leaves for text in sample.programs]
            for sample in context.progress(known.clean, "onion: reading clean programs")
        ]
        model = CodeModel.fit([leaves for sides in inputs for leaves in sides], self.order)
        if self.threshold is not None:
            return FittedOnion(model, self.threshold)
        folds = fold_numbers([sample.group for sample in known.clean], self.folds)
        return FittedOnion(model, self._calibrate(inputs, folds))

    def _calibrate(self, inputs: Sequence[Sequence[Sequence[Leaf]]], folds: Sequence[int]) -> float:
        largest: list[float] = []
        for fold in sorted(set(folds)):
            rest = [leaves for sides, of in zip(inputs, folds, strict=True) if of != fold for leaves in sides]
            model = CodeModel.fit(rest, self.order)
            held_out = [sides for sides, of in zip(inputs, folds, strict=True) if of == fold]
            largest += [_largest([model.suspicions(leaves) for leaves in sides]) for sides in held_out]
        # Below 0 a deletion makes the program read less naturally, which is not what ONION deletes for.
        return max(conformal_threshold(largest, self.false_positive_rate), 0.0)


def fold_numbers(groups: Sequence[str], folds: int) -> list[int]:
    """The fold of each sample: whole groups together, as test inputs come from groups of their own.

    With fewer groups than folds the samples are dealt out one by one.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    if len(numbers) < folds:
        return [index % folds for index in range(len(groups))]
    return [numbers[group] % folds for group in groups]


def conformal_threshold(scores: Sequence[float], rate: float) -> float:
    """The value that a new score of the same kind exceeds with probability at most ``rate``; infinite with too few scores."""
    rank = math.ceil((len(scores) + 1) * (1 - rate) - 1e-9)
    return sorted(scores)[rank - 1] if rank <= len(scores) else math.inf


def _largest(suspicions: Sequence[Floats]) -> float:
    return max((float(s.max()) for s in suspicions if len(s)), default=0.0)


def deletions(text: str, leaves: Sequence[Leaf], chosen: Sequence[bool], side: int = 0) -> list[Edit]:
    """Edits that delete leaves; a blank is left where two neighbours would grow together."""
    data = text.encode()
    edits = []
    for leaf, delete in zip(leaves, chosen, strict=True):
        if delete:
            around = data[max(leaf.start - 1, 0) : leaf.start], data[leaf.end : leaf.end + 1]
            touching = all(byte and not byte.isspace() for byte in around)
            edits.append(Edit(leaf.start, leaf.end, " " if touching else "", side))
    return edits


@dataclass(frozen=True)
class FittedOnion(FittedScreen):
    """The language model and the threshold.

    Attributes:
        model: trained on the clean set.
        threshold: leaves above it are deleted; may be infinite.
    """

    model: CodeModel
    threshold: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rewritten where a token is above the threshold, else accepted. The score is the input's largest suspicion."""
        return [self._verdict(sample) for sample in inputs]

    def _verdict(self, sample: Sample) -> Verdict:
        edits: list[Edit] = []
        scores: list[Floats] = []
        for side, text in enumerate(sample.programs):
            leaves = parse(sample.language, text).leaves
            suspicions = self.model.suspicions(leaves)
            chosen = suspicions > self.threshold
            if len(chosen) and chosen.all():
                chosen[int(suspicions.argmin())] = False  # an empty program is no input
            edits += deletions(text, leaves, chosen.tolist(), side)
            scores.append(suspicions)
        if not edits:
            return Verdict(sample.id, Action.ACCEPT, _largest(scores))
        return Verdict(sample.id, Action.REWRITE, _largest(scores), edit_sample(sample, edits))
