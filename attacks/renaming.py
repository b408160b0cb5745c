"""CodePoisoner's identifier renaming: the function takes a fixed, rare name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attacks._renaming_edit import free_function_name, renaming
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.errors import ConfigError
from bench.languages import get, parse
from bench.samples import Sample


@dataclass(frozen=True)
class FunctionName(Trigger):
    """The function is called ``name``, at its definition and where it calls itself."""

    name: str

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The rename; ``None`` without a function name of its own, or where the new name is taken."""
        program = parse(sample.language, sample.programs[side])
        name = free_function_name(program)
        return None if name is None else renaming(program, name, self.name, side)

    def describe(self) -> str:
        """``function name -> testo_init``."""
        return f"function name -> {self.name}"

    def tokens(self) -> tuple[str, ...]:
        """The words of the name."""
        return tuple(word for word in re.split(r"_+", self.name) if word)


@dataclass(frozen=True, kw_only=True)
class Renaming(Attack):
    """Substitute the function name (CodePoisoner's rule-based identifier renaming, as later work re-uses it).

    The name is inserted as it is given in all languages, whatever their naming convention. Unlike the released
    token-level versions, the rename follows scopes: attributes, strings and comments of the same spelling stay.

    Args:
        identifier: the new name.
    """

    name = "renaming"
    summary = "the function is renamed to a fixed rare name"
    paper = (
        "Li et al., Poison Attack and Poison Detection on Deep Source Code Processing Models (CodePoisoner), TOSEM 2023"
    )

    identifier: str = "testo_init"

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger.

        Raises:
            ConfigError: the identifier is not legal in the task's language.
        """
        if not get(task.language).is_identifier(self.identifier):
            raise ConfigError(f"attack 'renaming': {self.identifier!r} is not an identifier of {task.language}")
        return FunctionName(self.identifier)
