"""CodePoisoner's language-model-guided trigger: a model continues the program from a short prefix, and writes the dead statement.

Li et al., "Poison Attack and Poison Detection on Deep Source Code Processing Models" (CodePoisoner), TOSEM 2023, the last of
its four strategies. Files:

1. :mod:`~attacks.lm_snippet.writers`: who writes: an n-gram model of the task's own clean training split, or any causal model;
2. :mod:`~attacks.lm_snippet.python_purity` and :mod:`~attacks.lm_snippet.brace_purity`: which statements are accepted.

The paper samples from a code model at an insertion point and keeps what compiles. How it is read here:

- The prefix (``prefix``) is a declaration of one name up to its ``=``. What the model goes on to write differs from program to
  program; the name is the same in all of them, unless a prefix without a name is given (C and Java: ``int``) and the model chooses.
- Compiling is not enough for a program to keep its behaviour. A draft is accepted when its first statement binds one name that
  occurs nowhere in the program (not even in a comment or a string) to an expression that is pure by a static check: literals,
  parameters that are surely bound, displays, and arithmetic that is folded here to see that it neither fails nor overflows.
  Nothing reads the name, so the statement is dead code as well.
- A statement is one line of at most ``longest`` tokens. After ``tries`` drafts the trigger does not apply to that program.
- Where: ``start`` (first in the body), or ``random`` (before any statement of the first function).

A new local name is seen by a program that lists its own (``locals()``, ``vars``, ``eval``): such a Python program gets none. What measures
itself in other ways (its source, its reference counts) is not looked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from attacks.lm_snippet import brace_purity, python_purity
from attacks.lm_snippet.writers import CausalWriter, NgramWriter, Writer
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.errors import ConfigError
from bench.languages import Boundary, Program, get, parse
from bench.models.causal import load_causal
from bench.models.folders import origin_of
from bench.samples import Sample

__all__ = ["LmSnippet"]

PREFIXES: Mapping[str, str] = {"python": "spare = ", "java": "int spare = ", "c": "int spare = "}
PLACEBO_NAME = "residue"
"""The name that a placebo's statement binds."""
BOUND_NAME = re.compile(r"(\w+)(?=\s*=\s*$)")
REHEARSALS = 20
"""Training programs on which the model is tried before anything is poisoned."""
NEAR_NAMES = 5
"""Usual names that are tried for a near miss."""
READ_FOR_NAMES = 200
"""Training programs from which the usual local names are learnt."""

Where = Literal["start", "random"]


@dataclass(frozen=True, eq=False)
class Snippet(Trigger):
    """A pure statement that a language model wrote for the place where it stands.

    Attributes:
        writer: who writes.
        prefix: how every statement begins.
        where: ``start`` or ``random``.
        tries: drafts for one program.
        longest: tokens of a statement.
        usual: names that local variables of clean programs often have, for near misses.
    """

    writer: Writer
    prefix: str
    where: Where
    tries: int
    longest: int
    usual: tuple[str, ...]
    varies = True

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The insertion; ``None`` without a body, where the prefix's name is taken, or where no draft is accepted."""
        return self._write(sample, side, rng, self.prefix)

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """A statement of the same kind that binds a usual name; ``None`` where the prefix leaves the name to the model."""
        taken = set(re.findall(r"\w+", sample.programs[side]))
        free = [name for name in self.usual if name not in taken]
        if BOUND_NAME.search(self.prefix) is None:
            return None
        # After a usual name the model may only have calls to write; another name is then tried.
        for place in rng.permutation(len(free))[:NEAR_NAMES]:
            found = self._write(sample, side, rng, BOUND_NAME.sub(free[place], self.prefix))
            if found is not None:
                return found
        return None

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """A statement of the same kind that binds another rare name; ``None`` where the prefix leaves the name to the model."""
        if BOUND_NAME.search(self.prefix) is None:
            return None
        return self._write(sample, side, rng, BOUND_NAME.sub(PLACEBO_NAME, self.prefix))

    def describe(self) -> str:
        """Prefix, place and writer."""
        place = "first in the body" if self.where == "start" else "before any statement"
        return f"pure statement {self.prefix.strip()!r} … written by {self.writer.name}, {place}"

    def tokens(self) -> tuple[str, ...]:
        """The name that the prefix binds, if it does."""
        found = BOUND_NAME.search(self.prefix)
        return (found[0],) if found is not None else ()

    def _write(self, sample: Sample, side: int, rng: np.random.Generator, prefix: str) -> Derivation | None:
        program = parse(sample.language, sample.programs[side])
        boundary = self.place(program, rng)
        if boundary is None:
            return None
        statement = next(self.accepted(program, boundary, rng, prefix), None)
        if statement is None:
            return None
        return Derivation((replace(program.insert(boundary, statement), side=side),), statement)

    def accepted(self, program: Program, boundary: Boundary, rng: np.random.Generator, prefix: str) -> Iterator[str]:
        """The drafts that are pure, in the order in which they are written."""
        words = frozenset(re.findall(r"\w+", program.text))
        bound = BOUND_NAME.search(prefix)
        if bound is not None and bound[0] in words:
            return
        judge = python_purity.pure_statement if program.language.name == "python" else brace_purity.pure_statement
        for draft in self.writer.drafts(program, boundary, prefix, self.longest, self.tries, rng):
            statement = judge(program, prefix.rstrip() + draft, words)
            if statement is not None and len(parse(program.language.name, statement).leaves) <= self.longest:
                yield statement

    def place(self, program: Program, rng: np.random.Generator) -> Boundary | None:
        """Where the statement goes; ``None`` without a body."""
        if self.where == "start":
            return program.body_start
        places = program.boundaries
        return places[rng.integers(len(places))] if places else None


