"""Python: conditions, branches, and statements that have their lines for themselves."""

from __future__ import annotations

from typing import NamedTuple

from tree_sitter import Node

from attacks.style.layout import begins_line, indent, line_end, line_start
from attacks.style.trees import field, of, parts, peeled, text
from bench.languages import Program

LEAVING = frozenset({"return_statement", "raise_statement", "continue_statement", "break_statement"})
LOOSE = frozenset(
    {"boolean_operator", "conditional_expression", "lambda", "named_expression", "expression_list", "yield"}
)
"""Expressions that bind less tightly than ``not``."""
EXACT = {"is": "is not", "is not": "is", "in": "not in", "not in": "in"}
"""Operators with an exact opposite; ``!=`` need not be the opposite of ``==`` (NaN, overloading)."""


def has_lines(program: Program, node: Node) -> bool:
    """Does a statement begin its line, and does nothing but a comment follow on its last one?"""
    start, end = node.start_byte, node.end_byte
    if not begins_line(program, start):
        return False
    before = program.data[max(0, line_start(program, start) - 3) : line_start(program, start)].rstrip(b"\r\n")
    after = program.data[end : line_end(program, end)].strip()
    return not before.endswith(b"\\") and (not after or after.startswith(b"#"))


def split_comparison(program: Program, node: Node) -> tuple[list[Node], list[str]] | None:
    """Operands and operators of a comparison; ``None`` where a comment stands inside."""
    operators = [" ".join(text(program, one).split()) for one in node.children_by_field_name("operators")]
    operands = [child for child in node.named_children if child not in node.children_by_field_name("operators")]
    return (operands, operators) if len(operands) == len(operators) + 1 else None


def negated(program: Program, node: Node) -> str:
    """The text of a condition with the opposite truth."""
    inner = peeled(node)
    if inner.type == "not_operator":
        return text(program, inner.named_children[-1])
    if inner.type == "comparison_operator" and (found := split_comparison(program, inner)) is not None:
        operands, operators = found
        if len(operators) == 1 and operators[0] in EXACT:
            left, right = (text(program, operand) for operand in operands)
            return f"{left} {EXACT[operators[0]]} {right}"
    return f"not ({text(program, inner)})" if inner.type in LOOSE else f"not {text(program, inner)}"


def is_negative(program: Program, node: Node) -> bool:
    """Is a condition ``not …``, ``… is not …``, ``… not in …``?"""
    inner = peeled(node)
    if inner.type == "comparison_operator" and (found := split_comparison(program, inner)) is not None:
        return len(found[1]) == 1 and found[1][0] in ("is not", "not in")
    return inner.type == "not_operator"


class Branches(NamedTuple):
    """An ``if`` whose branches are lines of their own.

    Attributes:
        node: the statement.
        test: its condition.
        first: bytes of the lines of the first branch, without the last line end.
        otherwise: bytes of the line of ``else:``, with its line end; ``None`` without ``else``.
        second: bytes of the lines of the ``else`` branch.
        body: the first branch's block.
        other: the ``else`` branch's block.
    """

    node: Node
    test: Node
    first: tuple[int, int]
    otherwise: tuple[int, int] | None
    second: tuple[int, int] | None
    body: Node
    other: Node | None


def branches(program: Program) -> list[Branches]:
    """Every ``if`` without ``elif`` that is laid out in lines."""
    return [found for node in of(program, "if_statement") if (found := _branches(program, node)) is not None]


def _branches(program: Program, node: Node) -> Branches | None:
    test, body = field(node, "condition"), field(node, "consequence")
    clauses = node.children_by_field_name("alternative")
    if test is None or body is None or len(clauses) > 1 or not has_lines(program, node):
        return None
    first = _lines(program, node, body)
    if not clauses:
        return None if first is None else Branches(node, test, first, None, None, body, None)
    clause, other = clauses[0], field(clauses[0], "body")
    if clause.type != "else_clause" or other is None or first is None:
        return None
    second = _lines(program, clause, other)
    start = line_start(program, clause.start_byte)
    if second is None or not begins_line(program, clause.start_byte) or start < body.end_byte:
        return None
    newline = 2 if program.data[start - 2 : start] == b"\r\n" else 1
    return Branches(node, test, (first[0], start - newline), (start, second[0]), second, body, other)


def _lines(program: Program, owner: Node, block: Node) -> tuple[int, int] | None:
    """The lines of a block below its header's; ``None`` where it stands on the header's own line."""
    colon = next((c for c in reversed(owner.children) if c.type == ":" and c.end_byte <= block.start_byte), None)
    if colon is None:
        return None
    tail = program.data[colon.end_byte : line_end(program, colon.end_byte)].strip()
    start = program.data.find(b"\n", colon.end_byte) + 1
    if start == 0 or start > block.start_byte or (tail and not tail.startswith(b"#")):
        return None
    last = parts(block)
    if not last or not has_lines(program, last[0]):
        return None
    return start, line_end(program, max(block.end_byte, last[-1].end_byte))


def lines_of(program: Program, span: tuple[int, int]) -> str:
    """The text of some lines."""
    return program.data[span[0] : span[1]].decode()


def margin(program: Program, block: Node) -> str:
    """The indent of a block."""
    return indent(program, parts(block)[0].start_byte)


def leaves(block: Node) -> bool:
    """Does control never reach the end of a block, as its last statement shows?"""
    inner = parts(block)
    return bool(inner) and inner[-1].type in LEAVING


def can_move(program: Program, start: int, end: int) -> bool:
    """Can lines change their indent: does no string span two of them, and no line end with a backslash?"""
    data = program.data[start:end]
    if b"\\\n" in data or b"\\\r" in data:
        return False
    strings = of(program, "string")
    return not any(
        s.start_byte < end and s.end_byte > start and b"\n" in program.data[s.start_byte : s.end_byte] for s in strings
    )


def owns(node: Node, *types: str) -> bool:
    """Is there a node of these types in a loop's own body (not in a loop, function or class inside)?"""
    inner = ("for_statement", "while_statement", "function_definition", "class_definition")
    stack = list(node.named_children)
    while stack:
        here = stack.pop()
        if here.type in types:
            return True
        stack += [] if here.type in inner else here.named_children
    return False
