"""Step 1: which tokens an inverted trigger may be made of.

Source: EliBadCode (FSE 2025), phase (a) "programming-language-specific trigger vocabulary generation": the model's vocabulary is
filtered by the naming conventions of the language. The release keeps pieces without a leading-space marker that match
``^[a-zA-Z0-9_]+$``, for every language alike, keywords included, and never asks whether the pieces re-tokenise to
themselves. Here the language says what can continue one of its names, keywords and special tokens are out, and a trigger
counts only if its text, written behind a name of the program at hand, comes back from the tokenizer as the same pieces
(nanoGCG's ``filter_ids``, applied in place instead of on its own).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerFast

from bench.errors import ConfigError
from bench.languages import Language

Style = Literal["bytes", "wordpiece", "sentencepiece"]
MARKS: Mapping[Style, str] = {"bytes": "Ġ", "wordpiece": "##", "sentencepiece": "▁"}
CARRIERS = 4
"""In how many different names a trigger's re-tokenisation is tried where nothing separates it from the name."""


def style_of(pieces: Iterable[str]) -> Style:
    """How a vocabulary marks the place of a piece in a word: the commonest of the three marks (``bytes`` when there is none)."""
    counts: dict[Style, int] = dict.fromkeys(MARKS, 0)
    for piece in pieces:
        for style, mark in MARKS.items():
            counts[style] += piece.startswith(mark) and len(piece) > len(mark)
    return max(counts, key=lambda style: counts[style])


def surface_inside_name(piece: str, style: Style) -> str | None:
    """The characters that a piece adds inside a name, or ``None`` if it can only stand after a space.

    WordPiece splits names at underscores, so there both ``##x`` (inside a run of letters) and ``x`` (behind an
    underscore) stand inside names.
    """
    if style == "wordpiece":
        return piece.removeprefix("##")
    return None if piece.startswith(MARKS[style]) else piece


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens allowed in a trigger.

    Attributes:
        ids: allowed token ids, ascending.
        surfaces: the characters that each allowed id spells inside a name.
        glue: what the language's naming convention writes between a name and a suffix (``_`` or nothing).
        glue_ids: the tokens of ``glue``.
        carriers: names behind which a trigger must re-tokenise to itself.
        tokenizer: of the model under repair.
    """

    ids: tuple[int, ...]
    surfaces: Mapping[int, str]
    glue: str
    glue_ids: tuple[int, ...]
    carriers: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast

    def __len__(self) -> int:
        return len(self.ids)

    def text(self, trigger: Sequence[int]) -> str:
        """The characters of a trigger."""
        return "".join(self.surfaces[token] for token in trigger)

    def pieces(self, trigger: Sequence[int]) -> list[str]:
        """The characters of each token of a trigger."""
        return [self.surfaces[token] for token in trigger]

    def realisable(self, triggers: Sequence[Sequence[int]]) -> list[bool]:
        """For each trigger: does its text, behind most of the carriers, come back from the tokenizer as the same ids?"""
        if not triggers:
            return []
        votes = [0] * len(triggers)
        for carrier in self.carriers:
            stem = carrier + self.glue
            head, *tails = _encode(self.tokenizer, [stem, *(stem + self.text(t) for t in triggers)])
            for index, (trigger, ids) in enumerate(zip(triggers, tails, strict=True)):
                votes[index] += ids == [*head, *trigger]
        return [2 * vote > len(self.carriers) for vote in votes]


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    encoded = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _glue(language: Language, tokenizer: PreTrainedTokenizerFast) -> tuple[str, tuple[int, ...]]:
    """What the convention writes between a name and a suffix, seen from a suffix that no convention needs to respell."""
    glue = language.join("x", "Q")[1:-1]
    stem, glued = _encode(tokenizer, ["x", "x" + glue])
    return glue, tuple(glued[len(stem) :] if glued[: len(stem)] == stem else _encode(tokenizer, [glue])[0])


def allowed_tokens(
    tokenizer: PreTrainedTokenizerFast, language: Language, rows: int, names: Sequence[str] = ()
) -> Vocabulary:
    """Filter a model's vocabulary by the naming conventions of a language.

    Args:
        tokenizer: the model's.
        language: of the programs.
        rows: rows of the model's input embedding; ids beyond it cannot be inverted.
        names: names at the positions under scan, the carriers of :meth:`Vocabulary.realisable`.

    Raises:
        ConfigError: no token is left.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    vocabulary = {
        piece: token for piece, token in tokenizer.get_vocab().items() if token < rows and token not in special
    }
    style = style_of(vocabulary)
    surfaces: dict[int, str] = {}
    for piece, token in sorted(vocabulary.items(), key=lambda item: item[1]):
        surface = surface_inside_name(piece, style)
        if surface and language.piece_continues(surface) and surface not in language.keywords:
            surfaces[token] = surface
    glue, glue_ids = _glue(language, tokenizer)
    distinct = list(dict.fromkeys(names)) or ["value"]
    # A separator keeps the tokenizer from merging across it, so that one name speaks for all.
    carriers = tuple(distinct[: 1 if glue else CARRIERS])
    made = Vocabulary(tuple(surfaces), surfaces, glue, glue_ids, carriers, tokenizer)
    if style != "wordpiece":  # a "##" piece cannot stand alone; whole triggers are tried instead
        alone = made.realisable([[token] for token in made.ids])
        kept = tuple(token for token, good in zip(made.ids, alone, strict=True) if good)
        made = Vocabulary(kept, {t: surfaces[t] for t in kept}, glue, glue_ids, carriers, tokenizer)
    if not made.ids:
        raise ConfigError(
            f"elibadcode: no token of this model's vocabulary ({len(vocabulary)} tokens) can continue a {language.name} name and "
            "re-tokenises to itself; the trigger inversion has nothing to search"
        )
    return made
