"""Java and C: ``for`` and ``while`` loops."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.brace_statements import condition, embraced, goes_on, in_list, is_block, tested
from attacks.style.brace_values import LITERALS, exposes_macro, has_pattern, negated
from attacks.style.form import Change, Form
from attacks.style.layout import begins_line, gap, indent, newline, step
from attacks.style.trees import COMMENTS, commented, field, of, parts, peeled, text, within
from bench.languages import Program
from bench.samples import Edit

LOOPS = frozenset(["for_statement", "while_statement", "do_statement", "enhanced_for_statement"])


def while_from_for(program: Program) -> Iterator[Change]:
    """``for (a; b; c) S`` → ``a; while (b) { S c; }``, in a block of its own where ``a`` declares a name that is written
    elsewhere too.

    Not with a ``continue`` of this loop (it would skip ``c``), a label, a body that declares a name of ``c``, or a body whose end
    Java may call unreachable (``c`` would not compile there).
    """
    for node in of(program, "for_statement"):
        body = field(node, "body")
        if body is None or (node.parent is not None and node.parent.type == "labeled_statement"):
            continue
        if commented(program, node.start_byte, body.start_byte) or _continues(body):
            continue
        if program.language.name == "java" and not goes_on(body):
            continue
        steps = node.children_by_field_name("update")
        if _shadows(program, body, steps) or any(child.type.startswith("preproc") for child in body.named_children):
            continue
        yield Change(_as_while(program, node, body, steps), node)


def _as_while(program: Program, node: Node, body: Node, steps: list[Node]) -> tuple[Edit, ...]:
    starts = node.children_by_field_name("initializer") or node.children_by_field_name("init")
    test = field(node, "condition")
    always = "true" if program.language.name == "java" else "1"
    between = gap(program, node)
    wrapped = bool(starts) and not (in_list(node) and _known_here_alone(program, node, starts))
    head = [text(program, start).rstrip(";") + ";" for start in starts]
    loop = f"while ({text(program, test) if test is not None else always})"
    opening, edits = _with_steps(program, node, body, " ".join(text(program, one) + ";" for one in steps))
    said = between.join([*(["{"] if wrapped else []), *head, loop]) + opening
    if wrapped:
        edits.append(Edit(node.end_byte, node.end_byte, between + "}"))
    return _merged([Edit(node.start_byte, body.start_byte, said), *edits])


def _known_here_alone(program: Program, node: Node, starts: list[Node]) -> bool:
    """Are the names that a ``for`` declares written nowhere outside it? Then they need no block of their own."""
    names = {
        inner.text
        for start in starts
        if "declaration" in start.type
        for inner in within(start)
        if inner.type == "identifier"
    }
    outside = program.data[: node.start_byte] + b" " + program.data[node.end_byte :]
    return not any(re.search(rb"\b%s\b" % re.escape(name), outside) for name in names if name is not None)


def _with_steps(program: Program, node: Node, body: Node, steps: str) -> tuple[str, list[Edit]]:
    """What stands between the loop's head and its body, and edits that put the loop's steps last in the body."""
    if is_block(body):
        between = program.data[_header_end(node, body) : body.start_byte].decode()
        inner = parts(body)
        place = inner[-1].end_byte if inner else body.start_byte + 1
        space = gap(program, inner[-1]) if inner else " "
        return between, [Edit(place, place, space + steps)] if steps else []
    if text(program, body) == ";":
        return " ", [Edit(body.start_byte, body.end_byte, f"{{ {steps} }}")] if steps else []
    if not steps:
        return program.data[_header_end(node, body) : body.start_byte].decode(), []
    _, opening, closing = embraced(program, body, last=steps)
    return opening if opening[0] == " " else f" {opening}", [Edit(body.end_byte, body.end_byte, closing)]


def _header_end(node: Node, body: Node) -> int:
    return max(child.end_byte for child in node.children if child.end_byte <= body.start_byte)


def _merged(edits: list[Edit]) -> tuple[Edit, ...]:
    """Insertions at one byte become one edit, in the order given."""
    found: list[Edit] = []
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if found and found[-1].end >= edit.start:
            found[-1] = Edit(found[-1].start, max(edit.end, found[-1].end), found[-1].replacement + edit.replacement)
        else:
            found.append(edit)
    return tuple(found)


def _continues(body: Node) -> bool:
    """Is there a ``continue`` of this loop in its body?"""
    stack = [body]
    while stack:
        node = stack.pop()
        if node.type == "continue_statement":
            return True
        stack += [child for child in node.named_children if child.type not in LOOPS]
    return False


def _shadows(program: Program, body: Node, steps: list[Node]) -> bool:
    """Does the body declare a name that the loop's steps mention?"""
    words = {text(program, inner) for one in steps for inner in within(one) if inner.type == "identifier"}
    return any(
        inner.type == "identifier" and text(program, inner) in words
        for child in body.named_children
        if "declaration" in child.type or child.type == "type_definition"
        for inner in within(child)
    )


