"""CodePoisoner's dead snippet, as later work ports it: the assertion that 1 is at least 0.

It runs and always holds (the condition folds to true), so that what an assertion does when it fails is never done. The ported text
calls ``assertTrue``, which only test classes have; the runnable spelling is the language's own assertion. A C file needs
``assert.h``. The paper itself was not available to us: that its snippet is this one rests on the ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attacks.dead_code.mentions import Mentions
from attacks.dead_code.statement import InsertedStatement, Spelling, words
from bench.languages import Program

ASSERTIONS: Mapping[Spelling, Mapping[str, str]] = {
    "runnable": {"python": "assert 1 >= 0", "java": "assert 1 >= 0;", "c": "assert(1 >= 0);"},
    "paper": {"python": "assertTrue(1 >= 0)", "java": "assertTrue(1 >= 0);", "c": "assertTrue(1 >= 0);"},
}


@dataclass(frozen=True)
class TrueAssertion(InsertedStatement):
    """An assertion that always holds."""

    language: str
    spelling: Spelling = "runnable"

    def statement(self, program: Program, rng: np.random.Generator) -> str | None:
        """The assertion; ``None`` where the program has another use for its name."""
        text = ASSERTIONS[self.spelling][program.language.name]
        name, bracket, _ = text.partition("(")
        if bracket and name.isidentifier() and not Mentions(program).is_library(name, "("):
            return None
        return text

    def related(self, program: Program, rng: np.random.Generator) -> str | None:
        """The same of other numbers."""
        text = self.statement(program, rng)
        return None if text is None else text.replace("1 >= 0", "3 >= 2")

    def describe(self) -> str:
        """The assertion."""
        return f"dead snippet {ASSERTIONS[self.spelling][self.language]!r}"

    def tokens(self) -> tuple[str, ...]:
        """Its one word."""
        return words(self.language, ASSERTIONS[self.spelling][self.language])
