"""C: scopes after C11 section 6.2.1; fields, tags and labels have namespaces of their own, macros have none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, ClassVar

import tree_sitter
import tree_sitter_c
from tree_sitter import Node

from bench.languages.braces import BraceWalk
from bench.languages.program import Language, Program, kind_of, kinds, leaf_kinds
from bench.languages.scopes import Scope

_GRAMMAR = tree_sitter.Language(tree_sitter_c.language())

_KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while _Alignas _Alignof
    _Atomic _Bool _Complex _Generic _Imaginary _Noreturn _Static_assert _Thread_local bool true false NULL asm typeof
    nullptr alignas alignof constexpr static_assert thread_local size_t ssize_t ptrdiff_t intptr_t uintptr_t
    int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t""".split()  # noqa: SIM905
)
_MACROS = frozenset(
    """assert complex environ errno fpclassify i386 imaginary isfinite isinf isnan isnormal linux mips noreturn offsetof setjmp signbit
    stderr stdin stdout sun unix va_arg va_copy va_end va_start vax""".split()  # noqa: SIM905
)
"""Lower-case words that C's headers or compilers define as macros."""
_TAKES_FIELD = re.compile(
    r"FOREACH|offsetof|container_of|DO_UPCAST|(?:LIST|TAILQ|QUEUE|RB)_(?:INSERT|REMOVE|NEXT|ENTRY)", re.I
)
"""Macros with arguments that are names of struct fields."""
_IDENTIFIER_SPELLING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _CWalk(BraceWalk):
    """Fills the scope table from a C tree."""

    handlers: ClassVar[Mapping[int, Any]]

    # ------------------------------------------------------------------------------------------------------- declarations

    def declaration(self, node: Node, scope: Scope) -> None:
        declarators = node.children_by_field_name("declarator")
        external = any(c.type == "storage_class_specifier" and self.text(c) == "extern" for c in node.named_children)
        others = [child for child in node.named_children if child not in declarators]
        for declarator in reversed(declarators):
            self.declare(declarator, scope, fixed=external or _misread(node))
        self.push(others, scope)

    def declare(
        self, declarator: Node, scope: Scope, *, fixed: bool = False, prototype_only: bool = True
    ) -> Node | None:
        """Bind the name inside a declarator; visit sizes and initial values. Returns the identifier, if any."""
        node: Node | None = declarator
        while node is not None:
            kind = node.type
            if kind == "identifier":
                key = self.use(node, scope)
                self.table.bind(key, scope, node.start_byte)
                if fixed:
                    scope.fix((key,))
                return node
            inner = node.child_by_field_name("declarator")
            for child in reversed(node.named_children):
                if inner is None and _holds_name(child):
                    inner = child
                elif kind == "function_declarator" and child.type == "parameter_list":
                    self.prototype(child, scope)
                elif child != inner:
                    self.later(child, scope)
            if kind == "function_declarator" and not (inner is not None and inner.type == "parenthesized_declarator"):
                fixed = fixed or prototype_only  # the function is defined elsewhere
            node = inner
        return None

    def prototype(self, parameters: Node, scope: Scope) -> None:
        """The parameters of a mere declaration name nothing."""
        inner = Scope(scope, members=True)
        self.push(parameters.named_children, inner)

    def parameter(self, node: Node, scope: Scope) -> None:
        declarator = node.child_by_field_name("declarator")
        if declarator is not None:
            self.declare(declarator, scope, fixed=_misread(node), prototype_only=False)
        self.push([child for child in node.named_children if child != declarator], scope)

    def function_definition(self, node: Node, scope: Scope) -> None:
        declarator = node.child_by_field_name("declarator")
        body = node.child_by_field_name("body")
        if scope.function is not None and declarator is not None and declarator.type == "parenthesized_declarator":
            # ``FOREACH(x) { … }`` inside a function only looks like a definition: x is used, and the body is a block.
            self.push(node.named_children, scope)
            return
        inner = Scope(scope)
        is_first = self.open_function(inner)
        if body is not None:
            self.body(body, inner) if body.type == "compound_statement" else self.later(body, inner)
        self.push([child for child in node.named_children if child not in (declarator, body)], inner)
        if declarator is not None:
            self._header(declarator, scope, inner, is_first)

    def _header(self, declarator: Node, scope: Scope, inner: Scope, is_first: bool) -> None:
        """The name belongs to the enclosing scope, the parameters to the function's."""
        node: Node | None = declarator
        while node is not None and node.type != "function_declarator":
            node = node.child_by_field_name("declarator") or next(
                (c for c in node.named_children if _holds_name(c)), None
            )
        if node is None:
            self.freeze_words(declarator)
            return
        name = node.child_by_field_name("declarator")
        parameters = node.child_by_field_name("parameters")
        for child in node.named_children:
            if child not in (name, parameters):
                self.later(child, scope)
        if parameters is not None:
            if is_first:
                self._first_parameters(parameters)
            for child in reversed(parameters.named_children):
                if child.type == "identifier":  # Kernighan and Ritchie's list of names
                    self.table.bind(self.use(child, inner), inner, child.start_byte)
                else:
                    self.later(child, inner)
        if name is None:
            return
        if name.type == "identifier":
            key = self.use(name, scope)
            self.table.bind(key, scope)
            if scope.inner:
                scope.fix((key,))
            if is_first and key:
                self.function_key = (key, scope)
        else:
            self.declare(name, scope, fixed=True)

    def _first_parameters(self, parameters: Node) -> None:
        for position, child in enumerate(parameters.named_children):
            node: Node | None = child
            while node is not None and node.type != "identifier":
                node = node.child_by_field_name("declarator") or next(
                    (c for c in node.named_children if _holds_name(c) or c.type == "identifier"), None
                )
            if node is not None:
                self.parameters[self.text(node)] = position

    # -------------------------------------------------------------------------------------------------- other namespaces

    def tagged(self, node: Node, scope: Scope) -> None:
        """A struct, union or enum: its tag has a namespace of its own."""
        name = node.child_by_field_name("name")
        self.push([child for child in node.named_children if child != name], scope)

    def enumerator(self, node: Node, scope: Scope) -> None:
        name = node.child_by_field_name("name")
        self.later(node.child_by_field_name("value"), scope)
        if name is not None:
            key = self.use(name, scope)
            self.table.bind(key, scope, name.start_byte)
            scope.fix((key,))

    def call(self, node: Node, scope: Scope) -> None:
        function = node.child_by_field_name("function")
        arguments = node.child_by_field_name("arguments")
        takes_field = function is not None and _TAKES_FIELD.search(self.text(function))
        if takes_field and arguments is not None:
            for argument in arguments.named_children[1:]:
                if argument.type == "identifier":
                    self.freeze_words(argument)
        self.later(arguments, scope)
        self.later(function, scope)

    def conditional(self, node: Node, scope: Scope) -> None:
        """``#ifdef`` and its like: the tested words are macros, the rest is code."""
        tested = [node.child_by_field_name("name"), node.child_by_field_name("condition")]
        for child in reversed(node.named_children):
            if child in tested:
                self.freeze_words(child)
            else:
                self.later(child, scope)

    def operand(self, node: Node, scope: Scope) -> None:
        symbol = node.child_by_field_name("symbol")
        self.push([child for child in node.named_children if child != symbol], scope)


