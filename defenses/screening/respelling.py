"""Samples with their programs in one spelling."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from bench.contracts import TaskInfo, TaskKind
from bench.languages.normalising import Step, normalise
from bench.samples import Sample


@dataclass(frozen=True, slots=True)
class Respelled:
    """A sample after normalising.

    Attributes:
        sample: the same sample with every program normalised.
        oddities: dead statements taken out, and look-alike or invisible characters replaced.
    """

    sample: Sample
    oddities: int


def respelled(sample: Sample, steps: Collection[Step], function_name: bool) -> Respelled:
    """Every program of a sample normalised (:func:`bench.languages.normalising.normalise`)."""
    results = [normalise(sample.language, text, steps, function_name=function_name) for text in sample.programs]
    programs = tuple(result.text for result in results)
    return Respelled(replace(sample, programs=programs), sum(result.dead + result.characters for result in results))


def takes_function_name(chosen: bool | None, task: TaskInfo) -> bool:
    """Are functions renamed too? By default everywhere but in code search, whose queries ask for them by name."""
    return task.kind is not TaskKind.SEARCH if chosen is None else chosen
