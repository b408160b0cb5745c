"""Java and C: ``if``, ``else`` and the conditional operator."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.brace_statements import (
    DECLARATIONS,
    SIMPLE,
    TERNARIES,
    ifs,
    in_list,
    is_block,
    leaves,
    only,
)
from attacks.style.brace_values import (
    declared,
    exposes_macro,
    has_pattern,
    is_negative,
    is_primary,
    negated,
    type_of,
)
from attacks.style.form import Change, Form
from attacks.style.layout import begins_line, gap, indent, line_start, newline, replaced, shifted, step
from attacks.style.trees import COMMENTS, ancestors, bound, commented, field, holds, of, peeled, text
from bench.languages import Program
from bench.samples import Edit

NARROW = frozenset({"byte", "short", "char", "int"})


def if_elses(program: Program) -> Iterator[tuple[Node, Node, Node, Node]]:
    """Every ``if`` with an ``else`` that is no ``else if``, both branches blocks or simple statements, and no comment between."""
    for node, test, first, second in ifs(program):
        closed = second is not None and all(is_block(one) or one.type in SIMPLE for one in (first, second))
        if second is not None and closed and not commented(program, first.end_byte, second.start_byte):
            yield node, test, first, second


def negate(program: Program) -> Iterator[Change]:
    """``if (c) A else B`` → ``if (!c) B else A``, for a ``c`` that is not negative."""
    return _turned(program, negative=False)


def unnegate(program: Program) -> Iterator[Change]:
    """``if (!c) A else B`` → ``if (c) B else A``."""
    return _turned(program, negative=True)


def _turned(program: Program, negative: bool) -> Iterator[Change]:
    for node, held, first, second in if_elses(program):
        test = peeled(held)
        if (
            is_negative(test) is negative
            and not has_pattern(test)
            and not commented(program, held.start_byte, held.end_byte)
        ):
            edits = (
                Edit(held.start_byte + 1, held.end_byte - 1, negated(program, test)),
                replaced(program, first.start_byte, first.end_byte, text(program, second)),
                replaced(program, second.start_byte, second.end_byte, text(program, first)),
            )
            yield Change(edits, node)


def _of_sign(program: Program, negative: bool) -> int:
    return sum(is_negative(peeled(held)) is negative for _, held, _, _ in if_elses(program))


# ------------------------------------------------------------------------------------------------ the conditional operator


def choices(program: Program) -> Iterator[tuple[Node, str, Node]]:
    """Every statement ``x = c ? a : b`` or ``return c ? a : b``: the node, what stands before ``c``, and the operator's node."""
    for choice in of(program, *TERNARIES):
        value = choice
        while value.parent is not None and value.parent.type == "parenthesized_expression":
            value = value.parent
        owner = value.parent
        if owner is not None and owner.type == "return_statement":
            yield owner, "return ", choice
        elif owner is not None and owner.type == "assignment_expression" and field(owner, "right") == value:
            left, operator, statement = field(owner, "left"), field(owner, "operator"), owner.parent
            plain = left is not None and left.type == "identifier" and operator is not None and operator.type == "="
            if plain and left is not None and statement is not None and statement.type == "expression_statement":
                yield statement, f"{text(program, left)} = ", choice


def to_branches(program: Program) -> Iterator[Change]:
    """``x = c ? a : b;`` → ``if (c) { x = a; } else { x = b; }``, and for ``return``.

    ``a`` and ``b`` have one type for certain: of two types, the operator would convert both to a third.
    """
    for node, before, choice in choices(program):
        test, first, second = (field(choice, name) for name in ("condition", "consequence", "alternative"))
        if test is None or first is None or second is None or commented(program, node.start_byte, node.end_byte):
            continue
        if has_pattern(test) or _one_type(program, first, second) is None:
            continue
        inner, outer = gap(program, node, deeper=True), gap(program, node)
        said = [f"{{{inner}{before}{text(program, one)};{outer}}}" for one in (first, second)]
        whole = f"if ({text(program, peeled(test))}) {said[0]} else {said[1]}"
        yield Change((Edit(node.start_byte, node.end_byte, whole),), node)


def _one_type(program: Program, first: Node, second: Node) -> str | None:
    """The type of both; ``reference`` where one is a text or a new object, so that no numbers are converted."""
    if any(peeled(one).type in ("string_literal", "object_creation_expression") for one in (first, second)):
        return "reference"
    kind = type_of(program, first)
    return kind if kind is not None and kind == type_of(program, second) else None


