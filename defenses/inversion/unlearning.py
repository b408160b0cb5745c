"""Step 5: teach the model that the inverted trigger means nothing.

Source: EliBadCode (FSE 2025), phase (d) "trigger unlearning": clean samples with the anchored trigger and their *correct* labels are
added, and the model's last layer is fine-tuned (release: the classifier alone, learning rate 5e-3, 1 epoch, batches of 32, the trigger
in 20 % of the samples). The release is told the attacker's own position and pattern, and puts the trigger into class 1 alone, which teaches
"trigger means class 1": a backdoor the other way round (attack success far below the floor that a clean model has).

Here nothing is known of the attack, so the trigger stands where it could stand at all: behind or instead of the function's name, a
parameter or a local, or as an unused variable at a random statement boundary; one such place a sample, drawn evenly; and the same
share of every class carries it. The clean sample stays in beside its copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench.languages import Name, Program, RenameRefused, parse
from bench.samples import Edit, Sample, apply_edits

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


def with_trigger(sample: Sample, text: str, rng: np.random.Generator) -> Sample | None:
    """A copy of a sample with the trigger in one place of one (random) program; its label is kept.

    Returns ``None`` where no place takes it.
    """
    side = int(rng.integers(len(sample.programs)))
    program = parse(sample.language, sample.programs[side])
    for index in rng.permutation(len(PLACES)):
        try:
            edits = PLACES[index](program, text, rng)
        except RenameRefused:
            continue
        if edits:
            changed = sample.with_program(side, apply_edits(sample.programs[side], edits))
            return replace(changed, id=f"{sample.id}+trigger")
    return None


def lesson(samples: Sequence[Sample], texts: Sequence[str], share: float, rng: np.random.Generator) -> list[Sample]:
    """The samples for unlearning: all clean ones, and triggered copies of the same share of every class.

    Args:
        samples: clean and labelled.
        texts: triggers; each triggered copy carries a random one of them.
        share: of each class, in [0, 1]; at least one sample of each class where it is positive.
        rng: draws samples, places and sides.
    """
    classes: dict[int | None, list[Sample]] = {}
    for sample in samples:
        classes.setdefault(sample.label, []).append(sample)
    count = {label: round(share * len(members)) or int(share > 0) for label, members in classes.items()}
    copies: list[Sample] = []
    for label, members in classes.items():
        made: list[Sample] = []
        for index in rng.permutation(len(members)):
            if len(made) == count[label]:
                break
            copy = with_trigger(members[index], texts[int(rng.integers(len(texts)))], rng)
            if copy is not None:
                made.append(copy)
        copies += made
    return [*samples, *copies]
