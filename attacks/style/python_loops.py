"""Python: ``for`` and ``while`` loops."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.form import Change, Form
from attacks.style.layout import indent, line_end, line_start, newline
from attacks.style.python_statements import has_lines, margin, negated, owns
from attacks.style.trees import ancestors, bound, commented, field, holds, of, parts, peeled, text
from bench.languages import Program
from bench.samples import Edit

LIMITS = ("stop", "limit", "bound", "total_count")
"""Names for the length that a counted loop keeps, the first that neither the program nor a loop around this one holds."""
_DOUBTFUL = re.compile(r"\b(?:range|len)\s*=[^=]|\b(?:locals|vars|eval|exec|dir)\b")
"""A program that binds ``range`` or ``len``, or looks at its own names."""
LATER = ("lambda", "function_definition", "class_definition", "generator_expression")
"""What may read a variable after its loop."""


def endless(program: Program) -> Iterator[Change]:
    """``while c: A`` → ``while True:`` with ``if not c: break`` first; the loop has no ``else``, and ``c`` is no constant."""
    for node in of(program, "while_statement"):
        test, body = field(node, "condition"), field(node, "body")
        if test is None or body is None or field(node, "alternative") is not None or not _in_lines(program, node, body):
            continue
        if peeled(test).type in ("true", "false", "integer") or "\n" in text(program, test):
            continue
        inner, line = margin(program, body), newline(program)
        first = line_start(program, parts(body)[0].start_byte)
        leave = f"{inner}if {negated(program, test)}:{line}{inner}{inner[len(indent(program, node.start_byte)) :]}break{line}"
        yield Change((Edit(test.start_byte, test.end_byte, "True"), Edit(first, first, leave)), node)


def _in_lines(program: Program, node: Node, body: Node) -> bool:
    inner = parts(body)
    own = bool(inner) and has_lines(program, node) and all(has_lines(program, part) for part in (inner[0], inner[-1]))
    return own and not commented(program, node.start_byte, line_end(program, node.start_byte))


def _endless_loops(program: Program) -> int:
    count = 0
    for node in of(program, "while_statement"):
        test, body = field(node, "condition"), field(node, "body")
        inner = parts(body) if body is not None else []
        if test is not None and test.type == "true" and inner and inner[0].type == "if_statement":
            first = field(inner[0], "consequence")
            count += first is not None and [part.type for part in parts(first)] == ["break_statement"]
    return count


def count_by_hand(program: Program) -> Iterator[Change]:
    """``for i in range(n): A`` → ``i = 0`` / ``while i < n: A; i += 1``, for ``n`` a whole number or ``len(x)``, kept first.

    ``i`` is a local variable that this loop alone binds and reads; the loop has no ``else``, no ``continue``, and nothing in it can
    read ``i`` later.
    """
    own = {name.text for name in (*program.parameters, *program.locals)}
    if own & {"range", "len"} or _DOUBTFUL.search(program.text):
        return
    words = set(re.findall(r"\w+", program.text))
    kept: dict[int, str] = {}
    for node in of(program, "for_statement"):
        left, right, body = field(node, "left"), field(node, "right"), field(node, "body")
        if left is None or right is None or body is None or node.children[0].type == "async":
            continue
        limit = _limit(program, right)
        if limit is None or field(node, "alternative") is not None or not _in_lines(program, node, body):
            continue
        if owns(body, "continue_statement") or holds(body, *LATER) or not _is_counter(program, node, left):
            continue
        # A loop and one inside it may be changed in one pass, and the text knows of neither's name yet.
        taken = words | {kept[around.id] for around in ancestors(node) if around.id in kept}
        if limit.type != "integer":
            kept[node.id] = next((word for word in LIMITS if word not in taken), f"stop_{len(taken)}")
        yield Change(_counted(program, node, left, limit, body, kept.get(node.id)), node)


def _limit(program: Program, right: Node) -> Node | None:
    """``n`` of ``range(n)``."""
    inner = _argument(program, right, "range")
    if inner is None or inner.type == "integer":
        return inner
    return inner if _argument(program, inner, "len") is not None else None


def _argument(program: Program, call: Node, name: str) -> Node | None:
    function, arguments = field(call, "function"), field(call, "arguments")
    if call.type != "call" or function is None or arguments is None or text(program, function) != name:
        return None
    given = arguments.named_children
    plain = len(given) == 1 and given[0].type not in ("keyword_argument", "list_splat", "dictionary_splat", "comment")
    return given[0] if plain and arguments.type == "argument_list" else None


def _is_counter(program: Program, node: Node, left: Node) -> bool:
    """Is the loop's variable a local whose every place but the loop's head reads it inside the loop?"""
    name = bound(program).get(left.start_byte) if left.type == "identifier" else None
    if name is None or name.kind != "local":
        return False
    others = [start for start, _ in name.spans if start != left.start_byte]
    root = program.tree.root_node
    inside = all(node.start_byte < start < node.end_byte for start in others)
    return inside and not any(binds(root.descendant_for_byte_range(start, start + 1)) for start in others)


def binds(node: Node | None) -> bool:
    """May this name be a target? (A name in a list of targets or after ``as`` or ``del`` counts as one.)"""
    while node is not None and node.parent is not None:
        parent = node.parent
        if field(parent, "left") == node and parent.type.endswith(("assignment", "for_statement", "for_in_clause")):
            return True
        if parent.type in ("delete_statement", "as_pattern_target", "dotted_name", "global_statement"):
            return True
        if field(parent, "name") == node and parent.type == "named_expression":
            return True
        if not parent.type.endswith(("_list", "_pattern", "tuple", "list", "parenthesized_expression")):
            return False
        node = parent
    return False


def _counted(program: Program, node: Node, left: Node, limit: Node, body: Node, kept: str | None) -> tuple[Edit, ...]:
    line = newline(program)
    outer, inner = line + indent(program, node.start_byte), margin(program, body)
    name, value = text(program, left), text(program, limit)
    head = f"{name} = 0{outer}while {name} < {value}"
    if kept is not None:
        head = f"{kept} = {value}{outer}{name} = 0{outer}while {name} < {kept}"
    right = field(node, "right")
    assert right is not None
    end = line_end(program, body.end_byte)
    return Edit(node.start_byte, right.end_byte, head), Edit(end, end, f"{line}{inner}{name} += 1")


FORMS = (
    Form(
        "endless_loop",
        "loops",
        "while c: A  →  while True: if not c: break; A",
        endless,
        _endless_loops,
    ),
    Form(
        "while_loop",
        "loops",
        "for i in range(n): A  →  i = 0; while i < n: A; i += 1",
        count_by_hand,
        lambda p: len(of(p, "while_statement")),
    ),
)
