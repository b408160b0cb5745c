"""Which Python statements bind one fresh name and do nothing else.

``name = expression``, where the expression is made of

- constants;
- parameters of the function, as they are: no operator is applied to them, since any operator may run their class's code. Identity
  (``is``, ``is not``) runs none;
- tuples, lists and dictionaries of such, dictionaries and sets with constant keys;
- ``not``, ``and``, ``or`` and ``… if … else …`` whose tests are not parameters;
- arithmetic and comparisons of constants, and a few built-in functions of them, which are evaluated here to see that they do not fail.

No attribute, subscript, comprehension, lambda, f-string, ``await``, ``yield`` or walrus.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.languages import Program

ARITHMETIC: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
"""Without powers and shifts, whose results can be of any size."""
COMPARISONS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
SIGNS: Mapping[type[ast.AST], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    f.__name__: f for f in (abs, bool, dict, float, frozenset, int, len, list, set, str, tuple)
}
"""Built-in functions that only compute, and end soon on a constant."""
READS_NAMES = frozenset({"locals", "vars", "dir", "eval", "exec", "_getframe", "currentframe", "f_locals"})
"""With one of these a program may notice a new name."""
UNBINDS = re.compile(r"\bdel\b")


class Impure(Exception):
    """An expression that may do or fail at something, or that this check cannot follow."""


@dataclass(frozen=True)
class Scene:
    """What an expression may mention.

    Attributes:
        readable: parameters that are surely bound at any place of the body.
        taken: every word of the program: a built-in function of such a name may be something else there.
    """

    readable: frozenset[str]
    taken: frozenset[str]


def pure_statement(program: Program, line: str, taken: frozenset[str]) -> str | None:
    """The first statement of a line, if it binds a fresh name to a pure expression."""
    if taken & READS_NAMES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python warns of is not what anybody writes
            body = ast.parse(line).body
            compile(ast.Module(body[:1], []), "draft", "exec")
    except (SyntaxError, ValueError, Warning, RecursionError, MemoryError):
        return None
    if not body or not isinstance(statement := body[0], ast.Assign) or statement.lineno != statement.end_lineno:
        return None
    match statement.targets:
        case [ast.Name(id=name)] if name not in taken and name.isascii() and not name.startswith("__"):
            pass
        case _:
            return None
    try:
        _check(statement.value, Scene(readable_parameters(program), taken))
    except (Impure, ArithmeticError, TypeError, ValueError):
        return None
    return ast.get_source_segment(line, statement)


def readable_parameters(program: Program) -> frozenset[str]:
    """Parameters that nothing in the program can unbind."""
    if UNBINDS.search(program.text):
        return frozenset()
    names = {name.text for name in program.parameters}
    return frozenset(name for name in names if not re.search(rf"\bas\s+{re.escape(name)}\b", program.text))


def _check(node: ast.expr, scene: Scene) -> None:
    """Raise :class:`Impure` unless evaluating the expression does nothing and cannot fail."""
    match node:
        case ast.Name(id=name) if name in scene.readable:
            return
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                _check(part, scene)
        case ast.Dict(keys=keys, values=values):
            for key in keys:
                hash(_fold(key, scene))
            for value in values:
                _check(value, scene)
        case ast.IfExp(test=test, body=yes, orelse=no):
            _test(test, scene)
            _check(yes, scene)
            _check(no, scene)
        case ast.BoolOp(values=parts):
            for part in parts[:-1]:
                _test(part, scene)
            _check(parts[-1], scene)
        case ast.UnaryOp(op=ast.Not()) | ast.Compare(ops=[ast.Is() | ast.IsNot()]):
            _test(node, scene)
        case _:
            _fold(node, scene)


def _test(node: ast.expr, scene: Scene) -> None:
    """Raise :class:`Impure` unless the expression is pure and so is asking whether it is true."""
    match node:
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot()], comparators=[right]):
            _check(left, scene)
            _check(right, scene)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            _test(inner, scene)
        case ast.BoolOp(values=parts):
            for part in parts:
                _test(part, scene)
        case ast.Tuple() | ast.List() | ast.Dict():
            _check(node, scene)
        case _:
            _fold(node, scene)


def _fold(node: ast.expr | None, scene: Scene) -> Any:
    """The value of an expression of constants.

    Raises:
        Impure: it is none.
        ArithmeticError, TypeError, ValueError: evaluating it fails.
    """
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _fold(inner, scene)
        case ast.UnaryOp(op=sign, operand=inner) if type(sign) in SIGNS:
            return SIGNS[type(sign)](_number(_fold(inner, scene)))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in ARITHMETIC:
            first, second = _fold(left, scene), _fold(right, scene)
            if isinstance(operation, ast.Add) and isinstance(first, str | bytes):
                return first + second
            return ARITHMETIC[type(operation)](_number(first), _number(second))
        case ast.Compare(left=left, ops=[comparison], comparators=[right]) if type(comparison) in COMPARISONS:
            return COMPARISONS[type(comparison)](_fold(left, scene), _fold(right, scene))
        case ast.Set(elts=parts):
            return {_fold(part, scene) for part in parts}
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            if name in scene.taken:
                raise Impure
            return FUNCTIONS[name](*(_fold(argument, scene) for argument in arguments))
        case _:
            raise Impure


def _number(value: Any) -> int | float | complex:
    """A number; repeating a text or formatting with one is not followed."""
    if not isinstance(value, int | float | complex):
        raise Impure
    return value
