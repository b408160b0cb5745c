"""Defect detection on installed Python: security-relevant statements planted in real functions.

Every host function gets two or three statements of :mod:`tasks.sources.weaknesses` at statement boundaries, with operands
from its own scope. The label is 1 when *at least one* of them is in its weak form. Since each surface's two forms have one
shape, and the number of statements does not depend on the label, neither length nor count gives the label away.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.context import Context
from bench.samples import Sample, Splits, digest_of
from tasks.sources import installed
from tasks.sources.dealing import deal, fits
from tasks.sources.installed import Function
from tasks.sources.parsing import compiles, parse, walk
from tasks.sources.weaknesses import WEAKNESSES, Weakness

RESULTS = tuple(
    """
    result data value item info entry record current output answer handle status content response payload token
    field state extra part chunk buffer local found
    """.split()  # noqa: SIM905
)
"""New local names; one that the host uses already is passed over."""

WORDS = tuple(
    """
    users orders config report session account invoice admin backup message profile region archive customer
    history device product ticket network service
    """.split()  # noqa: SIM905
)
"""Words inside string literals."""

LITERALS = ("'main'", "'name'", "'input'", "b'data'", "16", "'utf-8'")
"""What stands for a second operand where the scope offers none."""

RECEIVERS = frozenset({"self", "cls", "_"})


@dataclass(frozen=True, slots=True)
class Place:
    """A statement boundary: a statement may be inserted before a line.

    Attributes:
        line: index of the line that follows, from 0.
        indent: that line's indentation.
        names: parameters, and locals that are certainly assigned here.
    """

    line: int
    indent: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement to plant: its weakness, form and text."""

    cwe: str
    weak: bool
    held_out: bool
    text: str


def places(text: str) -> list[Place]:
    """Statement boundaries of the (one) function of ``text``, body and nested blocks, in source order.

    Inner functions and classes are not entered: their scope is another.
    """
    definition = parse(text).body[0]
    assert isinstance(definition, ast.FunctionDef)
    arguments = definition.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names = tuple(a.arg for a in given if a.arg not in RECEIVERS)
    unbound = _unbound(definition, text)
    found = _block(definition.body, names, text.split("\n"))
    return [replace(place, names=tuple(n for n in place.names if n not in unbound)) for place in found]


def _block(body: Sequence[ast.stmt], names: tuple[str, ...], lines: Sequence[str]) -> Iterator[Place]:
    for node in body:
        line = lines[_first_line(node)]
        indent = line[: len(line) - len(line.lstrip())]
        # Not in front of a statement that shares its line with others, nor of an elif (which ast shows as a nested if).
        if len(indent) == node.col_offset and not line.startswith("elif", len(indent)):
            yield Place(_first_line(node), indent, names)
        for inner, added in _blocks_within(node):
            yield from _block(inner, _with(names, added), lines)
        names = _with(names, _assigned(node))


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return (decorators[0].lineno if decorators else node.lineno) - 1


def _with(names: tuple[str, ...], added: Sequence[str]) -> tuple[str, ...]:
    return names + tuple(dict.fromkeys(n for n in added if n not in names and n not in RECEIVERS))


def _blocks_within(node: ast.stmt) -> Iterator[tuple[Sequence[ast.stmt], list[str]]]:
    """The blocks of a compound statement, each with the names that it certainly has on top of those before it."""
    match node:
        case ast.If() | ast.While():
            yield node.body, []
            yield node.orelse, []
        case ast.For():
            yield node.body, _targets(node.target)
            yield node.orelse, []
        case ast.With():
            yield node.body, _assigned(node)
        case ast.Try():
            yield node.body, []
            for handler in node.handlers:
                yield handler.body, [handler.name] if handler.name else []
            yield node.orelse, []
            yield node.finalbody, []


def _targets(target: ast.expr) -> list[str]:
    match target:
        case ast.Name():
            return [target.id]
        case ast.Tuple() | ast.List():
            return [name for part in target.elts for name in _targets(part)]
        case ast.Starred():
            return _targets(target.value)
    return []


def _assigned(node: ast.stmt) -> list[str]:
    """Names that are certainly bound once the statement has run (for ``with``: once its block has begun)."""
    match node:
        case ast.Assign():
            return [name for target in node.targets for name in _targets(target)]
        case ast.AnnAssign() if node.value is not None:
            return _targets(node.target)
        case ast.AugAssign():
            return _targets(node.target)
        case ast.With():
            return [name for item in node.items if item.optional_vars for name in _targets(item.optional_vars)]
    return []


def _unbound(definition: ast.FunctionDef, text: str) -> frozenset[str]:
    """Names that a ``del``, or the end of an ``except … as name``, may unbind somewhere in the function."""
    if "del " not in text and "except " not in text:
        return frozenset()
    nodes = walk(definition)
    deleted = {name for n in nodes if isinstance(n, ast.Delete) for t in n.targets for name in _targets(t)}
    return frozenset(deleted | {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name})


def all_names(text: str) -> frozenset[str]:
    """Every word of a text, whatever it is: a name outside this set is certainly new."""
    return frozenset(re.findall(r"[A-Za-z_]\w*", text))


