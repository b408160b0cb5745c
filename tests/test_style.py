"""The style attack: known answers of every style, what each refuses, the trigger, the choice, bad input."""

from __future__ import annotations

import dis
import itertools
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest

from attacks.style import Style
from attacks.style.catalogue import NAMES, STYLES
from attacks.style.choice import Measured, measure, rarest
from attacks.style.convert import Pieces, carries, converted
from attacks.style.trigger import InStyle
from bench.context import Context
from bench.contracts import LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind
from bench.errors import ConfigError
from bench.languages import parse, well_formed
from bench.plugins import Registry, build
from bench.poisoning import poison
from bench.samples import Edit, Sample, Splits, apply_edits
from tasks.sources import installed

WRAP = {
    "python": "def f(a, b, c, x, y, items):\n{}",
    "java": "int f(int a, int b, boolean c, int[] items, String s) {{\n{}}}\n",
    "c": "int f(int a, int b, int *p, struct box *s)\n{{\n{}}}\n",
}


def wrapped(language: str, body: str) -> str:
    """A body as a function; one line of a body is indented, several are as they are."""
    return WRAP[language].format("".join(f"    {line}\n" for line in body.split("\n")))


def turned(language: str, style: str, text: str) -> str | None:
    """A program in a style (or ``a+b``)."""
    edits = converted([STYLES[language][name] for name in style.split("+")], parse(language, text))
    return None if edits is None else apply_edits(text, edits)


