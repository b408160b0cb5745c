"""STRIP: an input whose answer survives any mixture with clean programs is held up by a trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bench.context import Context, axis_seed
from bench.contracts import Access, Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.samples import Sample
from defenses.screening.confidence import Confidence, confidence, entropies
from defenses.screening.mixing import Donors
from defenses.screening.thresholds import conformal_threshold


@dataclass(frozen=True, kw_only=True)
class Strip(Screen):
    """Reject inputs whose perturbed copies get answers of unusually low entropy.

    Source: Gao et al., "STRIP: A Defence Against Trojan Attacks on Deep Neural Networks", ACSAC 2019; defaults as in OpenBackdoor's
    port to text: 5 copies of each input with half of the words exchanged, and the 1 % quantile of clean inputs' mean entropy.

    What is a port: the parts of a program that are exchanged are its one-line statements, for statements of clean programs, and its
    function, parameters and locals, for names of clean programs, each with probability ``share`` by lot (the port to text takes
    words of high TF-IDF), so that a copy parses whenever the input does. In a pair both programs are perturbed. In code search
    the entropy is that of the answer among the queries of half of the clean samples, and the other half sets the threshold
    (:mod:`defenses.screening.confidence`).

    Entropies are per input: the mean over that input's copies alone. The draws depend on the input's id and the seed of the axis
    ``defense``. The threshold is the conformal quantile of clean inputs; a clean set too small to vouch for the rate (99
    inputs for 1 %) rejects nothing. A model that is sure of everything it sees has no entropy to lose: read the AUROC.

    Attributes:
        clean: number of clean samples; they lend the parts, and set the threshold.
        copies: perturbed copies of each input.
        share: of statements and of names exchanged.
        false_positive_rate: share of clean inputs that may be rejected.
    """

    name = "strip"
    # 1 exchanged no imports, assertions of Java, goto and others; 2 set the threshold in code search by programs whose own queries
    # were among the answers.
    version = 3
    summary = "rejects inputs whose answer stays certain when statements and names are exchanged"
    paper = "Gao et al.: STRIP: A Defence Against Trojan Attacks on Deep Neural Networks. ACSAC 2019"
    toy_parameters: ClassVar[Mapping[str, object]] = {"copies": 3}

    clean: Annotated[int, Field(ge=1)] = 300
    copies: Annotated[int, Field(ge=1)] = 5
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The model's outputs, and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.OUTPUTS)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Collect the parts to exchange and set the threshold.

        Raises:
            ModelError: an output of the model is not finite.
        """
        answers, setting = confidence(known.black_box, task, known.clean)
        fitted = FittedStrip(self, answers, Donors.of(known.clean), context, np.inf)
        threshold = conformal_threshold(fitted.scores(setting), self.false_positive_rate)
        return FittedStrip(self, answers, fitted.donors, context, threshold)


@dataclass(frozen=True)
class FittedStrip(FittedScreen):
    """What is exchanged, and the threshold on negative entropy; it may be infinite."""

    settings: Strip
    answers: Confidence
    donors: Donors
    context: Context
    threshold: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rejected above the threshold. The score is the negative mean entropy of the input's copies, in nats."""
        return [
            Verdict(sample.id, Action.REJECT if score > self.threshold else Action.ACCEPT, score)
            for sample, score in zip(inputs, self.scores(inputs), strict=True)
        ]

    def scores(self, inputs: Sequence[Sample]) -> list[float]:
        """The negative mean entropy of each input's copies."""
        shown = self.context.progress(inputs, "strip: perturbed inputs")
        copies = [self._copy(sample, number) for sample in shown for number in range(self.settings.copies)]
        each = entropies(self.answers.of(copies)).reshape(len(inputs), self.settings.copies)
        return [-float(mean) for mean in each.mean(axis=1)]

    def _copy(self, sample: Sample, number: int) -> Sample:
        seed = axis_seed(self.context.seeds, "defense", "screen/strip", sample.id, str(number))
        rng = np.random.default_rng(seed)
        for side, text in enumerate(sample.programs):
            sample = sample.with_program(side, self.donors.mixed(sample.language, text, self.settings.share, rng))
        return sample
