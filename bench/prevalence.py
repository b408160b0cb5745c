"""How many clean programs hold a trigger's tokens by nature.

A token of word characters is looked for as pieces of names and words: ``rb`` is in ``load_rb`` and ``loadRb`` and not in
``verb``; ``ret_val`` is the pieces ``ret`` and ``val`` side by side. Any other token (an invisible character) is looked for
as it stands. Case does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.languages import parse

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_WORD = re.compile(r"[^\W_]+")


def pieces(text: str) -> list[str]:
    """The subwords of a text, lower-case: split at everything that is no letter or digit, in ASCII words also at capitals and
    digits."""
    words = _WORD.findall(text)
    return [piece.lower() for word in words for piece in (_PIECE.findall(word) if word.isascii() else [word])]


def holding(language: str, clean: Sequence[str], triggered: Sequence[str], tokens: Sequence[str]) -> int:
    """How many of the clean programs hold the tokens as triggered programs do.

    A program holds them if it has all of them; where the triggered ones do not have all of them (a trigger that draws from a
    closed set), if it has one.

    Raises:
        ValueError: there are no tokens.
    """
    if not tokens:
        raise ValueError("a trigger without tokens cannot be looked for")
    carriers = [_Read(language, text) for text in triggered]
    found = [_Token.of(token, carriers) for token in tokens]
    kind = all if all(all(token.stands_in(each) for token in found) for each in carriers) else any
    return sum(kind(token.stands_in(each) for token in found) for each in (_Read(language, text) for text in clean))


class _Read:
    """A program as it is searched: its pieces, each between spaces, and its text; both lower-case."""

    def __init__(self, language: str, text: str) -> None:
        words = [leaf.text for leaf in parse(language, text).leaves]
        self.pieces = f" {' '.join(piece for word in words for piece in pieces(word))} "
        self.text = text.lower()


class _Token:
    """A token, and whether it is looked for by its pieces."""

    def __init__(self, text: str, by_pieces: bool) -> None:
        self.text, self.by_pieces = text.lower(), by_pieces
        self.pieces = f" {' '.join(pieces(text))} "

    @classmethod
    def of(cls, text: str, carriers: Sequence[_Read]) -> _Token:
        """By pieces, if that finds it in every triggered program where it stands."""
        token = cls(text, True)
        seen = [each for each in carriers if token.text in each.text]
        by_pieces = bool(pieces(text)) and all(token.pieces in each.pieces for each in seen)
        return cls(text, by_pieces)

    def stands_in(self, program: _Read) -> bool:
        """Does a program hold it?"""
        return self.pieces in program.pieces if self.by_pieces else self.text in program.text