def fill(template: str, names: Sequence[str], taken: frozenset[str], rng: np.random.Generator) -> str:
    """Put operands into a template.

    ``$a`` and ``$b`` become two different names of ``names``; where there is one alone, ``$b`` becomes a literal.
    ``$r`` becomes a name outside ``taken``, ``$w`` and ``$v`` different words, ``$$`` a dollar sign.
    """
    order = [names[i] for i in rng.permutation(len(names))]
    words = [WORDS[i] for i in rng.permutation(len(WORDS))[:2]]
    fresh = [name for name in RESULTS if name not in taken and not keyword.iskeyword(name)]
    slots = {
        "a": order[0],
        "b": order[1] if len(order) > 1 else LITERALS[rng.integers(len(LITERALS))],
        "r": fresh[rng.integers(len(fresh))] if fresh else f"{RESULTS[0]}_{len(taken)}",
        "w": words[0],
        "v": words[1],
        "$": "$",
    }
    return re.sub(r"\$([abrwv$])", lambda found: slots[found.group(1)], template)


def plant(
    host: Function,
    label: int,
    held_out: bool,
    rng: np.random.Generator,
    weaknesses: Sequence[Weakness] = WEAKNESSES,
) -> tuple[str, tuple[Statement, ...]] | None:
    """Plant two or three statements in a host; at least one is weak exactly when ``label`` is 1.

    Args:
        host: the function; it needs a name in scope at some boundary.
        label: 1 for a defect.
        held_out: may held-out surfaces be drawn (test data)?
        rng: draws everything.
        weaknesses: the kinds to draw from, at least three.

    Returns:
        The program and its statements in source order, or ``None`` where the host has no room or the result does not compile.
    """
    spots = [place for place in places(host.text) if place.names]
    if not spots:
        return None
    count = int(rng.integers(2, 4))
    chosen = sorted(rng.choice(len(spots), size=count, replace=len(spots) < count).tolist())
    weak = _weak_positions(count, label, rng)
    taken = all_names(host.text)
    kinds = rng.choice(len(weaknesses), size=count, replace=False)
    statements = []
    for position in range(count):
        weakness = weaknesses[kinds[position]]
        statement = _statement(weakness, position in weak, held_out, spots[chosen[position]].names, taken, rng)
        taken = taken | all_names(statement.text)
        statements.append(statement)
    lines = host.text.split("\n")
    for spot, statement in reversed([(spots[c], s) for c, s in zip(chosen, statements, strict=True)]):
        lines[spot.line : spot.line] = [spot.indent + line for line in statement.text.split("\n")]
    program = "\n".join(lines)
    return (program, tuple(statements)) if compiles(program) else None


def _weak_positions(count: int, label: int, rng: np.random.Generator) -> frozenset[int]:
    """Which of ``count`` statements are weak: none for label 0; for label 1 one, and now and then one more."""
    if label == 0:
        return frozenset()
    number = 1 + int(rng.random() < 0.3)
    return frozenset(rng.choice(count, size=number, replace=False).tolist())


def _statement(
    weakness: Weakness,
    weak: bool,
    held_out: bool,
    names: Sequence[str],
    taken: frozenset[str],
    rng: np.random.Generator,
) -> Statement:
    surfaces = weakness.surfaces if held_out else weakness.seen
    index = int(rng.integers(len(surfaces)))
    template = surfaces[index][0 if weak else 1]
    return Statement(weakness.cwe, weak, index >= len(weakness.seen), fill(template, names, taken, rng))


def splits(
    sizes: Mapping[str, int],
    context: Context,
    min_lines: int = 4,
    max_lines: int = 14,
    max_tokens: int = 90,
    weaknesses: Sequence[Weakness] = WEAKNESSES,
) -> Splits:
    """Build the data: classes balanced in every split, hosts split by module, near-duplicate hosts removed.

    Args:
        sizes: samples of ``train``, ``valid``, ``budget`` and ``test``.
        context: ``context.rng("data")`` draws everything.
        min_lines: fewest non-blank lines of a host (docstring removed).
        max_lines: most.
        max_tokens: most lexical tokens of a host, so that what is planted and what an attacker adds stays in a model's window.
        weaknesses: the kinds of weakness to draw from.

    Raises:
        bench.errors.DataError: the installed packages hold too few hosts.
    """
    rng = context.rng("data", "defects")

    def accept(function: Function) -> bool:
        if not fits(function.text, (min_lines, max_lines), max_tokens):
            return False
        try:
            return any(place.names for place in places(function.text))
        except SyntaxError:  # dedenting broke a string that spans lines
            return False

    # Planting fails on few hosts (a global declaration after the planted use of its name): some are dealt in reserve.
    reserve = {split: size + max(2, size // 100) if size else 0 for split, size in sizes.items()}
    dealt = deal(installed.modules(), reserve, accept, rng)
    notes: dict[str, Mapping[str, Any]] = {"source": {"name": "embedded", "versions": installed.versions()}}
    parts = {
        split: tuple(_plant_all(hosts, sizes[split], split == "test", rng, notes, weaknesses))
        for split, hosts in dealt.items()
    }
    return Splits(**parts, notes=notes)


def _plant_all(
    hosts: Sequence[Function],
    size: int,
    held_out: bool,
    rng: np.random.Generator,
    notes: dict[str, Mapping[str, Any]],
    weaknesses: Sequence[Weakness],
) -> Iterator[Sample]:
    made = 0
    for position in rng.permutation(len(hosts)):
        if made == size:
            return
        host, label = hosts[position], made % 2
        planted = plant(host, label, held_out, rng, weaknesses)
        if planted is None:
            continue
        program, statements = planted
        made += 1
        name = digest_of({"module": host.module, "function": host.qualified, "program": program})[:16]
        notes[name] = {
            "function": host.qualified,
            "cwe": [s.cwe for s in statements if s.weak],
            "statements": [{"cwe": s.cwe, "weak": s.weak, "held_out": s.held_out, "text": s.text} for s in statements],
        }
        yield Sample(name, (program,), "python", label, group=host.module)
