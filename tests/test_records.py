"""Records of every version are read, schemas are current, and what is wrong with a result is said, with the rest of the board standing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.board import Board, publish_board
from bench.contracts import TaskKind
from bench.errors import DataError
from bench.fitting import difference, sift
from bench.migrations import UnreadableRecord, read_record
from bench.models import create
from bench.outcomes import write_filter, write_outcomes
from bench.provenance import FILE, Environment, Provenance, environment, read_provenance, sha256_of
from bench.records import DTYPE, SCHEMA_VERSION, SCORED_VERSION, PluginUse, Record, Status
from bench.results import ResultsFolder
from bench.schemas import schemas
from bench.store import write_json
from tests.models_toys import INFOS, SMALL, context, defects
from tests.test_board import loader, record

ROOT = Path(__file__).parents[1]


def write(folder: ResultsFolder, one: Record, name: str | None = None) -> Path:
    """A cell as a run leaves it."""
    folder.cells.mkdir(parents=True, exist_ok=True)
    files = {}
    if one.status is Status.OK:
        outcomes, judged = loader(one)
        tables = folder.tables(one.coordinates)
        files["outcomes"] = sha256_of(write_outcomes(outcomes, tables["outcomes"]))
        if judged is not None:
            files["filter"] = sha256_of(write_filter(judged, tables["filter"]))
    path = folder.cells / f"{name or one.coordinates.slug}.json"
    write_json(path, one.model_copy(update={"files": files}).model_dump(mode="json"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> ResultsFolder:
    """Four good cells."""
    found = ResultsFolder(tmp_path / "suite")
    provenance = Provenance()
    for defense in ("none", "dece", "elibadcode", "spectral_signatures"):
        one = record(defense)
        provenance.note(one.coordinates.slug, Environment(commit="c0ffee"), write(found, one))
    provenance.write(found.root)
    return found


def board_of(folder: ResultsFolder) -> tuple[Board, str]:
    out = io.StringIO()
    board, paths = publish_board(folder, 0.02, Console(file=out, width=200))
    assert "## Definitions" in paths["board.md"].read_text(), "the page is whole"
    return board, paths["board.md"].read_text() + out.getvalue()


def slug(defense: str) -> str:
    return record(defense).coordinates.slug


def test_a_good_folder_sets_nothing_apart(folder: ResultsFolder) -> None:
    board, page = board_of(folder)
    assert (len(board.rows), board.apart) == (4, ())
    assert "Set apart" not in page


# --------------------------------------------------------------------------------------------------------------- schema


def test_committed_records_of_every_version_are_read() -> None:
    seen = set()
    for path in sorted((ROOT / "results").glob("*/cells/*.json"))[::25]:
        value = json.loads(path.read_text())
        seen.add(value["schema_version"])
        found = read_record(value)
        assert (found.schema_version, found.dtype) == (SCHEMA_VERSION, "float32")
        whole = found.model_dump(mode="json")
        for name in set(value) - {"schema_version", "files", "dtype"}:
            # A later version may tell more of a thing (absent here: null), and nothing else of it.
            told = {**whole[name], **value[name]} if isinstance(value[name], dict) else value[name]
            assert told == whole[name], (path, name)
        if value["poison"]:
            assert {name for name in found.poison.model_dump() if name not in value["poison"]} <= {"crafting_tokens"}
    assert seen <= {2, 3}
    assert seen


def test_version_two_becomes_version_three() -> None:
    old = record("dece").scored()
    assert old["schema_version"] == SCORED_VERSION == 2
    assert not {"dtype", "files"} & set(old)
    assert read_record(old) == record("dece")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "it is no record"),
        ({"suite": "x"}, "it is no record"),
        ({"schema_version": "3"}, "it is no record"),
        ({"schema_version": SCHEMA_VERSION + 1}, "newer than 3.*Update codebackdoorbench"),
        ({"schema_version": 1}, "never written by a release"),
        ({"schema_version": 3, "suite": "x", "status": "ok"}, "coordinates: Field required"),
        (record("dece").model_dump(mode="json") | {"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(value: object, words: str) -> None:
    with pytest.raises(UnreadableRecord, match=words):
        read_record(value)


def test_the_json_schemas_that_are_written_out_are_current() -> None:
    for name, schema in schemas().items():
        committed = json.loads((ROOT / "results" / "schema" / name).read_text())
        assert committed == schema, "run: python -m bench.schemas results/schema"
    fields = schemas()["record.json"]["properties"]
    wanted = {"plugins", "packages", "data_digest", "files", "device", "dtype", "seeds", "cost", "status", "traceback"}
    assert wanted <= set(fields)


def test_models_have_the_type_that_records_state(tmp_path: Path) -> None:
    info = next(info for info in INFOS.values() if info.kind is TaskKind.CLASSIFICATION)
    made = create("tiny", info, defects(60), SMALL, context(tmp_path))
    assert {str(p.dtype) for p in made.network.parameters()} == {f"torch.{DTYPE}"}


# ------------------------------------------------------------------------------------------------------------ provenance


def test_provenance_tells_commit_and_packages(folder: ResultsFolder) -> None:
    here = environment()
    assert here.packages["numpy"]
    assert here.python.count(".") == 2
    assert (len(here.commit), here.dirty in (True, False)) == (40, True) if (ROOT / ".git").exists() else True
    known = read_provenance(folder.root).of(slug("dece"))
    assert known is not None
    assert known.commit == "c0ffee"


def test_a_record_that_did_not_change_keeps_where_it_came_from(folder: ResultsFolder) -> None:
    provenance = read_provenance(folder.root)
    provenance.note(slug("dece"), Environment(commit="later"), folder.cells / f"{slug('dece')}.json")
    assert provenance.of(slug("dece")) == Environment(commit="c0ffee")
    write_json(folder.cells / f"{slug('dece')}.json", {"changed": True})
    provenance.note(slug("dece"), Environment(commit="later"), folder.cells / f"{slug('dece')}.json")
    assert provenance.of(slug("dece")) == Environment(commit="later")


def test_unreadable_provenance_is_a_fault_of_its_own(folder: ResultsFolder) -> None:
    (folder.root / FILE).write_text('{"provenance_version": 99}')
    board, _ = board_of(folder)
    assert len(board.rows) == 4
    assert "version 99" in board.apart[0].what


# --------------------------------------------------------------------------------------------------------------- bad input


def test_a_truncated_record(folder: ResultsFolder) -> None:
    path = folder.cells / f"{slug('dece')}.json"
    path.write_text(path.read_text()[:200])
    board, page = board_of(folder)
    assert {row.defense for row in board.rows} == {"none", "elibadcode", "spectral_signatures"}
    assert board.apart[0].where == f"cells/{slug('dece')}.json"
    assert "truncated? Delete it and run the suite again" in page


def test_a_record_of_a_newer_schema(folder: ResultsFolder) -> None:
    path = folder.cells / f"{slug('dece')}.json"
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 9'))
    board, page = board_of(folder)
    assert len(board.rows) == 3
    assert "schema version 9 is newer than 3" in page.replace("\\_", "_")


def test_a_record_changed_by_hand(folder: ResultsFolder) -> None:
    path = folder.cells / f"{slug('elibadcode')}.json"
    path.write_text(path.read_text().replace('"eligible": 40', '"eligible": 31'))
    board, _ = board_of(folder)
    assert [fault.slug for fault in board.apart] == [slug("elibadcode")]
    assert "not what was written" in board.apart[0].what


@pytest.mark.parametrize("name", ["outcomes", "filter"])
def test_tables_with_a_wrong_digest(folder: ResultsFolder, name: str) -> None:
    one = record("spectral_signatures")
    outcomes, judged = loader(record("spectral_signatures", seed=1))
    assert judged is not None
    if name == "outcomes":
        write_outcomes(outcomes, folder.tables(one.coordinates)["outcomes"])
    else:
        write_filter(judged.assign(score=1.0), folder.tables(one.coordinates)["filter"])
    board, _ = board_of(folder)
    assert [fault.slug for fault in board.apart] == [one.coordinates.slug]
    assert f"its {name} (" in board.apart[0].what
    assert "another sha256" in board.apart[0].what


def test_a_truncated_table(folder: ResultsFolder) -> None:
    table = folder.tables(record("dece").coordinates)["outcomes"]
    table.write_bytes(table.read_bytes()[:100])
    path = folder.cells / f"{slug('dece')}.json"
    value = json.loads(path.read_text())
    write_json(path, value | {"files": {}})
    (folder.root / FILE).unlink()
    board, _ = board_of(folder)
    assert [fault.slug for fault in board.apart] == [slug("dece")]
    assert "cannot be read" in board.apart[0].what
    assert len(board.rows) == 3


def test_a_record_under_another_cells_name(folder: ResultsFolder) -> None:
    write(folder, record("onion"), name=slug("onion").replace("onion", "strip"))
    board, _ = board_of(folder)
    assert f"another cell, {slug('onion')}" in board.apart[0].what


def test_nothing_readable_is_an_error_that_says_why(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.cells.mkdir()
    (folder.cells / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"no records that can be read.*truncated"):
        folder.read()


# ----------------------------------------------------------------------------------------------------------------- fitting


def used(version: int, **effective: Any) -> dict[str, PluginUse]:
    return {"defense": PluginUse(name="dece", family="training", version=version, effective=effective)}


def test_cells_that_agree_count_once_and_cells_that_disagree_not_at_all() -> None:
    one, other = record("dece"), record("dece").model_copy(update={"suite": "another"})
    assert sift([one, other]) == ([other], [])
    wrong = record("dece", facts={"loss": 2}).model_copy(update={"suite": "another"})
    kept, faults = sift([record("none"), one, wrong])
    assert [r.coordinates.defense for r in kept] == ["none"]
    assert [fault.where for fault in faults] == [f"another: {slug('dece')}", f"hand: {slug('dece')}"]
    assert "2 records of this cell disagree in facts" in faults[0].what


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_digest": "b" * 64}, "its data digest (bbbbbbbbbbbb…, not aaaaaaaaaaaa…)"),
        ({"plugins": used(2)}, "its defense plugin (version 2, not 1)"),
        ({"plugins": used(1, rate=0.5)}, "its defense plugin (rate 0.5, not nothing)"),
        ({"settings": {"training": {"epochs": 9}}}, "its settings (epochs 9, not 2)"),
        ({"policy": {"count": 3}}, "its policy and goal"),
    ],
)
def test_what_does_not_fit_the_others_is_left_out_with_the_reason(change: dict[str, Any], words: str) -> None:
    common: dict[str, Any] = {
        "data_digest": "a" * 64,
        "plugins": used(1),
        "settings": {"training": {"epochs": 2}, "numerics": {"threads": 1}},
        "policy": {"count": 10},
    }
    good = [record("dece", seed=seed, **common) for seed in (0, 1)]
    elsewhere = record(
        "dece", seed=3, **(common | {"settings": {"training": {"epochs": 2}, "numerics": {"threads": 8}}})
    )
    bad = record("dece", seed=2, **(common | change))
    kept, faults = sift([*good, bad, elsewhere])
    assert kept == [*good, elsewhere], "another machine's numerics are no misfit"
    assert [fault.slug for fault in faults] == [bad.coordinates.slug]
    assert words in faults[0].what


def test_an_optional_parameter_that_was_added_later_is_no_misfit() -> None:
    """Null and absent are one answer, at any depth, in another cell and in another record of the same cell."""
    old = record("dece", plugins=used(1, search={"steps": 3}), settings={"training": {"epochs": 2}})
    later: dict[str, Any] = {
        "plugins": used(1, added_later=None, search={"steps": 3, "also": None}),
        "settings": {"training": {"epochs": 2, "decay": None}},
    }
    new, same = record("dece", seed=1, **later), record("dece", **later).model_copy(update={"suite": "another"})
    assert sift([old, new]) == ([old, new], [])
    assert sift([old, same]) == ([same], [])
    other = record("dece", seed=1, **(later | {"plugins": used(1, added_later=3, search={"steps": 3})}))
    assert "its defense plugin (added_later 3, not nothing)" in str(sift([old, other])[1][0])
    assert (
        difference(old, same.model_copy(update={"plugins": used(1, added_later=3, search={"steps": 3})})) == "plugins"
    )


def test_a_failed_cell_states_nothing_that_could_misfit() -> None:
    failed = record("dece", seed=5, status=Status.FAILED, plugins=used(7))
    assert sift([record("dece", plugins=used(1)), failed])[1] == []


def test_committed_results_fit_together() -> None:
    for suite in ("quickstart", "inversion", "inversion_files"):
        folder = ResultsFolder(ROOT / "results" / suite)
        found = folder.read()
        assert found.faults == ()
        assert sift(found.records)[1] == [], suite
