"""What a suite would run, what is known, and what the rest will cost: trainings, tokens, hours and disk, before anything starts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.composing import inverts
from bench.jobs import STAGE_VERSIONS, Stage
from bench.joining import joined
from bench.mirror import opened
from bench.pipeline import CellGraph, merge
from bench.running import graphs_of, load_registry, told_cells
from bench.store import Store
from bench.storing import size_of
from bench.suite import NONE, Suite, load_suite
from bench.verdicts import clean_models_needed

SAMPLED: Final = 40
"""Results of a kind whose sizes are looked at for the estimate of the disk."""


def show_plan(
    name: str,
    store_root: Path,
    files: Sequence[Path],
    only: Mapping[str, Sequence[str]],
    mirror: str | None = None,
    rate: float | None = None,
) -> None:
    """Print what would run, what is known, and an estimate of the rest.

    Args:
        name: of the suite.
        store_root: where results lie.
        files: plugin files outside the tree.
        only: parts of the suite.
        mirror: URL of an object store.
        rate: tokens a second that the device trains, to tell hours by; otherwise only what was measured in this store is told.
    """
    suite = joined(load_suite(name), files)
    graphs = graphs_of(suite, load_registry(suite, files), only)
    store = Store(store_root, opened(mirror))
    stages = merge(graphs)
    missing = {key: stage for key, stage in stages.items() if not store.has(stage.kind, stage.key)}
    console = Console()
    table = Table(title=f"plan of {suite.name}: {told_cells(graphs)}, {len(stages)} stages")
    for column, justify in (("stage", "left"), ("all", "right"), ("known", "right"), ("missing", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for column in ("tokens to train at most", "seconds, one process", "disk"):
        table.add_column(column, justify="right")
    measured, sizes = seconds_by_kind(store), bytes_by_kind(store)
    for kind in STAGE_VERSIONS:
        of_kind = [stage for stage in stages.values() if stage.kind == kind]
        if not of_kind:
            continue
        left = [stage for stage in of_kind if stage.key in missing]
        tokens = sum(stage.tokens for stage in left)
        table.add_row(
            kind,
            str(len(of_kind)),
            str(len(of_kind) - len(left)),
            str(len(left)),
            f"{tokens:,}" if tokens else "",
            _estimate(len(left), measured.get(kind), "{:.0f}"),
            _estimate(len(left), sizes.get(kind, 0) / 1e6 if kind in sizes else None, "{:,.0f} MB"),
        )
    console.print(table)
    for line in (*_calibration(suite, graphs), *_totals(list(missing.values()), measured, sizes, rate)):
        console.print(line, highlight=False, soft_wrap=True)
    store.seals.save()
    _print_missing(console, list(missing.values()), store)
    seconds, unknown = _seconds(list(missing.values()), measured)
    more = " and more, for kinds that were never measured in this store" if unknown else ""
    console.print(
        f"missing: {len(missing)} stages, about {seconds:.0f} s in one process{more}", highlight=False, soft_wrap=True
    )


def _estimate(count: int, each: float | None, form: str) -> str:
    if not count:
        return "0"
    return "not measured yet" if each is None else form.format(each * count)


def _seconds(missing: Sequence[Stage], measured: Mapping[str, float]) -> tuple[float, bool]:
    """Seconds of the stages whose kinds were measured, and whether there are others."""
    return sum(measured.get(s.kind, 0.0) for s in missing), any(s.kind not in measured for s in missing)


def _totals(
    missing: Sequence[Stage], measured: Mapping[str, float], sizes: Mapping[str, float], rate: float | None
) -> Iterator[str]:
    trainings = [stage for stage in missing if stage.kind in ("train", "supply")]
    if trainings:
        tokens = sum(stage.tokens for stage in trainings)
        unknown = sum(stage.tokens == 0 for stage in trainings)
        text = f"{len(trainings)} trainings, {tokens:,} tokens at most"
        text += f" (and {unknown} of unknown size)" if unknown else ""
        if rate is not None:
            text += f": {tokens / rate / 3600:,.1f} device hours at {rate:,.0f} tokens a second"
        elif tokens:
            text += "; --rate TOKENS_PER_SECOND tells hours (python -m tests.benchmarks models measures a device)"
        yield text
    disk = sum(sizes.get(stage.kind, 0.0) for stage in missing)
    if disk:
        yield f"disk: about {disk / 1e9:,.1f} GB, by the results of the same kinds in this store (of whatever models they are)"


def bytes_by_kind(store: Store) -> dict[str, float]:
    """Mean bytes of a result of each kind, over a few of those in this store."""
    found = {}
    for kind in sorted((store.root / "entries").iterdir()):
        sizes = [size_of(folder) for folder in islice(kind.iterdir(), SAMPLED)]
        if sizes:
            found[kind.name] = statistics.fmean(sizes)
    return found


def _calibration(suite: Suite, graphs: Sequence[CellGraph]) -> Iterator[str]:
    """How many clean models a verdict of the suite can rest on, and how many it needs."""
    if not any(inverts(graph.plan.defense) for graph in graphs):
        return
    clean = any(entry.name == NONE for entry in suite.attacks)
    others = len({*suite.seeds, *suite.calibration_seeds}) - 1 if clean else 0
    needed = clean_models_needed(suite.false_alarms)
    yield f"verdicts at {100 * suite.false_alarms:g} % false alarms need {needed} clean models of other seeds, the suite has {others}"
    if not clean:
        yield "  add attack 'none': it gives the clean models"
    elif others < needed:
        yield f"  add {needed - others} calibration_seeds"


def _print_missing(console: Console, missing: Sequence[Stage], store: Store, limit: int = 40) -> None:
    for stage in missing[:limit]:
        failed = store.failure(stage.key)
        note = f" [red](failed before: {escape(failed['reason'])})[/]" if failed else ""
        console.print(f"  {escape(stage.label)}{note}", highlight=False, soft_wrap=True)
    if len(missing) > limit:
        console.print(f"  … and {len(missing) - limit} more")


def seconds_by_kind(store: Store) -> dict[str, float]:
    """Median wall seconds of each kind of stage, as measured in this store."""
    seen: dict[str, list[float]] = {}
    for path in (store.root / "timings").glob("*.json"):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            seen.setdefault(value["kind"], []).append(float(value["seconds"]))
        except (ValueError, KeyError):
            continue
    return {kind: statistics.median(values) for kind, values in seen.items()}
