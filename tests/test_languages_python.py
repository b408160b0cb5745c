"""Python: what is renamed with a name, what is refused, where statements go."""

from __future__ import annotations

import ast
import textwrap

import pytest

from bench.errors import ConfigError
from bench.languages import Name, RenameRefused, get, names, parse, well_formed
from bench.samples import apply_edits


def code(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def named(text: str, name: str) -> Name:
    program = parse("python", text)
    found = [
        n for n in (program.function_name, *program.parameters, *program.locals) if n is not None and n.text == name
    ]
    assert len(found) == 1, f"{len(found)} renameable names {name!r}"
    return found[0]


def renamed(text: str, old: str, new: str = "new") -> str:
    text = code(text)
    after = apply_edits(text, parse("python", text).rename(named(text, old), new))
    assert well_formed("python", text, after) is None
    return after


def offered(text: str) -> set[str]:
    program = parse("python", code(text))
    return {n.text for n in (*program.parameters, *program.locals)}


def test_languages_are_three_and_an_unknown_one_suggests() -> None:
    assert names() == ("c", "java", "python")
    with pytest.raises(ConfigError, match="python"):
        get("pyton")


def test_function_name_is_renamed_with_its_recursive_calls_but_not_attributes() -> None:
    assert renamed("def f(self):\n    return f(self.f, g.f(f=1))\n", "f") == (
        "def new(self):\n    return new(self.f, g.f(f=1))\n"
    )


def test_a_parameter_is_renamed_everywhere_but_as_attribute_keyword_or_text() -> None:
    assert renamed("def f(a):\n    return a.a, g(a=a), 'a', f'a{a!r:{a}}', {'a': a}  # a\n", "a") == (
        "def f(new):\n    return new.a, g(a=new), 'a', f'a{new!r:{new}}', {'a': new}  # a\n"
    )


def test_defaults_and_annotations_belong_to_the_enclosing_scope() -> None:
    assert renamed("def f(x):\n    def g(x=x, y: x = 1) -> x: return x\n    return lambda x=x: x\n", "g") == (
        "def f(x):\n    def new(x=x, y: x = 1) -> x: return x\n    return lambda x=x: x\n"
    )
    program = parse("python", "def f(x):\n    return lambda x=x: x\n")
    assert [(n.text, n.spans) for n in program.parameters] == [("x", ((6, 7), (30, 31)))]
    assert [(n.text, n.spans) for n in program.locals] == [("x", ((28, 29), (33, 34)))]


def test_a_comprehension_has_a_scope_of_its_own_but_its_first_iterable_has_not() -> None:
    program = parse("python", "def f(x):\n    return [x for x in x if x]\n")
    assert program.parameters[0].spans == ((6, 7), (33, 34))
    assert program.locals[0].spans == ((22, 23), (28, 29), (38, 39))


def test_a_walrus_binds_in_the_function() -> None:
    assert renamed("def f(a):\n    [n for i in a if (n := i)]\n    return n\n", "n") == (
        "def f(a):\n    [new for i in a if (new := i)]\n    return new\n"
    )


def test_closures_follow_the_outer_name() -> None:
    assert renamed("def f():\n    v = 1\n    def g():\n        return v\n    return g\n", "v") == (
        "def f():\n    new = 1\n    def g():\n        return new\n    return g\n"
    )


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("with a as v: v", "v"),
        ("with a as (v, w): v", "v"),
        ("for v, (w, *u) in a: v", "v"),
        ("for v, (w, *u) in a: u", "u"),
        ("try: a\n    except E as v: v", "v"),
        ("(v, [w]) = a; v", "w"),
        ("v += 1", "v"),
        ("v: int = a", "v"),
        ("del v", "v"),
        ("match a:\n        case [v, *w] if v: w", "w"),
        ("match a:\n        case {'k': v, **w}: v", "v"),
        ("match a:\n        case K(k=v) | L(1, v): v", "v"),
        ("match a:\n        case 1 as v: v", "v"),
    ],
)
def test_every_way_to_bind_a_local_is_known(statement: str, name: str) -> None:
    text = f"def f(a):\n    {statement}\n"
    after = renamed(text, name, "zz")
    assert name not in [leaf.text for leaf in parse("python", after).leaves if leaf.type == "identifier"]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    global v\n    v = 1\n",
        "def f():\n    v = 1\n    def g():\n        nonlocal v\n        v = 2\n",
        "def f():\n    import v\n",
        "def f():\n    from m import x as v\n",
        "def f():\n    class C:\n        v = 1\n    return C.v\n",
        "def f(v):\n    return f'{v=}'\n",
        "def f(v):\n    return f(v=1)\n",
        "def f(v, w):\n    return self.f(**w)\n",
        "def f(v):\n    return partial(f, v=1)\n",
        "def f():\n    g = lambda v: v\n    return g(v=1)\n",
        "@cases('v', 1)\ndef f(v):\n    pass\n",
        "def f(d, v):\n    return d.query('a > @v')\n",
        "def f(d, v):\n    text = 'a > @v'\n    return d.query(text)\n",
        "def f(d, v):\n    return d.eval('b = a > @v')\n",
        "def f(v):\n    return pandas.eval('v + 1')\n",
        "def f(v):\n    return locals()\n",
        "def f(v):\n    return eval('v')\n",
        "def f(v):\n    exec('v')\n",
        "def f(v):\n    return sys._getframe().f_locals\n",
    ],
)
def test_a_name_that_cannot_be_followed_is_not_offered(text: str) -> None:
    assert "v" not in offered(text)


