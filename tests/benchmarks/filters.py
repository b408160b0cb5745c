"""Filters: KillBadCode's deletions against scoring each variant anew, a whole training set, and the memory of 100,000 representations."""

from __future__ import annotations

import ast
import itertools
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.context import Context
from bench.contracts import Access, Filter, Known, TaskInfo, TaskKind
from bench.ngram import NgramModel
from bench.samples import Sample
from defenses.filter.activation_clustering import ActivationClustering
from defenses.filter.cube import Cube
from defenses.filter.killbadcode import KillBadCode, gains, pieces
from defenses.filter.spectral_signatures import SpectralSignatures
from tests.benchmarks import Measure

FUNCTIONS = 20_000
CLEAN = 300
PACKAGES = ("numpy", "pandas", "scipy", "sklearn", "matplotlib", "networkx", "transformers")
NAIVE = 40
"""Functions that are also scored the plain way."""
ROWS, WIDTH = 100_000, 768
CUBE_ROWS = 20_000
"""CUBE's own: UMAP's neighbours and HDBSCAN's spanning tree (every row against every other) take minutes of it."""
INFO = TaskInfo("benchmark", TaskKind.CLASSIFICATION, "python", ("no", "yes"), "accuracy")


def real_functions() -> Iterator[str]:
    """Functions of installed packages, in the order of their files."""
    site = Path(np.__file__).parents[1]
    paths = itertools.chain.from_iterable(sorted((site / package).rglob("*.py")) for package in PACKAGES)
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (SyntaxError, ValueError, OSError):
            continue
        lines = text.splitlines()
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.FunctionDef)
                and node.end_lineno is not None
                and 4 <= node.end_lineno - node.lineno <= 60
            ):
                yield "\n".join(lines[node.lineno - 1 : node.end_lineno])


def some_functions(count: int) -> list[Sample]:
    """The first ``count`` different functions, in an order of their own."""
    found = list(dict.fromkeys(itertools.islice(real_functions(), 2 * count)))[:count]
    if len(found) < count:
        raise RuntimeError(f"{len(found)} different functions of 5 to 61 lines were found; the benchmark needs {count}")
    order = np.random.default_rng(0).permutation(count)
    return [Sample(f"s{i:05}", (found[j],), "python", i % 2, None, f"g{i}") for i, j in enumerate(order)]


def naive(model: NgramModel, tokens: list[str]) -> list[float]:
    """The gains as published: every variant scored from its first token to its last."""
    whole = -model.log_probabilities(tokens).mean()
    return [
        max(whole + model.log_probabilities([*tokens[:i], *tokens[i + 1 :]]).mean(), 0.0) for i in range(len(tokens))
    ]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def deletions(samples: list[Sample]) -> list[Measure]:
    """KillBadCode's speed."""
    programs = [pieces(sample.programs[0]) for sample in samples]
    model = NgramModel.fit(programs[:CLEAN], order=4)
    scored = programs[CLEAN : CLEAN + NAIVE]
    for tokens, found in zip(scored, gains(model, scored), strict=True):
        assert np.allclose(found, naive(model, tokens), rtol=1e-9, atol=1e-12)
    plain = seconds(lambda: [naive(model, tokens) for tokens in scored])
    at_once = min(seconds(lambda: gains(model, scored)) for _ in range(3))
    plugin = KillBadCode(clean=CLEAN)
    known = Known(plugin.needs, _clean=tuple(samples[:CLEAN]), _training=tuple(samples[CLEAN:]))
    lent = Context(seeds={"defense": 0}, scratch=Path("unused"))
    whole = seconds(lambda: plugin.judge(known, INFO, lent))
    length = round(float(np.mean([len(tokens) for tokens in scored])))
    usual = round(float(np.mean([len(tokens) for tokens in programs[CLEAN:]])))
    return [
        Measure(
            f"KillBadCode deletions, {NAIVE} functions of {length} tokens: times faster than each anew",
            plain / at_once,
            at_least=50,
        ),
        Measure(f"KillBadCode, {FUNCTIONS:,} functions of {usual} tokens: seconds, one process", whole, at_most=60),
    ]


# -------------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Random:
    """Stands for a victim: random representations."""

    rows: int

    def features(self, samples: object, **how: object) -> NDArray[np.float32]:
        """The same (rows, 768) for every question."""
        return np.random.default_rng(0).standard_normal((self.rows, WIDTH), dtype=np.float32)


FEATURE_FILTERS: dict[str, tuple[Filter, int]] = {
    "spectral_signatures": (SpectralSignatures(vectors=10), ROWS),
    "activation_clustering (ICA, as published)": (ActivationClustering(), ROWS),
    "activation_clustering (PCA)": (ActivationClustering(reduction="pca"), ROWS),
    "cube": (Cube(), CUBE_ROWS),
}
"""Each with the number of its rows, all of one class."""


def judge_random(name: str) -> float:
    """Peak memory in GB of this process after a class of random representations was judged."""
    plugin, rows = FEATURE_FILTERS[name]
    samples = tuple(Sample(f"s{i:06}", ("",), "python", 0) for i in range(rows))
    assert plugin.needs.model is Access.WEIGHTS
    known = Known(plugin.needs, _training=samples, _model=cast(Any, Random(rows)))
    plugin.judge(known, INFO, Context(seeds={"defense": 0}, scratch=Path("unused")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def memory(name: str) -> Measure:
    """The same in a process of its own, libraries included."""
    code = f"from tests.benchmarks.filters import judge_random; print(judge_random({name!r}))"
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    title = f"{name}, {FEATURE_FILTERS[name][1]:,} x {WIDTH} in one class ({took:.0f} s, {processor:.0f} s of processor): peak GB"
    return Measure(title, float(answer.stdout), at_most=2.0)


def run() -> list[Measure]:
    """(title, measured, bound)."""
    return [*deletions(some_functions(FUNCTIONS + CLEAN)), *(memory(name) for name in FEATURE_FILTERS)]
