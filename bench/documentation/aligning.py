"""Tables in docstrings whose source is aligned, and whose text is not: an escaped bar is longer in the source."""

from __future__ import annotations

import re

_BORDER = re.compile(r"=+(?: +=+)+")
BAR = "∣"
"""Stands for an escaped bar (U+2223): one character, and no markup."""


def realigned(docstring: str) -> str:
    r"""The docstring with every ``\|`` in a simple table written as :data:`BAR`, the columns as wide as they were in the source.

    In the source the backslash is doubled, so that the line is one character shorter in the docstring than where it was aligned.
    """
    starts: list[int] = []
    lines = []
    for line in docstring.splitlines():
        if _BORDER.fullmatch(line.strip()):
            indent = len(line) - len(line.lstrip())
            starts = [indent + found.start() for found in re.finditer("=+", line.strip())]
        lines.append(_aligned(line, starts) if starts and r"\|" in line else line)
    return "\n".join(lines)


def _aligned(line: str, starts: list[int]) -> str:
    source = line.replace(r"\|", r"\\|")
    ends = [*starts[1:], max(len(source), starts[-1])]
    cells = [source[start:end] for start, end in zip(starts, ends, strict=True)]
    return source[: starts[0]] + "".join(cell.replace(r"\\|", BAR).ljust(len(cell)) for cell in cells).rstrip()
