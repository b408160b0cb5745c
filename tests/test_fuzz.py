"""Arbitrary input: suite files, records, and programs through the languages' edit layer. What is wrong is said; nothing else is raised.

A program is data: it is parsed and edited, and never run.
"""

from __future__ import annotations

import inspect
import json
import shlex
import string
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bench import languages
from bench.context import Context
from bench.contracts import Derivation
from bench.editing import Editor
from bench.errors import ConfigError, DataError, PluginError
from bench.results import ResultsFolder
from bench.samples import Edit, EditConflict, Sample, apply_edits
from bench.suite import Suite, load_suite, parse_suite
from tests.engine import suite_content
from tests.fuzz_targets import SEEDS, TARGETS, data_files, edit_layer

FUZZ = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)

# ---------------------------------------------------------------------------------------------------------- suite files


@FUZZ
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_are_a_suite_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "suite.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as said:
        load_suite(path)
    assert str(path) in str(said.value)


@FUZZ
@given(key=st.sampled_from(sorted(Suite.model_fields)), value=VALUES)
def test_any_value_of_any_key_is_taken_or_refused_by_name(key: str, value: Any) -> None:
    with suppress(ConfigError):
        parse_suite(suite_content(**{key: value}), "fuzzed")


@FUZZ
@given(text=st.text(max_size=40), axis=st.sampled_from(["tasks", "models", "attacks", "defenses"]))
def test_any_text_is_a_plugin_or_refused(text: str, axis: str) -> None:
    for spelled in (text, f"name[{text}]", f"name[a={text}]", f"{text} + {text}"):
        with suppress(ConfigError):
            parse_suite(suite_content(**{axis: [spelled]}), "fuzzed")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "name: !!python/object/new:subprocess.Popen [['touch', '{0}']]",
        "tasks: ['x[a=!!python/object/apply:os.system [touch {0}]]']",
        'tasks: ["x[a=!!python/name:os.system]"]',
    ],
)
def test_a_suite_file_builds_no_python_object(tmp_path: Path, text: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "suite.yaml"
    path.write_text(text.format(mark))
    with pytest.raises(ConfigError):
        load_suite(path)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_a_suite_file_that_is_nested_without_end_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"suite\.yaml"):
        load_suite(tmp_path / "suite.yaml")


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", ".", "", "/etc/passwd", "x\0y", "Ä", "a" * 10_000 + "/"])
def test_a_suites_name_cannot_leave_the_results_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        parse_suite(suite_content(name=name), "fuzzed")
    with pytest.raises(ConfigError, match="no suite"):
        load_suite(name)


@FUZZ
@given(label=st.text(min_size=1, max_size=30))
def test_no_label_leads_a_file_name_out_of_its_folder(label: str) -> None:
    from bench.records import Coordinates

    slug = Coordinates(task=label, model=label, attack=label, defense=label, seed=0).slug
    assert (Path("cells") / f"{slug}.json").parent == Path("cells")
    assert not {"/", "\\", "\0"} & set(slug)


# -------------------------------------------------------------------------------------------------------------- records


def test_a_record_that_is_nested_without_end_is_a_clear_error(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.cells.mkdir()
    (folder.cells / "cell.json").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match=r"cell\.json"):
        folder.records()


@FUZZ
@given(content=st.binary(max_size=200) | VALUES.map(lambda v: json.dumps(v).encode()))
def test_a_record_that_is_anything_is_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = ResultsFolder(tmp_path_factory.mktemp("fuzz"))
    folder.cells.mkdir()
    (folder.cells / "cell.json").write_bytes(content)
    with pytest.raises(DataError) as said:
        folder.records()
    assert "cell.json" in str(said.value)


# ------------------------------------------------------------------------------------------------------------- programs


@st.composite
def programs(draw: st.DrawFn, language: str) -> str:
    """A program, what is left of one after some damage, or any text at all."""
    if draw(st.booleans()):
        return draw(st.text(max_size=80))
    text = SEEDS[language]
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        text = (
            text[:start]
            + draw(st.text(max_size=6) | st.sampled_from(["{", "}", "(", '"', "\n", "\0", "\t", ":", "'''"]))
            + text[end:]
        )
    return text


@pytest.mark.parametrize("language", sorted(SEEDS))
@FUZZ
@given(data=st.data())
def test_any_text_goes_through_the_edit_layer(language: str, data: st.DataObject) -> None:
    edit_layer(language, data.draw(programs(language)))


@pytest.mark.parametrize("language", sorted(SEEDS))
@FUZZ
@given(content=st.binary(max_size=120))
def test_any_bytes_read_as_text_go_through_the_edit_layer(language: str, content: bytes) -> None:
    edit_layer(language, content.decode("latin-1"))
    edit_layer(language, content.decode("utf-8", "surrogateescape"))


