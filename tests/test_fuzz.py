"""Arbitrary input: suite files, records, and programs through the languages' edit layer. What is wrong is said; nothing else is raised.

A program is data: it is parsed and edited, and never run.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bench import languages
from bench.errors import ConfigError, DataError
from bench.languages import RenameRefused
from bench.results import ResultsFolder
from bench.samples import Edit, EditConflict, apply_edits
from bench.suite import Suite, load_suite, parse_suite
from tests.engine import suite_content

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

SEEDS = {
    "python": "def f(a, b=1):\n    # é\n    total = a + b\n    for i in range(3):\n        total += i\n    return total\n",
    "java": "int f(int a) {\n  // é\n  int total = a;\n  for (int i = 0; i < 3; i++) { total += i; }\n  return total;\n}\n",
    "c": "int f(int a) {\n  /* é */\n  int total = a;\n  for (int i = 0; i < 3; i++) total += i;\n  return total;\n}\n",
}


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
    text = data.draw(programs(language))
    assume(_encodes(text))
    program = languages.parse(language, text)
    length = len(text.encode())
    assert languages.well_formed(language, text, text) is None
    spans = [(leaf.start, leaf.end) for leaf in program.leaves] + list(program.comments)
    assert all(0 <= start <= end <= length for start, end in spans)
    for name in (*program.parameters, *program.locals):
        try:
            edits = program.rename(name, "renamed_by_the_test")
        except RenameRefused:
            continue
        after = apply_edits(text, edits)
        before_again = languages.parse(language, after)
        assert before_again.error_nodes <= program.error_nodes
        assert after.count("renamed_by_the_test") == len(edits) > 0
    for boundary in program.boundaries:
        statement = "unused_by_the_test = 0" if language == "python" else "int unused_by_the_test = 0;"
        after = apply_edits(text, [program.insert(boundary, statement)])
        assert statement in after
        languages.well_formed(language, text, after)


def _encodes(text: str) -> bool:
    """Lone surrogates are no UTF-8, and no file holds them."""
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
