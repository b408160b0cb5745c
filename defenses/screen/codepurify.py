"""CodePurify: find the piece of a program that the model's answer hangs on, and write it anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.languages import parse
from bench.models.folders import origin_of
from bench.models.masked import load_masked
from bench.samples import Sample
from defenses.screening.confidence import Confidence, confidence
from defenses.screening.rewriting import Piece, Purifier, pieces, without
from defenses.screening.suggesting import MaskedSuggester, NgramSuggester, Suggester
from defenses.screening.thresholds import conformal_threshold


@dataclass(frozen=True, kw_only=True)
class CodePurify(Screen):
    """Hide each statement and each name in turn; pieces without which the model loses its answer are replaced.

    Source: Mu et al., "CodePurify: Defend Backdoor Attacks on Neural Code Models via Entropy-based Purification", arXiv 2410.20136.
    Published: an entropy driven by the model's confidence decides whether a program is poisoned and points at its tokens and
    statements, and a masked language model's suggestions replace them. The formula was not at hand. Our reading: a piece's score is
    the rise of the model's surprise at its own answer (cross-entropy, nats) when the piece is hidden, which also rises where the
    model turns from one certain answer to another, as it does when a trigger is hidden; plain entropy would not. The threshold is
    the conformal quantile of the largest score in clean inputs (19 inputs for 5 %; with fewer nothing is touched).

    Pieces are the statements (simple and compound; an empty one is put in their place) and the function's, parameters' and
    locals' names (at all their places, under a name without meaning). Of pieces inside one another the one with the highest score
    counts. A name gets the best suggestion that the scope rules allow; in a statement every name, number and string gets one, or
    the statement is left empty (``statements="delete"``). Suggestions come from an n-gram model of the clean set by default, so
    that nothing has to be downloaded; ``repair`` names a masked model instead, as published.

    In a pair both programs are searched. In code search the answer is the nearest of half of the clean samples' queries, and
    the other half sets the threshold (:mod:`defenses.screening.confidence`).

    Attributes:
        clean: number of clean samples.
        repair: ``ngram``, or the folder or hub name of a masked language model.
        revision: full commit of a hub model.
        order: of the n-grams.
        pieces: of each program, so many from its beginning are tried.
        statements: ``rewrite`` them by suggestions, or ``delete`` them.
        false_positive_rate: share of clean inputs that may be changed.
    """

    name = "codepurify"
    # 1 hid no imports, assertions of Java, labelled statements and others; 2 set the threshold in code search by programs whose
    # own queries were among the answers.
    version = 3
    summary = "writes anew the statements and names that the model's answer hangs on"
    paper = "Mu et al.: CodePurify: Defend Backdoor Attacks on Neural Code Models via Entropy-based Purification. arXiv 2410.20136"
    toy_parameters: ClassVar[Mapping[str, object]] = {"pieces": 8}

    clean: Annotated[int, Field(ge=1)] = 300
    repair: Annotated[str, Field(min_length=1)] = "ngram"
    revision: str | None = None
    order: Annotated[int, Field(ge=1)] = 4
    pieces: Annotated[int, Field(ge=1)] = 60
    statements: Literal["rewrite", "delete"] = "rewrite"
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The model's outputs, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.OUTPUTS)

    def origin(self) -> dict[str, str]:
        """The weights of a local model."""
        return origin_of(repair=self.repair)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Make the suggestions ready and set the threshold.

        Raises:
            ModelError: the masked model does not load, or an output of the model under defense is not finite.
        """
        suggester: Suggester
        if self.repair == "ngram":
            suggester = NgramSuggester.fit(known.clean, self.order)
        else:
            suggester = MaskedSuggester(load_masked(self.repair, context, revision=self.revision))
        answers, setting = confidence(known.black_box, task, known.clean)
        fitted = FittedCodePurify(self, answers, Purifier(suggester, self.statements == "delete"), context, np.inf)
        scores = [max(values, default=0.0) for _, values in fitted.judged(setting)]
        threshold = conformal_threshold(scores, self.false_positive_rate)
        return FittedCodePurify(self, answers, fitted.purifier, context, threshold)


@dataclass(frozen=True)
class FittedCodePurify(FittedScreen):
    """The model's confidence, what rewrites, and the threshold; it may be infinite."""

    settings: CodePurify
    answers: Confidence
    purifier: Purifier
    context: Context
    threshold: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rewritten where a piece is above the threshold. The score is the input's largest rise of surprise, in nats."""
        found = self.judged(inputs)
        return [self._verdict(sample, *of) for sample, of in zip(inputs, found, strict=True)]

    def _verdict(self, sample: Sample, tried: list[Piece], values: list[float]) -> Verdict:
        score = max(values, default=0.0)
        # Of a statement and a name in it that count the same, the statement.
        ranked = sorted(zip(values, tried, strict=True), key=lambda pair: (-pair[0], pair[1].name is not None))
        chosen: list[Piece] = []
        for value, piece in ranked:
            if value > self.threshold and not any(piece.touches(other) for other in chosen):
                chosen.append(piece)
        pure = self.purifier.purified(sample, chosen)
        if pure == sample:
            return Verdict(sample.id, Action.ACCEPT, score)
        return Verdict(sample.id, Action.REWRITE, score, pure)

    def judged(self, inputs: Sequence[Sample]) -> list[tuple[list[Piece], list[float]]]:
        """Each input's pieces, and by how much the model's surprise at its answer rises without each."""
        found = []
        for sample in self.context.progress(inputs, "codepurify: inputs without each piece"):
            tried = [
                piece
                for side, text in enumerate(sample.programs)
                for piece in pieces(parse(sample.language, text), side)[: self.settings.pieces]
            ]
            surprises = -self.answers.of([sample, *(without(sample, piece) for piece in tried)])
            answer = int(surprises[0].argmin())
            found.append((tried, (surprises[1:, answer] - surprises[0, answer]).tolist()))
        return found
