"""White space: indents, line ends, and texts that must not grow together."""

from __future__ import annotations

import re

from tree_sitter import Node

from bench.languages import Program
from bench.samples import Edit

_WORD = re.compile(r"\w")
_GLUE = frozenset("+-&|<>=!*/%^:?.")
"""Characters that may make another operator with their neighbour."""


def newline(program: Program) -> str:
    """The program's line end."""
    return "\r\n" if b"\r\n" in program.data else "\n"


def line_start(program: Program, position: int) -> int:
    """Where the line of a byte begins."""
    return program.data.rfind(b"\n", 0, position) + 1


def line_end(program: Program, position: int) -> int:
    """Where the line of a byte ends, before its line end."""
    end = program.data.find(b"\n", position)
    end = len(program.data) if end < 0 else end
    return end - 1 if program.data[end - 1 : end] == b"\r" and end - 1 >= position else end


def indent(program: Program, position: int) -> str:
    """The white space at the start of a byte's line."""
    line = program.data[line_start(program, position) : position]
    return line[: len(line) - len(line.lstrip(b" \t\f"))].decode()


def begins_line(program: Program, position: int) -> bool:
    """Is there only white space before a byte on its line?"""
    return not program.data[line_start(program, position) : position].strip()


def step(margin: str) -> str:
    """One level of indent, in the manner of a margin."""
    return "\t" if "\t" in margin else "    "


def gap(program: Program, node: Node, deeper: bool = False) -> str:
    """What stands between two statements written in the place of ``node``: a new line, or a space where it shares its line."""
    if not begins_line(program, node.start_byte):
        return " "
    margin = indent(program, node.start_byte)
    return newline(program) + margin + (step(margin) if deeper else "")


def replaced(program: Program, start: int, end: int, new: str) -> Edit:
    """An edit that keeps words and operators apart from their neighbours (``return(a)`` must not become ``returnb``)."""
    before = program.data[max(0, start - 4) : start].decode(errors="replace")[-1:]
    after = program.data[end : end + 4].decode(errors="replace")[:1]
    if new and before and _sticks(before, new[0]):
        new = " " + new
    if new and after and _sticks(new[-1], after):
        new += " "
    return Edit(start, end, new)


def _sticks(left: str, right: str) -> bool:
    quotes = left in "\"'" and right in "\"'"
    return (
        bool(_WORD.match(left) and (_WORD.match(right) or right in "\"'"))
        or (left in _GLUE and right in _GLUE)
        or quotes
    )


def over(program: Program, node: Node, new: str) -> Edit:
    """:func:`replaced` for a whole node."""
    return replaced(program, node.start_byte, node.end_byte, new)


def shifted(lines: str, old: str, new: str) -> str | None:
    """Text whose every line but the first goes from margin ``old`` to ``new``; ``None`` where one does not begin with ``old``."""
    first, *rest = lines.split("\n")
    moved = [first]
    for line in rest:
        if not line.strip():
            moved.append(line)
        elif line.startswith(old):
            moved.append(new + line[len(old) :])
        else:
            return None
    return "\n".join(moved)
