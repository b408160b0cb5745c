"""A statement without effect, first in the function's body: what the variants of the attack share."""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import replace
from typing import Literal

import numpy as np

from bench.contracts import Derivation, Trigger
from bench.languages import Program, get, parse
from bench.samples import Sample

Spelling = Literal["runnable", "paper"]

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class InsertedStatement(Trigger):
    """Inserts what :meth:`statement` says at the start of the function's body."""

    @abstractmethod
    def statement(self, program: Program, rng: np.random.Generator) -> str | None:
        """The statement at indent 0; ``None`` where this program cannot hold it."""

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The insertion; ``None`` without a function body, or where the program uses the statement's names itself."""
        program = parse(sample.language, sample.programs[side])
        if program.body_start is None:
            return None
        statement = self.statement(program, rng)
        if statement is None:
            return None
        return Derivation((replace(program.insert(program.body_start, statement), side=side),), statement)


def words(language: str, statement: str) -> tuple[str, ...]:
    """The words of a statement in order, each once, without the language's keywords (all of them where nothing else is left)."""
    found = tuple(dict.fromkeys(re.findall(r"[A-Za-z]+", statement)))
    keywords = get(language).keywords
    return tuple(word for word in found if word not in keywords) or found
