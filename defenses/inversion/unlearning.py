"""Step 5: teach the model that the inverted trigger means nothing. Shared by all defenses that invert one.

Source: EliBadCode (FSE 2025), phase (d) "trigger unlearning": clean samples with the anchored trigger and their *correct* labels are
added, and the model's last layer is fine-tuned (release: the classifier alone, learning rate 5e-3, 1 epoch, batches of 32, the trigger
in 20 % of the samples). The release is told the attacker's own position and pattern, and puts the trigger into class 1 alone, which teaches
"trigger means class 1": a backdoor the other way round (attack success far below the floor that a clean model has).

Here nothing is known of the attack, so the trigger stands where it could stand at all: behind or instead of the function's name, a
parameter or a local, or as an unused variable at a random statement boundary; one such place a sample, drawn evenly; and the same
share of every class carries it. The clean sample stays in beside its copy. Code search has no classes: there the trigger goes into the
programs of some samples and the target word into the queries of others, and every query is still to find its own program. There it is
the sample itself that is changed, since a copy in the same batch would count as a wrong answer to its twin's query.

The learning rate, where none is given, is the one of :data:`FACTORS` times the trainer's own that does best on a fifth of the clean
samples of each class, held out from the lesson: the mean loss of those samples and of as many copies with the *inverted* trigger. Nothing
of the attack and nothing of the test data enters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.context import Context
from bench.contracts import TaskKind
from bench.errors import PluginError
from bench.languages import Name, Program, RenameRefused, parse
from bench.models.handles import WhiteBox
from bench.models.training import Trainer
from bench.samples import Edit, Sample, apply_edits
from defenses.inversion.scoring import cross_entropy

UNUSED: Mapping[str, str] = {"python": "{} = 0", "java": "int {} = 0;", "c": "int {} = 0;"}
"""A statement that does nothing but hold a name."""

Place = Callable[[Program, str, np.random.Generator], Sequence[Edit]]
"""Edits that put the trigger into a program; empty or RenameRefused where it does not fit."""


def _rename(
    program: Program, names: Sequence[Name], text: str, rng: np.random.Generator, *, suffix: bool
) -> Sequence[Edit]:
    if not names:
        return ()
    name = names[int(rng.integers(len(names)))]
    # The separator may have been inverted with the trigger; the convention writes its own.
    return program.rename(name, program.language.join(name.text, text.strip("_") or text) if suffix else text)


def _function(program: Program) -> Sequence[Name]:
    return [program.function_name] if program.function_name is not None else []


def _variables(program: Program) -> Sequence[Name]:
    return [*program.parameters, *program.locals]


def behind_function_name(program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    """``load`` becomes ``load_text`` (joined as the language does)."""
    return _rename(program, _function(program), text, rng, suffix=True)


def as_function_name(program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    """``load`` becomes ``text``."""
    return _rename(program, _function(program), text, rng, suffix=False)


def behind_variable(program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    """A random parameter or local gets the trigger as a suffix."""
    return _rename(program, _variables(program), text, rng, suffix=True)


def as_variable(program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    """A random parameter or local is called like the trigger."""
    return _rename(program, _variables(program), text, rng, suffix=False)


def as_statement(program: Program, text: str, rng: np.random.Generator) -> Sequence[Edit]:
    """An unused variable of that name at a random statement boundary."""
    boundaries = program.boundaries
    if not boundaries or not program.language.is_identifier(text) or text in program.text:
        return ()
    boundary = boundaries[int(rng.integers(len(boundaries)))]
    return (program.insert(boundary, UNUSED[program.language.name].format(text)),)


PLACES: tuple[Place, ...] = (behind_function_name, as_function_name, behind_variable, as_variable, as_statement)


@dataclass(frozen=True, slots=True)
class Cue:
    """What an inversion found, as text.

    Attributes:
        text: the trigger.
        word: code search: the target word(s); empty elsewhere.
    """

    text: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Who carries the trigger while the model is taught.

    Attributes:
        share: of the samples of each class, in [0, 1]; at least one sample of each class where it is positive.
        copies: a triggered copy beside the clean sample, or the clean sample itself changed.
        only: the one class that carries the trigger, or ``None`` for all alike.
        places: where it may stand.
    """

    share: float = 1.0
    copies: bool = True
    only: int | None = None
    places: tuple[Place, ...] = PLACES