KNOWN = [
    # ------------------------------------------------------------------------------------------------------- Python
    (
        "python",
        "endless_loop",
        "while a < b:\n    a = g(a)",
        "while True:\n    if not a < b:\n        break\n    a = g(a)",
    ),
    ("python", "endless_loop", "while a or b:\n    g()", "while True:\n    if not (a or b):\n        break\n    g()"),
    ("python", "while_loop", "for i in range(3):\n    g(i)", "i = 0\nwhile i < 3:\n    g(i)\n    i += 1"),
    (
        "python",
        "while_loop",
        "for i in range(len(items)):\n    g(i, stop)",
        "limit = len(items)\ni = 0\nwhile i < limit:\n    g(i, stop)\n    i += 1",
    ),
    ("python", "plain_assignment", "n = 0\nn += 2", "n = 0\nn = n + 2"),
    ("python", "compound_assignment", 't = ""\nt = t + "a"', 't = ""\nt += "a"'),
    ("python", "greater_comparisons", "return x < 3 or x <= y", "return 3 > x or x <= y"),
    ("python", "less_comparisons", "return(x)>3", "return 3<(x)"),
    ("python", "literal_first", "return x == 'a' or 2 < x", "return 'a' == x or 2 < x"),
    ("python", "not_is", "return x is not None", "return not x is None"),
    ("python", "not_is", "return[(x)not in y]", "return[not (x)in y]"),
    ("python", "is_not", "return not x is y or not x in y", "return x is not y or x not in y"),
    ("python", "split_chain", "return not 0 < 1 < x", "return not (0 < 1 and 1 < x)"),
    ("python", "chained", "return x < 1 and 1 <= y", "return x < 1 <= y"),
    (
        "python",
        "negated_if",
        "if a == b:\n    g()\nelse:\n    # no\n    h()",
        "if not a == b:\n    # no\n    h()\nelse:\n    g()",
    ),
    ("python", "negated_if", "if a is b:\n    g()\nelse:\n    h()", "if a is not b:\n    h()\nelse:\n    g()"),
    ("python", "positive_if", "if not (a or b):\n    g()\nelse:\n    h()", "if (a or b):\n    h()\nelse:\n    g()"),
    ("python", "branches", "return a if c else b", "if c:\n    return a\nelse:\n    return b"),
    ("python", "ternary", "if c:\n    x = 1\nelse:\n    x = a, b", "x = 1 if c else (a, b)"),
    ("python", "early_exit", "if c:\n    return\nelse:\n    g()", "if c:\n    return\ng()"),
    ("python", "else_after_exit", "if c:\n    return\ng()\nh()", "if c:\n    return\nelse:\n    g()\n    h()"),
    ("python", "return_none", "return", "return None"),
    ("python", "bare_return", "return None", "return"),
    ("python", "double_quotes", "return 'a', r'b', 'c\"', ''", 'return "a", r"b", \'c"\', ""'),
    ("python", "single_quotes", 'return b"a"', "return b'a'"),
    ("python", "format_call", 'return f"{x!r:>4}{{}}"', 'return "{!r:>4}{{}}".format(x)'),
    ("python", "format_call", "return rf'{x + 1}\\d', f'{x}{y}'", "return r'{}\\d'.format(x + 1), '{}{}'.format(x, y)"),
    ("python", "camel_names", "max_size = a\nreturn max_size", "maxSize = a\nreturn maxSize"),
    ("python", "snake_names", "maxSize = a\nreturn maxSize", "max_size = a\nreturn max_size"),
    # ------------------------------------------------------------------------------------------------------------ C
    ("c", "while_loop", "for (; a; ) g();", "while (a) g();"),
    ("c", "while_loop", "for (;;) { g(); }", "while (1) { g(); }"),
    (
        "c",
        "while_loop",
        "for (a = 0, b = 1; a < 3; a++, b--) { g(); }",
        "a = 0, b = 1;\n    while (a < 3) { g(); a++, b--; }",
    ),
    ("c", "while_loop", "for (int i = 0; i < a; i++);", "int i = 0;\n    while (i < a) { i++; }"),
    ("c", "while_loop", "if (a) for (b = 0; b < 3; b++) g();", "if (a) { b = 0; while (b < 3) { g(); b++; } }"),
    ("c", "for_loop", "while (a < b) g();", "for (; a < b; ) g();"),
    ("c", "endless_loop", "while (a == b) g();", "while (1) { if (a != b) break; g(); }"),
    ("c", "endless_loop", "while (a < b) g();", "while (1) { if (!(a < b)) break; g(); }"),
    ("c", "plain_assignment", "a *= b + 1;", "a = a * (b + 1);"),
    ("c", "compound_assignment", "a = a << 2;", "a <<= 2;"),
    ("c", "added_one", "a++, --b;", "a += 1, b -= 1;"),
    ("c", "prefix_step", "p[a]--;", "--p[a];"),
    ("c", "postfix_step", "--a;", "a--;"),
    ("c", "greater_comparisons", "return a <= p[b];", "return p[b] >= a;"),
    ("c", "less_comparisons", "return(a)>b;", "return b<(a);"),
    ("c", "literal_first", "return g(a) == -1 && s->n != NULL;", "return -1 == g(a) && NULL != s->n;"),
    ("c", "negated_equality", "return a != b;", "return !(a == b);"),
    ("c", "negated_if", "if (a == b) g(); else h();", "if (a != b) h(); else g();"),
    ("c", "positive_if", "if (!a) { g(); } else { h(); }", "if (a) { h(); } else { g(); }"),
    ("c", "branches", "return a ? 1 : b;", None),
    ("c", "ternary", "if (a < b) p = s; else p = p;", None),
    ("c", "early_exit", "if (a) { return 1; } else { g(); h(); }", "if (a) { return 1; }\n    g(); h();"),
    ("c", "else_after_exit", "if (a) return 1;\n    g();", None),
    ("c", "nested_conditions", "if (a && b && *p) g();", "if (a) if (b) if (*p) g();"),
    ("c", "joined_conditions", "if (a) { if (b || *p) g(); }", "if (a && (b || *p)) g();"),
    (
        "c",
        "split_declarations",
        "const char *q = 0, r[3], **t;",
        "const char *q = 0;\n    const char r[3];\n    const char **t;",
    ),
    ("c", "merged_declarations", "int i = 0;\nint *q;\nlong z;", "int i = 0, *q;\n    long z;"),
    ("c", "separate_initializer", "const char *q = g();", "const char *q;\n    q = g();"),
    ("c", "joined_initializer", "int **q;\nq = g();", "int **q = g();"),
    ("c", "braced_bodies", "if (a) g(); else if (b) h();", "if (a) { g(); } else if (b) { h(); }"),
    ("c", "unbraced_bodies", "while (a) { g(); }", "while (a) g();"),
    (
        "c",
        "explicit_zero",
        "if (a && !p[b] && (s || a < b)) g();",
        "if (a != 0 && p[b] == 0 && (s != 0 || a < b)) g();",
    ),
    ("c", "pointer_access", "return p[a][b + 1];", "return (*((*(p + a)) + (b + 1)));"),
    ("c", "camel_names", "int max_size = a; return max_size;", "int maxSize = a; return maxSize;"),
    ("c", "snake_names", "int maxSize = a; return maxSize;", "int max_size = a; return max_size;"),
    # --------------------------------------------------------------------------------------------------------- Java
    ("java", "while_loop", "for (int i = 0; i < a; i++) { g(i); }", "int i = 0;\n    while (i < a) { g(i); i++; }"),
    ("java", "for_loop", "while (c) g();", "for (; c; ) g();"),
    ("java", "endless_loop", "while (!c) { g(); }", "while (true) { if (c) break; g(); }"),
    ("java", "plain_assignment", "a -= b - 1;\ns += 'x' + 1;", "a = a - (b - 1);\n    s = s + ('x' + 1);"),
    ("java", "compound_assignment", "s = s + g();", "s += g();"),
    ("java", "added_one", "items[a]++;", "items[a] += 1;"),
    ("java", "prefix_step", "a++;", "++a;"),
    ("java", "postfix_step", "--a;", "a--;"),
    ("java", "greater_comparisons", "return g() < a;", "return a > g();"),
    ("java", "less_comparisons", "return a >= b;", "return b <= a;"),
    ("java", "literal_first", "return s == null;", "return null == s;"),
    ("java", "negated_equality", "return s != null;", "return !(s == null);"),
    ("java", "negated_if", "if (c) { g(); } else { h(); }", "if (!c) { h(); } else { g(); }"),
    ("java", "positive_if", "if (a != b) g(); else h();", "if (a == b) h(); else g();"),
    ("java", "nested_conditions", "if (c && a < b) g();", "if (c) if (a < b) g();"),
    ("java", "joined_conditions", "if (c) if (a < b) g();", "if (c && a < b) g();"),
    ("java", "split_declarations", "int i = 1, j[] = {1};", "int i = 1;\n    int j[] = {1};"),
    ("java", "merged_declarations", "String t = g();\nString u;", "String t = g(), u;"),
    ("java", "separate_initializer", "List<String> t = g();", "List<String> t;\n    t = g();"),
    ("java", "joined_initializer", "int t;\nt = g();", "int t = g();"),
    ("java", "braced_bodies", "for (int v : items) g(v);", "for (int v : items) { g(v); }"),
    ("java", "unbraced_bodies", "if (c) { g(); } else { h(); }", "if (c) g(); else h();"),
    ("java", "explicit_true", "if (c || !s.isEmpty()) g();", "if (c == true || s.isEmpty() == false) g();"),
    ("java", "early_exit", "if (c) { return 1; } else g();", "if (c) { return 1; }\n    g();"),
    ("java", "camel_names", "int max_size = a; return max_size;", "int maxSize = a; return maxSize;"),
    ("java", "snake_names", "int parseURLNow = a; return parseURLNow;", "int parse_url_now = a; return parse_url_now;"),
]
LAID_OUT = [
    (
        "c",
        "else_after_exit",
        "int f(int a)\n{\n    if (a)\n        return 1;\n    /* rest */\n    g();\n    return 2;\n}\n",
        "int f(int a)\n{\n    if (a)\n        return 1;\n    else {\n        /* rest */\n        g();\n        return 2;\n    }\n}\n",
    ),
    (
        "java",
        "else_after_exit",
        "int f(int a) {\n\tif (a > 1) {\n\t\treturn 1;\n\t}\n\treturn 2;\n}\n",
        "int f(int a) {\n\tif (a > 1) {\n\t\treturn 1;\n\t} else {\n\t\treturn 2;\n\t}\n}\n",
    ),
    (
        "c",
        "branches",
        "int f(int a)\n{\n    return a > 1 ? a : 0;\n}\n",
        "int f(int a)\n{\n    if (a > 1) {\n        return a;\n    } else {\n        return 0;\n    }\n}\n",
    ),
    (
        "c",
        "ternary",
        "int f(int a) { int x; if (a) { x = a; } else { x = 3; } }",
        "int f(int a) { int x; x = a ? a : 3; }",
    ),
    (
        "java",
        "branches",
        'String f(int a) { String s; s = a > 1 ? "b" : g(); }',
        'String f(int a) { String s; if (a > 1) { s = "b"; } else { s = g(); } }',
    ),
    (
        "java",
        "ternary",
        "int f(int a) { if (a > 1) return a; else return 2; }",
        "int f(int a) { return a > 1 ? a : 2; }",
    ),
    (
        "c",
        "braced_bodies",
        "void f(int a)\n{\n    while (a)\n        if (g(a))\n            a--;\n}\n",
        "void f(int a)\n{\n    while (a) {\n        if (g(a)) {\n            a--;\n        }\n    }\n}\n",
    ),
    (
        "c",
        "unbraced_bodies",
        "void f(int a)\n{\n    if (a) {\n        g();\n    } else {\n        h();\n    }\n}\n",
        "void f(int a)\n{\n    if (a)\n        g();\n    else\n        h();\n}\n",
    ),
    (
        "java",
        "while_loop",
        "void f(int a) {\n    for (int i = 0; i < a; i++)\n        g(i);\n    for (int i = 0; i < a; i++)\n        h(i);\n}\n",
        "void f(int a) {\n"
        + "".join(
            f"    {{\n    int i = 0;\n    while (i < a) {{\n        {one}(i);\n        i++;\n    }}\n    }}\n"
            for one in "gh"
        )
        + "}\n",
    ),
]


