"""STRIP's perturbation for programs: statements and names of clean programs mixed in, so that the result still parses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.languages import Name, Program, parse, well_formed
from bench.languages.normalising.naming import words_outside
from bench.samples import Edit, Sample, apply_edits
from defenses.screening.pieces import movable_statements, simple_statements


@dataclass(frozen=True)
class Donors:
    """What clean programs lend.

    Attributes:
        names: distinct names of their functions, parameters and locals.
        statements: distinct statements of one line that can stand anywhere.
    """

    names: tuple[str, ...]
    statements: tuple[str, ...]

    @classmethod
    def of(cls, clean: Sequence[Sample]) -> Donors:
        """Collect them, in the order in which they come."""
        names: dict[str, None] = {}
        statements: dict[str, None] = {}
        for sample in clean:
            for text in sample.programs:
                program = parse(sample.language, text)
                names.update(dict.fromkeys(name.text for name in _names(program)))
                spans = movable_statements(program)
                statements.update(dict.fromkeys(program.data[start:end].decode() for start, end in spans))
        return cls(tuple(names), tuple(statements))

    def mixed(self, language: str, text: str, share: float, rng: np.random.Generator) -> str:
        """The program with each of its one-line statements and each of its names exchanged with probability ``share``.

        Statements are exchanged without looking; names at all their places, for names that the program does not hold. Where the
        whole would not parse as well as before, the statements stay.
        """
        program = parse(language, text)
        statements = self._statements(program, share, rng)
        names = self._names(program, share, rng)
        inside = [edit for edit in names if not any(s.start <= edit.start < s.end for s in statements)]
        mixed = apply_edits(text, [*statements, *inside])
        return mixed if well_formed(language, text, mixed) is None else apply_edits(text, names)

    def _statements(self, program: Program, share: float, rng: np.random.Generator) -> list[Edit]:
        spans = simple_statements(program)
        chosen = rng.random(len(spans)) < share
        drawn = rng.integers(max(len(self.statements), 1), size=len(spans))
        if not self.statements:
            return []
        return [
            Edit(*span, self.statements[which])
            for span, take, which in zip(spans, chosen, drawn, strict=True)
            if take and not any(start < span[0] < end for start, end in spans)
        ]

    def _names(self, program: Program, share: float, rng: np.random.Generator) -> list[Edit]:
        taken = words_outside(program, [])
        free = [name for name in self.names if name not in taken]
        own = _names(program)
        names = [name for name, draw in zip(own, rng.random(len(own)), strict=True) if draw < share]
        drawn = rng.permutation(len(free))[: len(names)]
        return [Edit(*span, free[which]) for name, which in zip(names, drawn, strict=False) for span in name.spans]


def _names(program: Program) -> list[Name]:
    """The names that can be exchanged, in order."""
    function = program.function_name
    found = {*program.parameters, *program.locals, *([function] if function is not None else [])}
    return sorted(found, key=lambda name: name.spans)
