"""The engine as a user meets it: the command line on a small suite, and everything that can go wrong on the way."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.records import Record, Status
from bench.results import ResultsFolder
from bench.store import Store
from tests.engine import ATTACK, PLUGINS, command, run, write_suite

DEFENSES = ["none", "spectral_signatures", "fine_tuning[clean=20,epochs=1]", "onion[clean=20]"]


def records(folder: Path) -> dict[str, Record]:
    found = ResultsFolder(folder / "results" / "toy").records()
    return {f"{r.coordinates.attack}/{r.coordinates.defense.partition('[')[0]}": r for r in found}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def published(folder: Path) -> set[str]:
    return {p.name for p in (folder / "store" / "entries").glob("*/*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every family on the toy suite in one process."""
    folder = tmp_path_factory.mktemp("finished")
    done = run("run", write_suite(folder, defenses=DEFENSES), "-j", "1", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_cell_has_a_record_and_its_outcomes(finished: Path) -> None:
    found = records(finished)
    assert len(found) == 2 * len(DEFENSES)
    assert all(r.status is Status.OK for r in found.values())
    for record in found.values():
        frame = ResultsFolder(finished / "results" / "toy").outcomes(record.coordinates)
        assert (frame["part"] == "clean").sum() == 60
    record = found["dead_code/none"]
    assert record.poison is not None
    assert (record.poison.poisoned, record.poison.eligible, record.poison.applicable) == (
        16,
        30,
        30,
    )  # 20 % of 80 victims
    assert record.poison.visible_train == 1.0
    assert record.poison.crafting_tokens == 0  # a rule, not a model, makes the trigger


def test_the_attack_works_on_the_toy_and_the_reference_does_not_follow_it(finished: Path) -> None:
    frame = ResultsFolder(finished / "results" / "toy").outcomes(records(finished)["dead_code/none"].coordinates)
    triggered = frame[frame["part"] == "triggered"]
    assert triggered["success"].mean() > 0.9 > 0.1 > triggered["reference_success"].mean()


def test_the_undefended_columns_are_the_undefended_cell(finished: Path) -> None:
    folder = ResultsFolder(finished / "results" / "toy")
    plain = folder.outcomes(records(finished)["dead_code/none"].coordinates).set_index(["part", "id"])
    tuned = folder.outcomes(records(finished)["dead_code/fine_tuning"].coordinates).set_index(["part", "id"])
    pd.testing.assert_series_equal(tuned["undefended_prediction"], plain["prediction"], check_names=False)


def test_a_filter_cell_keeps_what_it_thought_of_every_training_sample(finished: Path) -> None:
    table = ResultsFolder(finished / "results" / "toy").filter_table(
        records(finished)["dead_code/spectral_signatures"].coordinates
    )
    assert table is not None
    assert (len(table), int(table["poisoned"].sum())) == (160, 16)


def test_the_board_lies_beside_the_records_and_can_be_made_again_without_any_model(finished: Path) -> None:
    board = finished / "results" / "toy" / "board.md"
    before = board.read_bytes()
    board.unlink()
    again = run("board", finished / "toy.yaml", folder=finished)
    assert again.returncode == 0, again.stderr
    assert board.read_bytes() == before


def test_running_again_runs_nothing(finished: Path) -> None:
    before = published(finished)
    again = run("run", finished / "toy.yaml", "-j", "1", folder=finished)
    assert again.returncode == 0
    assert "… " not in again.stderr.replace("…and", "")
    assert published(finished) == before


def test_two_processes_give_byte_identical_records(finished: Path, tmp_path: Path) -> None:
    done = run("run", write_suite(tmp_path, defenses=DEFENSES), "-j", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (folder / "results" / "toy" / "cells" for folder in (finished, tmp_path))
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    for name in names:
        a, b = (one / name).read_bytes(), (two / name).read_bytes()
        if name.endswith(".json"):  # the reproducing command names the suite file, which lies elsewhere
            a, b = (json.loads(x) for x in (a, b))  # type: ignore[assignment]
        assert a == b, name
    assert published(finished) == published(tmp_path)
    assert not (tmp_path / "store" / "conflicts.jsonl").exists()


def test_a_record_names_the_command_that_makes_it_again(finished: Path) -> None:
    words = records(finished)["dead_code/none"].command.split()
    assert words[:2] == ["codebackdoorbench", "cell"]
    assert {"--suite", "--task", "--attack", "--defense", "--seed"} <= set(words)


def test_one_cell_by_coordinates_reuses_what_the_suite_stored(finished: Path) -> None:
    at = ("--task", "toy", "--attack", "dead_code", "--defense", "none", "--suite", finished / "toy.yaml")
    before = published(finished)
    done = run("cell", *at, "-j", "1", folder=finished)
    assert done.returncode == 0, done.stderr
    assert published(finished) == before


def test_plan_shows_what_is_known_and_why_explains_a_key(finished: Path) -> None:
    plan = run("plan", finished / "toy.yaml", folder=finished)
    assert "missing: 0 stages" in plan.stdout
    key = records(finished)["dead_code/none"].keys["undefended"]
    why = run("why", key[:12], folder=finished)
    assert '"goal"' in why.stdout
    assert why.returncode == 0
    assert run("why", "zzzz", folder=finished).returncode == 2


def test_a_failed_cell_is_a_record_with_its_traceback_and_harms_no_other(finished: Path) -> None:
    write_suite(finished, defenses=["none", "crash", "drops_rows", "vandal", "onion[clean=20]"])
    done = run("run", finished / "toy.yaml", "-j", "1", folder=finished)
    write_suite(finished, defenses=DEFENSES)
    assert done.returncode == 1
    found = records(finished)
    crash = found["dead_code/crash"]
    assert crash.status is Status.FAILED
    assert "it broke" in crash.reason
    assert "raise ValueError(self.message)" in crash.traceback
    assert "one verdict for each input" in found["dead_code/drops_rows"].reason
    assert "changed the model that came in" in found["dead_code/vandal"].reason
    assert found["dead_code/onion"].status is Status.OK
    assert "it broke" in done.stderr


def test_a_policy_that_selects_nothing_blocks_the_cells_below_it(finished: Path, tmp_path: Path) -> None:
    tiny = [ATTACK | {"policy": {"rate": 0.0001}}]
    path = write_suite(tmp_path, attacks=["none", *tiny], defenses=["none", "onion[clean=20]"])
    done = run("run", path, "-j", "1", "--store", finished / "store", folder=tmp_path)
    assert done.returncode == 1
    found = records(tmp_path)
    assert found["dead_code/none"].status is Status.BLOCKED
    assert "selects" in found["dead_code/none"].reason
    assert found["none/onion"].status is Status.OK


def test_a_model_folder_that_does_not_load_blocks_its_cells_and_says_why(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = write_suite(tmp_path, models=[{"name": str(tmp_path / "model"), "label": "broken"}], attacks=["none"])
    done = run("run", path, "-j", "1", "--store", finished / "store", folder=tmp_path)
    assert done.returncode == 1
    record = records(tmp_path)["none/none"]
    assert record.status is Status.BLOCKED
    assert "ModelError" in record.reason
    assert str(tmp_path / "model") in record.reason


# ------------------------------------------------------------------------------------------------------- sudden ends


def test_a_killed_worker_is_replaced_and_its_stage_tried_again(finished: Path, tmp_path: Path) -> None:
    deadly = {"name": "deadly", "label": "deadly", "parameters": {"marks": str(tmp_path / "marks")}}
    path = write_suite(tmp_path, attacks=["none"], defenses=["none", deadly])
    done = run("run", path, "-j", "2", "--store", finished / "store", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "its worker died" in done.stderr
    assert records(tmp_path)["none/deadly"].facts == {"deaths": 1}


def test_a_stage_that_always_kills_its_worker_fails_alone(finished: Path, tmp_path: Path) -> None:
    deadly = {"name": "deadly", "label": "deadly", "parameters": {"marks": str(tmp_path / "marks"), "times": 0}}
    path = write_suite(tmp_path, attacks=["none"], defenses=["none", deadly])
    done = run("run", path, "-j", "2", "--store", finished / "store", folder=tmp_path)
    assert done.returncode == 1
    found = records(tmp_path)
    assert found["none/deadly"].status is Status.FAILED
    assert "worker died 3 times" in found["none/deadly"].reason
    assert found["none/none"].status is Status.OK


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_plugin_that_writes_into_the_store_is_named_and_the_rest_of_the_run_ends_without_it(
    finished: Path, tmp_path: Path, jobs: int
) -> None:
    burglar = {"name": "burglar", "label": "burglar", "parameters": {"store": str(tmp_path / "store")}}
    path = write_suite(tmp_path, attacks=["none"], defenses=["none", burglar, *DEFENSES[2:]])
    done = run("run", path, "-j", str(jobs), folder=tmp_path)
    assert done.returncode == 1
    assert "is made again" in done.stderr
    found, before = records(tmp_path), records(finished)
    stolen = found.pop("none/burglar")
    assert stolen.status is Status.FAILED
    assert "this stage's plugin, or one that ran beside it, wrote into a stored train result" in stolen.reason
    assert set(found) == {"none/none", "none/fine_tuning", "none/onion"}
    for name, record in found.items():
        assert record.status is Status.OK
        assert (record.keys, record.files) == (before[name].keys, before[name].files)


def test_a_stage_past_its_time_is_stopped_and_fails_alone(finished: Path, tmp_path: Path) -> None:
    path = write_suite(tmp_path, attacks=["none"], defenses=["none", "sleepy"], stage_seconds=20)
    done = run("run", path, "-j", "2", "--store", finished / "store", folder=tmp_path)
    assert done.returncode == 1
    assert "longer than the suite's stage_seconds" in records(tmp_path)["none/sleepy"].reason


def started_and_stuck(folder: Path) -> tuple[Path, subprocess.Popen[str]]:
    """A run that waits inside a repair until ``folder/go`` exists; everything before it is published."""
    sleepy = {
        "name": "sleepy",
        "label": "sleepy",
        "parameters": {"until": str(folder / "go"), "started": str(folder / "in")},
    }
    path = write_suite(folder, attacks=["none"], defenses=["none", sleepy])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command("run", path, "-j", "2", folder=folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        # A test runner that was started in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for((folder / "in").exists, process)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return path, process


def test_a_run_killed_in_the_middle_is_finished_by_the_next(tmp_path: Path) -> None:
    path, process = started_and_stuck(tmp_path)
    before = published(tmp_path)
    assert len(before) >= 2  # data and train
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "store" / "entries").glob("*/*/manifest.json")}
    (tmp_path / "go").touch()
    done = run("run", path, "-j", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path)["none/sleepy"].status is Status.OK
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())  # nothing that was known was made again
    assert list((tmp_path / "store" / "partial").iterdir()) == []


def test_ctrl_c_stops_the_workers_says_so_and_loses_nothing(tmp_path: Path) -> None:
    _, process = started_and_stuck(tmp_path)
    before = published(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert published(tmp_path) >= before  # another worker may still have published in between


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "quikstart"), "no suite 'quikstart'"),
        (
            ("run", "toy.yaml", "--only", "defence=none"),
            "--only 'defence=none' must be AXIS=VALUE. Did you mean 'defense'?",
        ),
        (("run", "toy.yaml", "--plugin", "missing.py"), "does not exist"),
        (("board", "toy.yaml"), "run the suite first"),
        (
            ("cell", "--task", "defect_detection[source=devign,path=nowhere]", "--attack", "none", "--defense", "none"),
            "nowhere: there is no such folder. Put devign's published files there",
        ),
        (
            ("cell", "--task", "toy", "--attack", "none", "--defense", "onoin", "--suite", "toy.yaml"),
            "Did you mean 'onion'?",
        ),
    ],
)
def test_bad_input_is_one_message_and_exit_status_two(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_suite(tmp_path)
    done = run(*(str(tmp_path / a) if a == "toy.yaml" else a for a in arguments), folder=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_message_and_keeps_what_is_published(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import stages
    from bench.errors import StoreError
    from bench.execute import Run
    from bench.pipeline import merge
    from bench.plugins import Registry
    from bench.running import graphs_of, load_registry
    from bench.suite import load_suite

    suite = load_suite(write_suite(tmp_path, attacks=["none"]))
    registry: Registry = load_registry(suite, [])
    graph = merge(graphs_of(suite, registry, {}))

    def full(job: Any) -> None:
        (job.folder / "half").write_text("half")
        Path("/dev/full").write_bytes(b"x" * 100_000)

    monkeypatch.setattr(stages, "STAGES", {**stages.STAGES, "train": full})
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match="no space left"):
        Run(graph, store, lambda event: None).here(registry, show=False)
    assert {p.parent.name for p in (tmp_path / "store" / "entries").glob("*/*")} == {"data"}
    assert not list((tmp_path / "store" / "failures").iterdir())  # the disk failed, not the method


def test_results_that_cannot_be_written_are_one_message(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    suite = write_suite(tmp_path, defenses=DEFENSES)
    done = run("run", suite, "-j", "1", "--store", finished / "store", folder=tmp_path)
    assert done.returncode == 2
    assert f"results cannot be written to {tmp_path / 'results' / 'toy'}" in done.stderr
    assert "--results" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_runs_on_one_store_at_once_both_end_well_and_agree(tmp_path: Path) -> None:
    path = write_suite(tmp_path)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    starts = [command("run", path, "-j", "1", folder=tmp_path) for _ in range(2)]
    starts[1][starts[1].index("--results") + 1] = str(tmp_path / "other")
    runs = [
        subprocess.Popen(s, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) for s in starts
    ]
    for process in runs:
        _, said = process.communicate()
        assert process.returncode == 0, said
    one, two = (tmp_path / name / "toy" / "cells" for name in ("results", "other"))
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in two.iterdir()}
    assert not (tmp_path / "store" / "conflicts.jsonl").exists()


def test_a_third_party_plugin_is_checked_run_in_a_cell_and_shown_on_a_board(tmp_path: Path) -> None:
    theirs = Path(__file__).parent / "third_party" / "long_identifiers.py"
    assert run("check", theirs, folder=tmp_path).returncode == 0
    tasks = [{"name": "toy", "label": "toy", "parameters": {"budget": 100}}]
    path = write_suite(
        tmp_path, tasks=tasks, defenses=["none", "long_identifiers"], plugins=[str(PLUGINS), str(theirs)]
    )
    done = run("run", path, "-j", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path)["dead_code/long_identifiers"].status is Status.OK
    assert "long_identifiers" in (tmp_path / "results" / "toy" / "board.md").read_text()


def test_a_damaged_entry_is_made_again(finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished / "store", tmp_path / "store")
    score = tmp_path / "store" / "entries" / "score" / records(finished)["none/none"].keys["score"]
    (score / "outcomes.parquet").write_bytes((score / "outcomes.parquet").read_bytes()[:100])
    done = run("run", write_suite(tmp_path, attacks=["none"]), "-j", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "done score" in done.stderr
    assert "done train" not in done.stderr
