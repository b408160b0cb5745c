"""A parsed program: its names, statement boundaries, comments and leaves, and safe edits of it.

Everything is lazy: a program that is only parsed costs a parse. The analysis is one walk over the named nodes of the tree,
driven by a table from node kind to handler that each language supplies.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import tree_sitter

from bench.errors import DataError
from bench.languages.scopes import Name, NameKind, RenameRefused, Scope, Table
from bench.samples import Edit

ERROR_KIND = 65535
"""tree-sitter's ``ts_builtin_sym_error``."""
_PIECE = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A token of the program.

    Attributes:
        start: first byte.
        end: byte after the last.
        text: as written.
        type: tree-sitter's node type; for a keyword or an operator the text itself.
    """

    start: int
    end: int
    text: str
    type: str


class Boundary(NamedTuple):
    """A place in the first function's body where a statement can be inserted.

    Attributes:
        start: first byte that an insertion replaces; white space alone lies in ``[start, end)``.
        end: byte after the last replaced; equal to ``start`` where nothing is replaced.
        layout: ``line``: before a statement that begins its line; ``inline``: before one that does not (braces);
            ``inside``: in an empty pair of braces; ``header``: before a body on its header's line (Python), whose header
            begins at ``anchor``; ``after``: after the docstring that begins at ``anchor`` and is the whole body.
        anchor: a byte on the line that gives the indent.
    """

    start: int
    end: int
    layout: Literal["line", "inline", "inside", "header", "after"]
    anchor: int


class Language(ABC):
    """One programming language."""

    name: ClassVar[str]
    keywords: ClassVar[frozenset[str]]
    """Words that cannot name anything: keywords, literals, built-in types."""
    whole: ClassVar[frozenset[str]] = frozenset()
    """Node types that are one token although the tree divides them."""

    def __init__(self, grammar: tree_sitter.Language) -> None:
        self.grammar = grammar
        self._parser = tree_sitter.Parser(grammar)
        kinds = {
            grammar.node_kind_for_id(i) or "" for i in range(grammar.node_kind_count) if grammar.node_kind_is_named(i)
        }
        comments = " ".join(f"({kind})" for kind in sorted(kinds) if kind.endswith("comment"))
        self.comment_query = tree_sitter.Query(grammar, f"[{comments}] @comment")

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def tree(self, data: bytes) -> tree_sitter.Tree:
        """Parse UTF-8 bytes."""
        return self._parser.parse(data)

    @abstractmethod
    def walk(self, program: Program) -> Walk:
        """A fresh walk over a program."""

    @abstractmethod
    def spells(self, name: str) -> bool:
        """Is this the spelling of an identifier, keywords aside?"""

    @abstractmethod
    def join(self, name: str, suffix: str) -> str:
        """``name`` with one more word, by the language's naming convention."""

    def is_identifier(self, name: str) -> bool:
        """Can this name a variable or a function?"""
        return self.spells(name) and name not in self.keywords

    def piece_continues(self, piece: str) -> bool:
        """Can this subword continue an identifier by the naming convention (letters, digits, underscore)?"""
        return _PIECE.fullmatch(piece) is not None

    def piece_starts(self, piece: str) -> bool:
        """Can this subword stand at the start of an identifier?"""
        return self.piece_continues(piece) and not piece[0].isdigit() and piece not in self.keywords

    def replaced(self, name: str) -> bool:
        """May the compiler never see this name, because something outside the program replaces it (a C macro)?"""
        return False

    def broken(self, text: str) -> int:
        """How badly the language's own compiler rejects a text: 0 not at all (or there is no such check)."""
        return 0


