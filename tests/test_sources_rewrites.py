"""Rewrites keep what a function does: every rewrite, on functions that are run."""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any

import numpy as np
import pytest

from tasks.sources.rewrites import REWRITES, rename, rewrite, scope_of

FIXTURES: tuple[tuple[str, tuple[tuple[Any, ...], ...]], ...] = (
    (
        """\
def sign(x):
    if x > 0:
        return 'up'
    elif x == 0:
        return 'flat'
    else:
        return 'down'
""",
        ((1,), (0,), (-2,), (float("nan"),), ("a",)),
    ),
    (
        """\
def total(xs):
    s = 0
    for i in range(len(xs)):
        if xs[i] is None:
            break
        s += 1
    for x in xs:
        if not (x and x != 3):
            continue
        s += 2
    return s * 10
""",
        (([],), ([1, 2, 3],), ([0, None, 4],), (None,)),
    ),
    (
        """\
def pick(a, b, c):
    low = a if a < b else b
    if low and c:
        if 0 < low < 9 or not b:
            return f'{low:>4}|{c!r}{{}}'
    return [x * y for x, y in zip(a, b) if x if y] if c else None
""",
        ((1, 2, 3), (0, 2, 3), ([1, 0, 2], [3, 4, 5], 1), (20, 30, 1), ([], [], 0), (1, "x", 1)),
    ),
    (
        """\
def search(rows, key):
    found = []
    n = 0
    while n < len(rows) and len(found) < 2:
        row = rows[n]
        n += 1
        if row.get(key) is None:
            continue
        found.append(row[key])
    text = f'{len(found)} of {{rows}}'
    return (text, found)
""",
        (([{"k": 1}, {}, {"k": 2}, {"k": 3}], "k"), ([], "k"), ([1], "k")),
    ),
    (
        """\
def squares(n):
    out = [i * i for i in range(n) if i % 2 == 1]
    try:
        first = out[0]
    except IndexError:
        first = -1
    finally:
        n = 0
    return {'out': out, 'first': first, 'n': n}
""",
        ((0,), (1,), (7,), ("a",)),
    ),
    (
        """\
def words(text, sep=','):
    result = {}
    for part in text.split(sep):
        name = part.strip()
        if name not in result:
            result[name] = 1
        else:
            result[name] += 1
    if result: return sorted(result.items())
    return
""",
        (("a,b,a",), ("",), ("a;b;a", ";"), (3,)),
    ),
    (
        """\
def digits(n):
    value = 0
    for k in range(4):
        value += 2
    if n >= 0 and n < 10:
        kind = 'one'
    else:
        kind = 'many'
    if not (n or kind == 'many'):
        return digits(1)
    return (kind, value, -1 if n < 5 else 1)
""",
        ((0,), (3,), (12,), (None,)),
    ),
    (
        """\
def chunks(xs, size):
    for start in range(0, len(xs), size):
        yield xs[start:start + size]
    for x in xs:
        if x == 2: yield x
""",
        (([1, 2, 3], 2), ([], 1), ([1], 0)),
    ),
)