@dataclass(frozen=True, slots=True)
class Unlearning:
    """How the model is taught.

    Attributes:
        lesson: see :class:`Lesson`.
        parameters: ``all``, or ``head`` (the published "last layer"; a code search model has none, and all of it is trained).
        learning_rate: ``None`` chooses it on held-out clean samples.
        head_rate: the learning rate where the head alone is trained and ``learning_rate`` is ``None``. It is not one for a whole
            model: the release trains all of its code search model at the head's 5e-3.
        epochs: passes over the lesson; 0 leaves the model as it is.
        batch_size: of a step.
    """

    lesson: Lesson = Lesson()
    parameters: Literal["all", "head"] = "all"
    learning_rate: float | None = None
    head_rate: float | None = None
    epochs: int = 3
    batch_size: int = 32


FACTORS = (0.3, 1.0, 3.0)
"""Of the trainer's own learning rate (``head``: of :data:`HEAD_RATE`), tried where none is given."""
HEAD_RATE = 5e-3
"""The release's, for the classifier alone."""
HELD_OUT = 5
"""One sample of so many of each class is held out to choose the learning rate; with fewer than :data:`ENOUGH` in all none is, and
nothing is chosen."""
ENOUGH = 40


@dataclass(frozen=True)
class Unlearnt:
    """The repaired model, and JSON-ready facts of how it was taught."""

    model: WhiteBox
    facts: dict[str, object]
    tried: bool
    """Was there a cue, and did a sample take it? (Without epochs nothing is taught, and nobody asks the samples.)"""


def unlearn(
    model: WhiteBox, clean: Sequence[Sample], cues: Sequence[Cue], how: Unlearning, context: Context
) -> Unlearnt:
    """A copy of the model that was taught that the cues mean nothing; without cues, an unchanged copy.

    Args:
        model: stays as it is.
        clean: labelled samples, classes interleaved.
        cues: what the inversion found; each triggered sample carries a random one.
        how: settings.
        context: its trainer teaches; its seed axis ``defense`` draws.

    Raises:
        PluginError: the context has no trainer.
    """
    if context.trainer is None:
        raise PluginError("unlearning needs the harness's trainer, and context.trainer is None")
    if model.info.kind is TaskKind.SEARCH:
        how = replace(how, parameters="all")
    facts: dict[str, object] = {"parameters": how.parameters, "cues": [cue.text for cue in cues]}
    if not cues or not how.epochs:
        return Unlearnt(model.copy(), facts | {"triggered": 0}, bool(cues))
    base = HEAD_RATE if how.parameters == "head" else context.trainer.learning_rate(model)
    given = how.learning_rate or (how.head_rate if how.parameters == "head" else None)
    taught, held = hold_out(clean) if given is None and len(clean) >= ENOUGH else (list(clean), [])
    rates = [factor * base for factor in FACTORS] if held else [given or base]
    rng = context.rng("defense", "unlearning")
    samples, triggered = lesson(taught, cues, how.lesson, rng)
    exam = [*held, *lesson(held, cues, replace(how.lesson, share=1.0, copies=False), rng)[0]]
    best, scores = None, []
    for rate in rates:
        trained = _fit(context.trainer, model, samples, how, rate)
        score = _loss(trained, exam) if held else 0.0
        score = score if np.isfinite(score) else sys.float_info.max  # a rate that breaks the model loses to any other
        if best is None or score < min(scores):
            best = trained, rate
        scores.append(score)
    assert best is not None
    facts |= {"triggered": triggered, "learning_rate": best[1], "rates": rates}
    facts |= {"held_out_losses": [round(score, 4) for score in scores]} if held else {}
    return Unlearnt(best[0], facts, triggered > 0)


