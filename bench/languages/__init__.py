"""The languages that programs are written in: Python, Java and C, through tree-sitter.

One file a language. A :class:`Program` tells names with their scopes, statement boundaries, comments and leaf tokens, and
makes edits that keep what the program does; :func:`well_formed` refuses an edit that breaks it.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import cast

from bench.errors import ConfigError, suggest
from bench.languages.program import Boundary, Language, Leaf, Program, word_ends
from bench.languages.scopes import Name, NameKind, RenameRefused

__all__ = [
    "Boundary",
    "Language",
    "Leaf",
    "Name",
    "NameKind",
    "Program",
    "RenameRefused",
    "get",
    "names",
    "parse",
    "well_formed",
    "word_ends",
]

_CLASSES = {"c": "C", "java": "Java", "python": "Python"}


def names() -> tuple[str, ...]:
    """The known languages, sorted."""
    return tuple(sorted(_CLASSES))


@functools.cache
def get(name: str) -> Language:
    """A language by name.

    Raises:
        ConfigError: there is no such language.
    """
    if name not in _CLASSES:
        raise ConfigError(f"unknown language {name!r}.{suggest(name, _CLASSES)}")
    return cast(Language, getattr(import_module(f"{__name__}.{name}"), _CLASSES[name])())


@functools.lru_cache(maxsize=8)
def parse(language: str, text: str) -> Program:
    """Parse a program; the last few are remembered.

    Few, since an edit and its check work on one sample at a time, and trees that outlive the processor's cache make
    everything after them slower.

    Raises:
        ConfigError: there is no such language.
        DataError: the text holds half a surrogate pair and has no UTF-8.
    """
    return Program(get(language), text)


def well_formed(language: str, before: str, after: str) -> str | None:
    """Whether an edit keeps a program well-formed: ``None``, or the reason why it does not.

    An edit is refused when it adds an error node, and for Python when the program no longer compiles although it did.
    A program that was broken before may stay as broken as it was.
    """
    old, new = parse(language, before), parse(language, after)
    if new.error_nodes > old.error_nodes:
        return f"the edited program has {new.error_nodes} syntax error node(s), {old.error_nodes} before"
    compiler = old.language
    if (damage := compiler.broken(after)) and damage > compiler.broken(before):
        return "the edited program no longer compiles"
    return None
