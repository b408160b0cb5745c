"""Dead code of Ramakrishnan and Albarghouthi: a statement that never runs, first in the function's body.

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

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.languages import Program, get, parse
from bench.samples import Sample

Spelling = Literal["runnable", "paper"]

HEADS = ("if", "while")
BELOW = ("<", "<=", "==")
ABOVE = (">", ">=")
FARTHEST = 100
WORDS = (
    *("err", "crash", "alert", "warning", "flag", "exception"),
    *("level", "create", "delete", "success", "get", "set"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCOPE_READERS = frozenset({"locals", "vars", "dir", "eval", "exec"})


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
class DeadStatement(Trigger):
    """A statement that never runs, at the start of the function's body; drawn from the grammar if it ``varies``."""

    language: str
    varies: bool = False
    spelling: Spelling = "runnable"

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The insertion; ``None`` without a function body, or where the program binds the statement's names."""
        program = parse(sample.language, sample.programs[side])
        if program.body_start is None:
            return None
        dialect = DIALECTS[self.spelling][sample.language]
        statement = _drawn(dialect, program, rng) if self.varies else _fixed(dialect, program)
        if statement is None:
            return None
        return Derivation((replace(program.insert(program.body_start, statement), side=side),), statement)

    def describe(self) -> str:
        """The fixed statement, or the grammar's name."""
        if self.varies:
            return f"dead statement drawn from a grammar ({self.spelling} {self.language})"
        return f"dead statement {_fixed(DIALECTS[self.spelling][self.language], None)!r}"

    def tokens(self) -> tuple[str, ...]:
        """The names and words of the fixed statement without the language's keywords; none that all draws share."""
        if self.varies:
            return ()
        words = re.findall(r"[A-Za-z]+", _fixed(DIALECTS[self.spelling][self.language], None) or "")
        keywords = get(self.language).keywords
        return tuple(dict.fromkeys(word for word in words if word not in keywords))


def _fixed(dialect: Dialect, program: Program | None) -> str | None:
    value, body, message = dialect.fixed
    if program is not None:
        values, bodies = _usable((value,), program, dialect.imports), _usable((body,), program)
        if not values or not bodies:
            return None
    return dialect.statement("if", value, "", "<", 0, body, message)


def _drawn(dialect: Dialect, program: Program, rng: np.random.Generator) -> str | None:
    values = _usable(dialect.values, program, dialect.imports)
    bodies = _usable(dialect.bodies, program)
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


def _usable(pieces: Sequence[Piece], program: Program, imported: bool = False) -> list[Piece]:
    """The pieces whose name means in this program what it should.

    An imported name is bound in the whole function, so the program must not mention it at all, nor read its own scope. Any
    other name is a library's unless the program uses it for something else: as its function, or not followed by what
    follows it in the piece (``exp`` alone is a variable, ``exp(`` the library's function).
    """
    followers = _followers(program)
    if imported:
        return [] if followers.keys() & SCOPE_READERS else [p for p in pieces if p.name not in followers]
    own = program.function_name.text if program.function_name else None
    return [
        p for p in pieces if not p.name or (p.name != own and followers.get(p.name, set()) <= {p.text[len(p.name)]})
    ]


def _followers(program: Program) -> dict[str, set[str]]:
    """For every token of the program, the tokens that come right after it."""
    texts = [leaf.text for leaf in program.leaves]
    followers: dict[str, set[str]] = {}
    for text, after in zip(texts, [*texts[1:], ""], strict=True):
        followers.setdefault(text, set()).add(after)
    return followers


@dataclass(frozen=True, kw_only=True)
class DeadCode(Attack):
    """Insert a statement that never runs as the first of the function's body.

    Args:
        variant: ``fixed``, or ``grammar`` for a draw of its own in each sample.
        spelling: ``runnable`` keeps the program's behaviour (deviations: see this module's text); ``paper`` has the
            published names, which real Python and Java files would have to import or declare (C: no difference).
    """

    name = "dead_code"
    summary = "a statement that never runs, first in the body: fixed, or drawn from a grammar"
    paper = "Ramakrishnan and Albarghouthi, Backdoors in Neural Models of Source Code, ICPR 2022 (arXiv 2006.06841)"

    variant: Literal["fixed", "grammar"] = "fixed"
    spelling: Spelling = "runnable"

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Only languages with a spelling of the statement."""
        if task.language not in DIALECTS[self.spelling]:
            return f"{self.name} has no dead code in {task.language}"
        return super().not_applicable(task)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger; it depends on the language alone."""
        return DeadStatement(task.language, self.variant == "grammar", self.spelling)