class Program:
    """One program text, parsed; immutable, analysed when asked.

    Attributes:
        text: the source.
        data: the source as UTF-8; all spans are byte spans into it.
        language: its language.
        tree: tree-sitter's tree.

    Raises:
        DataError: the text holds half a surrogate pair and has no UTF-8.
    """

    def __init__(self, language: Language, text: str) -> None:
        self.language = language
        self.text = text
        try:
            self.data = text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"a {language.name} program holds \\u{ord(text[error.start]):04x} as its character {error.start + 1}: half a surrogate "
                "pair, which is no character and no UTF-8. Read its file as UTF-8, and mend or leave out what is not."
            ) from error
        self.tree = language.tree(self.data)
        self._analysed: Analysis | None = None

    def __repr__(self) -> str:
        return f"<Program {self.language.name}, {len(self.data)} bytes>"

    @property
    def error_nodes(self) -> int:
        """How many nodes are errors, or missing tokens that the parser made up."""
        root = self.tree.root_node
        if not root.has_error:
            return 0
        count = 0
        stack = [root]
        while stack:
            node = stack.pop()
            count += node.is_error or node.is_missing
            stack += [child for child in node.children if child.has_error or child.is_missing]
        return count

    @property
    def _analysis(self) -> Analysis:
        if self._analysed is None:
            walk = self.language.walk(self)
            walk.run()
            self._analysed = walk.analysis()
        return self._analysed

    @property
    def function_name(self) -> Name | None:
        """The first function's name: its definition and its recursive calls; ``None`` where it cannot be renamed."""
        return self._analysis.function

    @property
    def parameters(self) -> tuple[Name, ...]:
        """The first function's renameable parameters, in order of definition."""
        return self._analysis.parameters

    @property
    def locals(self) -> tuple[Name, ...]:
        """Renameable names bound inside the first function, nested scopes included, in order of first place.

        Two names of equal text are two bindings in different scopes.
        """
        return self._analysis.locals

    def binds(self, key: str) -> bool:
        """Does the program itself give this name a meaning anywhere (``name()``: a Java method)?"""
        return key in self._analysis.table.bound

    @cached_property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Where a statement can be inserted in the first function's body, ascending; the first is the body's start."""
        return tuple(self._analysis.walk.boundary_list())

    @cached_property
    def body_start(self) -> Boundary | None:
        """The first of :attr:`boundaries`, without making the others."""
        quick = self.language.walk(self).body_boundary() if self._analysed is None else None
        return quick or self._analysis.walk.first_boundary()

    def can_bind(self, name: str) -> bool:
        """Can a statement at :attr:`body_start` declare ``name`` as a loop's variable that is never assigned?

        It cannot where the declaration is illegal, or changes what another place of that name means.
        """
        return not word_ends(name, self.text) or self._analysis.walk.can_bind(name)

    def rename(self, name: Name, new: str) -> tuple[Edit, ...]:
        """Edits that rename a name at all its places.

        Raises:
            RenameRefused: ``new`` is not an identifier, equals the old name, or would clash, capture or be captured;
                or ``name`` is not a renameable name of this program.
        """
        if not self.language.is_identifier(new):
            raise RenameRefused(f"{new!r} is not an identifier of {self.language.name}")
        if new.startswith("__"):
            raise RenameRefused(f"{new!r} is reserved, or mangled in classes")
        if new == name.text:
            raise RenameRefused(f"{new!r} is the name already")
        analysis = self._analysis
        if name not in analysis.locals and name not in analysis.parameters and name != analysis.function:
            raise RenameRefused(f"{name.text!r} is not a renameable name of this program")
        end = analysis.function_suffix if name.kind == "function" else ""
        # Every key is spelled in the program: a new one that occurs nowhere meets nothing.
        if new in self.text and (
            reason := analysis.table.refusal(name.text + end, analysis.homes[name.spans[0][0]], new + end)
        ):
            raise RenameRefused(reason)
        return tuple(Edit(start, end, new) for start, end in name.spans)

    def insert(self, boundary: Boundary, statement: str) -> Edit:
        """An edit that puts a statement at a boundary.

        ``statement`` is given at indent 0 and may have several lines; its lines are indented to fit (so it must hold no
        multi-line string whose content matters).
        """
        lines = statement.strip("\r\n").splitlines()
        before, between, after = self._frame(boundary)
        if "\n" not in before + after and any("//" in line or line.lstrip().startswith("#") for line in lines):
            # A line comment or a directive must not swallow what follows it on the line.
            before, between, after = before + "\n", "\n", "\n"
        if "\n" not in between:
            lines = [line.strip() for line in lines]
        return Edit(boundary.start, boundary.end, before + between.join(lines) + after)

    def _frame(self, boundary: Boundary) -> tuple[str, str, str]:
        """What is written before the statement, between its lines, and after it."""
        if boundary.layout == "inline":
            return "", " ", " "
        if boundary.layout == "inside":
            return " ", " ", " "
        line = self.data[self.data.rfind(b"\n", 0, boundary.anchor) + 1 : boundary.anchor]
        margin = line[: len(line) - len(line.lstrip(b" \t\f"))].decode()
        newline = "\r\n" if b"\r" in self.data and b"\r\n" in self.data else "\n"
        if boundary.layout == "header":
            margin = newline + margin + ("\t" if "\t" in margin else "    ")
            return margin, margin, margin
        margin = newline + margin
        return ("", margin, margin) if boundary.layout == "line" else (margin, margin, "")

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """The program's tokens in order, without comments. The content of a string is a token of its own."""
        leaves: list[Leaf] = []
        data, whole = self.data, self.language.whole
        reached = 0
        cursor = self.tree.walk()
        while True:
            node = cursor.node
            assert node is not None
            kind = node.type
            is_comment = kind.endswith("comment")
            if is_comment or kind in whole or not cursor.goto_first_child():
                start, end = node.byte_range
                if start > reached:
                    leaves += self._gap(reached, start)
                if not is_comment and start < end and not data[start:end].isspace():
                    leaves.append(Leaf(start, end, data[start:end].decode(), kind))
                reached = max(reached, end)
                while not cursor.goto_next_sibling():
                    if not cursor.goto_parent():
                        leaves += self._gap(reached, len(data))
                        return tuple(leaves)

    def _gap(self, start: int, end: int) -> list[Leaf]:
        """Text that a tree keeps in no node of its own (the inside of a format specification, a skipped byte)."""
        text = self.data[start:end]
        inner = text.strip()
        if not inner:
            return []
        first = start + text.index(inner)
        return [Leaf(first, first + len(inner), inner.decode(), "text")]

    @cached_property
    def comments(self) -> tuple[tuple[int, int], ...]:
        """Byte spans of the comments, ascending."""
        found = tree_sitter.QueryCursor(self.language.comment_query).captures(self.tree.root_node)
        return tuple(sorted(node.byte_range for node in found.get("comment", ())))


