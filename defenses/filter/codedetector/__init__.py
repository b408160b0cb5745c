"""CodeDetector: influential tokens that spoil the model's answers on clean programs are triggers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bench.context import Context
from bench.contracts import Access, Filter, Known, Needs, Suspicion, TaskInfo, TaskKind
from defenses.filter.codedetector.attribution import influential
from defenses.filter.codedetector.insertion import Insertion
from defenses.filter.codedetector.rows import held_tokens, label_of, sides_of
from defenses.filter.flagging import flag


@dataclass(frozen=True, kw_only=True)
class CodeDetector(Filter):
    """Find the tokens that decide the victim's answers, try each on clean programs, drop every sample that holds a harmful one.

    Source: Li et al., "Poison Attack and Poison Detection on Deep Source Code Processing Models", ACM TOSEM 2023 (CodeDetector):
    integrated gradients name the most influential tokens of the training samples; each is put into clean programs, and one that
    lowers the model's accuracy there by more than a threshold is a trigger. **The authors' repository holds no code**, and
    another group that built it again found recall 0 in 15 of 20 settings: what follows is our reading, and so are its numbers.

    - Tokens are the victim's own (subwords), so that a suffix on a name is one; they are put in as token ids, at a place drawn for
      each clean program, in place of the last token where the window is full.
    - Influence is towards the sample's observed label (log-odds), over ``scanned`` training samples drawn by lot. The ``candidates``
      tried are those with the largest mean influence times log count: influential where they stand, and in many samples.
    - The threshold is on the *relative* fall of accuracy; those who built it again tried 0.1 to 0.4, and 0.1 is the default.
    - **The default departs from the published rule**, which flags every token that lowers accuracy by more than the threshold; that
      rule is ``false_positive_rate: 1``. By default a token is passed over where clean samples cannot spare it (at most 5 % of them
      may hold a flagged token): one that rightly decides a class is harmful in the other one.

    A trigger of several tokens of which none works alone is not found. Not defined for code search, where a trigger that stands in
    every program changes no order and there is no accuracy to fall.

    A sample's score is the largest fall of accuracy that one of its tokens caused, among those that clean samples can spare.

    Attributes:
        clean: number of clean samples.
        scanned: training samples whose tokens are weighed.
        steps: of the integration.
        from_each: influential tokens that each sample names.
        candidates: tokens that are tried on clean programs, those passed over included.
        threshold: relative fall of accuracy above which a token is a trigger.
        false_positive_rate: share of clean samples that may hold a flagged token; at 1, the published rule, every harmful token is
            flagged.
    """

    name = "codedetector"
    summary = (
        "drops samples that hold an influential token which spoils answers on clean programs; by default only tokens that "
        "clean code can spare (the published rule, false_positive_rate 1, flags every harmful one)"
    )
    paper = "Li et al.: Poison Attack and Poison Detection on Deep Source Code Processing Models. ACM TOSEM 2023"
    kinds = frozenset({TaskKind.CLASSIFICATION, TaskKind.PAIRS})
    toy_parameters: ClassVar[Mapping[str, object]] = {"scanned": 48, "steps": 4, "candidates": 8}

    clean: Annotated[int, Field(ge=1)] = 300
    scanned: Annotated[int, Field(ge=1)] = 2000
    steps: Annotated[int, Field(ge=1)] = 20
    from_each: Annotated[int, Field(ge=1)] = 10
    candidates: Annotated[int, Field(ge=1)] = 100
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    false_positive_rate: Annotated[float, Field(gt=0, le=1)] = 0.05

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The training set, the victim and ``clean`` samples."""
        return Needs(training_set=True, model=Access.WEIGHTS, clean=self.clean)

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Scores, and a decision that drops whoever holds a flagged token.

        Raises:
            bench.errors.ModelError: the victim's outputs are not finite (training diverged).
        """
        model, samples = known.white_box, known.training
        rng = context.rng("defense", self.name)
        sides = sides_of(model, samples)
        # Drawn in the order of ids, so that the training set's own order does not choose.
        by_id = sorted(range(len(samples)), key=lambda i: samples[i].id)
        drawn = [by_id[i] for i in rng.permutation(len(samples))[: self.scanned]]
        weights = influential(
            model,
            [[rows[i] for i in drawn] for rows in sides],
            [label_of(samples[i]) for i in drawn],
            self.steps,
            self.from_each,
            context,
        )
        candidates = sorted(weights, key=lambda token: (-weights[token], token))[: self.candidates]
        clean = held_tokens(sides_of(model, known.clean))
        # What clean samples cannot spare is neither flagged nor scored, whatever it does: it need not be tried.
        spared = [t for t in candidates if flag([t], clean, self.false_positive_rate)]
        falls = self._falls(Insertion(model, known.clean, rng), spared, context)
        harmful = sorted((t for t in falls if falls[t] > self.threshold), key=lambda t: (-falls[t], t))
        flagged = frozenset(flag(harmful, clean, self.false_positive_rate))
        words = {t: model.tokenizer.decode([t]) for t in harmful}
        context.log.info(
            "codedetector: harmful %s, flagged %s", list(words.values()), [words[t] for t in sorted(flagged)]
        )
        held = held_tokens(sides)
        scores = np.array([max((falls.get(token, 0.0) for token in tokens), default=0.0) for tokens in held])
        keep = np.array([flagged.isdisjoint(tokens) for tokens in held], dtype=np.bool_)
        return Suspicion(scores.astype(np.float64), keep)

    def _falls(self, clean: Insertion, candidates: Sequence[int], context: Context) -> dict[int, float]:
        """Relative fall of accuracy on clean samples for each token put in; none where the model is never right."""
        before = clean.accuracy()
        if before == 0.0:
            return {}
        tried: Iterator[int] = context.progress(candidates, "codedetector: trying tokens on clean programs")
        return {token: (before - clean.accuracy(token)) / before for token in tried}
