"""What an inversion is asked: one claim a label direction, or one for code search, each with the objective that it minimises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, permutations

from bench.contracts import TaskInfo, TaskKind
from bench.errors import DataError
from bench.models.handles import WhiteBox
from bench.samples import Sample
from defenses.inversion.objective import Objective, Part, TowardsClass
from defenses.inversion.positions import Rule, Scanned, scan, sites_as_released, sites_at, sites_for
from defenses.inversion.retrieval import TowardsWord, query_sites
from defenses.inversion.scoring import Scorer, Site
from defenses.inversion.vocabulary import Vocabulary, query_words

SEARCH_CLAIM = "trigger->word"
WORD_LENGTH = 2
"""Tokens of the target word (m of the paper)."""


@dataclass(frozen=True, eq=False)
class Claim:
    """ "Programs of this class are turned into that one by a trigger."

    Attributes:
        name: ``victim->target``; code search: ``trigger->word``.
        objective: what the trigger minimises.
        works: a loss below which the trigger counts as working: the target is then on average (geometric mean) more probable than all
            other classes together; infinite for code search, where there is no such border.
        without_names: samples that have no name, where the trigger stands in front of the program.
    """

    name: str
    objective: Objective
    works: float
    without_names: int


@dataclass(frozen=True)
class Place:
    """How the trigger's place in each sample is found.

    Attributes:
        names: names of a sample that are masked, the most frequent first; ``None`` for all.
        functions: the function's name is one of them, or variables alone.
        masked: keep the chosen name masked elsewhere, or restored.
        rule: which masking decides.
        released: the release's own positions instead: a word index taken for a token index, and candidates scored at token 10.
    """

    names: int | None = 8
    functions: bool = True
    masked: bool = True
    rule: Rule = "rise"
    released: bool = False


SCORED_AT = 10
"""The token index at which the release scores its candidates, whatever the position that it differentiates at."""


def claims_of(
    model: WhiteBox,
    scorer: Scorer,
    clean: Sequence[Sample],
    task: TaskInfo,
    vocabulary: Vocabulary,
    *,
    victims: int,
    length: int,
    place: Place,
) -> list[Claim]:
    """Every label direction that the clean samples allow; one claim for code search.

    Args:
        model: under suspicion.
        scorer: on a private copy of it.
        clean: samples, labelled or with queries.
        task: of the model.
        vocabulary: of the trigger.
        victims: samples of each class that are inverted on.
        length: tokens of the trigger, separator not counted.
        place: how positions are found.

    Raises:
        DataError: no sample has a label of the task, or a query.
        ConfigError: the window has no room for the trigger.
    """
    part = Part("trigger", vocabulary, length)
    if task.kind is TaskKind.SEARCH:
        return [_search_claim(model, scorer, [s for s in clean if s.query][:victims], part, place)]
    classes = range(len(task.labels))
    members = {label: list(islice((s for s in clean if s.label == label), victims)) for label in classes}
    if not any(members.values()):
        raise DataError(
            f"the inversion needs labelled clean samples of task {task.name!r}; of the {len(clean)} it got, none has a label in "
            f"0 to {len(classes) - 1}. Raise the task's budget size."
        )
    scanned = {
        label: scan(samples, model, scorer, room_for=part.size, names=place.names, functions=place.functions)
        for label, samples in members.items()
        if samples
    }
    found = []
    for victim, target in permutations(classes, 2):
        if victim in scanned:
            sites = _sites(members[victim], scanned[victim], target, part, model, place)
            scored = sites
            if place.released:
                scored = sites_at(scanned[victim], SCORED_AT, length=part.size, window=model.window)
            nameless = sum(all(m.name is None for m in each.maskings) for each in scanned[victim])
            objective = TowardsClass(scorer, sites, target, part, scored)
            found.append(Claim(f"{victim}->{target}", objective, math.log(2), nameless))
    return found


def _sites(
    samples: Sequence[Sample], scanned: Sequence[Scanned], aim: int, part: Part, model: WhiteBox, place: Place
) -> list[Site]:
    if place.released:
        return sites_as_released(samples, scanned, aim, length=part.size, window=model.window)
    return sites_for(scanned, aim, length=part.size, window=model.window, masked=place.masked, rule=place.rule)


def _search_claim(model: WhiteBox, scorer: Scorer, samples: Sequence[Sample], part: Part, place: Place) -> Claim:
    if not samples:
        raise DataError("the inversion needs clean samples with queries, and got none. Raise the task's budget size.")
    scanned = scan(samples, model, scorer, room_for=part.size, names=place.names, functions=place.functions)
    word = Part("word", query_words(model.tokenizer, model.network.embedding.num_embeddings), WORD_LENGTH)
    programs = _sites(samples, scanned, 0, part, model, place)
    queries = query_sites(samples, model, word.size)
    nameless = sum(all(m.name is None for m in each.maskings) for each in scanned)
    return Claim(SEARCH_CLAIM, TowardsWord(scorer, programs, queries, (part, word)), math.inf, nameless)
