"""Python through its own syntax tree: dead code out, literals folded, and the program printed again by ``ast.unparse``.

A program that this Python does not parse (Python 2, a fragment) is only tidied: blanks and blank lines, outside its tokens.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from bench.languages import parse
from bench.languages.normalising import ranges
from bench.languages.normalising.python_scopes import Library, is_unsafe_to_drop, mentioned, reads_its_scope
from bench.languages.normalising.ranges import Range
from bench.languages.normalising.result import Normalised

LARGEST_INT = 2**63
LONGEST_STRING = 1000
_BLOCKS = ("body", "orelse", "finalbody")


def without_dead_code(language: str, text: str) -> Normalised:
    """The program without what can do nothing; printed again where there was any."""
    tree = _parsed(text)
    if tree is None:
        return Normalised(text)
    sweep = _Sweep(tree)
    sweep.run()
    return Normalised(_written(tree, text), dead=sweep.dropped) if sweep.changed else Normalised(text)


def folded(language: str, text: str) -> Normalised:
    """The program with arithmetic on literals done; printed again where there was any."""
    tree = _parsed(text)
    if tree is None:
        return Normalised(text)
    folding = _Folding()
    try:
        tree = folding.visit(tree)
    except RecursionError:
        return Normalised(text)
    return Normalised(_written(tree, text)) if folding.changed else Normalised(text)


def printed(language: str, text: str) -> Normalised:
    """The program as ``ast.unparse`` writes it."""
    tree = _parsed(text)
    return Normalised(_tidied(text) if tree is None else _written(tree, text, edited=False))


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _written(tree: ast.Module, text: str, *, edited: bool = True) -> str:
    """The tree as source; ``text`` where the source does not read back as the same tree (``ast.unparse`` is not perfect)."""
    try:
        new = ast.unparse(ast.fix_missing_locations(tree) if edited else tree)
        if new + "\n" == text:  # printed before: nothing to compare
            return text
        again = _parsed(new)
        if again is None or ast.dump(again) != ast.dump(tree):
            return text
    except (RecursionError, ValueError):
        return text
    return new + "\n" if new else new


def _tidied(text: str) -> str:
    """One blank between tokens of a line, no blank lines, indents as they are."""
    program = parse("python", text)
    pieces: list[bytes] = []
    reached = 0
    for leaf in program.leaves:
        gap = program.data[reached : leaf.start]
        start = gap.rfind(b"\n") + 1
        if gap.strip():
            pieces.append(gap)  # a comment, a continued line
        elif start:
            pieces.append((b"\n" if pieces else b"") + gap[start:])
        else:
            pieces.append(gap if not pieces else b" " if gap else b"")
        pieces.append(program.data[leaf.start : leaf.end])
        reached = leaf.end
    rest = program.data[reached:]
    return b"".join([*pieces, rest if rest.strip() else b"\n" if pieces else b""]).decode()


# ------------------------------------------------------------------------------------------------------------- dead code


class _Sweep:
    """Takes statements out of a tree, in place.

    Attributes:
        dropped: statements that were taken out.
        changed: whether the tree is another one now.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        nodes = list(ast.walk(tree))
        self.library = Library(nodes)
        self.dropped = 0
        self.changed = False
        self.opaque = reads_its_scope(nodes)

    def run(self) -> None:
        """All statement lists of the program, the inner ones first."""
        for scope, owner, field in reversed(_lists(self.tree)):
            self._conditions(scope, owner, field)
            self._unreachable(scope, owner, field)
            self._idle(scope, owner, field)

    def _conditions(self, scope: ast.AST, owner: ast.AST, field: str) -> None:
        for index in range(len(getattr(owner, field)) - 1, -1, -1):
            statement = getattr(owner, field)[index]
            if not isinstance(statement, ast.If | ast.While):
                continue
            known = ranges.truth(self.condition(statement.test))
            if known is None or (known and isinstance(statement, ast.While)):
                continue
            kept = statement.body if known else statement.orelse
            self._replace(
                scope, owner, field, slice(index, index + 1), kept, statement.orelse if known else statement.body
            )

    def _unreachable(self, scope: ast.AST, owner: ast.AST, field: str) -> None:
        body = getattr(owner, field)
        for index, statement in enumerate(body[:-1]):
            if isinstance(statement, ast.Return | ast.Raise | ast.Break | ast.Continue):
                self._replace(scope, owner, field, slice(index + 1, None), [], body[index + 1 :])
                return

    def _idle(self, scope: ast.AST, owner: ast.AST, field: str) -> None:
        for index in range(len(getattr(owner, field)) - 1, -1, -1):
            body = getattr(owner, field)
            statement = body[index]
            only = isinstance(statement, ast.Pass) and len(body) == 1 and field != "orelse"
            if only or _is_docstring(owner, body, index):
                continue
            if isinstance(statement, ast.Pass) or _is_constant(statement) or self._is_unread(scope, statement):
                self._replace(scope, owner, field, slice(index, index + 1), [], [statement])

    def _is_unread(self, scope: ast.AST, statement: ast.stmt) -> bool:
        """Does a statement only bind a local that nothing else in the program mentions?"""
        if self.opaque or not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            return False
        names = self.library.imported(statement)
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            names = self._stored(statement.targets[0], statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.simple and statement.value is not None:
            names = self._stored(statement.target, statement.value)
        return bool(names) and all(mentioned(self.tree, name) == 1 for name in names)

    def _stored(self, target: ast.expr, value: ast.expr) -> list[str]:
        pure = isinstance(value, ast.Constant) or self.range_of(value) is not None
        return [target.id] if isinstance(target, ast.Name) and pure else []

    def _replace(
        self, scope: ast.AST, owner: ast.AST, field: str, at: slice, kept: list[ast.stmt], dropped: list[ast.stmt]
    ) -> None:
        """Put ``kept`` where a part of a list was, unless that would change what a name of the function means."""
        before = getattr(owner, field)
        after = before[: at.start] + kept + (before[at.stop :] if at.stop is not None else [])
        required = field == "body"
        setattr(owner, field, after or ([ast.Pass()] if required else []))
        if is_unsafe_to_drop(dropped, scope):
            setattr(owner, field, before)
            return
        self.changed = True
        self.dropped += 1

    def condition(self, node: ast.expr) -> Range | None:
        """The same of an expression of which only the truth is asked: ``and`` and ``or`` give one of their operands."""
        if not isinstance(node, ast.BoolOp):
            return self.range_of(node)
        join = ranges.both if isinstance(node.op, ast.And) else ranges.either
        value = self.condition(node.values[0])
        for other in node.values[1:]:
            value = join(value, self.condition(other))
        return value

    def range_of(self, node: ast.expr) -> Range | None:
        """What is known of an expression's value; ``None`` also where evaluating it may have an effect."""
        match node:
            case ast.Constant(value=bool() | int() | float()):
                return ranges.number(node.value)  # type: ignore[arg-type]
            case ast.UnaryOp(op=ast.Not()):
                return ranges.negated(self.condition(node.operand))
            case ast.UnaryOp(op=ast.USub()):
                return ranges.minus(self.range_of(node.operand))
            case ast.UnaryOp(op=ast.UAdd()):
                return self.range_of(node.operand)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right = self.range_of(node.left), self.range_of(node.right)
                return ranges.arithmetic(_ARITHMETIC[type(node.op)], left, right)
            case ast.Compare(ops=[op], comparators=[other]) if type(op) in _COMPARISONS:
                return ranges.compared(_COMPARISONS[type(op)], self.range_of(node.left), self.range_of(other))
            case ast.Call(keywords=[]) if function := self.library.function(node.func):
                return ranges.called(function, [self.range_of(argument) for argument in node.args])
        return None


_ARITHMETIC: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


def _lists(tree: ast.Module) -> list[tuple[ast.AST, ast.AST, str]]:
    """(scope, owner, field) of every list of statements, outer ones first."""
    found: list[tuple[ast.AST, ast.AST, str]] = []
    stack: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while stack:
        scope, node = stack.pop()
        found += [(scope, node, field) for field in _BLOCKS if isinstance(getattr(node, field, None), list)]
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):  # holds no statements
                continue
            opens = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            stack.append((child if opens else scope, child))
    return found