@pytest.mark.parametrize(
    "place",
    ["v.w", "v.w.v", "v.v().v", "(v\n    .v)", "v . v", "v[v.v].v", "(v).v", "v.é", "[v.v for x in v.v]", "f'{v.v}'"],
)
def test_a_name_before_a_dot_is_a_use_and_one_behind_it_is_not(place: str) -> None:
    (name,) = parse("python", text := f"def f(v):\n    return {place}\n").parameters
    uses = [node.col_offset for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and node.id == "v"]
    assert len(name.spans) == 1 + len(uses)
    after = apply_edits(text, parse("python", text).rename(name, "new"))
    expected = ast.parse(text)
    for node in ast.walk(expected):
        if isinstance(node, ast.Name) and node.id == "v":
            node.id = "new"
        elif isinstance(node, ast.arg):
            node.arg = "new"
    assert ast.dump(ast.parse(after)) == ast.dump(expected)


@pytest.mark.parametrize(
    ("text", "is_offered"),
    [
        ("def f(v):\n    return f(1) + f(2) + g(v=3)\n", True),
        ("def f(v):\n    return f (1)(v=3)\n", True),
        ("def f(v):\n    return g(f, v=3)\n", False),
        ("def f(v):\n    h = f\n    return h(v=3)\n", False),
        ("def f(v):\n    return f(v=3)\n", False),
        ("def f(v):\n    class C(B, v=3):\n        pass\n    return [f]\n", True),
        ("def f(v):\n    return f(**{'v': 1})\n", False),
        ("def f(v):\n    return {**v}, f\n", True),
        ("def f(a):\n    def g(v):\n        return v\n    h = g\n    return h(**a)\n", False),
        ("def f(a):\n    def g(v=1, *w):\n        return v\n    return partial(g, **a)\n", False),
        ("def f(a):\n    def g(v: int):\n        return v\n    return Thread(target=g, kwargs={'v': 3})\n", False),
        ("def f(a):\n    def g(v):\n        return v\n    return pool.apply_async(g, kwds=a)\n", False),
        ("def f(a):\n    g = lambda v: v\n    return g(**a)\n", False),
        ("def f(a):\n    class C:\n        def __init__(self, v):\n            v()\n    return C(**a)\n", False),
        ("def f(a):\n    def g(v):\n        return v\n    h = g if a else None\n    return h(**a)\n", False),
        ("def f(a):\n    return g(lambda v: v, **a)\n", False),
        ("def f(a, v):\n    return partial(f, **a)\n", False),
        ("def f(a):\n    return h(**g(key=lambda v: v))\n", True),
        ("def f(a):\n    return h(lambda v: v, **g(a))\n", False),
        # ``**`` for something else
        ("def f(a):\n    def g(v, **w):\n        return a(v, **w)\n    return g\n", True),
        ("def f(a):\n    return g(g(key=lambda v: v), 1), h(**a)\n", True),
        # nobody names these
        ("def f(a):\n    def g(*w, **v):\n        return a(*w, **v)\n    return g\n", True),
        ("def f(a):\n    def g(w):\n        v = w\n        return v\n    return partial(g, **a)\n", True),
        ("def f(a):\n    def g(v):\n        return v\n    return g(1), h(**a)\n", True),
        ("def f(a):\n    def g(v):\n        return v\n    return partial(g, 1)\n", True),
    ],
)
def test_a_keyword_fixes_a_parameter_of_a_function_that_is_called_so_or_handed_on(text: str, is_offered: bool) -> None:
    assert ("v" in offered(text)) is is_offered