class Analysis(NamedTuple):
    """What one walk found; see :class:`Program` for the public parts.

    Attributes:
        walk: holds the blocks, from which boundaries are made when somebody asks.
        homes: first byte of a renameable name → the scope that binds it.
        function_suffix: what a function's key has after its name (``()`` in Java).
    """

    table: Table
    function: Name | None
    parameters: tuple[Name, ...]
    locals: tuple[Name, ...]
    walk: Walk
    homes: Mapping[int, Scope]
    function_suffix: str


class Walk(ABC):
    """One pass over a tree that fills a scope table; each language adds its handlers by node type.

    A node without a handler passes its children on in the same scope. The pass keeps its own stack: real code nests deeper than
    Python's.
    """

    handlers: ClassVar[Mapping[int, Any]]
    """What is done at a node, by its kind; ``None`` for a leaf. The children of kinds not in it are visited."""
    leaves: ClassVar[frozenset[int]]
    """Kinds of nodes that hold no name: not visited."""
    identifier_kind: ClassVar[int]
    function_suffix: ClassVar[str] = ""

    def __init__(self, program: Program, *, nesting_clash: bool = False) -> None:
        self.data = program.data
        self.ascii_text = program.text if program.text.isascii() else None  # there bytes and characters are the same
        self.root = program.tree.root_node
        self.table = Table(nesting_clash=nesting_clash)
        self.stack: list[tuple[Any, Any, Scope]] = []  # (node, its handler, scope), or (nodes, None, scope)
        self.function: Scope | None = None
        self.function_key: tuple[str, Scope] | None = None
        self.function_start = 0
        self.parameters: dict[str, int] = {}
        self.blocks: list[tuple[tree_sitter.Node, list[tree_sitter.Node]]] = []  # of the first function, with children

    def run(self) -> None:
        """Walk the whole tree, in order. (The inner loop of every analysis: hence no calls of :meth:`use`.)"""
        stack, handlers, identifier, text = self.stack, self.handlers, self.identifier_kind, self.ascii_text
        written = self.table.written
        self.push([self.root], self.table.root)
        while stack:
            item, handler, scope = stack.pop()
            if handler is not None:
                handler(self, item, scope)
                continue
            places = written[scope]
            for node in reversed(item):
                kind = node.kind_id
                if kind == identifier and text is not None:
                    start = node.start_byte
                    key = text[start : node.end_byte]
                    if key in places:
                        places[key].append(start)
                    else:
                        places[key] = [start]
                elif kind not in handlers:
                    stack.append((node.named_children, None, scope))
                elif handler := handlers[kind]:
                    stack.append((node, handler, scope))
        self.finish()

    def identifier(self, node: tree_sitter.Node, scope: Scope) -> None:
        """A name is written and used."""
        self.use(node, scope)

    def finish(self) -> None:  # noqa: B027
        """What can be decided only when every node was seen."""

    def later(self, node: tree_sitter.Node | None, scope: Scope) -> None:
        """Visit a node (the last pushed is visited first)."""
        if node is not None:
            self.stack.append(([node], None, scope))

    def push(self, nodes: list[tree_sitter.Node], scope: Scope) -> None:
        """Visit nodes in their order."""
        self.stack.append((nodes, None, scope))

    def text(self, node: tree_sitter.Node) -> str:
        """The source of a node."""
        start, end = node.byte_range
        return self.data[start:end].decode() if self.ascii_text is None else self.ascii_text[start:end]

    def use(self, node: tree_sitter.Node, scope: Scope) -> str:
        """Record a written name; returns it."""
        key = self.text(node)
        self.table.write(key, node.start_byte, scope)
        return key

    def freeze_words(self, node: tree_sitter.Node) -> None:
        """Nothing that is spelled inside this node may be renamed: it cannot be understood."""
        self.table.frozen.update(re.findall(r"[^\W\d]\w*", self.text(node)))

    def open_function(self, scope: Scope) -> bool:
        """Make ``scope`` a function's; returns whether it is the first function."""
        scope.is_function = True
        if self.function is None:
            self.function = scope
            scope.inner = True
            return True
        return False

    @abstractmethod
    def boundary_list(self) -> list[Boundary]:
        """The boundaries of the blocks seen, ascending."""

    def first_boundary(self) -> Boundary | None:
        """The first of :meth:`boundary_list`."""
        return next(iter(self.boundary_list()), None)

    def body_boundary(self) -> Boundary | None:
        """The first function's first boundary, where the tree tells it before any walk; ``None`` where it does not."""
        return None

    @abstractmethod
    def can_bind(self, key: str) -> bool:
        """:meth:`Program.can_bind`, after the walk."""

    def analysis(self) -> Analysis:
        """Turn the table into names."""
        homes: dict[int, Scope] = {}
        parameters: list[tuple[int, Name]] = []
        found: list[tuple[int, Name]] = []
        function: Name | None = None
        table = self.table
        for place, starts in (table.bindings() if table.opaque is None else {}).items():
            key, home = place
            if key in home.fixed:
                continue
            order: int | None = None
            kind: NameKind = "local"
            if place == self.function_key:
                kind = "function"
            elif not home.inner or home.hidden or home.members or key[-1:] == ")":
                continue
            elif home is self.function and (order := self.parameters.get(key)) is not None:
                kind = "parameter"
            text = key.removesuffix("()")
            length = len(text if self.ascii_text is not None else text.encode())
            starts = sorted(starts)
            name = Name(text, tuple([(start, start + length) for start in starts]), kind)
            homes[starts[0]] = home
            if kind == "function":
                function = name
            elif order is None:
                found.append((starts[0], name))
            else:
                parameters.append((order, name))
        return Analysis(
            table,
            function,
            tuple([name for _, name in sorted(parameters)]),
            tuple([name for _, name in sorted(found)]),
            self,
            homes,
            self.function_suffix,
        )

    def begins_line(self, position: int) -> bool:
        """Is there nothing but white space before ``position`` on its line?"""
        line = self.data[self.data.rfind(b"\n", 0, position) + 1 : position]
        return not line or line.isspace()


