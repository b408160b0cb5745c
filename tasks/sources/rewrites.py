"""Rewrites of a Python function that provably keep its behaviour, up to the wording of exceptions' messages.

Each rewrite is a function from a :class:`Scope` to the places where it may be applied: a list of changes, each of which, when
called, changes the syntax tree in place. A rewrite offers a place only where its conditions are met *by the syntax alone*;
what cannot be proved from the function (types, aliases, overloaded operators) is not offered. The conditions stand with each.

Functions that look at their own frame or names (``locals``, ``eval``, ``global`` …) are never rewritten: :func:`scope_of`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeGuard

import numpy as np

from bench import languages
from bench.languages import Name, Program, RenameRefused
from bench.samples import Edit, apply_edits
from tasks.sources.defects import RESULTS, all_names
from tasks.sources.parsing import parse, walk

Change = Callable[[], None]
Block = list[ast.stmt]

REFLECTIVE = frozenset({"locals", "globals", "vars", "dir", "eval", "exec", "inspect", "_getframe", "__class__"})
"""Names whose presence may make a function's behaviour depend on its local names or its frame."""

RELIED_ON = frozenset({"iter", "next", "len", "range", "StopIteration"})
"""Builtins that rewrites use; a function that binds one of them is not rewritten."""

UNTOUCHED = frozenset({ast.Global, ast.Nonlocal, ast.NamedExpr, ast.Await, ast.AsyncFor, ast.AsyncWith})
"""Kinds of node whose presence rules out any rewriting."""

COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.TryStar, ast.AsyncFor, ast.AsyncWith, ast.Match)
"""Statements that hold statements of the same function."""

NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass
class Scope:
    """A function under rewriting.

    Attributes:
        module: the tree that holds nothing but the function.
        function: its definition.
        kinds: the kinds of node it held before any rewrite.
        words: every name of its text, and those added since.
    """

    module: ast.Module
    function: ast.FunctionDef
    kinds: frozenset[type[ast.AST]]
    words: set[str] = field(default_factory=set)
    _statements: list[tuple[Block, ast.stmt]] | None = None

    def statements(self) -> list[tuple[Block, ast.stmt]]:
        """Every statement of the function's own code, with the block it stands in; remembered until :meth:`changed`."""
        if self._statements is None:
            self._statements = [(block, statement) for block in blocks(self.function) for statement in block]
        return self._statements

    def changed(self) -> None:
        """The tree was changed."""
        self._statements = None

    def fresh(self, rng: np.random.Generator) -> str:
        """A local name that the function does not hold yet."""
        free = [name for name in RESULTS if name not in self.words]
        name = free[rng.integers(len(free))] if free else f"{RESULTS[0]}_{len(self.words)}"
        self.words.add(name)
        return name


def scope_of(text: str) -> Scope | None:
    """Parse the (one) function of ``text``; ``None`` where it must not be rewritten at all.

    Raises:
        SyntaxError: the text does not parse.
    """
    module = parse(text)
    function = module.body[0]
    words = set(all_names(text))
    if not isinstance(function, ast.FunctionDef) or not REFLECTIVE.isdisjoint(words):
        return None
    nodes = walk(function)
    kinds = frozenset(type(node) for node in nodes)
    if not kinds.isdisjoint(UNTOUCHED) or (not RELIED_ON.isdisjoint(words) and any(map(_shadows, nodes))):
        return None
    return Scope(module, function, kinds, words)


def _shadows(node: ast.AST) -> bool:
    stored = isinstance(node, ast.Name) and node.id in RELIED_ON and not isinstance(node.ctx, ast.Load)
    return stored or (isinstance(node, ast.arg) and node.arg in RELIED_ON)


# ------------------------------------------------------------------------------------------------ reading the tree


def blocks(node: ast.AST) -> list[Block]:
    """Every list of statements of a function's own code; inner functions and classes are not entered."""
    found: list[Block] = []
    _add_blocks(node, found)
    return found


def _add_blocks(node: ast.AST, found: list[Block]) -> None:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if block and isinstance(block, list):
            found.append(block)
            for statement in block:
                # Others hold no statements.
                if isinstance(statement, COMPOUND):
                    _add_blocks(statement, found)
    for name in ("handlers", "cases"):
        for part in getattr(node, name, ()):
            _add_blocks(part, found)


