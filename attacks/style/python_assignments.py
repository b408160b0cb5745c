"""Python: augmented assignment of variables that hold numbers and texts alone.

Elsewhere ``x += e`` may change an object in place that another name sees, and ``x = x + e`` makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.form import Change, Form
from attacks.style.layout import replaced
from attacks.style.python_comparisons import is_literal
from attacks.style.python_loops import binds
from attacks.style.trees import bound, field, of, parts, text
from bench.languages import Name, Program

OPERATORS = frozenset(["+", "-", "*", "/", "//", "%", "**", "&", "|", "^", "<<", ">>"])


def expand(program: Program) -> Iterator[Change]:
    """``x += e`` → ``x = x + e``."""
    for node in of(program, "augmented_assignment"):
        left, operator, right = field(node, "left"), field(node, "operator"), field(node, "right")
        if left is None or operator is None or right is None or not is_plain(program, left):
            continue
        sign = operator.type.removesuffix("=")
        if sign in OPERATORS:
            value = text(program, right)
            tight = right.type in ("identifier", "integer", "float", "string", "call", "parenthesized_expression")
            said = f" = {text(program, left)} {sign} {value if tight else f'({value})'}"
            yield Change((replaced(program, left.end_byte, node.end_byte, said),), node)


def contract(program: Program) -> Iterator[Change]:
    """``x = x + e`` → ``x += e``."""
    for node, left, sign, second in _sums(program):
        if is_plain(program, left):
            yield Change((replaced(program, left.end_byte, second.start_byte, f" {sign}= "),), node)


def _sums(program: Program) -> Iterator[tuple[Node, Node, str, Node]]:
    """Every ``x = x + e``: the node, ``x``, the sign, and ``e``."""
    for node in of(program, "assignment"):
        left, right = field(node, "left"), field(node, "right")
        if left is None or right is None or left.type != "identifier" or field(node, "type") is not None:
            continue
        first, sign, second = field(right, "left"), field(right, "operator"), field(right, "right")
        if right.type != "binary_operator" or first is None or sign is None or second is None:
            continue
        if node.parent is None or node.parent.type != "expression_statement" or len(parts(right)) != 2:
            continue
        if text(program, first) == text(program, left) and sign.type in OPERATORS:
            yield node, left, sign.type, second


def is_plain(program: Program, node: Node) -> bool:
    """Is ``node`` a local variable that can hold nothing but numbers and texts?"""
    name = bound(program).get(node.start_byte) if node.type == "identifier" else None
    return name is not None and name.kind == "local" and all(_reads_or_plain(program, name, s) for s, _ in name.spans)


def _reads_or_plain(program: Program, name: Name, start: int) -> bool:
    """Does this place read the variable, or give it a literal, or add one (or a length) to it?"""
    here = program.tree.root_node.descendant_for_byte_range(start, start + 1)
    parent = here.parent if here is not None else None
    if here is None or parent is None:
        return False
    if parent.type not in ("assignment", "augmented_assignment") or field(parent, "left") != here:
        return not binds(here)
    right = field(parent, "right")
    if right is None:
        return False
    if parent.type == "assignment" and right.type == "binary_operator":
        left, second = field(right, "left"), field(right, "right")
        own = left is not None and text(program, left) == name.text
        return own and second is not None and _is_value(program, second)
    return _is_value(program, right)


def _is_value(program: Program, node: Node) -> bool:
    function = field(node, "function")
    length = node.type == "call" and function is not None and text(program, function) == "len"
    return is_literal(program, node) or node.type == "float" or length


FORMS = (
    Form(
        "plain_assignment",
        "assignments",
        "x += e  →  x = x + e",
        expand,
        lambda p: sum(1 for _ in _sums(p)),
        opposite="compound_assignment",
    ),
    Form(
        "compound_assignment",
        "assignments",
        "x = x + e  →  x += e",
        contract,
        lambda p: len(of(p, "augmented_assignment")),
        opposite="plain_assignment",
    ),
)
