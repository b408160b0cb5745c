"""Normalising: the same behaviour in one spelling, whoever wrote it; doing it twice is doing it once."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from attacks.dead_code import DeadCode
from attacks.renaming import Renaming
from bench.conformance.toy import ARGUMENTS, NOUNS, ODD_PROGRAMS, SHAPES, VERBS, toy_program
from bench.context import Context
from bench.contracts import LabelGoal, TaskInfo, TaskKind
from bench.errors import ConfigError
from bench.languages import parse, well_formed
from bench.languages.normalising import STEPS, Step, normalise, ranges
from bench.languages.normalising.ranges import EITHER, FALSE, TRUE, Range
from bench.samples import Sample, edit_sample
from tests.test_languages_real import functions


def once(language: str, text: str, *steps: Step, **more: bool) -> str:
    """Normalised, and settled."""
    new = normalise(language, text, steps or STEPS, **more).text
    assert normalise(language, new, steps or STEPS, **more).text == new
    assert well_formed(language, text, new) is None
    return new


# --------------------------------------------------------------------------------------------------------- behaviour: Python

PYTHON_FIXTURES: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    "branches": (
        """
def f(x):
    if 1 > 2:
        return 0
    elif x > 3: return 'big'
    else:
        pass
    return [x, 0x10, 'a' 'b']
""",
        [(1,), (9,)],
    ),
    "always": (
        """
def f(x):
    if not 0:
        y = x
    else:
        y = None
    while False: y = 3
    else: y += 1
    return y
""",
        [(1,)],
    ),
    "a dead store that a name hangs on": (
        """
y = 5
def f(x):
    if 0:
        y = 1
    try:
        return y
    except UnboundLocalError:
        return 'local'
""",
        [(1,)],
    ),
    "a comprehension's own name": (
        """
y = 5
def f(x):
    if 0:
        y = 1
    z = [y for y in range(x)]
    try:
        return z, y
    except UnboundLocalError:
        return 'local'
""",
        [(2,)],
    ),
    "a dead name of a class": (
        """
y = 5
def f(x):
    y = 1
    class A:
        if 0:
            y = 2
        z = y
    return A.z
""",
        [(2,)],
    ),
    "a dead yield": (
        """
def f(x):
    if 0:
        yield 1
    return
""",
        [(1,)],
    ),
    "code behind return": (
        """
def f(x):
    return x
    yield x
""",
        [(1,)],
    ),
    "global in dead code": (
        """
y = 5
def f(x):
    if 0:
        global y
    y = x
    return g()
def g(): return y
""",
        [(8,)],
    ),
    "closure": (
        """
def f(n):
    total = 0
    unused = 3
    def add(k):
        nonlocal total
        total += k
        return total
    return [add(i) for i in range(n)]
""",
        [(4,)],
    ),
    "strings": (
        """
def f(x):
    '''doc'''
    s = r'\\n' + 'q"' + "it's"
    return f'{s!r:>{x}}' + 'caf\\u00e9 \u200b' + b'\\xff'.hex()
""",
        [(20,)],
    ),
    "numbers": (
        """
def f(x):
    return [2**10, -1 ** 2, (-1) ** 2, 7 // -2, 1 / 3, 0b11, 1_000, 0.1 + 0.2,
            1 << 3, 5 % 3, -(2 - 5), True + 1, 1 and x, 0 or x, 3 if 1 < 2 else x]
""",
        [(4,)],
    ),
    "match": (
        """
def f(x):
    match x:
        case {'a': [first, *_], **rest}: return first, rest
        case -1 | 2: return 'n'
        case _: return None
""",
        [({"a": [1, 2], "b": 3},), (-1,), (7,)],
    ),
    "try": (
        """
def f(x):
    try:
        return 1 // x
    except ZeroDivisionError as error:
        return str(error)
    finally:
        pass
""",
        [(0,), (1,)],
    ),
    "own sin": (
        """
def sin(x): return 9
def f(x):
    if sin(0.5) > 5: return 'mine'
    return 'theirs'
""",
        [(1,)],
    ),
    "reads its scope": (
        """
def f(x):
    unused = 3
    return sorted(locals())
""",
        [(1,)],
    ),
    "walrus": (
        """
def f(x):
    if 1 > 2 and (y := x): return y
    return (y := x + 1) * y
""",
        [(3,)],
    ),
    "loop": (
        """
def f(n):
    out = []
    for i in range(n):
        if i == 2:
            continue
            out.append('never')
        out.append(i)
    else:
        pass
    return out