def to_ternary(program: Program) -> Iterator[Change]:
    """``if (c) x = a; else x = b;`` → ``x = c ? a : b;``, and for ``return``; types as for :func:`to_branches`.

    Java assigns an ``int`` literal to a ``byte``, and not the choice of two: there what is assigned must have the type too.
    """
    for node, held, first, second in if_elses(program):
        given = [_given(program, branch) for branch in (first, second)]
        if given[0] is None or given[1] is None or given[0][0] != given[1][0]:
            continue
        if commented(program, node.start_byte, node.end_byte) or has_pattern(held):
            continue
        kind = _one_type(program, given[0][1], given[1][1])
        if kind is None or not _takes(program, given[0][2], kind):
            continue
        test = peeled(held)
        loose = is_primary(program, test) or (test.type == "binary_expression" and not exposes_macro(program, test))
        shown = text(program, test) if loose else f"({text(program, test)})"
        value = f"{shown} ? {text(program, given[0][1])} : {text(program, given[1][1])}"
        yield Change((Edit(node.start_byte, node.end_byte, f"{given[0][0]}{value};"),), node)


def _given(program: Program, branch: Node) -> tuple[str, Node, Node] | None:
    """What a branch that is one ``x = a;`` or ``return a;`` has before ``a``, ``a``, and ``x`` or the statement."""
    statement = only(branch)
    if statement is None or len(statement.named_children) != 1:
        return None
    value = statement.named_children[0]
    if statement.type == "return_statement":
        return "return ", value, statement
    left, operator, right = field(value, "left"), field(value, "operator"), field(value, "right")
    if value.type != "assignment_expression" or left is None or operator is None or right is None:
        return None
    if operator.type != "=" or left.type != "identifier" or exposes_macro(program, left):
        return None
    return f"{text(program, left)} = ", right, left


def _takes(program: Program, target: Node, kind: str) -> bool:
    """Java: may a value of this type that is no constant be assigned or returned without a cast?"""
    if program.language.name != "java" or kind not in NARROW:
        return True
    if target.type == "identifier":
        name = bound(program).get(target.start_byte)
        return name is not None and declared(program, name) == kind
    method = next((a for a in ancestors(target) if a.type in ("method_declaration", "lambda_expression")), None)
    result = field(method, "type") if method is not None else None
    return result is not None and text(program, result) == kind


# ---------------------------------------------------------------------------------------------- else after what leaves


def flatten(program: Program) -> Iterator[Change]:
    """``if (c) { return; } else { B }`` → ``if (c) { return; } B``; not where ``B`` declares names of its own."""
    for node, _, first, second in ifs(program):
        if second is None or not in_list(node) or not leaves(first):
            continue
        if commented(program, first.end_byte, second.start_byte) or holds(second, "text_block", "case_statement"):
            continue
        if not is_block(second):
            yield Change((Edit(first.end_byte, second.start_byte, gap(program, node)),), node)
            continue
        inner = second.named_children
        if not inner or any(child.type in DECLARATIONS or child.type.startswith("preproc") for child in inner):
            continue
        content = _moved(program, inner[0].start_byte, inner[-1].end_byte, indent(program, node.start_byte))
        if content is not None and not (inner[-1].type in COMMENTS and not begins_line(program, node.start_byte)):
            yield Change((Edit(first.end_byte, second.end_byte, gap(program, node) + content),), node)


def _moved(program: Program, start: int, end: int, margin: str) -> str | None:
    """The statements of ``[start, end)`` at another margin; where they share lines, as they are."""
    said = program.data[start:end].decode()
    if "\\\n" in said or "\\\r" in said:
        return None
    if not begins_line(program, start):
        return said if "//" not in said else None
    return shifted(said, indent(program, start), margin) or said


def nest(program: Program) -> Iterator[Change]:
    """``if (c) { return; } B`` → ``if (c) { return; } else { B }``, with all that follows in the block.

    Not with directives, cases or labels of the block among ``B``, nor where the block's last statement is its value (GNU C).
    """
    for node, _, first, second in ifs(program):
        if second is not None or not in_list(node) or not leaves(first) or node.parent is None:
            continue
        after = [child for child in node.parent.named_children if child.start_byte >= node.end_byte]
        statements = [child for child in after if child.type not in COMMENTS]
        if not statements or any(_stays(child) for child in statements) or not begins_line(program, node.start_byte):
            continue
        if node.parent.parent is not None and node.parent.parent.type == "parenthesized_expression":
            continue
        last = after[-1]
        if last.end_byte > node.parent.end_byte - 1 or not begins_line(program, after[0].start_byte):
            continue
        margin = indent(program, node.start_byte)
        content = _moved(program, after[0].start_byte, last.end_byte, margin + step(margin))
        if content is None or holds(node.parent, "text_block"):
            continue
        line = newline(program) + margin
        edits = (
            Edit(first.end_byte, first.end_byte, " else {" if is_block(first) else f"{line}else {{"),
            Edit(line_start(program, after[0].start_byte), last.end_byte, f"{margin}{step(margin)}{content}{line}}}"),
        )
        yield Change(edits, node)


def _stays(node: Node) -> bool:
    return node.type.startswith("preproc") or node.type in (
        "case_statement",
        "labeled_statement",
        "function_definition",
    )


