"""What the commands do: read a suite, plan it, run what is missing, write its results and its board."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.errors import ConfigError, Interrupted, ResultLost, StoreError
from bench.execute import Event, Report, Run
from bench.exporting import export
from bench.finished import Question, remember
from bench.given import Given, given_by
from bench.joining import joined
from bench.mirror import opened
from bench.pipeline import Builder, CellGraph, Computing, merge, select
from bench.plugins import Registry
from bench.records import Record
from bench.results import ResultsFolder
from bench.store import Store
from bench.suite import (
    AttackEntry,
    AttackPart,
    Entry,
    ModelEntry,
    Part,
    Suite,
    TaskEntry,
    cells,
    check_unique,
    load_suite,
    parse_suite,
)
from bench.suite_files import suite_file


def load_registry(suite: Suite, files: Sequence[Path]) -> Registry:
    """All plugins: the project's, installed ones, the suite's files and the command line's."""
    registry = Registry().discover()
    for file in [*map(Path, suite.plugins), *files]:
        registry.add_file(file)
    return registry


def graphs_of(
    suite: Suite, registry: Registry, only: Mapping[str, Sequence[str]], computing: Computing | None = None
) -> list[CellGraph]:
    """Every chosen cell with its stages, which compute on what this machine has, or on what is told.

    Raises:
        ConfigError: anything wrong in the suite.
    """
    plans = list(cells(suite, registry))
    check_unique(plans)
    builder = Builder(suite, computing)
    return [builder.cell(plan) for plan in select(plans, only)]


# -------------------------------------------------------------------------------------------------------------- showing