def _holds(nodes: Block | ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> bool:
    roots = nodes if isinstance(nodes, list) else [nodes]
    return any(isinstance(part, kinds) for root in roots for part in walk(root))


def _mentions(node: ast.AST, name: str) -> int:
    return sum(
        1
        for part in walk(node)
        if (isinstance(part, ast.Name) and part.id == name) or (isinstance(part, ast.arg) and part.arg == name)
    )


def _leaves(block: Block) -> bool:
    return isinstance(block[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)


def _is_call_of(node: ast.expr, name: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == name
        and len(node.args) == 1
        and not node.keywords
        and not isinstance(node.args[0], ast.Starred)
    )


# ----------------------------------------------------------------------------------------------- writing the tree


def _name(name: str, store: bool = False) -> ast.Name:
    return ast.Name(id=name, ctx=ast.Store() if store else ast.Load())


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign(targets=[_name(name, store=True)], value=value, lineno=0)


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(func=_name(name), args=list(arguments), keywords=[])


def _put(block: Block, statement: ast.stmt, *new: ast.stmt) -> None:
    """Replace a statement of a block, found by identity (other changes may have moved it)."""
    index = next(i for i, other in enumerate(block) if other is statement)
    block[index : index + 1] = new


class Swap(ast.NodeTransformer):
    """Replaces one expression of a tree, found by identity: ``Swap(old, new).visit(tree)``."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """The replacement for the old expression; everything else as it is."""
        return self.new if node is self.old else self.generic_visit(node)


NEGATED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
"""Only these have an exact opposite; ``!=`` need not be the opposite of ``==``, nor ``>=`` of ``<`` (NaN, overloading)."""


def negate(test: ast.expr) -> ast.expr:
    """An expression whose truth is the opposite; exact where only its truth counts."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and type(test.ops[0]) in NEGATED:
        return ast.Compare(left=test.left, ops=[NEGATED[type(test.ops[0])]()], comparators=test.comparators)
    return ast.UnaryOp(op=ast.Not(), operand=test)


# ----------------------------------------------------------------------------------------------------- the rewrites


def invert_if(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``if c: A else: B`` becomes ``if not c: B else: A``."""

    def change(node: ast.If) -> None:
        node.test, node.body, node.orelse = negate(node.test), node.orelse, node.body

    return [partial(change, s) for _, s in scope.statements() if isinstance(s, ast.If) and s.orelse]


def unnest_else(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``if c: return A`` / ``else: B`` becomes ``if c: return A`` / ``B``, where the first branch always leaves."""

    def change(block: Block, node: ast.If) -> None:
        rest, node.orelse = node.orelse, []
        _put(block, node, node, *rest)

    return [
        partial(change, b, s) for b, s in scope.statements() if isinstance(s, ast.If) and s.orelse and _leaves(s.body)
    ]


def nest_else(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``if c: return A`` / ``B`` becomes ``if c: return A`` / ``else: B``: the inverse of :func:`unnest_else`."""

    def change(block: Block, node: ast.If) -> None:
        index = next(i for i, other in enumerate(block) if other is node)
        node.orelse = block[index + 1 :]
        del block[index + 1 :]

    return [
        partial(change, b, s)
        for b, s in scope.statements()
        if isinstance(s, ast.If) and not s.orelse and _leaves(s.body) and s is not b[-1]
    ]


def iterate_by_hand(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``for x in E`` becomes ``while True`` over ``next(iter(E))``, left on ``StopIteration``.

    The loop has one plain target, no ``else``, and is never left early: the iterator's end is reached in both forms, so that
    a generator's ``finally`` runs at the same moment.
    """

    def change(block: Block, node: ast.For) -> None:
        assert isinstance(node.target, ast.Name)
        iterator = scope.fresh(rng)
        step = ast.Try(
            body=[_assign(node.target.id, _call("next", _name(iterator)))],
            handlers=[ast.ExceptHandler(type=_name("StopIteration"), name=None, body=[ast.Break()])],
            orelse=[],
            finalbody=[],
        )
        loop = ast.While(test=ast.Constant(value=True), body=[step, *node.body], orelse=[])
        _put(block, node, _assign(iterator, _call("iter", node.iter)), loop)

    return [
        partial(change, b, s)
        for b, s in scope.statements()
        if isinstance(s, ast.For)
        and isinstance(s.target, ast.Name)
        and not s.orelse
        and not _holds(s.body, (ast.Break, ast.Return, ast.Yield, ast.YieldFrom))
    ]


def count_by_hand(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``for i in range(n)`` becomes ``i = 0; while i < n: …; i += 1``, for ``n`` a whole number or ``len(…)``.

    ``i`` is read in the loop alone and bound nowhere else; the loop has no ``else``, no ``continue`` and no inner function or
    generator that could see ``i`` later.
    """

    def change(block: Block, node: ast.For) -> None:
        assert isinstance(node.target, ast.Name)
        assert isinstance(node.iter, ast.Call)
        counter, stop = node.target.id, scope.fresh(rng)
        more = ast.Compare(left=_name(counter), ops=[ast.Lt()], comparators=[_name(stop)])
        onward = ast.AugAssign(target=_name(counter, store=True), op=ast.Add(), value=ast.Constant(value=1))
        loop = ast.While(test=more, body=[*node.body, onward], orelse=[])
        _put(block, node, _assign(stop, node.iter.args[0]), _assign(counter, ast.Constant(value=0)), loop)

    return [partial(change, b, s) for b, s in scope.statements() if _counts(s, scope)]


def _counts(node: ast.stmt, scope: Scope) -> TypeGuard[ast.For]:
    if not (isinstance(node, ast.For) and isinstance(node.target, ast.Name) and not node.orelse):
        return False
    if not _is_call_of(node.iter, "range"):
        return False
    assert isinstance(node.iter, ast.Call)
    limit = node.iter.args[0]
    whole = isinstance(limit, ast.Constant) and type(limit.value) is int
    if not (whole or _is_call_of(limit, "len")):
        return False
    name = node.target.id
    inside = sum(_mentions(s, name) for s in node.body)
    bound = any(
        isinstance(part, ast.Name) and part.id == name and not isinstance(part.ctx, ast.Load)
        for s in node.body
        for part in walk(s)
    )
    return (
        not bound
        and _mentions(scope.function, name) == inside + 1
        and not _holds(node.body, (ast.Continue, ast.GeneratorExp, *NESTED))
    )


def spell_out_augmented(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``x += e`` becomes ``x = x + e`` for locals that can only hold numbers or strings: every binding is a literal's.

    Elsewhere ``+=`` may change an object in place that another name sees.
    """
    plain = _plain_locals(scope.function)

    def change(block: Block, node: ast.AugAssign) -> None:
        assert isinstance(node.target, ast.Name)
        value = ast.BinOp(left=_name(node.target.id), op=node.op, right=node.value)
        _put(block, node, _assign(node.target.id, value))

    return [
        partial(change, b, s)
        for b, s in scope.statements()
        if isinstance(s, ast.AugAssign) and isinstance(s.target, ast.Name) and s.target.id in plain
    ]


def _plain_locals(function: ast.FunctionDef) -> set[str]:
    """Names of the function that are bound by literals, and by augmented assignment of literals or lengths, alone."""
    if _holds(list(function.body), NESTED):
        return set()
    bound: dict[str, int] = {}
    plain: dict[str, int] = {}
    for node in walk(function):
        if isinstance(node, ast.arg):
            bound[node.arg] = bound.get(node.arg, 0) + 1
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound[node.name] = bound.get(node.name, 0) + 1
        elif isinstance(node, ast.alias | ast.MatchAs | ast.MatchStar | ast.MatchMapping):
            return set()
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound[node.id] = bound.get(node.id, 0) + 1
        elif isinstance(node, ast.Assign) and _literal(node.value):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    plain[target.id] = plain.get(target.id, 0) + 1
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and _literal_or_length(node.value):
            plain[node.target.id] = plain.get(node.target.id, 0) + 1
    return {name for name, times in bound.items() if plain.get(name) == times}


def _literal_or_length(node: ast.expr) -> bool:
    return _literal(node) or _is_call_of(node, "len")


def _literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float, str)


FLIPPED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
}


def flip_comparison(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``x < 3`` becomes ``3 > x``, where one side is a literal.

    A literal's own comparison declines foreign types, so that Python asks the other side for the mirrored one: the same method
    runs in both forms. Between two unknown objects that is not so.
    """

    def change(node: ast.Compare) -> None:
        node.left, node.comparators, node.ops = (
            node.comparators[0],
            [node.left],
            [FLIPPED[type(node.ops[0])]()],
        )

    return [
        partial(change, n)
        for n in walk(scope.function)
        if isinstance(n, ast.Compare)
        and len(n.ops) == 1
        and type(n.ops[0]) in FLIPPED
        and (_literal(n.left) != _literal(n.comparators[0]))
    ]


def de_morgan(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``a and b`` becomes ``not (not a or not b)``, and back, in tests, where only the truth counts."""

    def change(node: ast.If | ast.While | ast.IfExp, inner: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(inner.op, ast.And) else ast.And()
        flipped = ast.BoolOp(op=other, values=[negate(value) for value in inner.values])
        node.test = flipped if node.test is not inner else ast.UnaryOp(op=ast.Not(), operand=flipped)

    found: list[Change] = []
    for node in walk(scope.function):
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            test = node.test
            inner = test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else test
            if isinstance(inner, ast.BoolOp):
                found.append(partial(change, node, inner))
    return found


def name_result(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``return E`` becomes ``x = E`` / ``return x`` with a new name."""

    def change(block: Block, node: ast.Return) -> None:
        assert node.value is not None
        name = scope.fresh(rng)
        _put(block, node, _assign(name, node.value), ast.Return(value=_name(name)))

    return [
        partial(change, b, s)
        for b, s in scope.statements()
        if isinstance(s, ast.Return) and s.value is not None and not isinstance(s.value, ast.Name | ast.Constant)
    ]


def branch_from_ternary(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``x = A if c else B`` (or ``return``) becomes an ``if`` with two assignments (or returns)."""

    def change(block: Block, node: ast.Assign | ast.Return) -> None:
        choice = node.value
        assert isinstance(choice, ast.IfExp)
        sides: list[ast.stmt] = []
        for value in (choice.body, choice.orelse):
            if isinstance(node, ast.Return):
                sides.append(ast.Return(value=value))
            else:
                assert isinstance(node.targets[0], ast.Name)
                sides.append(_assign(node.targets[0].id, value))
        _put(block, node, ast.If(test=choice.test, body=[sides[0]], orelse=[sides[1]]))

    return [partial(change, b, s) for b, s in scope.statements() if _gives(s) and _is_ternary(s.value)]


def ternary_from_branch(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """An ``if`` whose two branches assign one name, or return, becomes a conditional expression."""

    def change(block: Block, node: ast.If) -> None:
        first, second = node.body[0], node.orelse[0]
        assert isinstance(first, ast.Return | ast.Assign)
        assert isinstance(second, ast.Return | ast.Assign)
        assert first.value is not None
        assert second.value is not None
        choice = ast.IfExp(test=node.test, body=first.value, orelse=second.value)
        name = _single_name(first)
        _put(block, node, ast.Return(value=choice) if name is None else _assign(name, choice))

    return [partial(change, b, s) for b, s in scope.statements() if _is_choice(s)]


def _is_choice(node: ast.stmt) -> TypeGuard[ast.If]:
    if not (isinstance(node, ast.If) and len(node.body) == 1 and len(node.orelse) == 1):
        return False
    first, second = node.body[0], node.orelse[0]
    if isinstance(first, ast.Return) and isinstance(second, ast.Return):
        return first.value is not None and second.value is not None
    return _single_name(first) is not None and _single_name(first) == _single_name(second)


def _is_ternary(value: ast.expr | None) -> bool:
    return isinstance(value, ast.IfExp)


def _gives(node: ast.stmt) -> TypeGuard[ast.Assign | ast.Return]:
    """Does it return, or assign to one plain name?"""
    return isinstance(node, ast.Return) or _single_name(node) is not None


def _single_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def loop_from_comprehension(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``x = [e for t in E if c]`` (or ``return``) becomes a loop that appends to a new list.

    The comprehension has one ``for``, its targets are named nowhere else in the function (they would outlive it), and it
    holds no inner function, generator, or comprehension.
    """

    def change(block: Block, node: ast.Assign | ast.Return) -> None:
        made = node.value
        assert isinstance(made, ast.ListComp)
        generator, name = made.generators[0], scope.fresh(rng)
        append = ast.Attribute(value=_name(name), attr="append", ctx=ast.Load())
        body: Block = [ast.Expr(value=ast.Call(func=append, args=[made.elt], keywords=[]))]
        for test in reversed(generator.ifs):
            body = [ast.If(test=test, body=body, orelse=[])]
        loop = ast.For(target=generator.target, iter=generator.iter, body=body, orelse=[], lineno=0)
        node.value = _name(name)
        _put(block, node, _assign(name, ast.List(elts=[], ctx=ast.Load())), loop, node)

    return [partial(change, b, s) for b, s in scope.statements() if _gives(s) and _unrolls(s.value, scope)]


def _unrolls(made: object, scope: Scope) -> bool:
    if not (isinstance(made, ast.ListComp) and len(made.generators) == 1 and not made.generators[0].is_async):
        return False
    inner = (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.Yield, ast.YieldFrom)
    parts = [made.elt, made.generators[0].iter, *made.generators[0].ifs]
    if any(_holds(part, inner) or _mentions(part, "super") for part in parts):
        return False
    names = _target_names(made.generators[0].target)
    return names is not None and all(
        _mentions(made, name) == _mentions(scope.function, name) and not _mentions(made.generators[0].iter, name)
        for name in names
    )


def _target_names(target: ast.expr) -> list[str] | None:
    if isinstance(target, ast.Name):
        return [target.id]
    if isinstance(target, ast.Tuple) and all(isinstance(part, ast.Name) for part in target.elts):
        return [part.id for part in target.elts if isinstance(part, ast.Name)]
    return None


def format_from_fstring(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``f"{x}"`` becomes ``"{}".format(x)``.

    Both format each value with ``format``; but an f-string formats one value before it evaluates the next. So there is one
    value, or all are plain names; and format specifications are literal.
    """

    def change(node: ast.JoinedStr) -> None:
        template, arguments = "", []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                template += "{" + _conversion(part) + _specification(part) + "}"
                arguments.append(part.value)
            else:
                assert isinstance(part, ast.Constant)
                template += str(part.value).replace("{", "{{").replace("}", "}}")
        method = ast.Attribute(value=ast.Constant(value=template), attr="format", ctx=ast.Load())
        Swap(node, ast.Call(func=method, args=arguments, keywords=[])).visit(scope.module)

    specifications = {
        id(n.format_spec) for n in walk(scope.function) if isinstance(n, ast.FormattedValue) and n.format_spec
    }
    return [
        partial(change, n)
        for n in walk(scope.function)
        if isinstance(n, ast.JoinedStr) and id(n) not in specifications and _formats(n)
    ]


def _formats(node: ast.JoinedStr) -> bool:
    values = [part for part in node.values if isinstance(part, ast.FormattedValue)]
    plain = len(values) == 1 or all(isinstance(part.value, ast.Name) for part in values)
    literal = all(
        part.format_spec is None
        or (
            isinstance(part.format_spec, ast.JoinedStr)
            and all(isinstance(s, ast.Constant) and not set("{}") & set(str(s.value)) for s in part.format_spec.values)
        )
        for part in values
    )
    return bool(values) and plain and literal


def _conversion(part: ast.FormattedValue) -> str:
    return "" if part.conversion < 0 else f"!{chr(part.conversion)}"


def _specification(part: ast.FormattedValue) -> str:
    if part.format_spec is None:
        return ""
    assert isinstance(part.format_spec, ast.JoinedStr)
    return ":" + "".join(str(s.value) for s in part.format_spec.values if isinstance(s, ast.Constant))


def guard_while(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``while c: A`` becomes ``while True`` with ``if not c: break`` first; the loop has no ``else``."""

    def change(node: ast.While) -> None:
        leave = ast.If(test=negate(node.test), body=[ast.Break()], orelse=[])
        node.test, node.body = ast.Constant(value=True), [leave, *node.body]

    return [
        partial(change, s)
        for _, s in scope.statements()
        if isinstance(s, ast.While) and not s.orelse and not isinstance(s.test, ast.Constant)
    ]


def split_and(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``if a and b: A`` becomes ``if a:`` / ``if b: A``, where there is no ``else``."""

    def change(node: ast.If) -> None:
        assert isinstance(node.test, ast.BoolOp)
        first, *others = node.test.values
        rest = others[0] if len(others) == 1 else ast.BoolOp(op=ast.And(), values=others)
        node.test, node.body = first, [ast.If(test=rest, body=node.body, orelse=[])]

    return [
        partial(change, s)
        for _, s in scope.statements()
        if isinstance(s, ast.If) and not s.orelse and isinstance(s.test, ast.BoolOp) and isinstance(s.test.op, ast.And)
    ]


def merge_ifs(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``if a:`` / ``if b: A`` becomes ``if a and b: A``, where neither has an ``else``."""

    def change(node: ast.If) -> None:
        inner = node.body[0]
        assert isinstance(inner, ast.If)
        node.test, node.body = ast.BoolOp(op=ast.And(), values=[node.test, inner.test]), inner.body

    return [
        partial(change, s)
        for _, s in scope.statements()
        if isinstance(s, ast.If)
        and not s.orelse
        and len(s.body) == 1
        and isinstance(s.body[0], ast.If)
        and not s.body[0].orelse
    ]


def split_chain(scope: Scope, rng: np.random.Generator) -> list[Change]:
    """``a < b < c`` becomes ``a < b and b < c``, where ``b`` is a name or a literal."""

    def change(node: ast.Compare) -> None:
        middle = node.comparators[0]
        left = ast.Compare(left=node.left, ops=[node.ops[0]], comparators=[middle])
        right = ast.Compare(left=middle, ops=[node.ops[1]], comparators=[node.comparators[1]])
        Swap(node, ast.BoolOp(op=ast.And(), values=[left, right])).visit(scope.module)

    return [
        partial(change, n)
        for n in walk(scope.function)
        if isinstance(n, ast.Compare) and len(n.ops) == 2 and isinstance(n.comparators[0], ast.Name | ast.Constant)
    ]


REWRITES: Mapping[str, tuple[type[ast.AST], Callable[[Scope, np.random.Generator], list[Change]]]] = {
    "invert_if": (ast.If, invert_if),
    "unnest_else": (ast.If, unnest_else),
    "nest_else": (ast.If, nest_else),
    "iterate_by_hand": (ast.For, iterate_by_hand),
    "count_by_hand": (ast.For, count_by_hand),
    "spell_out_augmented": (ast.AugAssign, spell_out_augmented),
    "flip_comparison": (ast.Compare, flip_comparison),
    "de_morgan": (ast.BoolOp, de_morgan),
    "name_result": (ast.Return, name_result),
    "branch_from_ternary": (ast.IfExp, branch_from_ternary),
    "ternary_from_branch": (ast.If, ternary_from_branch),
    "loop_from_comprehension": (ast.ListComp, loop_from_comprehension),
    "format_from_fstring": (ast.JoinedStr, format_from_fstring),
    "guard_while": (ast.While, guard_while),
    "split_and": (ast.BoolOp, split_and),
    "merge_ifs": (ast.If, merge_ifs),
    "split_chain": (ast.Compare, split_chain),
}
"""Rewrites of the syntax tree by name, each with a kind of node without which it has no place. Renaming, on the printed text, comes
on top: :func:`rename`."""

EVERYWHERE = frozenset({"invert_if", "flip_comparison", "name_result"})
"""Rewrites that are applied at all their places at once: no place disturbs another."""

INVERSES = (
    {"unnest_else", "nest_else"},
    {"branch_from_ternary", "ternary_from_branch"},
    {"split_and", "merge_ifs"},
)
"""Rewrites that would undo each other."""

WORD_POOL = tuple(
    """
    alpha beta gamma delta first second third count index total item value entry node key pair group left right
    upper lower head tail size width step level text line name path mask flag state source target offset length
    bound cache
    """.split()  # noqa: SIM905
)


VERBS = tuple(
    """
    apply build call check collect compute convert create fetch find handle load make parse prepare run select
    update
    """.split()  # noqa: SIM905
)
NOUNS = tuple(
    """
    batch block chunk element field group item list node part range record result row table task unit value
    """.split()  # noqa: SIM905
)


def rename(text: str, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """Rename the function, its parameters, and every local variable that :mod:`bench.languages` can rename safely.

    Two programs with one name, or with the same parameters, would be clones for anyone who reads the first line; so these
    change too, with the function's calls to itself. Callers elsewhere, who may name a parameter, are no part of a sample.
    ``self`` and ``cls`` keep their names.

    Returns:
        the text and which of ``rename_function``, ``rename_parameters`` and ``rename_locals`` were done.
    """
    program = languages.parse("python", text)
    taken = set(all_names(text))
    done: list[str] = []
    edits: list[Edit] = []
    name = f"{VERBS[rng.integers(len(VERBS))]}_{NOUNS[rng.integers(len(NOUNS))]}"
    if program.function_name is not None and name not in taken:
        edits += _renamed(program, program.function_name, name)
        done += ["rename_function"] * bool(edits)
    free = [word for word in WORD_POOL if word not in taken]
    order = [free[i] for i in rng.permutation(len(free)).tolist()]
    parameters = [name for name in program.parameters if name.text not in ("self", "cls")]
    for kind, olds in (("rename_parameters", parameters), ("rename_locals", program.locals)):
        new = [edit for old in olds if order for edit in _renamed(program, old, order.pop())]
        done += [kind] * bool(new)
        edits += new
    return apply_edits(text, edits), tuple(done)


def _renamed(program: Program, old: Name, new: str) -> tuple[Edit, ...]:
    try:
        return program.rename(old, new)
    except RenameRefused:
        return ()


def plain_print(text: str) -> str:
    """A function as this module's printer writes it, without any change.

    Raises:
        SyntaxError: the text does not parse.
        ValueError: it cannot be printed.
    """
    return ast.unparse(parse(text)) + "\n"


def rewrite(
    text: str, rng: np.random.Generator, most: int = 8, printed: bool = False
) -> tuple[str, str, tuple[str, ...]] | None:
    """Print a function plainly, and print a behaviour-preserving rewrite of it.

    Both texts come from one printer (:func:`ast.unparse`), so that layout and comments tell nothing.

    Args:
        text: one function.
        rng: draws which rewrites are composed, their order and places.
        most: at most so many kinds of rewrite of the tree; renaming comes on top.
        printed: ``text`` is a plain print already, and its own.

    Returns:
        the plain print, the rewrite and the names of the rewrites in their order; ``None`` where the function must not be
        rewritten or cannot be printed.
    """
    scope = scope_of(text)
    if scope is None:
        return None
    try:
        before = text if printed else ast.unparse(scope.module) + "\n"
        done = _change(scope, rng, most)
        after = ast.unparse(scope.module) + "\n"
    except ValueError:  # Python 3.11 cannot print some nested f-strings
        return None
    renamed, kinds = rename(after, rng)
    return before, renamed, (*done, *kinds)


def _change(scope: Scope, rng: np.random.Generator, most: int) -> list[str]:
    """Apply up to ``most`` rewrites, at one place or (:data:`EVERYWHERE`) at all, in a random order; returns their names."""
    done: list[str] = []
    names = list(REWRITES)
    for position in rng.permutation(len(names)).tolist():
        name = names[position]
        kind, places = REWRITES[name]
        undoes = any(name in pair and not pair.isdisjoint(done) for pair in INVERSES)
        if kind not in scope.kinds or undoes or len(done) == most:
            continue
        changes = places(scope, rng)
        if changes:
            for change in changes if name in EVERYWHERE else [changes[rng.integers(len(changes))]]:
                change()
            scope.changed()
            done.append(name)
    return done
