"""Pieces of programs that can be taken away or exchanged: lines, statements and names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from bench.languages import Program
from bench.samples import Edit, Sample, edit_sample

_LINE = re.compile(rb"[^\n]+\n?|\n")


def _kinds(kinds: str) -> frozenset[str]:
    return frozenset(kinds.split())


_SIMPLE = {
    "python": _kinds(
        "expression_statement return_statement raise_statement assert_statement import_statement import_from_statement "
        "future_import_statement delete_statement global_statement nonlocal_statement break_statement continue_statement "
        "type_alias_statement print_statement exec_statement"
    ),
    "java": _kinds(
        "expression_statement return_statement throw_statement assert_statement local_variable_declaration yield_statement "
        "break_statement continue_statement"
    ),
    "c": _kinds(
        "expression_statement return_statement declaration goto_statement break_statement continue_statement seh_leave_statement"
    ),
}
"""Statements that hold no others. Python's ``pass`` is none: it is what stands where a statement was hidden."""
_BOUND = _kinds("break_statement continue_statement yield_statement goto_statement seh_leave_statement")
_BOUND |= _kinds("global_statement nonlocal_statement future_import_statement")
"""Simple statements that a compiler takes at some places only: what stands there can go, but it can stand nowhere else."""
_COMPOUND = {
    "python": _kinds("if_statement while_statement for_statement with_statement try_statement match_statement"),
    "java": _kinds(
        "if_statement while_statement for_statement enhanced_for_statement do_statement switch_expression synchronized_statement "
        "try_statement try_with_resources_statement labeled_statement block explicit_constructor_invocation"
    ),
    "c": _kinds(
        "if_statement while_statement for_statement do_statement switch_statement case_statement labeled_statement "
        "compound_statement attributed_statement seh_try_statement type_definition"
    ),
}
"""Statements that hold others, or that other kinds could not replace: hidden as a whole, never exchanged."""
_DEFINITIONS = _kinds("function_definition class_definition decorated_definition")
_DEFINITIONS |= _kinds("class_declaration interface_declaration enum_declaration record_declaration")
_DEFINITIONS |= _kinds("struct_specifier union_specifier enum_specifier")
"""Statements inside a function's body alone: elsewhere they are the program, or a method of it."""
_BODIES = _kinds("block compound_statement constructor_body")
_BLOCKS = _BODIES | _kinds(
    "module translation_unit program switch_block_statement_group case_statement labeled_statement"
)
_BLOCKS |= _kinds("preproc_if preproc_ifdef preproc_elif preproc_elifdef preproc_else")


def lines(text: str) -> list[tuple[int, int]]:
    """Byte spans of the lines that hold more than blanks, line ends included."""
    found = _LINE.finditer(text.encode())
    return [match.span() for match in found if match.group().strip()]


def simple_statements(program: Program) -> list[tuple[int, int]]:
    """Byte spans of the statements that hold no others and stand on one line, in order."""
    return _one_line(program, _simple(program))


def movable_statements(program: Program) -> list[tuple[int, int]]:
    """Those of :func:`simple_statements` that can stand in any other's place: no ``break``, ``global`` or ``goto``."""
    return _one_line(program, _simple(program) - _BOUND)


def statements(program: Program) -> list[tuple[int, int]]:
    """Byte spans of all statements inside blocks, the compound ones too (whoever encloses another comes first)."""
    types = _simple(program) | _COMPOUND.get(program.language.name, frozenset()) | _DEFINITIONS
    return sorted(_statements(program, types), key=lambda span: (span[0], -span[1]))


def _simple(program: Program) -> frozenset[str]:
    return _SIMPLE.get(program.language.name, frozenset())


def _one_line(program: Program, types: frozenset[str]) -> list[tuple[int, int]]:
    return sorted((start, end) for start, end in _statements(program, types) if b"\n" not in program.data[start:end])


def _statements(program: Program, types: frozenset[str]) -> Iterator[tuple[int, int]]:
    stack = [program.tree.root_node]
    while stack:
        node = stack.pop()
        start, end = node.byte_range
        if node.type in types and end > start and not node.has_error and _stands_alone(node):
            yield start, end
        stack += node.named_children


def _stands_alone(node: Node) -> bool:
    """Could an empty statement stand in its place?"""
    parent = node.parent
    if parent is None or parent.type not in _BLOCKS:
        return False
    if node.type not in _DEFINITIONS:
        return True
    owner = parent.parent
    return parent.type in _BODIES and owner is not None and owner.type != "class_definition"


def without_lines(sample: Sample, side: int, spans: list[tuple[int, int]]) -> Sample:
    """The sample without some lines of one program."""
    return edit_sample(sample, [Edit(start, end, "", side) for start, end in spans])