class Watcher:
    """Shows what happens to stages: a bar and the running stages at a terminal, a line for each event elsewhere."""

    def __init__(self, console: Console, total: int, known: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("stages", total=total, completed=known)
        self._running: dict[str, tuple[str, float]] = {}
        self._done, self._total = known, total
        self._live = (
            Live(console=console, get_renderable=self._draw, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> Watcher:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> Table:
        grid = Table.grid()
        grid.add_row(self._progress)
        for label, started in self._running.values():
            grid.add_row(f"  [cyan]▶[/] {escape(label)} [dim]{time.monotonic() - started:.0f} s[/]")
        return grid

    def __call__(self, event: Event) -> None:
        """Show one event."""
        label = escape(event.stage.label)
        if event.what == "start":
            self._running[event.stage.key] = (event.stage.label, time.monotonic())
            if self._live is None:
                self._console.print(f"[{self._done}/{self._total}] … {label}", highlight=False, soft_wrap=True)
            return
        self._running.pop(event.stage.key, None)
        if event.what == "lost":
            self._console.print(f"[yellow]lost[/] {label}: {escape(event.reason)}", highlight=False, soft_wrap=True)
            return
        self._done += 1
        self._progress.update(self._bar, completed=self._done)
        count = escape(f"[{self._done}/{self._total}]")
        if event.what == "done":
            self._console.print(
                f"{count} [green]done[/] {label} [dim]{event.seconds:.1f} s[/]", highlight=False, soft_wrap=True
            )
        elif event.what == "failed":
            self._console.print(
                f"{count} [bold red]failed[/] {label}: {escape(event.reason)}", highlight=False, soft_wrap=True
            )
        else:
            self._console.print(
                f"{count} [red]blocked[/] {label} by an earlier failure", highlight=False, soft_wrap=True
            )


def told_cells(graphs: Sequence[CellGraph]) -> str:
    """How many cells, and how many of them are there to calibrate verdicts alone."""
    calibrating = sum(graph.plan.calibration for graph in graphs)
    return f"{len(graphs)} cells" + (f" ({calibrating} of them calibrate verdicts alone)" if calibrating else "")


def execute(
    suite: Suite,
    graphs: Sequence[CellGraph],
    registry: Registry,
    store: Store,
    jobs: int,
    console: Console,
    ray: str | None = None,
    given_up: Mapping[str, str] | None = None,
) -> Report:
    """Run what is missing of some cells, with progress shown; on the Ray cluster at ``ray`` where that is given.

    Stages in ``given_up`` (key -> reason) are not tried, and count as failed.

    Raises:
        Interrupted: Ctrl-C.
        ResultLost: a result that was taken for known has to be made again; the error has what failed until then.
        StoreError: nothing more can be kept.
    """
    stages = merge(graphs)
    store.sweep()
    run = Run(stages, store, lambda event: watcher(event), given_up)
    known = sum(store.has(s.kind, key) for key, s in stages.items())
    console.print(
        f"{suite.name}: {told_cells(graphs)}, {len(stages)} stages, {known} of them known already", highlight=False
    )
    with Watcher(console, len(stages), known) as watcher:
        try:
            if ray is not None:
                from bench.ray_execution import run_on_cluster

                return run_on_cluster(run, registry, ray, suite.stage_seconds)
            if jobs > 1 or suite.stage_seconds is not None:
                return run.pool(registry, jobs, suite.stage_seconds)
            return run.here(registry, show=False)
        except KeyboardInterrupt:
            raise Interrupted from None
        except ResultLost as error:
            error.failed = dict(run.report.failed)
            raise
        finally:
            store.seals.save()


# ------------------------------------------------------------------------------------------------------------- commands


def run_suite(
    name: str,
    jobs: int,
    store_root: Path,
    results: Path,
    files: Sequence[Path],
    only: Mapping[str, Sequence[str]],
    ray: str | None = None,
    mirror: str | None = None,
    given: Sequence[Path] = (),
) -> int:
    """Run a suite, export its records, write and print its board. Returns the exit status: 1 when a cell failed.

    Cells that the results folders ``given`` have (:mod:`bench.given`) are taken from there.
    """
    suite = joined(load_suite(name), files)
    # What a finished run rests on is this machine's store; a cluster's devices and other folders are another matter.
    here = ray is None and not given
    question = Question(suite_file(name), store_root, results, files, only) if here else None
    return _run(suite, jobs, store_root, results / suite.name, files, only, question, ray, mirror, given)


def _run(
    suite: Suite,
    jobs: int,
    store_root: Path,
    folder: Path,
    files: Sequence[Path],
    only: Mapping[str, Sequence[str]],
    question: Question | None = None,
    ray: str | None = None,
    mirror: str | None = None,
    folders: Sequence[Path] = (),
) -> int:
    from bench.board import publish

    console = Console(stderr=True)
    registry = load_registry(suite, files)
    started = time.monotonic()
    target = ResultsFolder(folder)
    with _machines(suite, ray) as computing:
        graphs = graphs_of(suite, registry, only, computing)
        store = Store(store_root, opened(mirror))
        given = given_by(folders, graphs)
        for line in given.lines(folders):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        records = _exported(suite, graphs, registry, store, jobs, console, ray, target, given)
    told = Console(record=True)
    publish(target, suite.margin, told, suite.false_alarms)
    counts = Counter(record.status.value for record in records)
    summary = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(counts.items()))
    console.print(
        f"{told_cells(graphs)}: {summary}; {time.monotonic() - started:.0f} s", highlight=False, soft_wrap=True
    )
    bad = [record for record in records if record.status.value in ("failed", "blocked")]
    for record in bad:
        console.print(
            f"[red]{record.status.value}[/] {escape(record.coordinates.slug)}: {escape(record.reason)}", highlight=False
        )
    if (store.root / "conflicts.jsonl").is_file():
        console.print(
            f"[yellow]warning[/]: two executions of one stage gave different bytes; see {store.root / 'conflicts.jsonl'}"
        )
    if question is not None and not bad and not (store.root / "conflicts.jsonl").is_file():
        stages = [(stage.kind, key) for key, stage in merge(graphs).items()]
        text = {"plain": told.export_text(clear=False), "styled": told.export_text(styles=True)}
        remember(question, folder, stages, len(graphs), store.seals, text)
    return 1 if bad else 0


@contextmanager
def _machines(suite: Suite, ray: str | None) -> Iterator[Computing | None]:
    """What the stages will compute on; on the cluster at ``ray``, connected for the block, what its nodes have."""
    if ray is None:
        yield None
        return
    from bench.ray_execution import computing_on, connected

    with connected(ray) as cluster:
        yield computing_on(cluster, suite.device, suite.precision)


def _exported(
    suite: Suite,
    graphs: Sequence[CellGraph],
    registry: Registry,
    store: Store,
    jobs: int,
    console: Console,
    ray: str | None,
    target: ResultsFolder,
    given: Given,
) -> list[Record]:
    """Run what is missing of some cells and write their records; returns these.

    A result is known by its name alone until somebody needs it. Where it then turns out damaged it has been taken away, so beginning
    again makes it again. Where that happens to it a second time, a plugin may do it: what failed both times is not tried a third time,
    and the rest ends without it. Where nothing did, it is another matter: the message is for the user.

    Raises:
        ResultLost: one is lost again and again.
    """
    lost: set[str] = set()
    before: set[str] = set()
    given_up: dict[str, str] = {}
    while True:
        try:
            report = execute(suite, given.missing(graphs), registry, store, jobs, console, ray, given_up)
            return export(graphs, report, store, target, suite.name, given.cells)
        except ResultLost as error:
            again = {key: reason for key, reason in error.failed.items() if key in before and key not in given_up}
            if error.key in lost:
                if not again:
                    raise
                given_up |= again
            before, lost = set(error.failed), lost | {error.key}
            told = f"{error.kind} result {error.key[:12]} was damaged or gone; it is made again"
            console.print(f"[yellow]lost[/] {told}", highlight=False, soft_wrap=True)
            store.look_again()


def narrow(suite: Suite, at: Mapping[str, str], seed: int) -> Suite:
    """The suite with one entry an axis: the suite's own entry of that title, or one read from the coordinate itself.

    An entry that keeps to a part of the matrix (``only``) does not here: the cell was asked for by name.

    Raises:
        ConfigError: a coordinate that cannot be read.
    """
    changes: dict[str, object] = {"seeds": (seed,), "calibration_seeds": ()}
    for axis in ("task", "model", "attack", "defense"):
        entries: Sequence[Entry] = getattr(suite, f"{axis}s")
        known = [entry for entry in entries if at[axis] in (entry.title, entry.label)]
        if known:
            changes[f"{axis}s"] = (_everywhere(known[0]),)
            continue
        content = {
            "name": suite.name,
            "tasks": ["x"],
            "models": ["x"],
            "attacks": ["x"],
            "defenses": ["x"],
            f"{axis}s": [at[axis]],
        }
        made = getattr(parse_suite(content, f"--{axis}"), f"{axis}s")[0]
        # A new size or variant of a task keeps the training that the suite gives to that task.
        like = [entry for entry in entries if entry.name == made.name]
        if like and isinstance(made, TaskEntry) and isinstance(like[0], TaskEntry):
            made = made.model_copy(
                update={
                    "training": like[0].training,
                    "parameters": {**_of_any_source(like[0], made), **made.parameters},
                    "label": at[axis],
                }
            )
            changes["trainings"] = tuple(
                each.model_copy(update={"task": (*each.task, at[axis])}) if like[0].title in each.task else each
                for each in suite.trainings
            )
        changes[f"{axis}s"] = (made,)
    return suite.model_copy(update=changes)


_ANY_SOURCE = ("train", "valid", "budget", "test", "word")
"""Parameters of tasks that mean the same whatever their data are made from."""


def _of_any_source(entry: TaskEntry, asked: TaskEntry) -> dict[str, Any]:
    """What of a suite's task holds for a variant of it: all, but for how its data are made where the variant takes others."""
    source = asked.parameters.get("source")
    if source in (None, entry.parameters.get("source", "embedded")):
        return dict(entry.parameters)
    return {name: value for name, value in entry.parameters.items() if name in _ANY_SOURCE}


def _everywhere(entry: Entry) -> Entry:
    """The entry, kept to no part of the matrix."""
    if isinstance(entry, ModelEntry):
        return entry.model_copy(update={"only": Part()})
    if isinstance(entry, AttackEntry):
        return entry.model_copy(update={"only": AttackPart()})
    return entry


def run_cell(
    name: str,
    at: Mapping[str, str],
    seed: int,
    jobs: int,
    store_root: Path,
    results: Path,
    files: Sequence[Path],
    mirror: str | None = None,
) -> int:
    """Run one cell with the settings of a suite; its record lies in ``results/cell/<slug>``."""
    suite = narrow(load_suite(name), at, seed)
    registry = load_registry(suite, files)
    slug = graphs_of(suite, registry, {})[0].coordinates.slug
    return _run(suite, jobs, store_root, results / "cell" / slug, files, {}, mirror=mirror)


def make_board(name: str, results: Path, console: Console, group_by: str | None = None) -> int:
    """Make a board again from stored outcomes alone. Returns the exit status: 1 where a result had to be set apart.

    Raises:
        ConfigError: an unknown suite or axis.
        DataError: no readable results.
    """
    from bench.board import publish_board
    from bench.board.terminal import axis_of

    axis = axis_of(group_by)
    suite = load_suite(name)
    folder = ResultsFolder(results / suite.name)
    board, _ = publish_board(folder, suite.margin, console, suite.false_alarms, axis)
    return 1 if board.apart else 0


def explain(what: str, store_root: Path, console: Console) -> None:
    """Print everything that went into a stored result.

    Raises:
        ConfigError: no such store.
        StoreError: no such key, or several.
    """
    if not store_root.is_dir():
        raise ConfigError(f"there is no store at {store_root}; name it with --store")
    store = Store(store_root)
    found = store.inputs(what)
    if found is None:
        failed = store.failure(what)
        if failed is None:
            raise StoreError(f"the store {store_root} has no result whose key begins with {what!r}")
        console.print_json(json.dumps(dict(failed)))
        return
    kind, inputs = found
    console.print(f"{kind} {inputs['key']}", highlight=False, soft_wrap=True)
    console.print_json(json.dumps(dict(inputs)))
    for role, key in dict(inputs.get("parents", {})).items():
        console.print(f"  {role}: codebackdoorbench why {key[:16]}", highlight=False, soft_wrap=True)