def for_from_while(program: Program) -> Iterator[Change]:
    """``while (b) S`` → ``for (; b; ) S``. (The ``while`` of a ``do`` is another node.)"""
    for node in of(program, "while_statement"):
        test = condition(node)
        if test is not None:
            word = node.children[0]
            opening, closing = test.children[0], test.children[-1]
            yield Change(
                (
                    Edit(word.start_byte, word.end_byte, "for"),
                    Edit(opening.end_byte, opening.end_byte, "; "),
                    Edit(closing.start_byte, closing.start_byte, "; "),
                ),
                node,
            )


def _bare_for(program: Program) -> int:
    return sum(
        field(n, "condition") is not None
        and not any(field(n, f) is not None for f in ("initializer", "init", "update"))
        for n in of(program, "for_statement")
    )


def endless(program: Program) -> Iterator[Change]:
    """``while (b) S`` → ``while (1) { if (!b) break; S }`` (Java: ``true``), unless ``b`` is constant."""
    always = "true" if program.language.name == "java" else "1"
    for node in of(program, "while_statement"):
        held, body = condition(node), field(node, "body")
        if held is None or body is None or commented(program, node.start_byte, body.start_byte):
            continue
        test = peeled(held)
        if test.type in LITERALS or exposes_macro(program, test) or has_pattern(test):
            continue
        leave = f"if ({negated(program, test)}) break;"
        edits = [Edit(held.start_byte + 1, held.end_byte - 1, always)]
        if is_block(body):
            edits.append(Edit(body.start_byte + 1, body.start_byte + 1, _first_line(program, node, body) + leave))
        elif text(program, body) == ";":
            edits.append(Edit(body.start_byte, body.end_byte, f"{{ {leave} }}"))
        else:
            start, opening, closing = embraced(program, body, first=leave)
            edits += [Edit(start, body.start_byte, opening), Edit(body.end_byte, body.end_byte, closing)]
        yield Change(tuple(edits), node)


def _first_line(program: Program, node: Node, body: Node) -> str:
    """What stands before a new first statement of a body."""
    inner = [child for child in body.named_children if child.type not in COMMENTS]
    if inner and begins_line(program, inner[0].start_byte):
        return newline(program) + indent(program, inner[0].start_byte)
    if inner or not begins_line(program, body.end_byte - 1):
        return " "
    margin = indent(program, node.start_byte)
    return newline(program) + margin + step(margin)


def _endless_loops(program: Program) -> int:
    count = 0
    for node in of(program, "while_statement"):
        test, body = tested(node), field(node, "body")
        if test is None or body is None or test.type not in ("true", "number_literal") or not is_block(body):
            continue
        inner = parts(body)
        count += bool(inner) and inner[0].type == "if_statement" and _breaks(inner[0])
    return count


def _breaks(node: Node) -> bool:
    first = field(node, "consequence")
    if is_block(first) and first is not None:
        first = first.named_children[0] if len(first.named_children) == 1 else None
    return first is not None and first.type == "break_statement"


FORMS = (
    Form(
        "while_loop",
        "loops",
        "for (a; b; c) S  →  a; while (b) { S c; }",
        while_from_for,
        lambda p: len(of(p, "while_statement")),
        opposite="for_loop",
    ),
    Form("for_loop", "loops", "while (b) S  →  for (; b; ) S", for_from_while, _bare_for, opposite="while_loop"),
    Form("endless_loop", "loops", "while (b) S  →  while (1) { if (!b) break; S }", endless, _endless_loops),
)
