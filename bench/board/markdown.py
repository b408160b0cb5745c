"""Markdown of text from outside: nothing in a name, a reason or an inverted token can end its cell or become markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from tabulate import tabulate

_SPECIAL = re.compile(r"([\\`*_|~<>#&$]|(?<=\])\()")


def escape_markdown(text: str) -> str:
    """Text from outside on one line, with everything that Markdown would read as markup escaped.

    Underscores inside a word are left alone, and brackets that no link follows: they mean nothing there.
    """
    line = " ".join(text.split())
    return re.sub(r"(?<=\w)\\_(?=\w)", "_", _SPECIAL.sub(r"\\\1", line))


def escape_tokens(tokens: Sequence[str]) -> str:
    """Tokens side by side; characters that do not print, or would split a token, are written as ``\\u....``, an empty one as ``""``."""
    return " ".join(escape_markdown("".join(map(_printed, token)) or '""') for token in tokens)


def _printed(character: str) -> str:
    if character.isprintable() and not character.isspace():
        return character
    return f"\\u{ord(character):04x}"


def link(text: str, target: str) -> str:
    """A link to a file beside the page; text and file name may hold anything."""
    inside = escape_markdown(text).replace("[", r"\[").replace("]", r"\]")
    return f"[{inside}]({quote(target)})"


def escaped_table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A GitHub table of plain text."""
    return table(headers, [[escape_markdown(cell) for cell in row] for row in body])


def table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A GitHub table whose cells are Markdown already."""
    return tabulate(body, [escape_markdown(h) for h in headers], tablefmt="github", disable_numparse=True)
