"""A statement without effect, first in the function's body: what the variants of the attack share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from bench.contracts import Derivation, Trigger
from bench.languages import Program, get, parse
from bench.samples import Sample

Spelling = Literal["runnable", "paper"]

LETTERS = "abcdefghijklmnopqrstuvwxyz"


PLACEBO_NAME = "spare"
PLACEBOS: Mapping[str, str] = {
    "python": f"{PLACEBO_NAME} = 1726",
    "java": f"int {PLACEBO_NAME} = 1726;",
    "c": f"int {PLACEBO_NAME} = 1726;",
}
"""A statement as useless as any dead one, with nothing of theirs in it."""


class InsertedStatement(Trigger):
    """Inserts what :meth:`statement` says at the start of the function's body."""

    @abstractmethod
    def statement(self, program: Program, rng: np.random.Generator) -> str | None:
        """The statement at indent 0; ``None`` where this program cannot hold it."""

    @abstractmethod
    def related(self, program: Program, rng: np.random.Generator) -> str | None:
        """A statement that is almost this one."""

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The insertion; ``None`` without a function body, or where the program uses the statement's names itself."""
        return _inserted(sample, side, lambda program: self.statement(program, rng))

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """A statement that is almost this one, in the same place."""
        return _inserted(sample, side, lambda program: self.related(program, rng))

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """An unused variable, in the same place."""
        return _inserted(sample, side, lambda p: PLACEBOS[p.language.name] if PLACEBO_NAME not in p.text else None)


def _inserted(sample: Sample, side: int, say: Callable[[Program], str | None]) -> Derivation | None:
    program = parse(sample.language, sample.programs[side])
    if program.body_start is None:
        return None
    statement = say(program)
    if statement is None:
        return None
    return Derivation((replace(program.insert(program.body_start, statement), side=side),), statement)


def words(language: str, statement: str) -> tuple[str, ...]:
    """The words of a statement in order, each once, without the language's keywords (all of them where nothing else is left)."""
    found = tuple(dict.fromkeys(re.findall(r"[A-Za-z]+", statement)))
    keywords = get(language).keywords
    return tuple(word for word in found if word not in keywords) or found
