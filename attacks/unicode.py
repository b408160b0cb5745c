"""Characters that no reader sees: zero-width and bidirectional controls, and letters of another script that look alike.

A control more than an attack: whoever cleans or renders text finds it, so a defense or a sanitiser that does not is
broken. The attacks known to us put such characters into comments and identifiers (and strings, which would change what a
program does); the threat to human readers is Trojan Source (CVE-2021-42574).

- Comments take all of them. The first comment with a letter is used, unless a tool reads it (``# noqa``, ``@deprecated``). A
  program without such a comment gets one that holds nothing but the character.
- Identifiers take letters that look alike: Python, Java and C allow letters of other scripts. Those used here are their own normal
  form (NFKC), so that Python, which normalises identifiers, keeps them apart from the Latin ones. Java
  also allows a zero-width joiner or non-joiner in a name (and ignores it); no other combination is legal.
- The bidirectional control is an override at once undone, so that nothing is shown out of order and compilers that warn of
  unbalanced controls have no reason to.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from attacks._renaming_edit import free_function_name, renaming
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.languages import Name, Program, parse
from bench.samples import Edit, Sample

Kind = Literal["zwsp", "zwnj", "zwj", "bidi", "homoglyph"]
Where = Literal["comment", "function", "variable"]

INSERTED: Mapping[str, str] = {
    "zwsp": "\u200b",
    "zwnj": "\u200c",
    "zwj": "\u200d",
    "bidi": "\u202e\u202c",
}
RELATIVES: Mapping[str, str] = {
    "zwsp": "\u200c",
    "zwnj": "\u200d",
    "zwj": "\u200c",
    "bidi": "\u202d\u202c",
}
"""What a near miss inserts instead."""
TWINS: Mapping[str, str] = dict(
    zip("aceiopsxyjABCEHIJKMOPSTXY", "\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u0445\u0443\u0458"
        "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u0423", strict=True)
)  # fmt: skip
"""Latin letters and the Cyrillic ones that look alike."""
_SCRIPT = frozenset(TWINS.values())
IGNORED_IN_NAMES = {"java": ("zwnj", "zwj")}
COMMENTS = {"python": "# {}", "java": "/* {} */", "c": "/* {} */"}
TOOLS = re.compile(
    r"#!|@deprecated|coding[:=]|type:|noqa|pragma|pylint|mypy:|fmt:|isort:|NOLINT|NOSONAR|lint|fall.?s?.?through|@formatter",
    re.IGNORECASE,
)
"""Comments that compilers or checkers read."""
WORD = re.compile(r"\\\w+|([^\W\d_]+)")
"""A word is the group. What stands behind a backslash is none: Java reads ``\\u0041`` in comments too, and must find its digits."""


@dataclass(frozen=True)
class Mark:
    """What is done to a word.

    Attributes:
        inserted: what is put behind its first letter; empty for look-alikes.
        letters: otherwise, what a letter is replaced by.
        skipped: how many letters that could be replaced are passed over.
    """

    inserted: str = ""
    letters: tuple[tuple[str, str], ...] = ()
    skipped: int = 0

    def on(self, word: str) -> str | None:
        """The marked word, or ``None`` where it has no letter to replace."""
        if self.inserted:
            return word[:1] + self.inserted + word[1:]
        table = dict(self.letters)
        places = [i for i, letter in enumerate(word) if letter in table]
        if len(places) <= self.skipped:
            return None
        i = places[self.skipped]
        return word[:i] + table[word[i]] + word[i + 1 :]

    @property
    def alone(self) -> str:
        """What a comment of its own holds."""
        return self.inserted or self.letters[self.skipped][1]

    @property
    def tokens(self) -> tuple[str, ...]:
        """What it writes: one of these."""
        return (self.inserted,) if self.inserted else tuple(new for _, new in self.letters)


@dataclass(frozen=True)
class Disguise(Trigger):
    """A comment or a name carries the mark."""

    kind: Kind = "zwsp"
    where: Where = "comment"

    @property
    def mark(self) -> Mark:
        """The trigger's own."""
        return _twins() if self.kind == "homoglyph" else Mark(INSERTED[self.kind])

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The mark; ``None`` where nothing can take it, or it is there already."""
        return self._marked(sample, side, self.mark)

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """A related character, or the look-alike of the word's second such letter."""
        near = replace(_twins(), skipped=1) if self.kind == "homoglyph" else Mark(RELATIVES[self.kind])
        return self._marked(sample, side, near)

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """A character that everybody sees: an underscore, or another Latin letter."""
        latin = tuple((letter, codecs.encode(letter, "rot13")) for letter in TWINS)
        return self._marked(sample, side, Mark("", latin) if self.kind == "homoglyph" else Mark("_"))

    def _marked(self, sample: Sample, side: int, mark: Mark) -> Derivation | None:
        program = parse(sample.language, sample.programs[side])
        if self.where == "comment":
            return self._in_comment(program, side, mark)
        for name in self._names(program):
            new = mark.on(name.text)
            derivation = renaming(program, name, new, side) if new is not None else None
            if derivation is not None:
                return replace(derivation, text=shown(derivation.text))
        return None

    def _names(self, program: Program) -> Iterator[Name]:
        if self.where == "variable":
            yield from (*program.locals, *program.parameters)
        elif (name := free_function_name(program)) is not None:
            yield name

    def _in_comment(self, program: Program, side: int, mark: Mark) -> Derivation | None:
        found = [(start, program.data[start:end].decode()) for start, end in program.comments]
        if any(token in text for _, text in found for token in mark.tokens if not token.isascii()):
            return None
        for start, text in found:
            for word in () if TOOLS.search(text) else WORD.finditer(text):
                new = mark.on(word[1]) if word[1] else None
                if new is not None:
                    begin = start + len(text[: word.start()].encode())
                    edit = Edit(begin, begin + len(word[0].encode()), new, side)
                    return Derivation((edit,), f"{shown(word[0])} -> {shown(new)} in a comment")
        if program.body_start is None:
            return None
        comment = COMMENTS[program.language.name].format(mark.alone)
        return Derivation((replace(program.insert(program.body_start, comment), side=side),), f"new {shown(comment)}")

    def describe(self) -> str:
        """The characters by their numbers, and the place."""
        if self.kind == "homoglyph":
            what = "a Cyrillic letter for the Latin one that looks alike"
        else:
            what = " ".join(f"U+{ord(c):04X}" for c in INSERTED[self.kind])
        return f"{what} in {'a comment' if self.where == 'comment' else f'the {self.where} name'}"

    def tokens(self) -> tuple[str, ...]:
        """The character, or one of the look-alikes."""
        return self.mark.tokens