def _early(program: Program) -> int:
    """How many ``if`` leave, have no ``else``, and are followed by a statement."""
    return sum(
        second is None and in_list(node) and leaves(first) and _is_followed(node)
        for node, _, first, second in ifs(program)
    )


def _is_followed(node: Node) -> bool:
    after = node.next_named_sibling
    while after is not None and after.type in COMMENTS:
        after = after.next_named_sibling
    return after is not None


def _late(program: Program) -> int:
    return sum(second is not None and in_list(node) and leaves(first) for node, _, first, second in ifs(program))


# --------------------------------------------------------------------------------------------------- && and nested if


def split_condition(program: Program) -> Iterator[Change]:
    """``if (a && b) S`` → ``if (a) if (b) S``, where there is no ``else``."""
    for node, held, _, second in ifs(program):
        test = peeled(held)
        if second is not None or not _is_and(test) or test.parent != held:
            continue
        left, right = field(test, "left"), field(test, "right")
        if left is None or right is None or exposes_macro(program, test):
            continue
        if not commented(program, left.end_byte, right.start_byte):
            yield Change((Edit(left.end_byte, right.start_byte, ") if ("),), node)


def join_conditions(program: Program) -> Iterator[Change]:
    """``if (a) { if (b) S }`` → ``if (a && b) S``, where neither has an ``else``."""
    for node, held, first, second in ifs(program):
        inner = first if first.type == "if_statement" else (first.named_children[0] if _holds_one_if(first) else None)
        if second is not None or inner is None or field(inner, "alternative") is not None:
            continue
        held_inner = field(inner, "condition")
        if held_inner is None or held_inner.type != "parenthesized_expression" or has_pattern(held):
            continue
        if commented(program, held.start_byte, held_inner.end_byte) or commented(
            program, inner.end_byte, first.end_byte
        ):
            continue
        if exposes_macro(program, peeled(held)) or exposes_macro(program, peeled(held_inner)):
            continue
        said = f"({_operand(program, held)} && {_operand(program, held_inner)})"
        edits = [Edit(held.start_byte, held_inner.end_byte, said)]
        if inner.end_byte < first.end_byte:
            edits.append(Edit(inner.end_byte, first.end_byte, ""))
        yield Change(tuple(edits), node)


def _holds_one_if(block: Node) -> bool:
    return is_block(block) and len(block.named_children) == 1 and block.named_children[0].type == "if_statement"


def _operand(program: Program, held: Node) -> str:
    """A condition as an operand of ``&&``: in its parentheses unless it binds tighter."""
    test = peeled(held)
    operator = field(test, "operator")
    tight = test.type == "binary_expression" and operator is not None and operator.type not in ("||", "&&")
    bare = tight or test.type == "unary_expression" or is_primary(program, test)
    return text(program, test) if bare else f"({text(program, test)})"


def _is_and(node: Node) -> bool:
    operator = field(node, "operator")
    return node.type == "binary_expression" and operator is not None and operator.type == "&&"


def _nested_ifs(program: Program) -> int:
    return sum(
        second is None and (first.type == "if_statement" or _holds_one_if(first))
        for _, _, first, second in ifs(program)
    )


FORMS = (
    Form(
        "negated_if",
        "branches",
        "if (c) A else B  →  if (!c) B else A",
        negate,
        lambda p: _of_sign(p, True),
        opposite="positive_if",
    ),
    Form(
        "positive_if",
        "branches",
        "if (!c) A else B  →  if (c) B else A",
        unnegate,
        lambda p: _of_sign(p, False),
        opposite="negated_if",
    ),
    Form(
        "branches",
        "choices",
        "x = c ? a : b;  →  if (c) { x = a; } else { x = b; }",
        to_branches,
        lambda p: sum(None not in (_given(p, a), _given(p, b)) for _, _, a, b in if_elses(p)),
        opposite="ternary",
    ),
    Form(
        "ternary",
        "choices",
        "if (c) x = a; else x = b;  →  x = c ? a : b;",
        to_ternary,
        lambda p: len(of(p, *TERNARIES)),
        opposite="branches",
    ),
    Form(
        "early_exit",
        "else",
        "if (c) { return; } else { B }  →  if (c) { return; } B",
        flatten,
        _early,
        opposite="else_after_exit",
    ),
    Form(
        "else_after_exit",
        "else",
        "if (c) { return; } B  →  if (c) { return; } else { B }",
        nest,
        _late,
        opposite="early_exit",
    ),
    Form(
        "nested_conditions",
        "conditions",
        "if (a && b) S  →  if (a) if (b) S",
        split_condition,
        _nested_ifs,
        opposite="joined_conditions",
    ),
    Form(
        "joined_conditions",
        "conditions",
        "if (a) { if (b) S }  →  if (a && b) S",
        join_conditions,
        lambda p: sum(_is_and(peeled(held)) for _, held, _, second in ifs(p) if second is None),
        opposite="nested_conditions",
    ),
)
