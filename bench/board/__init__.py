"""The leaderboard: one table object (:func:`bench.board.table.build_board`), rendered as Markdown, CSV, JSON, a plot and a terminal table.

Everything is derived from records and stored per-sample outcomes; no model is needed, and the same outcomes give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from bench.board.curve_plot import write_curves
from bench.board.findings import to_findings
from bench.board.groups import undefended
from bench.board.implantation_plot import write_implantation
from bench.board.latex import to_latex
from bench.board.lift_plot import has_lifts, write_lifts
from bench.board.pages import write_pages
from bench.board.plot import has_tradeoff, write_tradeoff
from bench.board.render import to_csv, to_json, to_markdown, to_pairs_csv
from bench.board.table import MARGIN, Board, Loader, Timings, build_board
from bench.board.terminal import Axis, print_board
from bench.children import single_threaded_children
from bench.errors import StoreError
from bench.records import Record
from bench.verdicts import FALSE_ALARMS

if TYPE_CHECKING:
    from bench.results import ResultsFolder

MANY: Final = 1000
"""From so many records on, a board is built in several processes: below, starting them takes longer than they save."""

__all__ = [
    *("MANY", "Axis", "Board", "Loader", "Timings", "build_board", "print_board", "publish", "publish_board"),
    *("to_csv", "to_json", "to_latex", "to_markdown", "to_pairs_csv", "write_board", "write_files"),
]


def publish(
    folder: ResultsFolder, margin: float, console: Console, false_alarms: float = FALSE_ALARMS
) -> dict[str, Path]:
    """:func:`publish_board`; returns the paths of the board's files alone."""
    return publish_board(folder, margin, console, false_alarms)[1]


def publish_board(
    folder: ResultsFolder,
    margin: float,
    console: Console,
    false_alarms: float = FALSE_ALARMS,
    group_by: Axis | None = None,
) -> tuple[Board, dict[str, Path]]:
    """Make the board of a results folder from its stored records and outcomes, write it there, print it and its paths.

    A record or table that cannot be read, or does not fit the others, is set apart on the board, with where and why.

    Raises:
        bench.errors.DataError: no record can be read.
        StoreError: a file cannot be written.
    """
    found = folder.read()
    workers = (os.cpu_count() or 1) if len(found.records) >= MANY else 1
    board = build_board(
        found.records,
        folder.load,
        margin=margin,
        timings=folder.timings(),
        false_alarms=false_alarms,
        faults=found.faults,
        workers=workers,
    )
    paths = write_files(board, found.records, folder.root, workers=workers)
    print_board(board, console, group_by)
    for path in paths.values():
        console.print(Text(str(path)), soft_wrap=True)
    return board, paths


def write_board(
    records: Iterable[Record],
    outcomes_loader: Loader,
    folder: Path,
    *,
    margin: float = MARGIN,
    timings: Timings | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> dict[str, Path]:
    """Build the board and write it into a folder.

    ``board.md``, ``board.csv``, ``pairs.csv`` (every pair of defenses), ``board.tex`` (tables to ``\\input`` into a paper),
    ``board.json`` and ``findings.md`` (what the intervals allow one to say); plots as ``.png`` and ``.svg``: ``tradeoff`` where
    there are defenses to compare and no more than can be told apart, ``implantation`` where there is an undefended victim,
    ``lifts`` where there are many defenses, ``curves`` where rows differ in an amount alone; and ``inversions/<cell>.md`` and
    ``.svg`` for each cell in which triggers were inverted.

    Args:
        records: of the cells, in any order.
        outcomes_loader: gives (outcomes, filter table or ``None``) of a record whose status is ok; called once for each.
        folder: made where it is missing.
        margin: how much of the clean metric may be lost (0.02: two points).
        timings: by cell slug, ``seconds`` (wall) and ``peak_bytes`` of the defense's own
            stages; without them the board shows no wall time and is the same on every machine.
        false_alarms: the share of clean models that a verdict may convict.

    Returns:
        The paths of the board's own files by name.

    Raises:
        StoreError: a file cannot be written.
    """
    records = list(records)
    board = build_board(records, outcomes_loader, margin=margin, timings=timings, false_alarms=false_alarms)
    return write_files(board, records, folder)


def write_files(board: Board, records: Iterable[Record], folder: Path, *, workers: int = 1) -> dict[str, Path]:
    """Write the files of a board that is already built from these records; see :func:`write_board`.

    With several ``workers`` (processes) plots are drawn side by side; the files are the same.
    """
    texts = {
        "board.md": to_markdown,
        "board.csv": to_csv,
        "pairs.csv": to_pairs_csv,
        "board.tex": to_latex,
        "board.json": to_json,
        "findings.md": to_findings,
    }
    paths = {name: folder / name for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _drawing(workers) as draw:
            for stem, wanted, write in (
                ("tradeoff", has_tradeoff(board), write_tradeoff),
                ("lifts", has_lifts(board), write_lifts),
                ("implantation", bool(undefended(board)), write_implantation),
                ("curves", bool(board.curves), write_curves),
            ):
                png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
                if wanted:
                    draw(write, board, png, svg)
                    paths |= {png.name: png, svg.name: svg}
                else:  # of an earlier board, perhaps
                    png.unlink(missing_ok=True)
                    svg.unlink(missing_ok=True)
            for name, made in texts.items():
                paths[name].write_text(made(board), encoding="utf-8", newline="\n")
            write_pages(records, board.detections, folder)
    except OSError as error:
        raise StoreError(f"the board cannot be written to {folder}: {error}. Choose another folder.") from error
    return paths


@contextmanager
def _drawing(workers: int) -> Iterator[Callable[..., object]]:
    """Something to hand plots to: it draws them at once, or in processes of its own, and all are drawn when the block ends."""
    if workers == 1:
        yield lambda write, *arguments: write(*arguments)
        return
    with single_threaded_children(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn: list[Future[None]] = []
        yield lambda write, *arguments: drawn.append(pool.submit(write, *arguments))
        for one in drawn:
            one.result()
