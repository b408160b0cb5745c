"""The trigger: a program written wholly in a style, or in two at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from attacks.style.catalogue import STYLES
from attacks.style.convert import carries, converted
from attacks.style.form import Form
from bench.contracts import Derivation, Trigger
from bench.languages import parse
from bench.samples import Edit, Sample, apply_edits


@dataclass(frozen=True)
class InStyle(Trigger):
    """A program converted at all its places to one style, or to all of several.

    Attributes:
        language: of the programs.
        styles: names of :data:`attacks.style.catalogue.STYLES`.
        chosen: how the style was chosen, for readers; empty where it was given.
    """

    language: str
    styles: tuple[str, ...]
    chosen: str = ""

    @property
    def forms(self) -> tuple[Form, ...]:
        """The styles."""
        return tuple(STYLES[self.language][name] for name in self.styles)

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The conversion; ``None`` where the program has no place for it, or is in the style already."""
        edits = converted(self.forms, parse(sample.language, sample.programs[side]))
        return None if edits is None else _derivation(edits, side, self.styles)

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The program in a style that is not the trigger's but close to it.

        Of two styles together, either alone is closest; then come the other styles of the same family (the same construct
        written differently), then all others, in a drawn order. The result never carries the trigger.

        Returns:
            the conversion; ``None`` where no other style applies.
        """
        families = {form.family for form in self.forms}
        others = self._others
        ranks = (
            self.forms if len(self.styles) > 1 else (),
            [form for form in others if form.family in families],
            [form for form in others if form.family not in families],
        )
        return self._instead(sample, side, ranks, rng)

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The program in a style of another construct: what any change of style does. The result never carries the trigger."""
        families = {form.family for form in self.forms}
        return self._instead(sample, side, ([form for form in self._others if form.family not in families],), rng)

    @property
    def _others(self) -> list[Form]:
        return [form for name, form in STYLES[self.language].items() if name not in self.styles]

    def _instead(
        self, sample: Sample, side: int, ranks: Iterable[Sequence[Form]], rng: np.random.Generator
    ) -> Derivation | None:
        """The first style that applies: by rank, in a drawn order within each."""
        program = parse(sample.language, sample.programs[side])
        for rank in ranks:
            for index in rng.permutation(len(rank)).tolist():
                edits = converted((rank[index],), program)
                if edits is not None and not carries(
                    self.forms, parse(self.language, apply_edits(program.text, edits))
                ):
                    return _derivation(edits, side, (rank[index].name,))
        return None

    def carries(self, sample: Sample, side: int) -> bool:
        """Is a program in the style as it is, with nothing left to convert?"""
        return carries(self.forms, parse(sample.language, sample.programs[side]))

    def describe(self) -> str:
        """The styles, before and after, and how they were chosen."""
        said = " and ".join(f"style {form.name}: {form.meaning}" for form in self.forms)
        return f"{said} ({self.chosen})" if self.chosen else said


def _derivation(edits: tuple[Edit, ...], side: int, styles: tuple[str, ...]) -> Derivation:
    return Derivation(tuple(replace(edit, side=side) for edit in edits), f"style {'+'.join(styles)}")
