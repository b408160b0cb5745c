"""Small changes to a Python function that change what it does: one slip of the keyboard each, on the syntax tree.

The counterpart of :mod:`tasks.sources.rewrites`. A mutation offers its places from a :class:`~tasks.sources.rewrites.Scope`; a
place has a change, and the statement in which it lies, so that two mutations never meet in one statement and cancel out.

Places whose change could not be seen are not offered: messages of exceptions, annotations, arguments of symmetric functions,
names that are mere aliases. Whether *every* mutant differs for some input cannot be decided; mutants of a text are checked
to be none of its rewrites (:func:`is_rewrite`), and the operators are tested on functions that are run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tasks.sources.parsing import parse, walk
from tasks.sources.rewrites import REWRITES, Block, Change, Scope, Swap, blocks, negate, scope_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mutation may be applied.

    Attributes:
        statement: the innermost statement that it changes.
        change: applies it, in place.
    """

    statement: ast.stmt
    change: Change


@dataclass(frozen=True)
class Reading:
    """A function as it was before any mutation.

    Attributes:
        scope: the function.
        statements: every statement with its block and the names that are bound before it.
        expressions: every node of the function's expressions with the statement it stands in.
    """

    scope: Scope
    statements: Sequence[tuple[Block, ast.stmt, tuple[str, ...]]]
    expressions: Sequence[tuple[ast.stmt, ast.AST]]

    @classmethod
    def of(cls, scope: Scope) -> Reading:
        """Read a function once for all mutations."""
        found = list(_bound(scope.function.body, tuple(_parameters(scope.function))))
        nodes = [(s, node) for _, s, _ in found for root in _own_expressions(s) for node in walk(root)]
        return cls(scope, found, nodes)


Mutation = Callable[[Reading], list[Place]]

COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
"""What a comparison becomes: the other side of its boundary, or its opposite."""

ARITHMETIC: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}

ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift, ast.MatMult)
"""Operators whose operands may not change places."""

SYMMETRIC = frozenset(
    """
    max min gcd lcm hypot isclose allclose array_equal equal add multiply maximum minimum logical_and logical_or
    logical_xor union intersection Eq Ne Add Mul And Or
    """.split()  # noqa: SIM905
)
"""Functions whose positional arguments may change places."""

RECEIVERS = frozenset({"self", "cls", "_"})

INNER_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


# ------------------------------------------------------------------------------------------------ reading the tree


def _own_expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """The outermost expressions of a statement that matter for what it does; none of the statements within it."""
    if isinstance(statement, ast.Raise):
        return
    for name, value in ast.iter_fields(statement):
        if name in ("annotation", "msg", "decorator_list", "returns"):
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.expr):
                yield part
            elif isinstance(part, ast.withitem):
                yield part.context_expr


