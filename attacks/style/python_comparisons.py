"""Python: how comparisons are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tree_sitter import Node

from attacks.style.form import Change, Form
from attacks.style.layout import over, replaced
from attacks.style.python_statements import split_comparison
from attacks.style.trees import bound, field, of, text
from bench.languages import Program
from bench.samples import Edit

FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
GREATER, LESS = frozenset({">", ">="}), frozenset({"<", "<="})
NEGATIVE = {"is not": "is", "not in": "in"}
STATEMENTS = frozenset(
    {"if_statement", "elif_clause", "while_statement", "return_statement", "assignment", "boolean_operator"}
)


def comparisons(program: Program) -> Iterator[tuple[Node, Node, str, Node]]:
    """Every comparison of two operands: the node, its left side, its operator and its right side."""
    for node in of(program, "comparison_operator"):
        found = split_comparison(program, node)
        if found is not None and len(found[1]) == 1:
            (left, right), (operator,) = found
            yield node, left, operator, right


def flip(operators: frozenset[str]) -> Callable[[Program], Iterator[Change]]:
    """``a < b`` → ``b > a``, where one side is a literal whole number or text.

    Such a literal leaves the comparison with foreign types to the other side, and a type derived from its own is asked first
    in both forms: the same method answers. Between two unknown objects that is not so.
    """

    def changes(program: Program) -> Iterator[Change]:
        for node, left, operator, right in comparisons(program):
            if operator in operators and is_literal(program, left) != is_literal(program, right):
                yield _swapped(program, node, left, operator, right)

    return changes


def to_literal_first(program: Program) -> Iterator[Change]:
    """``x == 0`` → ``0 == x``, ``x < 0`` → ``0 > x``, for literals as in :func:`flip`."""
    for node, left, operator, right in comparisons(program):
        if operator in FLIPPED and is_literal(program, right) and not is_literal(program, left):
            yield _swapped(program, node, left, operator, right)


def _swapped(program: Program, node: Node, left: Node, operator: str, right: Node) -> Change:
    edits = [over(program, left, text(program, right)), over(program, right, text(program, left))]
    if FLIPPED[operator] != operator:
        edits.append(over(program, node.children_by_field_name("operators")[0], FLIPPED[operator]))
    return Change(tuple(edits), node)


def is_literal(program: Program, node: Node) -> bool:
    """A whole number, perhaps negative, or a plain string (no bytes, no f-string)."""
    if node.type == "unary_operator":
        return node.children[0].type == "-" and node.named_children[-1].type == "integer"
    if node.type == "string":
        prefix = text(program, node.named_children[0]).rstrip("'\"").lower()
        return "f" not in prefix and "b" not in prefix
    return node.type == "integer" and text(program, node)[-1] not in "jJ"


def to_not_is(program: Program) -> Iterator[Change]:
    """``x is not y`` → ``not x is y``, ``x not in y`` → ``not x in y``: Python compiles both to the same."""
    for node, _, operator, _ in comparisons(program):
        if operator in NEGATIVE:
            edits = (
                replaced(program, node.start_byte, node.start_byte, "not "),
                over(program, node.children_by_field_name("operators")[0], NEGATIVE[operator]),
            )
            yield Change(edits, node)


def to_is_not(program: Program) -> Iterator[Change]:
    """``not x is y`` → ``x is not y``, ``not x in y`` → ``x not in y``."""
    for node, inner, operator in _negations(program):
        opposite = {"is": "is not", "in": "not in"}[operator]
        edits = (
            Edit(node.start_byte, inner.start_byte, ""),
            over(program, inner.children_by_field_name("operators")[0], opposite),
        )
        yield Change(edits, node)


def _negations(program: Program) -> Iterator[tuple[Node, Node, str]]:
    """Every ``not a is b``, ``not a in b``: the node, the comparison, its operator."""
    for node in of(program, "not_operator"):
        inner = field(node, "argument")
        if inner is None or inner.type != "comparison_operator" or len(node.named_children) != 1:
            continue
        found = split_comparison(program, inner)
        if found is not None and found[1] in (["is"], ["in"]):
            yield node, inner, found[1][0]


def split_chain(program: Program) -> Iterator[Change]:
    """``a < b < c`` → ``a < b and b < c``, where ``b`` is a local variable or a number."""
    for node in of(program, "comparison_operator"):
        found = split_comparison(program, node)
        if found is None or len(found[1]) != 2 or not _steady(program, found[0][1]):
            continue
        (a, b, c), (first, second) = found
        middle = text(program, b)
        said = f"{text(program, a)} {first} {middle} and {middle} {second} {text(program, c)}"
        if "\n" not in said:
            free = node.parent is not None and _stands_free(node.parent)
            yield Change((over(program, node, said if free else f"({said})"),), node)


def _stands_free(parent: Node) -> bool:
    """May an ``and`` stand in this place without parentheses?"""
    return parent.type in STATEMENTS


def chain(program: Program) -> Iterator[Change]:
    """``a < b and b < c`` → ``a < b < c``, where ``b`` is a local variable or a number."""
    for node, left, right in _chainable(program):
        (a, b), (first,) = left
        (_, c), (second,) = right
        said = f"{text(program, a)} {first} {text(program, b)} {second} {text(program, c)}"
        if "\n" not in said:
            yield Change((over(program, node, said),), node)


Sides = tuple[list[Node], list[str]]


def _chainable(program: Program) -> Iterator[tuple[Node, Sides, Sides]]:
    for node in of(program, "boolean_operator"):
        left, right, sign = field(node, "left"), field(node, "right"), field(node, "operator")
        if left is None or right is None or sign is None or sign.type != "and":
            continue
        if left.type != "comparison_operator" or right.type != "comparison_operator":
            continue
        first, second = split_comparison(program, left), split_comparison(program, right)
        if first is None or second is None or len(first[1]) != 1 or len(second[1]) != 1:
            continue
        b, again = first[0][1], second[0][0]
        if text(program, b) == text(program, again) and _steady(program, b):
            yield node, first, second


def _steady(program: Program, node: Node) -> bool:
    """Does it make no difference how often ``node`` is evaluated?"""
    return node.type in ("integer", "float") or (node.type == "identifier" and node.start_byte in bound(program))


def _chains(program: Program) -> int:
    return sum(len(n.children_by_field_name("operators")) == 2 for n in of(program, "comparison_operator"))


def _count(operators: frozenset[str]) -> Callable[[Program], int]:
    def shows(program: Program) -> int:
        return sum(operator in operators for _, _, operator, _ in comparisons(program))

    return shows


def _literal_first(program: Program) -> int:
    return sum(
        operator in FLIPPED and is_literal(program, left) and not is_literal(program, right)
        for _, left, operator, right in comparisons(program)
    )


FORMS = (
    Form(
        "greater_comparisons",
        "comparisons",
        "x < 3  →  3 > x",
        flip(LESS),
        _count(GREATER),
        opposite="less_comparisons",
    ),
    Form(
        "less_comparisons",
        "comparisons",
        "x > 3  →  3 < x",
        flip(GREATER),
        _count(LESS),
        opposite="greater_comparisons",
    ),
    Form("literal_first", "comparisons", "x == 0  →  0 == x", to_literal_first, _literal_first),
    Form(
        "not_is",
        "negations",
        "x is not None  →  not x is None",
        to_not_is,
        lambda p: sum(1 for _ in _negations(p)),
        opposite="is_not",
    ),
    Form(
        "is_not",
        "negations",
        "not x is None  →  x is not None",
        to_is_not,
        _count(frozenset(NEGATIVE)),
        opposite="not_is",
    ),
    Form(
        "split_chain",
        "chains",
        "a < b < c  →  a < b and b < c",
        split_chain,
        lambda p: sum(1 for _ in _chainable(p)),
        opposite="chained",
    ),
    Form("chained", "chains", "a < b and b < c  →  a < b < c", chain, _chains, opposite="split_chain"),
)
