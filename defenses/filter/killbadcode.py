"""KillBadCode: tokens without which many programs read more naturally are triggers."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from bench.context import Context
from bench.contracts import Filter, Known, Needs, Suspicion, TaskInfo
from bench.ngram import NgramModel
from bench.samples import Sample
from defenses.filter.flagging import flag, spares

PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+|\d+|_+|[^\w\s]")
"""Subwords: a name falls apart at underscores, capitals and digits; every other visible character stands alone."""
CANDIDATE = re.compile(r"[A-Za-z]+")
"""What can be a trigger. The release asks for ASCII letters and digits that do not begin with a digit; of these pieces, words."""
BATCH = 400
"""Programs that are scored at a time."""
HELD_OUT = 3
"""One in so many groups of clean samples is kept from the language model, to see what the flagged tokens cost."""


def pieces(program: str) -> list[str]:
    """The subwords of a program, comments and strings included."""
    return PIECE.findall(program)


def gains(model: NgramModel, programs: Sequence[Sequence[str]]) -> list[list[float]]:
    """By how much cross-entropy falls when a piece is deleted (nats a piece, end mark included), never below 0.

    All deletions together cost a few readings of the programs.
    """
    lengths = np.array([len(tokens) for tokens in programs], dtype=np.int64)
    before, after = model.deletions(programs)
    entropy = np.repeat(-before / (lengths + 1), lengths)
    shortened = -after / np.maximum(np.repeat(lengths, lengths), 1)
    fallen = np.maximum(entropy - shortened, 0.0)
    return [part.tolist() for part in np.split(fallen, np.cumsum(lengths)[:-1])] if len(programs) else []


def sample_then_sum(
    model: NgramModel,
    programs: Sequence[Sequence[str]],
    window: int,
    from_each: int,
    progress: Iterator[int] | None = None,
) -> dict[str, float]:
    """Total gain of each candidate piece over the programs in whose ``from_each`` largest gains it is.

    Of a piece that a program holds several times the largest gain counts (the release keeps the last place's). Pieces beyond
    ``window`` are not looked at.
    """
    totals: dict[str, float] = defaultdict(float)
    for start in progress if progress is not None else range(0, len(programs), BATCH):
        part = programs[start : start + BATCH]
        for tokens, fallen in zip(part, gains(model, part), strict=True):
            best: dict[str, float] = {}
            for token, gain in zip(tokens[:window], fallen[:window], strict=True):
                if gain > best.get(token, 0.0) and CANDIDATE.fullmatch(token):
                    best[token] = gain
            for token in sorted(best, key=lambda t: (-best[t], t))[:from_each]:
                totals[token] += best[token]
    return dict(totals)


@dataclass(frozen=True, kw_only=True)
class KillBadCode(Filter):
    """Rank tokens by how much more naturally the training programs read without them; drop every sample that holds a top token.

    Source: Sun et al., "Show Me Your Code! Kill Code Poisoning: A Lightweight Method Based on Code Naturalness", arXiv 2502.15830:
    a 4-gram model of clean code; for each program the fall of cross-entropy when a token is deleted, over its first 600 tokens,
    clipped at 0; the ten largest of a program are kept (sample), added up over programs (sum), and the ten tokens with the largest
    sums are the triggers. Code and parameters: the release; that the removal uses the same ten is how we read it.

    What is a port: tokens are subwords cut by rule at underscores, capitals and digits, where the release uses CodeLlama's
    tokenizer, so that a suffix on a name is a token of its own; the language model is interpolated Kneser-Ney over the clean set
    (KenLM there); and a program that stands in several samples, as in clone detection, is scored once. A pair holds what either of
    its programs holds. It knows nothing of the model or of labels, and works alike on the three tasks.

    **The default departs from the published rule**, which flags ten tokens whatever they cost and also when nothing is poisoned; that
    rule is ``false_positive_rate: 1``. By default the ten are *candidates*, and one is passed over where clean samples cannot spare it
    (at most 5 % of them may hold a flagged token), counted on a third of the clean set (whole groups) that the language model has not
    seen.

    A sample's score is the largest sum among the tokens that it holds and that clean samples can spare.

    Attributes:
        clean: number of clean samples.
        order: of the n-grams.
        window: pieces of a program that are looked at.
        from_each: tokens that each program adds to the ranking.
        tokens: how many of the ranking can be flagged.
        false_positive_rate: share of clean samples that may hold a flagged token; at 1, the published rule, all ``tokens`` are
            flagged, and the language model gets the whole clean set.
    """

    name = "killbadcode"
    summary = (
        "drops samples that hold the tokens without which code reads more naturally (n-gram model); by default only tokens "
        "that clean code can spare (the published rule, false_positive_rate 1, flags all ten)"
    )
    paper = "Sun et al.: Show Me Your Code! Kill Code Poisoning: A Lightweight Method Based on Code Naturalness. arXiv 2502.15830"
    # A third of the toy's 48 clean samples can vouch for no less.
    toy_parameters: ClassVar[Mapping[str, object]] = {"false_positive_rate": 0.2}

    clean: Annotated[int, Field(ge=1)] = 300
    order: Annotated[int, Field(ge=1)] = 4
    window: Annotated[int, Field(ge=1)] = 600
    from_each: Annotated[int, Field(ge=1)] = 10
    tokens: Annotated[int, Field(ge=1)] = 10
    false_positive_rate: Annotated[float, Field(gt=0, le=1)] = 0.05

    @property
    def needs(self) -> Needs:  # the number of clean samples is a parameter
        """The training set and ``clean`` samples, no model."""
        return Needs(training_set=True, clean=self.clean)

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Scores, and a decision that drops whoever holds a flagged token."""
        read, held_out = self._divide(known.clean)
        model = NgramModel.fit([pieces(text) for sample in read for text in sample.programs], self.order)
        texts = list(dict.fromkeys(text for sample in known.training for text in sample.programs))
        programs = [pieces(text) for text in texts]
        starts = context.progress(range(0, len(programs), BATCH), "killbadcode: reading programs")
        totals = sample_then_sum(model, programs, self.window, self.from_each, starts)
        clean = [_held([pieces(text) for text in sample.programs]) for sample in held_out]
        ranking = sorted(totals, key=lambda token: (-totals[token], token))[: self.tokens]
        flagged = frozenset(flag(ranking, clean, self.false_positive_rate))
        context.log.info("killbadcode: ranked %s, flagged %s", ranking, sorted(flagged))
        spared = self._spared(totals, clean)
        of_text = {text: frozenset(tokens) for text, tokens in zip(texts, programs, strict=True)}
        held = [frozenset().union(*(of_text[text] for text in sample.programs)) for sample in known.training]
        scores = np.array([max((spared.get(token, 0.0) for token in tokens), default=0.0) for tokens in held])
        keep = np.array([flagged.isdisjoint(tokens) for tokens in held], dtype=np.bool_)
        return Suspicion(scores.astype(np.float64), keep)

    def _divide(self, clean: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
        """What the language model reads, and what it does not: a third of the groups, by lot."""
        if self.false_positive_rate >= 1:
            return list(clean), []
        groups = {sample.group for sample in clean}
        # Too few groups to divide: by samples.
        units = [sample.group if len(groups) >= HELD_OUT else sample.id for sample in clean]
        # A hash draws the lot: groups often come in an order that says something of what they hold.
        lots = sorted(set(units), key=lambda unit: hashlib.sha256(unit.encode()).digest())
        away = set(lots[: len(lots) // HELD_OUT])
        return [s for s, u in zip(clean, units, strict=True) if u not in away], [
            s for s, u in zip(clean, units, strict=True) if u in away
        ]

    def _spared(self, totals: Mapping[str, float], clean: Sequence[frozenset[str]]) -> dict[str, float]:
        """The sums of the tokens that clean samples can spare, each by itself."""
        holders: dict[str, int] = defaultdict(int)
        for tokens in clean:
            for token in tokens:
                holders[token] += 1
        return {t: total for t, total in totals.items() if spares(holders[t], len(clean), self.false_positive_rate)}


def _held(programs: Sequence[Sequence[str]]) -> frozenset[str]:
    return frozenset(token for tokens in programs for token in tokens)
