"""Java and C: how comparisons and truth tests are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tree_sitter import Node

from attacks.style.brace_statements import TERNARIES
from attacks.style.brace_values import (
    LITERALS,
    PRECEDENCE,
    TRUTHS,
    exposes_macro,
    is_negative,
    is_primary,
    movable,
)
from attacks.style.form import Change, Form
from attacks.style.layout import over
from attacks.style.trees import field, of, parts, peeled, text
from bench.languages import Program
from bench.samples import Edit

FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
GREATER, LESS = frozenset({">", ">="}), frozenset({"<", "<="})


def comparisons(program: Program) -> Iterator[tuple[Node, Node, Node, Node]]:
    """Every comparison: the node, its left side, its operator and its right side."""
    for node in of(program, "binary_expression"):
        operator, left, right = field(node, "operator"), field(node, "left"), field(node, "right")
        if operator is not None and left is not None and right is not None and operator.type in FLIPPED:
            yield node, left, operator, right


def _swapped(program: Program, node: Node, left: Node, operator: Node, right: Node) -> Iterator[Change]:
    """``a < b`` → ``b > a``; not where a macro or a comparison of the same rank would be regrouped."""
    chained = PRECEDENCE.get(_operator(left)) == PRECEDENCE[operator.type]
    if chained or exposes_macro(program, left) or exposes_macro(program, right):
        return
    edits = [over(program, left, text(program, right)), over(program, right, text(program, left))]
    if FLIPPED[operator.type] != operator.type:
        edits.append(over(program, operator, FLIPPED[operator.type]))
    yield Change(tuple(edits), node)


def _operator(node: Node) -> str:
    operator = field(node, "operator")
    return operator.type if node.type == "binary_expression" and operator is not None else ""


def to_greater(program: Program) -> Iterator[Change]:
    """``a < b`` → ``b > a``, where neither side can change the other."""
    for node, left, operator, right in comparisons(program):
        if operator.type in LESS and movable(program, left, right):
            yield from _swapped(program, node, left, operator, right)


def to_less(program: Program) -> Iterator[Change]:
    """``a > b`` → ``b < a``, where neither side can change the other."""
    for node, left, operator, right in comparisons(program):
        if operator.type in GREATER and movable(program, left, right):
            yield from _swapped(program, node, left, operator, right)


def to_literal_first(program: Program) -> Iterator[Change]:
    """``x == 0`` → ``0 == x``, ``x < 0`` → ``0 > x``: a literal can be evaluated before anything."""
    for node, left, operator, right in comparisons(program):
        if is_literal(right) and not is_literal(left):
            yield from _swapped(program, node, left, operator, right)


def is_literal(node: Node) -> bool:
    """A literal, or one with a sign."""
    if node.type == "unary_expression" and node.children[0].type in "-+":
        return len(node.named_children) == 1 and node.named_children[0].type in LITERALS
    return node.type in LITERALS


def to_negated_equality(program: Program) -> Iterator[Change]:
    """``a != b`` → ``!(a == b)``: exact, for NaN too."""
    for node, left, operator, right in comparisons(program):
        if operator.type == "!=" and not exposes_macro(program, left) and not exposes_macro(program, right):
            edits = (
                Edit(node.start_byte, node.start_byte, "!("),
                over(program, operator, "=="),
                Edit(node.end_byte, node.end_byte, ")"),
            )
            yield Change(edits, node)


def _negated_equalities(program: Program) -> int:
    return sum(
        is_negative(node) and _operator(peeled(node.named_children[-1])) == "=="
        for node in of(program, "unary_expression")
    )


def truth_tests(program: Program) -> Iterator[Node]:
    """What is tested for truth and says no comparison: under ``if``, ``while``, ``for``, ``?``, ``!``, ``&&``, ``||``."""
    owners = ("if_statement", "while_statement", "do_statement", "for_statement", *TERNARIES)
    for owner in of(program, *owners):
        yield from _operands(field(owner, "condition"))


def _operands(node: Node | None) -> Iterator[Node]:
    """The operands that a condition's truth is made of."""
    stack = [node] if node is not None else []
    while stack:
        here = stack.pop()
        if here.type == "parenthesized_expression" or _operator(here) in ("&&", "||"):
            stack += reversed(parts(here))
        elif here.type != "binary_expression" or _operator(here) not in TRUTHS:
            yield here


def to_explicit(program: Program) -> Iterator[Change]:
    """``x`` → ``x != 0`` and ``!x`` → ``x == 0`` (Java: ``x == true``, ``x == false``) where ``x`` is tested for truth.

    C defines a test as the comparison with zero; a Java ``Boolean`` is unboxed in both forms. (Taken on trust: a call in a Java test
    gives a ``boolean`` or ``Boolean`` by its declaration, not by inference from the test.)
    """
    yes, no = ("== true", "== false") if program.language.name == "java" else ("!= 0", "== 0")
    for node in truth_tests(program):
        not_it = node.type == "unary_expression" and node.children[0].type == "!"
        operand = node.named_children[-1] if not_it else node
        if operand.type in LITERALS or operand.type == "parenthesized_expression" or not is_primary(program, operand):
            continue
        end = Edit(node.end_byte, node.end_byte, f" {no if not_it else yes}")
        yield Change((Edit(node.start_byte, operand.start_byte, ""), end) if not_it else (end,), node)


def _explicit(program: Program) -> int:
    told = ("true", "false") if program.language.name == "java" else ("0",)
    return sum(
        operator.type in ("==", "!=") and text(program, right) in told for _, _, operator, right in comparisons(program)
    )


def _count(operators: frozenset[str]) -> Callable[[Program], int]:
    def shows(program: Program) -> int:
        return sum(operator.type in operators for _, _, operator, _ in comparisons(program))

    return shows


def _literal_first(program: Program) -> int:
    return sum(is_literal(left) and not is_literal(right) for _, left, _, right in comparisons(program))


FORMS = (
    Form(
        "greater_comparisons",
        "comparisons",
        "a < b  →  b > a",
        to_greater,
        _count(GREATER),
        opposite="less_comparisons",
    ),
    Form("less_comparisons", "comparisons", "a > b  →  b < a", to_less, _count(LESS), opposite="greater_comparisons"),
    Form("literal_first", "comparisons", "x == 0  →  0 == x", to_literal_first, _literal_first),
    Form("negated_equality", "comparisons", "a != b  →  !(a == b)", to_negated_equality, _negated_equalities),
)
EXPLICIT_C = Form("explicit_zero", "truth", "if (x)  →  if (x != 0)", to_explicit, _explicit)
EXPLICIT_JAVA = Form("explicit_true", "truth", "if (x)  →  if (x == true)", to_explicit, _explicit)
