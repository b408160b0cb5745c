"""The dead code of Ramakrishnan and Albarghouthi: a condition that is never true, and what it would do.

``fixed`` is one statement for all samples. ``grammar`` draws a statement for each sample from

=====  =========================================================================================================
T      ``K (C) B``, printed in the language's syntax
K      ``if`` | ``while``
C      ``F op N``
F      ``sin(x)`` | ``cos(x)`` | ``exp(x)`` | ``sqrt(x)`` | a random number (Java also ``cbrt(x)``)
x      a decimal number in [0.00, 1.00]
op     ``<`` ``<=`` ``==`` with an N below the range of F, ``>`` ``>=`` with an N above it
N      a whole number 1 to 100 away from the range of F
B      raise or print M (C: ``printf`` or ``perror``)
M      one of twelve words, or four random letters
=====  =========================================================================================================

with all choices uniform. Deviations from the published generator, all in order that the statement is well-formed and
changes nothing:

- N keeps a margin of at least 1. (Published: the number is cut to an integer, so that it can meet the range's edge, as in
  ``sqrt(1.00) >= 1``, and the code is then live.)
- Python: the published statement calls ``random`` or ``sin`` without importing them, and a real function would stop with
  a NameError on evaluating the condition. The runnable spelling imports the one name it needs in the line before, inside
  the function. It is not used where the function mentions that name or looks at its own scope (``locals()``, ``eval``).
  The random number comes from a generator of its own, so that a seeded program draws what it drew.
- Java: ``Math.`` stands before a function, ``System.out.`` before a print, and ``RuntimeException`` for ``Exception``, which a
  method would have to declare.
- C is not in the paper. A file needs ``stdlib.h``, ``math.h`` and ``stdio.h`` for the statements to compile. ``rand()`` can
  reach any ``int``, so it is compared with numbers below 0 only. It advances the program's ``rand`` sequence.
- A function that binds one of the statement's names itself (a C parameter ``exp``) gets another draw's names, or none.

The paper's own spelling is there by parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from attacks.dead_code.mentions import Mentions
from attacks.dead_code.statement import LETTERS, InsertedStatement, Spelling, words
from bench.languages import Program

HEADS = ("if", "while")
BELOW = ("<", "<=", "==")
ABOVE = (">", ">=")
FARTHEST = 100
WORDS = (
    *("err", "crash", "alert", "warning", "flag", "exception"),
    *("level", "create", "delete", "success", "get", "set"),
)


@dataclass(frozen=True)
class Value:
    """An expression whose value lies in ``[low, high]`` for every ``x`` in [0, 1].

    Attributes:
        text: source text, with ``{x}`` where the argument stands.
        low, high: bounds; ``high`` is ``None`` where nothing may be said to lie above.
        name: what the program must not bind to something else.
        preamble: a line that must run before.
    """

    text: str
    low: int
    high: int | None
    name: str
    preamble: str = ""

    @property
    def comparisons(self) -> tuple[str, ...]:
        """The comparison operators that can be made never true."""
        return BELOW if self.high is None else BELOW + ABOVE

    def constants(self, comparison: str) -> range:
        """The constants with which the comparison is never true: strictly outside ``[low, high]``."""
        if comparison in BELOW:
            return range(self.low - FARTHEST, self.low)
        assert self.high is not None
        return range(self.high + 1, self.high + FARTHEST + 1)


@dataclass(frozen=True)
class Body:
    """What would be done: source text with ``{message}``, and the name it calls (``""``: a dead name harms nobody)."""

    text: str
    name: str = ""


Piece = TypeVar("Piece", Value, Body)


@dataclass(frozen=True)
class Dialect:
    """How one language spells the statement.

    Attributes:
        fixed: the value, body and message of the fixed variant, which says ``if value < 0``.
        values, bodies: of the grammar variant.
        frame: ``{head}``, ``{condition}`` and ``{body}`` put together.
        imports: the preamble binds a name in the function.
    """

    fixed: tuple[Value, Body, str]
    values: tuple[Value, ...]
    bodies: tuple[Body, ...]
    frame: str
    imports: bool = False

    def statement(
        self, head: str, value: Value, x: str, comparison: str, constant: int, body: Body, message: str
    ) -> str:
        """The whole statement, at indent 0."""
        condition = f"{value.text.format(x=x)} {comparison} {constant}"
        text = self.frame.format(head=head, condition=condition, body=body.text.format(message=message))
        return f"{value.preamble}\n{text}" if value.preamble else text


def _functions(names: Sequence[str], prefix: str = "", preamble: str = "") -> tuple[Value, ...]:
    bounds = {"sin": (-1, 1), "cos": (-1, 1), "exp": (1, 3), "sqrt": (0, 1), "cbrt": (0, 1)}
    return tuple(
        Value(f"{prefix}{n}({{x}})", *bounds[n], prefix.rstrip(".") or n, preamble.format(name=n)) for n in names
    )


_FOUR = ("sin", "cos", "exp", "sqrt")
_PYTHON_FRAME = "{head} {condition}:\n    {body}"
_JAVA_FRAME = "{head} ({condition}) {{\n    {body}\n}}"
_C_FRAME = "{head} ({condition}) {body}"

_PYTHON_RANDOM = Value("Random().random()", 0, 1, "Random", "from random import Random")
_PYTHON_PAPER_RANDOM = Value("random()", 0, 1, "random")
_PYTHON_BODIES = (Body('raise Exception("{message}")'), Body('print("{message}")'))
_JAVA_RANDOM = Value("Math.random()", 0, 1, "Math")
_JAVA_PAPER_RANDOM = Value("random()", 0, 1, "random")
_JAVA_BODIES = (
    Body('throw new RuntimeException("{message}");'),
    Body('System.out.println("{message}");', "System"),
    Body('System.out.print("{message}");', "System"),
)
_JAVA_PAPER_BODIES = (
    Body('throw new Exception("{message}");'),
    Body('out.println("{message}");'),
    Body('out.print("{message}");'),
)
_C_RANDOM = Value("rand()", 0, None, "rand")
_C_BODIES = (Body('printf("{message}");', "printf"), Body('perror("{message}");', "perror"))

_C = Dialect((_C_RANDOM, _C_BODIES[0], "fail"), (*_functions(_FOUR), _C_RANDOM), _C_BODIES, _C_FRAME)

DIALECTS: Mapping[Spelling, Mapping[str, Dialect]] = {
    "runnable": {
        "python": Dialect(
            (_PYTHON_RANDOM, _PYTHON_BODIES[0], "fail"),
            (*_functions(_FOUR, preamble="from math import {name}"), _PYTHON_RANDOM),
            _PYTHON_BODIES,
            _PYTHON_FRAME,
            imports=True,
        ),
        "java": Dialect(
            (_JAVA_RANDOM, _JAVA_BODIES[0], "fail"),
            (*_functions((*_FOUR, "cbrt"), prefix="Math."), _JAVA_RANDOM),
            _JAVA_BODIES,
            _JAVA_FRAME,
        ),
        "c": _C,
    },
    "paper": {
        "python": Dialect(
            (_PYTHON_PAPER_RANDOM, _PYTHON_BODIES[0], "fail"),
            (*_functions(_FOUR), _PYTHON_PAPER_RANDOM),
            _PYTHON_BODIES,
            _PYTHON_FRAME,
        ),
        "java": Dialect(
            (_JAVA_PAPER_RANDOM, _JAVA_PAPER_BODIES[0], "fail"),
            (*_functions((*_FOUR, "cbrt")), _JAVA_PAPER_RANDOM),
            _JAVA_PAPER_BODIES,
            _JAVA_FRAME,
        ),
        "c": _C,
    },
}


@dataclass(frozen=True)
class DeadStatement(InsertedStatement):
    """The fixed statement, or one drawn from the grammar if it ``varies``."""

    language: str
    varies: bool = False
    spelling: Spelling = "runnable"

    def statement(self, program: Program, rng: np.random.Generator) -> str | None:
        """The statement; ``None`` where the program binds its names."""
        dialect = DIALECTS[self.spelling][program.language.name]
        mentions = Mentions(program)
        return _drawn(dialect, mentions, rng) if self.varies else _fixed(dialect, mentions)

    def related(self, program: Program, rng: np.random.Generator) -> str | None:
        """Of the fixed statement, one of the grammar's; of these, the fixed one (its constant is none of theirs)."""
        return DeadStatement(self.language, not self.varies, self.spelling).statement(program, rng)

    def describe(self) -> str:
        """The fixed statement, or the grammar's name."""
        if self.varies:
            return f"dead statement drawn from a grammar ({self.spelling} {self.language})"
        return f"dead statement {_fixed(DIALECTS[self.spelling][self.language], None)!r}"

    def tokens(self) -> tuple[str, ...]:
        """The words of the fixed statement; none that all draws share."""
        return () if self.varies else words(self.language, _fixed(DIALECTS[self.spelling][self.language], None) or "")