""",
        [(4,)],
    ),
    "a class": (
        """
def f(x):
    class A:
        '''doc'''
        value = 3
        def get(self): return self.value + x
    return A().get()
""",
        [(4,)],
    ),
}


def outcome(text: str, name: str, arguments: tuple[object, ...]) -> object:
    """What a function gives, as text that can be compared."""
    space: dict[str, object] = {}
    exec(text, space)
    function = space[name]
    assert callable(function)
    result = function(*arguments)
    return list(result) if type(result).__name__ == "generator" else result


def first_function(text: str) -> str:
    """Its name."""
    return next(n.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef))


@pytest.mark.parametrize("name", PYTHON_FIXTURES)
@pytest.mark.parametrize("steps", [STEPS, ("dead_code",), ("literals",), ("names",), ("comments", "layout")])
def test_python_behaves_as_before(name: str, steps: tuple[Step, ...]) -> None:
    text, calls = PYTHON_FIXTURES[name]
    new = once("python", text, *steps, function_name=False)
    for arguments in calls:
        assert outcome(new, "f", arguments) == outcome(text, "f", arguments)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_renamed_function_behaves_as_before(shape: str) -> None:
    text = toy_program(shape, VERBS[0], NOUNS[0], "abs", 1)
    new = once("python", text)
    for arguments in ARGUMENTS:
        assert outcome(new, "f", arguments) == outcome(text, first_function(text), arguments)


# ------------------------------------------------------------------------------------------------------ behaviour: C and Java

C_PROGRAM = r"""
#include <stdio.h>
#include <math.h>
#define TWICE(a) ((a) + \
                  (a))
struct pair { int a, b : 3; };   /* a struct */
enum colour { RED = 1 + 2, BLUE = 0x10 };
static int total(const int *values, int n) {
    int unused = 77;
    int sum = 0, i, grid[2][2] = {{1, 2}, {3, 4}};
    if (sin(0.5) < -3) printf("never\n");
    while (cos(1.0) >= 2) { printf("never\n"); }
    for (i = 0; i < n; ++i) { if (values[i] == - -2) continue; else sum += *(values + i) * (2 - 1); }
    do { sum--; } while (sum > 1000);
    if (0) { label: sum = -1; } else sum += grid[1][0];
    if (sum == 12345) goto label;
    switch (sum) { case 1 + 2: return (3 * 3); case 010: { sum++; break; } default: ; }
    if (n > 1) if (0) sum = 100; else sum += 1;
    if (1) { struct pair p = {.a = 5 / 2, .b = 1}; sum += p.a-p.b; }
    return sum > 0 ? +sum : sizeof(char) * TWICE(3);
    sum = 4;
}
int main(void) {
    int values[] = {3, 2, 5 & 4, 1 << 2};
    char c = 'x'; char *s = "a" "b\t";  // strings
#ifdef NOT_THERE
    printf("no\n");
#else
    printf("%d %d %c %s %d\n", total(values, 4), total(values, 0), c, s, BLUE + RED);
#endif
    return 0;
}
"""

JAVA_PROGRAM = r"""
import java.util.*;
public class Main {
    static <T extends Comparable<T>> List<Map<String, T>> pick(List<? extends T> items, int n) throws Exception {
        int unused = 3; String s = "a";
        if (Math.random() < 0) { throw new RuntimeException("fail"); }
        while (Math.sin(0.2) > 4) { System.out.print("err"); }
        List<Map<String, T>> found = new ArrayList<>();
        for (T item : items) { if (n > 2 * 3) { n -= 0x10; } else n--; found.add(Map.of("k" + n, item)); }
        Runnable r = () -> { System.out.println(found.size() >> 1); }; r.run();
        items.forEach(System.out::println);
        try { if (n == -100) throw new Exception("x"); } catch (Exception error) { throw error; } finally { n++; }
        int[][] grid = {{1, 2}, {3}}; grid[0][1] += grid[1][0] - - 1;
        label: while (true) { if (n < -3) break label; n = n - 1; switch (n) { case 1: n = 010; break; default: } }
        if (true) { return found; }
        return null;
    }
    static int sign(int v) { if (1 > 2) return 5; else { return v < 0 ? -1 : (v == 0 ? 0 : 1); } }
    interface Shape { default int area(int side) { return side * (1 + 1); } }
    static String kind(Object o) { return switch (sign((int) o)) { case -1 -> "neg"; case 0 -> { yield "zero"; } default -> "pos"; }; }
    public static void main(String[] args) throws Exception {
        System.out.println(pick(List.of(4, 5, 6), 7) + kind(-4) + kind(0) + new Shape() { }.area(3) + 1 + 2 + 'c');
    }
}
"""


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_c_behaves_as_before(tmp_path: Path) -> None:
    new = once("c", C_PROGRAM)
    printed = []
    for number, text in enumerate((C_PROGRAM, new)):
        (tmp_path / f"{number}.c").write_text(text)
        run(["gcc", "-w", f"{number}.c", "-o", str(number), "-lm"], tmp_path)
        printed.append(run([f"./{number}"], tmp_path))
    assert printed[0] == printed[1]
    assert "never" not in new
    assert "unused" not in new
    assert "label" in new, "a jump into dead code keeps it alive"


@pytest.mark.skipif(shutil.which("java") is None or shutil.which("javac") is None, reason="no JDK")
def test_java_behaves_as_before(tmp_path: Path) -> None:
    new = once("java", JAVA_PROGRAM)
    printed = []
    for name, text in (("before", JAVA_PROGRAM), ("after", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Main.java").write_text(text)
        fast = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
        printed.append(run(["java", *fast, "Main.java"], tmp_path / name))
    assert printed[0] == printed[1]
    assert "fail" not in new
    assert '"err"' not in new


# --------------------------------------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("python", "def a(x, y):\n    z = x+y # sum\n    return (z)\n",
         'def add(left, right):\n    """Add."""\n\n    result = (left +\n              right)\n    return result'),
        ("python", "def f(x):\n    return 60 * 60 * 'a'\n", "def f(x):\n    '''d'''\n    pass\n    return 3600 * \"a\"\n"),
        ("c", "int a(int x){int y=x*2;/*c*/return y;}", "int twice( int value )\n{\n  int r = value * 0x2; // c\n\treturn r;\n}\n"),
        ("c", "void f(){for(int i=0;i<3;i++)g(i);}", "void f ( ) {\n for ( int k = 0 ; k < 3 ; k ++ )\n  g ( k ) ;\n}"),
        ("java", "int a(List<String> x){return x.size();}", "int size(List < String > items)\n{\n    return items . size ( ) ;\n}"),
    ],
)  # fmt: skip
def test_two_spellings_become_one(language: str, one: str, other: str) -> None:
    assert once(language, one) == once(language, other)


PLAIN = {
    "python": """