def _text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _parameters(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _plain_targets(statement: ast.stmt) -> list[str]:
    """Plain names that an assignment binds."""
    if not isinstance(statement, ast.Assign):
        return []
    parts = [p for t in statement.targets for p in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [part.id for part in parts if isinstance(part, ast.Name)]


def _bound(block: Block, known: tuple[str, ...]) -> Iterator[tuple[Block, ast.stmt, tuple[str, ...]]]:
    """Every statement with its block and the names that are bound before it: parameters, and assignments on the way to it."""
    for statement in block:
        yield block, statement, known
        target = statement.target if isinstance(statement, ast.For) else None
        within = (*known, target.id) if isinstance(target, ast.Name) and target.id not in known else known
        for inner in _direct_blocks(statement):
            yield from _bound(inner, within)
        known = (*known, *(name for name in dict.fromkeys(_plain_targets(statement)) if name not in known))


def _direct_blocks(statement: ast.stmt) -> Iterator[Block]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for name in ("body", "orelse", "finalbody"):
        block = getattr(statement, name, None)
        if isinstance(block, list) and block:
            yield block
    for part in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield part.body


# ---------------------------------------------------------------------------------------------------- the mutations


def _set(items: list[ast.cmpop], index: int, kind: type[ast.cmpop]) -> None:
    items[index] = kind()


def change_comparison(read: Reading) -> list[Place]:
    """``a < b`` becomes ``a <= b`` or ``a >= b``; ``==``, ``is`` and ``in`` become their opposite."""
    return [
        Place(statement, partial(_set, node.ops, index, kind))
        for statement, node in read.expressions
        if isinstance(node, ast.Compare)
        for index, op in enumerate(node.ops)
        for kind in COMPARISONS[type(op)]
    ]


def negate_condition(read: Reading) -> list[Place]:
    """``if c`` becomes ``if not c``, in a statement or a conditional expression whose branches differ."""

    def change(node: ast.If | ast.IfExp) -> None:
        node.test = negate(node.test)

    found = []
    for _, statement, _ in read.statements:
        if isinstance(statement, ast.If) and not _equal(statement.body, statement.orelse):
            found.append(Place(statement, partial(change, statement)))
    for statement, node in read.expressions:
        if isinstance(node, ast.IfExp) and not _equal(node.body, node.orelse):
            found.append(Place(statement, partial(change, node)))
    return found


def drop_condition(read: Reading) -> list[Place]:
    """``a and b`` becomes ``a`` or ``b``; a comprehension loses an ``if``."""

    def shorten(node: ast.BoolOp, index: int) -> None:
        rest = [value for i, value in enumerate(node.values) if i != index]
        if len(rest) == 1:
            Swap(node, rest[0]).visit(read.scope.module)
        else:
            node.values = rest

    def drop(node: ast.comprehension) -> None:
        del node.ifs[0]

    found = []
    for statement, node in read.expressions:
        if isinstance(node, ast.BoolOp):
            found += [Place(statement, partial(shorten, node, index)) for index in range(len(node.values))]
        elif isinstance(node, ast.comprehension) and node.ifs:
            found.append(Place(statement, partial(drop, node)))
    return found


def change_connective(read: Reading) -> list[Place]:
    """``and`` becomes ``or``, and back."""

    def change(node: ast.BoolOp) -> None:
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()

    return [Place(s, partial(change, n)) for s, n in read.expressions if isinstance(n, ast.BoolOp)]


def change_arithmetic(read: Reading) -> list[Place]:
    """``+`` becomes ``-`` and so on, also in ``+=``; not where an operand is a text."""

    def change(node: ast.BinOp | ast.AugAssign) -> None:
        node.op = ARITHMETIC[type(node.op)]()

    found = [
        Place(s, partial(change, n))
        for s, n in read.expressions
        if isinstance(n, ast.BinOp) and type(n.op) in ARITHMETIC and not (_text(n.left) or _text(n.right))
    ]
    found += [
        Place(s, partial(change, s))
        for _, s, _ in read.statements
        if isinstance(s, ast.AugAssign) and type(s.op) in ARITHMETIC and not _text(s.value)
    ]
    return found


def swap_operands(read: Reading) -> list[Place]:
    """``a - b`` becomes ``b - a``; ``+`` counts where an operand is a text, ``%`` where none is."""

    def change(node: ast.BinOp) -> None:
        node.left, node.right = node.right, node.left

    return [Place(s, partial(change, n)) for s, n in read.expressions if isinstance(n, ast.BinOp) and _ordered(n)]


def _ordered(node: ast.BinOp) -> bool:
    texts = _text(node.left) or _text(node.right)
    fits = texts if isinstance(node.op, ast.Add) else isinstance(node.op, ORDERED) and not texts
    return fits and not _equal(node.left, node.right)


def swap_arguments(read: Reading) -> list[Place]:
    """``f(a, b)`` becomes ``f(b, a)``, and ``f(x=a, y=b)`` becomes ``f(x=b, y=a)``."""

    def positional(node: ast.Call, index: int) -> None:
        node.args[index : index + 2] = reversed(node.args[index : index + 2])

    def named(node: ast.Call, index: int) -> None:
        one, other = node.keywords[index : index + 2]
        one.value, other.value = other.value, one.value

    found = []
    for statement, node in read.expressions:
        if not isinstance(node, ast.Call) or _called(node) in SYMMETRIC:
            continue
        for index, pair in enumerate(zip(node.args, node.args[1:], strict=False)):
            if not any(isinstance(part, ast.Starred) for part in pair) and not _equal(*pair):
                found.append(Place(statement, partial(positional, node, index)))
        for index, (one, other) in enumerate(zip(node.keywords, node.keywords[1:], strict=False)):
            if one.arg and other.arg and not _equal(one.value, other.value):
                found.append(Place(statement, partial(named, node, index)))
    return found


def _called(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else None


def change_constant(read: Reading) -> list[Place]:
    """A whole number becomes one more or one less (never negative), ``True`` becomes ``False`` and back."""

    def change(node: ast.Constant, value: int) -> None:
        node.value = value

    found = []
    for statement, node in read.expressions:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            value = node.value
            others = (not value,) if isinstance(value, bool) else (value + 1, value - 1)
            found += [Place(statement, partial(change, node, other)) for other in others if other >= 0]
    return found


def replace_name(read: Reading) -> list[Place]:
    """A local that is read becomes another one that is bound there, and that is not its alias."""

    def change(node: ast.Name, name: str) -> None:
        node.id = name

    aliases = {
        frozenset((target.id, s.value.id))
        for _, s, _ in read.statements
        if isinstance(s, ast.Assign) and isinstance(s.value, ast.Name)
        for target in s.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for _, statement, known in read.statements:
        names = [name for name in known if name not in RECEIVERS]
        for root in _own_expressions(statement):
            found += [
                Place(statement, partial(change, node, other))
                for node in _read_names(root)
                if node.id in names
                for other in names
                if other != node.id and frozenset((other, node.id)) not in aliases
            ]
    return found


def _read_names(node: ast.AST) -> Iterator[ast.Name]:
    """Names that are read, not called, outside inner scopes."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node
    for child in ast.iter_child_nodes(node):
        called = isinstance(node, ast.Call) and child is node.func and isinstance(child, ast.Name)
        if not called and not isinstance(child, INNER_SCOPES):
            yield from _read_names(child)


def remove_statement(read: Reading) -> list[Place]:
    """A call, an augmented assignment, an assignment to an attribute or item, or to a name that has a value already, goes."""

    def change(block: Block, statement: ast.stmt) -> None:
        del block[next(i for i, other in enumerate(block) if other is statement)]

    return [
        Place(statement, partial(change, block, statement))
        for block, statement, known in read.statements
        if len(block) > 1 and _has_effect(statement, known)
    ]


def _has_effect(statement: ast.stmt, known: Sequence[str]) -> bool:
    if isinstance(statement, ast.Assign):
        stores = isinstance(statement.targets[0], ast.Attribute | ast.Subscript)
        names = _plain_targets(statement)
        return stores or (bool(names) and set(names) <= set(known))
    return isinstance(statement, ast.AugAssign) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    )


MUTATIONS: Mapping[str, Mutation] = {
    "change_comparison": change_comparison,
    "negate_condition": negate_condition,
    "drop_condition": drop_condition,
    "change_connective": change_connective,
    "change_arithmetic": change_arithmetic,
    "swap_operands": swap_operands,
    "swap_arguments": swap_arguments,
    "change_constant": change_constant,
    "replace_name": replace_name,
    "remove_statement": remove_statement,
}
"""Mutations by name."""


# ------------------------------------------------------------------------------------------------------- composition


def is_rewrite(text: str, other: ast.Module) -> bool:
    """Is ``other`` the tree of ``text``, unchanged or after one behaviour-preserving rewrite?"""
    scope = scope_of(text)
    return scope is None or _is_rewrite(text, scope, other)


def _is_rewrite(text: str, scope: Scope, other: ast.Module) -> bool:
    if _equal(scope.module, other):
        return True
    rng = np.random.default_rng(0)  # draws names of new locals only; no mutation makes a name
    for kind, places in REWRITES.values():
        if kind not in scope.kinds:
            continue
        for index in range(len(places(scope, rng))):
            fresh = _again(text, scope)
            places(fresh, rng)[index]()
            if _equal(fresh.module, other):
                return True
    return False


def _again(text: str, scope: Scope) -> Scope:
    module = parse(text)
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)
    return Scope(module, function, scope.kinds, set(scope.words))


def _equal(one: object, other: object) -> bool:
    """Are two trees the same? Told at the first difference, unlike by comparing dumps."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if isinstance(one, ast.AST):
        for field in one._fields:  # noqa: SIM110 (a generator for each node takes as long as the rest)
            if not _equal(getattr(one, field, None), getattr(other, field, None)):
                return False
        return True
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def mutate(text: str, rng: np.random.Generator, most: int = 2) -> tuple[str, tuple[str, ...]] | None:
    """Print a function plainly after one to ``most`` mutations of different kinds, in different statements.

    Args:
        text: one function.
        rng: draws how many, which and where.
        most: at most so many.

    Returns:
        the mutant and the names of its mutations; ``None`` where the function must not be touched, offers no place, cannot be
        printed, or the mutant is a rewrite.

    Raises:
        SyntaxError: the text does not parse.
    """
    scope = scope_of(text)
    if scope is None:
        return None
    read = Reading.of(scope)
    wanted = int(rng.integers(1, most + 1))
    done: list[str] = []
    touched: list[ast.stmt] = []
    names = list(MUTATIONS)
    for position in rng.permutation(len(names)).tolist():
        if len(done) == wanted:
            break
        places = MUTATIONS[names[position]](read)
        if touched:
            statements = {id(place.statement): place.statement for place in places}  # fewer than places
            apart = {number for number, statement in statements.items() if not _meets(statement, touched)}
            places = [place for place in places if id(place.statement) in apart]
        if places:
            place = places[rng.integers(len(places))]
            touched.append(place.statement)
            place.change()
            done.append(names[position])
    try:
        if not done or _is_rewrite(text, _again(text, scope), scope.module):
            return None
        return ast.unparse(scope.module) + "\n", tuple(done)
    except ValueError:  # Python 3.11 cannot print some nested f-strings
        return None


def _meets(statement: ast.stmt, touched: Sequence[ast.stmt]) -> bool:
    """Is it one of the touched statements, or does it stand in one or hold one?"""
    return any(
        inner is outer
        for one in touched
        for outer, holder in ((one, statement), (statement, one))
        for inner in [holder, *(s for block in blocks(holder) for s in block)]
    )
