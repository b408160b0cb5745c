"""The frame of every repair that inverts a trigger: ask each claim, invert, keep what carries the effect, unlearn what works."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.errors import ModelError
from bench.inversions import Inverted
from bench.languages import get
from bench.models.handles import WhiteBox
from defenses.inversion.claims import Claim, Place, claims_of
from defenses.inversion.objective import Inversion, Objective, Strings
from defenses.inversion.scoring import Scorer, scorer_for
from defenses.inversion.unlearning import Cue, Unlearning, unlearn
from defenses.inversion.vocabulary import Vocabulary, allowed_tokens


@dataclass(frozen=True)
class Kept:
    """What of an inversion carries its effect.

    Attributes:
        strings: one a part; the trigger may be shorter than the one inverted.
        whole: loss of the whole strings.
        facts: JSON-ready, for the record.
    """

    strings: Strings
    whole: float
    facts: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class InversionRepair(Repair):
    """A repair that inverts a trigger for every claim and unlearns those that work.

    A subclass says how a claim is inverted (:meth:`invert`). Told nothing of the direction, every claim whose trigger works is
    unlearnt, and the most suspicious one in any case.

    Attributes:
        clean: clean samples asked for, all of which serve for unlearning.
        victims: clean samples of each class on which a direction is inverted (N = 30).
        length: tokens of the trigger (n = 5).
        unlearn: ``all`` trains all parameters; ``head`` the classifier alone, as released. ``None``, here and below, is the method's own:
            all of them, every sample with a triggered twin, 3 epochs.
        share: of the clean samples of each class that carry a trigger while the model is taught.
        learning_rate: of unlearning; ``None`` chooses it on held-out clean samples (:mod:`~defenses.inversion.unlearning`).
        epochs: of unlearning.
        batch_size: of unlearning (32).
    """

    inverts = True

    clean: Annotated[int, Field(ge=2)] = 300
    victims: Annotated[int, Field(ge=1)] = 30
    length: Annotated[int, Field(ge=1)] = 5
    unlearn: Literal["all", "head"] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[int, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32

    @property
    def needs(self) -> Needs:
        """Clean samples as many as ``clean`` says, and the weights."""
        return Needs(clean=self.clean, model=Access.WEIGHTS)

    def accuser(self) -> Repair:
        """Without unlearning, whose draws do not touch the inversion's."""
        return replace(self, epochs=0)

    @abstractmethod
    def invert(self, objective: Objective, rng: np.random.Generator) -> Inversion:
        """Search the strings that minimise an objective."""

    def keep(self, objective: Objective, inversion: Inversion) -> Kept:
        """What of an inversion carries its effect: all of it, where a method does not ask."""
        return Kept(inversion.strings, inversion.loss, {})

    def place(self) -> Place:
        """How the trigger's place in each sample is found."""
        return Place()

    def vocabulary(self, model: WhiteBox, task: TaskInfo) -> Vocabulary:
        """What a trigger may be made of."""
        return allowed_tokens(model.tokenizer, get(task.language), model.network.embedding.num_embeddings)

    def own_unlearning(self) -> Unlearning:
        """How the method teaches where no parameter says otherwise."""
        return Unlearning()

    def unlearning(self) -> Unlearning:
        """How the model is taught."""
        own = self.own_unlearning()
        return replace(
            own,
            lesson=own.lesson if self.share is None else replace(own.lesson, share=self.share),
            parameters=self.unlearn or own.parameters,
            learning_rate=self.learning_rate or own.learning_rate,
            epochs=own.epochs if self.epochs is None else self.epochs,
            batch_size=self.batch_size,
        )

    def taught(self, claims: Sequence[Claim], found: Sequence[tuple[Inversion, Kept]]) -> list[int]:
        """Which claims are unlearnt: those whose trigger works, and the one with the smallest loss in any case."""
        best = int(np.argmin([inversion.loss for inversion, _ in found]))
        return [
            i
            for i, (_, kept) in enumerate(found)
            if self.works(best=i == best, loss=kept.whole, border=claims[i].works)
        ]

    def works(self, *, best: bool, loss: float, border: float) -> bool:
        """Is a claim unlearnt?

        Args:
            best: it has the smallest loss of all claims.
            loss: of its whole trigger.
            border: loss below which a trigger works.
        """
        return best or loss < border

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """Invert every claim, and unlearn.

        Raises:
            DataError: no clean samples, or none with a label (a query, for code search).
            ConfigError: the window has no room for the trigger, or no token is allowed in it.
            ModelError: the model has no input embeddings.
        """
        model = known.white_box
        if not isinstance(model.network.encoder.get_input_embeddings(), torch.nn.Embedding):
            raise ModelError(f"{self.name} inverts through the model's input embeddings, and {model.name!r} has none")
        vocabulary = self.vocabulary(model, task)
        claims = claims_of(
            model,
            self.scorer(model),
            known.clean,
            task,
            vocabulary,
            victims=self.victims,
            length=self.length,
            place=self.place(),
        )
        found: list[tuple[Inversion, Kept]] = []
        for claim in context.progress(claims, f"{self.name}: inverting"):
            inversion = self.invert(claim.objective, context.rng("defense", self.name, claim.name))
            found.append((inversion, self.keep(claim.objective, inversion)))
        taught = self.taught(claims, found)
        cues = [cue for i in taught if (cue := cue_of(claims[i].objective, found[i][1].strings)) is not None]
        unlearnt = unlearn(model, known.clean, cues, self.unlearning(), context)
        inversions = {
            claim.name: _inverted(claim, inversion, kept, unlearned=i in taught and unlearnt.tried)
            for i, (claim, (inversion, kept)) in enumerate(zip(claims, found, strict=True))
        }
        facts: dict[str, object] = {"vocabulary": len(vocabulary), "unlearning": unlearnt.facts}
        return Repaired(unlearnt.model, {**facts, **self.facts()}, inversions)

    def scorer(self, model: WhiteBox) -> Scorer:
        """What asks the model: a private copy in evaluation mode."""
        return scorer_for(model)

    def facts(self) -> Mapping[str, object]:
        """More for the record, JSON-ready."""
        return {}