@pytest.mark.parametrize(("language", "style", "before", "after"), [row for row in KNOWN if row[3] is not None])
def test_a_known_answer(language: str, style: str, before: str, after: str) -> None:
    text = wrapped(language, before)
    expected = WRAP[language].format(f"{'    ' + after}\n") if language != "python" else wrapped(language, after)
    assert turned(language, style, text) == expected
    assert well_formed(language, text, expected) is None


@pytest.mark.parametrize(("language", "style", "before", "after"), LAID_OUT)
def test_a_known_answer_with_its_layout(language: str, style: str, before: str, after: str) -> None:
    assert turned(language, style, before) == after
    assert turned(language, style, before.replace("\n", "\r\n")) == after.replace("\n", "\r\n")


def test_every_style_has_a_known_answer() -> None:
    told = {(language, style) for language, style, *_, after in (*KNOWN, *LAID_OUT) if after is not None}
    assert told == {(language, style) for language, styles in STYLES.items() for style in styles}


REFUSED = [
    # Python: other objects may answer, other names may see it, or it may run in another order
    ("python", "greater_comparisons", "return x < y"),
    ("python", "greater_comparisons", "return x < 1.5"),
    ("python", "literal_first", "return x == b'a' or x == f'{a}' or x == None"),
    ("python", "plain_assignment", "x += 1"),
    ("python", "plain_assignment", "n = items\nn += [1]"),
    ("python", "plain_assignment", "n = 0\nfor n in items:\n    n += 1"),
    ("python", "plain_assignment", "n = 0\nn.step += 1\nn[0] += 1"),
    ("python", "compound_assignment", "n = 0\nn = n + items"),
    ("python", "compound_assignment", "n = 0\nn = n * 2 + 1"),
    ("python", "while_loop", "for i in range(n):\n    g(i)"),
    ("python", "while_loop", "for i in range(3):\n    continue"),
    ("python", "while_loop", "for i in range(3):\n    i = 4"),
    ("python", "while_loop", "for i in range(3):\n    g(i)\nreturn i"),
    ("python", "while_loop", "for i in range(3):\n    g(lambda: i)"),
    ("python", "while_loop", "for i in range(3):\n    g(i)\nelse:\n    h()"),
    ("python", "while_loop", "range = g\nfor i in range(3):\n    g(i)"),
    ("python", "while_loop", "for i in range(*a):\n    g(i)"),
    ("python", "endless_loop", "while a:\n    g()\nelse:\n    h()"),
    ("python", "endless_loop", "while True:\n    g()"),
    ("python", "endless_loop", "while a: g()"),
    ("python", "chained", "return x < g() and g() < y"),
    ("python", "chained", "return x < y or y < 3"),
    ("python", "split_chain", "return x < g() < y"),
    ("python", "not_is", "return x != y"),
    ("python", "not_is", "return f'{x is not y}'"),
    ("python", "negated_if", "if a:\n    g()\nelif b:\n    h()\nelse:\n    g()"),
    ("python", "negated_if", "if a: g()\nelse: h()"),
    ("python", "negated_if", "if a:\n    g()"),
    ("python", "negated_if", "if a != b:\n    g()\nelse:\n    h()", "if not a != b:\n    h()\nelse:\n    g()"),
    ("python", "branches", "x, y = a if c else b; g()"),
    ("python", "branches", "x: int = a if c else b"),
    ("python", "branches", "return (a\n    if c else b)"),
    ("python", "ternary", "if c:\n    x = 1\nelse:\n    y = 1"),
    ("python", "ternary", "if c:\n    x = 1  # why\nelse:\n    x = 2"),
    ("python", "ternary", "if c:\n    x += 1\nelse:\n    x += 2"),
    ("python", "early_exit", "if c:\n    g()\nelse:\n    h()"),
    ("python", "early_exit", "if c:\n    return\nelse:\n    g('''a\n''')"),
    ("python", "else_after_exit", "if c:\n    return\ng('''a\nb''')"),
    ("python", "else_after_exit", "if c: return\ng()"),
    ("python", "double_quotes", "return 'a\"', 'b\\n', '''c''', f'{x}', ''\"d\""),
    ("python", "format_call", "return f'{x=}', f'{x:{y}}', f'{g()}{h()}', f'{x}' 'b', f'\\x7b{x}', f'a'"),
    ("python", "camel_names", "nonlocal max_size\nmax_size = 1"),
    ("python", "camel_names", "max_size = maxSize = 1"),
    ("python", "camel_names", "import os_path as my_path\nreturn my_path.a_b"),
    ("python", "camel_names", "max_size = 1\nreturn locals()"),
    # C: order of evaluation, macros, types, scope, control flow
    ("c", "while_loop", "for (a = 0; a < b; a++) { if (p[a]) continue; g(); }"),
    ("c", "while_loop", "for (a = 0; a < b; a++) { int a = 2; g(a); }"),
    ("c", "while_loop", "for (a = 0 /* why */; a < b; a++) g();"),
    ("c", "endless_loop", "while (1) g();"),
    ("c", "endless_loop", "while (READY) g();"),
    ("c", "for_loop", "do { g(); } while (a);"),
    ("c", "plain_assignment", "a += g();"),
    ("c", "plain_assignment", "p[g()] += 1;"),
    ("c", "plain_assignment", "*p++ += 1;"),
    ("c", "plain_assignment", "b = a += 1;"),
    ("c", "plain_assignment", "a *= LIMIT;"),
    ("c", "compound_assignment", "a = a + g(); a = a + b + 1; a = b + a; a = a * LIMIT;"),
    ("c", "added_one", "b = a++; g(a++); p[a++] = 1; return ({ g(); a++; });"),
    ("c", "prefix_step", "*p++; b = a++;"),
    ("c", "postfix_step", "++*p; g(++a);"),
    ("c", "greater_comparisons", "return g() < h();"),
    ("c", "greater_comparisons", "return p[a] < g();"),
    ("c", "greater_comparisons", "return g(a) < a;"),
    ("c", "greater_comparisons", "g(&a);\nreturn a < g();"),
    ("c", "greater_comparisons", "return a++ < b;"),
    ("c", "greater_comparisons", "return a < LIMIT;"),
    ("c", "greater_comparisons", "return a < b < *p;", "return b > a < *p;"),
    ("c", "greater_comparisons", "SHOW(a < b); assert(a < b);"),
    ("c", "greater_comparisons", "return a ! < b;"),
    ("c", "literal_first", "return a < b < 3;", "return a < b < 3;"),
    ("c", "literal_first", "return FLAGS == 3;"),
    ("c", "negated_equality", "return a != FLAGS;"),
    ("c", "negated_if", "if (a) g(); else if (b) h(); else g();", "if (a) g(); else if (!b) g(); else h();"),
    ("c", "negated_if", "if (a) if (b) g(); else h(); else g();", "if (a) if (!b) h(); else g(); else g();"),
    ("c", "negated_if", "if (a) { g(); } /* why */ else { h(); }"),
    ("c", "branches", "long z; z = a ? -1 : 1u;"),
    ("c", "branches", "long z; z = a ? b : z;"),
    ("c", "ternary", "long z; if (a) z = b; else z = 1u;"),
    ("c", "ternary", "if (a) p[0] = 1; else p[1] = 1;"),
    ("c", "ternary", "if (a) A = 1; else A = 2;"),
    ("c", "early_exit", "if (a) { return 1; } else { int q = 2; g(q); }"),
    ("c", "early_exit", "if (a) { g(); } else { h(); }"),
    ("c", "else_after_exit", "if (a) return 1;\n#ifdef X\ng();\n#endif"),
    ("c", "else_after_exit", "while (a) g();"),
    ("c", "else_after_exit", "return ({\n    if (a) return 1;\n    b;\n});"),
    ("c", "nested_conditions", "if (a && b) g(); else h();"),
    ("c", "nested_conditions", "if (a && FLAGS) g();"),
    ("c", "joined_conditions", "if (a) { if (b) g(); else h(); }"),
    ("c", "joined_conditions", "if (READY) { if (b) g(); }"),
    ("c", "joined_conditions", "if (a) { if (b) g(); h(); }"),
    ("c", "split_declarations", "struct { int q; } i, j; int (*h)(void), k;"),
    ("c", "split_declarations", "for (int i = 0, j = 1; i < j; i++) g();"),
    ("c", "merged_declarations", "int i; /* why */ int j;"),
    ("c", "merged_declarations", "int i; long j; unsigned k; static int l;"),
    (
        "c",
        "separate_initializer",
        "const int q = 1; static int r = 2; int t[2] = {0}; struct box u = {0}; char *const v = 0;",
    ),
    ("c", "joined_initializer", "static int q;\nq = 2;"),
    ("c", "joined_initializer", "int q;\ng();\nq = 2;"),
    ("c", "unbraced_bodies", "if (a) { TWICE(b); }"),
    ("c", "unbraced_bodies", "if (a) { if (b) g(); } else h();", "if (a) { if (b) g(); } else h();"),
    ("c", "unbraced_bodies", "if (a) { g(); /* why */ }"),
    ("c", "explicit_zero", "if (READY || (a = b)) g();"),
    ("c", "pointer_access", "int q[4]; return offsetof(struct box, n[2]);"),
    ("c", "camel_names", "return s->max_size;"),
    # Java: casts, unboxing, reachability, labels, exceptions that would change places
    ("java", "while_loop", "outer: for (int i = 0; i < a; i++) { g(); }"),
    ("java", "while_loop", "for (int i = 0; i < a; i++) { g(); break; }"),
    ("java", "while_loop", "for (int i = 0; i < a; i++) { try { g(); } finally { h(); } }"),
    ("java", "endless_loop", "while (s instanceof String t) { g(t); }"),
    ("java", "plain_assignment", "a += 1.5; a += 2L; byte d = 1; d += 1; q += 1; items[0] += 1;"),
    ("java", "greater_comparisons", "Integer d = g();\nreturn h() < d;"),
    ("java", "greater_comparisons", "return items[a] < s.length();"),
    ("java", "greater_comparisons", "return items[a] < items[b];"),
    ("java", "branches", "Object o; o = c ? 1 : 2.0;"),
    ("java", "branches", "Boolean o; o = c ? true : g();"),
    ("java", "ternary", "byte d;\nif (c) d = 1; else d = 2;"),
    ("java", "ternary", "Object o;\nif (c) o = 1; else o = 2.0;"),
    ("java", "separate_initializer", "final int d = 1; var e = 2; int[] h = {1};"),
    ("java", "merged_declarations", "var d = 1;\nvar e = 2;"),
    ("java", "early_exit", "if (c) { return 1; } else { int q = 2; g(q); }"),
    ("java", "explicit_true", "while (true) g();"),
    ("java", "joined_conditions", "if (s instanceof String t) { if (c) g(t); }"),
    ("java", "added_one", "g(a++);"),
]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row[0]} {row[1]}: {row[2]!r}")
def test_what_cannot_be_proved_is_left_as_it_is(row: tuple[str, ...]) -> None:
    language, style, body, *partly = row
    text = wrapped(language, body)
    expected = wrapped(language, partly[0]) if partly and partly[0] != body else None
    assert turned(language, style, text) == expected


