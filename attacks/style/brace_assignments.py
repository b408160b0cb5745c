"""Java and C: compound assignments and steps by one, as statements (nobody reads their value)."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.brace_statements import value_unused
from attacks.style.brace_values import NUMBERS, Grade, declared, grade, is_primary, is_variable, type_of
from attacks.style.form import Change, Form
from attacks.style.layout import over, replaced
from attacks.style.trees import bound, field, of, text
from bench.languages import Program

OPERATORS = frozenset(["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"])


def assignments(program: Program) -> Iterator[tuple[Node, Node, str, Node]]:
    """Every assignment whose value is unused: the node, its target, operator and right side."""
    for node in of(program, "assignment_expression"):
        left, operator, right = field(node, "left"), field(node, "operator"), field(node, "right")
        if left is not None and operator is not None and right is not None and value_unused(node):
            yield node, left, operator.type, right


def expand(program: Program) -> Iterator[Change]:
    """``x += e`` → ``x = x + e``.

    C: the same by definition (C11 6.5.16.2), for a target that can be evaluated twice and an ``e`` that calls nothing, since C leaves
    open whether ``x`` is read before the call. Java: a compound assignment casts, so the types must be known not to need it;
    the old value is read before ``e`` is evaluated in both forms.
    """
    java = program.language.name == "java"
    for node, left, operator, right in assignments(program):
        sign = operator.removesuffix("=")
        if sign not in OPERATORS or not is_variable(program, left):
            continue
        if not (_no_cast(program, left, sign, right) if java else _c_safe(program, left, right)):
            continue
        value = text(program, right)
        if not is_primary(program, right):
            value = f"({value})"
        target = text(program, left)
        yield Change((replaced(program, left.end_byte, node.end_byte, f" = {target} {sign} {value}"),), node)


def contract(program: Program) -> Iterator[Change]:
    """``x = x + e`` → ``x += e``; conditions as for :func:`expand`, less the types: what was assigned without a cast needs none."""
    java = program.language.name == "java"
    for node, left, operator, right in assignments(program):
        if operator != "=" or right.type != "binary_expression" or not is_variable(program, left):
            continue
        first, sign, second = field(right, "left"), field(right, "operator"), field(right, "right")
        if first is None or sign is None or second is None or sign.type not in OPERATORS:
            continue
        if text(program, first) != text(program, left) or not (java or _c_safe(program, left, second)):
            continue
        yield Change((replaced(program, left.end_byte, second.start_byte, f" {sign.type}= "),), node)


def _c_safe(program: Program, left: Node, right: Node) -> bool:
    """Both sides only read, and the target is no atomic object."""
    return grade(program, right) <= Grade.READS and "_Atomic" not in program.text and "atomic_" not in program.text


def _no_cast(program: Program, left: Node, sign: str, right: Node) -> bool:
    if left.type != "identifier" or (name := bound(program).get(left.start_byte)) is None:
        return False
    kind = declared(program, name)
    if kind == "String":
        return sign == "+"
    value = type_of(program, right)
    if kind not in ("int", "long", "float", "double") or value not in NUMBERS:
        return False
    return sign in ("<<", ">>") or NUMBERS.index(value) <= NUMBERS.index(kind)


def steps(program: Program) -> Iterator[tuple[Node, Node, str, bool]]:
    """Every ``x++`` whose value is unused: the node, ``x``, the sign, and whether the sign comes first."""
    for node in of(program, "update_expression"):
        if value_unused(node) and len(node.named_children) == 1 and len(node.children) == 2:
            prefix = node.children[0].type in ("++", "--")
            yield node, node.named_children[0], node.children[0 if prefix else 1].type, prefix


def to_added_one(program: Program) -> Iterator[Change]:
    """``x++`` → ``x += 1`` (both cast in Java; both move a C pointer by one element)."""
    for node, operand, sign, _ in steps(program):
        yield Change((over(program, node, f"{text(program, operand)} {sign[0]}= 1"),), node)


def to_prefix(program: Program) -> Iterator[Change]:
    """``x++`` → ``++x``."""
    for node, operand, sign, prefix in steps(program):
        if not prefix:
            yield Change((over(program, node, sign + text(program, operand)),), node)


def to_postfix(program: Program) -> Iterator[Change]:
    """``++x`` → ``x++``; not of a C ``*p``, to which the sign would not belong."""
    for node, operand, sign, prefix in steps(program):
        if prefix and operand.type not in ("pointer_expression", "unary_expression", "cast_expression"):
            yield Change((over(program, node, text(program, operand) + sign),), node)


def _expanded(program: Program) -> int:
    return sum(
        operator == "="
        and right.type == "binary_expression"
        and (first := field(right, "left")) is not None
        and text(program, first) == text(program, left)
        for _, left, operator, right in assignments(program)
    )


def _compound(program: Program) -> int:
    return sum(operator.removesuffix("=") in OPERATORS for _, _, operator, _ in assignments(program))


def _added_one(program: Program) -> int:
    return sum(op in ("+=", "-=") and text(program, right) == "1" for _, _, op, right in assignments(program))


FORMS = (
    Form("plain_assignment", "assignments", "x += e  →  x = x + e", expand, _expanded, opposite="compound_assignment"),
    Form(
        "compound_assignment", "assignments", "x = x + e  →  x += e", contract, _compound, opposite="plain_assignment"
    ),
    Form("added_one", "steps", "x++  →  x += 1", to_added_one, _added_one),
    Form(
        "prefix_step",
        "steps",
        "x++  →  ++x",
        to_prefix,
        lambda p: sum(prefix for *_, prefix in steps(p)),
        opposite="postfix_step",
    ),
    Form(
        "postfix_step",
        "steps",
        "++x  →  x++",
        to_postfix,
        lambda p: sum(not prefix for *_, prefix in steps(p)),
        opposite="prefix_step",
    ),
)
