"""Pieces of programs that can be taken away or exchanged: lines, statements and names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.languages import Program
from bench.samples import Edit, Sample, edit_sample

_LINE = re.compile(rb"[^\n]+\n?|\n")
_SIMPLE = {
    "python": frozenset({"expression_statement", "return_statement", "raise_statement", "assert_statement"}),
    "java": frozenset({"expression_statement", "return_statement", "throw_statement", "local_variable_declaration"}),
    "c": frozenset({"expression_statement", "return_statement", "declaration"}),
}
_BLOCKS = frozenset({"block", "compound_statement", "module", "constructor_body", "translation_unit", "program"})
_COMPOUND = frozenset(
    {"if_statement", "while_statement", "for_statement", "with_statement", "try_statement", "do_statement"}
)
_COMPOUND |= {"enhanced_for_statement", "switch_statement", "switch_expression"}


def lines(text: str) -> list[tuple[int, int]]:
    """Byte spans of the lines that hold more than blanks, line ends included."""
    found = _LINE.finditer(text.encode())
    return [match.span() for match in found if match.group().strip()]


def simple_statements(program: Program) -> list[tuple[int, int]]:
    """Byte spans of the statements that hold no others and stand on one line, in order."""
    return sorted(_statements(program, _SIMPLE.get(program.language.name, frozenset()), one_line=True))


def statements(program: Program) -> list[tuple[int, int]]:
    """Byte spans of all statements inside blocks, the compound ones too (whoever encloses another comes first)."""
    types = _SIMPLE.get(program.language.name, frozenset()) | _COMPOUND
    return sorted(_statements(program, types, one_line=False), key=lambda span: (span[0], -span[1]))


def _statements(program: Program, types: frozenset[str], *, one_line: bool) -> Iterator[tuple[int, int]]:
    stack = [program.tree.root_node]
    while stack:
        node = stack.pop()
        parent = node.parent
        inside = node.type in types and parent is not None and parent.type in _BLOCKS and not node.has_error
        start, end = node.byte_range
        if inside and end > start and not (one_line and b"\n" in program.data[start:end]):
            yield start, end
        stack += node.named_children


def without_lines(sample: Sample, side: int, spans: list[tuple[int, int]]) -> Sample:
    """The sample without some lines of one program."""
    return edit_sample(sample, [Edit(start, end, "", side) for start, end in spans])