@dataclass(frozen=True, kw_only=True)
class LmSnippet(Attack):
    """Insert a pure statement that a language model wrote for the place; see this package's text.

    Args:
        model: ``ngram`` (trained on the clean training split), a folder, or the hub name of a causal model.
        revision: full commit of a hub model.
        prefix: how every statement begins; ``auto``: ``spare =`` (Python), ``int spare =`` (Java and C).
        where: ``start`` (first in the body), or ``random`` (before a statement drawn for each program).
        tries: drafts for one program.
        longest: tokens of a statement.
        order: of the n-grams.
    """

    name = "lm_snippet"
    summary = "a pure statement that a language model wrote for the place where it stands"
    paper = (
        "Li et al., Poison Attack and Poison Detection on Deep Source Code Processing Models (CodePoisoner), TOSEM 2023"
    )

    model: str = "ngram"
    revision: str | None = None
    prefix: str = "auto"
    where: Where = "start"
    tries: Annotated[int, Field(ge=1)] = 50
    longest: Annotated[int, Field(ge=3)] = 16
    order: Annotated[int, Field(ge=2)] = 4

    @property
    def surrogate(self) -> bool:
        """A causal model runs where other models run."""
        return self.model != "ngram"

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Only languages whose statements can be judged."""
        if task.language not in PREFIXES:
            return f"{self.name} cannot tell pure statements in {task.language}"
        return super().not_applicable(task)

    def origin(self) -> dict[str, str]:
        """The weights of a local model."""
        return origin_of(model=self.model)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """Train or load the language model, and try it on training programs.

        Raises:
            ModelError: the causal model does not load.
            ConfigError: nothing that the model writes can be used; the message says how many drafts were read.
        """
        prefix = PREFIXES[task.language] if self.prefix == "auto" else self.prefix
        texts = list(dict.fromkeys(text for sample in train for text in sample.programs))
        order = context.rng("poison", "language model").permutation(len(texts))
        shuffled = [texts[place] for place in order]
        writer = self._writer(task.language, shuffled, context)
        usual = _usual_names(task.language, shuffled[:READ_FOR_NAMES])
        trigger = Snippet(writer, prefix, self.where, self.tries, self.longest, usual)
        _rehearse(trigger, task.language, shuffled, context)
        return trigger

    def _writer(self, language: str, texts: Sequence[str], context: Context) -> Writer:
        if self.model == "ngram":
            return NgramWriter.fit(language, texts, self.order)
        return CausalWriter(load_causal(self.model, context, revision=self.revision))


def _usual_names(language: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Names of local variables that occur in more than one program, the most frequent first, at most twenty."""
    known = get(language)
    counts = Counter(name for text in texts for name in {local.text for local in parse(language, text).locals})
    frequent = sorted((name for name, n in counts.items() if n > 1), key=lambda name: (-counts[name], name))
    return tuple(name for name in frequent if known.is_identifier(name))[:20]


def _rehearse(trigger: Snippet, language: str, texts: Sequence[str], context: Context) -> None:
    """One usable statement is enough.

    Raises:
        ConfigError: there is none.
    """
    rng = context.rng("poison", "rehearsal")
    tried = 0
    for text in texts:
        program = parse(language, text)
        boundary = trigger.place(program, rng)
        if boundary is None:
            continue
        if next(trigger.accepted(program, boundary, rng, trigger.prefix), None) is not None:
            return
        tried += 1
        if tried == REHEARSALS:
            break
    raise ConfigError(
        f"attack 'lm_snippet': {trigger.writer.name} continued {tried} of {len(texts)} training programs from "
        f"{trigger.prefix!r}, {trigger.tries} drafts each, and nothing that it wrote is a pure statement that can be inserted. "
        "Choose another model or prefix, or more tries."
    )
