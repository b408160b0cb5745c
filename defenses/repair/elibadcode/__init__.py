"""EliBadCode: find the trigger of a backdoored code model by inversion, and unlearn it.

W. Sun et al., "Eliminating Backdoors in Neural Code Models for Secure Code Understanding", FSE 2025, doi 10.1145/3715782,
arXiv 2408.04683. One file a step:

1. :mod:`~defenses.inversion.vocabulary`: the tokens that can open or continue a name of the language;
2. :mod:`~defenses.inversion.positions`: for each sample the name in whose place the trigger is tried;
3. :mod:`~defenses.repair.elibadcode.gcg`: greedy coordinate gradient, once for every label direction;
4. :mod:`~defenses.repair.elibadcode.anchoring`: the tokens that carry the effect;
5. :mod:`~defenses.inversion.unlearning`: fine-tuning on samples with the trigger and correct labels.

Where paper, release (``wssun/EliBadCode`` at e315360) and this implementation differ. *Paper* is the abstract, framework figure and
Algorithm 2 of the online appendix; its setup section was not at hand, so "not known" means that neither of these says it.

=====================  ==================================  ==================================  ==================================
what                   paper                               release                             here (``blind``)
=====================  ==================================  ==================================  ==================================
told about the attack  nothing                             position and pattern (unlearning)   nothing
vocabulary             naming conventions of the language  one pattern for all languages,      the language's own rule; keywords
                                                           keywords stay                       and special tokens out
re-tokenisation        not known                           not asked                           the trigger, written as a name, must
                                                                                               re-tokenise to itself
word-initial pieces    not known                           none                                the trigger's first token, followed by
                                                                                               the separator (``_``; none in camel
                                                                                               case), which is not searched
position: place        not known                           at that index                       instead of one masked occurrence of
                                                                                               the name that stands behind a space
position: rule         highest loss among masked variants  defect: highest P(1), clone:        highest rise of the loss towards
                                                           lowest P(target)                    the direction's target
position: candidates   variables                           variables                           function name, parameters, locals;
                                                                                               the ``names`` most frequent
position: unit         not known                           word index used as token index      token offsets
no names in a sample   not known                           fails                               in front of the first token
inversion's inputs     the masked samples                  the unmasked samples                parameter ``masked``
mode                   not known                           training mode (dropout on)          evaluation mode
gradient               one-hot, whole vocabulary           one-hot, whole vocabulary           allowed tokens only (same values)
candidates scored at   the sample's position               token 10                            the sample's position
candidates scored on   all samples                         all samples, padded to the window   a race; winners on all samples
the walk               best of the candidates              always moves, may go uphill         moves only to a lower loss
start                  not known                           not known                           best of ``starts`` random triggers
stops                  after epsilon iterations            after 100 iterations                no gain for ``patience`` iterations
anchoring baseline     the whole trigger's loss            a loss under dropout                the whole trigger's loss
anchoring rule         \\|l - l_i\\| > beta                  l_i - l > beta                      \\|l - l_i\\| > beta, and backward
                                                                                               elimination where that breaks down
nothing left           not known                           empty trigger                       at least one token
unlearning: classes    not known                           class 1 only                        the same share of every class
unlearning: places     not known                           the attacker's                      five kinds, drawn evenly
unlearning: of         the best direction                  a trigger typed in by hand          every direction whose trigger works
unlearning: samples    not known                           20 % triggered in place             copies; the clean sample stays
unlearning: trains     the last layer                      classifier, 5e-3, 1 epoch           parameter ``unlearn``
label directions       all                                 0 -> 1 only (the script stops)      all
=====================  ==================================  ==================================  ==================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo, TaskKind
from bench.errors import DataError, PluginError
from bench.inversions import Inverted
from bench.languages import get
from bench.models.handles import WhiteBox
from bench.samples import Sample
from defenses.inversion.positions import scan, sites_for
from defenses.inversion.scoring import Scorer, Site, scorer_for
from defenses.inversion.unlearning import lesson
from defenses.inversion.vocabulary import Vocabulary, allowed_tokens
from defenses.repair.elibadcode.anchoring import Anchored, anchor
from defenses.repair.elibadcode.gcg import Inversion, Search, invert

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
    """Invert a trigger in every label direction, keep what carries the effect, and unlearn it.

    The direction with the smallest loss is the one under suspicion, but a natural feature of a class (a token that marks weak code,
    pushed into a name) can invert to a smaller loss than the backdoor. Told nothing about the direction, ``blind`` therefore
    unlearns every direction whose trigger works, and its suspicion is minus the smallest loss, without a threshold.

    Attributes:
        variant: ``blind`` is told neither direction, position, pattern nor trigger. (``paper`` and ``release`` are not built.)
        clean: clean samples asked for, all of which serve for unlearning.
        victims: clean samples of each class on which a direction is inverted (N = 30).
        length: tokens of the trigger (n = 5).
        iterations: at most so many in each direction (epsilon = 100).
        top_k: substitutes of a position (k = 64).
        width: candidates of an iteration (r = 64).
        rung: samples that all candidates meet; see :class:`~defenses.repair.elibadcode.gcg.Search`.
        starts: random triggers, the best of which a search starts from.
        patience: a search stops after so many iterations in a row without gain.
        tolerance: a gain in mean loss (nats) below this counts as none.
        names: names of a sample that are masked to find its position, the most frequent first.
        masked: invert on the samples with the chosen name masked, as the paper draws it, or with it restored.
        beta: change of the loss (nats) above which a token of the trigger is needed (0.15).
        unlearn: ``all`` trains all parameters; ``head`` the classifier alone, as released (a 2-layer
            victim kept its backdoor under that: its features hold the trigger).
        share: of the clean samples of each class that also appear with a trigger; 1 gives every sample a triggered twin.
        learning_rate: of unlearning; ``None`` is the trainer's own for ``all``, and the released 5e-3 for ``head``.
        epochs: of unlearning.
        batch_size: of unlearning (32).
    """

    name = "elibadcode"
    version = 1
    summary = "inverts a trigger with gradients in every label direction and unlearns it"
    paper = "Sun et al., Eliminating Backdoors in Neural Code Models for Secure Code Understanding, FSE 2025"
    kinds = frozenset({TaskKind.CLASSIFICATION, TaskKind.PAIRS})
    inverts = True

    variant: Literal["blind"] = "blind"
    clean: Annotated[int, Field(ge=2)] = 300
    victims: Annotated[int, Field(ge=1)] = 30
    length: Annotated[int, Field(ge=1)] = 5
    iterations: Annotated[int, Field(ge=0)] = 100
    top_k: Annotated[int, Field(ge=1)] = 64
    width: Annotated[int, Field(ge=1)] = 64
    rung: Annotated[int, Field(ge=1)] = 2
    starts: Annotated[int, Field(ge=1)] = 32
    patience: Annotated[int, Field(ge=1)] = 2
    tolerance: Annotated[float, Field(ge=0)] = 0.02
    names: Annotated[int, Field(ge=1)] = 8
    masked: bool = True
    beta: Annotated[float, Field(ge=0)] = 0.15
    unlearn: Literal["all", "head"] = "all"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[int, Field(ge=0)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 32

    @property
    def needs(self) -> Needs:
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
        anchored = {
            each.text: anchor(
                scorer, each.sites, each.inversion.trigger, each.direction[1], self.beta, vocabulary.separator
            )
            for each in found
        }
        # Stable: of equal losses the first direction in label order.
        best = min(found, key=lambda each: each.inversion.loss)
        # A trigger works where the target is on average (geometric mean) more probable than all other classes together.
        taught = [each.text for each in found if each is best or anchored[each.text].whole < math.log(2)]
        texts = ["".join(_bare(anchored[direction], vocabulary)) for direction in taught]
        repaired, triggered = self._unlearn(model, known.clean, texts, context)
        facts: dict[str, object] = {
            "variant": self.variant,
            "vocabulary": len(vocabulary),
            "unlearning": {"parameters": self.unlearn, "directions": taught, "triggered": triggered},
        }
        inversions = {
            each.text: _inverted(each, anchored[each.text], vocabulary, unlearned=each.text in taught) for each in found
        }
        return Repaired(repaired, facts, inversions)

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
        vocabulary = allowed_tokens(model.tokenizer, language, model.network.embedding.num_embeddings)
        whole = self.length + len(vocabulary.glue)
        scanned = {
            label: scan(samples, model, scorer, room_for=whole, names=self.names)
            for label, samples in members.items()
            if samples
        }
        directions = [(victim, target) for victim in scanned for target in classes if target != victim]
        found = []
        for victim, target in context.progress(directions, "elibadcode: inverting label directions"):
            sites = sites_for(
                scanned[victim],
                target,
                length=whole,
                window=model.window,
                masked=self.masked,
            )
            rng = context.rng("defense", "elibadcode", "inversion", f"{victim}->{target}")
            found.append(Found((victim, target), sites, invert(scorer, sites, target, vocabulary, search, rng)))
        return found, vocabulary

    def _unlearn(
        self, model: WhiteBox, clean: Sequence[Sample], texts: Sequence[str], context: Context
    ) -> tuple[WhiteBox, int]:
        """The repaired model, and how many triggered samples taught it."""
        if context.trainer is None:
            raise PluginError("elibadcode unlearns through the harness's trainer, and context.trainer is None")
        rng = context.rng("defense", "elibadcode", "unlearning")
        samples = lesson(clean, texts, self.share, rng)
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


def _bare(kept: Anchored, vocabulary: Vocabulary) -> list[str]:
    """The anchored pieces without a separator that separates nothing any more."""
    pieces = vocabulary.pieces(kept.trigger)
    glue = len(vocabulary.glue)
    if glue and len(pieces) > glue and kept.trigger[:glue] == vocabulary.glue:
        return pieces[glue:]
    if glue and len(pieces) > glue and kept.trigger[-glue:] == vocabulary.glue:
        return pieces[:-glue]
    return pieces


def _inverted(found: Found, kept: Anchored, vocabulary: Vocabulary, *, unlearned: bool) -> Inverted:
    return Inverted(
        tokens=tuple(vocabulary.pieces(found.inversion.trigger)),
        kept=tuple(_bare(kept, vocabulary)),
        loss=found.inversion.loss,
        suspicion=-found.inversion.loss,
        unlearned=unlearned,
        trace=found.inversion.trace,
        facts={
            "iterations": found.inversion.iterations,
            "anchored_loss": kept.loss,
            "anchoring_rule": kept.rule,
            "changes": [round(change, 4) for change in kept.changes],
            "retokenises": vocabulary.realisable([kept.trigger])[0],
            "without_names": sum(site.name is None for site in found.sites),
        },
    )
