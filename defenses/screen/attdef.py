"""AttDef: hide the tokens on which the model's answer rests too heavily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Action, FittedScreen, Known, Needs, Screen, TaskInfo, TaskKind, Verdict
from bench.models.folders import origin_of
from bench.models.handles import WhiteBox
from bench.models.masked import MaskedModel, load_masked
from bench.samples import Edit, Sample, edit_sample
from defenses.screening.attribution import Answers, answers_of, leaf_shares
from defenses.screening.confidence import OfQueries, halves
from defenses.screening.deleting import Source, deletions
from defenses.screening.suggesting import characters
from defenses.screening.thresholds import conformal_threshold

Shares = list[NDArray[np.float64]]
"""A share for each leaf of each program of one input."""


@dataclass(frozen=True, kw_only=True)
class AttDef(Screen):
    """Attribute the model's answer to the program's tokens, and mask those with too large a share in it.

    Source: Li et al., "Defending against Insertion-based Textual Backdoor Attacks via Attribution", Findings of ACL 2023. Published:
    a pretrained discriminator (ELECTRA) first says which inputs look tampered with; in those, words whose attribution (partial
    layer-wise relevance propagation) exceeds a threshold are masked.

    What is a port: attribution is by integrated gradients, which need no rule of their own for each layer of each architecture; the
    words are the leaves of the syntax tree; a leaf's share is its part in everything that speaks for the answer. The threshold is the
    conformal quantile of the largest share in clean inputs (19 inputs for 5 %; with fewer nothing is masked), where the paper takes
    the lowest at which validation accuracy falls by no more than 2 %. (A release by other authors writes the true trigger among its
    candidates; nothing of that is here.)

    The discriminator is any masked language model of code: an input looks tampered with when its most surprising leaf, hidden and
    predicted, surprises more than ``1 - validator_rate`` of clean inputs' do. ``validator`` names its folder or hub name. The
    default, ``none``, examines every input: nothing has to be downloaded, and it is the defense without its first step.

    Masked leaves become the victim's own mask token, or are deleted where it has none (GPT-2). In a pair the shares are of both
    programs together. In code search the answer is the nearest of half of the clean samples' queries, and the other half sets the
    threshold on shares (:mod:`defenses.screening.confidence`).

    Attributes:
        clean: number of clean samples.
        steps: of the integration.
        validator: ``none``, or the folder or hub name of a masked language model.
        revision: full commit of a hub model.
        validator_rate: share of clean inputs that the validator may let through to be examined.
        false_positive_rate: share of clean inputs in which something may be masked.
    """

    name = "attdef"
    version = 2  # 1 set the threshold in code search by programs whose own queries were among the answers
    summary = "masks tokens on which the model's answer rests too heavily"
    paper = (
        "Li et al.: Defending against Insertion-based Textual Backdoor Attacks via Attribution. Findings of ACL 2023"
    )
    toy_parameters: ClassVar[Mapping[str, object]] = {"steps": 2}

    clean: Annotated[int, Field(ge=1)] = 300
    steps: Annotated[int, Field(ge=1)] = 8
    validator: Annotated[str, Field(min_length=1)] = "none"
    revision: str | None = None
    validator_rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The weights (gradients), and ``clean`` samples."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def origin(self) -> dict[str, str]:
        """The weights of a local model."""
        return origin_of(validator=self.validator)

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Set the thresholds.

        Raises:
            ModelError: the masked model does not load, or an output of the model under defense is not finite.
            PluginError: code search with fewer than two distinct queries in half of the clean samples.
        """
        model = known.white_box
        validator = None if self.validator == "none" else Validator.fit(self, known.clean, context)
        queries, setting = None, list(known.clean)
        if task.kind is TaskKind.SEARCH:
            asked, setting = halves(known.clean)
            queries = OfQueries(model, asked).queries
        fitted = FittedAttDef(self, model, answers_of(model, queries), validator, context, np.inf)
        largest = [_largest(shares) for _, shares in fitted.attributed(setting)]
        threshold = conformal_threshold(largest, self.false_positive_rate)
        return FittedAttDef(self, model, fitted.answers, validator, context, threshold)


@dataclass(frozen=True)
class Validator:
    """Says which inputs look tampered with."""

    model: MaskedModel
    threshold: float

    @classmethod
    def fit(cls, settings: AttDef, clean: Sequence[Sample], context: Context) -> Validator:
        """Load the masked model, and see how much clean inputs surprise it."""
        model = load_masked(settings.validator, context, revision=settings.revision)
        found = cls(model, np.inf)
        shown = context.progress(clean, "attdef: clean inputs before the validator")
        surprises = [found.surprise(sample) for sample in shown]
        return cls(model, conformal_threshold(surprises, settings.validator_rate))

    def surprise(self, sample: Sample) -> float:
        """At the most surprising leaf, in nats a token."""
        largest = 0.0
        for text in sample.programs:
            source = Source.of(sample.language, text)
            values = self.model.surprises(text, list(characters(text, source.leaves)))
            largest = max(largest, float(values.max(initial=0.0)))
        return largest

    def suspects(self, sample: Sample) -> bool:
        """Does the input surprise more than clean ones do?"""
        return self.surprise(sample) > self.threshold


@dataclass(frozen=True)
class FittedAttDef(FittedScreen):
    """The model, the validator and the threshold on shares; it may be infinite."""

    settings: AttDef
    model: WhiteBox
    answers: Answers
    validator: Validator | None
    context: Context
    threshold: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """Rewritten where the validator suspects the input and a leaf's share is above the threshold.

        The score is the largest share of a leaf; 0 where the validator suspects nothing.
        """
        verdicts = []
        for sample, (sources, shares) in zip(inputs, self.attributed(inputs), strict=True):
            score = _largest(shares)
            suspected = self.validator is None or self.validator.suspects(sample)
            edits = self._edits(sources, shares) if suspected else []
            score = score if suspected else 0.0
            if edits:
                verdicts.append(Verdict(sample.id, Action.REWRITE, score, edit_sample(sample, edits)))
            else:
                verdicts.append(Verdict(sample.id, Action.ACCEPT, score))
        return verdicts

    def attributed(self, inputs: Sequence[Sample]) -> list[tuple[list[Source], Shares]]:
        """Each input's programs, and the shares of their leaves."""
        sources = [[Source.of(sample.language, text) for text in sample.programs] for sample in inputs]
        shares: list[Shares] = []
        for start in self.context.progress(range(0, len(inputs), CHUNK), "attdef: attributions"):
            part = slice(start, start + CHUNK)
            shares += leaf_shares(self.model, self.answers, inputs[part], sources[part], self.settings.steps)
        return list(zip(sources, shares, strict=True))

    def _edits(self, sources: Sequence[Source], shares: Shares) -> list[Edit]:
        mask = self.model.tokenizer.mask_token
        edits: list[Edit] = []
        for side, (source, of_leaves) in enumerate(zip(sources, shares, strict=True)):
            chosen = of_leaves > self.threshold
            if len(chosen) < 2:
                continue  # an empty program is no input
            if isinstance(mask, str):
                taken = [leaf for leaf, take in zip(source.leaves, chosen, strict=True) if take]
                edits += [Edit(leaf.start, leaf.end, mask, side) for leaf in taken]
            elif not chosen.all():
                edits += deletions(source.text, source.leaves, chosen.tolist(), side)
        return edits


CHUNK = 64
"""Inputs attributed between two looks at the progress."""


def _largest(shares: Shares) -> float:
    return max((float(values.max(initial=0.0)) for values in shares), default=0.0)
