"""Java: scopes after the language specification (chapter 6); methods have a namespace of their own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import tree_sitter
import tree_sitter_java
from tree_sitter import Node

from bench.languages.braces import BraceWalk
from bench.languages.program import Language, Program, kind_of, kinds, leaf_kinds
from bench.languages.scopes import Scope

_GRAMMAR = tree_sitter.Language(tree_sitter_java.language())

_KEYWORDS = frozenset(
    """abstract assert boolean break byte case catch char class const continue default do double else enum extends final
    finally float for goto if implements import instanceof int interface long native new package private protected public
    return short static strictfp super switch synchronized this throw throws transient try void volatile while _ true false
    null var yield record sealed permits""".split()  # noqa: SIM905
)

_IGNORED = dict.fromkeys(map(ord, "\u200c\u200d"))


class _JavaWalk(BraceWalk):
    """Fills the scope table from a Java tree. A method ``m`` is the key ``m()``."""

    handlers: ClassVar[Mapping[int, Any]]
    function_suffix = "()"

    def __init__(self, program: Program) -> None:
        super().__init__(program, nesting_clash=True)
        self.calls: list[tuple[Node, int, Scope]] = []
        self.arities: dict[tuple[str, Scope], tuple[int, bool]] = {}  # (parameters, is the last one variadic)
        self.inheriting: set[Scope] = set()  # class bodies that may see names of a class not in the program

    def freeze_words(self, node: Node) -> None:
        super().freeze_words(node)
        self.table.frozen.update(f"{word}()" for word in re.findall(r"[^\W\d]\w*", self.text(node)))

    # --------------------------------------------------------------------------------------------------------- variables

    def declarator(self, node: Node, scope: Scope) -> None:
        """``variable_declarator``, ``formal_parameter``, ``catch_formal_parameter``, ``resource``: a name bound here."""
        name = node.child_by_field_name("name")
        for child in reversed(node.named_children):
            if child != name:
                self.later(child, scope)
        if name is not None:
            key = self.use(name, scope)
            self.table.bind(key, scope, 0 if scope.members else name.start_byte)

    def for_each(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        name = node.child_by_field_name("name")
        value = node.child_by_field_name("value")
        for child in reversed(node.named_children):
            if child == value:
                self.later(child, scope)
            elif child != name:
                self.later(child, inner)
        if name is not None:
            self.table.bind(self.use(name, inner), inner, name.start_byte)

    def try_with_resources(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        for child in reversed(node.named_children):
            self.later(child, inner if child.type in ("resource_specification", "block") else scope)

    def pattern(self, node: Node, scope: Scope) -> None:
        """Where a pattern variable is in scope depends on control flow: it keeps its name."""
        name = node.child_by_field_name("name")
        for child in reversed(node.named_children):
            if child != name:
                self.later(child, scope)
        if name is not None:
            self.freeze_words(name)

    def lambda_expression(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        inner.is_function = True
        parameters = node.child_by_field_name("parameters")
        self.later(node.child_by_field_name("body"), inner)
        if parameters is None:
            return
        if parameters.type == "formal_parameters":
            self.later(parameters, inner)
            return
        for name in [parameters] if parameters.type == "identifier" else parameters.named_children:
            if name.type == "identifier":
                self.table.bind(self.use(name, inner), inner, name.start_byte)

    def field_access(self, node: Node, scope: Scope) -> None:
        self.later(node.child_by_field_name("object"), scope)

    def labeled(self, node: Node, scope: Scope) -> None:
        self.push(node.named_children[1:], scope)

    def annotation(self, node: Node, scope: Scope) -> None:
        arguments = node.child_by_field_name("arguments")
        for child in arguments.named_children if arguments is not None else []:
            self.later(child.child_by_field_name("value") if child.type == "element_value_pair" else child, scope)

    # ----------------------------------------------------------------------------------------------- methods and classes

    def method(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        is_first = self.open_function(inner)
        name = node.child_by_field_name("name")
        parameters = node.child_by_field_name("parameters")
        body = node.child_by_field_name("body")
        for child in reversed(node.named_children):
            if child != name and child != body:
                self.later(child, inner)
        formal = (
            [c for c in parameters.named_children if c.type.endswith("_parameter")] if parameters is not None else []
        )
        if is_first:
            for position, parameter in enumerate(formal):
                self._first_parameter(parameter, position)
        if name is not None and node.type == "method_declaration" and name.end_byte > name.start_byte:
            self._declare(name, scope, formal, is_first)
        if body is not None:
            # The body shares the scope of the parameters.
            self.body(body, inner)

    def _first_parameter(self, parameter: Node, position: int) -> None:
        name = parameter.child_by_field_name("name")
        if name is None:
            for child in parameter.named_children:
                if child.type == "variable_declarator":
                    name = child.child_by_field_name("name")
        if name is not None:
            self.parameters[self.text(name)] = position

    def _declare(self, name: Node, scope: Scope, formal: list[Node], is_first: bool) -> None:
        key = self.text(name) + "()"
        if key in scope.bound:
            self.table.frozen.add(key)  # overloaded: which one a call means depends on types
        self.table.bind(key, scope)
        self.table.write(key, name.start_byte, scope)
        self.arities[key, scope] = (len(formal), bool(formal) and formal[-1].type == "spread_parameter")
        if is_first:
            self.function_key = (key, scope)

    def invocation(self, node: Node, scope: Scope) -> None:
        target = node.child_by_field_name("object")
        name = node.child_by_field_name("name")
        arguments = node.child_by_field_name("arguments")
        self.later(arguments, scope)
        self.later(target, scope)
        if name is not None and (target is None or target.type == "this"):
            count = (
                sum(not c.type.endswith("comment") for c in arguments.named_children) if arguments is not None else 0
            )
            self.calls.append((name, count, scope))

    def method_reference(self, node: Node, scope: Scope) -> None:
        children = node.named_children
        if len(children) > 1:
            self.freeze_words(children[-1])
        self.push(children[:1], scope)

    def class_body(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope, members=True)
        inner.is_function = True
        parent = node.parent
        if parent is not None and (
            parent.type in ("object_creation_expression", "enum_constant")
            or any(child.type in ("superclass", "super_interfaces") for child in parent.named_children)
        ):
            self.inheriting.add(inner)
        self.push(node.named_children, inner)

    def named_type(self, node: Node, scope: Scope) -> None:
        """A class, interface, enum or record: its name is a type's."""
        name = node.child_by_field_name("name")
        for child in reversed(node.named_children):
            if child == name:
                self.freeze_words(child)
            elif child.type == "formal_parameters":
                self.freeze_words(child)  # a record's components are also its methods
            else:
                self.later(child, scope)

    def enum_constant(self, node: Node, scope: Scope) -> None:
        name = node.child_by_field_name("name")
        for child in reversed(node.named_children):
            if child == name:
                self.table.bind(self.use(child, scope), scope)
            else:
                self.later(child, scope)

    def enum_body(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope, members=True)
        inner.is_function = True
        self.push(node.named_children, inner)

    # -------------------------------------------------------------------------------------------------------------- finish

    def finish(self) -> None:
        self._resolve_calls()
        if self.inheriting:
            self._freeze_doubtful()

    def _resolve_calls(self) -> None:
        """Unqualified calls whose number of arguments fits a method of the program; others are overloads elsewhere."""
        first = self.arities.get(self.function_key) if self.function_key is not None else None
        for name, count, scope in self.calls:
            start = name.start_byte
            key = self.text(name) + "()"
            home = self.table.resolve(key, scope, start)
            arity = self.arities.get((key, home)) if home is not None else first
            if arity is None or count == arity[0] or (arity[1] and count >= arity[0] - 1):
                self.table.write(key, start, scope)

    def _freeze_doubtful(self) -> None:
        """Inside a class that inherits, a name may be a member that the program does not show."""
        for scope, keys in self.table.written.items():
            for key, starts in keys.items():
                for start in starts:
                    if self._is_doubtful(key, scope, start):
                        self.table.frozen.add(key)

    def _is_doubtful(self, key: str, scope: Scope, start: int) -> bool:
        home = self.table.resolve(key, scope, start)
        within = itertools.takewhile(lambda here: here is not home, scope.outwards())
        return any(here in self.inheriting for here in within)


