"""Hiding a statement or a name of a program, and writing it anew."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.languages import Name, Program, RenameRefused, parse, well_formed
from bench.samples import Edit, Sample, apply_edits, edit_sample
from defenses.screening.deleting import Source
from defenses.screening.pieces import statements
from defenses.screening.suggesting import Suggester

_REWRITTEN = frozenset(
    {
        *("identifier", "field_identifier", "integer", "float", "number_literal", "decimal_integer_literal"),
        *("string_content", "string_fragment"),
    }
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A statement, or a name at all its places.

    Attributes:
        side: which program of the sample.
        spans: byte spans; one for a statement.
        name: the name, ``None`` for a statement.
    """

    side: int
    spans: tuple[tuple[int, int], ...]
    name: Name | None = None

    def touches(self, other: Piece) -> bool:
        """Do two pieces share a byte?"""
        return self.side == other.side and any(a < d and c < b for a, b in self.spans for c, d in other.spans)


def pieces(program: Program, side: int) -> list[Piece]:
    """Statements and names of a program, by where they begin. A statement that is nearly the whole program is none."""
    found = [Piece(side, (span,)) for span in statements(program)]
    if len(found) == 1:
        found = []
    function = program.function_name
    names = {*program.parameters, *program.locals, *([function] if function is not None else [])}
    found += [Piece(side, name.spans, name) for name in names]
    return sorted(found, key=lambda piece: (piece.spans, piece.name is not None))


def without(sample: Sample, piece: Piece) -> Sample:
    """The sample with a piece hidden."""
    return edit_sample(sample, hiding(parse(sample.language, sample.programs[piece.side]), piece))


def hiding(program: Program, piece: Piece) -> list[Edit]:
    """Edits that put an empty statement in the place of a statement, or a word that says nothing in the place of a name."""
    word = "pass" if program.language.name == "python" else ";"
    if piece.name is not None:
        word = next(free for number in itertools.count() if (free := f"v{number}") not in program.text)
    return [Edit(*span, word, piece.side) for span in piece.spans]


@dataclass(frozen=True)
class Purifier:
    """Writes pieces anew.

    Attributes:
        suggester: proposes words.
        deletes: statements are cut out instead.
    """

    suggester: Suggester
    deletes: bool

    def purified(self, sample: Sample, chosen: Sequence[Piece]) -> Sample:
        """The sample with the pieces written anew; they must not touch one another."""
        edits: list[Edit] = []
        for side, text in enumerate(sample.programs):
            edits += self._of_program(parse(sample.language, text), [piece for piece in chosen if piece.side == side])
        return edit_sample(sample, edits)

    def _of_program(self, program: Program, chosen: Sequence[Piece]) -> list[Edit]:
        """What nothing can be suggested for is hidden; so is everything where the suggestions break the program."""
        source = Source(program.text, program.leaves)
        each = [self._suggested(program, source, piece) or hiding(program, piece) for piece in chosen]
        edits = [edit for of_piece in each for edit in of_piece]
        if well_formed(program.language.name, program.text, apply_edits(program.text, edits)) is None:
            return edits
        return [edit for piece in chosen for edit in hiding(program, piece)]

    def _suggested(self, program: Program, source: Source, piece: Piece) -> list[Edit]:
        if piece.name is not None:
            edits = self._renaming(program, source, piece.name)
        else:
            edits = [] if self.deletes else self._rewriting(source, piece)
        return [replace(edit, side=piece.side) for edit in edits]

    def _renaming(self, program: Program, source: Source, name: Name) -> list[Edit]:
        """The best word that the scope rules allow."""
        starts = {leaf.start: number for number, leaf in enumerate(source.leaves)}
        place = starts.get(name.spans[0][0])
        for word in self.suggester.words(source, [place])[0] if place is not None else ():
            try:
                return list(program.rename(name, word))
            except RenameRefused:
                continue
        return []

    def _rewriting(self, source: Source, piece: Piece) -> list[Edit]:
        """The best word in every place of a statement."""
        start, end = piece.spans[0]
        places = [
            number for number, leaf in enumerate(source.leaves) if start <= leaf.start < end and leaf.type in _REWRITTEN
        ]
        words = self.suggester.words(source, places)
        leaves = [source.leaves[place] for place in places]
        return [Edit(leaf.start, leaf.end, best[0]) for leaf, best in zip(leaves, words, strict=True) if best]