def outcome(text: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """What a call gives, or the type of what it raises; generators are drained."""
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    name = ast.parse(text).body[0].name  # type: ignore[attr-defined]
    try:
        value = namespace[name](*arguments)
        return ("value", list(value) if hasattr(value, "send") else value)
    except Exception as error:
        return ("error", type(error).__name__)


@pytest.mark.parametrize(("text", "calls"), FIXTURES, ids=[t.split("(")[0][4:] for t, _ in FIXTURES])
def test_composed_rewrites_keep_what_a_function_does(text: str, calls: tuple[tuple[Any, ...], ...]) -> None:
    for seed in range(40):
        made = rewrite(text, np.random.default_rng(seed), most=6)
        assert made is not None
        plain, other, kinds = made
        for arguments in calls:
            assert outcome(text, arguments) == outcome(plain, arguments) == outcome(other, arguments), (kinds, other)


def each_alone(name: str, text: str) -> list[str]:
    """The function after each single change that a rewrite offers."""
    kind, places = REWRITES[name]
    first = scope_of(text)
    assert first is not None
    results = []
    for index in range(len(places(first, np.random.default_rng(0)))):
        scope = scope_of(text)
        assert scope is not None
        places(scope, np.random.default_rng(0))[index]()
        results.append(ast.unparse(scope.module))
    assert not results or any(isinstance(node, kind) for node in ast.walk(ast.parse(text)))
    return results


@pytest.mark.parametrize("name", REWRITES)
def test_every_rewrite_has_places_and_keeps_what_a_function_does_alone(name: str) -> None:
    offered = 0
    for text, calls in FIXTURES:
        for other in each_alone(name, text):
            offered += 1
            assert other != ast.unparse(ast.parse(text))
            for arguments in calls:
                assert outcome(text, arguments) == outcome(other, arguments), other
    assert offered > 0


REFUSED = {
    "iterate_by_hand": "def f(xs):\n    for x in xs:\n        if x:\n            return x\n",
    "count_by_hand": "def f(xs):\n    for i in range(len(xs)):\n        g(i)\n    return i\n",
    "spell_out_augmented": "def f(x):\n    x += [1]\n    return x\n",
    "flip_comparison": "def f(x, y):\n    return x < y\n",
    "loop_from_comprehension": "def f(xs, x):\n    ys = [x for x in xs]\n    return x\n",
    "format_from_fstring": "def f(x, y):\n    return f'{x()}{y()}'\n",
    "split_chain": "def f(x):\n    return 0 < x() < 3\n",
    "nest_else": "def f(x):\n    if x:\n        g()\n    return 1\n",
    "unnest_else": "def f(x):\n    if x:\n        g()\n    else:\n        h()\n",
    "split_and": "def f(x, y):\n    if x and y:\n        g()\n    else:\n        h()\n",
    "merge_ifs": "def f(x, y):\n    if x:\n        if y:\n            g()\n        else:\n            h()\n",
    "guard_while": "def f(x):\n    while x:\n        g()\n    else:\n        h()\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_rewrite_is_not_offered_where_it_might_change_something(name: str) -> None:
    assert each_alone(name, REFUSED[name]) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return locals()\n",
        "def f(x):\n    return eval('x')\n",
        "def f(x):\n    global y\n    y = x\n",
        "def f(next):\n    for x in next:\n        g(x)\n",
        "def f(xs):\n    len = 3\n    return len\n",
    ],
)
def test_a_function_that_sees_its_own_names_is_never_rewritten(text: str) -> None:
    assert rewrite(text, np.random.default_rng(0)) is None


def test_renaming_changes_the_function_with_its_recursion_parameters_and_locals() -> None:
    text = "def fact(n):\n    if n == 0:\n        return 1\n    rest = fact(n - 1)\n    return n * rest\n"
    other, done = rename(text, np.random.default_rng(0))
    assert done == ("rename_function", "rename_parameters", "rename_locals")
    assert not {"fact", "n", "rest"} & set(re.findall(r"\w+", other))
    assert outcome(other, (5,)) == ("value", 120)


def test_receivers_and_parameters_that_are_passed_by_name_keep_their_names() -> None:
    text = "def f(self, a, b):\n    return self if a else f(self, 1, b=b)\n"
    other, done = rename(text, np.random.default_rng(0))
    assert done == ("rename_function", "rename_parameters")
    assert {"self", "b"} < set(re.findall(r"\w+", other))
    assert not {"f", "a"} & set(re.findall(r"\w+", other))


def in_function(body: str) -> str:
    return "def f():\n" + textwrap.indent(body, "    ")


def test_known_answers() -> None:
    known: dict[str, tuple[str, str]] = {
        "invert_if": ("if x in y:\n    a()\nelse:\n    b()", "if x not in y:\n    b()\nelse:\n    a()"),
        "flip_comparison": ("return x <= 3", "return 3 >= x"),
        "de_morgan": ("if a and (not b):\n    c()", "if not (not a or b):\n    c()"),
        "split_chain": ("return 0 < x <= 9", "return 0 < x and x <= 9"),
        "format_from_fstring": ("return f'{x!r:>3} {{}}'", "return '{!r:>3} {{}}'.format(x)"),
        "ternary_from_branch": ("if a:\n    x = 1\nelse:\n    x = 2", "x = 1 if a else 2"),
    }
    for name, (before, after) in known.items():
        assert each_alone(name, in_function(before)) == [in_function(after)]
