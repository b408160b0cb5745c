"""What Java and C share: blocks in braces."""

from __future__ import annotations

from tree_sitter import Node

from bench.languages.program import Boundary, Walk
from bench.languages.scopes import Scope


class BraceWalk(Walk):
    """A walk over a language whose blocks are ``{ … }``."""

    not_statements = frozenset(
        {"comment", "line_comment", "block_comment", "case_statement", "explicit_constructor_invocation"}
    )
    """Children of a block before which no statement is put."""

    def skip(self, node: Node, scope: Scope) -> None:
        """Nothing in this node is a name of the program's."""

    def frozen(self, node: Node, scope: Scope) -> None:
        """Names that cannot be followed."""
        self.freeze_words(node)

    def error(self, node: Node, scope: Scope) -> None:
        """What the parser did not understand keeps its names; its parts may still bind and use."""
        self.freeze_words(node)
        self.push(node.named_children, scope)

    def scoped(self, node: Node, scope: Scope) -> None:
        """A node with a scope of its own."""
        self.push(node.named_children, Scope(scope))

    def block(self, node: Node, scope: Scope) -> None:
        """A block of statements."""
        self.body(node, Scope(scope))

    def body(self, node: Node, inner: Scope) -> None:
        """A block whose scope is there already (a function's: its parameters and its locals may not clash)."""
        if self.function is None:
            self.open_function(inner)  # no definition was understood before this block
        children = node.named_children
        if inner.function is self.function:
            self.blocks.append((node, children[:]))
        self.push(children, inner)

    def can_bind(self, key: str) -> bool:
        """The name is a loop's own: it may hide another, but not a parameter or a local where the language forbids that."""
        if key in self.table.frozen:
            return False
        if not self.table.nesting_clash or self.function is None:
            return True
        start = self.first_boundary()
        home = self.table.resolve(key, self.function, start.start if start is not None else 0)
        return home is None or home.members

    def boundary_list(self) -> list[Boundary]:
        """Before every statement of every block of the first function, and inside its empty blocks."""
        found: list[Boundary] = []
        for block, children in self.blocks:
            previous: Node | None = None
            empty = True
            for child in children:
                if child.type.endswith("comment"):
                    continue
                empty = False
                if child.type not in self.not_statements and not child.is_error and self._complete(previous):
                    found.append(self._before(child.start_byte))
                previous = child
            data = self.data[block.start_byte : block.end_byte]
            if empty and data.startswith(b"{") and data.endswith(b"}") and len(data) > 1:
                position = block.start_byte + 1
                found.append(Boundary(position, position, "inside", position))
        found.sort(key=lambda boundary: boundary.start)
        return found

    def _complete(self, previous: Node | None) -> bool:
        """Does the statement before end where the parser says? A macro like ``FOREACH(x)`` governs what follows it."""
        if previous is None or previous.type.startswith("preproc"):
            return True
        return not previous.is_error and self.data[previous.end_byte - 1 : previous.end_byte] in (b";", b"}")

    def _before(self, start: int) -> Boundary:
        return Boundary(start, start, "line" if self.begins_line(start) else "inline", start)
