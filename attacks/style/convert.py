"""Conversion of a whole program to a style: all its places, nested ones too, as edits of the original text.

Places inside each other cannot be edited at once, and a place may appear by the conversion of another. So what is independent is
changed, the result is parsed again, until nothing is left to change. A :class:`Pieces` remembers which bytes of the
original stand where, so that the edits of all rounds become edits of the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attacks.style.form import Change, Form
from attacks.style.trees import trusted
from bench.languages import Program, parse
from bench.samples import Edit, apply_edits

ROUNDS = 40
"""Most rounds: as many as places nest. A program that needs more is left alone."""
PASSES = 3
"""Most times that two styles are applied in turn until neither has anything to change."""


@dataclass
class Pieces:
    """A text as spans of the original and new texts between them.

    Attributes:
        size: bytes of the original.
        pieces: ``(start, end, b"")`` for a span of the original, ``(-1, -1, new)`` for new text.
    """

    size: int
    pieces: list[tuple[int, int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size:
            self.pieces = [(0, self.size, b"")]

    def apply(self, edits: Iterable[Edit]) -> None:
        """Apply edits that refer to the text as it is now."""
        done: list[tuple[int, int, bytes]] = []
        rest = self.pieces[::-1]
        position = 0
        for edit in sorted(edits, key=lambda e: (e.start, e.end)):
            position = _take(rest, done, position, edit.start)
            position = _take(rest, None, position, edit.end)
            done.append((-1, -1, edit.replacement.encode()))
        self.pieces = done + rest[::-1]

    def edits(self) -> tuple[Edit, ...]:
        """Edits of the original that give the text as it is now."""
        found: list[Edit] = []
        reached, new = 0, b""
        for start, end, inserted in [*self.pieces, (self.size, self.size, b"")]:
            if start < 0:
                new += inserted
                continue
            if new or start > reached:
                found.append(Edit(reached, start, new.decode()))
            reached, new = end, b""
        return tuple(found)


def _take(
    rest: list[tuple[int, int, bytes]], done: list[tuple[int, int, bytes]] | None, position: int, end: int
) -> int:
    """Move the pieces up to a byte from ``rest`` (a stack) to ``done``, or drop them."""
    while position < end:
        start, stop, new = rest.pop()
        length = stop - start if start >= 0 else len(new)
        if position + length > end:
            cut = end - position
            head, tail = (
                ((start, start + cut, b""), (start + cut, stop, b""))
                if start >= 0
                else ((-1, -1, new[:cut]), (-1, -1, new[cut:]))
            )
            rest.append(tail)
            start, stop, new, length = *head, cut
        if done is not None:
            done.append((start, stop, new))
        position += length
    return position


def changes(form: Form, program: Program) -> list[Change]:
    """What must change for the program to be wholly in a style, at the places where the tree can be trusted."""
    return [c for c in form.changes(program) if c.site is None or trusted(program, c.site)]


def carries(forms: Sequence[Form], program: Program) -> bool:
    """Is a program in all the styles already: the form is there, and nothing is left to convert?"""
    return all(form.shows(program) > 0 for form in forms) and not any(changes(form, program) for form in forms)


def converted(forms: Sequence[Form], program: Program) -> tuple[Edit, ...] | None:
    """Edits that bring a program wholly into all the styles.

    Returns:
        the edits; ``None`` where nothing is to be changed, one of several styles has no place in the program, or the rounds do
        not come to an end.
    """
    pieces = Pieces(len(program.data))
    here = program
    for _ in range(PASSES):
        before = here
        for form in forms:
            turned = _round_by_round(form, here, pieces)
            if turned is None:
                return None
            here = turned
        if here is before or len(forms) == 1:
            break
    if here is program or (len(forms) > 1 and not carries(forms, here)):
        return None
    return pieces.edits()


def _round_by_round(form: Form, program: Program, pieces: Pieces) -> Program | None:
    for _ in range(ROUNDS):
        edits = independent(changes(form, program))
        if not edits:
            return program
        pieces.apply(edits)
        program = parse(program.language.name, apply_edits(program.text, edits))
    return None


def independent(found: Sequence[Change]) -> list[Edit]:
    """The edits of as many changes as touch no other, the outer of two that do."""
    taken: list[tuple[int, int]] = []
    edits: list[Edit] = []
    for change in sorted(found, key=lambda c: min(e.start for e in c.edits)):
        spans = [(e.start, e.end) for e in change.edits]
        low = min(start for start, _ in spans)
        if all(end < start or stop < begin for start, stop in taken for begin, end in spans):
            edits += change.edits
            taken += spans
            taken = [span for span in taken if span[1] >= low]
    return edits
