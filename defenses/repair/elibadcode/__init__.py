"""EliBadCode: find the trigger of a backdoored code model by inversion, and unlearn it.

W. Sun et al., "Eliminating Backdoors in Neural Code Models for Secure Code Understanding", FSE 2025, doi 10.1145/3715782,
arXiv 2408.04683. One file a step:

1. :mod:`~defenses.repair.elibadcode.vocabulary`: the tokens that can continue a name of the language;
2. :mod:`~defenses.repair.elibadcode.positions`: for each sample the name behind which the trigger is tried;
3. :mod:`~defenses.repair.elibadcode.inversion`: greedy coordinate gradient, once for every label direction;
4. :mod:`~defenses.repair.elibadcode.anchoring`: the tokens of the best direction that carry the effect;
5. :mod:`~defenses.repair.elibadcode.unlearning`: fine-tuning on samples with the trigger and correct labels.

Where paper, release (``wssun/EliBadCode`` at e315360) and this implementation differ. *Paper* is the abstract, framework figure and
Algorithm 2 of the online appendix; its setup section was not at hand.

=====================  ==================================  ==================================  ==================================
what                   paper                               release                             here (``blind``)
=====================  ==================================  ==================================  ==================================
told about the attack  nothing                             position and pattern (unlearning)   nothing
vocabulary             naming conventions of the language  one pattern for all languages,      the language's own rule; keywords
                                                           keywords stay                       and special tokens out
re-tokenisation        not stated                          not asked                           the trigger behind a name must
                                                                                               re-tokenise to itself
before the trigger     not stated                          the preceding token                 the convention's separator (``_``;
                                                                                               nothing in camel case)
position: rule         highest loss among masked variants  defect: highest P(1), clone:        highest rise of the loss towards
                                                           lowest P(target)                    the direction's target
position: candidates   variables                           variables                           function name, parameters, locals;
                                                                                               the ``names`` most frequent
position: unit         not stated                          word index used as token index      token offsets
no names in a sample   not stated                          fails                               in front of the first token
inversion's inputs     the masked samples                  the unmasked samples                parameter ``masked``
mode                   not stated                          training mode (dropout on)          evaluation mode
gradient               one-hot, whole vocabulary           one-hot, whole vocabulary           allowed tokens only (same values)
candidates scored at   the sample's position               token 10                            the sample's position
candidates scored on   all samples                         all samples, padded to the window   a race; winners on all samples
the walk               best of the candidates              always moves, may go uphill         moves only to a lower loss
start                  not stated                          a fixed trigger                     best of ``starts`` random triggers
stops                  after 100 iterations                after 100 iterations                no gain for ``patience`` iterations
anchoring baseline     the whole trigger's loss            a loss under dropout                the whole trigger's loss
anchoring rule         \\|l - l_i\\| > beta                  l_i - l > beta                      \\|l - l_i\\| > beta, and backward
                                                                                               elimination where that breaks down
nothing left           not stated                          empty trigger                       at least one token
unlearning: classes    not stated                          class 1 only                        the same share of every class
unlearning: places     not stated                          the attacker's                      five kinds, drawn evenly
unlearning: samples    20 % triggered in place             20 % triggered in place             copies; the clean sample stays
unlearning: trains     last layer, 5e-3, 1 epoch           classifier, 5e-3, 1 epoch           parameter ``unlearn``
label directions       all                                 0 -> 1 only (the script stops)      all
=====================  ==================================  ==================================  ==================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo, TaskKind
from bench.errors import DataError, PluginError
from bench.languages import get
from bench.models.handles import WhiteBox
from bench.samples import Sample
from defenses.repair.elibadcode.anchoring import Anchored, anchor
from defenses.repair.elibadcode.inversion import Inversion, Search, invert
from defenses.repair.elibadcode.positions import scan, sites_for
from defenses.repair.elibadcode.scoring import Scorer, Site, scorer_for
from defenses.repair.elibadcode.unlearning import lesson
from defenses.repair.elibadcode.vocabulary import Vocabulary, allowed_tokens

Direction = tuple[int, int]
"""(victim class, target class)."""


@dataclass(frozen=True)
class Found:
    """The inversion of one label direction."""

    direction: Direction
    sites: list[Site]
    inversion: Inversion

    @property
    def text(self) -> str:
        """``victim->target``."""
        return f"{self.direction[0]}->{self.direction[1]}"


@dataclass(frozen=True, kw_only=True)
class EliBadCode(Repair):
    """Invert a trigger in every label direction, keep what carries the effect of the best one, and unlearn it.

    Attributes:
        variant: ``blind`` is told neither direction, position, pattern nor trigger. (``paper`` and ``release`` are not built.)
        clean: clean samples asked for, all of which serve for unlearning.
        victims: clean samples of each class on which a direction is inverted (N = 30).
        length: tokens of the trigger (n = 5).
        iterations: at most so many in each direction (epsilon = 100).
        top_k: substitutes of a position (k = 64).
        width: candidates of an iteration (r = 64).
        rung: samples that all candidates meet; see :class:`~defenses.repair.elibadcode.inversion.Search`.
        starts: random triggers, the best of which a search starts from.
        patience: a search stops after so many iterations in a row without gain.
        tolerance: a gain in mean loss (nats) below this counts as none.
        names: names of a sample that are masked to find its position, the most frequent first.
        masked: invert on the samples with the chosen name masked, as the paper draws it, or with it restored.
        beta: change of the loss (nats) above which a token of the trigger is needed (0.15).
        unlearn: ``all`` trains all parameters; ``head`` the classifier alone, as published.
        share: of the clean samples of each class that also appear with the trigger.
        learning_rate: of unlearning; ``None`` is the trainer's own for ``all``, and the published 5e-3 for ``head``.
        epochs: of unlearning.
        batch_size: of unlearning (32).
    """

    name = "elibadcode"
    version = 1
    summary = "inverts a trigger with gradients in every label direction and unlearns it"
    paper = "Sun et al., Eliminating Backdoors in Neural Code Models for Secure Code Understanding, FSE 2025"
    kinds = frozenset({TaskKind.CLASSIFICATION, TaskKind.PAIRS})

    variant: Literal["blind"] = "blind"
    clean: Annotated[int, Field(ge=2)] = 300
    victims: Annotated[int, Field(ge=1)] = 30
    length: Annotated[int, Field(ge=1)] = 5
    iterations: Annotated[int, Field(ge=0)] = 100
    top_k: Annotated[int, Field(ge=1)] = 64
    width: Annotated[int, Field(ge=1)] = 64
    rung: Annotated[int, Field(ge=1)] = 2
    starts: Annotated[int, Field(ge=1)] = 32
    patience: Annotated[int, Field(ge=1)] = 3
    tolerance: Annotated[float, Field(ge=0)] = 0.005
    names: Annotated[int, Field(ge=1)] = 8
    masked: bool = True
    beta: Annotated[float, Field(ge=0)] = 0.15
    unlearn: Literal["all", "head"] = "all"
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[int, Field(ge=0)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 32

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """Clean samples as many as ``clean`` says, and the weights."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Code search needs trigger and target word inverted together, which is not built yet."""
        if task.kind is TaskKind.SEARCH:
            return (
                "elibadcode for code search must invert trigger and target word together, which is not implemented yet"
            )
        return super().not_applicable(task)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """Invert, anchor, unlearn.

        Raises:
            DataError: no clean samples, or none with a label.
            ConfigError: the window has no room for the trigger, or no token is allowed in it.
        """
        model = known.white_box
        scorer = scorer_for(model)
        found, vocabulary = self._invert(model, scorer, known.clean, task, context)
        # Stable: of equal losses the first direction in label order.
        best = min(found, key=lambda each: each.inversion.loss)
        kept = anchor(scorer, best.sites, best.inversion.trigger, best.direction[1], self.beta)
        repaired, triggered = self._unlearn(model, known.clean, vocabulary.text(kept.trigger), context)
        return Repaired(repaired, self._facts(found, best, kept, vocabulary, triggered), -best.inversion.loss)

    def _invert(
        self, model: WhiteBox, scorer: Scorer, clean: Sequence[Sample], task: TaskInfo, context: Context
    ) -> tuple[list[Found], Vocabulary]:
        search = Search(
            length=self.length,
            iterations=self.iterations,
            top_k=self.top_k,
            width=self.width,
            rung=self.rung,
            starts=self.starts,
            patience=self.patience,
            tolerance=self.tolerance,
        )
        language = get(task.language)
        classes = range(len(task.labels))
        members = {label: list(islice((s for s in clean if s.label == label), self.victims)) for label in classes}
        if not any(members.values()):
            raise DataError(
                f"elibadcode needs labelled clean samples of task {task.name!r}; of the {len(clean)} it got, none has a label in "
                f"0 to {len(classes) - 1}. Raise the task's budget size."
            )
        room = self.length + len(model.tokenizer.tokenize("_"))
        scanned = {
            label: scan(samples, model, scorer, room_for=room, names=self.names)
            for label, samples in members.items()
            if samples
        }
        names = [m.name for each in scanned.values() for sample in each for m in sample.maskings if m.name is not None]
        vocabulary = allowed_tokens(model.tokenizer, language, model.network.embedding.num_embeddings, names)
        directions = [(victim, target) for victim in scanned for target in classes if target != victim]
        found = []
        for victim, target in context.progress(directions, "elibadcode: inverting label directions"):
            sites = sites_for(
                scanned[victim],
                target,
                glue=vocabulary.glue_ids,
                length=self.length,
                window=model.window,
                masked=self.masked,
            )
            rng = context.rng("defense", "elibadcode", "inversion", f"{victim}->{target}")
            found.append(Found((victim, target), sites, invert(scorer, sites, target, vocabulary, search, rng)))
        return found, vocabulary

    def _unlearn(self, model: WhiteBox, clean: Sequence[Sample], text: str, context: Context) -> tuple[WhiteBox, int]:
        """The repaired model, and how many triggered samples taught it."""
        if context.trainer is None:
            raise PluginError("elibadcode unlearns through the harness's trainer, and context.trainer is None")
        rng = context.rng("defense", "elibadcode", "unlearning")
        samples = lesson(clean, [text], self.share, rng)
        rate = self.learning_rate or (5e-3 if self.unlearn == "head" else None)
        repaired = context.trainer.fit(
            model,
            samples,
            axis="defense",
            epochs=self.epochs,
            learning_rate=rate,
            batch_size=self.batch_size,
            parameters=self.unlearn,
            select_best=False,  # clean validation data would choose the epoch that unlearnt least
        )
        return repaired, len(samples) - len(clean)

    def _facts(
        self, found: Sequence[Found], best: Found, kept: Anchored, vocabulary: Vocabulary, triggered: int
    ) -> dict[str, object]:
        return {
            "variant": self.variant,
            "direction": best.text,
            "inverted": {best.text: vocabulary.pieces(kept.trigger)},
            "anchoring": {
                "rule": kept.rule,
                "loss": kept.loss,
                "whole": kept.whole,
                "changes": list(kept.changes),
                "retokenises": vocabulary.realisable([kept.trigger])[0],
            },
            "directions": {
                each.text: {
                    "tokens": vocabulary.pieces(each.inversion.trigger),
                    "loss": each.inversion.loss,
                    "iterations": each.inversion.iterations,
                    "trace": [round(loss, 4) for loss in each.inversion.trace],
                    "without_names": sum(site.name is None for site in each.sites),
                }
                for each in found
            },
            "vocabulary": len(vocabulary),
            "unlearning": {"parameters": self.unlearn, "triggered": triggered},
        }
