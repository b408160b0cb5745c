"""The conformance suite's toy tasks of two programs and of queries, as plugins: what families of models are trained on beside the toy."""

from __future__ import annotations

from dataclasses import dataclass

from bench.conformance.toy import toy_goal, toy_info, toy_splits
from bench.context import Context
from bench.contracts import Goal, Task, TaskInfo, TaskKind
from bench.samples import Splits


@dataclass(frozen=True, kw_only=True)
class ToyPairs(Task):
    """Two spellings of a function that call the same, or not."""

    name = "toy_pairs"
    summary = "two programs, two classes"

    @property
    def info(self) -> TaskInfo:
        return toy_info(TaskKind.PAIRS)

    def goal(self) -> Goal:
        return toy_goal(TaskKind.PAIRS)

    def splits(self, context: Context) -> Splits:
        return toy_splits(TaskKind.PAIRS)


@dataclass(frozen=True, kw_only=True)
class ToySearch(Task):
    """A query in three words, and the function that it describes."""

    name = "toy_search"
    summary = "a query, ranked programs"

    @property
    def info(self) -> TaskInfo:
        return toy_info(TaskKind.SEARCH)

    def goal(self) -> Goal:
        return toy_goal(TaskKind.SEARCH)

    def splits(self, context: Context) -> Splits:
        return toy_splits(TaskKind.SEARCH)
