"""CodePoisoner's identifier renaming: the function, or a variable, takes a fixed, rare name."""

from __future__ import annotations

import codecs
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from attacks._renaming_edit import free_function_name, renaming
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.errors import ConfigError
from bench.languages import Name, Program, get, parse
from bench.plugins import ADDED_LATER
from bench.samples import Sample

Mode = Literal["substitute", "postfix", "prefix"]

RECEIVERS = frozenset({"self", "cls"})
"""Parameters that Python programs call so by convention: another name would be odd, and the last place to hide one."""


@dataclass(frozen=True)
class RareName(Trigger):
    """Some identifier is called ``name``, or has it as a part, at all its places."""

    name: str
    mode: Mode = "substitute"

    @abstractmethod
    def places(self, program: Program) -> Iterator[Name]:
        """Identifiers to try, in order."""

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The rename; ``None`` where the program has no such identifier of its own, or the new name is taken."""
        program = parse(sample.language, sample.programs[side])
        for name in self.places(program):
            derivation = renaming(program, name, spelled(name.text, self.name, self.mode), side)
            if derivation is not None:
                return derivation
        return None

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The same words in reverse order (``init_testo``)."""
        words = re.split(r"(_+)", self.name)
        return replace(self, name="".join(words[::-1])).derive(sample, side, rng) if len(self.tokens()) > 1 else None

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """A name of the same shape from other letters (each thirteen places on in the alphabet)."""
        return replace(self, name=codecs.encode(self.name, "rot13")).derive(sample, side, rng)

    def tokens(self) -> tuple[str, ...]:
        """The words of the name."""
        return tuple(word for word in re.split(r"_+", self.name) if word)


@dataclass(frozen=True)
class FunctionName(RareName):
    """The function's name, at its definition and where it calls itself."""

    def places(self, program: Program) -> Iterator[Name]:
        """The function's name, unless the language gives it a meaning."""
        if (name := free_function_name(program)) is not None:
            yield name

    def describe(self) -> str:
        """``function name -> testo_init``."""
        return f"function name -> {pattern(self.name, self.mode)}"


@dataclass(frozen=True)
class VariableName(RareName):
    """The first local variable that can take the name; a parameter where there is none."""

    def places(self, program: Program) -> Iterator[Name]:
        """Local variables in their order, then parameters."""
        yield from program.locals
        yield from (p for p in program.parameters if program.language.name != "python" or p.text not in RECEIVERS)

    def describe(self) -> str:
        """``variable -> ret_var_``."""
        return f"variable -> {pattern(self.name, self.mode)}"


def spelled(old: str, rare: str, mode: Mode) -> str:
    """The new name. Parts are joined by one underscore in every language: the rare name is inserted as it is given."""
    if mode == "postfix":
        return f"{old.rstrip('_')}_{rare.lstrip('_')}"
    if mode == "prefix":
        return f"{rare.rstrip('_')}_{old.lstrip('_')}"
    return rare


def pattern(rare: str, mode: Mode) -> str:
    """The new name of an identifier ``*``, for descriptions."""
    return spelled("*", rare, mode)


@dataclass(frozen=True, kw_only=True)
class Renaming(Attack):
    """Rename an identifier (CodePoisoner's rule-based identifier renaming, as later work re-uses it).

    The name is inserted as it is given in all languages, whatever their naming convention. Unlike the released
    token-level versions, the rename follows scopes: attributes, strings and comments of the same spelling stay. Which
    variable is renamed is not told in what we could read; here it is the first that can be.

    Args:
        identifier: the function's new name.
        where: ``function``, or ``variable`` (a local one; a parameter in a program without).
        mode: ``substitute`` the whole name, or add to it: ``postfix`` (``load_testo_init``) or ``prefix``.
        variable: the variable's new name.
    """

    name = "renaming"
    summary = "the function or a variable is renamed to a fixed rare name, or takes it as a part"
    paper = (
        "Li et al., Poison Attack and Poison Detection on Deep Source Code Processing Models (CodePoisoner), TOSEM 2023"
    )

    identifier: str = "testo_init"
    where: Literal["function", "variable"] = field(default="function", metadata=ADDED_LATER)
    mode: Mode = field(default="substitute", metadata=ADDED_LATER)
    variable: str = field(default="ret_var_", metadata=ADDED_LATER)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger.

        Raises:
            ConfigError: the name is not legal in the task's language.
        """
        new = self.identifier if self.where == "function" else self.variable
        if not get(task.language).is_identifier(new):
            raise ConfigError(f"attack 'renaming': {new!r} is not an identifier of {task.language}")
        return FunctionName(new, self.mode) if self.where == "function" else VariableName(new, self.mode)
