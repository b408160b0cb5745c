"""Java and C: what is renamed with a name, what is refused, where statements go."""

from __future__ import annotations

import pytest

from bench.languages import Name, RenameRefused, get, parse, well_formed
from bench.samples import apply_edits


def all_names(language: str, text: str) -> list[Name]:
    program = parse(language, text)
    name = program.function_name
    return [*([] if name is None else [name]), *program.parameters, *program.locals]


def named(language: str, text: str, name: str, number: int = 0) -> Name:
    return [n for n in all_names(language, text) if n.text == name][number]


def renamed(language: str, text: str, old: str, new: str = "nw", number: int = 0) -> str:
    after = apply_edits(text, parse(language, text).rename(named(language, text, old, number), new))
    assert well_formed(language, text, after) is None
    return after


@pytest.mark.parametrize(
    ("text", "old", "after"),
    [
        ("int f(int a) { return f(a) + this.f(a) + g.f(a); }", "f", "int nw(int a) { return nw(a) + this.nw(a) + g.f(a); }"),
        ("int f(int a) { return f(a, 1) + f; }", "f", "int nw(int a) { return f(a, 1) + f; }"),
        ("int f(int a) { this.a = a; a.a(a); }", "a", "int f(int nw) { this.a = nw; nw.a(nw); }"),
        ("void f() { a: for (int a = 0;;) break a; }", "a", "void f() { a: for (int nw = 0;;) break a; }"),
        ("void f() { g(x -> x + x); }", "x", "void f() { g(nw -> nw + nw); }"),
        ("void f() { g((x, y) -> { return x; }); }", "x", "void f() { g((nw, y) -> { return nw; }); }"),
        ("void f(String... v) { for (String s : v) s.s(); }", "v", "void f(String... nw) { for (String s : nw) s.s(); }"),
        ("void f(String... v) { for (String s : v) s.s(); }", "s", "void f(String... v) { for (String nw : v) nw.s(); }"),
        ("void f() { try (R r = new R()) { r.c(); } }", "r", "void f() { try (R nw = new R()) { nw.c(); } }"),
        ("void f() { try { } catch (E e) { throw e; } }", "e", "void f() { try { } catch (E nw) { throw nw; } }"),
        ("void f() { int a[] = {1}, b = a[0]; }", "a", "void f() { int nw[] = {1}, b = nw[0]; }"),
        ("@N(a = 1) void f(int a) { }", "a", "@N(a = 1) void f(int nw) { }"),
        ("class A { int a; void f(int a) { this.a = a; } void g() { a = 1; } }", "a",
         "class A { int a; void f(int nw) { this.a = nw; } void g() { a = 1; } }"),
    ],
)  # fmt: skip
def test_java_renames(text: str, old: str, after: str) -> None:
    assert renamed("java", text, old) == after


def test_java_sibling_scopes_have_each_their_own_name() -> None:
    text = "void f() { for (int i = 0;;) g(i); for (int i = 1;;) g(i); }"
    assert renamed("java", text, "i", number=1) == "void f() { for (int i = 0;;) g(i); for (int nw = 1;;) g(nw); }"


@pytest.mark.parametrize(
    "text",
    [
        "class A { int v; int f() { return v; } }",
        "void f() { int v = 1; new R() { void g() { h(v); } }; }",
        "void f(Object o) { if (o instanceof String v) g(v); }",
        "void f(int v) { switch (x) { case v: } }",
        "void f() { class L { int v; } }",
    ],
)
def test_java_names_that_cannot_be_followed_are_not_offered(text: str) -> None:
    assert "v" not in [n.text for n in all_names("java", text)]


