"""Results of several machines: what fits is taken in, what does not is refused and shown apart; a second run is compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import ConfigError, DataError
from bench.fitting import standard
from bench.merging import merge, merge_folders
from bench.outcomes import read_outcomes, validate
from bench.provenance import Environment, Provenance, read_provenance
from bench.records import PluginUse, Record, Status
from bench.results import ResultsFolder
from bench.store import write_json
from bench.verifying import compare, find_cells
from tests.test_board import loader, record
from tests.test_records import board_of, write

DIGEST: dict[str, Any] = {"data_digest": "a" * 64}


def machine(root: Path, *records: Record, commit: str = "") -> ResultsFolder:
    folder, provenance = ResultsFolder(root), Provenance()
    for one in records:
        provenance.note(one.coordinates.slug, Environment(commit=commit), write(folder, one))
    provenance.write(root)
    return folder


def test_cells_of_three_machines_become_one_board(tmp_path: Path) -> None:
    one = machine(tmp_path / "one", record("none", **DIGEST), record("dece", **DIGEST), commit="c1")
    two = machine(tmp_path / "two", record("dece", seed=1, **DIGEST), record("none", **DIGEST), commit="c2")
    three = machine(tmp_path / "three", record("elibadcode", **DIGEST), commit="c3")
    into = ResultsFolder(tmp_path / "all")
    done = merge(into, [one, two, three])
    assert (len(done.added), len(done.known), done.refused) == (4, 1, [])
    board, _ = board_of(into)
    assert {(row.defense, row.seeds) for row in board.rows} == {("none", (0,)), ("dece", (0, 1)), ("elibadcode", (0,))}
    known = read_provenance(into.root).of(record("dece", seed=1).coordinates.slug)
    assert known is not None
    assert known.commit == "c2"
    again = merge(into, [one, two, three])
    assert (again.added, len(again.known), again.refused) == ([], 5, [])


@pytest.mark.parametrize("at", ["timings", "provenance"])
def test_what_is_known_of_cells_comes_after_an_interrupted_merge_too(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = machine(tmp_path / "one", record("none"), record("dece"), commit="c1")
    seconds = {one.coordinates.slug: {"seconds": 3.0, "peak_bytes": 1} for one in (record("none"), record("dece"))}
    write_json(source.root / "timings.json", seconds)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    into = ResultsFolder(tmp_path / "all")
    with monkeypatch.context() as patched:
        patched.setattr("bench.merging.write_json" if at == "timings" else "bench.merging._finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(into, [source])
    assert not (into.root / "provenance.json").exists()
    done = merge(into, [source])
    assert (done.added, len(done.known), done.refused) == ([], 2, [])
    assert into.timings() == seconds
    assert read_provenance(into.root) == read_provenance(source.root)


def test_what_is_known_of_a_cell_stays_with_the_record_that_it_is_known_of(tmp_path: Path) -> None:
    into = machine(tmp_path / "all", record("none"), commit="here")
    other = machine(tmp_path / "one", record("none"), commit="there")
    merge(into, [other])
    known = read_provenance(into.root).of(record("none").coordinates.slug)
    assert known is not None
    assert known.commit == "here"
    (into.root / "provenance.json").unlink()
    another = machine(tmp_path / "two", record("none", command="of another suite"), commit="there")
    assert len(merge(into, [another]).known) == 1
    assert read_provenance(into.root).cells == {}, "another file, of which nothing is known here"


def test_a_number_written_as_another_type_is_the_same_number(tmp_path: Path) -> None:
    def made(value: object, seed: int) -> Record:
        use = PluginUse(name="dece", family="training", version=1, effective={"rate": value})
        return record("dece", seed=seed, plugins={"defense": use})

    into = machine(tmp_path / "into", made(1.0, 0))
    done = merge(into, [machine(tmp_path / "other", made(1, 1), made(2, 2), made(True, 3))])
    assert len(done.added) == 1
    assert [re.search(r"\((.*)\)", fault.what)[1] for fault in done.refused] == ["rate 2, not 1", "rate true, not 1"]  # type: ignore[index]
    board, _ = board_of(into)
    assert [row.seeds for row in board.rows if row.defense == "dece"] == [(0, 1)]


def test_what_does_not_fit_is_refused_kept_and_shown(tmp_path: Path) -> None:
    into = machine(tmp_path / "into", record("none", **DIGEST), record("elibadcode", **DIGEST))
    other = machine(tmp_path / "other", record("dece", data_digest="b" * 64))
    before = {path.name: path.read_bytes() for path in into.cells.iterdir()}
    done = merge(into, [other])
    slug = record("dece").coordinates.slug
    assert [(fault.slug, done.added) for fault in done.refused] == [(slug, [])]
    assert "its data digest (bbbbbbbbbbbb…, not aaaaaaaaaaaa…)" in done.refused[0].what
    assert {path.name: path.read_bytes() for path in into.cells.iterdir()} == before
    kept = list((into.root / "apart").glob(f"*/cells/{slug}.*"))
    assert {path.suffix for path in kept} == {".json", ".parquet"}, "nothing computed is lost"
    board, page = board_of(into)
    assert [fault.where for fault in board.apart] == [f"other/cells/{slug}.json"]
    assert "## Set apart" in page
    assert {row.defense for row in board.rows} == {"none", "elibadcode"}
    merge(into, [other])
    assert len(board_of(into)[0].apart) == 1, "refusing twice is told once"


def test_another_plugin_version_is_refused(tmp_path: Path) -> None:
    def made(version: int, seed: int) -> Record:
        use = {"defense": PluginUse(name="dece", family="training", version=version)}
        return record("dece", seed=seed, plugins=use)

    into = machine(tmp_path / "into", made(2, 0))
    done = merge(into, [machine(tmp_path / "old", *(made(1, seed) for seed in (1, 2, 3)))])
    assert len(done.refused) == 3, "what stands there decides, and no majority"
    assert "its defense plugin (version 1, not 2)" in done.refused[0].what


def test_cells_that_disagree_stay_as_they_are(tmp_path: Path) -> None:
    into = machine(tmp_path / "into", record("dece"))
    other = machine(tmp_path / "other", record("dece", facts={"loss": 2}))
    done = merge(into, [other])
    assert "the two disagree in facts" in done.refused[0].what
    board, _ = board_of(into)
    assert [row.defense for row in board.rows] == ["dece"], "the one that was there stays on the board"


def test_a_failed_cell_is_replaced_by_one_that_ended_well_and_never_the_other_way(tmp_path: Path) -> None:
    failed = record("dece", status=Status.FAILED, reason="no memory")
    into = machine(tmp_path / "into", failed)
    done = merge(into, [machine(tmp_path / "good", record("dece"))])
    assert done.replaced == [failed.coordinates.slug]
    assert [r.status for r in into.records()] == [Status.OK]
    assert len(read_outcomes(into.tables(failed.coordinates)["outcomes"])) == 100
    assert merge(into, [machine(tmp_path / "bad", failed)]).replaced == []
    assert [r.status for r in into.records()] == [Status.OK]


def test_a_newer_schema_and_missing_outcomes_are_refused(tmp_path: Path) -> None:
    other = machine(tmp_path / "other", record("none"), record("dece"), record("elibadcode"))
    path = other.cells / f"{record('dece').coordinates.slug}.json"
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 4'))
    other.tables(record("elibadcode").coordinates)["outcomes"].unlink()
    done, lines = merge_folders(tmp_path / "into", [other.root])
    assert len(done.added) == 1
    told = "\n".join(lines)
    assert "schema version 4 is newer than 3" in told
    assert "its outcomes are missing" in told
    assert "1 cells added, 0 replaced, 0 known already, 2 refused" in told


def test_what_is_taken_in_at_last_is_not_reported_any_more(tmp_path: Path) -> None:
    into = machine(tmp_path / "into", record("none", **DIGEST))
    other = machine(tmp_path / "other", record("dece"), record("elibadcode"), record("onion", data_digest="b" * 64))
    whole = {path: path.read_bytes() for path in other.cells.iterdir()}
    other.tables(record("dece").coordinates)["outcomes"].unlink()
    truncated = other.cells / f"{record('elibadcode').coordinates.slug}.json"
    truncated.write_text(truncated.read_text()[:100])
    assert len(merge(into, [other]).refused) == 3
    assert len(board_of(into)[0].apart) == 3
    for path, held in whole.items():
        path.write_bytes(held)
    assert len(merge(into, [other]).added) == 2
    (fault,) = board_of(into)[0].apart
    assert fault.slug == record("onion").coordinates.slug, "this one is refused still"
    right = machine(tmp_path / "right", record("onion", **DIGEST))
    assert len(merge(into, [right]).added) == 1
    assert board_of(into)[0].apart == ()
    assert not (into.root / "apart.json").exists()


def test_a_folder_is_not_merged_into_itself_or_from_nowhere(tmp_path: Path) -> None:
    into = machine(tmp_path / "into", record("none"))
    with pytest.raises(DataError, match="into itself"):
        merge(into, [ResultsFolder(tmp_path / "into")])
    with pytest.raises(DataError, match="does not exist"):
        merge(into, [ResultsFolder(tmp_path / "nowhere")])


def test_what_is_unknown_fits_and_decides_from_then_on() -> None:
    first, second = record("dece", **DIGEST), record("dece", seed=1, data_digest="b" * 64)
    assert [a for a in standard([first]).values() if "aaa" in a]
    assert standard([first, second, second]) == standard([second, second])


# ------------------------------------------------------------------------------------------------------------------ verify


def cell(**more: Any) -> tuple[Record, pd.DataFrame]:
    one = record("dece", **more)
    return one, validate(loader(record("dece"))[0])


def flipped(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first clean answers turned round."""
    table = table.copy()
    rows = table.index[table["part"] == "clean"][:count]
    table.loc[rows, "success"] = ~table.loc[rows, "success"]
    table.loc[rows, "prediction"] = 1 - table.loc[rows, "prediction"]
    return validate(table)


