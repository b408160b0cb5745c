"""Mutations change what a function does: every place of every mutation, on functions that are run."""

from __future__ import annotations

import ast
import textwrap
from typing import Any

import numpy as np
import pytest

from tasks.sources.mutations import MUTATIONS, Place, Reading, is_rewrite, mutate
from tasks.sources.parsing import compiles
from tasks.sources.rewrites import REWRITES, plain_print, rewrite, scope_of
from tests.test_sources_rewrites import outcome

FIXTURES: tuple[tuple[str, tuple[tuple[Any, ...], ...]], ...] = (
    (
        """\
def clamp(x, low, high):
    if x < low:
        return low
    elif x >= high:
        return high - 1
    return x if x != 7 and low != 5 else -1
""",
        (
            (1, 3, 9),
            (3, 3, 9),
            (4, 3, 9),
            (7, 3, 9),
            (9, 3, 9),
            (10, 3, 9),
            (8, 7, 9),
            (7, 7, 9),
            (0, 0, 0),
            (3, 3, 4),
            (5, 5, 7),
            (2, 0, 3),
            (1, 0, 1),
            (6, 5, 6),
            (5, 4, 7),
            (7, 1, 2),
        ),
    ),
    (
        """\
def tally(words, known, step=2):
    seen = {}
    last = 0
    for word in words:
        if word in known or word == 'any':
            seen[word] = seen.get(word, 0) + step
            last += 3 * step
    ratio = last / step
    return (seen, ratio, last % 5, 'n' + str(last))
""",
        (
            (["a", "b", "a"], ["a", "c"]),
            (["any", "b"], ["b"], 3),
            ([], [], 4),
            (["any", "c", "d"], [], 1),
            ((1, 2), (2,), 0),
        ),
    ),
    (
        """\
def cut(text, start, size, strict=False):
    parts = text.split(',', size)
    kept = [int(part) for part in parts if part.isdigit()]
    if strict and not kept:
        raise ValueError('nothing at ' + str(start - 1))
    kept.append(start - size)
    kept.sort(reverse=True)
    return kept[start:] if start < len(kept) else (start // size, pow(size, start))
""",
        (
            ("1,2,3", 1, 2),
            ("3,1,x,5,2", 0, 3),
            ("4", 5, 2),
            ("a,b", 3, 2),
            ("", 0, 1),
            ("9,8,7,6", 2, 3),
            ("1,2", 3, 1),
            ("5,6,7,8", 4, 4),
            ("a,b", 1, 2, True),
            ("1,a", 0, 2, True),
            ("", 1, 1, True),
            ("5,6,7,8,4", 2, 4, True),
            ("3,4,5", 2, 1, True),
        ),
    ),
)


def each(name: str, text: str) -> list[str]:
    """The function after each single change that a mutation offers."""

    def places() -> tuple[ast.Module, list[Place]]:
        scope = scope_of(text)
        assert scope is not None
        return scope.module, MUTATIONS[name](Reading.of(scope))

    results = []
    for index in range(len(places()[1])):
        module, offered = places()
        offered[index].change()
        assert not is_rewrite(text, module), ast.unparse(module)
        results.append(ast.unparse(module))
    return results


def differs(text: str, other: str, calls: tuple[tuple[Any, ...], ...]) -> bool:
    return any(outcome(text, arguments) != outcome(other, arguments) for arguments in calls)


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_place_of_a_mutation_changes_a_result_and_is_no_rewrite(name: str) -> None:
    offered = [(text, other, calls) for text, calls in FIXTURES for other in each(name, text)]
    assert offered
    for text, other, calls in offered:
        assert compiles(other)
        assert differs(text, other, calls), other


