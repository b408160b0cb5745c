"""Verifying from end to end: a cell is run again in a fresh store, and what was changed in its outcomes comes to light by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from bench.cli import app, parse_only
from bench.errors import ConfigError
from bench.outcomes import write_outcomes
from bench.provenance import read_provenance, sha256_of
from bench.records import Record
from bench.results import ResultsFolder
from bench.store import write_json
from bench.verifying import Level
from tests.engine import write_suite
from tests.guides import shown
from tests.models_toys import one_thread

SLUG = "toy-tiny-dead_code-none-s0"
TAMPERED = 6
"""Of 30 triggered inputs: a fifth."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()  # sums in floating point are those of the first run


def command(folder: Path, *words: str) -> Result:
    """The command line in a folder, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        return CliRunner().invoke(app, list(words))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy suite, lying where suites lie, and its results."""
    one_thread()
    folder = tmp_path_factory.mktemp("ran")
    (folder / "results" / "suites").mkdir(parents=True)
    write_suite(folder / "results" / "suites", defenses=["none", "onion[clean=20]"])
    done = command(folder, "run", "toy", "-j", "1", "--store", "store")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def mine(ran: Path, tmp_path: Path) -> Path:
    """A copy of the results that a test may change. The store that made them is not there."""
    shutil.copytree(ran / "results", tmp_path / "results")
    return tmp_path


def record_of(folder: Path) -> Record:
    return ResultsFolder(folder / "results" / "toy").record(SLUG)


def tamper(folder: Path, change: Callable[[pd.DataFrame], None]) -> None:
    """Change the outcomes of a cell, and make all digests fit them: the record's, and that of the record itself."""
    results = ResultsFolder(folder / "results" / "toy")
    record = record_of(folder)
    table = results.outcomes(record.coordinates)
    change(table)
    written = write_outcomes(table, results.tables(record.coordinates)["outcomes"])
    path = results.cells / f"{SLUG}.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["files"]["outcomes"] = sha256_of(written)
    write_json(path, value)
    known = read_provenance(results.root)
    known.note(SLUG, known.environments[known.cells[SLUG].environment], path)
    known.write(results.root)
    assert not results.read().faults  # nothing but running again can tell


def fail(rows: int) -> Callable[[pd.DataFrame], None]:
    """Let the first triggered inputs that obey the attacker give their true label instead."""

    def change(table: pd.DataFrame) -> None:
        obeying = ((table["part"] == "triggered") & table["success"]).to_numpy()
        chosen = obeying & (obeying.cumsum() <= rows)
        assert chosen.sum() == rows
        table["prediction"] = np.where(chosen, table["label"], table["prediction"])
        table["success"] = table["success"].to_numpy() & ~chosen

    return change


@pytest.mark.slow
def test_a_suite_s_cells_come_out_as_stored(mine: Path) -> None:
    done = command(mine, "verify", "toy", "-j", "1")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line for line in lines if line.startswith("identical ")] == [
        f"identical toy-tiny-{attack}-{defense}-s0"
        for attack in ("dead_code", "none")
        for defense in ("none", "onion[clean=20]")
    ]
    assert "4 cells run again: 4 identical, 0 differ (tolerances: 1 % of a part's inputs, 1 points)" in done.output
    assert sorted(path.name for path in mine.iterdir()) == ["results"]  # its store is gone