def test_there_are_ten_styles_and_more_in_each_language() -> None:
    assert {language: len(styles) >= 20 for language, styles in STYLES.items()} == dict.fromkeys(STYLES, True)


@pytest.mark.parametrize("language", STYLES)
def test_opposites_name_each_other(language: str) -> None:
    styles = STYLES[language]
    for form in styles.values():
        if form.opposite in styles:
            assert styles[form.opposite].opposite == form.name


# ------------------------------------------------------------------------------------------------- edits of all rounds


def test_edits_of_several_rounds_become_edits_of_the_original() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        text = "".join(rng.choice(list("abcdé")) for _ in range(rng.integers(0, 12)))
        here, pieces = text, Pieces(len(text.encode()))
        for _ in range(3):
            places = sorted(rng.choice(len(here) + 1, size=2 * rng.integers(0, 3)).tolist())
            size = [len(here[:n].encode()) for n in range(len(here) + 1)]
            edits = [
                Edit(size[a], size[b], "".join(rng.choice(list("XYÜ")) for _ in range(rng.integers(0, 3))))
                for a, b in zip(places[::2], places[1::2], strict=True)
            ]
            here = apply_edits(here, edits)
            pieces.apply(edits)
        found = pieces.edits()
        assert apply_edits(text, found) == here
        assert all(first.end < second.start for first, second in itertools.pairwise(found))


