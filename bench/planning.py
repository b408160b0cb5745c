"""What a suite would run, what is known, and what the rest will cost: tokens, hours and disk, before anything starts.

Where the same work lies in the store (other seeds, other attacks) it is told by what that took; elsewhere by bounds
(:mod:`bench.estimating`), and the words *about*, *at most* and *at least* are meant.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.composing import inverts
from bench.estimating import WITHOUT_MODEL, Estimate, Estimator, Work, total
from bench.given import given_by
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
_WITHOUT_WEIGHTS: Final = (*WITHOUT_MODEL, "poison")
SAMPLED: Final = 40
"""Results of a kind whose sizes are looked at for the estimate of the disk."""


def show_plan(
    name: str,
    store_root: Path,
    files: Sequence[Path],
    only: Mapping[str, Sequence[str]],
    mirror: str | None = None,
    rate: float | None = None,
    brief: bool = False,
    given: Sequence[Path] = (),
) -> None:
    """Print what would run, what is known, and an estimate of the rest.

    Args:
        name: of the suite.
        store_root: where results lie.
        files: plugin files outside the tree.
        only: parts of the suite.
        mirror: URL of an object store.
        rate: tokens a second that the device sends forward (a token back counts as two), to tell hours by; otherwise what was
            measured in this store with the same model is told, and nothing where nothing was.
        brief: without the names of what is missing.
        given: results folders; the cells that they have (:mod:`bench.given`) need no stage.
    """
    suite = joined(load_suite(name), files)
    registry = load_registry(suite, files)
    asked = graphs_of(suite, registry, only)
    store = Store(store_root, opened(mirror))
    taken = given_by(given, asked)
    graphs = taken.missing(asked)
    stages = merge(graphs)
    missing = {key: stage for key, stage in stages.items() if not store.has(stage.kind, stage.key)}
    plans = {stage.key: graph.plan for graph in graphs for stage in graph.stages}
    estimator = Estimator(stages, plans, registry, store)
    by_kind = seconds_by_kind(store)
    costs = {key: _Cost.of(stage, estimator, by_kind, rate) for key, stage in missing.items()}
    disk = _Disk(bytes_by_kind(store), {key: plan.model_name for key, plan in plans.items()}, models_of(store))
    console = Console()
    table = Table(title=f"plan of {suite.name}: {told_cells(graphs)}, {len(stages)} stages")
    columns = ("stage", "all", "known", "missing", "Mtokens forward", "Mtokens back", "hours", "disk")
    for column in columns:
        table.add_column(column, justify="left" if column == "stage" else "right")
    for kind in STAGE_VERSIONS:
        of_kind = [stage for stage in stages.values() if stage.kind == kind]
        if not of_kind:
            continue
        left = [stage for stage in of_kind if stage.key in missing]
        spent = [costs[stage.key] for stage in left]
        table.add_row(
            kind,
            str(len(of_kind)),
            str(len(of_kind) - len(left)),
            str(len(left)),
            *(_tokens([cost.estimate for cost in spent], back) for back in (False, True)),
            _hours(spent),
            _estimate(left, disk.megabytes, "{:,.0f} MB"),
        )
    for line in taken.lines(given):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(table)
    for line in (*_calibration(suite, asked), *_totals(list(missing.values()), costs, disk, rate)):
        console.print(line, highlight=False, soft_wrap=True)
    store.seals.save()
    if not brief:
        _print_missing(console, list(missing.values()), store)
    console.print(
        f"missing: {len(missing)} stages, {_told_hours(list(costs.values()))}", highlight=False, soft_wrap=True
    )


@dataclass(frozen=True)
class _Cost:
    """What a missing stage will compute and how long it will take, as far as that can be told."""

    estimate: Estimate
    seconds: float | None
    measured: bool
    """The seconds are what the same work took; otherwise they are a bound over a rate."""

    @classmethod
    def of(cls, stage: Stage, estimator: Estimator, by_kind: Mapping[str, float], rate: float | None) -> _Cost:
        found = estimator.estimate(stage)
        if stage.kind in _WITHOUT_WEIGHTS and (found.work is None or not found.work.passes):
            return cls(found, by_kind.get(stage.kind), True)
        if rate is None and found.seconds is not None:
            return cls(found, found.seconds, True)
        speed = rate or estimator.rate(stage)
        if found.work is None or not speed:
            return cls(found, 0.0 if found.work == Work() else None, False)
        return cls(found, found.work.passes / speed, found.source == "measured")


@dataclass(frozen=True)
class _Disk:
    """How many bytes a stage will leave; ``None`` where nothing tells."""

    sizes: Mapping[str, float]
    models: Mapping[str, str]
    """Key of a stage -> its model."""
    seen: frozenset[str]
    """Models that were trained in this store: what others take cannot be told from them."""

    def megabytes(self, stage: Stage) -> float | None:
        if stage.kind in _WITH_WEIGHTS and self.models[stage.key] in PRESETS:
            return PRESETS[self.models[stage.key]].parameters * BYTES_A_WEIGHT * 1.0
        size = self.sizes.get(stage.kind)
        known = stage.kind in _WITHOUT_WEIGHTS or self.models[stage.key] in self.seen
        return size / 1e6 if known and size is not None else None


def _estimate(stages: Sequence[Stage], cost: Callable[[Stage], float | None], form: str) -> str:
    if not stages:
        return "0"
    told = [each for stage in stages if (each := cost(stage)) is not None]
    if not told:
        return "unmeasured"
    return form.format(sum(told)) + ("" if len(told) == len(stages) else " and more")


def _tokens(estimates: Sequence[Estimate], back: bool) -> str:
    """Millions of tokens: a mean of what was measured stands bare, a bound has its sign."""
    if not estimates:
        return ""
    sources = Counter(each.source for each in estimates)
    if sources["unknown"] == len(estimates):
        return "unknown"
    known = total(estimates, "measured") + total(estimates, "bound")
    value = known.backward if back else known.forward
    sign = "≤ " if value and total(estimates, "bound").passes else ""
    return f"{sign}{value / 1e6:,.1f}" + (" and more" if sources["unknown"] else "")


def _hours(costs: Sequence[_Cost]) -> str:
    if not costs:
        return "0"
    told = [cost.seconds for cost in costs if cost.seconds is not None]
    if not told:
        return "unmeasured"
    sign = "" if all(cost.measured or not cost.seconds for cost in costs) else "≤ "
    return f"{sign}{sum(told) / 3600:,.2f}" + ("" if len(told) == len(costs) else " and more")


def _told_hours(costs: Sequence[_Cost]) -> str:
    """In words: what is measured, what is a bound, and of how many nothing is known."""
    if not costs:
        return "nothing to do"
    measured = sum(cost.seconds for cost in costs if cost.seconds is not None and cost.measured)
    bound = sum(cost.seconds for cost in costs if cost.seconds is not None and not cost.measured)
    unknown = sum(cost.seconds is None for cost in costs)
    parts = [f"about {measured / 3600:,.2f} h by what the same work took here"] if measured else []
    parts += [f"at most {bound / 3600:,.1f} h by sizes and a rate"] if bound else []
    parts += [f"{unknown} stages of which nothing can be told in advance"] if unknown else []
    return (", ".join(parts) if parts else "no hours") + ", in one process"


def _totals(missing: Sequence[Stage], costs: Mapping[str, _Cost], disk: _Disk, rate: float | None) -> Iterator[str]:
    estimates = [cost.estimate for cost in costs.values()]
    trainings = [stage for stage in missing if stage.kind in ("train", "supply")]
    if trainings:
        yield f"{len(trainings)} trainings, {_sum([costs[stage.key].estimate for stage in trainings])}"
    if missing:
        yield f"all that is missing: {_sum(estimates)}"
        passes = (total(estimates, "measured") + total(estimates, "bound")).passes
        if rate is not None:
            least = "at least " if any(each.source == "unknown" for each in estimates) else ""
            yield f"  {least}{passes:,.0f} passes (a token back counts as two): {passes / rate / 3600:,.1f} hours at {rate:,.0f} a second"
        elif passes and any(cost.seconds is None for cost in costs.values()):
            yield (
                "  --rate TOKENS_PER_SECOND tells hours of all that has tokens: what the device sends forward "
                "(python -m tests.benchmarks device measures it: prediction, tokens/s)"
            )
    used = sum(disk.megabytes(stage) or 0.0 for stage in missing)
    if used:
        yield f"disk: about {used / 1000:,.1f} GB, by what results of the same kinds take here, and by a preset's parameters"


def _sum(estimates: Sequence[Estimate]) -> str:
    """Tokens of several stages in words, those measured apart from bounds."""
    parts = []
    for source, words in (("measured", "about"), ("bound", "at most")):
        work = total(estimates, source)  # type: ignore[arg-type]
        if work.passes:
            parts.append(f"{words} {work.forward:,.0f} tokens forward and {work.backward:,.0f} back")
    unknown = sum(each.source == "unknown" for each in estimates)
    if unknown:
        parts.append(f"{unknown} stages of unknown size")
    return ", ".join(parts) or "no tokens"


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
    for kind in sorted(place for place in (store.root / "entries").iterdir() if place.is_dir()):
        folders = (place for place in kind.iterdir() if place.is_dir())  # file managers leave files of their own
        sizes = [size_of(folder) for folder in islice(folders, SAMPLED)]
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
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {kind: statistics.median(values) for kind, values in seen.items()}