def test_the_same_cell_is_identical() -> None:
    found = compare(cell(), cell(keys={"score": "another"}, packages={}))
    assert (found.level, found.differences, found.notes) == ("identical", (), ())


def test_a_flip_within_the_tolerance_is_told_and_one_beyond_it_differs() -> None:
    one, table = cell()
    found = compare((one, table), (one, flipped(table, 1)), flips=0.02, numbers=0.02)
    assert found.level == "within tolerance"
    assert found.notes == ("success of 1.7 % of the clean inputs differs",)
    assert compare((one, table), (one, flipped(table, 1)), flips=0.01).level == "differs"
    beyond = compare((one, table), (one, flipped(table, 3)), flips=0.1, numbers=0.02)
    assert beyond.level == "differs"
    assert beyond.differences[0].startswith("clean: 0.75 stored, 0.7")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_digest": "c"}, "data_digest:  stored, c now"),
        ({"status": Status.FAILED}, "status: ok stored, failed now"),
        ({"policy": {"count": 3}}, "policy: {} stored"),
        ({"plugins": {"defense": PluginUse(name="dece", family="training", version=3)}}, "plugin defense:"),
    ],
)
def test_what_must_be_equal_is_named(change: dict[str, Any], words: str) -> None:
    found = compare(cell(), cell(**change))
    assert found.level == "differs"
    assert any(words in line for line in found.differences), found


