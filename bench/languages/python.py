"""Python: scopes after the language reference (section 4.2, "Naming and binding"), boundaries by indentation."""

from __future__ import annotations

import ast
import functools
import keyword
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import tree_sitter
import tree_sitter_python
from tree_sitter import Node

from bench.languages.program import ERROR_KIND, Boundary, Language, Program, Walk, kind_of, kinds, leaf_kinds
from bench.languages.scopes import Scope

_GRAMMAR = tree_sitter.Language(tree_sitter_python.language())

_REFLECTIVE = frozenset(
    {"locals", "vars", "dir", "eval", "exec", "execfile", "globals", "currentframe", "_getframe", "f_locals"}
)
"""Names by which a program reads its own names: with one of them in use no rename is known to be safe."""

_REFLECTIVE_ATTRIBUTES = _REFLECTIVE - {"dir", "vars", "eval"}  # as attributes these are other things

_IDENTIFIER = kind_of(_GRAMMAR, "identifier")
_ARGUMENT_LIST = kind_of(_GRAMMAR, "argument_list")
_BLOCK = kind_of(_GRAMMAR, "block")
_CALL = kind_of(_GRAMMAR, "call")
_DEFAULT_PARAMETERS = leaf_kinds(_GRAMMAR, "default_parameter typed_default_parameter")
_SPLATS = leaf_kinds(_GRAMMAR, "list_splat_pattern dictionary_splat_pattern tuple_pattern")
_PARAMETERS = kind_of(_GRAMMAR, "parameters")
_TYPED_PARAMETER = kind_of(_GRAMMAR, "typed_parameter")
_TYPE_PARAMETER = kind_of(_GRAMMAR, "type_parameter")
_NOT_STATEMENTS = frozenset({kind_of(_GRAMMAR, "comment"), ERROR_KIND})
_EXPRESSION_STATEMENT = kind_of(_GRAMMAR, "expression_statement")
_STRINGS = leaf_kinds(_GRAMMAR, "string concatenated_string")
_ATTRIBUTE = kind_of(_GRAMMAR, "attribute")
_CONTINUED = re.compile(rb"\\\r?\n[ \t\f]*\Z")
_QUOTED = re.compile(r"""(['"])(.*?)\1""", re.DOTALL)
_AT_NAME = re.compile(r"@\s*([^\W\d]\w*)")
_HOLDERS = frozenset({"assignment", "named_expression", "block"})
_KEYWORDS_OF_ANOTHER = frozenset({"kwargs", "kwds"})
"""Arguments that hold the keywords of a call that somebody else makes (``Thread(target=f, kwargs={"n": 3})``)."""