REAL = {
    "python": [inspect.getsource(f) for f in (shlex.quote, string.capwords, textwrap.dedent, textwrap.indent)],
    # With what a damaged byte can do most harm to: comments, strings, directives, labels, nested braces, casts.
    "c": [
        r"""#define MIN(a, b) ((a) < (b) ? (a) : (b))
static int copy(char *to, const char *from, size_t n)
{
    size_t i; /* é */
    for (i = 0; i < MIN(n, 16) && from[i]; i++)
        to[i] = from[i] == '\\' ? '/' : from[i];
    if (i == n)
        goto full;
    to[i] = 0;
    return (int) i;
full:
    return -1;
}
""",
        r"""int length(struct node *head)
{
    int n = 0;
    while (head) {
        n++; head = head->next;
    }
#ifdef DEBUG
    printf("%d \"nodes\"\n", n);
#endif
    return n;
}
""",
    ],
    "java": [
        r"""@Override
public static <T extends Comparable<T>> int find(java.util.List<T> list, T key) {
    int low = 0, high = list.size() - 1;
    while (low <= high) {
        int middle = (low + high) >>> 1; // é
        int order = list.get(middle).compareTo(key);
        if (order < 0) low = middle + 1; else if (order > 0) high = middle - 1; else return middle;
    }
    return -(low + 1);
}
""",
        r"""void copy(File from, Writer out) throws IOException {
    try (Reader in = new FileReader(from)) {
        char[] buffer = new char[8];
        for (int n; (n = in.read(buffer)) > 0; ) out.write(buffer, 0, n);
    } catch (IOException e) { log("failed: " + '\n' + e); }
}
""",
    ],
}


@pytest.mark.parametrize("language", sorted(REAL))
@FUZZ
@given(data=st.data())
def test_real_programs_with_flipped_bytes_go_through_the_edit_layer(language: str, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(REAL[language])).encode())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] ^= data.draw(st.integers(1, 255))
    edit_layer(language, bytes(content).decode("latin-1"))
    edit_layer(language, bytes(content).decode("utf-8", "surrogateescape"))


# ---------------------------------------------------------------------------------------------------------- data files

ROWS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ("func", "idx", "target", "project", "commit_id", "code", "docstring", "docstring_tokens", "repo", "path")


@FUZZ
@given(
    content=st.binary(max_size=120)
    # ASCII, so that half a surrogate pair is written as JSON can write it
    | st.dictionaries(st.sampled_from(FIELDS), ROWS).map(lambda row: json.dumps(row).encode())
    | st.dictionaries(st.sampled_from(FIELDS), ROWS).map(lambda row: json.dumps([row]).encode())
)
def test_arbitrary_bytes_in_a_data_file_are_data_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    data_files(content, tmp_path_factory.mktemp("fuzz"))


def test_every_target_of_the_fuzzer_takes_what_the_tests_take(tmp_path: Path) -> None:
    """The targets are run by atheris, which the tests do not need: they are at least called."""
    for name, target in TARGETS.items():
        for content in (b"", b"\x00", b"\x08int f() {}\xff", b"name: x", json.dumps({"func": "\ud800"}).encode()):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            target(content, folder)


def test_a_name_that_the_parser_made_up_is_no_name() -> None:
    """Found by flipping bytes: where an identifier is missing the tree has one without text, which was offered as a local variable."""
    text = "int f(int a) {\n    int n = 0;\n    n++; int = a;\n    return n;\n}\n"
    broken = "hnt length(struct node *head)\n{\n    int n = 0V    while (head) z\n"
    broken += "        n++; head = head->next;\n    }\n    return n;\n}\n"
    for damaged in (text, broken):
        program = languages.parse("c", damaged)
        assert "" not in [name.text for name in (*program.parameters, *program.locals)]
        edit_layer("c", damaged)


def test_half_a_surrogate_pair_is_refused_by_the_edit_layer() -> None:
    with pytest.raises(DataError, match=r"a c program holds \\ud800 as its character 5: half a surrogate pair"):
        languages.parse("c", "int \ud800;")


def test_a_trigger_that_writes_half_a_surrogate_pair_is_the_triggers_fault() -> None:
    def halving(sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        return Derivation((Edit(0, 0, "\ud800"),), "half")

    editor = Editor(halving, "a trigger", Context({"poison": 0}, Path("unused")))
    with pytest.raises(PluginError, match=r"do not apply to sample 'a'.*surrogates not allowed"):
        editor.edit(Sample("a", ("int f() { return 0; }",), "c", 0), (0,), "train")


def _encodes(text: str) -> bool:
    """Lone surrogates are no UTF-8; the loaders and the edit layer refuse them."""
    with suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False


@FUZZ
@given(
    text=st.text(max_size=40),
    spans=st.lists(st.tuples(st.integers(-3, 60), st.integers(-3, 60), st.text(max_size=5)), max_size=4),
)
def test_edits_are_applied_as_bytes_or_refused(text: str, spans: list[tuple[int, int, str]]) -> None:
    assume(_encodes(text) and all(_encodes(new) for _, _, new in spans))
    edits = [Edit(start, end, new) for start, end, new in spans]
    try:
        after = apply_edits(text, edits)
    except (EditConflict, UnicodeDecodeError):  # a span may cut a character in two
        return
    lost = sum(edit.end - edit.start for edit in edits)
    assert len(after.encode()) == len(text.encode()) - lost + sum(len(e.replacement.encode()) for e in edits)


def test_yaml_is_loaded_by_the_safe_loader_alone() -> None:
    """The source holds no other loader, no pickle that is read from a file, and no remote code."""
    import re

    root = Path(languages.__file__).parents[2]
    unsafe = re.compile(
        r"yaml\.(load|unsafe_load|full_load)\(|pickle\.load\(|torch\.load\(|joblib\.load|allow_pickle=True|trust_remote_code=True"
    )
    found = []
    for package in ("bench", "attacks", "defenses", "tasks"):
        for path in sorted((root / package).rglob("*.py")):
            if path.name != "weaknesses.py":  # which plants such statements in programs, as text
                found += [f"{path.name}: {m[0]}" for m in unsafe.finditer(path.read_text(encoding="utf-8"))]
    assert found == []
    assert yaml.safe_load("a: 1") == {"a": 1}