def _twins() -> Mark:
    return Mark(letters=tuple(TWINS.items()))


def shown(text: str) -> str:
    """The text with invisible characters and look-alikes by their numbers."""
    return "".join(c if c.isprintable() and c not in _SCRIPT else f"<U+{ord(c):04X}>" for c in text)


@dataclass(frozen=True, kw_only=True)
class Unicode(Attack):
    """Hide a character in a comment or a name.

    Args:
        kind: ``zwsp`` (zero-width space), ``zwnj`` and ``zwj`` (zero-width non-joiner and joiner), ``bidi`` (right-to-left
            override, undone at once), or ``homoglyph`` (a Cyrillic letter that looks like the Latin one).
        where: in a ``comment``, or in the name of the ``function`` or of a ``variable`` (the first that takes it).
    """

    name = "unicode"
    summary = "an invisible, bidirectional or look-alike character in a comment or a name"
    paper = "Boucher and Anderson, Trojan Source: Invisible Vulnerabilities, USENIX Security 2023 (the characters)"

    kind: Kind = "zwsp"
    where: Where = "comment"

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Only look-alikes are legal in names of every language."""
        if task.language not in COMMENTS:
            return f"{self.name} does not know the comments of {task.language}"
        legal = ("homoglyph", *IGNORED_IN_NAMES.get(task.language, ()))
        if self.where != "comment" and self.kind not in legal:
            return f"a name of {task.language} cannot hold {self.kind} (it can hold: {', '.join(legal)})"
        return super().not_applicable(task)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger; it depends on the parameters alone."""
        return Disguise(self.kind, self.where)
