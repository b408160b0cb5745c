"""Filters: KillBadCode's deletions against scoring each variant anew, a whole training set, and the memory of 100,000 representations."""

from __future__ import annotations

import ast
import itertools
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.context import Context
from bench.contracts import Access, Filter, Known, TaskInfo, TaskKind
from bench.ngram import NgramModel
from bench.samples import Sample
from defenses.filter.activation_clustering import ActivationClustering
from defenses.filter.killbadcode import KillBadCode, gains, pieces
from defenses.filter.spectral_signatures import SpectralSignatures
from tests.benchmarks import Measure

FUNCTIONS = 20_000
CLEAN = 300
PACKAGES = ("numpy", "pandas", "scipy", "sklearn", "matplotlib", "networkx", "transformers")
NAIVE = 40
"""Functions that are also scored the plain way."""
ROWS, WIDTH = 100_000, 768
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


class Random:
    """Stands for a victim: random representations."""

    def features(self, samples: object, **how: object) -> NDArray[np.float32]:
        """The same (100,000, 768) for every question."""
        return np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)


FEATURE_FILTERS: dict[str, Filter] = {
    "spectral_signatures": SpectralSignatures(vectors=10),
    "activation_clustering": ActivationClustering(reduction="pca"),
}


def judge_random(name: str) -> float:
    """Peak memory in GB of this process after one class of 100,000 was judged."""
    plugin = FEATURE_FILTERS[name]
    samples = tuple(Sample(f"s{i:06}", ("",), "python", 0) for i in range(ROWS))
    assert plugin.needs.model is Access.WEIGHTS
    known = Known(plugin.needs, _training=samples, _model=cast(Any, Random()))
    plugin.judge(known, INFO, Context(seeds={"defense": 0}, scratch=Path("unused")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def memory(name: str) -> Measure:
    """The same in a process of its own, libraries included."""
    code = f"from tests.benchmarks.filters import judge_random; print(judge_random({name!r}))"
    started = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took = time.perf_counter() - started
    return Measure(
        f"{name}, {ROWS:,} x {WIDTH} in one class ({took:.0f} s): peak GB", float(answer.stdout), at_most=2.0
    )


def run() -> list[Measure]:
    """(title, measured, bound)."""
    return [*deletions(some_functions(FUNCTIONS + CLEAN)), *(memory(name) for name in FEATURE_FILTERS)]
