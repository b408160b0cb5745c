"""Java and C: statements, lists of statements, conditions; node types of both grammars under one name."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.layout import begins_line, indent, newline
from attacks.style.trees import BLOCKS, COMMENTS, field, of, parts, peeled, within
from bench.languages import Program

LEAVING = frozenset(["return_statement", "break_statement", "continue_statement", "throw_statement", "goto_statement"])
SIMPLE = LEAVING | {"expression_statement"}
"""Statements that hold no other: no ``else`` that follows can be theirs."""
DECLARATIONS = frozenset(
    ["declaration", "local_variable_declaration", "class_declaration", "record_declaration", "type_definition"]
)
TERNARIES = ("conditional_expression", "ternary_expression")


def condition(node: Node) -> Node | None:
    """The parenthesised condition of an ``if`` or ``while``; ``None`` for what is not plain (comments, declarations)."""
    found = field(node, "condition")
    if found is None or found.type != "parenthesized_expression" or len(found.named_children) != 1:
        return None
    return None if found.named_children[0].type in (*COMMENTS, "declaration", "comma_expression") else found


def tested(node: Node) -> Node | None:
    """What an ``if`` or ``while`` tests, without its parentheses."""
    found = condition(node)
    return None if found is None else peeled(found)


def alternative(node: Node) -> Node | None:
    """The statement after ``else``."""
    found = field(node, "alternative")
    if found is not None and found.type == "else_clause":
        inner = parts(found)
        return inner[0] if len(inner) == 1 else None
    return found


def plain_if(node: Node) -> tuple[Node, Node, Node | None] | None:
    """Condition (parenthesised), first branch and alternative of an ``if``, where nothing else stands between them."""
    test, first, second = condition(node), field(node, "consequence"), alternative(node)
    if test is None or first is None or (field(node, "alternative") is not None and second is None):
        return None
    inside = [child for child in node.named_children if child.type != "else_clause"]
    clause = field(node, "alternative")
    if clause is not None and clause.type == "else_clause":
        inside += clause.named_children
    expected = [part for part in (test, first, second) if part is not None]
    return (test, first, second) if len(inside) == len(expected) else None


def ifs(program: Program) -> Iterator[tuple[Node, Node, Node, Node | None]]:
    """Every plain ``if``: the node and the three parts of :func:`plain_if`."""
    for node in of(program, "if_statement"):
        if (found := plain_if(node)) is not None:
            yield node, *found


def is_block(node: Node | None) -> bool:
    """``{ … }``?"""
    return node is not None and node.type in BLOCKS


def in_list(node: Node) -> bool:
    """Does a statement stand in a list of statements, so that others can be put beside it?"""
    return is_block(node.parent)


def only(node: Node) -> Node | None:
    """The one statement of a block without comments, or a simple statement itself."""
    if not is_block(node):
        return node if node.type in SIMPLE else None
    children = node.named_children
    return children[0] if len(children) == 1 and children[0].type not in COMMENTS else None


def leaves(node: Node) -> bool:
    """Does control never reach the end of this statement, as its last one shows?"""
    if is_block(node):
        inner = parts(node)
        return bool(inner) and inner[-1].type in LEAVING
    return node.type in LEAVING


def goes_on(node: Node) -> bool:
    """May control reach the end of this statement by Java's rules (an unreachable statement does not compile)?"""
    if is_block(node):
        inner = parts(node)
        return not inner or goes_on(inner[-1])
    if node.type in ("local_variable_declaration", "expression_statement", "enhanced_for_statement", ";"):
        return True
    if node.type == "while_statement":
        return any(inner.type in ("method_invocation", "assignment_expression") for inner in within(node.children[1]))
    if node.type == "for_statement":
        return _counts(node)
    return node.type == "if_statement" and field(node, "alternative") is None


def _counts(node: Node) -> bool:
    """Does a ``for`` test a variable that it steps? (Then its condition is no constant.)"""
    test = field(node, "condition")
    stepped = {
        inner.text
        for one in node.children_by_field_name("update")
        for inner in within(one)
        if inner.type == "identifier"
    }
    return test is not None and any(inner.type == "identifier" and inner.text in stepped for inner in within(test))


def value_unused(node: Node) -> bool:
    """Is an expression evaluated for its effect alone: a statement, or the step of a ``for``?"""
    parent = node.parent
    if parent is None:
        return False
    if parent.type == "comma_expression":
        return parent.named_children[0] == node or value_unused(parent)
    if parent.type == "for_statement":
        return field(parent, "condition") != node
    return parent.type == "expression_statement" and not _is_result(parent)


def _is_result(statement: Node) -> bool:
    """GNU C: the last statement of ``({ … })`` is its value. (Java: the body of a lambda is no statement.)"""
    block = statement.parent
    return block is not None and block.parent is not None and block.parent.type == "parenthesized_expression"


def embraced(program: Program, body: Node, first: str = "", last: str = "") -> tuple[int, str, str]:
    """Braces for a body that is no block, with a statement more before or after it.

    Returns:
        where the opening text begins (it ends where the body does begin), the opening text, and the closing text, which goes
        behind the body.
    """
    start, owner = body.start_byte, body.parent
    if owner is None or not begins_line(program, start) or (body.prev_sibling and body.prev_sibling.type in COMMENTS):
        return start, " ".join(["{", *filter(None, [first]), ""]), " ".join(["", *filter(None, [last]), "}"])
    inner = newline(program) + indent(program, start)
    outer = newline(program) + indent(program, owner.start_byte)
    while program.data[start - 1 : start].isspace():
        start -= 1
    opening = inner.join([" {", *filter(None, [first]), ""])
    return start, opening, inner.join(["", last]) + outer + "}" if last else outer + "}"