def cue_of(objective: Objective, strings: Strings) -> Cue | None:
    """The strings as text; ``None`` where nothing of the trigger is left."""
    text = "".join(bare(objective, strings))
    words = "".join(objective.parts[1].vocabulary.pieces(strings[1])) if len(strings) > 1 else ""
    return Cue(text, words.strip()) if text else None


def bare(objective: Objective, strings: Strings) -> list[str]:
    """The trigger's pieces without a separator that separates nothing any more."""
    vocabulary, trigger = objective.parts[0].vocabulary, strings[0]
    pieces, glue = vocabulary.pieces(trigger), len(vocabulary.glue)
    if glue and len(pieces) > glue and trigger[:glue] == vocabulary.glue:
        return pieces[glue:]
    if glue and len(pieces) > glue and trigger[-glue:] == vocabulary.glue:
        return pieces[:-glue]
    return pieces


def _inverted(claim: Claim, inversion: Inversion, kept: Kept, *, unlearned: bool) -> Inverted:
    parts, strings = claim.objective.parts, inversion.strings
    return Inverted(
        tokens=tuple(parts[0].vocabulary.pieces(strings[0])),
        kept=tuple(bare(claim.objective, kept.strings)),
        word=tuple(parts[1].vocabulary.pieces(strings[1])) if len(parts) > 1 else (),
        loss=inversion.loss,
        suspicion=-inversion.loss,
        unlearned=unlearned,
        trace=inversion.trace,
        facts={
            **kept.facts,
            "iterations": inversion.iterations,
            # Asked of every trigger, also where the search did not ask.
            "retokenises": replace(parts[0].vocabulary, retokenises=True).realisable([strings[0]])[0],
            "without_names": claim.without_names,
        },
    )
