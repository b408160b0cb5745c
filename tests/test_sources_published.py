"""Loaders of published data: what they read, and what they say of malformed files."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.context import Context
from bench.contracts import Task
from bench.errors import ConfigError, DataError
from bench.jobs import Stage, Workshop
from bench.pipeline import _identity
from bench.plugins import Registry
from bench.samples import Splits
from bench.stages import run_stage
from bench.store import Store
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tasks.sources import installed
from tasks.sources.codesearchnet import DOCSTRINGS, LEFT_OUT, without_docstring

DATA = Path(__file__).parents[2] / "shared" / "data"


def context(seed: int = 0) -> Context:
    return Context({"data": seed}, Path("unused"))


def write_devign(folder: Path) -> Path:
    rows = [{"project": "p", "commit_id": f"c{i}", "target": i % 2, "func": f"int f{i}() {{}}\r\n"} for i in range(30)]
    (folder / "function.json").write_text(json.dumps(rows))
    for split, numbers in {"train": range(20), "valid": range(20, 24), "test": range(24, 30)}.items():
        (folder / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
    return folder


def write_clones(folder: Path) -> Path:
    (folder / "data.jsonl").write_text(
        "".join(json.dumps({"func": f"void f{i}() {{}}", "idx": str(i)}) + "\n" for i in range(9))
    )
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("0\t1\t1\n2\t3\t0\n4\t5\t1\n")
    return folder


def write_search(folder: Path) -> Path:
    for split in ("train", "valid", "test"):
        row = {
            "code": 'def f(x):\n    """Add one."""\n    return x + 1',
            "docstring": "Add one.",
            "repo": "r/r",
            "path": "a.py",
        }
        rows = [{**row, "docstring_tokens": ["Add", "one", f"{split}{i}"]} for i in range(5)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def defects(folder: Path, **more: Any) -> Task:
    return DefectDetection(source="devign", path=str(folder), **more)


def pairs(folder: Path, **more: Any) -> Task:
    return CloneDetection(source="bigclonebench", path=str(folder), **more)


def queries(folder: Path, **more: Any) -> Task:
    return CodeSearch(source="codesearchnet", path=str(folder), **more)


def test_other_files_of_clones_are_other_data(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
        write_clones(folder)
    one, two = (pairs(folder).origin() for folder in folders)
    assert set(one) == {"data.jsonl", "train.txt", "valid.txt", "test.txt"}
    assert one == two, "wherever they lie"
    (folders[0] / "data.jsonl").write_text((folders[0] / "data.jsonl").read_text() + "\n")
    assert pairs(folders[0]).origin() != two
    with pytest.raises(DataError, match="nowhere"):
        pairs(tmp_path / "nowhere").origin()


@pytest.mark.parametrize("when", ["before they are read", "while they are read", "gone"])
def test_files_that_are_replaced_after_planning_are_not_published_under_the_old_key(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clones"
    folder.mkdir()
    write_clones(folder)
    task = pairs(folder)
    stage = Stage("data", {"task": _identity(task), "origin": dict(task.origin()), "seeds": {"data": 0}})
    workshop, honest = Workshop(Store(tmp_path / "store"), Registry().discover()), CloneDetection.splits

    def replaced() -> None:
        (folder / "data.jsonl").write_text((folder / "data.jsonl").read_text() + "\n")

    def replaced_meanwhile(self: CloneDetection, context: Context) -> Splits:
        splits = honest(self, context)
        replaced()
        return splits

    message = (
        rf"clone_detection', {folder}: data\.jsonl is not what .* \(planned: sha256 \w{{12}}, here: sha256 \w{{12}}\)"
    )
    if when == "before they are read":
        replaced()
    elif when == "gone":
        folder.rename(tmp_path / "elsewhere")
        message = rf"{folder}: there is no such folder"
    else:
        monkeypatch.setattr(CloneDetection, "splits", replaced_meanwhile)
    with pytest.raises(DataError, match=message):
        run_stage(stage, workshop)
    assert not workshop.store.has("data", stage.key)
    monkeypatch.undo()
    if when != "gone":
        again = Stage("data", {**stage.inputs, "origin": dict(task.origin())})
        assert run_stage(again, workshop).json("facts.json")["origin"] == task.origin()
        assert again.key != stage.key


def test_other_packages_than_the_planned_ones_make_no_embedded_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = DefectDetection()
    stage = Stage("data", {"task": _identity(task), "origin": dict(task.origin()), "seeds": {"data": 0}})
    workshop = Workshop(Store(tmp_path / "store"), Registry().discover())
    other = {**installed.versions(), "torch": "0.1"}  # as on another node of a cluster
    monkeypatch.setattr(installed, "versions", lambda: other)
    with pytest.raises(
        DataError,
        match=r"task 'defect_detection': torch is not what .* \(planned: \d+\.\d+\.\d+, here: 0\.1\): it was replaced",
    ):
        run_stage(stage, workshop)


def test_devign_keeps_published_splits_and_takes_the_budget_from_training(tmp_path: Path) -> None:
    parts = defects(write_devign(tmp_path), budget=5).splits(context()).parts()
    assert {name: len(part) for name, part in parts.items()} == {"train": 15, "valid": 4, "budget": 5, "test": 6}
    numbers = {name: {int(s.group.removeprefix("p/c")) for s in part} for name, part in parts.items()}
    assert numbers["train"] | numbers["budget"] == set(range(20))
    assert numbers["valid"] == set(range(20, 24))
    assert numbers["test"] == set(range(24, 30))
    first = min(parts["test"], key=lambda s: s.group)
    assert (first.programs, first.label, first.language) == (("int f24() {}\n",), 0, "c")


def test_sizes_cap_splits_and_the_seed_chooses(tmp_path: Path) -> None:
    task = defects(write_devign(tmp_path), train=6, valid=2, budget=4, test=3)
    one, same, other = (task.splits(context(seed)) for seed in (0, 0, 1))
    assert [len(part) for part in one.parts().values()] == [6, 2, 4, 3]
    assert one.digest() == same.digest() != other.digest()
    with pytest.raises(DataError, match="7 samples of test were asked for, 6 are there"):
        defects(tmp_path, test=7).splits(context())


def test_clone_pairs_and_search_queries_are_read_as_published(tmp_path: Path) -> None:
    clone = pairs(write_clones(tmp_path), budget=0).splits(context()).test
    assert (clone[0].programs, clone[0].label) == (("void f0() {}", "void f1() {}"), 1)
    assert {s.language for s in clone} == {"java"}
    found = queries(write_search(tmp_path), budget=0).splits(context()).test
    assert found[2].query == "Add one test2"
    assert found[2].programs == ("def f(x):\n    return x + 1",)
    assert (found[2].label, found[2].group) == (None, "r/r")


def replace_line(file: Path, number: int, text: str) -> None:
    lines = file.read_text().split("\n")
    lines[number - 1] = text
    file.write_text("\n".join(lines))


MALFORMED: list[tuple[Callable[[Path], Path], Callable[..., Task], str, int, str, str]] = [
    (write_devign, defects, "train.txt", 3, "x", r"train\.txt, line 3: 'x' is no index"),
    (write_devign, defects, "valid.txt", 1, "99", r"valid\.txt, line 1: '99' is no index"),
    (write_devign, defects, "test.txt", 2, "0", r"test\.txt, line 2: index 0 stands already in train\.txt, line 1"),
    (write_devign, defects, "function.json", 1, "[{]", r"function\.json, line 1: is no JSON"),
    (write_devign, defects, "function.json", 1, "{}", r"function\.json, line 1: holds a JSON dict"),
    (write_devign, defects, "function.json", 1, '[{"project": "p"}]', r"function\.json, row 1: has no field 'target'"),
    (
        write_devign,
        defects,
        "function.json",
        1,
        '[{"project": "p", "commit_id": "c", "func": "f", "target": 2}]',
        r"function\.json, row 1: label 2",
    ),
    (write_clones, pairs, "train.txt", 2, "0 1", r"train\.txt, line 2: has 2 cells"),
    (write_clones, pairs, "test.txt", 3, "0\t77\t1", r"test\.txt, line 3: idx '77' is not in data\.jsonl"),
    (write_clones, pairs, "test.txt", 1, "0\t1\tyes", r"test\.txt, line 1: label 'yes'"),
    (write_clones, pairs, "data.jsonl", 4, "{", r"data\.jsonl, line 4: is no JSON"),
    (
        write_clones,
        pairs,
        "data.jsonl",
        4,
        '{"idx": "0", "func": "f"}',
        r"data\.jsonl, line 4: idx 0 stands in an earlier",
    ),
    (write_clones, pairs, "data.jsonl", 5, '{"idx": "4", "func": " "}', r"data\.jsonl, line 5: field 'func' is blank"),
    (write_search, queries, "valid.jsonl", 2, "[]", r"valid\.jsonl, line 2: is a JSON list"),
    (write_search, queries, "valid.jsonl", 2, '{"code": 3}', r"valid\.jsonl, line 2: field 'code' is 3"),
    (
        write_search,
        queries,
        "train.jsonl",
        5,
        '{"code": "f", "docstring": "", "docstring_tokens": []}',
        r"train\.jsonl, line 5: field 'docstring_tokens'",
    ),
]


@pytest.mark.parametrize(("make", "task", "file", "line", "text", "message"), MALFORMED)
def test_a_malformed_row_is_an_error_that_names_file_and_line(
    tmp_path: Path, make: Any, task: Any, file: str, line: int, text: str, message: str
) -> None:
    make(tmp_path)
    replace_line(tmp_path / file, line, text)
    with pytest.raises(DataError, match=message):
        task(tmp_path).splits(context())


def test_a_file_that_is_not_utf8_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    write_clones(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"0\t1\t1\n\xff\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: is not UTF-8"):
        pairs(tmp_path).splits(context())


@pytest.mark.parametrize(("make", "task"), [(write_devign, defects), (write_clones, pairs), (write_search, queries)])
def test_what_is_missing_is_named(tmp_path: Path, make: Any, task: Any) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        task(tmp_path / "nowhere").splits(context())
    make(tmp_path)
    file = sorted(tmp_path.iterdir())[-1]
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name}: the file is missing"):
        task(tmp_path).splits(context())


def test_a_published_source_needs_a_path() -> None:
    with pytest.raises(ConfigError, match="needs the parameter path"):
        DefectDetection(source="juliet").splits(context())


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ('def f():\n    """Doc."""\n    return 1', "def f():\n    return 1"),
        ('def f():\n    """Doc\n    more."""\n\n    # why\n    return 1', "def f():\n\n    # why\n    return 1"),
        ("def f(): 'Doc.'; return 1", "def f(): return 1"),
        ('def f():\n    "Doc."', "def f():\n    pass"),
        ('def f(): "Ä"', "def f(): pass"),
        ("def f():\n    return 1", "def f():\n    return 1"),
        ('def f():\n    """Doc."""\n    print 1', "def f():\n    print 1"),
        ('def f():\n    # why\n    """Doc.\n\n    More.\n    """\n\n    print 1', "def f():\n    # why\n\n    print 1"),
        ("def f(a, (b, c)=[\":\"]):\n    '''Doc.'''", 'def f(a, (b, c)=[":"]):\n    pass'),
        ('def f(a, (b, c)):\n    """Doc."""\n    # nothing\n', "def f(a, (b, c)):\n    pass\n    # nothing\n"),
        ("def f(): 'Ä'; print 1", "def f(): print 1"),
        ('@g(1)\ndef f(x=`1`):\n    ur"""Doc."""\n    return x', "@g(1)\ndef f(x=`1`):\n    return x"),
        ('def f():\n    "Doc. " \\\n    "More."\n    exec x in y', "def f():\n    exec x in y"),
        ('def f():\n    """Doc."""\n    "More."\n    print 1', "def f():\n    print 1"),
        ('def f():\n\t"""Doc."""\n        print 1', "def f():\n        print 1"),
        ('def f():\n    "Do" % x\n    print 1', 'def f():\n    "Do" % x\n    print 1'),
        ("print 1", "print 1"),
        # Not found, and there: better no sample than one whose program tells its query.
        ('def f():\n    ("Doc.")\n    print 1', None),
        ('def f():\n    print 1\n    """Doc."""', None),
        ("# Doc", None),
    ],
)
def test_the_docstring_is_removed_from_published_code(code: str, left: str | None) -> None:
    assert without_docstring(code, "Doc.") == left


def test_no_query_stays_in_python_2_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """``docstring`` is dedented, as CodeSearchNet gives it: the text does not stand so in the code."""
    write_search(tmp_path)
    row = {
        "code": 'def f(x):\n    """Add one\n    to it.\n    """\n    print x + 1',
        "docstring": "Add one\nto it.",
        "docstring_tokens": ["Add", "one", "to", "it", "."],
        "repo": "r/r",
        "path": "a.py",
    }
    hopeless = row | {"code": 'def f(x):\n    ("""Add one\n    to it.""")\n    print x + 1'}
    replace_line(tmp_path / "test.jsonl", 2, json.dumps(row))
    replace_line(tmp_path / "test.jsonl", 4, json.dumps(hopeless))
    found = queries(tmp_path, budget=0).splits(context())
    assert [s.programs[0].split()[2] for s in found.test] == ["return", "print", "return", "return"]
    assert not any("one" in s.programs[0] for s in found.test)
    assert found.notes["source"][LEFT_OUT] == {"train": 0, "valid": 0, "test": 1}
    replace_line(tmp_path / "test.jsonl", 4, json.dumps(row))
    assert set(queries(tmp_path).splits(context()).notes["source"]) == {"name"}


def test_python_data_are_another_key_since_docstrings_of_python_2_are_removed(tmp_path: Path) -> None:
    write_search(tmp_path)
    assert queries(tmp_path).origin()["docstrings"] == DOCSTRINGS
    assert "docstrings" not in queries(tmp_path, language="java").origin()
    assert "docstrings" not in CodeSearch().origin()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the published data beside the project")
@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        (lambda: DefectDetection(source="devign", path=str(DATA / "devign"), budget=100), (1300, 200, 100, 400)),
        (lambda: DefectDetection(source="juliet", path=str(DATA / "juliet-c"), budget=0), (3478, 480, 0, 1042)),
        (lambda: CloneDetection(source="bigclonebench", path=str(DATA / "bigclonebench")), (1002, 33, 111, 141)),
        (lambda: CodeSearch(source="codesearchnet", path=str(DATA / "codesearchnet-python")), (270, 200, 30, 500)),
    ],
    ids=["devign", "juliet", "bigclonebench", "codesearchnet"],
)
def test_the_real_published_files_are_read_whole(task: Callable[[], Task], sizes: tuple[int, ...]) -> None:
    built = task()
    splits = built.splits(context())
    assert tuple(len(part) for part in splits.parts().values()) == sizes
    samples = [sample for part in splits.parts().values() for sample in part]
    assert len({sample.id for sample in samples}) == len(samples)
    assert {sample.language for sample in samples} == {built.info.language}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the published data beside the project")
def test_real_programs_made_python_2_lose_the_docstring_as_they_did_before() -> None:
    for line in (DATA / "codesearchnet-python" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        code = json.loads(line)["code"]
        indent = re.findall(r"\n([ \t]+)\S", code)[-1]
        statement = f"\n{indent}print 'x'"
        assert without_docstring(code + statement, "") == f"{without_docstring(code, '')}{statement}"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the published data beside the project")
def test_no_docstring_is_left_in_real_search_programs() -> None:
    task = CodeSearch(source="codesearchnet", path=str(DATA / "codesearchnet-python"), word="file")
    splits = task.splits(context())
    for sample in splits.test:
        try:
            definition = ast.parse(sample.programs[0]).body[0]
        except SyntaxError:
            continue
        assert ast.get_docstring(definition) is None  # type: ignore[arg-type]
    assert sum(task.goal().chooses(s) for part in splits.parts().values() for s in part) > 40


# --------------------------------------------------------------------------------------------- what JSON lets through


def test_half_a_surrogate_pair_is_named_by_file_and_row(tmp_path: Path) -> None:
    """``json.loads`` takes it, and nothing after it could be written."""
    for name, write in (("devign", write_devign), ("clones", write_clones), ("search", write_search)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    half = "\\ud800"
    file = tmp_path / "devign" / "function.json"
    file.write_text(file.read_text().replace("int f7()", f"int {half}()"))
    said = (
        r"function\.json, row 8: field 'func' holds \\ud800 as its character 5: half a surrogate pair.*Mend or delete"
    )
    with pytest.raises(DataError, match=said):
        DefectDetection(source="devign", path=str(file.parent)).splits(context())
    file = tmp_path / "clones" / "data.jsonl"
    file.write_text(file.read_text().replace("void f3", f"void {half}"))
    with pytest.raises(DataError, match=r"data\.jsonl, line 4: field 'func' holds \\ud800"):
        CloneDetection(source="bigclonebench", path=str(file.parent)).splits(context())
    file = tmp_path / "search" / "valid.jsonl"
    file.write_text(file.read_text().replace("valid2", half))
    with pytest.raises(DataError, match=r"valid\.jsonl, line 3: field 'docstring_tokens' holds \\ud800"):
        CodeSearch(source="codesearchnet", path=str(file.parent)).splits(context())


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    write_search(tmp_path)
    file = tmp_path / "test.jsonl"
    file.write_text(file.read_text().replace("test2", "\\ud83d\\ude00"))
    found = CodeSearch(source="codesearchnet", path=str(tmp_path), budget=0).splits(context())
    assert "Add one 😀" in [sample.query for sample in found.test]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"code": ' + "1" * 5000 + "}"])
def test_json_that_python_refuses_to_read_is_named_by_file_and_line(tmp_path: Path, text: str) -> None:
    write_search(tmp_path)
    file = tmp_path / "test.jsonl"
    file.write_text(f"{file.read_text()}{text}\n")
    with pytest.raises(DataError, match=r"test\.jsonl, line 6: cannot be read as JSON \("):
        CodeSearch(source="codesearchnet", path=str(tmp_path)).splits(context())
    write_devign(tmp_path)
    (tmp_path / "function.json").write_text(text)
    with pytest.raises(DataError, match=r"function\.json: cannot be read as JSON \("):
        DefectDetection(source="devign", path=str(tmp_path)).splits(context())


def test_an_index_of_thousands_of_digits_is_no_index(tmp_path: Path) -> None:
    write_devign(tmp_path)
    (tmp_path / "test.txt").write_text("1" * 5000)
    with pytest.raises(DataError, match=r"test\.txt, line 1: '1+' is no index"):
        DefectDetection(source="devign", path=str(tmp_path)).splits(context())
