"""EliBadCode: find the trigger of a backdoored code model by inversion, and unlearn it.

W. Sun et al., "Eliminating Backdoors in Neural Code Models for Secure Code Understanding", FSE 2025, doi 10.1145/3715782,
arXiv 2408.04683. One file a step:

1. :mod:`~defenses.inversion.vocabulary`: the tokens that can open or continue a name of the language;
2. :mod:`~defenses.inversion.positions`: for each sample the name in whose place the trigger is tried;
3. :mod:`~defenses.repair.elibadcode.gcg`: greedy coordinate gradient, once for every label direction;
4. :mod:`~defenses.repair.elibadcode.anchoring`: the tokens that carry the effect;
5. :mod:`~defenses.inversion.unlearning`: fine-tuning on samples with the trigger and correct labels.

Where paper, release (``wssun/EliBadCode`` at e315360) and this implementation differ. *Paper* is the abstract, framework figure and
Algorithm 2 of the online appendix; its setup section was not at hand. What it does not say, and what cannot be run as it was released,
has to be filled: in [brackets] stands what ``variant=paper`` and ``variant=release`` do there. Every row has a test
(``tests/test_elibadcode_variants.py``).

========================  ==================================  ====================================  ====================================
what                      paper                               release                               here (``blind``)
========================  ==================================  ====================================  ====================================
told about the attack     nothing                             where it stands (unlearning)          nothing
vocabulary                naming conventions of the           letters, digits, underscores, for     the language's own rule for names;
                          language; [as blind]                every language; keywords stay         keywords and special tokens out
re-tokenisation           [as blind]                          not asked                             the trigger, written as a name, must
                                                                                                    re-tokenise to itself
word-initial pieces       [as blind]                          none                                  the trigger's first token, then the
                                                                                                    separator (``_``; none in camel
                                                                                                    case), which is not searched
position: candidates      variables; [parameters and locals   variables; [as paper]                 the same and the function's name;
                          that stand behind a space]                                                the ``names`` most frequent
position: rule            highest loss of the own label       defect: highest P(1); clone: lowest   highest rise of the loss towards the
                          among masked variants               P(target)                             direction's target
position: place           [as blind]                          inserted at that index                instead of one masked occurrence,
                                                                                                    the first that stands behind a space
position: unit            [as blind]                          word index used as token index; 1     token offsets
                                                              where it is beyond half the window
no names in a sample      [as blind]                          fails [index 1]                       in front of the first token
inversion's inputs        the masked samples [or, by          the unmasked samples                  as paper
                          ``masked``, restored ones]
mode                      [as blind]                          training mode: dropout on [for        evaluation mode
                                                              positions as well, from the seed];
                                                              anchoring without
gradient                  by the one-hot vectors              by the one-hot vectors                by the one-hot vectors; here, for
                                                                                                    all variants, of the allowed tokens
                                                                                                    alone
substitutes (k)           64                                  64                                    16
candidates (r)            64 at random                        64 at random                          64 at random, the best substitute
                                                                                                    of every position among them
candidates scored at      the sample's position               token 10                              the sample's position
candidates scored on      all samples                         all samples, padded to the window     a race; winners on all samples
                                                              [padded to the longest]
the walk                  to the best candidate, even uphill  to the best candidate never visited,  to a lower loss or nowhere
                                                              even uphill
what is returned          [the best visited]                  the best visited                      the best visited
start                     [one random trigger]                [one random trigger]                  best of ``starts`` random triggers
stops                     after ``iterations`` (epsilon)      after ``iterations`` (100)            also after ``patience`` without
                                                                                                    gain, and at a loss up to
                                                                                                    ``tolerance``
anchoring baseline        the whole trigger's loss, measured  the search's best loss, under         as paper
                          again                               dropout
anchoring rule            \\|l - l_i\\| > beta                l_i - l > beta                        \\|l - l_i\\| > beta, and backward
                                                                                                    elimination where that breaks down
nothing left              [the whole trigger]                 the empty trigger, and nothing is     at least one token
                                                              unlearnt
unlearning: classes       [every class]                       class 1 only                          the same share of every class
unlearning: places        [a random variable is called like   the attacker's [the function is       five kinds, drawn evenly; nothing of
                          the trigger]                        called like the trigger]              the attack is known
unlearning: no place      [another sample is triggered; a     [another sample is triggered; a       another kind of place, else no copy
                          trigger that is no name stands      trigger that is no name stands
                          nowhere]                            nowhere]
unlearning: of            the best direction                  a trigger typed in by hand [the best  every direction whose trigger works,
                                                              direction]                            and the best one
unlearning: samples       [as release]                        20 % triggered in place               a triggered copy of every sample;
                                                                                                    the clean one stays
unlearning: trains        the last layer [as release]         the classifier, 5e-3, 1 epoch         all, 3 epochs, at a rate chosen on
                                                                                                    held-out clean samples; ``unlearn``
label directions          all                                 0 -> 1 only, the script stops [all]   all
code search               trigger and word together [all      cannot be run [not applicable]        trigger and word together; samples
                          parameters are unlearnt]                                                  are changed, not copied
========================  ==================================  ====================================  ====================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from bench.context import Context
from bench.contracts import Known, Repaired, TaskInfo, TaskKind
from bench.languages import get
from bench.models.handles import WhiteBox
from defenses.inversion.claims import Place
from defenses.inversion.objective import Inversion, Objective
from defenses.inversion.repair import InversionRepair, Kept
from defenses.inversion.scoring import Scorer, scorer_for
from defenses.inversion.unlearning import Lesson, Unlearning, as_function_name, as_variable
from defenses.inversion.vocabulary import Vocabulary, allowed_tokens, name_pieces
from defenses.repair.elibadcode.anchoring import anchor, anchor_as_released
from defenses.repair.elibadcode.gcg import Search, invert

TOP_K = 64
"""k as published."""
BLIND_TOP_K = 16


@dataclass(frozen=True, kw_only=True)
class EliBadCode(InversionRepair):
    """Invert a trigger for every claim, keep what carries the effect, and unlearn it.

    The claim with the smallest loss is the one under suspicion, but a natural feature of a class (a token that marks weak code,
    pushed into a name) can invert to a smaller loss than the backdoor. Told nothing about the direction, ``blind`` therefore
    unlearns every direction whose trigger works; whether a loss is suspicious is told by clean models alone (:mod:`bench.verdicts`).

    Attributes:
        variant: ``blind`` is told neither direction, position, pattern nor trigger; ``paper`` as the paper and its appendix state it;
            ``release`` with the release's choices where they differ and can be run (not for code search, whose released form cannot).
        iterations: at most so many for each claim (epsilon = 100).
        top_k: substitutes of a position (k). ``None`` is the variant's own: 64 as published; 16 in ``blind``, which on two cores reached
            the loss of 64 at half the tokens.
        width: candidates of an iteration (r = 64).
        rung: ``blind``: samples that all candidates meet; see :class:`~defenses.repair.elibadcode.gcg.Search`.
        starts: ``blind``: random triggers, the best of which a search starts from.
        patience: ``blind``: a search stops after so many iterations in a row without gain.
        tolerance: ``blind``: a gain in mean loss below this counts as none.
        names: ``blind``: names of a sample that are masked to find its position, the most frequent first.
        masked: ``blind`` and ``paper``: invert on the samples with the chosen name masked, or with it restored; ``None`` is masked.
        beta: change of the loss above which a token of the trigger is needed (0.15).
    """

    name = "elibadcode"
    version = 3
    summary = "inverts a trigger with gradients in every label direction and unlearns it"
    paper = "Sun et al., Eliminating Backdoors in Neural Code Models for Secure Code Understanding, FSE 2025"

    variant: Literal["blind", "paper", "release"] = "blind"
    iterations: Annotated[int, Field(ge=0)] = 100
    top_k: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] = 64
    rung: Annotated[int, Field(ge=1)] = 1
    starts: Annotated[int, Field(ge=1)] = 32
    patience: Annotated[int, Field(ge=1)] = 3
    tolerance: Annotated[float, Field(ge=0)] = 0.01
    names: Annotated[int, Field(ge=1)] = 8
    masked: bool | None = None
    beta: Annotated[float, Field(ge=0)] = 0.15

    def not_applicable(self, task: TaskInfo) -> str | None:
        """The released code search never ran: there is no ``release`` to reproduce."""
        if self.variant == "release" and task.kind is TaskKind.SEARCH:
            return "the released inversion of code search cannot be run (it stops with errors), so there is nothing to reproduce"
        return super().not_applicable(task)

    def vocabulary(self, model: WhiteBox, task: TaskInfo) -> Vocabulary:
        """Step 1."""
        rows = model.network.embedding.num_embeddings
        if self.variant == "release":
            return name_pieces(model.tokenizer, rows)
        return allowed_tokens(model.tokenizer, get(task.language), rows)

    def place(self) -> Place:
        """Step 2."""
        if self.variant == "release":
            return Place(None, functions=False, masked=False, rule="first class", released=True)
        masked = True if self.masked is None else self.masked
        if self.variant == "paper":
            return Place(None, functions=False, masked=masked, rule="own label")
        return Place(self.names, masked=masked)

    def scorer(self, model: WhiteBox) -> Scorer:
        """In evaluation mode; the release searches with dropout on."""
        return scorer_for(model, dropout=self.variant == "release")

    def search(self) -> Search:
        """Step 3's settings."""
        if self.variant == "blind":
            return Search(
                iterations=self.iterations,
                top_k=self.top_k or BLIND_TOP_K,
                width=self.width,
                rung=self.rung,
                starts=self.starts,
                patience=self.patience,
                tolerance=self.tolerance,
            )
        return Search(
            iterations=self.iterations,
            top_k=self.top_k or TOP_K,
            width=self.width,
            rung=self.victims,
            starts=1,
            sure=False,
            walk="new" if self.variant == "release" else "best",
            patience=None,
        )

    def invert(self, objective: Objective, rng: np.random.Generator) -> Inversion:
        """Step 3."""
        return invert(objective, self.search(), rng)

    def keep(self, objective: Objective, inversion: Inversion) -> Kept:
        """Step 4."""
        if self.variant == "release":
            with objective.quiet():
                found = anchor_as_released(objective, inversion.strings, inversion.loss, self.beta)
        else:
            found = anchor(objective, inversion.strings, self.beta, rescue=self.variant == "blind")
        facts: dict[str, object] = {
            "anchored_loss": found.loss,
            "anchoring_rule": found.rule,
            "changes": [round(change, 4) for change in found.changes],
        }
        return Kept(found.strings, found.whole, facts)

    def own_unlearning(self) -> Unlearning:
        """Step 5: how the variant teaches."""
        if self.variant == "blind":
            return Unlearning()
        if self.variant == "paper":
            lesson = Lesson(share=0.2, copies=False, places=(as_variable,))
        else:
            lesson = Lesson(share=0.2, copies=False, only=1, places=(as_function_name,))
        return Unlearning(lesson, parameters="head", head_rate=5e-3, epochs=1)

    def works(self, *, best: bool, loss: float, border: float) -> bool:
        """Is a claim unlearnt? ``paper`` and ``release`` unlearn the one with the smallest loss alone."""
        return best or (self.variant == "blind" and loss < border)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """See :meth:`~defenses.inversion.repair.InversionRepair.repair`; dropout, where a variant searches with it, comes from the seed."""
        if self.variant != "release":
            return super().repair(known, task, context)
        device = known.white_box.device
        with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
            torch.manual_seed(int(context.rng("defense", self.name, "dropout").integers(2**62)))
            return super().repair(known, task, context)

    def facts(self) -> Mapping[str, object]:
        """The variant."""
        return {"variant": self.variant}
