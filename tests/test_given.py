"""Cells taken from results folders in place of running them: the same numbers, and nothing that answers another question."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from bench.given import given_by
from bench.plugins import Registry
from bench.provenance import read_provenance
from bench.running import graphs_of, load_registry
from bench.suite import load_suite
from tests.engine import run, write_suite

FILTER = "filter/random"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished suite, its store taken away."""
    folder = tmp_path_factory.mktemp("finished")
    done = run("run", write_suite(folder, defenses=["none", FILTER]), folder=folder)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "store")
    return folder


@pytest.fixture
def elsewhere(finished: Path, tmp_path: Path) -> Path:
    """Its results on another machine, where nothing else is."""
    shutil.copytree(finished / "results" / "toy", tmp_path / "given")
    return tmp_path


def texts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_suite_whose_cells_are_given_starts_nothing_and_ends_with_the_same_files(elsewhere: Path) -> None:
    suite = write_suite(elsewhere, defenses=["none", FILTER])
    planned = run("plan", suite, "--given", elsewhere / "given", folder=elsewhere)
    assert "missing: 0 stages, nothing to do" in planned.stdout
    done = run("run", suite, "--given", elsewhere / "given", folder=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "4 cells taken as they are from" in done.stderr
    assert "0 cells, 0 stages" in done.stderr
    assert "4 cells: 4 ok" in done.stderr
    assert texts(elsewhere / "results" / "toy" / "cells") == texts(elsewhere / "given" / "cells")
    for name in ("board.json", "timings.json", "provenance.json"):
        assert (elsewhere / "results" / "toy" / name).read_text() == (elsewhere / "given" / name).read_text(), name


def test_one_more_defense_costs_its_own_stages_and_the_board_has_all(elsewhere: Path) -> None:
    suite = write_suite(elsewhere, defenses=["none", FILTER, "screen/random"])
    done = run("run", suite, "--given", elsewhere / "given", folder=elsewhere)
    assert done.returncode == 0, done.stderr
    started = re.findall(r"… (.+)", done.stderr)
    assert any("screen screen/random" in label for label in started)
    assert not any(FILTER in label for label in started), "what is given is not run"
    board = json.loads((elsewhere / "results" / "toy" / "board.json").read_text())
    before = json.loads((elsewhere / "given" / "board.json").read_text())
    numbers, known = (
        {row["defense"]: row["numbers"] for row in each["rows"] if row["attack"] != "none"} for each in (board, before)
    )
    assert set(numbers) == {"none", FILTER, "screen/random"}
    assert known
    assert {defense: numbers[defense] for defense in known} == known


def test_a_record_says_the_suite_that_it_is_given_to_and_where_it_was_made(elsewhere: Path) -> None:
    suite = write_suite(elsewhere, name="other", defenses=["none", FILTER])
    provenance = read_provenance(elsewhere / "given")
    made = provenance.model_copy(
        update={"environments": {k: e.model_copy(update={"commit": "far"}) for k, e in provenance.environments.items()}}
    )
    made.write(elsewhere / "given")
    assert run("run", suite, "--given", elsewhere / "given", folder=elsewhere).returncode == 0
    results = elsewhere / "results" / "other"
    records = {path.stem: json.loads(path.read_text()) for path in (results / "cells").glob("*.json")}
    assert {record["suite"] for record in records.values()} == {"other"}
    assert all("--suite other " in record["command"] for record in records.values())
    known = read_provenance(results)
    commits = {environment.commit for slug in records for environment in [known.of(slug)] if environment is not None}
    assert commits == {"far"}


def test_other_settings_are_another_question(elsewhere: Path) -> None:
    training = {"epochs": 1, "learning_rate": 0.005, "batch_size": 16}
    suite = write_suite(elsewhere, defenses=["none", FILTER], training=training)
    told = run("plan", suite, "--given", elsewhere / "given", folder=elsewhere).stdout
    assert "0 cells taken as they are" in told
    assert "4 cells there have these names and other keys" in told
    assert "missing: 0 stages" not in told


def test_a_plugin_of_the_tree_may_be_worded_anew_and_not_raised_in_version(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(elsewhere, defenses=["none", FILTER])
    parsed = load_suite(str(suite))
    registry = load_registry(parsed, [])
    graphs = graphs_of(parsed, registry, {})
    random = registry.load("filter", "random")
    slugs = {graph.coordinates.slug for graph in graphs}
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "source_digest", lambda self, family, name: "of another text")
        worded = graphs_of(parsed, registry, {})
    assert {g.score.key for g in graphs if g.score}.isdisjoint(g.score.key for g in worded if g.score)
    assert set(given_by([elsewhere / "given"], worded).cells) == slugs
    monkeypatch.setattr(random, "version", random.version + 1)
    given = given_by([elsewhere / "given"], graphs_of(parsed, registry, {}))
    assert given.other == {slug for slug in slugs if "filter.random" in slug}
    assert set(given.cells) == slugs - given.other


def test_what_is_damaged_is_named_and_run(elsewhere: Path) -> None:
    cells = elsewhere / "given" / "cells"
    torn, without, changed = sorted(cells.glob("*.json"))[:3]
    torn.write_text(torn.read_text()[:100])
    without.with_suffix(".parquet").unlink()
    changed.write_text(changed.read_text().replace('"status": "ok"', '"status":  "ok"'))
    done = run(
        "run", write_suite(elsewhere, defenses=["none", FILTER]), "--given", elsewhere / "given", folder=elsewhere
    )
    assert done.returncode == 0, done.stderr
    assert "1 cells taken as they are" in done.stderr
    assert re.search(rf"not taken: given/cells/{re.escape(torn.name)}: it is not whole JSON", done.stderr)
    assert re.search(rf"not taken: given/cells/{re.escape(without.name)}: .* are missing", done.stderr)
    assert re.search(rf"not taken: given/cells/{re.escape(changed.name)}: it is not what was written", done.stderr)
    whole = texts(elsewhere / "results" / "toy" / "cells")
    assert len([name for name in whole if name.endswith(".json")]) == 4


def test_a_folder_may_be_given_to_itself(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "results", tmp_path / "results")
    before = texts(tmp_path / "results" / "toy" / "cells")
    suite = write_suite(tmp_path, defenses=["none", FILTER])
    done = run("run", suite, "--given", tmp_path / "results" / "toy", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert texts(tmp_path / "results" / "toy" / "cells") == before


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    done = run("run", write_suite(tmp_path), "--given", tmp_path / "nowhere", folder=tmp_path)
    assert done.returncode == 2
    assert "--given takes results folders" in done.stderr
    assert "Traceback" not in done.stderr
