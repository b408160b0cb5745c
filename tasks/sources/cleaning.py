"""The ``cleaned`` variants of published data: what leaks from one split to another, or contradicts itself, is left out and counted.

In order, each on what the ones before left:

1. **Label conflicts**: samples whose programs are equal token by token, with different labels. All of them go: nobody knows which
   label is right. (Near-duplicates with different labels stay: a fix changes a line.)
2. **Commit overlap**, where groups are commits: what shares a commit with test goes from valid and train, what shares one with valid
   from train.
3. **Near-duplicates across splits**: likewise, for programs whose sets of three-token runs have a Jaccard similarity of
   :data:`THRESHOLD` or more (Allamanis 2019 measures what they do to results). Pairs are near-duplicates where both their programs
   are, in either order. Similarity is taken as transitive, so nothing in test is like anything in train.

The test split loses conflicting samples alone: figures on it stay comparable with figures on all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.samples import Sample
from tasks.sources.dealing import shingles
from tasks.sources.installed import lexical_tokens
from tasks.sources.sizes import Published

THRESHOLD = 0.8
BANDS, ROWS = 16, 4
"""A pair of similarity 0.8 shares a band of the sketch with probability 1 - (1 - 0.8^4)^16 > 0.999."""

ORDER = ("test", "valid", "train")
"""Who keeps what two splits share: the first."""

Parts = dict[str, list[Sample]]


def cleaned(data: Published, commits: bool) -> Published:
    """The data without label conflicts and without what leaks across splits; the counts stand in its facts.

    Args:
        data: as published.
        commits: whether samples' groups are commits.
    """
    parts: Parts = {split: list(getattr(data, split)) for split in ORDER}
    counts: dict[str, Mapping[str, int]] = {"published": {split: len(parts[split]) for split in ORDER}}
    exact = {text: _digest(lexical_tokens(text)) for text in _texts(parts)}
    parts, counts["label conflicts"] = _without_conflicts(parts, exact)
    if commits:
        parts, counts["commit overlap"] = _apart(parts, lambda s: s.group)
    cluster = clusters(list(_texts(parts)), exact)
    parts, counts["near-duplicates across splits"] = _apart(parts, lambda s: _unordered(cluster[p] for p in s.programs))
    return replace(Published.of(data.name, parts), facts={**data.facts, "cleaned": counts})


def _texts(parts: Parts) -> dict[str, None]:
    """The distinct programs, in order."""
    return dict.fromkeys(text for split in ORDER for sample in parts[split] for text in sample.programs)


def _unordered(values: Iterable[int | bytes]) -> Hashable:
    return tuple(sorted(values))


def _digest(tokens: Sequence[str]) -> bytes:
    return hashlib.sha256("\0".join(tokens).encode()).digest()


def _without_conflicts(parts: Parts, exact: Mapping[str, bytes]) -> tuple[Parts, dict[str, int]]:
    labels: dict[Hashable, set[int]] = {}

    def name(sample: Sample) -> Hashable:
        return _unordered(exact[text] for text in sample.programs)

    for split in ORDER:
        for sample in parts[split]:
            if sample.label is not None:
                labels.setdefault(name(sample), set()).add(sample.label)
    torn = {key for key, found in labels.items() if len(found) > 1}
    return _keep(parts, lambda split, sample: sample.label is None or name(sample) not in torn)


def _apart(parts: Parts, name: Callable[[Sample], Hashable]) -> tuple[Parts, dict[str, int]]:
    """What an earlier split of :data:`ORDER` holds under the same name goes from the later ones."""
    owner: dict[Hashable, str] = {}
    for split in ORDER:
        for sample in parts[split]:
            owner.setdefault(name(sample), split)
    return _keep(parts, lambda split, sample: owner[name(sample)] == split)


def _keep(parts: Parts, keep: Callable[[str, Sample], bool]) -> tuple[Parts, dict[str, int]]:
    """What is kept, and how many of each split are not."""
    kept = {split: [s for s in part if keep(split, s)] for split, part in parts.items()}
    return kept, {split: len(parts[split]) - len(kept[split]) for split in ORDER}


# ------------------------------------------------------------------------------------------------------------- clusters


def clusters(texts: Sequence[str], exact: Mapping[str, bytes]) -> dict[str, int]:
    """Text -> number of its cluster: the smallest classes that hold every two texts which are near-duplicates.

    Candidates share a band of their MinHash sketches; each is then compared exactly.

    Args:
        texts: distinct.
        exact: digest of a text's tokens; equal ones are compared once.
    """
    first: dict[bytes, int] = {}
    place = {text: first.setdefault(exact[text], len(first)) for text in texts}
    kept = {number: text for text, number in reversed(place.items())}
    sets = [np.sort(np.fromiter(shingles(kept[number]), np.uint32)) for number in range(len(kept))]
    leader = list(range(len(sets)))

    def lead(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    for bucket in _buckets(sets):
        for i, one in enumerate(bucket):
            for other in bucket[:i]:
                mine, yours = lead(one), lead(other)
                if mine != yours and _similar(sets[one], sets[other]):
                    leader[max(mine, yours)] = min(mine, yours)
    return {text: lead(number) for text, number in place.items()}


def _similar(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> bool:
    if min(len(one), len(other)) < THRESHOLD * max(len(one), len(other)):
        return False
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared >= THRESHOLD * (len(one) + len(other) - shared)


def _buckets(sets: Sequence[NDArray[np.uint32]]) -> Iterable[list[int]]:
    """Numbers of the sets that share a band of their sketches, for each band that several share."""
    rng = np.random.default_rng(1)
    factors = rng.integers(1, 2**63, size=(BANDS * ROWS, 1), dtype=np.uint64) | np.uint64(1)
    sketches = np.zeros((len(sets), BANDS * ROWS), np.uint32)
    for number, values in enumerate(sets):
        # Multiply-shift hashing: the high half of an odd multiple, modulo 2^64.
        sketches[number] = ((factors * (values.astype(np.uint64) + np.uint64(1))) >> np.uint64(32)).min(axis=1)
    for band in range(BANDS):
        rows = np.ascontiguousarray(sketches[:, band * ROWS : (band + 1) * ROWS])
        _, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(inverse, kind="stable")
        for start, count in zip(np.cumsum(counts) - counts, counts, strict=True):
            if count > 1:
                yield order[start : start + count].tolist()