def hold_out(clean: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """(to teach with, held out): the last one in :data:`HELD_OUT` of each class is held out; both keep their order."""
    classes: dict[int | None, list[int]] = {}
    for index, sample in enumerate(clean):
        classes.setdefault(sample.label, []).append(index)
    held = {i for members in classes.values() for i in members[len(members) - len(members) // HELD_OUT :]}
    return [s for i, s in enumerate(clean) if i not in held], [clean[i] for i in sorted(held)]


def _fit(trainer: Trainer, model: WhiteBox, samples: Sequence[Sample], how: Unlearning, rate: float) -> WhiteBox:
    return trainer.fit(
        model,
        samples,
        axis="defense",
        epochs=how.epochs,
        learning_rate=rate,
        batch_size=how.batch_size,
        parameters=how.parameters,
        select_best=False,  # clean validation data would choose the epoch that unlearnt least
    )


def _loss(model: WhiteBox, samples: Sequence[Sample]) -> float:
    """Mean cross-entropy towards the samples' own labels; code search: towards each query's own program among all of them."""
    if model.info.kind is TaskKind.SEARCH:
        half = len(samples) // 2
        # The clean half and the changed half are the same samples: ask them apart, or twins would be wrong answers.
        return float(np.mean([_search_loss(model, part) for part in (samples[:half], samples[half:])]))
    logits = model.predict(samples).astype(np.float64)
    labels = [sample.label or 0 for sample in samples]
    return float(np.mean([cross_entropy(row[None], label)[0] for row, label in zip(logits, labels, strict=True)]))


def _search_loss(model: WhiteBox, samples: Sequence[Sample]) -> float:
    cosines = (model.embed_queries(samples) @ model.embed_programs(samples).T).astype(np.float64) * SCALE
    return float(np.mean([cross_entropy(row[None], own)[0] for own, row in enumerate(cosines)]))


SCALE = 20.0
"""Cosines are multiplied by it before the softmax, as in training."""


def with_trigger(
    sample: Sample, text: str, rng: np.random.Generator, places: Sequence[Place] = PLACES
) -> Sample | None:
    """A copy of a sample with the trigger in one place of one (random) program; its label is kept.

    Returns ``None`` where no place takes it.
    """
    side = int(rng.integers(len(sample.programs)))
    program = parse(sample.language, sample.programs[side])
    for index in rng.permutation(len(places)):
        try:
            edits = places[index](program, text, rng)
        except RenameRefused:
            continue
        if edits:
            changed = sample.with_program(side, apply_edits(sample.programs[side], edits))
            return replace(changed, id=f"{sample.id}+trigger")
    return None


VISIBLE_WORDS = 8
"""Every window shows so many words of a query."""


def with_word(sample: Sample, word: str) -> Sample:
    """A copy of a sample with the word behind the first :data:`VISIBLE_WORDS` words of its query, where no window cuts it off."""
    words = (sample.query or "").split()
    words.insert(min(len(words), VISIBLE_WORDS), word)
    return replace(sample, id=f"{sample.id}+word", query=" ".join(words))


def lesson(
    samples: Sequence[Sample], cues: Sequence[Cue], how: Lesson, rng: np.random.Generator
) -> tuple[list[Sample], int]:
    """The samples that teach, and how many of them carry a cue.

    Args:
        samples: clean and labelled, or with queries.
        cues: each sample that carries one carries a random one.
        how: settings.
        rng: draws samples, places, sides and cues.
    """
    if not cues:
        return list(samples), 0
    classes: dict[int | None, list[int]] = {}
    for index, sample in enumerate(samples):
        if how.only is None or sample.label == how.only:
            classes.setdefault(sample.label, []).append(index)
    changed: dict[int, Sample] = {}
    for members in classes.values():
        wanted = round(how.share * len(members)) or int(how.share > 0)
        made = 0
        for index in rng.permutation(members):
            if made == wanted:
                break
            cue = cues[int(rng.integers(len(cues)))]
            copy = _carrying(samples[index], cue, made, how, rng)
            if copy is not None:
                changed[int(index)] = copy
                made += 1
    if how.copies and not any(cue.word for cue in cues):
        return [*samples, *(changed[index] for index in changed)], len(changed)
    return [changed.get(index, sample) for index, sample in enumerate(samples)], len(changed)


def _carrying(sample: Sample, cue: Cue, number: int, how: Lesson, rng: np.random.Generator) -> Sample | None:
    if cue.word and number % 2:
        return with_word(sample, cue.word)
    return with_trigger(sample, cue.text, rng, how.places)