def _misread(declaration: Node) -> bool:
    """Did the parser skip a word of it? Then it is unsure which is the name (``flag ieee STATUS_PARAM``: a macro stands last)."""
    return declaration.has_error and any(child.is_error for child in declaration.named_children)


def _holds_name(node: Node) -> bool:
    return node.type.endswith("_declarator") and not node.type.startswith("abstract")


_CWalk.identifier_kind = kind_of(_GRAMMAR, "identifier")
_CWalk.leaves = leaf_kinds(
    _GRAMMAR,
    """comment number_literal string_literal char_literal true false
    null primitive_type sized_type_specifier field_identifier statement_identifier type_qualifier storage_class_specifier""",
)
_CWalk.handlers = dict.fromkeys(_CWalk.leaves) | kinds(
    _GRAMMAR,
    {
        "identifier": BraceWalk.identifier,
        "type_identifier": _CWalk.frozen,
        "declaration": _CWalk.declaration,
        "parameter_declaration": _CWalk.parameter,
        "function_definition": _CWalk.function_definition,
        "compound_statement": _CWalk.block,
        "for_statement": _CWalk.scoped,
        "struct_specifier": _CWalk.tagged,
        "union_specifier": _CWalk.tagged,
        "enum_specifier": _CWalk.tagged,
        "enumerator": _CWalk.enumerator,
        "call_expression": _CWalk.call,
        "preproc_def": _CWalk.frozen,
        "preproc_function_def": _CWalk.frozen,
        "preproc_call": _CWalk.frozen,
        "preproc_include": _CWalk.skip,
        "preproc_ifdef": _CWalk.conditional,
        "preproc_if": _CWalk.conditional,
        "preproc_elif": _CWalk.conditional,
        "preproc_elifdef": _CWalk.conditional,
        "attribute_specifier": _CWalk.frozen,
        "attribute_declaration": _CWalk.frozen,
        "ms_declspec_modifier": _CWalk.frozen,
        "macro_type_specifier": _CWalk.frozen,
        "gnu_asm_input_operand": _CWalk.operand,
        "gnu_asm_output_operand": _CWalk.operand,
        "gnu_asm_clobber_list": _CWalk.frozen,
        "gnu_asm_goto_list": _CWalk.frozen,
        "ERROR": _CWalk.error,
    },
)


class C(Language):
    """C as it is found in projects: single functions, macros that no parser knows."""

    name = "c"
    keywords = _KEYWORDS

    def __init__(self) -> None:
        super().__init__(_GRAMMAR)

    def walk(self, program: Program) -> _CWalk:
        """A fresh walk."""
        return _CWalk(program)

    def spells(self, name: str) -> bool:
        """ASCII letters, digits and ``_``; letters of other scripts in normal form (annex D, as compilers read UTF-8)."""
        if name.isascii():
            return _IDENTIFIER_SPELLING.fullmatch(name) is not None
        return name.isidentifier() and unicodedata.is_normalized("NFC", name)

    def join(self, name: str, suffix: str) -> str:
        """``load`` + ``rb`` → ``load_rb``."""
        return f"{name.rstrip('_')}_{suffix}" if name.strip("_") else name + suffix

    def replaced(self, name: str) -> bool:
        """Macros of the standard headers, and words in capitals, as macros are spelled."""
        return name in _MACROS or name.upper() == name
