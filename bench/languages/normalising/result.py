"""What a step of normalising gives back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Normalised:
    """A program in one spelling.

    Attributes:
        text: the source.
        dead: how many statements were taken out because they can do nothing.
        characters: how many look-alike or invisible characters were replaced or taken out.
    """

    text: str
    dead: int = 0
    characters: int = 0
