"""Python: ``if``, ``else``, conditional expressions, ``return``."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.form import Change, Form
from attacks.style.layout import begins_line, indent, line_end, line_start, newline, over, shifted, step
from attacks.style.python_statements import (
    Branches,
    branches,
    can_move,
    has_lines,
    is_negative,
    leaves,
    lines_of,
    margin,
    negated,
)
from attacks.style.trees import ancestors, commented, field, of, parts, peeled, text
from bench.languages import Program
from bench.samples import Edit


def if_elses(program: Program) -> list[Branches]:
    """Every ``if`` with an ``else``, and no ``elif``."""
    return [one for one in branches(program) if one.second is not None]


def negate(program: Program) -> Iterator[Change]:
    """``if c: A else: B`` → ``if not c: B else: A``, for a ``c`` that is not negative."""
    return _turned(program, negative=False)


def unnegate(program: Program) -> Iterator[Change]:
    """``if not c: A else: B`` → ``if c: B else: A``."""
    return _turned(program, negative=True)


def _turned(program: Program, negative: bool) -> Iterator[Change]:
    for one in if_elses(program):
        test = peeled(one.test)
        if is_negative(program, test) is not negative or one.second is None:
            continue
        if commented(program, one.test.start_byte, one.test.end_byte):
            continue
        first, second = lines_of(program, one.first), lines_of(program, one.second)
        edits = (
            over(program, one.test, _condition(program, one.test)),
            Edit(*one.first, second),
            Edit(*one.second, first),
        )
        yield Change(edits, one.node)


def _condition(program: Program, test: Node) -> str:
    """The negation; in the parentheses that let a condition run over several lines."""
    said = negated(program, test)
    return f"({said})" if "\n" in said else said


def _of_sign(program: Program, negative: bool) -> int:
    return sum(is_negative(program, one.test) is negative for one in if_elses(program))


# ------------------------------------------------------------------------------------------- conditional expressions


def to_branches(program: Program) -> Iterator[Change]:
    """``x = a if c else b`` → ``if c: x = a`` / ``else: x = b``, and for ``return``; the order of evaluation is the same."""
    for node, before, choice in choices(program):
        first, test, second = parts(choice)
        if not has_lines(program, node) or "\n" in text(program, node):
            continue
        line = newline(program) + indent(program, node.start_byte)
        deeper = line + step(indent(program, node.start_byte))
        said = f"if {text(program, test)}:{deeper}{before}{text(program, first)}{line}else:{deeper}{before}{text(program, second)}"
        yield Change((Edit(node.start_byte, node.end_byte, said),), node)


def choices(program: Program) -> Iterator[tuple[Node, str, Node]]:
    """Every statement ``x = a if c else b`` (one target) or ``return a if c else b``: the node, what stands before, the choice."""
    for choice in of(program, "conditional_expression"):
        owner = choice.parent
        if owner is None or len(parts(choice)) != 3:
            continue
        if owner.type == "return_statement":
            yield owner, "return ", choice
        elif owner.type == "assignment" and owner.parent is not None and owner.parent.type == "expression_statement":
            left = field(owner, "left")
            if left is not None and field(owner, "right") == choice and field(owner, "type") is None:
                yield owner.parent, f"{text(program, left)} = ", choice


def to_ternary(program: Program) -> Iterator[Change]:
    """``if c: x = a`` / ``else: x = b`` → ``x = a if c else b``, and for ``return``."""
    for one in if_elses(program):
        given = _given(program, one)
        if given is None or commented(program, one.node.start_byte, one.node.end_byte):
            continue
        before, first, second = given
        if any("\n" in text(program, part) for part in (first, second, one.test)):
            continue
        said = f"{before}{_part(program, first)} if {_part(program, one.test)} else {_part(program, second)}"
        yield Change((Edit(one.node.start_byte, one.node.end_byte, said),), one.node)


def _part(program: Program, node: Node) -> str:
    """A part of a conditional expression; what binds no tighter goes into parentheses."""
    loose = node.type in ("conditional_expression", "lambda", "named_expression", "yield", "expression_list")
    return f"({text(program, node)})" if loose else text(program, node)


def _given(program: Program, one: Branches) -> tuple[str, Node, Node] | None:
    """What both branches say before their value, and the two values."""
    said = [_value(program, block) for block in (one.body, one.other) if block is not None]
    if len(said) != 2 or said[0] is None or said[1] is None or said[0][0] != said[1][0]:
        return None
    return said[0][0], said[0][1], said[1][1]


def _value(program: Program, block: Node) -> tuple[str, Node] | None:
    if len(block.named_children) != 1:
        return None
    statement = block.named_children[0]
    if statement.type == "return_statement" and len(statement.named_children) == 1:
        return "return ", statement.named_children[0]
    given = statement.named_children[0] if statement.type == "expression_statement" else None
    if given is None or given.type != "assignment" or field(given, "type") is not None:
        return None
    left, right = field(given, "left"), field(given, "right")
    if left is None or right is None or right.type in ("assignment", "augmented_assignment"):
        return None
    return f"{text(program, left)} = ", right


# ---------------------------------------------------------------------------------------------- else after what leaves


def flatten(program: Program) -> Iterator[Change]:
    """``if c: return`` / ``else: B`` → ``if c: return`` / ``B``."""
    for one in if_elses(program):
        if one.other is None or one.otherwise is None or one.second is None or not leaves(one.body):
            continue
        if commented(program, *one.otherwise) or not can_move(program, *one.second):
            continue
        moved = shifted(
            "\n" + lines_of(program, one.second), margin(program, one.other), indent(program, one.node.start_byte)
        )
        if moved is not None:
            yield Change((Edit(one.otherwise[0], one.second[1], moved[1:]),), one.node)


def nest(program: Program) -> Iterator[Change]:
    """``if c: return`` / ``B`` → ``if c: return`` / ``else: B``, with all that follows in the block."""
    for one in branches(program):
        block = one.node.parent
        after = _after(one)
        if block is None or block.type != "block" or not after or not leaves(one.body):
            continue
        if not all(begins_line(program, child.start_byte) for child in after) or not has_lines(program, after[-1]):
            continue
        start = program.data.find(b"\n", max(one.first[1], one.node.end_byte)) + 1
        end = line_end(program, after[-1].end_byte)
        outer = indent(program, one.node.start_byte)
        moved = shifted("\n" + program.data[start:end].decode(), outer, outer + step(outer))
        if (
            moved is not None
            and 0 < start <= line_start(program, after[0].start_byte)
            and can_move(program, start, end)
        ):
            yield Change((Edit(start, end, f"{outer}else:{newline(program)}{moved[1:]}"),), one.node)


def _after(one: Branches) -> list[Node]:
    """The statements that follow an ``if`` without ``else`` in its block."""
    if one.other is not None or one.node.parent is None:
        return []
    return [child for child in parts(one.node.parent) if child.start_byte >= one.node.end_byte]


# ------------------------------------------------------------------------------------------------------------- return


def say_none(program: Program) -> Iterator[Change]:
    """``return`` → ``return None``; not in an ``async`` function, which as a generator may return no value."""
    for node in of(program, "return_statement"):
        if not node.named_children and not _is_async(node):
            yield Change((Edit(node.start_byte, node.end_byte, "return None"),), node)


def leave_none(program: Program) -> Iterator[Change]:
    """``return None`` → ``return``."""
    for node in of(program, "return_statement"):
        if len(node.named_children) == 1 and node.named_children[0].type == "none":
            yield Change((Edit(node.start_byte, node.end_byte, "return"),), node)


def _is_async(node: Node) -> bool:
    owner = next((a for a in ancestors(node) if a.type == "function_definition"), None)
    return owner is not None and owner.children[0].type == "async"


FORMS = (
    Form(
        "negated_if",
        "branches",
        "if c: A else: B  →  if not c: B else: A",
        negate,
        lambda p: _of_sign(p, True),
        opposite="positive_if",
    ),
    Form(
        "positive_if",
        "branches",
        "if not c: A else: B  →  if c: B else: A",
        unnegate,
        lambda p: _of_sign(p, False),
        opposite="negated_if",
    ),
    Form(
        "branches",
        "choices",
        "x = a if c else b  →  if c: x = a else: x = b",
        to_branches,
        lambda p: sum(_given(p, one) is not None for one in if_elses(p)),
        opposite="ternary",
    ),
    Form(
        "ternary",
        "choices",
        "if c: x = a else: x = b  →  x = a if c else b",
        to_ternary,
        lambda p: sum(1 for _ in choices(p)),
        opposite="branches",
    ),
    Form(
        "early_exit",
        "else",
        "if c: return else: B  →  if c: return; B",
        flatten,
        lambda p: sum(leaves(one.body) and bool(_after(one)) for one in branches(p)),
        opposite="else_after_exit",
    ),
    Form(
        "else_after_exit",
        "else",
        "if c: return; B  →  if c: return else: B",
        nest,
        lambda p: sum(leaves(one.body) for one in if_elses(p)),
        opposite="early_exit",
    ),
    Form(
        "return_none",
        "returns",
        "return  →  return None",
        say_none,
        lambda p: sum(
            n.named_children[:1] != [] and n.named_children[0].type == "none" for n in of(p, "return_statement")
        ),
        opposite="bare_return",
    ),
    Form(
        "bare_return",
        "returns",
        "return None  →  return",
        leave_none,
        lambda p: sum(not n.named_children for n in of(p, "return_statement")),
        opposite="return_none",
    ),
)
