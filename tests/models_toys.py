"""Small synthetic tasks on which a tiny model must do well, and the contexts to train it in."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from bench.context import Context
from bench.contracts import TaskInfo, TaskKind
from bench.models import ModelSettings
from bench.samples import Sample

SMALL = ModelSettings(window=48, query_window=12, layers=1, hidden=32, heads=2, vocabulary=420, dropout=0.0)
DEFECTS = TaskInfo("toy-defects", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
CLONES = TaskInfo("toy-clones", TaskKind.PAIRS, "python", ("different", "clone"), "f1")
SEARCH = TaskInfo("toy-search", TaskKind.SEARCH, "python", (), "mrr")
INFOS = {info.kind: info for info in (DEFECTS, CLONES, SEARCH)}
THEMES = ("open", "close", "sort", "print", "parse", "send", "merge", "split")
PAIRS_OF_THEMES = tuple(combinations(THEMES, 2))


def context(folder: Path, seed: int = 0) -> Context:
    return Context(seeds={"model": seed, "training": seed, "defense": seed}, scratch=folder / "scratch")


def _body(rng: np.random.Generator, extra: str) -> str:
    names = ["alpha", "beta", "gamma", "delta"]
    lines = [f"    {rng.choice(names)} = {rng.choice(names)} + {rng.integers(9)}" for _ in range(rng.integers(1, 4))]
    lines.insert(int(rng.integers(len(lines) + 1)), f"    {extra}")
    return "\n".join(lines)


def defects(count: int, seed: int = 0) -> tuple[Sample, ...]:
    """The label is whether the program calls ``eval``."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        label = i % 2
        program = f"def work(alpha):\n{_body(rng, 'eval(alpha)' if label else 'check(alpha)')}\n"
        made.append(Sample(f"d{seed}-{i}", (program,), "python", label))
    return tuple(made)


def clones(count: int, seed: int = 0) -> tuple[Sample, ...]:
    """Two programs are clones when they call the same function."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        label = i % 2
        first, second = rng.choice(4, size=2, replace=False)
        themes = (THEMES[first], THEMES[first] if label else THEMES[second])
        programs = tuple(f"def work(alpha):\n{_body(rng, theme + '(alpha)')}\n" for theme in themes)
        made.append(Sample(f"c{seed}-{i}", programs, "python", label))
    return tuple(made)


def searches(count: int, seed: int = 0) -> tuple[Sample, ...]:
    """The query names the two functions that the program calls; 28 consecutive samples all differ in that."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        first, second = PAIRS_OF_THEMES[i % len(PAIRS_OF_THEMES)]
        program = f"def work(alpha):\n{_body(rng, first + '(alpha)')}\n    {second}(beta)\n"
        made.append(Sample(f"q{seed}-{i}", (program,), "python", None, f"{first} then {second}"))
    return tuple(made)


TOYS = {TaskKind.CLASSIFICATION: defects, TaskKind.PAIRS: clones, TaskKind.SEARCH: searches}


def one_thread() -> None:
    torch.set_num_threads(1)