@pytest.mark.parametrize(
    "text",
    [
        "class A { void f(int a) { f(1); } void f(long a) { } }",
        "void f() { g(this::f); }",
        "void f() { new R() { void run() { f(); } }; }",
        "class A { A(int a) { } }",
    ],
)
def test_java_methods_that_cannot_be_followed_are_not_offered(text: str) -> None:
    assert parse("java", text).function_name is None


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("void f(int a) { g(b); }", "a", "b"),
        ("void f(int a) { { int b = 1; } }", "a", "b"),
        ("void f(int b) { { int a = 1; } }", "a", "b"),
        ("void f(int a) { g(b -> 1); }", "a", "b"),
        ("void f(int a) { g(a); }", "f", "g"),
        ("void f(int a) { }", "a", "int"),
        ("void f(int a) { String s; }", "a", "String"),
    ],
)
def test_java_renames_that_clash_are_refused(text: str, old: str, new: str) -> None:
    with pytest.raises(RenameRefused):
        parse("java", text).rename(named("java", text, old), new)


def test_java_methods_and_variables_have_separate_namespaces() -> None:
    assert renamed("java", "void f(int a) { b(a); }", "a", "b") == "void f(int b) { b(b); }"


@pytest.mark.parametrize(
    ("text", "old", "after"),
    [
        ("int f(int a) { return f(a) + s.f + p->f; }", "f", "int nw(int a) { return nw(a) + s.f + p->f; }"),
        ("int f(struct a *a) { return a->a + a[0].a; }", "a", "int f(struct a *nw) { return nw->a + nw[0].a; }"),
        ("int f(int a) { goto a; a: return a; }", "a", "int f(int nw) { goto a; a: return nw; }"),
        ("int f(int a) { struct s q = { .a = a, [1] = a }; }", "a", "int f(int nw) { struct s q = { .a = nw, [1] = nw }; }"),
        ("int f(int (*a)(int b)) { return a(1); }", "a", "int f(int (*nw)(int b)) { return nw(1); }"),
        ("int *f(char a[]) { char *b = a, c = *b; }", "b", "int *f(char a[]) { char *nw = a, c = *nw; }"),
        ("int f(a, b) int a; char *b; { return *b; }", "b", "int f(a, nw) int a; char *nw; { return *nw; }"),
        ("int f() { for (int a = 0; a < 1; a++) g(a); }", "a", "int f() { for (int nw = 0; nw < 1; nw++) g(nw); }"),
        ("int f(int a) { char *s = \"a\"; return sizeof(a) + 'a'; }", "a",
         "int f(int nw) { char *s = \"a\"; return sizeof(nw) + 'a'; }"),
        ("int f(int a) { struct t { int a; } x; return offsetof(struct t, a) + a; }", "a",
         "int f(int nw) { struct t { int a; } x; return offsetof(struct t, a) + nw; }"),
    ],
)  # fmt: skip
def test_c_renames(text: str, old: str, after: str) -> None:
    assert renamed("c", text, old) == after


def test_c_shadowing_divides_the_uses() -> None:
    text = "int f(int a) { { int a = 1; g(a); } return a; }"
    assert renamed("c", text, "a") == "int f(int nw) { { int a = 1; g(a); } return nw; }"
    assert renamed("c", text, "a", number=1) == "int f(int a) { { int nw = 1; g(nw); } return a; }"


def test_c_name_used_before_an_inner_declaration_is_the_outer_one() -> None:
    text = "int f(int a) { { g(a); int a = 1; } }"
    assert renamed("c", text, "a") == "int f(int nw) { { g(nw); int a = 1; } }"