@pytest.mark.parametrize("option", ["--dry-run", "-n/--no-x/--dry-run", "--Dry-Run"])
def test_a_parameter_that_an_option_of_the_command_line_names_stays(option: str) -> None:
    assert offered(f"@click.option('{option}', default=1)\ndef f(dry_run, other):\n    pass\n") == {"other"}


@pytest.mark.parametrize(
    ("decorator", "is_offered"),
    [("value.setter", False), ("register(value)", False), ("other.value", True), ("other(value=1)", True)],
)
def test_a_function_whose_decorator_names_an_outer_object_of_its_name_keeps_it(
    decorator: str, is_offered: bool
) -> None:
    name = parse("python", f"@{decorator}\ndef value(self, v):\n    self.v = v\n").function_name
    assert (name is not None) is is_offered


def test_a_keyword_argument_of_another_function_does_not_bind_a_parameter() -> None:
    assert renamed("def f(v):\n    return g(v=v)\n", "v") == "def f(new):\n    return g(v=new)\n"


@pytest.mark.parametrize(
    ("text", "old", "new", "why"),
    [
        ("def f(a, b):\n    return a\n", "a", "b", "already bound"),
        ("def f(a):\n    return a + free\n", "a", "free", "captured"),
        ("def f(a):\n    return [a for b in c]\n", "a", "b", "captured"),
        ("def f(a):\n    return lambda b: a\n", "a", "b", "captured"),
        ("def f(a):\n    def g():\n        return free\n    return g\n", "a", "free", "captured"),
        ("def f(a):\n    return len(a)\n", "a", "len", "captured"),
        ("def f(a):\n    return f(a)\n", "a", "f", "captured"),
        ("def f(a):\n    return f(a)\n", "f", "a", "captured"),
        ("def f(a):\n    global g\n    g = a\n", "a", "g", "cannot be followed"),
        ("def f(a):\n    return a\n", "a", "class", "not an identifier"),
        ("def f(a):\n    return a\n", "a", "1x", "not an identifier"),
        ("def f(a):\n    return a\n", "a", "a", "already"),
    ],
)
def test_a_rename_that_would_change_a_binding_is_refused(text: str, old: str, new: str, why: str) -> None:
    with pytest.raises(RenameRefused, match=why):
        parse("python", text).rename(named(text, old), new)


def test_an_equal_name_in_an_unrelated_scope_is_no_obstacle() -> None:
    assert renamed("def f(a):\n    g = lambda b: b\n    return a.b, g(a, c=1)\n", "a", "b") == (
        "def f(b):\n    g = lambda b: b\n    return b.b, g(b, c=1)\n"
    )


def test_a_name_of_another_program_is_refused() -> None:
    with pytest.raises(RenameRefused, match="of this program"):
        parse("python", "def f(a): pass\n").rename(Name("b", ((6, 7),), "parameter"), "c")


def test_spans_are_bytes_when_the_text_is_not_ascii() -> None:
    assert renamed("def f(a):\n    return 'é𝄞', a  # ü\n", "a") == "def f(new):\n    return 'é𝄞', new  # ü\n"


