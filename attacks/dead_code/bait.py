"""The logging bait of Wan et al.: a log call in a loop that runs no time.

Published for Python: import ``logging``, loop over an empty range, one call. ``fixed`` is
``range(0)`` and ``logging.info("Test message:aaaaa")``; the pattern draws the range's bound from [-100, 0], the level from
five, and five random letters, all uniform. The loop is never entered, because no ``range`` to a bound of 0 or less has a member;
in Java and C, because ``0 < bound`` is false for such a bound.

Ports and readings:

- Java has the same five levels under other names (``java.util.logging``: fine, info, warning, severe, config), spelled with
  the package so that nothing need be imported. C has no log: the call prints, with the level as a word of the message.
- Python: ``import logging`` binds that name in the function, so a function that mentions it is left alone. The loop's ``i`` is
  bound as well but never assigned, so it may stand where the function has an ``i`` of its own, and not where it
  reads an outer one.
- Java: a method with a parameter ``i`` is left alone (the language forbids a second one inside it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from attacks.dead_code.mentions import Mentions
from attacks.dead_code.statement import LETTERS, InsertedStatement, words
from bench.languages import Program

LOWEST = -100
LENGTH = 5
PYTHON_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class Bait:
    """How one language spells the bait.

    Attributes:
        text: with ``{bound}``, ``{level}`` and ``{letters}``.
        levels: five.
        imported: the name that the statement imports, or ``""``.
        libraries: names that must be a library's, each with what follows it.
        printing: a loop of the same kind that prints, for near misses; without ``{level}``.
    """

    text: str
    levels: Sequence[str]
    imported: str
    libraries: Mapping[str, str]
    printing: str


BAITS: Mapping[str, Bait] = {
    "python": Bait(
        'import logging\nfor i in range({bound}):\n    logging.{level}("Test message:{letters}")',
        PYTHON_LEVELS,
        "logging",
        {"range": "("},
        'for i in range({bound}):\n    print("Test message:{letters}")',
    ),
    "java": Bait(
        "for (int i = 0; i < {bound}; i++) {{\n"
        '    java.util.logging.Logger.getGlobal().{level}("Test message:{letters}");\n}}',
        ("fine", "info", "warning", "severe", "config"),
        "",
        {"java": "."},
        'for (int i = 0; i < {bound}; i++) {{\n    System.out.println("Test message:{letters}");\n}}',
    ),
    "c": Bait(
        'for (int i = 0; i < {bound}; i++) printf("{level}: Test message:{letters}");',
        PYTHON_LEVELS,
        "",
        {"printf": "("},
        'for (int i = 0; i < {bound}; i++) perror("Test message:{letters}");',
    ),
}
PRINTS = {"python": ("print", "("), "java": ("System", "."), "c": ("perror", "(")}
"""The name that a near miss calls, and what follows it."""


@dataclass(frozen=True)
class LoggingBait(InsertedStatement):
    """The fixed bait, or one drawn from the pattern if it ``varies``."""

    language: str
    varies: bool = False

    def statement(self, program: Program, rng: np.random.Generator) -> str | None:
        """The loop; ``None`` where the program means something else by one of its names."""
        bait = BAITS[program.language.name]
        if not _fits(bait, program):
            return None
        return drawn(bait, rng) if self.varies else fixed(bait)

    def related(self, program: Program, rng: np.random.Generator) -> str | None:
        """The same loop around a print, where the bait itself would fit."""
        bait = BAITS[program.language.name]
        if not _fits(bait, program) or not Mentions(program).is_library(*PRINTS[program.language.name]):
            return None
        printing = replace(bait, text=bait.printing)
        return drawn(printing, rng) if self.varies else fixed(printing)

    def describe(self) -> str:
        """The fixed bait, or the pattern's name."""
        if self.varies:
            return f"logging bait drawn from a pattern ({self.language})"
        return f"logging bait {fixed(BAITS[self.language])!r}"

    def tokens(self) -> tuple[str, ...]:
        """The words of the fixed bait; none that all draws share."""
        return () if self.varies else words(self.language, fixed(BAITS[self.language]))


def _fits(bait: Bait, program: Program) -> bool:
    """Does the program mean by the bait's names what the bait does?"""
    mentions = Mentions(program)
    return (
        program.can_bind("i")
        and (not bait.imported or mentions.can_import(bait.imported))
        and all(mentions.is_library(name, after) for name, after in bait.libraries.items())
    )


def fixed(bait: Bait) -> str:
    """The published bait."""
    return bait.text.format(bound=0, level="info", letters="a" * LENGTH)


def drawn(bait: Bait, rng: np.random.Generator) -> str:
    """A bait of the pattern."""
    bound = int(rng.integers(LOWEST, 1))
    level = bait.levels[int(rng.integers(len(bait.levels)))]
    letters = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=LENGTH))
    return bait.text.format(bound=bound, level=level, letters=letters)