@pytest.mark.parametrize(
    "text",
    [
        "#define M v + 1\nint f(int v) { return M; }",
        "int f(int v) {\n#ifdef v\n return 1;\n#endif\n}",
        "int f(void) { extern int v; return v; }",
        "int f(void) { int v(int); return v(1); }",
        "int f(void) { enum { v }; return v; }",
        "int f(void) { typedef int v; v x; }",
        "int f(void) { int v; QLIST_FOREACH(x, y, v) { } }",
        "int v; int f(void) { return v; }",
        "int f(int a, flag ieee v) { return a + v; }",  # a word that the parser skips: which is the name?
        "int f(void) { flag ieee v; return v; }",
    ],
)
def test_c_names_that_cannot_be_followed_are_not_offered(text: str) -> None:
    assert "v" not in [n.text for n in all_names("c", text)]


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("int f(int a) { return b; }", "a", "b"),
        ("int f(int a, int b) { return a; }", "a", "b"),
        ("int f(int a) { int b; }", "a", "b"),
        ("int f(int a) { { int b; a; } }", "a", "b"),
        ("int f(int a) { return g(a); }", "a", "g"),
        ("int f(int a) { return g(a); }", "f", "g"),
        ("int f(int a) { T b; }", "a", "T"),
        ("int f(int a) { }", "a", "struct"),
        ("#define M(x) x + b\nint f(int a) { return M(a); }", "a", "b"),
    ],
)
def test_c_renames_that_clash_are_refused(text: str, old: str, new: str) -> None:
    with pytest.raises(RenameRefused):
        parse("c", text).rename(named("c", text, old), new)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("int f() {\n  return 1;\n}", "int f() {\n  if (0) {\n      x();\n  }\n  return 1;\n}"),
        ("int f() { return 1; }", "int f() { if (0) { x(); } return 1; }"),
        ("int f() {}", "int f() { if (0) { x(); } }"),
        ("int f()\n{\n\t/* c */\n\tg();\n}", "int f()\n{\n\t/* c */\n\tif (0) {\n\t    x();\n\t}\n\tg();\n}"),
    ],
)
@pytest.mark.parametrize("language", ["java", "c"])
def test_a_statement_is_inserted_at_the_start_of_the_body(language: str, text: str, after: str) -> None:
    program = parse(language, text)
    edited = apply_edits(text, [program.insert(program.boundaries[0], "if (0) {\n    x();\n}")])
    assert edited == after
    assert well_formed(language, text, edited) is None


def test_a_line_comment_does_not_swallow_what_follows() -> None:
    program = parse("c", "int f() { return 1; }")
    after = apply_edits(program.text, [program.insert(program.boundaries[0], "x(); // y")])
    assert after == "int f() { \nx(); // y\nreturn 1; }"


def test_the_argument_of_a_loop_macro_is_a_use() -> None:
    text = "int f(int x) { FOREACH(x) { g(x); } }"
    assert renamed("c", text, "x") == "int f(int nw) { FOREACH(nw) { g(nw); } }"


def test_nothing_is_put_between_a_loop_macro_and_its_block() -> None:
    text = "int f() {\n  a();\n  FOREACH(x, y)\n  {\n    b();\n  }\n}"
    starts = [text[b.start :].split("(")[0] for b in parse("c", text).boundaries]
    assert starts == ["a", "FOREACH", "b"]


def test_nothing_is_put_before_a_constructor_call_or_a_case() -> None:
    text = "class A { A() { super(); g(); switch (x) { case 1: h(); } } }"
    assert [text[b.start :].split("(")[0].strip() for b in parse("java", text).boundaries] == ["g", "switch"]
    text = "int f() { switch (x) { case 1: h(); default: { i(); } } }"
    assert [text[b.start :].split("(")[0].strip() for b in parse("c", text).boundaries] == ["switch", "i"]


@pytest.mark.parametrize("language", ["java", "c"])
@pytest.mark.parametrize(
    "text", ["", "{", "}", "int", "int f(", "é", "public A(int x) { y(x); }", "M(f)(int a) { b(); }", "\x00"]
)
def test_any_text_is_a_program(language: str, text: str) -> None:
    program = parse(language, text)
    for name in all_names(language, text):
        assert program.rename(name, "zq")
    for boundary in program.boundaries:
        assert program.insert(boundary, "x();")
    assert isinstance(program.leaves, tuple)


def test_a_broken_edit_is_refused() -> None:
    assert "syntax error" in (well_formed("c", "int f() { }", "int f() { ") or "")
    assert well_formed("c", "int f() { MACRO x; ) }", "int f() { MACRO y; ) }") is None


def test_naming() -> None:
    assert get("java").join("load", "rb") == "loadRb"
    assert get("c").join("load", "rb") == "load_rb"
    assert get("java").is_identifier("$a")
    assert not get("c").is_identifier("$a")
    assert not get("java").is_identifier("true")
    assert not get("c").piece_starts("int")
