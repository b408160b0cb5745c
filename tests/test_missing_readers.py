"""A suite whose screens name language models that are not there: their cells fail and say why, and all others go on to a board."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.records import Record, Status
from bench.results import ResultsFolder
from tests.causal_toys import save
from tests.engine import run, write_suite

FAILING = {
    "onion without its model": ("onion", {"model": "gone/causal"}),
    "attdef without its validator": ("attdef", {"validator": "gone/masked", "steps": 1}),
    "codepurify without its repair": ("codepurify", {"repair": "gone/masked"}),
    "onion with another kind of model": ("onion", {"model": "here/empty"}),
}
WORKING = {
    "onion": ("onion", {}),
    "attdef": ("attdef", {"steps": 1}),
    "attdef with its validator": ("attdef", {"validator": "here/masked", "steps": 1}),
}


def entry(folder: Path, label: str, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A defense of a suite; models lie below the test's folder, or would."""
    placed = {key: str(folder / value) if isinstance(value, str) else value for key, value in parameters.items()}
    return {"name": name, "label": label, "parameters": {"clean": 20, **placed}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a suite that was run to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("missing")
    save("roberta", folder / "here" / "masked")
    (folder / "here" / "empty").mkdir()
    defenses = ["none", *(entry(folder, label, *given) for label, given in (FAILING | WORKING).items())]
    done = run("run", write_suite(folder, defenses=defenses), "-j", "1", folder=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def records(folder: Path) -> dict[tuple[str, str], Record]:
    found = ResultsFolder(folder / "results" / "toy").records()
    return {(record.coordinates.attack, record.coordinates.defense): record for record in found}


@pytest.mark.slow
def test_each_cell_whose_model_is_missing_says_so_alone(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    found = records(folder)
    assert len(found) == 2 * (1 + len(FAILING) + len(WORKING))
    for (attack, defense), record in found.items():
        if defense not in FAILING:
            assert record.status is Status.OK, (attack, defense, record.reason)
            continue
        assert record.status is Status.FAILED
        (missing,) = (value for value in FAILING[defense][1].values() if isinstance(value, str))
        why = "does not exist" if missing.startswith("gone") else "holds no config.json"
        said = f"screen {defense} on toy tiny {attack} seed 0: ModelError: model folder {folder / missing} {why}"
        assert record.reason == said
        assert "".join(said.split()) in "".join(printed.split())  # the terminal breaks lines where it likes


@pytest.mark.slow
def test_the_board_has_the_others_and_names_what_failed(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    board = json.loads((folder / "results" / "toy" / "board.json").read_text(encoding="utf-8"))
    rows = {row["defense"]: row for row in board["rows"] if row["attack"] == "dead_code"}
    assert set(rows) == {"none", *WORKING, *FAILING}
    for name, row in rows.items():
        assert ("asr" in row["numbers"]) == (name not in FAILING), name
        assert [note["status"] for note in row["notes"]] == ["failed"] * (name in FAILING)
        assert all("ModelError: model folder" in note["reason"] for note in row["notes"])


@pytest.mark.slow
def test_running_again_tries_the_missing_ones_again_and_nothing_else(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    save("gpt2", folder / "gone" / "causal")
    done = run("run", folder / "toy.yaml", "-j", "1", folder=folder)
    assert done.returncode == 1
    found = records(folder)
    assert all(found[attack, "onion without its model"].status is Status.OK for attack in ("none", "dead_code"))
    assert all(found["dead_code", name].status is Status.FAILED for name in list(FAILING)[1:])