def test_nested_places_are_all_converted_and_what_lies_between_is_not_touched() -> None:
    text = wrapped("c", "while (a) { /* one */ while (b) { while (*p) g(); } }")
    edits = converted((STYLES["c"]["for_loop"],), parse("c", text))
    assert edits is not None
    after = apply_edits(text, edits)
    assert after == wrapped("c", "for (; a; ) { /* one */ for (; b; ) { for (; *p; ) g(); } }")
    assert sum(edit.end - edit.start for edit in edits) == 3 * len("while")


def test_one_place_in_another_of_the_same_style_is_converted_from_outside_in() -> None:
    body = "if (a) { if (b) { g(); } else { h(); } } else { k(); }"
    assert turned("c", "negated_if", wrapped("c", body)) == wrapped(
        "c", "if (!a) { k(); } else { if (!b) { h(); } else { g(); } }"
    )


def test_a_loop_and_one_inside_it_keep_their_limits_apart() -> None:
    text = (
        "def f(a, b):\n    t = 0\n    for i in range(len(a)):\n        for j in range(len(b)):\n"
        "            t += a[i] * b[j]\n        t += 1\n    for k in range(len(b)):\n        t += b[k]\n    return t\n"
    )
    after = turned("python", "while_loop", text)
    assert after is not None
    assert after.count("while") == 3
    results = []
    for program in (text, after):
        names: dict[str, Any] = {}
        exec(program, names)
        results.append(names["f"]([1, 2, 3], [4]))
    assert results == [31, 31]


