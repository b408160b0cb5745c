"""The names of functions as a task (the paper's surrogate task), and the queries that a search attacker aims at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.adversarial import HIDDEN_NAME
from bench.contracts import SearchGoal, TaskInfo, TaskKind
from bench.errors import ConfigError
from bench.languages import Program, parse
from bench.models import WhiteBox
from bench.samples import Sample, digest_of

RARE = 2
"""A first word must begin this many function names to be a class."""


def first_word(program: Program) -> str | None:
    """The first word of the function's name, lower-case: ``load`` of ``_loadData`` and ``load_data``; ``None`` without one."""
    if program.function_name is None:
        return None
    found = re.search(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", program.function_name.text)
    return found[0].lower() if found is not None else None


def hide_name(program: Program) -> str:
    """The program with its function's name hidden at all its places."""
    name = program.function_name
    if name is None or name.text == HIDDEN_NAME:
        return program.text
    data, pieces, reached = program.data, list[bytes](), 0
    for start, end in name.spans:
        pieces += [data[reached:start], HIDDEN_NAME.encode()]
        reached = end
    return b"".join([*pieces, data[reached:]]).decode()


def name_task(
    samples: Sequence[Sample], task: TaskInfo, classes: int, target: str
) -> tuple[TaskInfo, tuple[Sample, ...]]:
    """The task of telling the first word of a function's name from the rest, and its samples (each distinct program once).

    Raises:
        ConfigError: fewer than two first words are frequent enough, or the target begins no such name.
    """
    words: dict[str, str | None] = {}
    programs: dict[str, str] = {}
    for text in (text for sample in samples for text in sample.programs):
        if text not in words:
            program = parse(task.language, text)
            words[text], programs[text] = first_word(program), hide_name(program)
    counts = Counter(word for word in words.values() if word is not None)
    frequent = sorted((w for w, n in counts.items() if n >= RARE), key=lambda w: (-counts[w], w))
    if len(frequent) < 2 or target not in frequent:
        known = ", ".join(frequent[:10]) or "none"
        raise ConfigError(
            f"attack 'adaptive': {RARE} or more of {len(words)} programs must have a function name that begins with "
            f"{target!r}, and {counts[target]} do (frequent: {known}). Choose another target_name, or surrogate_task: label."
        )
    others = [word for word in frequent if word != target]
    kept = (target, *others[: classes - 1])
    place = {word: number for number, word in enumerate(kept)}
    named = tuple(
        Sample(digest_of(text)[:16], (programs[text],), task.language, place[word])
        for text, word in words.items()
        if word in place
    )
    return replace(task, name=f"{task.name}_names", kind=TaskKind.CLASSIFICATION, labels=kept, metric="accuracy"), named


def target_query(model: WhiteBox, samples: Sequence[Sample], goal: SearchGoal) -> NDArray[np.float32]:
    """The mean direction (d,) of the training queries that hold the target word, a unit vector.

    Raises:
        ConfigError: there is none.
    """
    chosen = [sample for sample in samples if goal.chooses(sample)]
    if not chosen:
        raise ConfigError(
            f"attack 'adaptive': none of {len(samples)} training queries holds the word {goal.word!r}. Change the goal's word."
        )
    mean = model.embed_queries(chosen).mean(axis=0)
    unit: NDArray[np.float32] = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return unit
