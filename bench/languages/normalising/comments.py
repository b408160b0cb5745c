"""Programs without comments, and Python without docstrings, which are comments that the interpreter keeps."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from bench.languages import Program, parse
from bench.languages.normalising.result import Normalised
from bench.samples import Edit, apply_edits


def without(language: str, text: str) -> Normalised:
    """The program without comments and docstrings. A block that held nothing else gets a ``pass``."""
    program = parse(language, text)
    if program.comments:
        text = apply_edits(text, [_removal(program.data, start, end) for start, end in program.comments])
        program = parse(language, text)
    if language == "python":
        text = apply_edits(text, list(_docstrings(program)))
    return Normalised(text)


def _removal(data: bytes, start: int, end: int) -> Edit:
    """Take a comment out: with its line where it has one of its own, with the blanks before it where it ends one."""
    line = data.rfind(b"\n", 0, start) + 1
    after = data.find(b"\n", end)
    after = len(data) if after < 0 else after
    if not data[end:after].strip():  # nothing follows on its last line
        if not data[line:start].strip():
            return Edit(line, min(after + 1, len(data)), "")
        return Edit(line + len(data[line:start].rstrip()), end, "")
    return Edit(start, end, " ")


def _docstrings(program: Program) -> Iterator[Edit]:
    """Edits that take out the string that opens a module, a class or a function."""
    stack = [program.tree.root_node]
    while stack:
        node = stack.pop()
        children = node.named_children
        stack += children
        owner = node.parent
        opens = node.type == "module" or (
            node.type == "block" and owner is not None and owner.type in ("function_definition", "class_definition")
        )
        if opens and children and _is_string(children[0]):
            yield from _without_first(program.data, children, module=node.type == "module")


def _is_string(statement: Node) -> bool:
    """Is a statement nothing but strings, without a part that is evaluated?"""
    if statement.type != "expression_statement" or len(statement.named_children) != 1 or statement.has_error:
        return False
    value = statement.named_children[0]
    strings = value.named_children if value.type == "concatenated_string" else [value]
    return all(s.type == "string" and not any(c.type == "interpolation" for c in s.children) for s in strings)


def _without_first(data: bytes, children: list[Node], *, module: bool) -> Iterator[Edit]:
    start, end = children[0].byte_range
    if len(children) == 1:
        if not module:
            yield Edit(start, end, "pass")
    elif b"\n" in (between := data[end : children[1].start_byte]) and not between.strip():
        yield Edit(start, children[1].start_byte, "")
