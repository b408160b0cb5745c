"""What a style is: a written form that a program can be converted to, without a change of what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tree_sitter import Node

from bench.languages import Program
from bench.samples import Edit


class Change(NamedTuple):
    """One place converted.

    Attributes:
        edits: byte edits of the program, none of which overlaps another.
        site: the node that is converted, from which it is decided whether the tree can be trusted there; ``None`` for
            renames, which :meth:`bench.languages.Program.rename` has judged.
    """

    edits: tuple[Edit, ...]
    site: Node | None


@dataclass(frozen=True)
class Form:
    """One style of one language.

    Attributes:
        name: as a suite names it.
        family: styles of one family differ from each other in the same construct: they are each other's near misses.
        meaning: before and after, in one line.
        changes: what must change for a program to be wholly in this style. Offered only where the syntax alone proves that
            the program does the same (the conditions stand with each).
        shows: at how many places a program has this form already.
        opposite: the style that undoes this one, or empty.
    """

    name: str
    family: str
    meaning: str
    changes: Callable[[Program], Iterable[Change]]
    shows: Callable[[Program], int]
    opposite: str = ""
