"""Published data in the hub's form: parquet or what save_to_disk wrote, loaded with the call that asks the hub."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from bench.context import Context
from bench.contracts import Task
from bench.errors import ConfigError, DataError
from bench.plugins import Registry, parameters_of
from bench.suite import load_suite
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tasks.sources import hub

datasets = pytest.importorskip("datasets")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Rows = dict[str, list[dict[str, Any]]]


def context() -> Context:
    return Context({"data": 0}, Path("unused"))


def defects() -> Rows:
    """As google/code_x_glue_cc_defect_detection holds them: ``id`` is the index in the authors' file, ``target`` a truth value."""
    spans = {"train": range(10), "validation": range(10, 13), "test": range(13, 18)}
    return {
        split: [
            {
                "id": i,
                "func": f"int f{i}() {{\r\n return {i}; }}",
                "target": i % 2 == 1,
                "project": "p",
                "commit_id": f"c{i}",
            }
            for i in span
        ]
        for split, span in spans.items()
    }


def pairs() -> Rows:
    def row(i: int) -> dict[str, Any]:
        one, two = i % 3, i % 3 + 1
        texts = {f"func{k}": f"void f{n}() {{}}" for k, n in ((1, one), (2, two))}
        return {"id": i, "id1": one, "id2": two, **texts, "label": i % 2 == 0}

    return {split: [row(i) for i in range(n)] for split, n in {"train": 8, "validation": 3, "test": 4}.items()}


def functions(language: str = "python") -> Rows:
    def row(split: str, i: int) -> dict[str, Any]:
        python = f'def f{i}(x):\n    """Add {i}."""\n    return x + {i}'
        return {
            "repository_name": "r/r",
            "func_path_in_repository": "a.py",
            "func_name": f"f{i}",
            "whole_func_string": "",
            "language": language,
            "func_code_string": python if language == "python" else f"int f{i}(int x) {{ return x + {i}; }}",
            "func_code_tokens": ["f"],
            "func_documentation_string": f"Add {i}.",
            "func_documentation_tokens": ["Add", str(i), split],
            "split_name": split,
            "func_code_url": "",
        }

    return {s: [row(s, i) for i in range(n)] for s, n in {"train": 6, "validation": 2, "test": 3}.items()}


