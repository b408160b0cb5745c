"""Runs of real stages in processes of their own, which tests kill from outside.

They are born as the pool's workers are, from a server that has imported everything once: a run of a small suite then takes about as
long as its stages.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from bench.execute import Run
from bench.jobs import Stage
from bench.plugins import Registry
from bench.store import Store

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bench.stages", "tests.killed_runs"])


def _run(root: Path, stages: Mapping[str, Stage], plugins: tuple[Path, ...], told: Connection) -> None:
    registry = Registry().discover()
    for file in plugins:
        registry.add_file(file)
    store = Store(root)
    store.sweep()
    report = Run(stages, store, lambda event: told.send((event.what, event.stage.key))).here(registry, show=False)
    store.seals.save()
    told.send(("end", "; ".join(report.failed.values())))
    told.recv()  # never comes: whoever is to kill this process does so here at the latest


@contextmanager
def running(
    root: Path, stages: Mapping[str, Stage], plugins: tuple[Path, ...]
) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """A run and what it tells: (what, key) of every event, and at last ``end`` with the reasons of failures; it stays until killed."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_run, args=(root, stages, plugins, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()
