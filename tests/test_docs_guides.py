"""The guides do what they say: their commands are run, and what they show is what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from bench.plugins import Registry
from bench.suite import Suite, cells, check_unique, parse_suite
from tests.guides import Block, blocks, execute, shown

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.mark.slow
def test_the_tutorial_word_for_word(tmp_path: Path) -> None:
    done = list(execute(DOCS / "add-a-method.md", tmp_path))
    assert sum(step.endswith(": ran") for step in done) == 7
    assert sum(step.endswith("output compared") for step in done) == 7
    assert (tmp_path / "results" / "afternoon" / "board.md").is_file()


def test_reproducing_one_number(tmp_path: Path) -> None:
    for part in ("quickstart", "suites"):
        shutil.copytree(ROOT / "results" / part, tmp_path / "results" / part)
    done = list(execute(DOCS / "reproduce.md", tmp_path))
    assert sum(step.endswith("output compared") for step in done) == 2


def test_the_suite_with_every_key_has_every_key_and_is_valid() -> None:
    (text,) = [block.text for block in blocks(DOCS / "suites.md") if block.language == "yaml"]
    content = yaml.safe_load(text)
    assert set(content) == set(Suite.model_fields)
    suite = parse_suite(content, "suites.md")
    plans = list(cells(suite, Registry().discover()))
    check_unique(plans)
    assert {plan.coordinates.defense for plan in plans if plan.calibration} == {"elibadcode"}


def test_output_that_differs_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\necho one; echo two\n```\n\n```text\none\n…\n```\n")
    assert len(list(execute(page, tmp_path))) == 2
    page.write_text("```sh\necho one; echo two\n```\n\n```text\none\nthree\n```\n")
    with pytest.raises(AssertionError, match="line 5: shown is"):
        list(execute(page, tmp_path))


def test_a_command_that_fails_is_noticed_with_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```sh\nfalse\ntrue\n```\n")
    with pytest.raises(AssertionError, match="line 3: status 1"):
        list(execute(page, tmp_path))


def test_files_are_written_and_edited(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# sub/a.py\nx = 1\nprint(x)\n```\n```python\n# edit sub/a.py\nx = 1\n# becomes\nx = 2\n```\n"
        "```sh\npython sub/a.py\n```\n```text\n2\n```\n"
    )
    assert len(list(execute(page, tmp_path))) == 4
    assert (tmp_path / "sub" / "a.py").read_text() == "x = 2\nprint(x)\n"
    page.write_text("```python\n# edit sub/a.py\nx = 3\n# becomes\nx = 2\n```\n")
    with pytest.raises(AssertionError, match="stands 0 times"):
        list(execute(page, tmp_path))


def test_an_ellipsis_is_anything_and_nothing_else_is() -> None:
    assert shown("a…c\n").fullmatch("a b\nc\n")
    assert not shown("a.c\n").fullmatch("abc\n")


def test_blocks_are_found_with_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("one\n\n```sh\nls\n```\n\n    ```sh\n    no\n```text\nx\n```\n")
    assert blocks(page) == [Block("sh", "ls\n", 3), Block("text", "x\n", 9)]
