"""All checks of one plugin class."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import cast

from bench.conformance import attacks, filters, repairs, screens, tasks, trainings
from bench.conformance.checks import Check, Family, Outcome, Result, Skipped, Subject, demand, run_check
from bench.conformance.common import CLASS_CHECKS, TOY_CHECKS, applicable
from bench.contracts import Plugin, Task, TaskKind
from bench.errors import BenchError
from bench.plugins import build

FAMILIES: Mapping[str, Family] = {
    "task": tasks.FAMILY,
    "attack": attacks.FAMILY,
    "filter": filters.FAMILY,
    "training": trainings.FAMILY,
    "repair": repairs.FAMILY,
    "screen": screens.FAMILY,
}


def kinds_of(cls: type[Plugin]) -> tuple[TaskKind, ...]:
    """The kinds of toy task that a plugin is checked on: those that it supports; of a task its own."""
    if issubclass(cls, Task):
        return (cast(Task, build(cls, tasks.small_parameters(cls))).info.kind,)
    return tuple(kind for kind in TaskKind if kind in cls.kinds)


def results(cls: type[Plugin]) -> Iterator[Result]:
    """Run every check; the last says whether anything was checked at all."""
    # Every training ends with a full garbage collection; what was there before has no part in it.
    gc.freeze()
    try:
        yield from _results(cls)
    finally:
        gc.unfreeze()


def _results(cls: type[Plugin]) -> Iterator[Result]:
    family = FAMILIES[cls.family]
    alone = [run_check(check, Subject(cls, TaskKind.CLASSIFICATION, family), None) for check in CLASS_CHECKS]
    yield from alone
    try:
        kinds = kinds_of(cls)
    except BenchError as error:
        yield Result(cls.family, cls.name, None, "kinds", Outcome.FAILED, str(error))
        return
    on_toy = []
    for kind in kinds:
        subject = Subject(cls, kind, family)
        for result in _on_kind(subject):
            on_toy.append(result)
            yield result
    yield run_check(_something_checked(on_toy), Subject(cls, TaskKind.CLASSIFICATION, family), None)


def _on_kind(subject: Subject) -> Iterator[Result]:
    first = run_check(Check("applicable", "It applies to the toy.", applicable), subject, subject.kind)
    if first.outcome is not Outcome.PASSED:
        yield first
        return
    for check in (*TOY_CHECKS, *subject.family.checks):
        yield run_check(_if_it_works(check), subject, subject.kind)


def _if_it_works(check: Check) -> Check:
    """A family's own check of an answer has nothing to judge where there is no answer."""
    if check in TOY_CHECKS:
        return check

    def guarded(subject: Subject) -> None:
        if subject.first().observation.error is not None:
            raise Skipped("it does not work (see the check 'works')")
        check.run(subject)

    return Check(check.name, check.rule, guarded)


def _something_checked(on_toy: list[Result]) -> Check:
    """The rule that not all rules were skipped."""

    def run(_: Subject) -> None:
        reasons = list(dict.fromkeys(r.reason for r in on_toy if r.outcome is Outcome.SKIPPED))
        judged = [r for r in on_toy if r.outcome is not Outcome.SKIPPED]
        demand(
            bool(judged), f"every check on the toy was skipped ({'; '.join(reasons) or 'it supports no kind of task'})"
        )

    return Check("something checked", "Not all of its checks were skipped.", run)
