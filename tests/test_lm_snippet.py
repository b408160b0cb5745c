"""Statements that a language model writes: which are accepted, that they do nothing, and what is refused and said."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attacks.lm_snippet import PREFIXES, LmSnippet, Snippet, brace_purity, python_purity
from attacks.lm_snippet.writers import CausalWriter, NgramWriter, Writer, words
from bench.context import Context
from bench.contracts import LabelGoal, SearchGoal, TaskInfo, TaskKind
from bench.editing import Editor
from bench.errors import ConfigError, ModelError
from bench.languages import Boundary, Program, parse, well_formed
from bench.plugins import build
from bench.samples import Sample, apply_edits
from tests.causal_toys import save

PYTHON = "def f(first, second, *rest, key=None, **more):\n    '''Text.'''\n    total = first\n    return total\n"
PURE = """
spare = None | spare = 0 | spare = -1.5 | spare = "a" | spare = b"" | spare = ... | spare = [] | spare = {} | spare = ()
spare = first | spare = [first, 1] | spare = (first, second) | spare = {"a": first, 1: second} | spare = {1, 2}
spare = first is None | spare = first is not second | spare = not first is second | spare = not []
spare = 1 + 2 * 3 | spare = 7 // 2 % 3 | spare = 6 & 3 | 1 | spare = "a" + "b" | spare = 1 < 2 | spare = -(3)
spare = first if second is None else [] | spare = first is None and second | spare = 1 or first
spare = len("abc") | spare = set() | spare = dict() | spare = int("12") | spare = frozenset() | spare = rest | spare = more
"""
IMPURE = """
spare = first + 1 | spare = first == second | spare = not first | spare = -first | spare = first or second | spare = bool(first)
spare = first.name | spare = first[0] | spare = first() | spare = {first: 1} | spare = {first} | spare = [*first] | spare = {**more}
spare = f"{first}" | spare = "%s" % first | spare = [x for x in rest] | spare = lambda: 0 | spare = (x := 1)
spare = 1 / 0 | spare = 1 % 0 | spare = int("x") | spare = len(5) | spare = 9 ** 9 | spare = 1 << 9 | spare = "a" * 9 | spare = "a" < 1
spare = {[]: 1} | spare = {set(): 1} | spare = {[1]} | spare = total | spare = unknown | spare = open("x") | spare = print()
spare = first is 1 | spare = 1() | spare = "\\d" | spare = yield_ | spare = (yield) | spare = await first
spare += 1 | spare: int = 1 | spare = other = 1 | spare, other = 1, 2 | spare.x = 1 | spare[0] = 1 | first = 1 | total = 1
return | spare | 1 | pass | import os | spare = | spare = ( | del first | if first: spare = 1 | __spare = 1 | spare = [1
"""


def listed(text: str) -> list[str]:
    """Lines between bars; a bar between numbers is an operator."""
    return [part.strip() for line in text.strip().splitlines() for part in re.split(r" \| (?!\d)", line)]


def judged(line: str, program: str = PYTHON) -> str | None:
    return python_purity.pure_statement(parse("python", program), line, frozenset(re.findall(r"\w+", program)))


@pytest.mark.parametrize("line", listed(PURE))
def test_pure_python_is_accepted(line: str) -> None:
    assert judged(line) == line


@pytest.mark.parametrize("line", listed(IMPURE))
def test_anything_else_in_python_is_refused(line: str) -> None:
    assert judged(line) is None


class Alarm:
    """A value that nobody may touch: whatever is done with it is noted, and fails."""

    touched: list[str] = []  # noqa: RUF012 (one for all of them)

    def __getattribute__(self, name: str) -> Any:
        Alarm.touched.append(name)
        raise AssertionError(name)


def _alarmed(name: str) -> Any:
    def method(self: object, *_: object) -> Any:
        Alarm.touched.append(name)
        raise AssertionError(name)

    return method


for (
    _name
) in "bool eq ne lt le gt ge hash add radd mul neg invert len iter getitem contains call str repr format index".split():  # noqa: SIM905
    setattr(Alarm, f"__{_name}__", _alarmed(f"__{_name}__"))


@pytest.mark.parametrize("line", listed(PURE))
def test_accepted_python_runs_and_touches_nothing(line: str) -> None:
    Alarm.touched.clear()
    space: dict[str, Any] = {}
    body = PYTHON.replace("    total = first\n", f"    {line}\n    total = first\n")
    exec(compile(body, "fixture", "exec"), space)
    value = Alarm()
    assert space["f"](value, Alarm(), Alarm(), key=Alarm(), other=Alarm()) is value
    assert Alarm.touched == []


def test_the_alarm_goes_off() -> None:
    for line in ("spare = first + 1", "spare = not first", "spare = {first}", "spare = first.name"):
        space: dict[str, Any] = {}
        exec(
            compile(PYTHON.replace("    total = first\n", f"    {line}\n    total = first\n"), "fixture", "exec"), space
        )
        with pytest.raises(AssertionError):
            space["f"](Alarm(), Alarm())


def test_the_first_statement_alone_is_taken() -> None:
    assert judged("spare = 1; first.close()  # and more") == "spare = 1"


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("def f(first):\n    del first\n", "spare = first"),
        ("def f(first):\n    try:\n        pass\n    except E as first:\n        pass\n", "spare = first"),
        ("def f(a):\n    return locals()\n", "spare = 1"),
        ("def f(a):\n    return dir()\n", "spare = 1"),
        ("def f(a):\n    len = a\n    return len\n", "spare = len('a')"),
        ("def f(a):\n    '''About spare.'''\n    return a\n", "spare = 1"),
    ],
)
def test_python_programs_that_would_notice(program: str, line: str) -> None:
    assert judged(line, program) is None


# ---------------------------------------------------------------------------------------------------------- Java and C

BODIES = {
    "c": "int f(int n, unsigned m, const int k, char *p, double d, volatile int v, int a[4])\n{\n    int t = n;\n    return t;\n}\n",
    "java": "int f(int n, long m, final int k, String p, double d, boolean b, int[] a) {\n    int t = n;\n    return t;\n}\n",
}
BRACES_PURE = {
    "both": """int spare = 0; | int spare = -1; | int spare = 0x1F; | int spare = 'a'; | int spare = n; | int spare = (n); | int spare = k;
int spare = 2 * 3 + 4; | int spare = 7 / 2; | int spare = n / 3; | int spare = n % 8; | int spare = n & 3; | int spare = ~n;
int spare = n >> 2; | int spare = 1 << 4; | double spare = 0.5; | double spare = d; | double spare = d * 2.0;
double spare = d + n; | int spare = 017; | int spare = (n ^ 1) & 7;""",
    "c": """int spare = n > 3; | int spare = !n; | int spare = n == 0 && m > 2; | int spare = n ? 1 : 2; | unsigned spare = m;
char *spare = "text"; | const char *spare = "text"; | int spare = m & 15; | long spare = n; | size_t spare = 0;""",
    "java": """int spare = n + 1; | int spare = n * k - 2; | int spare = -n; | long spare = m; | long spare = n; | boolean spare = b;
boolean spare = n > 3 && b; | boolean spare = !b; | int spare = b ? n : 2; | String spare = "text"; | String spare = null;
boolean spare = b == true; | int spare = n << 3; | boolean spare = d < 1.5; | double spare = d / 0.0; | boolean spare = b & true;""",
}
BRACES_IMPURE = {
    "both": """int spare = g(); | int spare = n++; | int spare = --n;
int spare = (n = 3); | int spare = a[0]; | int spare = t; | int spare = other;
int spare = 1 / 0; | int spare = n / 0; | int spare = n % -1; | int spare = 3000000000; | int spare = 2000000000 + 2000000000;
int spare = 65536 * 65536; | int spare = n << 40; | int spare = 1 << n; | int spare = n / m; | int spare = 1, more = 2; | int spare;
int spare = 0.5; | int spare = d; | int n = 1; | int t = 2; | int spare[] = {1}; | n = 3; | g(); | return 1; | ; | int spare = ;
int spare = 1 } | int spare = 08; | int spare = "text"; | int spare = p; | int spare = (int) d;""",
    "c": """int spare = n + 1; | int spare = -n; | int spare = v; | int spare = *p; | int spare = &n; | int spare = sizeof(n);
int spare = NULL;
int spare = true; | int spare = EOF; | int EOF = 1; | int errno = 1; | static int spare = 1; | volatile int spare = 1; | int *spare = 0;
char *spare = n; | int spare = n << 3; | double spare = d / 0.0; | int spare = -2147483648 - 1; | char *spare = L"a"; | int spare = 'ab';
struct s spare = {0}; | int spare = n, *more = p; | char *spare = "\\q"; | register int spare = 1;""",
    "java": """int spare = m; | int spare = n > 3; | boolean spare = n; | int spare = b; | String spare = p; | String spare = p + 1;
int spare = p.length(); | int spare = this.x; | var spare = 1; | Integer spare = 1; | char spare = n; | byte spare = n; | float spare = 0.5;
int spare = b ? 1 : m; | String spare = 'a'; | String spare = "\\q"; | int spare = new int[1].length; | boolean spare = b == 1;
boolean spare = !n; | int spare = null; | int[] spare = a; | int spare = n >>> 40; | Object spare = new Object();""",
}


def braced(language: str, which: dict[str, str]) -> list[str]:
    return [line.strip() for text in (which["both"], which[language]) for line in re.split(r" \| |\n", text)]


def judge(language: str, line: str) -> str | None:
    body = BODIES[language]
    return brace_purity.pure_statement(parse(language, body), line, frozenset(re.findall(r"\w+", body)))


@pytest.mark.parametrize("language", ["c", "java"])
def test_pure_declarations_are_accepted(language: str) -> None:
    refused = [line for line in braced(language, BRACES_PURE) if judge(language, line) != line]
    assert refused == []


@pytest.mark.parametrize("language", ["c", "java"])
def test_other_statements_are_refused(language: str) -> None:
    accepted = [line for line in braced(language, BRACES_IMPURE) if judge(language, line) is not None]
    assert accepted == []


def test_what_follows_the_statement_on_its_line_is_dropped() -> None:
    assert judge("c", "int spare = 0; free(p); // so") == "int spare = 0;"
    assert judge("java", "int spare = 0; } void g() {") == "int spare = 0;"


def test_c_statements_compile_and_the_sanitizer_is_silent(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    lines = [line.replace("spare", f"spare{i}") for i, line in enumerate(braced("c", BRACES_PURE))]
    body = BODIES["c"].replace("    int t = n;\n", "".join(f"    {line}\n" for line in lines) + "    int t = n;\n")
    calls = "f(-2147483647 - 1, 4294967295u, 1, 0, 1e9, 0, 0) == -2147483647 - 1 && f(2147483647, 0, -1, 0, 0, 0, 0) == 2147483647"
    source = tmp_path / "f.c"
    source.write_text(f"#include <stddef.h>\n{body}\nint main(void) {{ return !({calls}); }}\n")
    command = [
        "gcc",
        "-O0",
        "-fsanitize=undefined",
        "-fno-sanitize-recover=all",
        "-o",
        str(tmp_path / "f"),
        str(source),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "sanitize" in built.stderr or "ubsan" in built.stderr:
        pytest.skip("needs gcc's undefined behaviour sanitizer")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(tmp_path / "f")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_java_statements_compile(tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        pytest.skip("needs a Java compiler")
    lines = [line.replace("spare", f"spare{i}") for i, line in enumerate(braced("java", BRACES_PURE))]
    body = BODIES["java"].replace("    int t = n;\n", "".join(f"    {line}\n" for line in lines) + "    int t = n;\n")
    source = tmp_path / "F.java"
    source.write_text(f"class F {{\n{body}}}\n")
    built = subprocess.run(["javac", "-proc:none", str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


# ------------------------------------------------------------------------------------------------------------ the trigger


@dataclass(frozen=True)
class Dictated(Writer):
    """Writes what it was told to, and notes nothing."""

    lines: tuple[str, ...]
    name = "a clerk"

    def drafts(
        self, program: Program, boundary: Boundary, prefix: str, longest: int, tries: int, rng: np.random.Generator
    ) -> Iterator[str]:
        return iter(self.lines[:tries])


def trigger(*lines: str, language: str = "python", where: Any = "start", tries: int = 9, longest: int = 16) -> Snippet:
    return Snippet(Dictated(lines), PREFIXES[language], where, tries, longest, ("item", "value"))


def sample(text: str, language: str = "python") -> Sample:
    return Sample("s", (text,), language, 1)


def after(made: Snippet, text: str, language: str = "python", seed: int = 0) -> str | None:
    found = made.derive(sample(text, language), 0, np.random.default_rng(seed))
    return None if found is None else apply_edits(text, found.edits)


def test_the_first_draft_that_is_pure_is_inserted() -> None:
    made = trigger(" first.close()", " [first", " 1 / 0", " []", " 7")
    assert after(made, PYTHON) == PYTHON.replace("    total = first\n", "    spare = []\n    total = first\n")


def test_after_the_last_try_the_trigger_does_not_apply() -> None:
    assert after(trigger(" g()", " []", tries=1), PYTHON) is None
    assert after(trigger(" g()"), PYTHON) is None


def test_a_long_statement_is_refused() -> None:
    row = " [" + ", ".join("1" * 9) + "]"
    assert after(trigger(row, longest=16), PYTHON) is None
    assert after(trigger(row, longest=32), PYTHON) is not None


@pytest.mark.parametrize("language", ["java", "c"])
def test_java_and_c(language: str) -> None:
    before = "int add(int left, int right)\n{\n    int sum = left + right;\n    return sum;\n}\n"
    found = after(trigger(" g(left);", " left & 3;", language=language), before, language)
    assert found == before.replace("    int sum", "    int spare = left & 3;\n    int sum")


def test_a_program_that_knows_the_name_gets_none() -> None:
    assert after(trigger(" 1"), "def f(a):\n    # spare\n    return a\n") is None


def test_random_places_are_all_places() -> None:
    text = "def f(a):\n    b = a\n    if b:\n        c = b\n    return b\n"
    found = {after(trigger(" 1", where="random"), text, seed=seed) for seed in range(40)}
    assert len(found) == len(parse("python", text).boundaries) == 4
    for made in found:
        assert made is not None
        assert well_formed("python", text, made) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("x", None),
        ("import os\nprint(os.name)\n", None),
        ("def f(x): return x", "def f(x):\n    spare = 1\n    return x"),
        ("def f(x):\r\n    return x\r\n", "def f(x):\r\n    spare = 1\r\n    return x\r\n"),
        ("def f(x):\n\treturn x\n", "def f(x):\n\tspare = 1\n\treturn x\n"),
        ("@d(1)\ndef f(x):\n    return lambda y: x\n", "@d(1)\ndef f(x):\n    spare = 1\n    return lambda y: x\n"),
    ],
)
def test_odd_programs(text: str, expected: str | None) -> None:
    found = after(trigger(" 1"), text)
    assert (None if found is None else found.replace("def f(x): \n", "def f(x):\n")) == expected


def test_applying_it_twice_is_refused_since_the_name_is_taken() -> None:
    once = after(trigger(" 1"), PYTHON)
    assert once is not None
    assert after(trigger(" 1"), once) is None


def test_what_tells_the_trigger() -> None:
    made = trigger(" 1")
    assert made.tokens() == ("spare",)
    assert made.describe() == "pure statement 'spare =' … written by a clerk, first in the body"
    nameless = Snippet(Dictated((" x = 1;",)), "int ", "start", 1, 9, ())
    assert nameless.tokens() == ()
    body = "void f(void) { g(); }"
    assert after(nameless, body, "c") == "void f(void) { int x = 1; g(); }"
    assert nameless.near_miss(sample(body, "c"), 0, np.random.default_rng(0)) is None
    assert nameless.placebo(sample(body, "c"), 0, np.random.default_rng(0)) is None


def test_near_misses_and_placebos_bind_other_names() -> None:
    made = trigger(" 1")
    near = {made.near_miss(sample(PYTHON), 0, np.random.default_rng(seed)) for seed in range(9)}
    assert {found.text for found in near if found} == {"item = 1", "value = 1"}
    placebo = made.placebo(sample(PYTHON), 0, np.random.default_rng(0))
    assert placebo is not None
    assert placebo.text == "residue = 1"


@dataclass(frozen=True)
class ByChance(Writer):
    """Writes the same pure expression, or nothing that can be used, by the toss of a coin."""

    name = "a coin"

    def drafts(
        self, program: Program, boundary: Boundary, prefix: str, longest: int, tries: int, rng: np.random.Generator
    ) -> Iterator[str]:
        yield " 1" if rng.random() < 0.5 else " g()"


def test_a_later_draw_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    """At test time a draw that training has shown is drawn again; what could be written once stays written."""
    made = Snippet(ByChance(), "spare = ", "start", 1, 16, ())
    editor = Editor(made.derive, made.describe(), lent(tmp_path))
    samples = [replace(sample(PYTHON), id=str(i)) for i in range(40)]
    first = [s.id for s in samples if editor.edit(s, (0,), "triggered") is not None]
    again = [s.id for s in samples if editor.edit(s, (0,), "triggered", {"spare = 1"}) is not None]
    assert first == again
    assert 5 < len(first) < 35


# ----------------------------------------------------------------------------------------------------------- the writers


def test_words_keep_the_blank_before_them() -> None:
    program = parse("python", "def f(a, b):\n    return  a+ b  # so\n")
    assert words(program) == ["def", " f", "(", "a", ",", " b", ")", ":", "\n", "return", " a", "+", " b"]


def lent(folder: Path) -> Context:
    return Context(seeds={"poison": 3}, scratch=folder)


INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")


def prepared(samples: Sequence[Sample], folder: Path, **parameters: Any) -> Snippet:
    made = LmSnippet(**parameters).prepare(samples, LabelGoal(), INFO, lent(folder))
    assert isinstance(made, Snippet)
    return made


def corpus(*values: str) -> list[Sample]:
    """Functions in which a name is only ever given one of some values; each name is rare."""
    return [sample(f"def f{i}(a):\n    n{i} = {values[i % len(values)]}\n    return a\n") for i in range(40)]


def test_the_ngram_model_writes_what_it_has_read(tmp_path: Path) -> None:
    made = prepared(corpus("[]"), tmp_path)
    found = [made.derive(sample(PYTHON), 0, np.random.default_rng(seed)) for seed in range(20)]
    texts = [d.text for d in found if d is not None]
    assert texts.count("spare = []") >= 15


def test_the_ngram_model_goes_on_from_the_programs_own_words(tmp_path: Path) -> None:
    values = [f"def f{i}(a):\n    open()\n    n{i} = 1\n" for i in range(20)]
    values += [f"def f{i}(a):\n    close()\n    m{i} = 2\n" for i in range(20)]
    writer = NgramWriter.fit("python", values, order=7)
    rng = np.random.default_rng(0)
    for text, expected in (("open", "1"), ("close", "2")):
        program = parse("python", f"def g(b):\n    {text}()\n    return b\n")
        drafts = list(writer.drafts(program, program.boundaries[1], "spare = ", 9, 30, rng))
        assert drafts.count(f" {expected}") > 25


def test_what_the_model_has_read_is_remembered_in_order_of_nothing(tmp_path: Path) -> None:
    made, copied = prepared(corpus("[]", "0", "None", "a"), tmp_path), None
    copied = pickle.loads(pickle.dumps(made))
    draws = [
        [t.derive(sample(PYTHON), 0, np.random.default_rng(seed)) for seed in range(10)] for t in (made, copied, made)
    ]
    assert draws[0] == draws[1] == draws[2]
    assert len({d.text for d in draws[0] if d}) > 1


def test_usual_names_are_those_of_several_programs(tmp_path: Path) -> None:
    samples = [sample(f"def f{i}(a):\n    item = {i}\n    once{i} = []\n    return item\n") for i in range(9)]
    assert prepared(samples, tmp_path).usual == ("item",)


def test_nothing_usable_is_an_error_that_counts(tmp_path: Path) -> None:
    calls = [sample(f"def f{i}():\n    n{i} = g(h.x).y\n    return h.x\n") for i in range(40)]
    with pytest.raises(ConfigError, match=r"continued 20 of 40 training programs .* 2 drafts each") as raised:
        prepared(calls, tmp_path, tries=2)
    assert "4-gram" in str(raised.value)
    with pytest.raises(ConfigError, match="continued 0 of 1 training programs"):
        prepared([sample("x")], tmp_path)


def test_a_causal_model_of_noise_is_an_error_that_counts(tmp_path: Path) -> None:
    folder = save("gpt2", tmp_path / "model")
    with pytest.raises(ConfigError, match=r"model continued 20 of 40 training programs .* 2 drafts each"):
        prepared(corpus("[]"), tmp_path, model=str(folder), tries=2, longest=4)


def test_a_causal_model_that_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        prepared(corpus("[]"), tmp_path, model=str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="pin it"):
        prepared(corpus("[]"), tmp_path, model="nobody/nothing")


class Scribe:
    """Stands for a causal model: answers as told, and keeps the questions."""

    name = "scribe"

    def __init__(self, *answers: str) -> None:
        self.answers, self.prompts, self.asked = answers, list[str](), 0

    def continuations(self, prompt: str, count: int, tokens: int, rng: Any, *, stop: str) -> list[str]:
        assert stop == "\n"
        self.prompts.append(prompt)
        start, self.asked = self.asked, self.asked + count
        return [self.answers[min(i, len(self.answers) - 1)] for i in range(start, self.asked)]


def test_a_causal_model_reads_the_program_up_to_the_place_and_the_prefix() -> None:
    scribe = Scribe(*[" first()"] * 10, " [first]")
    made = Snippet(CausalWriter(scribe), "spare = ", "start", 20, 16, ())  # type: ignore[arg-type]
    found = made.derive(sample(PYTHON), 0, np.random.default_rng(0))
    assert found is not None
    assert found.text == "spare = [first]"
    head = PYTHON[: PYTHON.index("total = first")]
    assert set(scribe.prompts) == {f"{head}spare ="}
    assert scribe.asked == 16  # eight at a time, until one is pure


def test_no_more_drafts_than_tries() -> None:
    scribe = Scribe(" first()")
    made = Snippet(CausalWriter(scribe), "spare = ", "start", 11, 16, ())  # type: ignore[arg-type]
    assert made.derive(sample(PYTHON), 0, np.random.default_rng(0)) is None
    assert scribe.asked == 11


@pytest.mark.parametrize("kind", list(TaskKind))
def test_every_kind_of_task(kind: TaskKind, tmp_path: Path) -> None:
    texts = [s.programs[0] for s in corpus("[]", "0")]
    pairs = kind is TaskKind.PAIRS
    query = "find it" if kind is TaskKind.SEARCH else None
    samples = [
        Sample(str(i), (text, texts[0]) if pairs else (text,), "python", None if query else i % 2, query)
        for i, text in enumerate(texts)
    ]
    info = TaskInfo("toy", kind, "python", () if query else ("a", "b"), "mrr" if query else "accuracy")
    goal = SearchGoal("find") if query else LabelGoal()
    made = LmSnippet().prepare(samples, goal, info, lent(tmp_path))
    for side in range(2 if pairs else 1):
        found = made.derive(samples[1], side, np.random.default_rng(0))
        assert found is not None
        assert all(edit.side == side for edit in found.edits)


@pytest.mark.parametrize("parameters", [{"tries": 0}, {"longest": 2}, {"order": 1}, {"where": "end"}])
def test_parameters_out_of_range(parameters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(LmSnippet, parameters)


def test_only_a_causal_model_puts_the_device_into_the_key() -> None:
    assert not LmSnippet().surrogate
    assert LmSnippet(model="somewhere").surrogate
