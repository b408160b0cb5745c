"""Integer literals that may be replaced by another constant expression of the same type and value.

A literal is left out where a compiler, a preprocessor or a reader of the source wants a literal, or does something of its own with
the text: preprocessor lines, array sizes, case labels and patterns, enumerators, widths of bit-fields, designators, annotations and
attributes, alignments, assembler operands, arguments of macros (which may paste or quote them), f-strings, ``is`` comparisons,
and whatever the parser did not understand.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

import tree_sitter

from bench.languages.program import Language, Program


class IntegerLiteral(NamedTuple):
    """One literal.

    Attributes:
        start, end: its bytes.
        value: what it is worth.
        suffix: the letters that give it its type (C: ``u``, ``L`` …; Java: ``L``), as written.
    """

    start: int
    end: int
    value: int
    suffix: str


LARGEST = 2**31 - 1
"""Up to here a literal's type does not depend on its value: ``int``, or what its suffix says."""

_SPELLING = re.compile(r"(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*)([uUlL]*)")
_PASTING = re.compile(r"[A-Z][A-Z0-9_]*|.*(?:glue|concat|paste|stringify|tostring).*", re.DOTALL)
"""Names of calls that are macros by convention, or by what they are called."""

_QUERIES: Mapping[str, str] = {
    "python": """
        (integer) @literal
        (comparison_operator ["is" "is not"]) @elsewhere
        (case_pattern) @elsewhere
        (type) @elsewhere
        (type_alias_statement) @elsewhere
        (interpolation) @elsewhere
        (ERROR) @elsewhere
    """,
    "java": """
        [(decimal_integer_literal) (hex_integer_literal) (octal_integer_literal) (binary_integer_literal)] @literal
        (annotation) @elsewhere
        (dimensions_expr) @elsewhere
        (switch_label) @elsewhere
        (ERROR) @elsewhere
    """,
    "c": """
        (number_literal) @literal
        (array_declarator size: (_) @elsewhere)
        (abstract_array_declarator size: (_) @elsewhere)
        (case_statement value: (_) @elsewhere)
        (enumerator value: (_) @elsewhere)
        (bitfield_clause) @elsewhere
        (subscript_designator) @elsewhere
        (subscript_range_designator) @elsewhere
        (preproc_if condition: (_) @elsewhere)
        (preproc_elif condition: (_) @elsewhere)
        (preproc_def) @elsewhere
        (preproc_function_def) @elsewhere
        (preproc_call) @elsewhere
        (attribute_specifier) @elsewhere
        (attribute_declaration) @elsewhere
        (ms_declspec_modifier) @elsewhere
        (alignas_qualifier) @elsewhere
        (gnu_asm_expression) @elsewhere
        (macro_type_specifier) @elsewhere
        (call_expression function: (identifier) @called)
        (ERROR) @elsewhere
    """,
}


@functools.cache
def _query(language: Language) -> tree_sitter.Query:
    return tree_sitter.Query(language.grammar, _QUERIES[language.name])


def integer_literals(program: Program) -> tuple[IntegerLiteral, ...]:
    """The program's replaceable integer literals, ascending; those above :data:`LARGEST` are left out."""
    cursor = tree_sitter.QueryCursor(_query(program.language))
    found = cursor.captures(program.tree.root_node)
    macros = (node.parent for node in found.get("called", ()) if _PASTING.fullmatch(_text(program, node)))
    elsewhere = [node.byte_range for node in (*found.get("elsewhere", ()), *macros) if node is not None]
    literals = [node.byte_range for node in found.get("literal", ())]
    return tuple(_allowed(program, sorted(literals), sorted(elsewhere)))


def _text(program: Program, node: tree_sitter.Node) -> str:
    return program.data[node.start_byte : node.end_byte].decode()


def _allowed(
    program: Program, literals: list[tuple[int, int]], elsewhere: list[tuple[int, int]]
) -> list[IntegerLiteral]:
    """The literals outside all other regions, in one pass over both."""
    kept: list[IntegerLiteral] = []
    number, closed = 0, 0
    for start, end in literals:
        while number < len(elsewhere) and elsewhere[number][0] <= start:
            closed = max(closed, elsewhere[number][1])
            number += 1
        if end > closed and (literal := _read(program, start, end)) is not None:
            kept.append(literal)
    return kept


def _read(program: Program, start: int, end: int) -> IntegerLiteral | None:
    text = program.data[start:end].decode()
    match = _SPELLING.fullmatch(text)
    if match is None or (match[2] and program.language.name == "python"):
        return None
    digits = match[1].replace("_", "")
    old_octal = digits[0] == "0" and digits.isdigit() and digits.strip("0") != ""
    if old_octal and ({"8", "9"} & set(digits) or program.language.name == "python"):
        return None
    value = int(digits, 8) if old_octal else int(digits, 0)
    return IntegerLiteral(start, end, value, match[2]) if value <= LARGEST else None
