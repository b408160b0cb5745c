"""ONION: delete the tokens without which a program reads more naturally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.errors import ModelError
from bench.models.causal import load_causal
from bench.models.folders import origin_of
from bench.samples import Edit, Sample, edit_sample
from defenses.screening.deleting import CausalReader, NgramReader, Reader, Source, deletions
from defenses.screening.thresholds import conformal_threshold, fold_numbers

Floats = NDArray[np.float64]
Programs = Sequence[Source]
"""The programs of one input."""


@dataclass(frozen=True, kw_only=True)
class Onion(Screen):
    """Delete every token whose deletion lowers the program's perplexity by more than a threshold.

    Source: Qi et al., "ONION: A Simple and Effective Defense Against Textual Backdoor Attacks", EMNLP 2021: suspicion of
    token i is ``ppl(x) - ppl(x without i)``; all tokens above the threshold are deleted at once.

    What is a port: tokens are the leaves of the syntax tree without comments, instead of words between blanks (ports to
    code split at blanks, where ``foo(bar)`` is one word). The language model is by default an n-gram model (Kneser-Ney) trained
    on the clean set alone, instead of GPT-2, so that all deletions of a program cost as much as a few readings of it. It reads
    names as subwords, as GPT-2 does, and a deletion takes all of a name's; of a literal that is rare in the clean set it knows the
    kind alone, so that a trigger inside a string goes unseen (:class:`defenses.screening.deleting.NgramReader`). ``model`` names any
    causal model instead (published: GPT-2; a port to code took CodeLlama-7B), which reads the program's text no further than its window.
    The threshold is set so that at most ``false_positive_rate`` of clean inputs are changed,
    where the paper tunes it on validation accuracy: the conformal quantile of the largest suspicion in each clean input, under
    an n-gram model by models that have not seen it (``folds``-fold cross-fitting), but never below 0. A clean set too small to
    vouch for that rate (19 inputs for 5 %) deletes nothing.

    The rewritten program keeps its other tokens apart and keeps at least one; like the paper's, it need not parse.

    Attributes:
        clean: number of clean samples.
        model: ``ngram``, or the folder or hub name of a causal language model.
        revision: full commit of a hub model.
        order: of the n-grams.
        false_positive_rate: share of clean inputs that may be changed.
        folds: parts of the clean set for setting the threshold of an n-gram model.
        threshold: a fixed threshold on suspicion instead (0 is what released re-implementations use).
    """

    name = "onion"
    # 1 left the blanks of what it deleted; to 2's n-gram model every rare name was the same word, and renaming changed nothing.
    version = 3
    summary = "deletes tokens that make the program read less naturally (n-gram or causal language model)"
    paper = "Qi et al.: ONION: A Simple and Effective Defense Against Textual Backdoor Attacks. EMNLP 2021"

    clean: Annotated[int, Field(ge=1)] = 300
    model: Annotated[str, Field(min_length=1)] = "ngram"
    revision: str | None = None
    order: Annotated[int, Field(ge=1)] = 4
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    folds: Annotated[int, Field(ge=2)] = 5
    threshold: float | None = None

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """``clean`` samples, no model."""
        return Needs(clean=self.clean)

    def origin(self) -> dict[str, str]:
        """The weights of a local model."""
        return origin_of(model=self.model)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Make the language model ready and set the threshold.

        Raises:
            ModelError: the causal model does not load, or gives no finite perplexity for a program.
        """
        inputs = [
            [Source.of(sample.language, text) for text in sample.programs]
            for sample in context.progress(known.clean, "onion: reading clean programs")
        ]
        folds = fold_numbers([sample.group for sample in known.clean], self.folds)
        reader: Reader
        if self.model == "ngram":
            reader = self._ngrams(inputs)
        else:
            reader = CausalReader(load_causal(self.model, context, revision=self.revision))
            folds = [0] * len(inputs)  # it was not trained on the clean set: no part of it must be held out
        if self.threshold is not None:
            return FittedOnion(reader, self.threshold, context)
        largest: list[float] = []
        for fold in sorted(set(folds)):
            held_out = [programs for programs, of in zip(inputs, folds, strict=True) if of == fold]
            if self.model == "ngram":
                rest = [programs for programs, of in zip(inputs, folds, strict=True) if of != fold]
                largest += [_largest(found) for found in _suspicions(self._ngrams(rest), held_out)]
            else:
                shown = context.progress(held_out, "onion: clean programs without each token")
                largest += [_largest(found) for programs in shown for found in _suspicions(reader, [programs])]
        # Below 0 a deletion makes the program read less naturally, which is not what ONION deletes for.
        return FittedOnion(reader, max(conformal_threshold(largest, self.false_positive_rate), 0.0), context)

    def _ngrams(self, inputs: Sequence[Programs]) -> NgramReader:
        return NgramReader.fit([program.leaves for programs in inputs for program in programs], self.order)


def _suspicions(reader: Reader, inputs: Sequence[Programs]) -> list[list[Floats]]:
    """Suspicions of every leaf of every program of each input."""
    found = iter(reader.suspicions([program for programs in inputs for program in programs]))
    each = [[next(found) for _ in programs] for programs in inputs]
    if not all(np.isfinite(values).all() for sides in each for values in sides):
        raise ModelError(
            "onion: the language model gives a program no finite perplexity; it cannot say what reads naturally"
        )
    return each


def _largest(suspicions: Sequence[Floats]) -> float:
    return max((float(s.max()) for s in suspicions if len(s)), default=0.0)


@dataclass(frozen=True)
class FittedOnion(FittedScreen):
    """The language model and the threshold.

    Attributes:
        model: an n-gram model trained on the clean set, or a causal model.
        threshold: leaves above it are deleted; may be infinite.
        context: shows progress.
    """

    model: Reader
    threshold: float
    context: Context

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rewritten where a token is above the threshold, else accepted. The score is the input's largest suspicion."""
        return [self._verdict(sample) for sample in self.context.progress(inputs, "onion: inputs without each token")]

    def _verdict(self, sample: Sample) -> Verdict:
        programs = [Source.of(sample.language, text) for text in sample.programs]
        (scores,) = _suspicions(self.model, [programs])
        edits: list[Edit] = []
        for side, (program, suspicions) in enumerate(zip(programs, scores, strict=True)):
            chosen = suspicions > self.threshold
            if len(chosen) and chosen.all():
                chosen[int(suspicions.argmin())] = False  # an empty program is no input
            edits += deletions(program.text, program.leaves, chosen.tolist(), side)
        if not edits:
            return Verdict(sample.id, Action.ACCEPT, _largest(scores))
        return Verdict(sample.id, Action.REWRITE, _largest(scores), edit_sample(sample, edits))