_JavaWalk.identifier_kind = kind_of(_GRAMMAR, "identifier")
_JavaWalk.leaves = leaf_kinds(
    _GRAMMAR,
    """line_comment block_comment decimal_integer_literal hex_integer_literal decimal_floating_point_literal true false
    null_literal character_literal this super integral_type floating_point_type boolean_type void_type""",
)
_JavaWalk.handlers = dict.fromkeys(_JavaWalk.leaves) | kinds(
    _GRAMMAR,
    {
        "identifier": BraceWalk.identifier,
        "type_identifier": _JavaWalk.frozen,
        "variable_declarator": _JavaWalk.declarator,
        "formal_parameter": _JavaWalk.declarator,
        "catch_formal_parameter": _JavaWalk.declarator,
        "resource": _JavaWalk.declarator,
        "enhanced_for_statement": _JavaWalk.for_each,
        "for_statement": _JavaWalk.scoped,
        "catch_clause": _JavaWalk.scoped,
        "switch_block": _JavaWalk.scoped,
        "switch_label": _JavaWalk.frozen,
        "try_with_resources_statement": _JavaWalk.try_with_resources,
        "instanceof_expression": _JavaWalk.pattern,
        "type_pattern": _JavaWalk.frozen,
        "record_pattern": _JavaWalk.frozen,
        "lambda_expression": _JavaWalk.lambda_expression,
        "field_access": _JavaWalk.field_access,
        "labeled_statement": _JavaWalk.labeled,
        "break_statement": _JavaWalk.skip,
        "continue_statement": _JavaWalk.skip,
        "annotation": _JavaWalk.annotation,
        "marker_annotation": _JavaWalk.skip,
        "import_declaration": _JavaWalk.frozen,
        "package_declaration": _JavaWalk.skip,
        "method_declaration": _JavaWalk.method,
        "constructor_declaration": _JavaWalk.method,
        "block": _JavaWalk.block,
        "method_invocation": _JavaWalk.invocation,
        "method_reference": _JavaWalk.method_reference,
        "class_body": _JavaWalk.class_body,
        "interface_body": _JavaWalk.class_body,
        "enum_body": _JavaWalk.enum_body,
        "class_declaration": _JavaWalk.named_type,
        "interface_declaration": _JavaWalk.named_type,
        "enum_declaration": _JavaWalk.named_type,
        "record_declaration": _JavaWalk.named_type,
        "enum_constant": _JavaWalk.enum_constant,
        "ERROR": _JavaWalk.error,
    },
)


class Java(Language):
    """Java; a bare method without its class is a program too."""

    name = "java"
    keywords = _KEYWORDS

    def __init__(self) -> None:
        super().__init__(_GRAMMAR)

    def walk(self, program: Program) -> _JavaWalk:
        """A fresh walk."""
        return _JavaWalk(program)

    def spells(self, name: str) -> bool:
        """Letters, digits, ``_`` and ``$``; behind the first, zero-width joiners, which the language ignores."""
        return (name[:1] + name[1:].translate(_IGNORED)).replace("$", "_").isidentifier()

    def join(self, name: str, suffix: str) -> str:
        """``load`` + ``rb`` → ``loadRb``."""
        return name + suffix[:1].upper() + suffix[1:]