def word_ends(word: str, text: str) -> list[int]:
    """Where a word ends in a text; parts of longer words do not count (a digit before it may be a number's: ``1if``)."""
    ends = (match.end() for match in re.finditer(rf"{re.escape(word)}(?!\w)", text))
    return [end for end in ends if not re.match(r"[^\W\d]", text[end - len(word) - 1 : end - len(word)])]


def kinds(grammar: tree_sitter.Language, handlers: Mapping[str, Any]) -> dict[int, Any]:
    """Handlers by tree-sitter's numeric node kind (several numbers may share a type).

    Raises:
        ValueError: the grammar knows no such node type.
    """
    table: dict[int, Any] = {}
    names: set[str] = set()
    for number in range(grammar.node_kind_count):
        name = grammar.node_kind_for_id(number)
        if name is not None and name in handlers and grammar.node_kind_is_named(number):
            table[number] = handlers[name]
            names.add(name)
    if missing := set(handlers) - names - {"ERROR"}:
        raise ValueError(f"the grammar has no node types {sorted(missing)}")
    if "ERROR" in handlers:
        table[ERROR_KIND] = handlers["ERROR"]
    return table


def kind_of(grammar: tree_sitter.Language, name: str) -> int:
    """tree-sitter's number for a named node type.

    Raises:
        ValueError: the grammar knows no such node type.
    """
    number = grammar.id_for_node_kind(name, True)
    if number is None:
        raise ValueError(f"the grammar has no node type {name!r}")
    return number


def leaf_kinds(grammar: tree_sitter.Language, names: str) -> frozenset[int]:
    """Numbers of the node types named in a string, separated by white space."""
    return frozenset(kinds(grammar, dict.fromkeys(names.split(), True)))
