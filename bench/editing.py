"""Putting derivations into samples, with every edit checked and noted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from bench.context import Context
from bench.contracts import Derivation
from bench.errors import PluginError
from bench.languages import well_formed
from bench.manifest import ManifestRow, Part, sha256
from bench.samples import EditConflict, Sample, apply_edits

REDRAWS = 20
"""How often a varying trigger is drawn again at test time to find a draw that training did not show."""

Derive = Callable[[Sample, int, np.random.Generator], Derivation | None]
"""As :meth:`bench.contracts.Trigger.derive`."""


@dataclass(frozen=True)
class Edited:
    """A sample after its edits, and one manifest row for each program edited."""

    sample: Sample
    rows: tuple[ManifestRow, ...]


@dataclass
class Editor:
    """Puts what ``derive`` gives into samples.

    Attributes:
        derive: a trigger's ``derive``, ``near_miss`` or ``placebo``.
        what: the edits in words, for error messages.
        context: with the seed axis ``poison``; draws depend on it, on ``purpose`` and on the sample alone.
        purpose: keeps the draws of one use apart from those of another.
        refused: edits that were refused because the program would no longer be well-formed.
    """

    derive: Derive
    what: str
    context: Context
    purpose: str = "draw"
    refused: int = field(default=0)

    def edit_all(
        self, samples: Iterable[Sample], sides: tuple[int, ...], part: Part, seen: Collection[str] = frozenset()
    ) -> list[Edited]:
        """Every sample that takes the edit, in order."""
        shown = self.context.progress(list(samples), f"{part} test samples")
        return [edited for s in shown if (edited := self.edit(s, sides, part, seen)) is not None]

    def edit_first(self, sample: Sample, options: Iterable[tuple[int, ...]], part: Part) -> Edited | None:
        """The first choice of sides that works."""
        return next((e for sides in options if (e := self.edit(sample, sides, part)) is not None), None)

    def edit(
        self, sample: Sample, sides: tuple[int, ...], part: Part, seen: Collection[str] = frozenset()
    ) -> Edited | None:
        """The edit in all of ``sides``, or ``None`` where it does not fit one of them or is refused.

        Raises:
            PluginError: the edits overlap, leave the program or name another side.
        """
        rows = []
        changed = sample
        for side in sides:
            before = sample.programs[side]
            derivation = self._draw(sample, side, seen)
            if derivation is None:
                return None
            after = self._apply(sample, side, derivation)
            if after == before:
                return None
            reason = well_formed(sample.language, before, after)
            if reason is not None:
                self.refused += 1
                self.context.log.debug("refused an edit of sample %s: %s", sample.id, reason)
                return None
            changed = changed.with_program(side, after)
            data = before.encode()
            rows.append(
                ManifestRow(
                    id=sample.id,
                    part=part,
                    side=side,
                    edits=derivation.edits,
                    removed=tuple(data[e.start : e.end].decode() for e in derivation.edits),
                    derivation=derivation.text,
                    label=sample.label,
                    before_sha256=sha256(before),
                    after_sha256=sha256(after),
                )
            )
        return Edited(changed, tuple(rows))

    def _draw(self, sample: Sample, side: int, seen: Collection[str]) -> Derivation | None:
        """A derivation, drawn again while ``seen`` holds it; after the last try, or one that fails, a seen one stands."""
        derivation = None
        for attempt in range(1 + REDRAWS):
            rng = self.context.rng("poison", self.purpose, sample.id, str(side), str(attempt))
            drawn = self.derive(sample, side, rng)
            if drawn is None:
                break
            derivation = drawn
            if derivation.text not in seen:
                break
        return derivation

    def _apply(self, sample: Sample, side: int, derivation: Derivation) -> str:
        if any(edit.side != side for edit in derivation.edits):
            raise PluginError(
                f"the trigger ({self.what}) was asked to edit side {side} of sample {sample.id!r} "
                f"and returned an edit of another side"
            )
        try:
            return apply_edits(sample.programs[side], derivation.edits)
        except (EditConflict, UnicodeError) as error:
            raise PluginError(
                f"the trigger ({self.what}) returned edits that do not apply to sample {sample.id!r}: {error}"
            ) from error