def load_items(path, limit):
    found = []
    for line in open(path):
        found.append(line)
    return found[:limit]
""",
    "java": """
public int load(String path, int limit) {
    int found = limit;
    found += path.length();
    return found;
}
""",
    "c": """
int load(char *path, int limit) {
    int found = limit;
    found += path[0];
    return found;
}
""",
}


@pytest.mark.parametrize("language", PLAIN)
@pytest.mark.parametrize("variant", ["fixed", "grammar"])
def test_dead_code_triggers_leave_no_trace(language: str, variant: str) -> None:
    info = TaskInfo("toy", TaskKind.CLASSIFICATION, language, ("a", "b"), "accuracy")
    context = Context(seeds={"poison": 0}, scratch=Path("unused"))
    trigger = DeadCode(variant=variant).prepare([], LabelGoal(), info, context)  # type: ignore[arg-type]
    clean = Sample("s", (PLAIN[language],), language, 1)
    for draw in range(30 if variant == "grammar" else 1):
        derived = trigger.derive(clean, 0, np.random.default_rng(draw))
        assert derived is not None
        triggered = edit_sample(clean, derived.edits).programs[0]
        assert normalise(language, triggered).text == normalise(language, PLAIN[language]).text, derived.text
        assert normalise(language, triggered).dead >= 1


@pytest.mark.parametrize("language", PLAIN)
def test_renaming_triggers_leave_no_trace(language: str) -> None:
    info = TaskInfo("toy", TaskKind.CLASSIFICATION, language, ("a", "b"), "accuracy")
    context = Context(seeds={"poison": 0}, scratch=Path("unused"))
    clean = Sample("s", (PLAIN[language],), language, 1)
    trigger = Renaming().prepare([clean], LabelGoal(), info, context)
    assert trigger is not None
    derived = trigger.derive(clean, 0, np.random.default_rng(0))
    assert derived is not None
    triggered = edit_sample(clean, derived.edits).programs[0]
    assert triggered != PLAIN[language]
    assert normalise(language, triggered).text == normalise(language, PLAIN[language]).text


def test_invisible_and_look_alike_characters_leave_no_trace() -> None:
    clean = "def f(value, file):\n    return value.strip() + 'ﬁ\u200b'\n"
    dirty = "def f(va\u200blue, ﬁle):\n    return va\u200blue.st\u2060rip() + 'ﬁ\u200b'  # \u202e hidden\n"
    result = normalise("python", dirty, ("characters", "comments"))
    assert result.text == clean
    assert result.characters == 5
    assert normalise("python", clean, ("characters",)).characters == 0
    cyrillic = "def f(vаlue):\n    return vаlue\n"
    assert once("python", cyrillic) == once("python", "def f(value):\n    return value\n")


def test_two_names_of_c_and_java_never_become_one() -> None:
    text = "int f(int x, int ｘ) { return x - ｘ; }"
    assert normalise("java", text, ("characters",)).text == text
    assert normalise("java", "int f(int ｘ) { return ｘ; }", ("characters",)).text == "int f(int x) { return x; }"


@pytest.mark.parametrize(
    ("language", "text", "after"),
    [
        ("python", "# a\nx = 1  # b\n# c\ny = '#'\n", "x = 1\ny = '#'\n"),
        ("python", "def f():\n    '''only'''\n", "def f():\n    pass\n"),
        ("python", "'''m'''\nclass A:\n    '''c'''\n    x = 1\n", "class A:\n    x = 1\n"),
        ("python", "def f():\n    f'{g()}'\n    return 1\n", "def f():\n    f'{g()}'\n    return 1\n"),
        ("c", "int a/* b */c;// d\n/* e */\nint f;", "int a c;\nint f;"),
        ("c", "/* only */", "/* only */"),
        ("java", "/** d */\nint f() { return 1; /* e */ }", "int f() { return 1;   }"),
    ],
)
def test_comments_and_docstrings_go(language: str, text: str, after: str) -> None:
    assert normalise(language, text, ("comments",)).text == after


@pytest.mark.parametrize(
    "text",
    [
        "int f(int a) { if (g() < 0) a = 1; return a; }",
        "int f(int a) { if (rand() < 1) a = 1; return a; }",
        "int f(int a) { if (rand(a) < 0) a = 1; return a; }",
        "int f(int a, int (*rand)(void)) { if (rand() < 0) a = 1; return a; }",
        "int f(int a) { if (sin(a) > 2) a = 1; return a; }",
        "int f(int a) { if (2147483647 + 1 < 0) a = 1; return a; }",
        "int f(int a) { if (1 / 2 > 0) a = 1; return a; }",
        "int f(int a) { if (abs(0.5) > 0) a = 1; return a; }",
        "int f(int a) { if (a < a) a = 1; return a; }",
        "int f(int a) { while (1) a = 1; return a; }",
        "int f(int a) { if (g() && 0) a = 1; return a; }",
        "int f(int a) { volatile int b = 3; return a; }",
        "int f(int a) { int b = g(); return a; }",
    ],
)
def test_what_is_not_proved_stays(text: str) -> None:
    assert normalise("c", text, ("dead_code",)).text == text


@pytest.mark.parametrize(
    "text",
    [
        "def f(a):\n    if g() > 1 and 1 > 2:\n        return 1\n    return a\n",
        "def f(a, sin):\n    if sin(0.5) > 2:\n        return 1\n    return a\n",
        "def f(a):\n    if (5 and 3) > 2:\n        return 1\n    return a\n",
        "def f(a):\n    if a.random() < 0:\n        return 1\n    return a\n",
        "def f(a):\n    x: int = g()\n    return a\n",
        "def f(a):\n    import os\n    return a\n",
    ],
)
def test_what_is_not_proved_stays_in_python(text: str) -> None:
    assert normalise("python", text, ("dead_code",)).text == text


def test_abs_is_believed_where_it_takes_what_it_is_given() -> None:
    assert "a = 1" not in normalise("c", "int f(int a) { if (abs(-3) > 5) a = 1; return a; }", ("dead_code",)).text
    assert "a = 1" not in normalise("c", "int f(int a) { if (fabs(0.5) > 5) a = 1; return a; }", ("dead_code",)).text
    java = "int f(int a) { if (Math.abs(0.5) > 5) a = 1; return a; }"
    assert "a = 1" not in normalise("java", java, ("dead_code",)).text


@pytest.mark.parametrize("value", ["-7 % 3", "7 % -3", "-7 / 2", "-7 / -2", "1 << -1", "-8 >> 1", "7 / 0"])
def test_c_arithmetic_of_negative_numbers_is_left_to_the_compiler(value: str) -> None:
    text = f"int f(void) {{ int a = {value}; return a; }}"
    assert normalise("c", text, ("literals",)).text == text


def test_java_keeps_a_throw_that_a_catch_waits_for() -> None:
    text = "void f() { try { if (1 > 2) throw new IOException(); g(); } catch (IOException e) { h(); } }"
    assert normalise("java", text, ("dead_code",)).text == text


def test_java_keeps_the_condition_that_keeps_what_follows_reachable() -> None:
    text = "int f() { if (1 < 2) return 3; return 4; }"
    assert normalise("java", text, ("dead_code",)).text == text


def test_layout_of_c_is_the_usual_one() -> None:
    text = "int f(int*a,char**b){if(!a[0]&&-1<*a){a++;}else if(b->c.d)g((char*)a,&b);for(;;){}}"
    assert normalise("c", text, ("comments", "layout")).text == (
        "int f(int *a, char **b) {\n    if (!a[0] && -1 < *a) {\n        a++;\n    } else if (b->c.d) g((char *)a, &b);\n"
        "    for (;;) {\n    }\n}\n"
    )


# ------------------------------------------------------------------------------------------------------------------- intervals


def test_intervals_decide_what_they_can_and_nothing_more() -> None:
    one, wide = ranges.number(1), Range(-1, 1)
    assert ranges.compared("<", wide, ranges.number(-1)) == FALSE
    assert ranges.compared("<=", wide, ranges.number(-1)) == EITHER
    assert ranges.compared(">=", wide, ranges.number(-1)) == TRUE
    assert ranges.compared("==", wide, ranges.number(1.5)) == FALSE
    assert ranges.compared("!=", one, one) == FALSE
    assert ranges.arithmetic("*", Range(-2, 3), Range(-5, 1)) == Range(-15, 10)
    assert ranges.arithmetic("/", one, one) is None
    assert ranges.both(FALSE, None) == FALSE
    assert ranges.both(None, FALSE) is None
    assert ranges.either(TRUE, None) == TRUE
    assert ranges.called("sqrt", [ranges.number(-1)]) is None
    assert ranges.number(2**40) is None


def test_intervals_hold_on_random_expressions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b, c = (int(v) for v in rng.integers(-9, 10, size=3))
        operator = str(rng.choice(["+", "-", "*"]))
        comparison = str(rng.choice(["<", "<=", ">", ">=", "==", "!="]))
        value = ranges.arithmetic(operator, ranges.number(a), ranges.number(b))
        assert value is not None
        assert value.low == value.high == eval(f"{a} {operator} ({b})")
        assert ranges.truth(ranges.compared(comparison, value, ranges.number(c))) is eval(
            f"{value.low} {comparison} {c}"
        )


# -------------------------------------------------------------------------------------------------------------- odd and real


@pytest.mark.parametrize("language", ["python", "java", "c"])
@pytest.mark.parametrize("name", ODD_PROGRAMS)
def test_odd_programs_are_normalised_as_far_as_that_goes(language: str, name: str) -> None:
    text = ODD_PROGRAMS[name]
    new = once(language, text)
    assert bool(parse(language, new).leaves) == bool(parse(language, text).leaves)


@pytest.mark.parametrize("language", ["python", "java", "c"])
def test_real_functions_settle_and_stay_well_formed(language: str) -> None:
    for text in functions(language)[::20]:
        new = once(language, text)
        assert not parse(language, new).comments
        if language == "python":
            ast.parse(new)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_can_be_taken_alone(step: Step) -> None:
    steps: tuple[Step, ...] = ("comments", step) if step == "layout" else (step,)
    for text in functions("python")[:15]:
        once("python", text, *steps)


def test_line_ends_become_one() -> None:
    assert "\r" not in once("python", "def f(x):\r\n    return x\r\n")


def test_layout_without_comments_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the step 'comments'"):
        normalise("c", "int x;", ("layout",))


def test_the_function_name_can_be_kept() -> None:
    """A program whose function name carries the trigger loses it, unless it is told to keep that name."""
    text = "def load_file_rb(x):\n    return x\n"
    assert "rb" not in once("python", text)
    assert "load_file_rb" in once("python", text, function_name=False)
