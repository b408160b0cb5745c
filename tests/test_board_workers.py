"""A board that several processes built is the one that a single process builds, faults included."""

from pathlib import Path

import numpy as np

from bench.board import build_board, to_json, write_files
from bench.outcomes import write_outcomes
from bench.records import Record
from bench.results import ResultsFolder
from bench.store import write_json
from tests.test_board import example, loader


def stored(root: Path) -> list[Record]:
    folder = ResultsFolder(root)
    folder.cells.mkdir(parents=True)
    records = example()
    for record in records:
        write_json(folder.cells / f"{record.coordinates.slug}.json", record.model_dump(mode="json"))
        if record.status == "ok":
            frame = loader(record)[0]
            shuffled = frame.iloc[np.random.default_rng(0).permutation(len(frame))]
            write_outcomes(shuffled, folder.cells / f"{record.coordinates.slug}.parquet")
    return records


def test_several_processes_build_the_same_board(tmp_path: Path) -> None:
    records = stored(tmp_path)
    folder = ResultsFolder(tmp_path)
    broken = folder.cells / f"{records[0].coordinates.slug}.parquet"
    broken.write_bytes(broken.read_bytes()[:100])
    timings = {record.coordinates.slug: {"seconds": 2.0, "peak_bytes": 10.0} for record in records}
    one, two = (build_board(records, folder.load, timings=timings, workers=workers) for workers in (1, 2))
    assert [fault.slug for fault in one.apart] == [records[0].coordinates.slug]
    assert "cannot be read" in one.apart[0].what
    assert len(one.rows) > 5
    assert to_json(one) == to_json(two)


def test_several_processes_write_the_same_files(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "stored")
    records = stored(folder.root)
    board = build_board(records, folder.load)
    one, two = (write_files(board, records, tmp_path / str(workers), workers=workers) for workers in (1, 2))
    assert list(one) == list(two)
    assert {"tradeoff.svg", "board.json"} <= set(one)
    for name, path in one.items():
        assert path.read_bytes() == two[name].read_bytes(), name