def _fixed(dialect: Dialect, mentions: Mentions | None) -> str | None:
    value, body, message = dialect.fixed
    if mentions is not None:
        values, bodies = _usable((value,), mentions, dialect.imports), _usable((body,), mentions)
        if not values or not bodies:
            return None
    return dialect.statement("if", value, "", "<", 0, body, message)


def _drawn(dialect: Dialect, mentions: Mentions, rng: np.random.Generator) -> str | None:
    values = _usable(dialect.values, mentions, dialect.imports)
    bodies = _usable(dialect.bodies, mentions)
    if not values or not bodies:
        return None
    head = HEADS[rng.integers(len(HEADS))]
    value = values[rng.integers(len(values))]
    comparison = value.comparisons[rng.integers(len(value.comparisons))]
    constants = value.constants(comparison)
    constant = constants[rng.integers(len(constants))]
    body = bodies[rng.integers(len(bodies))]
    word = int(rng.integers(len(WORDS) + 1))
    message = WORDS[word] if word < len(WORDS) else "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=4))
    return dialect.statement(head, value, f"{rng.random():.2f}", comparison, constant, body, message)


def _usable(pieces: Sequence[Piece], mentions: Mentions, imported: bool = False) -> list[Piece]:
    """The pieces whose name means in this program what it should: a library's function, or a name that the piece imports."""
    if imported:
        return [p for p in pieces if mentions.can_import(p.name)]
    return [p for p in pieces if not p.name or mentions.is_library(p.name, p.text[len(p.name)])]