def inserted(text: str, number: int = 0, statement: str = "if 0:\n    x = 1") -> str:
    text = code(text)
    program = parse("python", text)
    after = apply_edits(text, [program.insert(program.boundaries[number], statement)])
    assert well_formed("python", text, after) is None
    return after


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("def f():\n    return 1\n", "def f():\n    if 0:\n        x = 1\n    return 1\n"),
        ('def f():\n    """d"""\n    return 1\n', 'def f():\n    """d"""\n    if 0:\n        x = 1\n    return 1\n'),
        ('def f():\n    """d"""\n', 'def f():\n    """d"""\n    if 0:\n        x = 1\n'),
        ("def f(): return 1\n", "def f():\n    if 0:\n        x = 1\n    return 1\n"),
        ("def f(): a(); b()\n", "def f():\n    if 0:\n        x = 1\n    a(); b()\n"),
        ("def f():\n\treturn 1\n", "def f():\n\tif 0:\n\t    x = 1\n\treturn 1\n"),
        ("def f():\r\n  return 1\r\n", "def f():\r\n  if 0:\r\n      x = 1\r\n  return 1\r\n"),
        (
            "@d\nasync def f(\n    a,\n): return 1\n",
            "@d\nasync def f(\n    a,\n):\n    if 0:\n        x = 1\n    return 1\n",
        ),
    ],
)
def test_a_statement_is_inserted_at_the_start_of_the_body(text: str, after: str) -> None:
    assert inserted(text) == after


def test_every_boundary_takes_a_statement() -> None:
    text = code(
        """
        def f(a):
            # c
            x = 1; y = 2
            if a:
                return x
            elif x: return y
            for i in a: print(i)
            else:
                pass
            while x: \\
                break
            match a:
                case 1:
                    pass
            def g():
                return 1
            return [
                a
            ]
        """
    )
    program = parse("python", text)
    assert len(program.boundaries) == 12
    for boundary in program.boundaries:
        assert well_formed("python", text, apply_edits(text, [program.insert(boundary, "u = 1\nw = 2")])) is None


def test_an_indented_method_is_a_program() -> None:
    text = "    def f(self, a):\n        return a\n"
    program = parse("python", text)
    after = apply_edits(
        text, [program.insert(program.boundaries[0], "x = 1"), *program.rename(program.parameters[1], "b")]
    )
    assert after == "    def f(self, b):\n        x = 1\n        return b\n"
    assert well_formed("python", text, after) is None


def test_a_broken_edit_is_refused() -> None:
    assert "syntax error" in (well_formed("python", "def f(): pass\n", "def f(: pass\n") or "")
    assert "compiles" in (well_formed("python", "x = 1\n", "return 1\n") or "")
    assert "compiles" in (well_formed("python", "def f(a, b): pass\n", "def f(a, a): pass\n") or "")


def test_what_was_broken_before_may_stay_so() -> None:
    assert well_formed("python", "def f(: a\n", "def f(: b\n") is None
    assert well_formed("python", "def g():\n    nonlocal a\n", "def g():\n    nonlocal a\n    b = 1\n") is None


def test_leaves_and_comments_divide_the_text() -> None:
    program = parse("python", "def f(a):  # c\n    return f'x{a:>{3}}'\n")
    assert [program.data[s:e] for s, e in program.comments] == [b"# c"]
    assert [leaf.text for leaf in program.leaves][:7] == ["def", "f", "(", "a", ")", ":", "return"]
    assert "".join(leaf.text for leaf in program.leaves) == "deff(a):returnf'x{a:>{3}}'"


@pytest.mark.parametrize("text", ["", "\n", "#", "x", "é", "def", "def f(", "\x00", "def f(a): return a" * 3])
def test_any_text_is_a_program(text: str) -> None:
    program = parse("python", text)
    assert isinstance(program.boundaries, tuple)
    assert program.leaves is not None
    assert program.error_nodes >= 0


def test_naming() -> None:
    python = get("python")
    assert python.join("load_data", "rb") == "load_data_rb"
    assert python.join("load_", "rb") == "load_rb"
    assert python.is_identifier("match")
    assert not python.is_identifier("None")
    assert not python.is_identifier("ﬁx")
    assert python.piece_continues("2")
    assert not python.piece_starts("2")
    assert not python.piece_starts("if")
    assert not python.piece_continues("é")
    assert not python.piece_continues("")
