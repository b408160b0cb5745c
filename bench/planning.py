"""What a suite would run, what is known, and what the rest will cost: trainings, tokens, hours and disk, before anything starts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from bench.models.presets import PRESETS
from bench.pipeline import CellGraph, merge
from bench.running import graphs_of, load_registry, told_cells
from bench.store import MANIFEST, Store
from bench.storing import size_of
from bench.suite import NONE, Suite, load_suite
from bench.verdicts import clean_models_needed

BYTES_A_WEIGHT: Final = 4
_WITH_WEIGHTS: Final = ("train", "supply", "repair")
_WITHOUT_MODEL: Final = ("data", "poison", "stealth", "score")
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
    for column in ("Mtokens to train", "seconds", "disk"):
        table.add_column(column, justify="right")
    models = {stage.key: graph.plan.model_name for graph in graphs for stage in graph.stages}
    cost = _Cost(seconds_by_kind(store), bytes_by_kind(store), models, models_of(store))
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
            f"{tokens / 1e6:,.1f}" if tokens else "",
            _estimate(left, cost.seconds, "{:.0f}"),
            _estimate(left, cost.megabytes, "{:,.0f} MB"),
        )
    console.print(table)
    for line in (*_calibration(suite, graphs), *_totals(list(missing.values()), cost, rate)):
        console.print(line, highlight=False, soft_wrap=True)
    store.seals.save()
    _print_missing(console, list(missing.values()), store)
    told = [cost.seconds(stage) for stage in missing.values()]
    seconds = sum(each for each in told if each is not None)
    more = " and more, for kinds or models that were never measured in this store" if None in told else ""
    console.print(
        f"missing: {len(missing)} stages, about {seconds:.0f} s in one process{more}", highlight=False, soft_wrap=True
    )


@dataclass(frozen=True)
class _Cost:
    """What a stage will cost, as far as that was measured in this store; ``None`` where it was not."""

    by_kind: Mapping[str, float]
    sizes: Mapping[str, float]
    models: Mapping[str, str]
    """Key of a stage -> its model."""
    seen: frozenset[str]
    """Models that were trained in this store: what others take cannot be told from them."""

    def seconds(self, stage: Stage) -> float | None:
        return self.by_kind.get(stage.kind) if self._known(stage) else None

    def megabytes(self, stage: Stage) -> float | None:
        if stage.kind in _WITH_WEIGHTS and self.models[stage.key] in PRESETS:
            return PRESETS[self.models[stage.key]].parameters * BYTES_A_WEIGHT * 1.0
        size = self.sizes.get(stage.kind)
        return None if size is None or not self._known(stage) else size / 1e6

    def _known(self, stage: Stage) -> bool:
        return stage.kind in _WITHOUT_MODEL or self.models[stage.key] in self.seen


def _estimate(stages: Sequence[Stage], cost: Callable[[Stage], float | None], form: str) -> str:
    if not stages:
        return "0"
    told = [each for stage in stages if (each := cost(stage)) is not None]
    if not told:
        return "unmeasured"
    return form.format(sum(told)) + ("" if len(told) == len(stages) else " and more")


def _totals(missing: Sequence[Stage], cost: _Cost, rate: float | None) -> Iterator[str]:
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
    disk = sum(cost.megabytes(stage) or 0.0 for stage in missing)
    if disk:
        yield f"disk: about {disk / 1000:,.1f} GB, by what results of the same kinds take here, and by a preset's parameters"


def models_of(store: Store) -> frozenset[str]:
    """Names of the models that were trained in this store."""
    found = set()
    for manifest in (store.root / "entries" / "train").glob(f"*/{MANIFEST}"):
        try:
            found.add(str(json.loads(manifest.read_bytes())["inputs"]["inputs"]["model"]["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return frozenset(found)


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