class _PythonWalk(Walk):
    """Fills the scope table from a Python tree."""

    handlers: ClassVar[Mapping[int, Any]]

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.keywords: list[tuple[str, Node]] = []  # names of keyword arguments ("**": any), and their nodes
        # (definition, function name or "", enclosing scope, own scope, parameters that a call may name)
        self.signatures: list[tuple[Node, str, Scope, Scope, list[str]]] = []
        self.decorators: list[Node] = []  # of the first function
        self.asks_data_frames = False  # the program names something's ``query`` or ``eval``

    # ------------------------------------------------------------------------------------------------ uses and bindings

    def bind(self, node: Node | None, scope: Scope, *, fixed: bool = False) -> None:
        """Bind an identifier in ``scope`` and record it."""
        if node is None:
            return
        key = self.use(node, scope)
        self.table.bind(key, scope)
        if fixed:
            scope.fix((key,))

    def target(self, node: Node | None, scope: Scope) -> None:
        """Bind the names of an assignment target; visit what is not a name (``a[i]``, ``a.b``)."""
        if node is None:
            return
        if node.kind_id == _IDENTIFIER:
            self.bind(node, scope)
        elif node.type in _TARGETS:
            for child in node.named_children:
                self.target(child, scope)
        else:
            self.later(node, scope)

    def assignment(self, node: Node, scope: Scope) -> None:
        children = node.named_children
        left = children[0]
        if left.kind_id == _IDENTIFIER:  # as in most; that it is written here is seen when it is visited
            self.table.bind(self.text(left), scope)
        else:
            self.target(left, scope)
            del children[0]
        self.push(children, scope)

    def named_expression(self, node: Node, scope: Scope) -> None:
        self.later(node.child_by_field_name("value"), scope)
        name = node.child_by_field_name("name")
        if name is not None:
            self.table.bind(self.use(name, scope), scope.function or self.table.root)

    def for_statement(self, node: Node, scope: Scope) -> None:
        for field in ("alternative", "body", "right"):
            self.later(node.child_by_field_name(field), scope)
        self.target(node.child_by_field_name("left"), scope)
        self._extras(node, scope)

    def _extras(self, node: Node, scope: Scope) -> None:
        """An error inside a node whose children are visited by field."""
        if node.has_error:
            for child in node.children:
                if child.is_error:
                    self.error(child, scope)

    def comprehension(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        first = True
        children = node.named_children
        for child in children:
            if child.type == "for_in_clause":
                self.target(child.child_by_field_name("left"), inner)
                # The first iterable is evaluated outside (reference 6.2.4).
                for right in child.children_by_field_name("right"):
                    self.later(right, scope if first else inner)
                first = False
            else:
                self.later(child, inner)

    def as_pattern(self, node: Node, scope: Scope) -> None:
        for child in node.named_children:
            if child.type == "as_pattern_target":
                for target in child.named_children:
                    self.target(target, scope)
            elif child.kind_id == _IDENTIFIER and child.prev_sibling is not None and child.prev_sibling.type == "as":
                self.bind(child, scope)
            else:
                self.later(child, scope)

    def except_clause(self, node: Node, scope: Scope) -> None:
        """``except E as e`` comes as an ``as_pattern``; in Python 2's ``except E, e`` the name is frozen."""
        children = node.named_children
        values = [child for child in children if child.type not in ("block", "comment")]
        for extra in values[1:]:
            self.freeze_words(extra)
        for child in reversed(children):
            self.later(child, scope)

    def delete_statement(self, node: Node, scope: Scope) -> None:
        for child in node.named_children:
            self.target(child, scope)

    def global_statement(self, node: Node, scope: Scope) -> None:
        home = scope.function or self.table.root
        for child in node.named_children:
            key = self.use(child, scope)
            home.send_elsewhere(key)
            self.table.bind(key, self.table.root)
            self.table.frozen.add(key)

    def nonlocal_statement(self, node: Node, scope: Scope) -> None:
        for child in node.named_children:
            key = self.use(child, scope)
            self.table.frozen.add(key)

    def imports(self, node: Node, scope: Scope) -> None:
        """Imported names are bound and keep their names; the parts of a module's path are nobody's."""
        from_module = node.type == "import_from_statement"
        module = node.child_by_field_name("module_name")
        for child in node.named_children:
            if child == module:
                continue
            if child.type == "aliased_import":
                self.bind(child.child_by_field_name("alias"), scope, fixed=True)
            elif child.type == "dotted_name":
                parts = child.named_children
                if parts and not (from_module and len(parts) > 1):
                    self.bind(parts[0], scope, fixed=True)

    def type_alias(self, node: Node, scope: Scope) -> None:
        self.freeze_words(node)

    # ------------------------------------------------------------------------------------------------------------ matches

    def case_pattern(self, node: Node, scope: Scope) -> None:
        for child in reversed(node.named_children):
            if child.type == "dotted_name":
                self.capture(child, scope)
            else:
                self.later(child, scope)

    def capture(self, node: Node, scope: Scope) -> None:
        """A bare name in a pattern is a capture, a dotted one a value."""
        parts = node.named_children
        if len(parts) == 1:
            self.bind(parts[0], scope)
        elif parts:
            self.use(parts[0], scope)

    def class_pattern(self, node: Node, scope: Scope) -> None:
        for position, child in enumerate(node.named_children):
            if position == 0 and child.type == "dotted_name":
                self.use(child.named_children[0], scope)
            else:
                self.later(child, scope)

    def keyword_pattern(self, node: Node, scope: Scope) -> None:
        for child in node.named_children[1:]:
            if child.type == "dotted_name":
                self.capture(child, scope)
            else:
                self.later(child, scope)

    def splat_pattern(self, node: Node, scope: Scope) -> None:
        for child in node.named_children:
            if child.kind_id == _IDENTIFIER:
                self.bind(child, scope)
            else:
                self.later(child, scope)

    def dict_pattern(self, node: Node, scope: Scope) -> None:
        values = node.children_by_field_name("value")
        for child in node.named_children:
            if child.type == "dotted_name":
                if child in values:
                    self.capture(child, scope)
                else:
                    self.use(child.named_children[0], scope)
            else:
                self.later(child, scope)

    def match_statement(self, node: Node, scope: Scope) -> None:
        """Its block holds cases, not statements: no boundary there."""
        for child in reversed(node.named_children):
            if child.type == "block":
                for case in reversed(child.named_children):
                    self.later(case, scope)
            else:
                self.later(child, scope)

    # -------------------------------------------------------------------------------------------------- functions, classes

    def function_definition(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        is_first = self.open_function(inner)
        key = ""
        parameters: list[str] = []
        for child in node.named_children:
            kind = child.kind_id
            if kind == _IDENTIFIER:
                key = self.use(child, scope)
                self.table.bind(key, scope)
                if is_first and key:
                    self.function_key = (key, scope)
                    self.decorators = [child for child in _around(node) if child.type == "decorator"]
            elif kind == _PARAMETERS:
                parameters = self.signature(child, scope, inner, is_first)
            elif kind == _BLOCK:
                self.later(child, inner)
            elif kind == _TYPE_PARAMETER:
                self.freeze_words(child)
            else:  # the type of what it returns, an error, a comment
                self.later(child, scope)
        self.signatures.append((node, key, scope, inner, parameters))

    def lambda_expression(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope)
        inner.is_function = True
        self.later(node.child_by_field_name("body"), inner)
        parameters = node.child_by_field_name("parameters")
        found = self.signature(parameters, scope, inner, False) if parameters is not None else []
        self.signatures.append((node, "", scope, inner, found))

    def signature(self, parameters: Node, outer: Scope, inner: Scope, is_first: bool) -> list[str]:
        """Bind parameters inside; defaults and annotations belong to the enclosing scope.

        Returns:
            those that a call may name: not ``*args`` and ``**kwargs``.
        """
        found: list[str] = []
        for child in parameters.named_children:
            names = [child]
            kind = child.kind_id
            if kind in _DEFAULT_PARAMETERS:
                name = child.child_by_field_name("name")
                names = [name] if name is not None else []
                self.later(child.child_by_field_name("value"), outer)
                self.later(child.child_by_field_name("type"), outer)
            elif kind == _TYPED_PARAMETER:
                self.later(child.child_by_field_name("type"), outer)
                names = child.named_children[:1]
            starred = False
            while names:
                name = names.pop()
                kind = name.kind_id
                if kind == _IDENTIFIER:
                    key = self.use(name, inner)
                    self.table.bind(key, inner)
                    if is_first:
                        self.parameters[key] = name.start_byte
                    if not starred:
                        found.append(key)
                elif kind in _SPLATS:
                    starred = True
                    names += name.named_children
                elif kind == ERROR_KIND:
                    self.error(name, inner)
        return found

    def class_definition(self, node: Node, scope: Scope) -> None:
        inner = Scope(scope, hidden=True)
        inner.is_function = True
        name = node.child_by_field_name("name")
        if name is not None:
            self.bind(name, scope)
        if (generic := node.child_by_field_name("type_parameters")) is not None:
            self.freeze_words(generic)
        self.later(node.child_by_field_name("body"), inner)
        self.later(node.child_by_field_name("superclasses"), scope)
        self._extras(node, scope)

    def decorator(self, node: Node, scope: Scope) -> None:
        """A decorator may look for parameters by name: the words in its strings stay as they are.

        So do the names that a command line makes of its options (``"--dry-run"``: ``dry_run``).
        """
        self.freeze_quoted(node)
        for match in _QUOTED.finditer(self.text(node)):
            options = re.findall(r"[^\W\d][\w-]*", match.group(2))
            self.table.frozen.update(option.replace("-", "_").lower() for option in options)
        for child in node.named_children:
            self.later(child, scope)

    def freeze_quoted(self, node: Node) -> None:
        """Nothing that is a word in a string inside this node may be renamed."""
        for match in _QUOTED.finditer(self.text(node)):
            self.table.frozen.update(re.findall(r"[^\W\d]\w*", match.group(2)))

    # --------------------------------------------------------------------------------------------------------------- calls

    def keyword_argument(self, node: Node, scope: Scope) -> None:
        """The name of an argument is nobody's; in a call it is remembered."""
        children = node.named_children
        self.keywords.append((self.text(children[0]), node))
        if self.text(children[0]) in _KEYWORDS_OF_ANOTHER:
            self.keywords.append(("**", node))
        self.push(children[1:], scope)

    def dictionary_splat(self, node: Node, scope: Scope) -> None:
        """``**a`` in a call may pass any keyword."""
        self.keywords.append(("**", node))
        self.push(node.named_children, scope)

    def attribute(self, node: Node, scope: Scope) -> None:
        name, _, last = self.text(node).partition(".")
        if name.isidentifier() and last.isidentifier():  # ``a.b``, as most are: no need to look at its parts
            self.table.write(name, node.start_byte, scope)
        else:
            children = node.named_children
            last = self.text(children.pop())
            self.push(children, scope)
        if last in _REFLECTIVE_ATTRIBUTES:
            self.table.opaque = "the program inspects its own names"
        elif last in ("query", "eval"):
            self.asks_data_frames = True
            if last == "eval" and node.parent is not None and node.parent.kind_id == _CALL:
                self.freeze_quoted(node.parent)  # ``pandas.eval`` reads bare names

    def string(self, node: Node, scope: Scope) -> None:
        """Only a prefixed string may hold expressions."""
        if self.data[node.start_byte] not in b"\"'":
            self.push(node.named_children, scope)

    def interpolation(self, node: Node, scope: Scope) -> None:
        """``f"{x=}"`` prints the name, so the name stays."""
        if any(child.type == "=" for child in node.children):
            self.freeze_words(node)
        for child in node.named_children:
            self.later(child, scope)

    def exec_statement(self, node: Node, scope: Scope) -> None:
        self.table.opaque = "the program executes text"

    def error(self, node: Node, scope: Scope) -> None:
        self.freeze_words(node)
        for child in reversed(node.named_children):
            self.later(child, scope)

    def block(self, node: Node, scope: Scope) -> None:
        children = node.named_children
        if scope is self.function:
            self.blocks.append((node, children))
        self.push(children, scope)

    # -------------------------------------------------------------------------------------------------------------- finish

    def finish(self) -> None:
        table = self.table
        for keys in table.written.values():
            if not _REFLECTIVE.isdisjoint(keys):
                table.opaque = "the program inspects its own names"
        if self.ascii_text is None or "__" in self.ascii_text:
            # Names with two leading underscores are special or mangled.
            table.frozen.update(key for key in table.words() if key.startswith("__"))
        if self.ascii_text is None:
            # Python reads a name in its NFKC form: two spellings of one name are too much for a rename.
            respelled = {key: form for key in table.words() if (form := unicodedata.normalize("NFKC", key)) != key}
            table.frozen.update(respelled, respelled.values())
        if self.asks_data_frames:
            # ``df.query("score > @limit")`` looks ``limit`` up in the function; the string may have been made elsewhere in it.
            table.frozen.update(_AT_NAME.findall(self.data.decode()))
        if self.function_key is not None and self.decorators:
            # ``@value.setter def value``: the decorator names what stood outside before, and so must the function.
            name, scope = self.function_key
            spans = [decorator.byte_range for decorator in self.decorators]
            if any(start <= place < end for place, _ in table.places(name) for start, end in spans):
                scope.fix((name,))
        if self.keywords:
            for signature in self.signatures:
                self._fix_keywords(*signature)

    def _fix_keywords(self, definition: Node, name: str, outer: Scope, inner: Scope, parameters: list[str]) -> None:
        """A parameter that some call may name by keyword keeps its name."""
        anybody = not name or name.startswith("__") or (outer.hidden and outer is not self.table.root and outer.inner)
        nodes = [(word, node) for word, node in self.keywords if word == "**" or word in inner.bound]
        hits = [(word, node, callee) for word, node in nodes if (callee := self._callee(node)) is not None]
        if not hits:
            return
        anybody = anybody or any(
            not self._is_called(start) and start != self._definition(name, outer, start)
            for start, _ in self.table.places(name)
        )
        for word, argument, callee in hits:
            if word != "**":
                if callee == name or anybody:
                    inner.fix((word,))
            elif callee == name:
                inner.fix(inner.bound)
            elif self._is_reached(definition, name, argument, callee):
                inner.fix(parameters)

    def _is_reached(self, definition: Node, name: str, argument: Node, callee: str) -> bool:
        """May ``**a`` in a call of something else be for this function?

        So it may where the call is handed the function (``partial(f, **a)``), or calls a variable that it was assigned to, or its class.
        Not followed: what was put into a container or an attribute, or is another function's parameter.
        """
        around = definition.parent.parent if definition.parent is not None else None
        if name == "__init__" and around is not None and around.type == "class_definition":
            return self.text(around.named_children[0]) == callee
        starts = [start for start, _ in self.table.places(name)] if name else [definition.start_byte]
        within = argument.parent
        for start in starts:
            if name and (self._is_called(start) or self._definition(name, self.table.root, start) == start):
                continue
            node = self.root.descendant_for_byte_range(start, start + 1) if name else definition
            while node is not None and node not in (within, argument) and node.type not in _HOLDERS:
                node = node.parent
            # What stands in the expression behind ** is handed to what makes the keywords, and is not called with them.
            if node is not None and node != argument and (node == within or self._assigns(node, callee, start)):
                return True
        return False

    def _assigns(self, node: Node, variable: str, start: int) -> bool:
        """Does an assignment give a variable what is written at ``start``?"""
        left = node.child_by_field_name("left") or node.child_by_field_name("name")
        return left is not None and left.end_byte <= start and self.text(left) == variable

    def _callee(self, argument: Node) -> str | None:
        """The last name of what is called with an argument, or nothing; outside a call, ``None``."""
        arguments = argument.parent
        call = arguments.parent if arguments is not None and arguments.kind_id == _ARGUMENT_LIST else None
        if call is None or call.kind_id != _CALL:
            return None
        function = call.named_children[0]
        if function.kind_id == _ATTRIBUTE:
            function = function.named_children[-1]
        return self.text(function) if function.kind_id == _IDENTIFIER else ""

    def _is_called(self, start: int) -> bool:
        """Is the name that is written at ``start`` what a call calls?"""
        node = self.root.descendant_for_byte_range(start, start + 1)
        call = node.parent if node is not None else None
        return call is not None and call.kind_id == _CALL and call.start_byte == start

    def _definition(self, name: str, outer: Scope, start: int) -> int:
        """``start`` if ``def`` stands before it, else -1: where the name is defined it is not passed around."""
        return start if re.search(rb"\bdef\s+$", self.data[max(0, start - 40) : start]) else -1

    def can_bind(self, key: str) -> bool:
        """The name becomes local to the whole function: nothing in it may look the name up further out."""
        if key in self.table.frozen:
            return False
        for start, scope in self.table.places(key):
            if any(here is self.function for here in scope.outwards()):
                home = self.table.resolve(key, scope, start)
                if home is None or all(here is not self.function for here in home.outwards()):
                    return False
        return True

    # ---------------------------------------------------------------------------------------------------------- boundaries

    def body_boundary(self) -> Boundary | None:
        """Of a program that begins with a function and has no errors and no continued lines."""
        first = next(iter(self.root.named_children), None)
        if first is not None and first.type == "decorated_definition":
            first = first.child_by_field_name("definition")
        if first is None or first.type != "function_definition" or self.root.has_error or self._continued:
            return None
        body = first.child_by_field_name("body")
        return next(self._of_body(body, body.named_children), None) if body is not None else None

    def first_boundary(self) -> Boundary | None:
        """Of the body's own block; where a continued line may hide that one, of all blocks."""
        own = next(self._of_body(*self.blocks[0]), None) if self.blocks and not self._continued else None
        return own or super().first_boundary()

    def boundary_list(self) -> list[Boundary]:
        """Before every statement that starts a line of its own, and before a body on its header's line."""
        found: list[Boundary] = []
        for number, (block, children) in enumerate(self.blocks):
            found += self._of_body(block, children) if number == 0 else self._before(block, _starts(children))
        found.sort()
        return found

    @property
    def _continued(self) -> bool:
        data = self.data
        return b"\\" in data and (b"\\\n" in data or b"\\\r" in data)

    def _of_body(self, block: Node, children: list[Node]) -> Iterator[Boundary]:
        """Boundaries of a function's own block: behind its docstring."""
        statements = [child for child in children if child.kind_id not in _NOT_STATEMENTS]
        starts = [statement.start_byte for statement in statements]
        if statements and _is_docstring(statements[0]):
            if not self.begins_line(starts[0]):
                return  # nothing can follow on the line of the header
            if len(starts) == 1:
                end = statements[0].end_byte
                yield Boundary(end, end, "after", starts[0])
                return
            del starts[0]
        yield from self._before(block, starts)

    def _before(self, block: Node, starts: Iterable[int]) -> Iterator[Boundary]:
        """Boundaries before the statements of a block, given where they start."""
        data, continued = self.data, self._continued
        margin = b""  # line end and indent of the block, once known: what stands before most of its statements
        size = 0
        for position, start in enumerate(starts):
            if (margin and data[start - size : start] == margin) or self.begins_line(start):
                if not continued or not _CONTINUED.search(data, 0, start):
                    yield Boundary(start, start, "line", start)
                    if not margin:
                        margin = data[data.rfind(b"\n", 0, start) : start]
                        size = len(margin)
            elif position == 0 and (owner := block.parent) is not None:
                head = len(data[:start].rstrip(b" \t"))
                if data[head - 1 : head] == b":":
                    yield Boundary(head, start, "header", owner.start_byte)


def _around(definition: Node) -> list[Node]:
    """What stands beside a definition in what decorates it."""
    owner = definition.parent
    return owner.named_children if owner is not None and owner.type == "decorated_definition" else []


def _starts(children: list[Node]) -> Iterator[int]:
    """Where the statements of a block start."""
    return (child.start_byte for child in children if child.kind_id not in _NOT_STATEMENTS)


def _is_docstring(statement: Node) -> bool:
    """Is a block's first statement nothing but a string?"""
    return (
        statement.kind_id == _EXPRESSION_STATEMENT
        and len(parts := statement.named_children) == 1
        and parts[0].kind_id in _STRINGS
    )


_TARGETS = frozenset(
    {
        "pattern_list",
        "tuple_pattern",
        "list_pattern",
        "list_splat_pattern",
        "parenthesized_expression",
        "expression_list",
        "tuple",
        "list",
        "list_splat",
    }
)

_PythonWalk.identifier_kind = _IDENTIFIER
_PythonWalk.leaves = leaf_kinds(
    _GRAMMAR,
    """comment integer float true false none ellipsis string_start string_content string_end escape_sequence pass_statement
    break_statement continue_statement type_conversion line_continuation""",
)
_PythonWalk.handlers = dict.fromkeys(_PythonWalk.leaves) | kinds(
    _GRAMMAR,
    {
        "identifier": Walk.identifier,
        "assignment": _PythonWalk.assignment,
        "augmented_assignment": _PythonWalk.assignment,
        "named_expression": _PythonWalk.named_expression,
        "for_statement": _PythonWalk.for_statement,
        "list_comprehension": _PythonWalk.comprehension,
        "set_comprehension": _PythonWalk.comprehension,
        "dictionary_comprehension": _PythonWalk.comprehension,
        "generator_expression": _PythonWalk.comprehension,
        "as_pattern": _PythonWalk.as_pattern,
        "except_clause": _PythonWalk.except_clause,
        "delete_statement": _PythonWalk.delete_statement,
        "global_statement": _PythonWalk.global_statement,
        "nonlocal_statement": _PythonWalk.nonlocal_statement,
        "import_statement": _PythonWalk.imports,
        "import_from_statement": _PythonWalk.imports,
        "future_import_statement": _PythonWalk.imports,
        "type_alias_statement": _PythonWalk.type_alias,
        "case_pattern": _PythonWalk.case_pattern,
        "class_pattern": _PythonWalk.class_pattern,
        "keyword_pattern": _PythonWalk.keyword_pattern,
        "splat_pattern": _PythonWalk.splat_pattern,
        "dict_pattern": _PythonWalk.dict_pattern,
        "match_statement": _PythonWalk.match_statement,
        "function_definition": _PythonWalk.function_definition,
        "lambda": _PythonWalk.lambda_expression,
        "class_definition": _PythonWalk.class_definition,
        "decorator": _PythonWalk.decorator,
        "keyword_argument": _PythonWalk.keyword_argument,
        "dictionary_splat": _PythonWalk.dictionary_splat,
        "attribute": _PythonWalk.attribute,
        "string": _PythonWalk.string,
        "interpolation": _PythonWalk.interpolation,
        "exec_statement": _PythonWalk.exec_statement,
        "block": _PythonWalk.block,
        "ERROR": _PythonWalk.error,
    },
)


class Python(Language):
    """Python 3 (Python 2's statements parse as far as the grammar goes)."""

    name = "python"
    keywords = frozenset(keyword.kwlist)
    whole = frozenset({"string_content"})

    def __init__(self) -> None:
        super().__init__(_GRAMMAR)

    def walk(self, program: Program) -> _PythonWalk:
        """A fresh walk."""
        return _PythonWalk(program)

    def spells(self, name: str) -> bool:
        """Python's own rule; a spelling that Python would normalise to another is refused."""
        return name.isidentifier() and (name.isascii() or unicodedata.normalize("NFKC", name) == name)

    def join(self, name: str, suffix: str) -> str:
        """``load`` + ``rb`` → ``load_rb``."""
        return f"{name.rstrip('_')}_{suffix}" if name.strip("_") else name + suffix

    def broken(self, text: str) -> int:
        """0: compiles; 1: parses to a syntax tree but does not compile (``nonlocal`` of a bare inner function); 2: neither."""
        return broken(text)


@functools.lru_cache(maxsize=4096)
def broken(text: str) -> int:
    """:meth:`Python.broken`, remembered."""
    if text[:1] in (" ", "\t"):
        text = "if 1:\n" + text  # a method cut out with its indent
    for level, flags in ((0, 0), (1, ast.PyCF_ONLY_AST)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(text, "<program>", "exec", flags=flags, dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            continue
        return level
    return 2
