"""Where the programs come from on which attacks are judged: the tasks' own sources, or the fixtures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, cast

from bench.context import Context
from bench.contracts import Task, TaskInfo, TaskKind
from bench.plugins import Registry
from bench.samples import Sample, digest_of
from bench.validity.fixtures import FIXTURES

TRAINING: Final = 400
"""Samples from which an attack prepares its trigger."""
SEED: Final = 0


@dataclass(frozen=True)
class Source:
    """A task that has programs of a language; ``folder`` under the data folder where it needs published files."""

    task: str
    parameters: Mapping[str, Any]
    folder: str = ""
    words: str = ""


SOURCES: Final[Mapping[str, tuple[Source, ...]]] = {
    "python": (Source("code_search", {}, words="functions of the installed packages (the embedded corpus)"),),
    "java": (Source("clone_detection", {"source": "bigclonebench"}, "bigclonebench", "BigCloneBench (CodeXGLUE)"),),
    "c": (
        Source("defect_detection", {"source": "devign"}, "devign", "Devign (CodeXGLUE)"),
        # Few functions of Devign compile out of their files; a third of Juliet's do.
        Source("defect_detection", {"source": "juliet"}, "juliet-c", "Juliet (NIST)"),
    ),
}
"""By language; the programs are drawn from all sources that are there, in turn."""


@dataclass(frozen=True)
class Corpus:
    """Programs of one language.

    Attributes:
        info: a classification task of these programs; attacks prepare for it.
        training: from which attacks prepare.
        programs: on which they are judged.
        origin: where they come from, in words.
    """

    info: TaskInfo
    training: tuple[Sample, ...]
    programs: tuple[Sample, ...]
    origin: str


def info_of(language: str) -> TaskInfo:
    """The task that triggers are prepared for."""
    return TaskInfo("validity", TaskKind.CLASSIFICATION, language, ("first", "second"), "accuracy")


def fixtures(language: str) -> Corpus:
    """The own functions. For training each stands several times, once in either class."""
    programs = tuple(_sample(language, text, i) for i, text in enumerate(FIXTURES[language]))
    times = -(-TRAINING // (2 * len(programs)))
    training = tuple(
        replace(s, id=digest_of([s.id, copy, label])[:16], label=label)
        for copy in range(times)
        for s in programs
        for label in (0, 1)
    )
    return Corpus(info_of(language), training, programs, f"{len(programs)} own fixtures")


def corpus(language: str, count: int, data: Path | None, registry: Registry) -> Corpus:
    """At most ``count`` different programs of a language: real ones where they can be had, else the fixtures.

    Args:
        language: python, java or c.
        count: how many.
        data: holds folders with published files, named as in :data:`SOURCES`; ``None`` or a missing folder means fixtures.
        registry: where the tasks are found.

    Raises:
        bench.errors.DataError: a published file is malformed.
    """
    found: list[tuple[Source, list[str]]] = []
    for source in SOURCES[language]:
        parameters = dict(source.parameters)
        if not source.folder:
            parameters |= {"train": count, "valid": 1, "budget": 1, "test": 1}
        elif data is None or not (data / source.folder).is_dir():
            continue
        else:
            parameters["path"] = str(data / source.folder)
        found.append((source, _texts(cast(Task, registry.build("task", source.task, parameters)))))
    if not found:
        return fixtures(language)
    in_turn = (text for row in zip_longest(*(texts for _, texts in found)) for text in row if text is not None)
    chosen = list(dict.fromkeys(in_turn))[:count]
    programs = tuple(_sample(language, text, i) for i, text in enumerate(chosen))
    origin = f"{len(programs)} programs: {', '.join(source.words for source, _ in found)}"
    return Corpus(info_of(language), programs[:TRAINING], programs, origin)


def _texts(task: Task) -> list[str]:
    """The programs of a task, each once, in the order of their digests."""
    with tempfile.TemporaryDirectory() as folder:
        splits = task.splits(Context(seeds={"data": SEED}, scratch=Path(folder)))
    return sorted({text for part in splits.parts().values() for s in part for text in s.programs}, key=digest_of)


def _sample(language: str, text: str, number: int) -> Sample:
    return Sample(digest_of([language, text])[:16], (text,), language, label=number % 2, group=f"g{number}")
