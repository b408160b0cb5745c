"""Running a finished suite again: nothing is started where nothing changed, and everything that could matter is looked at."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.finished import Question, recall, remember
from bench.store import Store

KEY = "a" * 64


@pytest.fixture
def question(tmp_path: Path) -> Question:
    """A finished run: one stage, one record, a suite that names a folder of data and a plugin file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "function.json").write_text("[]")
    (tmp_path / "plugin.py").write_text("x = 1\n")
    (tmp_path / "suite.yaml").write_text(
        f"name: small\ntasks: ['defect_detection[source=devign,path={tmp_path}/data]']\nplugins: [plugin.py]\n"
    )
    cells = tmp_path / "results" / "small" / "cells"
    cells.mkdir(parents=True)
    (cells / "one.json").write_text("{}")
    store = Store(tmp_path / "store")
    store.publish("train", KEY, {}, lambda folder: (folder / "value.txt").write_text("hello") and None)
    asked = Question(tmp_path / "suite.yaml", tmp_path / "store", tmp_path / "results", (tmp_path / "plugin.py",), {})
    told = {"plain": "the board\n", "styled": "the *board*\n"}
    remember(asked, tmp_path / "results" / "small", [("train", KEY)], 1, store.seals, told)
    return asked


def test_a_finished_run_is_known_with_what_it_told(question: Question) -> None:
    found = recall(question)
    assert found is not None
    assert (found.cells, found.stages, found.plain, found.styled) == (1, 1, "the board\n", "the *board*\n")


def entry(folder: Path) -> Path:
    return folder / "store" / "entries" / "train" / KEY


def flip(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


CHANGES: dict[str, Callable[[Path], object]] = {
    "suite": lambda folder: (folder / "suite.yaml").write_text("name: small\n"),
    "no suite": lambda folder: (folder / "suite.yaml").unlink(),
    "plugin": lambda folder: (folder / "plugin.py").write_text("x = 2\n"),
    "data": lambda folder: (folder / "data" / "function.json").write_text("{}"),
    "more data": lambda folder: (folder / "data" / "more").write_text(""),
    "record": lambda folder: (folder / "results" / "small" / "cells" / "one.json").write_text("{ }"),
    "no record": lambda folder: (folder / "results" / "small" / "cells" / "one.json").unlink(),
    "another record": lambda folder: (folder / "results" / "small" / "cells" / "two.json").write_text("{}"),
    "result": lambda folder: flip(entry(folder) / "value.txt"),
    "no result": lambda folder: shutil.rmtree(entry(folder)),
    "no manifest": lambda folder: (entry(folder) / "manifest.json").unlink(),
    "conflict": lambda folder: (folder / "store" / "conflicts.jsonl").write_text("{}\n"),
    "no seals": lambda folder: (folder / "store" / "seals.json").unlink(),
    "torn seals": lambda folder: (folder / "store" / "seals.json").write_text('{"train/'),
    "clock set back": lambda folder: os.utime(entry(folder) / "value.txt", (0, 0)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_sends_the_run_the_long_way(
    question: Question, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    time.sleep(0.02)  # the file system's clock ticks more coarsely than the processor's
    change(tmp_path)
    assert recall(question) is None


def test_another_part_other_packages_and_other_devices_are_another_question(
    question: Question, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = Question(question.suite, question.store, question.results, question.plugins, {"seed": ["0"]})
    assert recall(part) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert recall(question) is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert recall(question) is not None
    (tmp_path / "site" / "torch-99.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert recall(question) is None


def test_a_note_that_is_torn_or_of_another_form_is_no_answer(question: Question) -> None:
    whole = question.note.read_text()
    for text in ("", "[]", "{}", whole[: len(whole) // 2], whole.replace('"format":1', '"format":99')):
        question.note.write_text(text)
        assert recall(question) is None


def test_the_answer_needs_no_torch_and_no_plugin(question: Question) -> None:
    import subprocess
    import sys

    code = "import sys, bench.cli, bench.finished, bench.suite_files; print({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
