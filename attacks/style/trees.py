"""Reading a syntax tree: nodes by type, and whether the tree can be trusted at a place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

from tree_sitter import Node, Query, QueryCursor

from bench.languages import Name, Program, get

BLOCKS = frozenset({"compound_statement", "block"})
"""Blocks of statements: C's, and Java's and Python's."""
COMMENTS = frozenset({"comment", "line_comment", "block_comment"})
QUOTING = frozenset({"assert", "offsetof", "container_of", "typeof", "__typeof__"})
"""What looks like a C call and may quote its arguments, or take other things than values."""


@cache
def _query(language: str, types: tuple[str, ...]) -> Query:
    """Finds nodes of those types that the language's grammar has (Java and C name some things differently)."""
    grammar = get(language).grammar
    known = [kind for kind in types if grammar.id_for_node_kind(kind, True) is not None]
    return Query(grammar, "[" + " ".join(f"({kind})" for kind in known) + "] @node")


@lru_cache(maxsize=32)
def of(program: Program, *types: str) -> tuple[Node, ...]:
    """The nodes of some types, in the order of the text, outer before inner. (A query: many times faster than a walk.)"""
    found = QueryCursor(_query(program.language.name, types)).captures(program.tree.root_node)
    return tuple(sorted(found.get("node", ()), key=lambda node: (node.start_byte, -node.end_byte)))


def text(program: Program, node: Node) -> str:
    """The source of a node."""
    return program.data[node.start_byte : node.end_byte].decode()


def field(node: Node, name: str) -> Node | None:
    """A child by field name."""
    return node.child_by_field_name(name)


def parts(node: Node) -> list[Node]:
    """The named children without comments."""
    return [child for child in node.named_children if child.type not in COMMENTS]


def within(node: Node) -> Iterator[Node]:
    """A node and everything below it that has a name, in order."""
    stack = [node]
    while stack:
        here = stack.pop()
        yield here
        stack += reversed(here.named_children)


def holds(node: Node, *types: str) -> bool:
    """Is there a node of these types in a subtree?"""
    return any(inner.type in types for inner in within(node))


def ancestors(node: Node) -> Iterator[Node]:
    """The parents of a node, innermost first."""
    parent = node.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def peeled(node: Node) -> Node:
    """What stands inside parentheses, however many; a node with a comment there is left as it is."""
    while node.type == "parenthesized_expression" and len(node.named_children) == 1:
        node = node.named_children[0]
    return node


def commented(program: Program, start: int, end: int) -> bool:
    """Does a comment lie in ``[start, end)``? What is replaced must not lose one."""
    return any(start <= node.start_byte < end for node in of(program, "comment", "line_comment", "block_comment"))


@lru_cache(maxsize=4)
def bound(program: Program) -> Mapping[int, Name]:
    """Every place (first byte) of the first function's parameters and locals whose binding is known."""
    return {start: name for name in (*program.parameters, *program.locals) for start, _ in name.spans}


def trusted(program: Program, site: Node) -> bool:
    """Is a place understood: no syntax error in its statement or among its neighbours, and it is code like any other?

    Not so are the arguments of a C macro (they may be quoted, or evaluated otherwise), conditions of the preprocessor, and the
    expressions inside a Python f-string (before 3.12 they may not hold the string's own quotes; ``{x = }`` prints them).
    """
    if program.tree.root_node.has_error and not _sound(site):
        return False
    name = program.language.name
    if name == "python":
        return all(parent.type != "interpolation" for parent in ancestors(site))
    return name != "c" or not _in_macro(program, site)


def _sound(site: Node) -> bool:
    here = site
    while here.parent is not None and here.parent.type not in BLOCKS:
        here = here.parent
    if here.has_error or here.parent is None:
        return False
    return not any(child.is_error or child.is_missing for child in here.parent.children)


def _in_macro(program: Program, site: Node) -> bool:
    child = site
    for parent in ancestors(site):
        if parent.type in ("preproc_if", "preproc_elif") and field(parent, "condition") == child:
            return True
        if parent.type in ("offsetof_expression", "gnu_asm_expression", "preproc_def", "preproc_function_def"):
            return True
        if parent.type == "call_expression" and child.type == "argument_list":
            function = field(parent, "function")
            if function is not None and may_be_macro(program, function):
                return True
        child = parent
    return False


def may_be_macro(program: Program, name: Node) -> bool:
    """C: may an identifier stand for any text? So it is taken to be by the naming convention (no lower-case letter).

    A name that the function itself declares is a variable. Macros in lower case are, by the same convention, written so that they
    behave like a function or a variable; those that are known not to (:data:`QUOTING`) are listed.
    """
    if name.type != "identifier":
        return False
    word = text(program, name)
    return word in QUOTING or (not any(c.islower() for c in word) and name.start_byte not in bound(program))
