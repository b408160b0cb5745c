"""Dealing functions out to splits: whole modules, no near-duplicates."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH

from bench.errors import DataError
from tasks.sources.installed import Function, Module, functions, lexical_tokens
from tasks.sources.parsing import compiles, uncollected

SPLITS = ("train", "valid", "budget", "test")

LARGE = 40_000
"""Bytes from which a module is read after all smaller ones: these are an eighth of the modules, but more than half of the bytes
to parse, and at most ``per_module`` functions are taken of each."""

PERMUTATIONS = 64
BANDS, ROWS = 16, 4
"""A pair of Jaccard similarity 0.8 shares a band with probability 1 - (1 - 0.8^4)^16 > 0.999; at 0.7 it is 0.987."""


def shingles(text: str, length: int = 3) -> frozenset[int]:
    """32-bit hashes of the runs of ``length`` lexical tokens (the whole text where it is shorter)."""
    tokens = lexical_tokens(text)
    runs = [tokens[i : i + length] for i in range(max(1, len(tokens) - length + 1))]
    return frozenset([zlib.crc32(" ".join(run).encode()) for run in runs])


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0


class Novelty:
    """Remembers texts and tells whether a new one is a near-duplicate of one of them.

    Candidates come from MinHash LSH (datasketch); each is then compared exactly, so that nothing is dropped by chance.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        # The index draws a name for itself from the global generator, even where it is given one.
        state = random.getstate()
        self._index = MinHashLSH(params=(BANDS, ROWS), num_perm=PERMUTATIONS)
        random.setstate(state)
        # One for all texts: making it costs more than using it.
        self._sketch = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
        self._known: list[frozenset[int]] = []

    def add(self, text: str) -> bool:
        """Remember ``text`` and return ``True``, or return ``False`` where it is a near-duplicate of a remembered one."""
        mine = shingles(text)
        sketch = self._sketch
        sketch.clear()
        sketch.update_batch(mine)
        if any(jaccard(mine, self._known[key]) >= self.threshold for key in self._index.query(sketch)):
            return False
        self._index.insert(len(self._known), sketch, check_duplication=False)
        self._known.append(mine)
        return True


def deal(
    modules: Sequence[Module],
    sizes: Mapping[str, int],
    accept: Callable[[Function], bool],
    rng: np.random.Generator,
    per_module: int = 30,
) -> dict[str, list[Function]]:
    """Distinct functions for each split; a module's functions go to one split alone.

    Modules are read in a random order, large ones last, until every split is full; each goes to the split that is least full for its size,
    so that all splits are alike. At most ``per_module`` functions of a module are taken, so that none dominates.

    Args:
        modules: where functions come from.
        sizes: how many functions each split of :data:`SPLITS` gets.
        accept: which functions will do; asked before anything dearer. Those that do not compile alone are never taken.
        rng: decides the order of modules and which of a module's functions are taken.
        per_module: at most so many of one module.

    Raises:
        DataError: the modules do not hold enough functions.
    """
    dealt: dict[str, list[Function]] = {split: [] for split in sizes}
    novelty = Novelty()
    for position in sorted(rng.permutation(len(modules)).tolist(), key=lambda p: modules[p].size >= LARGE):
        wanting = [split for split in sizes if len(dealt[split]) < sizes[split]]
        if not wanting:
            break
        split = min(wanting, key=lambda s: len(dealt[s]) / sizes[s])
        room = min(per_module, sizes[split] - len(dealt[split]))
        with uncollected():
            dealt[split] += _take(functions(modules[position]), room, accept, novelty, rng)
    short = {split: len(dealt[split]) for split in sizes if len(dealt[split]) < sizes[split]}
    if short:
        raise DataError(
            f"the installed packages hold too few fitting functions: {sum(len(part) for part in dealt.values())} of "
            f"{sum(sizes.values())} wanted. Ask for smaller splits, or widen the limits on a function's length."
        )
    return dealt


def _take(
    found: Sequence[Function],
    room: int,
    accept: Callable[[Function], bool],
    novelty: Novelty,
    rng: np.random.Generator,
) -> list[Function]:
    taken: list[Function] = []
    for index in rng.permutation(len(found)):
        if len(taken) == room:
            break
        function = found[index]
        if accept(function) and compiles(function.text) and novelty.add(function.text):
            taken.append(function)
    return taken


def line_count(text: str) -> int:
    """Lines that are not blank."""
    return sum(1 for line in text.splitlines() if line.strip())


def fits(text: str, lines: Iterable[int], max_tokens: int) -> bool:
    """Is the number of non-blank lines within ``(least, most)``, and are there at most ``max_tokens`` lexical tokens?"""
    least, most = lines
    return least <= line_count(text) <= most and len(lexical_tokens(text)) <= max_tokens