def _is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_docstring(owner: ast.AST, body: list[ast.stmt], index: int) -> bool:
    documented = isinstance(owner, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    statement = body[index]
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return documented and index == 0 and text and isinstance(statement.value.value, str)  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------------------- literals

_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


class _Folding(ast.NodeTransformer):
    """Replaces operations on literals by their value, the inner ones first."""

    changed = False

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self._computed(node, node.op, node.left, node.right)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) > 1:
            return node
        return self._computed(node, node.ops[0], node.left, node.comparators[0])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and _literal(node.operand) is not None:
            return self._new(ast.Constant(not _literal(node.operand)))
        if isinstance(node.op, ast.UAdd) and type(_literal(node.operand)) in (int, float):
            return self._new(node.operand)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        first = _literal(node.values[0])
        if first is None:
            return node
        if bool(first) is isinstance(node.op, ast.Or):
            return self._new(node.values[0])
        return self._new(node.values[1] if len(node.values) == 2 else ast.BoolOp(node.op, node.values[1:]))

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        test = _literal(node.test)
        return node if test is None else self._new(node.body if test else node.orelse)

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        """Patterns are no expressions: ``case 1 + 2j`` must stay as it is."""
        if node.guard is not None:
            node.guard = self.visit(node.guard)
        node.body = [self.visit(statement) for statement in node.body]
        return node

    def _computed(self, node: ast.expr, op: ast.AST, left: ast.expr, right: ast.expr) -> ast.AST:
        a, b = _literal(left), _literal(right)
        if a is None or b is None or type(op) not in _OPERATORS:
            return node
        numbers = not isinstance(a, str) and not isinstance(b, str)
        words = isinstance(a, str) and isinstance(b, str) and isinstance(op, ast.Add | ast.Eq | ast.NotEq)
        shift = isinstance(op, ast.LShift) and not (isinstance(b, int) and 0 <= b < 64)
        if not (numbers or words) or shift:
            return node
        try:
            value = _OPERATORS[type(op)](a, b)
        except (ArithmeticError, ValueError, TypeError):
            return node
        return self._new(_spelled(value)) if _is_short(value) else node

    def _new(self, node: ast.expr) -> ast.expr:
        self.changed = True
        return node


def _literal(node: ast.expr) -> bool | int | float | str | None:
    """The value of a literal, a minus sign included; ``None`` for everything else (and for ``None`` itself)."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        return -value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    return None


def _is_short(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_STRING
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < LARGEST_INT


def _spelled(value: Any) -> ast.expr:
    """A literal as the parser would give it: a minus sign is an operation."""
    if not isinstance(value, bool | str) and (value < 0 or str(value) == "-0.0"):
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)