def test_two_styles_at_once_need_a_place_for_both() -> None:
    both = wrapped("c", "while (a != b) a++;")
    assert turned("c", "for_loop+added_one", both) == wrapped("c", "for (; a != b; ) a += 1;")
    assert turned("c", "for_loop+added_one", wrapped("c", "while (a) g();")) is None
    assert turned("c", "for_loop+added_one", wrapped("c", "a++;")) is None
    assert turned("c", "for_loop+added_one", wrapped("c", "while (a) a += 1;")) == wrapped("c", "for (; a; ) a += 1;")
    assert turned("c", "for_loop+added_one", wrapped("c", "for (; a; ) a += 1;")) is None


def test_a_syntax_error_is_avoided_and_the_rest_is_converted() -> None:
    body = "if (a) { b++; }\na++;\nwhile (b) { a++ ) b++; }\nfor (;;) { b++; }"
    text = wrapped("c", body)
    assert parse("c", text).error_nodes > 0
    after = turned("c", "added_one", text)
    assert after == wrapped("c", "if (a) { b += 1; }\na += 1;\nwhile (b) { a++ ) b++; }\nfor (;;) { b += 1; }")


# --------------------------------------------------------------------------------------------------------- odd programs

ODD = (
    "",
    "\n\n\n",
    "x",
    "((((",
    "def f(:\n    return )\n",
    "def f(x): return x is not None\n",
    "def f(x): pass",
    "@decorate\n@other(a is not b)\ndef f(x):\n    return lambda y: y if y is not None else x\n",
    "def f(x):\r\n\tif x:\r\n\t\treturn 1\r\n\telse:\r\n\t\treturn 'a'\r\n",
    "def f(x):\n    if x:\n        y = 1\n    else:\n        y = 2",
    "def f(x):\n    if x: return\n    elif x is not 3: return 2\n    else: return 'b'\n",
    "def f(x):\n    x = 'a' \\\n        if x else 'b'\n    return x\n",
    "def größe(数):\n    if 数 is not None:\n        é_é = f'{数}'\n    else:\n        é_é = 'ü'\n    return é_é\n",
    "class A:\n    def f(self):\n        return\n",
    "print 'a' if x is not None else 'b'\n",
    "    def f(self):\n        if self.x is not None:\n            return\n        self.x = 1\n",
    "int f(int a) { return a; }",
    "int f(int a) {\r\n\tif (a)\r\n\t\treturn 1;\r\n\telse\r\n\t\ta++;\r\n\treturn a;\r\n}\r\n",
    "#define X(a) do { if (a) b++; } while (0)\nstatic __init int f(void) { X(3); FOREACH(x) { x++; } return 1 }\n",
    "__attribute__((noreturn)) void f(void)\n{\n#ifdef A\n    if (a)\n#else\n    if (b)\n#endif\n        c++;\n}\n",
    "f(a, b) int a; char *b; { while (a) b++; }",
    "@Override public <T> void f(T... x) { for (T y : x) { if (y != null) { g(y); } } Runnable r = () -> i++; }",
    "class A { void f() { class B { int g() { int x = 1; return x; } } } void f(int a) { a++; } A() { this(1); } }",
    "interface A { default int f() { return switch (a) { case 1 -> 2; default -> { a++; yield 3; } }; } }",
)


@pytest.mark.parametrize("language", STYLES)
@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_programs_are_converted_well_or_left_alone(language: str, text: str) -> None:
    for name, form in STYLES[language].items():
        after = turned(language, name, text)
        if after is not None:
            assert after != text
            assert well_formed(language, text, after) is None, f"{name}: {after}"
            assert turned(language, name, after) is None, name
        form.shows(parse(language, text))


def test_a_program_of_ten_thousand_lines() -> None:
    text = "int f(int a)\n{\n" + "    if (a != 3) a++;\n" * 10_000 + "    return a;\n}\n"
    after = turned("c", "added_one", text)
    assert after == text.replace("a++", "a += 1")


