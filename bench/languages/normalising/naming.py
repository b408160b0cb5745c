"""Alpha-renaming: the function is ``f``, its parameters and locals are ``v0``, ``v1`` … in the order in which they first appear."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from bench.languages import Program, parse
from bench.languages.normalising.result import Normalised
from bench.samples import Edit, apply_edits

_WORD = re.compile(r"[^\W\d][\w$]*")


def renamed(language: str, text: str, *, function_name: bool = True) -> Normalised:
    """The program with every renameable name replaced, scope by scope.

    All names are replaced at once, each by a word that the rest of the program does not hold: no two of them can meet, and nothing
    can be captured. Names that cannot be followed (a program that reads its own scope, fields, imports …) stay.
    """
    program = parse(language, text)
    names = sorted({*program.parameters, *program.locals}, key=lambda name: name.spans)
    function = program.function_name if function_name else None
    chosen = [*names, *([function] if function is not None else [])]
    rest = words_outside(program, [span for name in chosen for span in name.spans])
    fresh = _unused("v", rest)
    edits = [Edit(*span, new) for name, new in zip(names, fresh, strict=False) for span in name.spans]
    if function is not None:
        new = next(_unused("f", rest, first="f"))
        edits += [Edit(*span, new) for span in function.spans]
    return Normalised(apply_edits(text, edits))


def words_outside(program: Program, spans: list[tuple[int, int]]) -> set[str]:
    """Every word of the text that does not lie in one of the spans."""
    pieces, reached = [], 0
    for start, end in sorted(spans):
        pieces.append(program.data[reached:start])
        reached = end
    pieces.append(program.data[reached:])
    return set(_WORD.findall(b"\n".join(pieces).decode()))


def _unused(stem: str, taken: set[str], first: str = "") -> Iterator[str]:
    candidates = itertools.chain([first] if first else [], (f"{stem}{number}" for number in itertools.count()))
    return (word for word in candidates if word not in taken)
