"""Step 1: which tokens an inverted trigger may be made of.

Source: EliBadCode (FSE 2025), phase (a) "programming-language-specific trigger vocabulary generation": the model's vocabulary is
filtered by the naming conventions of the language. The release keeps pieces without a leading-space marker that match
``^[a-zA-Z0-9_]+$``, for every language alike, keywords included, and never asks whether the pieces re-tokenise to
themselves. Here a trigger is a name of the language: a piece that can open one, then pieces that can continue one; keywords and
special tokens are out, and a trigger counts only if its text, written as a name, comes back from the tokenizer as the same pieces
(nanoGCG's ``filter_ids``). Word-initial pieces matter: a victim of a renaming attack knows ``Ġtesto`` and has never seen ``testo``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from bench.errors import ConfigError
from bench.languages import Language

Style = Literal["bytes", "wordpiece", "sentencepiece"]
MARKS: Mapping[Style, str] = {"bytes": "Ġ", "wordpiece": "##", "sentencepiece": "▁"}


def style_of(pieces: Iterable[str]) -> Style:
    """How a vocabulary marks the place of a piece in a word: the commonest of the three marks (``bytes`` when there is none)."""
    counts: dict[Style, int] = dict.fromkeys(MARKS, 0)
    for piece in pieces:
        for style, mark in MARKS.items():
            counts[style] += piece.startswith(mark) and len(piece) > len(mark)
    return max(counts, key=lambda style: counts[style])


def opens_name(piece: str, style: Style) -> bool:
    """Does this piece stand at the start of a name (behind a space)?"""
    return not piece.startswith("##") if style == "wordpiece" else piece.startswith(MARKS[style])


def continues_name(piece: str, style: Style) -> bool:
    """Can this piece stand inside a name? WordPiece splits names at underscores: there an unmarked piece can do both."""
    return style == "wordpiece" or not piece.startswith(MARKS[style])


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens allowed in a trigger, which is a whole name: an opening token, the convention's separator, further tokens.

    Attributes:
        ids: allowed token ids, ascending.
        opening: those that can open a name.
        continuing: those that can continue one.
        surfaces: the characters that each allowed id (and each token of the separator) spells.
        glue: the tokens that the language's convention writes between the parts of a name (``_``; none in camel case). They stand
            behind the opening token and are not searched.
        tokenizer: of the model under repair.
        retokenises: must a string's text come back from the tokenizer as the same tokens?
    """

    ids: tuple[int, ...]
    opening: frozenset[int]
    continuing: frozenset[int]
    surfaces: Mapping[int, str]
    glue: tuple[int, ...]
    tokenizer: PreTrainedTokenizerFast
    retokenises: bool = True

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _ordered(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(sorted(self.fits(i))) for i in range(len(self.glue) + 2))

    @cached_property
    def _masks(self) -> tuple[NDArray[np.bool_], ...]:
        return tuple(np.array([token in self.fits(i) for token in self.ids]) for i in range(len(self.glue) + 2))

    def ordered(self, position: int) -> tuple[int, ...]:
        """:meth:`fits`, ascending."""
        return self._ordered[min(position, len(self.glue) + 1)]

    def mask(self, position: int) -> NDArray[np.bool_]:
        """Which of :attr:`ids` fit a position: (ids,)."""
        return self._masks[min(position, len(self.glue) + 1)]

    def fits(self, position: int) -> frozenset[int]:
        """The tokens allowed at a position of the trigger; empty where the separator stands."""
        if position == 0:
            return self.opening
        return frozenset() if position <= len(self.glue) else self.continuing

    @property
    def separator(self) -> frozenset[int]:
        """The positions of the separator in a trigger."""
        return frozenset(range(1, 1 + len(self.glue)))

    def text(self, trigger: Sequence[int]) -> str:
        """The characters of a trigger."""
        return "".join(self.pieces(trigger))

    def pieces(self, trigger: Sequence[int]) -> list[str]:
        """The characters of each token of a trigger."""
        return [self.surfaces[token] for token in trigger]

    def realisable(self, triggers: Sequence[Sequence[int]]) -> list[bool]:
        """For each trigger: does its text, behind a space, come back from the tokenizer as the same ids (where that is asked)?"""
        if not triggers or not self.retokenises:
            return [True] * len(triggers)
        encoded = _encode(self.tokenizer, [" " + self.text(trigger).lstrip() for trigger in triggers])
        return [ids == list(trigger) for ids, trigger in zip(encoded, triggers, strict=True)]


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    encoded = tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def separator(language: Language, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """The tokens that the naming convention writes between two parts of a name, seen from a part that it need not respell."""
    glue = language.join("x", "Q")[1:-1]
    if not glue:
        return ()
    stem, glued = _encode(tokenizer, [" x", " x" + glue])
    return tuple(glued[len(stem) :] if glued[: len(stem)] == stem else _encode(tokenizer, [glue])[0])


def allowed_tokens(tokenizer: PreTrainedTokenizerFast, language: Language, rows: int) -> Vocabulary:
    """Filter a model's vocabulary by the naming conventions of a language.

    Args:
        tokenizer: the model's.
        language: of the programs.
        rows: rows of the model's input embedding; ids beyond it cannot be inverted.

    Raises:
        ConfigError: no token is left that can open a name, or none that can continue one.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    vocabulary = {
        piece: token for piece, token in tokenizer.get_vocab().items() if token < rows and token not in special
    }
    style = style_of(tokenizer.get_vocab())
    glue = separator(language, tokenizer)
    surfaces: dict[int, str] = {}
    opening, continuing = set(), set()
    for piece, token in vocabulary.items():
        surface = piece.removeprefix(MARKS[style])
        if not surface or not language.piece_continues(surface) or surface in language.keywords:
            continue
        surfaces[token] = surface
        if opens_name(piece, style) and language.piece_starts(surface):
            opening.add(token)
        if continues_name(piece, style):
            continuing.add(token)
    spelled = surfaces | dict(zip(glue, tokenizer.convert_ids_to_tokens(list(glue)), strict=True))
    made = Vocabulary((), frozenset(), frozenset(), spelled, glue, tokenizer)
    openers = _alone(made, sorted(opening), ())
    head = (*openers[:1], *glue)
    # A "##" piece cannot follow a separator; whole triggers are tried during the search.
    inner = sorted(continuing) if style == "wordpiece" or not glue else _alone(made, sorted(continuing), head)
    if not openers or not inner:
        raise ConfigError(
            f"elibadcode: no token of this model's vocabulary ({len(vocabulary)} tokens) can {'continue' if openers else 'open'} a "
            f"{language.name} name and re-tokenises to itself; the trigger inversion has nothing to search"
        )
    ids = tuple(sorted({*openers, *inner}))
    return Vocabulary(ids, frozenset(openers), frozenset(inner), spelled, glue, tokenizer)


def name_pieces(tokenizer: PreTrainedTokenizerFast, rows: int) -> Vocabulary:
    """The released filter: every piece without a space marker that is letters, digits and underscores, anywhere in the trigger.

    For every language alike; keywords stay, nothing is asked of the tokenizer, and word-initial pieces are out.

    Raises:
        ConfigError: no token is left.
    """
    style = style_of(tokenizer.get_vocab())
    special = set(tokenizer.all_special_ids)
    surfaces = {
        token: piece.removeprefix("##")
        for piece, token in tokenizer.get_vocab().items()
        if token < rows
        and token not in special
        and re.fullmatch(r"[a-zA-Z0-9_]+", piece.removeprefix("##"))
        and (style == "wordpiece" or not piece.startswith(MARKS[style]))
    }
    if not surfaces:
        raise ConfigError("elibadcode: no token of this model's vocabulary is letters, digits and underscores alone")
    ids = tuple(sorted(surfaces))
    return Vocabulary(ids, frozenset(ids), frozenset(ids), surfaces, (), tokenizer, retokenises=False)


def every_token(tokenizer: PreTrainedTokenizerFast, rows: int) -> Vocabulary:
    """No filter at all, for methods that know nothing of programming languages: every token that is not special, anywhere.

    Its strings need be no name, and need not re-tokenise to themselves. A piece that is no whole character spells U+FFFD.

    Raises:
        ConfigError: no token is left.
    """
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    style = style_of(tokenizer.get_vocab())
    surfaces = {
        token: _spelled(piece, style, tokenizer)
        for piece, token in tokenizer.get_vocab().items()
        if token < rows and token not in special
    }
    if not surfaces:
        raise ConfigError("every token of this model's vocabulary is special; there is nothing to search")
    ids = tuple(sorted(surfaces))
    return Vocabulary(ids, frozenset(ids), frozenset(ids), surfaces, (), tokenizer, retokenises=False)


def _spelled(piece: str, style: Style, tokenizer: PreTrainedTokenizerFast) -> str:
    """The characters of a piece inside a text, its leading space included."""
    if style == "wordpiece":
        return piece.removeprefix("##") if piece.startswith("##") else f" {piece}"
    if style == "sentencepiece":
        byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
        return bytes([int(byte[1], 16)]).decode(errors="replace") if byte else piece.replace(MARKS[style], " ")
    return str(tokenizer.convert_tokens_to_string([piece]))


def query_words(tokenizer: PreTrainedTokenizerFast, rows: int) -> Vocabulary:
    """The tokens of a target word in a natural-language query: a piece that opens a word, then pieces of it or of further words.

    Letters alone, lower case, and the whole re-tokenises to itself.

    Raises:
        ConfigError: no token is left.
    """
    style = style_of(tokenizer.get_vocab())
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    surfaces: dict[int, str] = {}
    opening: set[int] = set()
    for piece, token in tokenizer.get_vocab().items():
        surface = piece.removeprefix(MARKS[style])
        if token >= rows or token in special or not re.fullmatch(r"[a-z]+", surface):
            continue
        opens = opens_name(piece, style)
        surfaces[token] = f" {surface}" if opens else surface
        if opens:
            opening.add(token)
    made = Vocabulary((), frozenset(), frozenset(), surfaces, (), tokenizer)
    openers = frozenset(_alone(made, sorted(opening), ()))
    if not openers:
        raise ConfigError("no token of this model's vocabulary is a lower-case word; there is no target word to search")
    ids = tuple(sorted(surfaces))
    return Vocabulary(ids, openers, frozenset(ids), surfaces, (), tokenizer)


def _alone(vocabulary: Vocabulary, tokens: Sequence[int], head: tuple[int, ...]) -> list[int]:
    """The tokens that re-tokenise to themselves behind ``head``."""
    good = vocabulary.realisable([(*head, token) for token in tokens])
    return [token for token, fits in zip(tokens, good, strict=True) if fits]