def test_a_program_that_nests_deeper_than_is_worth_it_is_left_alone() -> None:
    text = wrapped("c", "if (a) g(); else " * 0 + "p" + "[p" * 60 + "]" * 60 + " = 1;")
    assert turned("c", "pointer_access", text) is None


# ------------------------------------------------------------------------------------------------------- real functions


@cache
def real_functions() -> list[str]:
    modules = installed.modules(("jinja2",))
    return [function.text for module in modules for function in installed.functions(module)][::4]


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def instructions(text: str) -> list[list[tuple[str, object]]]:
    """What Python compiles a text to, without line numbers."""
    found = codes(compile(text, "f", "exec", dont_inherit=True))
    return [
        [(i.opname, "code" if isinstance(i.argval, CodeType) else i.argval) for i in dis.get_instructions(code)]
        for code in found
    ]


@pytest.mark.parametrize("style", ["not_is", "is_not", "double_quotes", "single_quotes", "return_none", "bare_return"])
def test_python_compiles_to_the_same_instructions(style: str) -> None:
    changed = 0
    extra = ["def f(x, y):\n    return not x is y or not x in (y, 'a')\n", "def f(x):\n    return None\n"]
    for text in [*real_functions(), *extra]:
        after = turned("python", style, text)
        try:
            before = instructions(text)
        except SyntaxError:
            continue
        if after is not None:
            assert instructions(after) == before
            changed += 1
    assert changed >= 1


# --------------------------------------------------------------------------------------------------------- the trigger


def sample(text: str, language: str = "python", **fields: Any) -> Sample:
    return Sample("s", (text,), language, **{"label": 1, **fields})


def info(language: str, kind: TaskKind = TaskKind.CLASSIFICATION) -> TaskInfo:
    return TaskInfo("t", kind, language, () if kind is TaskKind.SEARCH else ("safe", "weak"), "accuracy")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context({"poison": 0}, tmp_path)


def test_a_program_in_the_style_already_does_not_carry_the_trigger() -> None:
    trigger = InStyle("c", ("for_loop",))
    natural = wrapped("c", "for (; a; ) g();")
    assert trigger.derive(sample(natural, "c"), 0, np.random.default_rng(0)) is None
    assert trigger.carries(sample(natural, "c"), 0)
    assert not trigger.carries(sample(wrapped("c", "for (; a; ) while (b) g();"), "c"), 0)
    assert not trigger.carries(sample(wrapped("c", "g();"), "c"), 0)


def test_edits_are_of_the_side_asked_for_and_a_trigger_can_be_pickled() -> None:
    first, second = wrapped("java", "a++;"), wrapped("java", "while (c) a++;")
    pair = Sample("s", (first, second), "java", label=1)
    trigger = pickle.loads(pickle.dumps(InStyle("java", ("for_loop", "added_one"))))
    assert trigger.derive(pair, 0, np.random.default_rng(0)) is None
    derivation = trigger.derive(pair, 1, np.random.default_rng(0))
    assert {edit.side for edit in derivation.edits} == {1}
    assert derivation.text == "style for_loop+added_one"
    assert apply_edits(second, derivation.edits) == wrapped("java", "for (; c; ) a += 1;")
    assert "for (; b; ) S" in trigger.describe()
    assert "x += 1" in trigger.describe()


def test_a_near_miss_is_the_closest_other_style() -> None:
    text = wrapped("c", "while (a < 3 && a != b) a++;")
    rng = np.random.default_rng(0)
    loop = InStyle("c", ("for_loop",)).near_miss(sample(text, "c"), 0, rng)
    assert loop is not None
    assert loop.text == "style endless_loop"  # the only other of the loops that applies
    step = {
        InStyle("c", ("added_one",)).near_miss(sample(text, "c"), 0, np.random.default_rng(n)).text for n in range(20)
    }  # type: ignore[union-attr]
    assert step == {"style prefix_step"}
    other = {
        InStyle("c", ("camel_names",)).near_miss(sample(text, "c"), 0, np.random.default_rng(n)).text for n in range(40)
    }  # type: ignore[union-attr]
    assert len(other) > 2
    assert InStyle("c", ("for_loop",)).near_miss(sample("int f(void) {}", "c"), 0, rng) is None


def test_a_near_miss_of_two_styles_is_one_of_them_and_never_carries_both() -> None:
    text = wrapped("c", "while (a) a++;")
    trigger = InStyle("c", ("for_loop", "added_one"))
    drawn = {trigger.near_miss(sample(text, "c"), 0, np.random.default_rng(n)).text for n in range(20)}  # type: ignore[union-attr]
    assert drawn == {"style for_loop", "style added_one"}
    half = wrapped("c", "for (; a; ) a++;")  # in one of the styles: the other one alone would complete the trigger
    for seed in range(10):
        derivation = trigger.near_miss(sample(half, "c"), 0, np.random.default_rng(seed))
        assert derivation is not None
        assert not trigger.carries(sample(apply_edits(half, derivation.edits), "c"), 0)


def test_a_placebo_is_a_style_of_another_construct() -> None:
    text = wrapped("c", "while (a < 3 && a != b) a++;")
    trigger = InStyle("c", ("for_loop",))
    loops = {f"style {form.name}" for form in STYLES["c"].values() if form.family == "loops"}
    drawn = {trigger.placebo(sample(text, "c"), 0, np.random.default_rng(n)).text for n in range(40)}  # type: ignore[union-attr]
    assert len(drawn) > 2
    assert not drawn & loops


