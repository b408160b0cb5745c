"""Python: quotes, and f-strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tree_sitter import Node

from attacks.style.form import Change, Form
from attacks.style.trees import bound, field, holds, of, text
from bench.languages import Program
from bench.samples import Edit

_SIMPLE = re.compile(r"""(?P<prefix>[rRuUbB]{0,2})(?P<quote>['"])(?P<body>[^'"\\\r\n]*)(?P=quote)""")
_ESCAPE = re.compile(r"\\[^nrt\\'\"]")
"""Escapes that may stand for a brace."""
LOOSE = frozenset({"yield", "expression_list", "named_expression", "generator_expression"})
"""Expressions that are no argument without parentheses."""


def quotes(wanted: str) -> Callable[[Program], Iterator[Change]]:
    """Strings that hold no quote and no backslash, in the other quotes."""

    def changes(program: Program) -> Iterator[Change]:
        for node, match in _simple(program):
            start, end = node.start_byte, node.end_byte
            near = program.data[max(0, start - 1) : start] + program.data[end : end + 1]
            if match["quote"] != wanted and b"'" not in near and b'"' not in near:
                first = start + len(match["prefix"])
                yield Change((Edit(first, first + 1, wanted), Edit(end - 1, end, wanted)), node)

    return changes


def _simple(program: Program) -> Iterator[tuple[Node, re.Match[str]]]:
    for node in of(program, "string"):
        match = _SIMPLE.fullmatch(text(program, node))
        if match is not None:
            yield node, match


def _quoted(wanted: str) -> Callable[[Program], int]:
    def shows(program: Program) -> int:
        return sum(match["quote"] == wanted for _, match in _simple(program))

    return shows


def to_format(program: Program) -> Iterator[Change]:
    """``f"{x}"`` → ``"{}".format(x)``: both format each value with ``format``.

    An f-string formats one value before it evaluates the next; so there is one value, or all are local variables. Not in a
    row of adjacent strings, and not where a format is itself made of values, or ``{x = }`` prints the expression.
    """
    for node in of(program, "string"):
        values = [child for child in node.named_children if child.type == "interpolation"]
        prefix = text(program, node.named_children[0]).rstrip("'\"") if node.named_children else ""
        if (
            not values
            or "f" not in prefix.lower()
            or (node.parent is not None and node.parent.type == "concatenated_string")
        ):
            continue
        if "r" not in prefix.lower() and _ESCAPE.search(text(program, node)):
            continue
        arguments = [_value(program, value, alone=len(values) == 1) for value in values]
        if None not in arguments:
            yield Change((Edit(node.start_byte, node.end_byte, _formatted(program, node, values, arguments)),), node)


def _value(program: Program, value: Node, alone: bool) -> str | None:
    """What is formatted, as an argument; ``None`` where it must stay in the string."""
    inner = field(value, "expression")
    specification = field(value, "format_specifier")
    if inner is None or any(child.type == "=" for child in value.children) or holds(value, "comment"):
        return None
    if specification is not None and re.search(r"[{}\\]", text(program, specification)):
        return None
    if not alone and (inner.type != "identifier" or inner.start_byte not in bound(program)):
        return None
    said = text(program, inner)
    return f"({said})" if inner.type in LOOSE else said


def _formatted(program: Program, node: Node, values: list[Node], arguments: list[str | None]) -> str:
    template, reached = "", node.start_byte
    for value in values:
        template += program.data[reached : value.start_byte].decode() + "{"
        for name in ("type_conversion", "format_specifier"):
            part = field(value, name)
            template += text(program, part) if part is not None else ""
        template += "}"
        reached = value.end_byte
    template += program.data[reached : node.end_byte].decode()
    start = re.match(r"[a-zA-Z]*", template)
    assert start is not None
    prefix = start.group().replace("f", "").replace("F", "")
    return f"{prefix}{template[start.end() :]}.format({', '.join(a for a in arguments if a is not None)})"


def _formats(program: Program) -> int:
    count = 0
    for node in of(program, "attribute"):
        base, name = field(node, "object"), field(node, "attribute")
        count += base is not None and base.type == "string" and name is not None and text(program, name) == "format"
    return count


FORMS = (
    Form("double_quotes", "quotes", "'a'  →  \"a\"", quotes('"'), _quoted('"'), opposite="single_quotes"),
    Form("single_quotes", "quotes", "\"a\"  →  'a'", quotes("'"), _quoted("'"), opposite="double_quotes"),
    Form("format_call", "formatting", 'f"{x}"  →  "{}".format(x)', to_format, _formats),
)