def test_what_an_older_record_does_not_tell_is_no_difference() -> None:
    one, table = cell()
    assert one.poison is not None
    newer = one.model_copy(update={"poison": one.poison.model_copy(update={"visible_train": 1.0})})
    assert compare((one, table), (newer, table)).level == "identical"
    other = one.model_copy(update={"poison": one.poison.model_copy(update={"poisoned": 11})})
    assert compare((one, table), (other, table)).level == "differs"


def test_other_inputs_and_other_packages() -> None:
    one, table = cell()
    found = compare((one, table), (one, validate(table.iloc[1:])))
    assert (found.level, found.differences) == (
        "differs",
        ("other inputs were asked: part, id, group, label, pool or visible differ",),
    )
    newer = compare((one, table), (one.model_copy(update={"packages": {"torch": "9"}}), table))
    assert (newer.level, newer.notes) == ("within tolerance", ("torch none stored, 9 now",))


def test_cells_are_found_by_suite_name_or_path(tmp_path: Path) -> None:
    folder = machine(tmp_path / "hand", record("none"), record("dece"))
    slug = record("dece").coordinates.slug
    for what in (slug, str(folder.cells / f"{slug}.json")):
        assert [found.coordinates.slug for _, found in find_cells(what, tmp_path)] == [slug]
    assert len(find_cells("hand", tmp_path)) == 2
    with pytest.raises(ConfigError, match=r"no suite and no cell 'hant'\. Did you mean 'hand'"):
        find_cells("hant", tmp_path)
