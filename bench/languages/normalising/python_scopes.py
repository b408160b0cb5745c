"""What names mean in a Python tree: which are the library's, and which a function would lose with a piece of dead code."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

_REFLECTIVE = frozenset({"locals", "vars", "eval", "exec", "dir", "globals", "_getframe", "currentframe"})
_TRUSTED: Mapping[str, str] = {
    **{name: f"math.{name}" for name in ("sin", "cos", "exp", "sqrt", "cbrt", "fabs")},
    "math": "math",
    "random": "random",
    "Random": "random.Random",
    "abs": "abs",
}
"""What a name is believed to be that a program uses and does not bind."""
_FUNCTIONS: Mapping[str, str] = {
    **{f"math.{name}": name for name in ("sin", "cos", "exp", "sqrt", "cbrt", "fabs")},
    "abs": "abs",
    "random": "random",  # ``random()`` where nothing says what it is can only be the function
    "random.random": "random",
    "random.Random().random": "random",
}
_PURE_MODULES = ("math", "random")
_OWN_SCOPE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Library:
    """Which library function a name stands for, in one program, given all its nodes."""

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        self._meaning: dict[str, set[str]] = {}
        for node in nodes:
            for name, origin in _bindings(node):
                self._meaning.setdefault(name, set()).add(origin)

    def function(self, node: ast.expr) -> str | None:
        """The bare name of the function that an expression stands for, or ``None``."""
        path = self._path(node)
        return None if path is None else _FUNCTIONS.get(path)

    def _path(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            meaning = self._meaning.get(node.id)
            if meaning is None:
                return _TRUSTED.get(node.id)
            return next(iter(meaning)) if len(meaning) == 1 else None
        if isinstance(node, ast.Attribute):
            path = self._path(node.value)
            return None if not path else f"{path}.{node.attr}"
        if isinstance(node, ast.Call) and not node.args and not node.keywords:
            path = self._path(node.func)
            return f"{path}()" if path == "random.Random" else None
        return None

    def imported(self, statement: ast.stmt) -> list[str]:
        """The names that an import from a module without side effects binds; empty for every other statement."""
        if isinstance(statement, ast.ImportFrom):
            known = statement.module in _PURE_MODULES and not statement.level
        else:
            known = isinstance(statement, ast.Import) and all(a.name in _PURE_MODULES for a in statement.names)
        return [name for name, _ in _bindings(statement)] if known else []


def _bindings(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(name, what it is bound to: a path into a library, or nothing that is known) of one node."""
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del()):
            yield node.id, ""
        case ast.arg():
            yield node.arg, ""
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name, ""
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name, ""
        case ast.MatchMapping(rest=str(name)):
            yield name, ""
        case ast.Import():
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield alias.asname or first, alias.name if alias.asname else first
        case ast.ImportFrom():
            for alias in node.names:
                path = "" if node.level else f"{node.module}.{alias.name}"
                yield alias.asname or alias.name, path
        case ast.Global() | ast.Nonlocal():
            for name in node.names:
                yield name, ""


def reads_its_scope(nodes: Iterable[ast.AST]) -> bool:
    """Does the program with these nodes look at its own names (``locals()``, ``eval`` …)?"""
    names = (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "") for node in nodes)
    return not _REFLECTIVE.isdisjoint(names)


def mentioned(tree: ast.AST, name: str) -> int:
    """How often a name is bound or read; every place of a word that is no attribute, keyword or part of a string."""
    reads = sum(isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id == name for n in ast.walk(tree))
    return reads + sum(bound == name for node in ast.walk(tree) for bound, _ in _bindings(node))


def bound_by(nodes: list[ast.AST]) -> set[str]:
    """Names that statements bind in their own scope (what a nested function binds is its own)."""
    found: set[str] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        found.update(name for name, _ in _bindings(node))
        if isinstance(node, ast.comprehension):
            stack += [node.iter, *node.ifs]  # its targets are its own
        elif not isinstance(node, _OWN_SCOPE):
            stack += ast.iter_child_nodes(node)
    return found


def is_unsafe_to_drop(dropped: list[ast.stmt], scope: ast.AST) -> bool:
    """Would a function or class mean something else without statements that never run? (``scope`` is already without them.)

    A name that they alone bind would become global or another function's; with its last ``yield`` a generator becomes a
    function; ``global`` holds for the whole function wherever it stands.
    """
    if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    if any(isinstance(node, _DECIDING) for node in _own_nodes(dropped)):
        return True
    parameters = [] if isinstance(scope, ast.ClassDef) else [scope.args]
    lost = bound_by(list(dropped)) - bound_by([*parameters, *scope.body])
    return any(mentioned(scope, name) for name in lost)


_DECIDING = (ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Global, ast.Nonlocal)


def _own_nodes(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes of statements without those of functions inside them."""
    stack: list[ast.AST] = list(statements)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _OWN_SCOPE):
            stack += ast.iter_child_nodes(node)
