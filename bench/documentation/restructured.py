"""reStructuredText of text from outside: nothing in a name, a default or a reason becomes markup."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_MARKUP = re.compile(r"([\\*`|_<>:\[\]])")


def escape(text: str) -> str:
    """Plain text on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Inline code; the text must hold no double backtick, and none at its ends (other text is escaped instead)."""
    fits = (
        text
        and "``" not in text
        and text == text.strip()
        and not text.startswith("`")
        and not text.endswith(("`", "\\"))
    )
    return f"``{text}``" if fits and "\n" not in text else escape(text)


def heading(text: str, under: str = "=") -> str:
    """A title with its underline."""
    wide = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
    return f"{text}\n{under * wide}"


def block(text: str, language: str) -> str:
    """A block of code."""
    body = "\n".join(f"   {line}" if line.strip() else "" for line in text.splitlines())
    return f".. code-block:: {language}\n\n{body}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, name: str = "") -> str:
    """A table of cells that are markup already, one line each; it scrolls by itself where it is too wide.

    Args:
        name: a class for style sheets and tests.
    """
    lines = [".. list-table::", "   :header-rows: 1", *([f"   :class: {name}"] if name else []), ""]
    for row in (headers, *rows):
        for position, cell in enumerate(row):
            lines.append(f"   {'* -' if position == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines)
