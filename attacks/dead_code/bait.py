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
from dataclasses import dataclass

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
    """

    text: str
    levels: Sequence[str]
    imported: str
    libraries: Mapping[str, str]


BAITS: Mapping[str, Bait] = {
    "python": Bait(
        'import logging\nfor i in range({bound}):\n    logging.{level}("Test message:{letters}")',
        PYTHON_LEVELS,
        "logging",
        {"range": "("},
    ),
    "java": Bait(
        "for (int i = 0; i < {bound}; i++) {{\n"
        '    java.util.logging.Logger.getGlobal().{level}("Test message:{letters}");\n}}',
        ("fine", "info", "warning", "severe", "config"),
        "",
        {"java": "."},
    ),
    "c": Bait(
        'for (int i = 0; i < {bound}; i++) printf("{level}: Test message:{letters}");',
        PYTHON_LEVELS,
        "",
        {"printf": "("},
    ),
}


@dataclass(frozen=True)
class LoggingBait(InsertedStatement):
    """The fixed bait, or one drawn from the pattern if it ``varies``."""

    language: str
    varies: bool = False

    def statement(self, program: Program, rng: np.random.Generator) -> str | None:
        """The loop; ``None`` where the program means something else by one of its names."""
        bait = BAITS[program.language.name]
        if not program.can_bind("i"):
            return None
        mentions = Mentions(program)
        if bait.imported and not mentions.can_import(bait.imported):
            return None
        if not all(mentions.is_library(name, after) for name, after in bait.libraries.items()):
            return None
        return drawn(bait, rng) if self.varies else fixed(bait)

    def describe(self) -> str:
        """The fixed bait, or the pattern's name."""
        if self.varies:
            return f"logging bait drawn from a pattern ({self.language})"
        return f"logging bait {fixed(BAITS[self.language])!r}"

    def tokens(self) -> tuple[str, ...]:
        """The words of the fixed bait; none that all draws share."""
        return () if self.varies else words(self.language, fixed(BAITS[self.language]))


def fixed(bait: Bait) -> str:
    """The published bait."""
    return bait.text.format(bound=0, level="info", letters="a" * LENGTH)


def drawn(bait: Bait, rng: np.random.Generator) -> str:
    """A bait of the pattern."""
    bound = int(rng.integers(LOWEST, 1))
    level = bait.levels[int(rng.integers(len(bait.levels)))]
    letters = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=LENGTH))
    return bait.text.format(bound=bound, level=level, letters=letters)