@pytest.mark.slow
def test_the_guide_shows_what_is_printed(mine: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    (name, printed) = re.findall(r"(?m)^\$ codebackdoorbench verify (\S+)\n((?:[^`].*\n)+)```$", guide)[0]
    done = command(mine, "verify", SLUG, "-j", "1")
    assert shown(printed.replace(name, SLUG)).fullmatch(done.output), done.output
    paragraph = guide.partition("`codebackdoorbench verify`")[2].partition("\n## ")[0]
    assert {level for level in get_args(Level) if f"`{level}`" in paragraph or f"\n{level} " in paragraph} == set(
        get_args(Level)
    )
    help_ = command(mine, "verify", "--help").output
    assert all(option in help_ for option in re.findall(r"--[a-z]+", paragraph) if option not in ("--suite", "--task"))
    assert re.findall(r"--only (\S+?)`", paragraph) == ["attack=renaming"]
    assert parse_only(["attack=renaming"]) == {"attack": ["renaming"]}


@pytest.mark.slow
def test_outcomes_that_were_changed_with_all_digests_are_caught_by_cell_and_number(mine: Path) -> None:
    tamper(mine, fail(TAMPERED))
    done = command(mine, "verify", SLUG, "-j", "1")
    assert done.exit_code == 1, done.output
    assert f"differs {SLUG}" in done.output
    assert "success of 20 % of the triggered inputs differs, more than 1 %" in done.output
    # With the inputs' own tolerance as wide as can be, the number is what is left to name.
    done = command(mine, "verify", SLUG, "-j", "1", "--flips", "1")
    assert done.exit_code == 1, done.output
    (named,) = [line.strip() for line in done.output.splitlines() if line.strip().startswith("asr: ")]
    found = re.fullmatch(r"asr: (\S+) stored, (\S+) now, more than 0\.01 apart", named)
    assert found is not None
    assert float(found[2]) - float(found[1]) == pytest.approx(TAMPERED / 30)


@pytest.mark.slow
def test_what_a_tolerance_allows_passes_and_is_told(mine: Path) -> None:
    tamper(mine, fail(1))
    allowed = command(mine, "verify", SLUG, "-j", "1", "--flips", "0.05", "--numbers", "0.05")
    assert allowed.exit_code == 0, allowed.output
    assert f"within tolerance {SLUG}" in allowed.output
    assert "success of 3.3 % of the triggered inputs differs" in allowed.output
    refused = command(mine, "verify", SLUG, "-j", "1", "--flips", "0.03", "--numbers", "0.05")
    assert refused.exit_code == 1, refused.output
    assert "success of 3.3 % of the triggered inputs differs, more than 3 %" in refused.output


@pytest.mark.slow
def test_probabilities_of_another_processor_are_no_difference(mine: Path) -> None:
    def change(table: pd.DataFrame) -> None:
        table["probability"] = np.clip(table["probability"] + 1e-6, 0, 1)

    tamper(mine, change)
    done = command(mine, "verify", SLUG, "-j", "1")
    assert done.exit_code == 0, done.output
    assert f"within tolerance {SLUG}" in done.output
    assert "probabilities differ by at most 1e-06" in done.output


def test_a_cell_that_cannot_be_run_any_more_differs_and_says_why(mine: Path) -> None:
    # As if the record had come from somebody whose suite named a model folder that is not here.
    results = ResultsFolder(mine / "results" / "toy")
    value = json.loads((results.cells / f"{SLUG}.json").read_text(encoding="utf-8"))
    renamed = SLUG.replace("tiny", "gone")
    value["coordinates"]["model"] = "gone"
    write_json(results.cells / f"{renamed}.json", value)
    shutil.copyfile(results.cells / f"{SLUG}.parquet", results.cells / f"{renamed}.parquet")
    done = command(mine, "verify", renamed, "-j", "1")
    assert done.exit_code == 1, done.output
    lines = done.output.splitlines()
    told = lines[lines.index(f"differs {renamed}") + 1 :]
    assert re.match("  status: ok stored, blocked now: .*gone", told[0])
    assert told[1].startswith("1 cells run again: 0 identical, 1 differ")


def test_an_unknown_cell_and_an_unknown_suite_are_named(mine: Path) -> None:
    absent = SLUG.replace("-s0", "-s1")
    done = command(mine, "verify", absent, "-j", "1")
    assert isinstance(done.exception, ConfigError), (
        done.output
    )  # the entry point makes it one message and exit status 2
    assert f"no suite and no cell '{absent}'" in str(done.exception)
    (mine / "results" / "suites" / "toy.yaml").unlink()
    done = command(mine, "verify", SLUG, "-j", "1")
    assert isinstance(done.exception, ConfigError), done.output
    assert "there is no suite 'toy'" in str(done.exception)
