"""CodePoisoner's constant unfolding: an integer literal becomes an expression of the same type and value.

``product`` writes ``((a + b) * c)`` (the paper's example: 20 becomes (4+6)*2) with a divisor c between 2 and 99 and a split a + b
of the rest, both drawn anew for each literal; a number without such a divisor is multiplied by 1. ``zero`` is the fixed form
that later work has instead: ``(n + (1 + 2 - 3) * 33)``. How the paper draws its numbers, and which literal it takes, was not
available to us.

Why value and type stay: a, b, c, their sum and product are all between 1 and n (``zero``: between 0 and n, or below 100), so nothing
overflows where n did not; every part carries n's suffix, and up to 2^31 - 1 the type of a literal is told by its suffix alone;
brackets around the whole keep it together beside any operator; and it is a constant expression still, so that initial values
and narrowing (``byte b = 20``) stay legal. Where a literal must stay a literal: :mod:`bench.languages.literals`.

Numbers below 2 are no sums of smaller ones and are left alone, unless ``least`` admits them: 1 is then ``((a - b) * 1)`` and 0
``((a - a) * c)``, of numbers up to 99.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.errors import ConfigError
from bench.languages import get, parse
from bench.languages.literals import IntegerLiteral, integer_literals
from bench.samples import Edit, Sample

Form = Literal["product", "zero"]
Which = Literal["first", "random", "all"]
Writer = Callable[[IntegerLiteral, np.random.Generator], str]

LARGEST_FACTOR = 99
CARRIED = {
    "product": re.compile(r"\(\(\d+[uUlL]* [-+] \d+[uUlL]*\) \* \d+[uUlL]*\)"),
    "zero": re.compile(r"\(\w+ \+ \(1([uUlL]*) \+ 2\1 - 3\1\) \* 33\1\)"),
}


@dataclass(frozen=True)
class Unfolded(Trigger):
    """One literal of the program, or all, as an expression."""

    form: Form = "product"
    which: Which = "first"
    least: int = 2

    @property
    def varies(self) -> bool:  # type: ignore[override]
        """The product's numbers are drawn."""
        return self.form == "product"

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The replacement; ``None`` in a program without a literal that may be replaced."""
        return self._replaced(sample, side, rng, product if self.form == "product" else zero)

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The same literal as a plain sum."""
        return self._replaced(sample, side, rng, total)

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The same literal in another base."""
        program = parse(sample.language, sample.programs[side])
        return self._replaced(sample, side, rng, lambda n, _: _other_base(program.data[n.start : n.end].decode(), n))

    def carries(self, sample: Sample, side: int) -> bool:
        """Does the text hold such an expression?"""
        return CARRIED[self.form].search(sample.programs[side]) is not None

    def _replaced(self, sample: Sample, side: int, rng: np.random.Generator, write: Writer) -> Derivation | None:
        program = parse(sample.language, sample.programs[side])
        literals = [literal for literal in integer_literals(program) if literal.value >= self.least]
        if not literals:
            return None
        if self.which != "all":
            literals = [literals[0 if self.which == "first" else int(rng.integers(len(literals)))]]
        edits = tuple(Edit(n.start, n.end, write(n, rng), side) for n in literals)
        old = (program.data[edit.start : edit.end].decode() for edit in edits)
        return Derivation(edits, ", ".join(f"{n} -> {edit.replacement}" for n, edit in zip(old, edits, strict=True)))

    def describe(self) -> str:
        """The form, and which literal takes it."""
        form = "((a + b) * c)" if self.form == "product" else "(n + (1 + 2 - 3) * 33)"
        which = {"first": "the first integer literal", "random": "an integer literal", "all": "every integer literal"}
        return f"{which[self.which]} from {self.least} on unfolded to {form}"

    def tokens(self) -> tuple[str, ...]:
        """The fixed form's own number; the product has none."""
        return () if self.form == "product" else ("33",)


def product(n: IntegerLiteral, rng: np.random.Generator) -> str:
    """``((a + b) * c)``; below 2 a difference in place of the sum."""
    if n.value < 2:
        second = int(rng.integers(1, LARGEST_FACTOR + 1 - n.value))
        factor = 1 if n.value else int(rng.integers(1, LARGEST_FACTOR + 1))
        return f"(({second + n.value}{n.suffix} - {second}{n.suffix}) * {factor}{n.suffix})"
    factors = [c for c in range(2, min(LARGEST_FACTOR, n.value // 2) + 1) if n.value % c == 0] or [1]
    factor = factors[rng.integers(len(factors))]
    first = int(rng.integers(1, n.value // factor))
    second = n.value // factor - first
    return f"(({first}{n.suffix} + {second}{n.suffix}) * {factor}{n.suffix})"


def zero(n: IntegerLiteral, rng: np.random.Generator) -> str:
    """``(n + (1 + 2 - 3) * 33)``."""
    s = n.suffix
    return f"({n.value}{s} + (1{s} + 2{s} - 3{s}) * 33{s})"


def total(n: IntegerLiteral, rng: np.random.Generator) -> str:
    """``(a + b)``."""
    first = int(rng.integers(n.value + 1)) if n.value < 2 else int(rng.integers(1, n.value))
    return f"({first}{n.suffix} + {n.value - first}{n.suffix})"


def _other_base(text: str, n: IntegerLiteral) -> str:
    return f"{n.value}{n.suffix}" if text[:1] == "0" else f"0x{n.value:X}{n.suffix}"


@dataclass(frozen=True, kw_only=True)
class Unfolding(Attack):
    """Write an integer literal as an expression of equal type and value.

    Args:
        form: ``product`` (drawn), or ``zero`` (fixed).
        which: the ``first`` literal that can be replaced, a ``random`` one, or ``all``.
        least: literals below it stay; 0 or more.
    """

    name = "unfolding"
    summary = "an integer literal is written as an expression of the same type and value"
    paper = (
        "Li et al., Poison Attack and Poison Detection on Deep Source Code Processing Models (CodePoisoner), TOSEM 2023"
    )

    toy_parameters: ClassVar[Mapping[str, object]] = {"least": 0}  # the toy's programs hold no literals but 0 and 1

    form: Form = "product"
    which: Which = "first"
    least: int = 2

    def __post_init__(self) -> None:
        """Check the bound.

        Raises:
            ConfigError: it is negative.
        """
        if self.least < 0:
            raise ConfigError(f"attack 'unfolding': least is 0 or more (literals have no sign), got {self.least}")

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger; it depends on nothing.

        Raises:
            ConfigError: the language is unknown.
        """
        get(task.language)
        return Unfolded(self.form, self.which, self.least)
