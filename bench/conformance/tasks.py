"""Rules for tasks. A task makes its own data, so it is checked on that: as little of it as its parameters allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from bench.conformance.checks import Answer, Check, Family, Setting, Skipped, Subject, Variation, demand
from bench.conformance.lending import WatchedContext, WatchedKnown
from bench.contracts import Plugin, Task, TaskInfo, TaskKind
from bench.languages import get
from bench.samples import Sample, Splits

SMALL: Mapping[str, int] = {"train": 120, "valid": 24, "budget": 24, "test": 24}
"""Sizes for tasks that have these parameters."""
PROGRAMS = {TaskKind.CLASSIFICATION: 1, TaskKind.PAIRS: 2, TaskKind.SEARCH: 1}


def small_parameters(cls: type[Plugin]) -> dict[str, Any]:
    """The parameters with which a task is checked: few samples, and whatever else it states itself."""
    known = {f.name for f in fields(cast(Any, cls))}
    sizes = dict(SMALL) if set(SMALL) <= known else {}
    return sizes | dict(cls.toy_parameters)


def exercise(subject: Subject, setting: Setting, context: WatchedContext, known: WatchedKnown | None) -> Answer:
    """Make the data."""
    splits: object = cast(Task, subject.plugin).splits(context)
    if not isinstance(splits, Splits):
        return Answer(splits, None)
    return Answer(splits, (splits.digest(), sorted((key, dict(value)) for key, value in splits.notes.items())))


def ordinary(subject: Subject) -> Setting:
    """Nothing is handed to a task."""
    return Setting((), (), ())


def variations(subject: Subject) -> Mapping[str, Variation]:
    """None: a task reads no data of others."""
    return {}


def valid(subject: Subject, answer: Answer, setting: Setting) -> None:
    """Every sample has what its kind of task needs."""
    splits: object = answer.result
    demand(isinstance(splits, Splits), f"splits() returned {type(splits).__name__}, not Splits")
    info = cast(Task, subject.plugin).info
    get(info.language)
    for name, part in cast(Splits, splits).parts().items():
        demand(bool(part), f"the {name} split is empty")
        for sample in part:
            _check_sample(sample, info, name)


def _check_sample(sample: Sample, info: TaskInfo, part: str) -> None:
    where = f"sample {sample.id!r} of {part}"
    demand(len(sample.programs) == PROGRAMS[info.kind], f"{where} has {len(sample.programs)} programs")
    demand(all(text.strip() for text in sample.programs), f"{where} has an empty program")
    demand(sample.language == info.language, f"{where} is in {sample.language}, the task in {info.language}")
    if info.kind is TaskKind.SEARCH:
        demand(bool((sample.query or "").strip()), f"{where} has no query")
        demand(sample.label is None, f"{where} has a label; in code search the program is the answer")
    else:
        demand(
            sample.label in range(len(info.labels)), f"{where} has label {sample.label!r}, no index of {info.labels}"
        )


def states_info(subject: Subject) -> None:
    """Name, kind, classes and metric fit each other."""
    task = cast(Task, subject.plugin)
    info = task.info
    demand(info == task.info, "info changes from call to call")
    demand(info.kind in subject.cls.kinds, f"info says {info.kind.value}, which kinds does not hold")
    if info.kind is TaskKind.SEARCH:
        demand(not info.labels and info.metric == "mrr", "code search has no classes, and its metric is mrr")
    else:
        demand(len(set(info.labels)) >= 2 and info.metric != "mrr", f"classes {info.labels} with metric {info.metric}")


def apart(subject: Subject) -> None:
    """No id, no group and no program stands in two splits."""
    parts = cast(Splits, subject.answer().result).parts()
    for what, seen in (
        ("id", {name: {s.id for s in part} for name, part in parts.items()}),
        ("group", {name: {s.group for s in part if s.group} for name, part in parts.items()}),
        ("sample", {name: {(s.programs, s.query) for s in part} for name, part in parts.items()}),
    ):
        names = list(seen)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                both = seen[first] & seen[second]
                # Budget samples may come from the training modules: what a defense is given was never test data.
                if what == "group" and {first, second} == {"train", "budget"}:
                    continue
                demand(
                    not both,
                    f"{len(both)} {what}(s) stand in both {first} and {second}, e.g. {str(next(iter(both), ''))[:80]!r}",
                )
    ids = [s.id for part in parts.values() for s in part]
    demand(len(ids) == len(set(ids)), "an id stands twice")


def attackable(subject: Subject) -> None:
    """Its goal chooses training and test samples, and not all of them."""
    task, splits = cast(Task, subject.plugin), cast(Splits, subject.answer().result)
    goal = task.goal()
    for name in ("train", "test"):
        part = splits.parts()[name]
        chosen = sum(goal.chooses(s) for s in part)
        if subject.kind is TaskKind.SEARCH and len(part) < 200 and not chosen:
            raise Skipped(f"no query of the {len(part)} in the small {name} split holds the target word")
        demand(0 < chosen < len(part), f"its goal {goal} chooses {chosen} of {len(part)} samples of {name}")


FAMILY = Family(
    exercise=exercise,
    valid=valid,
    ordinary=ordinary,
    variations=variations,
    checks=(
        Check("info", "Name, kind, classes and metric fit each other.", states_info),
        Check(
            "splits apart", "No id, group or sample stands in two splits (training and budget may share groups).", apart
        ),
        Check("known answer", "Its goal chooses some, not all, training and test samples.", attackable),
    ),
)
