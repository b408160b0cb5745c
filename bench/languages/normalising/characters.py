"""Look-alike and invisible characters: NFKC, and no format characters, in everything but strings.

Source: Unicode Standard Annex 15 (NFKC); Boucher and Anderson, "Trojan Source: Invisible Vulnerabilities", USENIX Security 2023
(format characters, category Cf, change what a reader sees and not what a compiler does). A string's characters are what the
program does, so they stay. NFKC does not join letters of different scripts (Cyrillic ``а``): such a name is renamed like all others.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from bench.languages import Program, parse
from bench.languages.normalising.result import Normalised
from bench.samples import Edit, apply_edits

_IN_STRINGS = ("string", "char", "escape_sequence", "multiline")


class _Run(NamedTuple):
    """Characters outside strings that belong together: those of one name, or a single other one."""

    start: int
    text: str


def plain(language: str, text: str) -> Normalised:
    """Every name and sign outside strings in NFKC, without format characters.

    In Java and C two spellings are two names: a name stays as it is where its plain form is written in the program as well.
    """
    if text.isascii():
        return Normalised(text)
    runs = list(_runs(parse(language, text)))
    taken = frozenset() if language == "python" else frozenset(run.text for run in runs)
    changed = [run for run in runs if (new := _plain(run.text)) != run.text and new not in taken]
    edits = [Edit(run.start, run.start + len(run.text.encode()), _plain(run.text)) for run in changed]
    return Normalised(apply_edits(text, edits), characters=sum(_plain(c) != c for run in changed for c in run.text))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", "".join(c for c in text if not _is_invisible(c)))


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf"


def _runs(program: Program) -> Iterator[_Run]:
    """The runs of everything between strings. Not by tokens: a parser breaks a name at an invisible character."""
    reached = 0
    for start, end in [*_strings(program), (len(program.data), 0)]:
        name, at, place = "", reached, reached
        for character in program.data[reached:start].decode() + "\n":
            if character.isalnum() or character == "_" or _is_invisible(character):
                name += character
            else:
                if name:
                    yield _Run(at, name)
                if not character.isascii():
                    yield _Run(place, character)
                name, at = "", place + len(character.encode())
            place += len(character.encode())
        reached = end


def _strings(program: Program) -> Iterator[tuple[int, int]]:
    for leaf in program.leaves:
        if leaf.type.startswith(_IN_STRINGS):
            yield leaf.start, leaf.end
