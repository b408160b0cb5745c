"""A suite with an inverting defense, end to end: nulls, calibration cells and verdicts come from real runs of the command line."""

import json
from pathlib import Path

import pytest

from bench.errors import DataError
from bench.records import Record
from bench.results import ResultsFolder
from tests.engine import run, write_suite

CALIBRATION = [11, 12, 13]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inversions")
    suite = write_suite(
        folder, defenses=["none", "guesser"], calibration_seeds=CALIBRATION, false_alarms=0.3, seeds=[0]
    )
    done = run("run", suite, "-j", "2", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 cells (3 of them calibrate verdicts alone)" in done.stderr
    return folder


def records(folder: Path) -> dict[str, Record]:
    return {r.coordinates.slug: r for r in ResultsFolder(folder / "results" / "toy").records()}


def test_the_null_of_a_record_is_what_the_clean_cell_found(finished: Path) -> None:
    found = records(finished)
    attacked, clean = found["toy-tiny-dead_code-guesser-s0"], found["toy-tiny-none-guesser-s0"]
    assert set(attacked.inversions) == {"0->1", "1->0"}
    assert attacked.null == clean.inversions != attacked.inversions
    assert clean.null == {}
    assert found["toy-tiny-dead_code-none-s0"].null == {}


def test_the_null_is_not_counted_as_the_defenses_cost(finished: Path) -> None:
    attacked = records(finished)["toy-tiny-dead_code-guesser-s0"]
    spent = sum(found.trace[-1][0] for found in attacked.inversions.values())
    assert attacked.cost.forward_tokens == spent > 0


def test_calibration_cells_are_records_of_clean_models_and_say_so(finished: Path) -> None:
    extra = [r for r in records(finished).values() if r.calibration]
    assert [r.coordinates.seed for r in extra] == CALIBRATION
    assert all((r.coordinates.attack, r.poison) == ("none", None) for r in extra)
    assert all(set(r.inversions) == {"0->1", "1->0"} for r in extra)


def test_a_calibration_cell_alone_can_be_chosen_and_planned(finished: Path) -> None:
    plan = run("plan", finished / "toy.yaml", folder=finished)
    assert "7 cells (3 of them calibrate verdicts alone)" in plan.stdout
    assert "missing: 0 stages" in plan.stdout
    assert "verdicts at 30 % false alarms need 3 clean models of other seeds, the suite has 3" in plan.stdout
    chosen = run("run", finished / "toy.yaml", "--only", "seed=12", "-j", "1", folder=finished)
    assert chosen.returncode == 0, chosen.stderr
    assert "1 cells (1 of them calibrate verdicts alone)" in chosen.stderr


def test_a_calibration_cell_can_be_made_again_by_its_command(finished: Path) -> None:
    words = records(finished)["toy-tiny-none-guesser-s12"].command.split()
    assert words[-2:] == ["--seed", "12"]
    at = ("--task", "toy", "--attack", "none", "--defense", "guesser", "--seed", "12")
    done = run("cell", *at, "--suite", finished / "toy.yaml", "-j", "1", folder=finished)
    assert done.returncode == 0, done.stderr


def test_the_verdicts_on_the_board_name_the_planted_direction(finished: Path) -> None:
    run("run", finished / "toy.yaml", "-j", "1", folder=finished)
    board = json.loads((finished / "results" / "toy" / "board.json").read_text())
    (detector,) = board["detections"]
    attacked = next(trial for trial in detector["trials"] if trial["attacked"])
    assert (attacked["claim"], attacked["right"], attacked["implanted"]) == ("1->0", True, True)
    assert (attacked["clean"], attacked["convicted"]) == (3, True)
    assert sorted(trial["seed"] for trial in detector["trials"] if trial["calibration"]) == CALIBRATION
    assert all(row["seeds"] == [0] for row in board["rows"])
    assert {row["verdict"] for row in board["rows"] if row["attack"] == "dead_code"} == {"", "1 of 1 convicted"}


def test_the_pages_are_made_again_from_records_alone(finished: Path) -> None:
    folder = finished / "results" / "toy" / "inversions"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {
        f"toy-tiny-{a}-guesser-s0{suffix}" for a in ("none", "dead_code") for suffix in (".md", ".svg")
    }
    for path in folder.iterdir():
        path.unlink()
    done = run("board", finished / "toy.yaml", folder=finished)
    assert done.returncode == 0, done.stderr
    assert "guesser on toy · tiny: AUROC" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_results_of_an_older_schema_are_refused_with_what_to_do(finished: Path, tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.cells.mkdir()
    old = json.loads(records(finished)["toy-tiny-none-guesser-s0"].model_dump_json())
    del old["calibration"], old["null"], old["inversions"]
    old |= {"schema_version": 1, "suspect": None}
    (folder.cells / "old.json").write_text(json.dumps(old))
    with pytest.raises(
        DataError, match=r"old\.json: schema version 1 was never written by a release\. Run the cell again"
    ):
        folder.records()
