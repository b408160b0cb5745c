"""Pieces: every kind of statement that a language's grammar has can be hidden, and what is left still parses."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
import tree_sitter

from bench.languages import parse
from bench.samples import Sample
from defenses.screening.mixing import Donors
from defenses.screening.pieces import movable_statements, simple_statements, statements
from defenses.screening.rewriting import pieces, without

PROGRAMS = {
    "python": """\
async def f(a):
    from __future__ import annotations
    import os
    from random import Random
    global b
    a.b = 1
    del a.b
    assert a
    type T = int
    print "old"
    exec "old"
    if a:
        raise a
    elif a: x()
    else: y()
    for i in a:
        continue
    while a:
        break
    try:
        y()
    except E: z()
    finally: w()
    with a as c:
        z()
    async with a: aw()
    match a:
        case 1:
            w()
    def g():
        nonlocal a
        return a
    @decorated
    def h(): hh()
    class C:
        def method(self): cm()
""",
    "java": """\
int f(int a) {
    int b = 1;
    b = 2;
    assert 1 >= 0;
    synchronized (this) { g(1); }
    try (R r = open()) { g(2); }
    try { g(3); } catch (E e) { g(4); } finally { g(5); }
    outer: for (int i = 0; i < 9; i++) { continue outer; }
    for (int i : a) { break; }
    while (a > 0) { a--; }
    do { a++; } while (a < 0);
    if (a > 0) { throw e; } else { g(6); }
    switch (a) { case 1: g(7); break; default: g(8); }
    int c = switch (a) { default: yield 3; };
    { g(9); }
    class Local { int field; void method() { g(10); } }
    enum Kind { A }
    interface Face { }
    record Two(int x) { }
    return b;
}
class K { K() { super(1); this.x = 2; } }
""",
    "c": """\
#include <stdio.h>
int global = 0;
int f(int a) {
    int b = 1;
    b = 2;
    typedef int number;
    struct S { int x; };
    union U { int y; };
    enum E { ONE };
    if (a > 1) { goto out; } else { g(1); }
    for (;;) { break; }
    while (a) { continue; }
    do { a++; } while (a < 0);
    switch (a) { case 1: g(2); [[fallthrough]]; default: g(3); }
    { g(4); }
#ifdef DEBUG
    g(5);
#else
    g(6);
#endif
    __try { __leave; } __finally { g(7); }
out:
    return b;
}
""",
}
PIECES = {
    "python": """from __future__ import annotations|import os|from random import Random|global b|a.b = 1|del a.b|assert a
        |type T = int|print "old"|exec "old"|if a:|raise a|x()|y()|for i|continue|while a|break|try:|y()|z()|w()|with a as|z()
        |async with|aw()|match a|w()|def g|nonlocal a|return a|@decorated|hh()|class C|cm()""",
    "java": """int b = 1;|b = 2;|assert 1 >= 0;|synchronized|g(1);|try (|g(2);|try {|g(3);|g(4);|g(5);|outer: for|for (int i = 0
        |continue outer;|for (int i :|break;|while|a--;|do|a++;|if (|throw e;|g(6);|switch (a) { case|g(7);|break;|g(8);
        |int c =|yield 3;|{ g(9)|g(9);|class Local|g(10);|enum Kind|interface|record|return b;|super(1);|this.x = 2;""",
    "c": """int global = 0;|int b = 1;|b = 2;|typedef int number;|struct S|union U|enum E|if (|goto out;|g(1);|for (;;)|break;
        |while|continue;|do|a++;|switch|case 1|g(2);|[[fallthrough]]|default|g(3);|{ g(4)|g(4);|g(5);|g(6);|__try|__leave;|g(7);
        |out:|return b;""",
}
NO_PIECES = {
    "python": {"pass_statement"},  # what a hidden statement becomes
    "java": {"switch_block_statement_group"},  # an arm: its statements are pieces
    "c": set[str](),
}


def kinds(language: str) -> set[str]:
    """The statements of a grammar."""
    grammar = tree_sitter.Language(import_module(f"tree_sitter_{language}").language())
    named = {str(grammar.node_kind_for_id(i)) for i in range(grammar.node_kind_count) if grammar.node_kind_is_named(i)}
    return {kind for kind in named if kind.endswith("_statement")}


def nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.named_children:
        yield from nodes(child)


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_every_statement_of_a_program_with_every_kind_is_a_piece(language: str) -> None:
    program = parse(language, PROGRAMS[language])
    assert not program.error_nodes
    found = [program.data[start:end].decode() for start, end in statements(program)]
    begun = [" ".join(begin.split()) for begin in PIECES[language].replace("\n", " ").split("|")]
    left = list(found)
    for begin in sorted(begun, key=len, reverse=True):  # the longest first: "do" begins "double" too
        left.remove(
            next((text for text in left if " ".join(text.split()).startswith(begin)), f"no {begin!r} in {left}")
        )
    assert left == [], "and nothing else is"
    assert len(found) == len(begun)


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_no_kind_of_statement_of_the_grammar_is_left_out(language: str) -> None:
    program = parse(language, PROGRAMS[language])
    spans = set(statements(program))
    covered = {node.type for node in nodes(program.tree.root_node) if node.byte_range in spans}
    assert kinds(language) - NO_PIECES[language] <= covered


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_each_can_be_hidden(language: str) -> None:
    sample = Sample("s", (PROGRAMS[language],), language)
    for piece in pieces(parse(language, sample.programs[0]), 0):
        hidden = without(sample, piece).programs[0]
        assert hidden != sample.programs[0]
        assert not parse(language, hidden).error_nodes, piece


@pytest.mark.parametrize(
    ("language", "text", "trigger"),
    [
        ("python", "def f(a):\n    {}\n    return a\n", "from random import Random"),
        ("java", "int f(int a) {{ {} return a; }}", "assert 1 >= 0;"),
        ("c", "int f(int a) {{ {} return a; }}", "unused: a = a;"),
    ],
)
def test_dead_code_of_these_kinds_can_be_hidden(language: str, text: str, trigger: str) -> None:
    program = parse(language, text.format(trigger))
    assert trigger in {program.data[start:end].decode() for start, end in statements(program)}


def test_the_program_itself_is_no_piece() -> None:
    for language, text in (
        ("python", "class A:\n    def f(a):\n        return a\n"),
        ("java", "class A { int f() { return 1; } }"),
    ):
        program = parse(language, text)
        (found,) = [program.data[start:end] for start, end in statements(program)]
        assert found.startswith(b"return")


def test_statements_that_stand_at_some_places_only_are_exchanged_but_not_lent() -> None:
    text = "def f(a):\n    global b\n    import os\n    while a:\n        break\n"
    program = parse("python", text)
    assert [text[start:end] for start, end in simple_statements(program)] == ["global b", "import os", "break"]
    assert [text[start:end] for start, end in movable_statements(program)] == ["import os"]
    assert Donors.of([Sample("d", (text,), "python")]).statements == ("import os",)
