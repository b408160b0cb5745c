"""OSeqL: a line without which the model's answer falls is a line that holds a trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.samples import Sample
from defenses.screening.confidence import Confidence, confidence
from defenses.screening.pieces import lines, without_lines
from defenses.screening.thresholds import conformal_threshold

Line = tuple[int, tuple[int, int]]
"""Which program of the sample, and the line's byte span in it."""


@dataclass(frozen=True, kw_only=True)
class OSeqL(Screen):
    """Leave out one line at a time; a line whose absence costs the answer far more confidence than the other lines' is cut out.

    Source: Hussain et al., "Occlusion-based Detection of Trojan-triggering Inputs in Large Language Models of Code", arXiv
    2312.04004. Published: the input without each of its lines goes through the model, and a flip or a large shift of its
    confidence marks the trojan line, for a human to look at; false positives are named as the open problem. The details of the
    paper's outlier rule were not at hand. Our reading: a line's fall is the probability of the model's own answer less what is
    left of it without the line; a line stands out by its fall less the median fall of the input's lines; and the threshold on that is
    the conformal quantile of the largest such value in clean inputs (19 inputs for 5 %; with fewer nothing is touched).

    What the human would do is done by ``action``: lines above the threshold are cut out (never all of them), or the input is
    rejected. In a pair the lines of both programs are tried, the other program as it is. In code search the answer is the nearest
    of half of the clean samples' queries, and the other half sets the threshold (:mod:`defenses.screening.confidence`). A
    program of one line has nothing to compare with: score 0.

    Attributes:
        clean: number of clean samples.
        lines: of each program, so many from its beginning are tried.
        false_positive_rate: share of clean inputs that may be touched.
        action: ``remove`` the lines, or ``reject`` the input.
    """

    name = "oseql"
    version = 2  # 1 set the threshold in code search by programs whose own queries were among the answers
    summary = "cuts out lines without which the model's confidence falls far"
    paper = "Hussain et al.: Occlusion-based Detection of Trojan-triggering Inputs in Large Language Models of Code. arXiv 2312.04004"
    toy_parameters: ClassVar[Mapping[str, object]] = {"lines": 16}

    clean: Annotated[int, Field(ge=1)] = 300
    lines: Annotated[int, Field(ge=1)] = 100
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    action: Literal["remove", "reject"] = "remove"

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The model's outputs, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.OUTPUTS)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Set the threshold.

        Raises:
            ModelError: an output of the model is not finite.
        """
        answers, setting = confidence(known.black_box, task, known.clean)
        fitted = FittedOSeqL(self, answers, context, np.inf)
        scores = [max(values, default=0.0) for _, values in fitted.outliers(setting)]
        return FittedOSeqL(self, fitted.answers, context, conformal_threshold(scores, self.false_positive_rate))


@dataclass(frozen=True)
class FittedOSeqL(FittedScreen):
    """The model's confidence, and the threshold; it may be infinite."""

    settings: OSeqL
    answers: Confidence
    context: Context
    threshold: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """The score is how far the input's most telling line stands out, a difference of probabilities."""
        found = self.outliers(inputs)
        return [self._verdict(sample, *of) for sample, of in zip(inputs, found, strict=True)]

    def _verdict(self, sample: Sample, tried: list[Line], values: list[float]) -> Verdict:
        score = max(values, default=0.0)
        if score <= self.threshold:
            return Verdict(sample.id, Action.ACCEPT, score)
        if self.settings.action == "reject":
            return Verdict(sample.id, Action.REJECT, score)
        cut = sample
        for side, text in enumerate(sample.programs):
            spans = [
                span for (of, span), value in zip(tried, values, strict=True) if of == side and value > self.threshold
            ]
            if spans and len(spans) < len(lines(text)):
                cut = without_lines(cut, side, spans)
        return (
            Verdict(sample.id, Action.ACCEPT, score)
            if cut == sample
            else Verdict(sample.id, Action.REWRITE, score, cut)
        )

    def outliers(self, inputs: Sequence[Sample]) -> list[tuple[list[Line], list[float]]]:
        """Each input's lines that were tried, and by how much each stands out."""
        found = []
        for sample in self.context.progress(inputs, "oseql: inputs without each line"):
            tried = self._tried(sample)
            found.append((tried, standing_out(self._falls(sample, tried)).tolist()))
        return found

    def _tried(self, sample: Sample) -> list[Line]:
        each = [(side, lines(text)) for side, text in enumerate(sample.programs)]
        return [(side, span) for side, spans in each if len(spans) > 1 for span in spans[: self.settings.lines]]

    def _falls(self, sample: Sample, tried: Sequence[Line]) -> NDArray[np.float64]:
        """By how much the probability of the model's answer falls without each line."""
        variants = [without_lines(sample, side, [span]) for side, span in tried]
        probabilities = np.exp(self.answers.of([sample, *variants]))
        answer = int(probabilities[0].argmax())
        falls: NDArray[np.float64] = probabilities[0, answer] - probabilities[1:, answer]
        return falls


def standing_out(falls: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each fall less the median of all of them; shape (n,)."""
    return falls - np.median(falls) if len(falls) else falls