@pytest.mark.parametrize(("text", "calls"), FIXTURES, ids=[text.split("(")[0][4:] for text, _ in FIXTURES])
def test_a_mutant_and_all_its_rewrites_differ_from_the_function(text: str, calls: tuple[tuple[Any, ...], ...]) -> None:
    counts = set()
    for seed in range(60):
        made = mutate(text, np.random.default_rng(seed))
        assert made is not None
        mutant, kinds = made
        counts.add(len(kinds))
        assert len(set(kinds)) == len(kinds)
        assert differs(text, mutant, calls), (kinds, mutant)
        again = rewrite(mutant, np.random.default_rng(seed))
        assert again is not None
        assert differs(text, again[1], calls), (kinds, again)
    assert counts == {1, 2}


def test_every_single_rewrite_is_told_from_a_mutation() -> None:
    text = "def f(a, b):\n    if a < 3 and b:\n        return [x for x in a if x]\n    return f'{a}' if b else g(a)\n"
    found = 0
    for _, places in REWRITES.values():
        scope = scope_of(text)
        assert scope is not None
        for index in range(len(places(scope, np.random.default_rng(0)))):
            other = scope_of(text)
            assert other is not None
            places(other, np.random.default_rng(0))[index]()
            found += is_rewrite(text, other.module)
    assert found >= 5
    assert is_rewrite(text, ast.parse(text))
    assert not is_rewrite(text, ast.parse(text.replace("<", "<=")))


REFUSED = {
    "change_comparison": "raise ValueError(a < b)",
    "negate_condition": "if a:\n    b()\nelse:\n    b()",
    "drop_condition": "x: (a and b) = 1",
    "change_arithmetic": "return 'text %s' % a + 'more'",
    "swap_operands": "return a + b - (a + b)",
    "swap_arguments": "return max(a, b) + f(a, a) + f(*a, b)",
    "change_constant": "assert a, 5\nreturn -1.5",
    "replace_name": "c = a\nreturn g(c)",
    "remove_statement": "if a:\n    b()\nx = 1\nreturn x",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mutation_is_not_offered_where_it_could_not_be_seen(name: str) -> None:
    text = "def f(a):\n" + textwrap.indent(REFUSED[name], "    ") + "\n"
    assert each(name, text) == []


KNOWN = {
    "change_comparison": ("return a < b", ["return a <= b", "return a >= b"]),
    "negate_condition": ("return 1 if a in b else 2", ["return 1 if a not in b else 2"]),
    "drop_condition": ("return a and b", ["return b", "return a"]),
    "change_connective": ("return a and b", ["return a or b"]),
    "change_arithmetic": ("a += b", ["a -= b"]),
    "swap_operands": ("return a - b", ["return b - a"]),
    "swap_arguments": ("return f(a, b, x=1, y=2)", ["return f(b, a, x=1, y=2)", "return f(a, b, x=2, y=1)"]),
    "change_constant": ("return (0, 5, True)", ["(1, 5, True)", "(0, 6, True)", "(0, 4, True)", "(0, 5, False)"]),
    "replace_name": ("return a", ["return b"]),
    "remove_statement": ("a.x = 1\nreturn a", ["return a"]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_known_answers(name: str) -> None:
    body, others = KNOWN[name]
    expected = [other if other.startswith(("return", "a ")) else f"return {other}" for other in others]
    text = "def f(a, b):\n" + textwrap.indent(body, "    ") + "\n"
    assert each(name, text) == ["def f(a, b):\n    " + other for other in expected]


def test_a_function_that_sees_its_own_names_or_offers_no_place_has_no_mutant() -> None:
    assert mutate("def f(x):\n    return locals() + x\n", np.random.default_rng(0)) is None
    assert mutate("def f(x):\n    return x\n", np.random.default_rng(0)) is None


def test_two_mutations_stand_in_different_statements() -> None:
    text = "def f(a, b):\n    return a < b and a - 1 > b + 2\n"
    assert plain_print(text) == text
    for seed in range(20):
        made = mutate(text, np.random.default_rng(seed))
        assert made is not None
        assert len(made[1]) == 1