def as_parquet(folder: Path, rows: Rows) -> Path:
    """The layout of a repository: ``<split>-00000-of-00001.parquet``."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in rows.items():
        datasets.Dataset.from_list(part).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def as_saved(folder: Path, rows: Rows) -> Path:
    datasets.DatasetDict({s: datasets.Dataset.from_list(part) for s, part in rows.items()}).save_to_disk(str(folder))
    return folder


TASKS: dict[str, tuple[Callable[[], Rows], Callable[..., Task]]] = {
    "devign": (defects, lambda **more: DefectDetection(source="devign", budget=0, **more)),
    "bigclonebench": (pairs, lambda **more: CloneDetection(source="bigclonebench", budget=0, **more)),
    "codesearchnet": (functions, lambda **more: CodeSearch(source="codesearchnet", budget=0, **more)),
}


def write_raw(folder: Path, source: str, rows: Rows) -> Path:
    """The same data in their authors' files."""
    folder.mkdir()
    stems = {"train": "train", "validation": "valid", "test": "test"}
    if source == "devign":
        flat = sorted((row for part in rows.values() for row in part), key=lambda row: row["id"])
        (folder / "function.json").write_text(json.dumps([{**row, "target": int(row["target"])} for row in flat]))
        for split, part in rows.items():
            (folder / f"{stems[split]}.txt").write_text("".join(f"{row['id']}\n" for row in part))
    elif source == "bigclonebench":
        (folder / "data.jsonl").write_text(
            "".join(json.dumps({"func": f"void f{i}() {{}}", "idx": str(i)}) + "\n" for i in range(4))
        )
        for split, part in rows.items():
            lines = (f"{row['id1']}\t{row['id2']}\t{int(row['label'])}\n" for row in part)
            (folder / f"{stems[split]}.txt").write_text("".join(lines))
    else:
        names = {"code": "func_code_string", "docstring": "func_documentation_string", "repo": "repository_name"}
        names |= {"docstring_tokens": "func_documentation_tokens", "path": "func_path_in_repository"}
        for split, part in rows.items():
            lines = (json.dumps({new: row[old] for new, old in names.items()}) + "\n" for row in part)
            (folder / f"{stems[split]}.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("source", TASKS)
@pytest.mark.parametrize("form", [as_parquet, as_saved])
def test_the_hubs_form_gives_the_samples_of_the_authors_files(
    tmp_path: Path, source: str, form: Callable[[Path, Rows], Path]
) -> None:
    rows, task = TASKS[source]
    here = task(path=str(form(tmp_path / "hub", rows()))).splits(context())
    raw = task(path=str(write_raw(tmp_path / "raw", source, rows()))).splits(context())
    assert here.parts() == raw.parts()
    assert {name: len(part) for name, part in here.parts().items() if name != "budget"} == {
        {"validation": "valid"}.get(split, split): len(part) for split, part in rows().items()
    }


@pytest.mark.parametrize("source", TASKS)
def test_the_hub_is_asked_with_the_same_call_at_the_pinned_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    rows, task = TASKS[source]
    copy = as_parquet(tmp_path / "python", rows())
    asked: list[tuple[str, Any, Any]] = []
    real = datasets.load_dataset

    def instead(name: str, *, data_dir: str | None = None, revision: str | None = None, **more: Any) -> Any:
        asked.append((name, data_dir, revision))
        return real(str(tmp_path if data_dir else copy), data_dir=data_dir, cache_dir=str(tmp_path / "cache"), **more)

    monkeypatch.setattr(datasets, "load_dataset", instead)
    pinned = task(revision=COMMIT)
    found = pinned.splits(context())
    monkeypatch.undo()
    assert found.parts() == task(path=str(copy)).splits(context()).parts()
    names = {"devign": hub.DEVIGN.name, "bigclonebench": hub.BIGCLONEBENCH.name}
    part = "python" if source == "codesearchnet" else None
    assert asked == [(names.get(source, "code-search-net/code_search_net"), part, COMMIT)]
    assert pinned.origin()["revision"] == COMMIT  # in the key, without asking anybody


def test_java_is_read_from_its_part_of_the_repository(tmp_path: Path) -> None:
    as_parquet(tmp_path / "python", functions())
    as_parquet(tmp_path / "java", functions("java"))
    java = CodeSearch(source="codesearchnet", path=str(tmp_path), language="java", budget=0)
    found = java.splits(context()).test[1]
    assert (found.language, found.programs, found.query) == (
        "java",
        ("int f1(int x) { return x + 1; }",),
        "Add 1 test",
    )
    assert java.info.language == "java"
    assert set(java.origin()) == {f"java/{s}-00000-of-00001.parquet" for s in ("train", "validation", "test")}


@pytest.mark.parametrize("form", [as_parquet, as_saved])
def test_another_language_than_the_tasks_is_refused(tmp_path: Path, form: Callable[[Path, Rows], Path]) -> None:
    folder = str(form(tmp_path / "copy", functions("java")))
    with pytest.raises(DataError, match=r"copy/train, row 1: is in 'java', not in 'python'\. Set the task's language"):
        CodeSearch(source="codesearchnet", path=folder).splits(context())
    assert CodeSearch(source="codesearchnet", path=folder, language="java").splits(context()).test


def test_a_copy_without_the_column_of_the_language_is_taken_at_its_word(tmp_path: Path) -> None:
    rows = functions()
    for part in rows.values():
        for row in part:
            del row["language"]
    assert CodeSearch(source="codesearchnet", path=str(as_parquet(tmp_path, rows)), budget=0).splits(context()).test


def test_a_folder_of_other_languages_parts_is_refused(tmp_path: Path) -> None:
    for language in ("java", "go"):
        as_parquet(tmp_path / language, functions("java"))
    python = CodeSearch(source="codesearchnet", path=str(tmp_path))
    for asked in (python.origin, lambda: python.splits(context())):
        with pytest.raises(DataError, match=r"holds go, java of code-search-net/code_search_net, and not python"):
            asked()


def as_converted(folder: Path, rows: Rows, part: str) -> Path:
    """The layout of the hub's own branch, refs/convert/parquet: ``<part>/<split>/0000.parquet``."""
    for split, content in rows.items():
        (folder / part / split).mkdir(parents=True)
        datasets.Dataset.from_list(content).to_parquet(str(folder / part / split / "0000.parquet"))
    return folder


@pytest.mark.parametrize("source", TASKS)
def test_a_copy_of_the_hubs_parquet_branch_gives_the_same_samples(tmp_path: Path, source: str) -> None:
    rows, task = TASKS[source]
    copy = as_converted(tmp_path / "hub", rows(), "python" if source == "codesearchnet" else "default")
    if source == "codesearchnet":
        as_converted(copy, functions("java"), "java")  # another part beside it is not read
    raw = task(path=str(write_raw(tmp_path / "raw", source, rows())))
    assert task(path=str(copy)).splits(context()).parts() == raw.splits(context()).parts()


@pytest.mark.parametrize("source", TASKS)
def test_a_commit_of_the_parquet_branch_loads_with_the_call_that_asks_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    rows, task = TASKS[source]
    copy = as_converted(tmp_path / "hub", rows(), "python" if source == "codesearchnet" else "default")
    real = datasets.load_dataset

    def instead(name: str, *, data_dir: str | None = None, revision: str | None = None) -> Any:
        assert revision == COMMIT
        return real(str(copy), data_dir=data_dir, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", instead)
    pinned = task(revision=COMMIT).splits(context())
    monkeypatch.undo()
    assert pinned.parts() == task(path=str(copy)).splits(context()).parts()


def test_a_commit_with_a_script_says_where_the_parquet_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found code_search_net.py")

    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(DataError, match=r"Scripts are not run\. Copy a full commit .*refs/convert/parquet"):
        CodeSearch(source="codesearchnet", revision=COMMIT).splits(context())


def test_a_column_that_is_no_utf_8_is_named_by_file_and_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    folder = as_parquet(tmp_path / "copy", defects())
    file = folder / "test-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(file)
    broken = pyarrow.array([b"int f() {}", b"int \xff() {}", *[b"int g() {}"] * (len(table) - 2)], pyarrow.binary())
    column = table.column_names.index("func")
    # Not cast, which would check it: a file may hold such bytes all the same.
    text = pyarrow.Array.from_buffers(pyarrow.string(), len(table), broken.buffers())
    pyarrow.parquet.write_table(table.set_column(column, "func", text), file)
    with pytest.raises(DataError, match=r"copy/test, row 2: cannot be read \(UnicodeDecodeError"):
        DefectDetection(source="devign", path=str(folder)).splits(context())


def test_the_key_of_a_local_copy_is_its_bytes_and_not_its_place(tmp_path: Path) -> None:
    _, task = TASKS["devign"]
    one, two = (as_parquet(tmp_path / name, defects()) for name in ("one", "two"))
    assert task(path=str(one)).origin() == task(path=str(two)).origin()
    changed = defects()
    changed["test"][0]["func"] = "int other() {}"
    as_parquet(two, changed)
    assert task(path=str(one)).origin() != task(path=str(two)).origin()


@pytest.mark.parametrize(
    ("form", "file"),
    [
        (as_parquet, "README.md"),
        (as_parquet, ".huggingface.yaml"),
        (as_parquet, "dataset_infos.json"),
        (as_saved, "dataset_dict.json"),
        (as_saved, "test/state.json"),
    ],
)
def test_what_decides_the_splits_stands_in_the_key(
    tmp_path: Path, form: Callable[[Path, Rows], Path], file: str
) -> None:
    folder = form(tmp_path / "copy", defects())
    task = DefectDetection(source="devign", path=str(folder))
    before = task.origin()
    task.splits(context())
    assert task.origin() == before, "reading writes nothing into the copy"
    with (folder / file).open("a") as opened:
        opened.write(" ")
    assert task.origin() != before


def test_a_card_that_swaps_splits_is_another_key(tmp_path: Path) -> None:
    folder = as_converted(tmp_path, functions(), "python")
    task = CodeSearch(source="codesearchnet", path=str(folder))
    before = task.origin()
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: python\n  data_files:\n  - split: train\n    path: test/*\n---\n"
    )
    assert task.origin() != before
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.lock").write_text("")
    assert set(task.origin()) - set(before) == {"README.md"}


def test_the_authors_files_come_first_where_they_all_lie(tmp_path: Path) -> None:
    folder = write_raw(tmp_path / "raw", "devign", defects())
    other = defects()
    other["test"][0]["func"] = "int other() {}"
    as_parquet(folder / "copy of the hub", other)
    task = DefectDetection(source="devign", path=str(folder), budget=0)
    assert set(task.origin()) == {"function.json", "train.txt", "valid.txt", "test.txt"}
    assert "int other() {}" not in {s.programs[0] for s in task.splits(context()).test}
    (folder / "test.txt").unlink()
    assert "copy of the hub/test-00000-of-00001.parquet" in task.origin()


@pytest.mark.parametrize("error", ["wrapped", "estimated", "no folder"])
def test_a_full_disk_is_no_fault_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    def full(*_: object, **__: object) -> None:
        if error == "estimated":
            raise OSError("Not enough disk space. Needed: 2.00 GiB (download: 1.00 GiB, generated: 1.00 GiB")
        if error == "no folder":
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as reason:
            raise datasets.exceptions.DatasetGenerationError(
                "An error occurred while generating the dataset"
            ) from reason

    folder = as_parquet(tmp_path / "copy", defects())
    monkeypatch.setattr(datasets, "load_dataset", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        ConfigError, match=f"copy: no space left in {tmp_path}, where .* not at fault.* TMPDIR to a folder"
    ):
        DefectDetection(source="devign", path=str(folder)).splits(context())
    with pytest.raises(ConfigError, match=r"no space left in .* HF_HOME to a folder with more room"):
        DefectDetection(source="devign", revision=COMMIT).splits(context())


def test_new_parameters_at_their_defaults_leave_keys_as_they_were() -> None:
    for task in (DefectDetection(), CloneDetection(), CodeSearch()):
        assert not {"revision", "cleaned", "language"} & set(parameters_of(task))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            lambda: DefectDetection(source="devign", revision="main"),
            "'main' is no full commit hash .* A branch or tag moves",
        ),
        (
            lambda: CodeSearch(source="codesearchnet", revision="refs/convert/parquet"),
            r"no full commit hash .*code_search_net/commits/refs%2Fconvert%2Fparquet, or .*revision='refs/convert/parquet'\)\.sha",
        ),
        (lambda: DefectDetection(source="devign", revision=COMMIT[:7]), "no full commit hash"),
        (lambda: DefectDetection(source="devign", revision=COMMIT, path="x"), r"path \(a local copy\) or revision"),
        (lambda: DefectDetection(source="juliet", revision=COMMIT), "not on the hub"),
        (lambda: DefectDetection(revision=COMMIT), "revision is for published data alone"),
        (lambda: CloneDetection(cleaned=True), "cleaned is for published data alone"),
        (lambda: CodeSearch(language="java"), "language is for published data alone"),
        (
            lambda: DefectDetection(path="data/devign"),
            r"path is for published data alone, and no source was named: name it as well \(source=devign or juliet\), or drop path",
        ),
        (lambda: DefectDetection(path=""), "path is for published data alone"),
        (lambda: CloneDetection(path="x"), "source=bigclonebench"),
        (lambda: CodeSearch(path="x"), "source=codesearchnet"),
        (
            lambda: DefectDetection(source="juliet", path="x", weaknesses=5),
            "weaknesses is for embedded data alone, .*source=juliet",
        ),
        (lambda: DefectDetection(source="devign", path="x", max_tokens=50), "max_tokens is for embedded data alone"),
        (lambda: CloneDetection(source="bigclonebench", path="x", near_misses=0.1), "near_misses is for embedded"),
        (lambda: CodeSearch(source="codesearchnet", path="x", max_tokens=50), "max_tokens is for embedded data alone"),
        (lambda: DefectDetection(source="devign", path=""), "path is blank: give the folder"),
        (lambda: DefectDetection(source="juliet", path=" "), "path is blank: give the folder"),
        (lambda: CodeSearch(source="codesearchnet"), "needs the parameter path.*or with the hub's parquet files"),
    ],
)
def test_what_does_not_go_together_is_refused(task: Callable[[], Task], message: str) -> None:
    for asked in (task().origin, lambda: task().splits(context())):  # before anything runs, and wherever data are made
        with pytest.raises(ConfigError, match=message):
            asked()


def test_what_suites_of_the_project_ask_for_goes_together() -> None:
    registry = Registry().discover()
    suites = [load_suite(file) for file in (Path(__file__).parents[1] / "results" / "suites").glob("*.yaml")]
    entries = [entry for suite in suites for entry in suite.tasks]
    assert len(entries) > 10
    for entry in entries:
        with suppress(DataError):  # the files of data are not there
            cast(Task, registry.build("task", entry.name, entry.parameters)).origin()


def test_without_network_the_error_says_how_to_point_at_a_copy(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom bench.context import Context\nfrom bench.errors import DataError\n"
        "from tasks.defect_detection import DefectDetection\n"
        f"try: DefectDetection(source='devign', revision='{COMMIT}').splits(Context({{'data': 0}}, Path('x')))\n"
        "except DataError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "does not load from the hub" in done.stdout
    assert f"hf download --repo-type dataset {hub.DEVIGN.name} --revision {COMMIT} --local-dir FOLDER" in done.stdout
    assert "set the parameter path" in done.stdout


def test_a_script_beside_the_data_is_never_run(tmp_path: Path) -> None:
    folder = as_parquet(tmp_path / "copy", defects())
    (folder / "copy.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError, match="scripts are no longer supported"):
        DefectDetection(source="devign", path=str(folder)).splits(context())
    assert not (tmp_path / "ran").exists()


def edited(change: Callable[[Rows], object]) -> Rows:
    rows = defects()
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (edited(lambda r: r.pop("test")), "there is no split 'test'; there is: train, validation"),
        (
            edited(lambda r: [row.pop("commit_id") for row in r["validation"]]),
            "split validation: there is no column 'commit_id'",
        ),
        (edited(lambda r: r["train"][3].update(func="  ")), r"train, row 4: field 'func' is blank"),
        (edited(lambda r: r["test"][1].update(id=0)), r"test, row 2: id 0 stands already in .*train, row 1"),
        (edited(lambda r: r["train"][2].update(target=None)), r"train, row 3: label None is neither 0 nor 1"),
    ],
)
def test_malformed_data_are_named_by_split_and_row(tmp_path: Path, rows: Rows, message: str) -> None:
    # Saved, since a directory of parquet files must have the same columns in all of its splits.
    with pytest.raises(DataError, match=message):
        DefectDetection(source="devign", path=str(as_saved(tmp_path / "copy", rows))).splits(context())


def test_an_id_of_a_pair_stands_once_in_a_split(tmp_path: Path) -> None:
    """The samples' ids are made of it."""
    rows = pairs()  # each split counts from 0
    rows["train"][5]["id"] = 2
    folder = as_parquet(tmp_path / "copy", rows)
    with pytest.raises(DataError, match=r"train, row 6: id 2 stands already in row 3"):
        CloneDetection(source="bigclonebench", path=str(folder)).splits(context())


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    folder = as_parquet(tmp_path / "copy", defects())
    file = folder / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(
        DataError, match=r"copy: does not load .* It must hold google/code_x_glue_cc_defect_detection's parquet files"
    ):
        DefectDetection(source="devign", path=str(folder)).splits(context())
