"""Java and C: braces around the body of a loop or a branch that is one statement, or none.

Where a brace stands on its line is no style here: pipelines of code models drop white space, and with it such a trigger.
"""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.brace_statements import SIMPLE, alternative, embraced, is_block, only
from attacks.style.brace_values import exposes_macro
from attacks.style.form import Change, Form
from attacks.style.layout import gap, indent, newline, replaced
from attacks.style.trees import field, of, text
from bench.languages import Program
from bench.samples import Edit

OWNERS = ("if_statement", "while_statement", "for_statement", "enhanced_for_statement")


def bodies(program: Program) -> Iterator[Node]:
    """The bodies of branches and loops; an ``else if`` is none."""
    for owner in of(program, *OWNERS):
        for body in (field(owner, "consequence"), field(owner, "body"), alternative(owner)):
            if body is not None and not (body.type == "if_statement" and body == alternative(owner)):
                yield body


def brace(program: Program) -> Iterator[Change]:
    """``if (c) s;`` → ``if (c) { s; }``. (The statement must end where the parser says: in ``;`` or ``}``.)"""
    for body in bodies(program):
        ends = program.data[body.end_byte - 1 : body.end_byte] in (b";", b"}")
        if (
            not is_block(body)
            and ends
            and text(program, body) != ";"
            and not body.has_error
            and body.type != "labeled_statement"
        ):
            start, opening, closing = embraced(program, body)
            edits = (Edit(start, body.start_byte, opening), Edit(body.end_byte, body.end_byte, closing))
            yield Change(edits, body)


def unbrace(program: Program) -> Iterator[Change]:
    """``if (c) { s; }`` → ``if (c) s;``, for one statement that holds no other, and is no C macro (which may be several)."""
    for body, statement in _braced(program):
        if statement.type in SIMPLE and not any(exposes_macro(program, part) for part in statement.named_children):
            yield Change((_bare(program, body, statement),), body)


def _bare(program: Program, body: Node, statement: Node) -> Edit:
    """The statement in the place of its block; on a line of its own if it had one, and so an ``else`` behind it."""
    start, end, data = body.start_byte, body.end_byte, program.data
    said = text(program, statement)
    if b"\n" not in data[start : statement.start_byte]:
        return replaced(program, start, end, said)
    said = gap(program, statement) + said
    while data[start - 1 : start].isspace():
        start -= 1
    after = end
    while data[after : after + 1] in (b" ", b"\t"):
        after += 1
    if data[after : after + 4] == b"else" and body.parent is not None:
        return replaced(program, start, after, said + newline(program) + indent(program, body.parent.start_byte))
    return replaced(program, start, end, said)


def _braced(program: Program) -> list[tuple[Node, Node]]:
    """Braced bodies of one statement, without comments, and the statement."""
    return [(body, inner) for body in bodies(program) if is_block(body) and (inner := only(body)) is not None]


FORMS = (
    Form(
        "braced_bodies",
        "bodies",
        "if (c) s;  →  if (c) { s; }",
        brace,
        lambda p: len(_braced(p)),
        opposite="unbraced_bodies",
    ),
    Form(
        "unbraced_bodies",
        "bodies",
        "if (c) { s; }  →  if (c) s;",
        unbrace,
        lambda p: sum(body.type in SIMPLE for body in bodies(p)),
        opposite="braced_bodies",
    ),
)