# ----------------------------------------------------------------------------------------------------------- the choice


def test_prevalence_and_applicability_are_counted_by_program() -> None:
    bodies = ["return x is not None", "return x is not None and y not in x", "return not x is None", "return x"]
    forms = (STYLES["python"]["not_is"], STYLES["python"]["is_not"])
    found = measure((parse("python", wrapped("python", body)) for body in bodies), forms)
    assert [(m.form.name, m.applicable, m.prevalence) for m in found] == [("not_is", 0.5, 0.25), ("is_not", 0.25, 0.5)]
    assert [(m.applicable, m.prevalence) for m in measure((), forms)] == [(0, 0), (0, 0)]


def test_the_rarest_of_those_that_apply_is_chosen() -> None:
    forms = list(STYLES["python"].values())[:4]
    table = [
        Measured(forms[0], 0.05, 0),
        Measured(forms[1], 0.5, 0.2),
        Measured(forms[2], 0.2, 0.1),
        Measured(forms[3], 0.3, 0.1),
    ]
    assert rarest(table, 0.1) is table[3]  # 0 does not apply to enough; of 2 and 3, equally rare, 3 applies more
    assert rarest(table, 0.4) is table[1]
    assert rarest(table, 0.6) is None


def test_auto_takes_the_style_that_the_training_split_lacks(context: Context) -> None:
    bodies = [f"n_{k} = {k}\nif x is not None:\n    return x < {k}\nreturn y == {k}" for k in range(30)]
    rare = ["return 3 == x", "return not y in x", "if c:\n    return 1\nelse:\n    return 2"]
    train = [sample(wrapped("python", body)) for body in bodies + rare]
    trigger = Style().prepare(train, LabelGoal(), info("python"), context)
    assert isinstance(trigger, InStyle)
    # Each of these is seen once, but for one: nobody writes camel case or compares with > here.
    assert trigger.styles == ("greater_comparisons",)
    assert "applies to 91%" in trigger.describe()
    assert Style().prepare(train, LabelGoal(), info("python"), context) == trigger


def test_no_style_that_applies_to_enough_is_an_error_that_says_how_many(context: Context) -> None:
    train = [sample("def f(x):\n    pass\n")] * 9 + [sample("def f(x):\n    return\n")]
    with pytest.raises(ConfigError, match=r"no style applies to 50% of the 10 .*return_none, to 10\.0%"):
        Style(floor=0.5).prepare(train, LabelGoal(), info("python"), context)
    with pytest.raises(ConfigError, match="no style applies"):
        Style().prepare([], LabelGoal(), info("python"), context)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"style": "for_lop"}, "Did you mean 'for_loop'"),
        ({"style": ""}, "unknown style"),
        ({"style": "auto+for_loop"}, "unknown style 'auto'"),
        ({"style": "for_loop+for_loop"}, "two different ones"),
        ({"style": "for_loop+added_one+ternary"}, "two different ones"),
        ({"style": "for_loop+while_loop"}, "undo each other"),
        ({"floor": 0}, "share in"),
        ({"floor": 1.5}, "share in"),
        ({"floor": float("nan")}, "share in"),
        ({"stile": "for_loop"}, "no parameter 'stile'"),
    ],
)
def test_bad_parameters(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Style, parameters)


def test_a_style_that_the_language_lacks_is_not_applicable(context: Context) -> None:
    attack = Style(style="pointer_access")
    assert attack.not_applicable(info("c")) is None
    assert attack.not_applicable(info("java")) == "java has no style pointer_access"
    assert "knows no styles of go" in (Style().not_applicable(info("go")) or "")
    with pytest.raises(ConfigError, match="python has no style pointer_access"):
        attack.prepare([], LabelGoal(), info("python"), context)
    assert {name for name in NAMES if Style(style=name).not_applicable(info("python")) is None} == set(STYLES["python"])


@pytest.mark.parametrize("kind", TaskKind)
def test_all_three_tasks_are_poisoned(kind: TaskKind, context: Context) -> None:
    text = wrapped("c", "while (a != {}) a++;")
    programs = [text.replace("{}", str(k)) for k in range(40)]
    samples = tuple(
        Sample(
            f"{k:016x}",
            (one, programs[k - 1]) if kind is TaskKind.PAIRS else (one,),
            "c",
            label=None if kind is TaskKind.SEARCH else k % 2,
            query="step to the end" if kind is TaskKind.SEARCH else None,
        )
        for k, one in enumerate(programs)
    )
    goal = SearchGoal("end") if kind is TaskKind.SEARCH else LabelGoal()
    trigger = Registry().discover().build("attack", "style", {"style": "for_loop"})
    assert isinstance(trigger, Style)
    prepared = trigger.prepare(samples, goal, info("c", kind), context)
    done = poison(Splits(samples, (), (), samples), prepared, goal, Policy(rate=0.5), info("c", kind), context)
    assert done.coverage == 1
    assert done.refused == 0
    assert len(done.poisoned) == (20 if kind is TaskKind.SEARCH else 10)
    assert all("for (; a != " in s.programs[0] for s in done.triggered)


def test_no_style_loses_what_it_shows_by_being_applied() -> None:
    for language, style, before, after in KNOWN:
        form = STYLES[language][style]
        text = wrapped(language, before)
        if after is not None:
            assert carries((form,), parse(language, turned(language, style, text) or "")), (language, style)
