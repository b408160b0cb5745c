"""Clone detection on installed Python: a function and a rewrite of it, against near misses and look-alikes.

Every function has two versions: the original, and a mutant that does something else (:mod:`tasks.sources.mutations`). One of them,
drawn by a fair coin, is rewritten (:mod:`tasks.sources.rewrites`; function, parameters and locals always get new names). The
second program of *every* pair is such a rewrite; the first is

- in a **clone**, the version that was rewritten,
- in a **near miss**, the other version: the two programs differ by one or two mutations,
- in a **neighbour** pair, a version of another function of the package.

So neither layout, nor rewriting, nor mutation of one program tells the label: originals and mutants stand on either side equally
often in all three. Which functions are given a neighbour does not tell either, since as many functions with equally near neighbours
are given a clone; and partners are chosen so that their tokens overlap, and their lengths differ, as a clone's would. What is left
is whether the programs do the same. ``notes`` say for each pair which of the three it is, and what was done to make it.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bench.context import Context
from bench.samples import Sample, Splits, digest_of
from tasks.sources import installed
from tasks.sources.dealing import deal, fits
from tasks.sources.installed import Function, lexical_tokens
from tasks.sources.mutations import mutate
from tasks.sources.rewrites import plain_print, rewrite

NEAR_MISSES = 0.5
"""Share of near misses among the pairs that are no clones; the others are neighbours."""

CANDIDATES = 20
"""A neighbour is one of so many that match best."""

WORD_STARTS = frozenset(string.ascii_letters + "_")

LENGTH_WEIGHT = 0.2
"""What a relative difference in length counts against one in overlap, when neighbours are matched to clones."""


@dataclass(frozen=True, slots=True)
class Versions:
    """A function printed plainly in two versions, one of them also rewritten.

    Attributes:
        function: where it comes from.
        plain: the original and the mutant.
        mutations: names of the mutations that lie between them.
        chosen: which of the two was rewritten.
        rewritten: its rewrite.
        rewrites: names of the rewrites.
    """

    function: Function
    plain: tuple[str, str]
    mutations: tuple[str, ...]
    chosen: int
    rewritten: str
    rewrites: tuple[str, ...]

    @property
    def package(self) -> str:
        """Its top-level package."""
        return self.function.module.partition(".")[0]

    @property
    def path(self) -> str:
        """Module and qualified name."""
        return f"{self.function.module}.{self.function.qualified}"


def versions(function: Function, rng: np.random.Generator, least_rewrites: int) -> Versions | None:
    """Make the versions of a function; ``None`` where it is not to be touched, or fewer kinds of rewrite (renaming counted) apply.

    Raises:
        SyntaxError: the text does not parse.
    """
    mutated = mutate(function.text, rng)
    if mutated is None:
        return None
    mutant, mutations = mutated
    chosen = int(rng.integers(2))
    made = rewrite(mutant if chosen else function.text, rng, printed=bool(chosen))
    if made is None or len(made[2]) < least_rewrites or "rename_function" not in made[2]:
        return None
    original = plain_print(function.text) if chosen else made[0]
    return Versions(function, (original, mutant), mutations, chosen, made[1], made[2])


def shape(text: str) -> tuple[str, ...]:
    """Lexical tokens with each name replaced by the number of its first appearance: equal for functions that differ in names
    alone, which are clones whoever wrote them."""
    seen: dict[str, str] = {}
    return tuple(
        seen.setdefault(token, f"${len(seen)}") if token[0] in WORD_STARTS else token for token in lexical_tokens(text)
    )


def overlap(one: str, other: str) -> float:
    """Jaccard similarity of the sets of lexical tokens of two programs."""
    left, right = set(lexical_tokens(one)), set(lexical_tokens(other))
    return len(left & right) / len(left | right)


Candidates = list[tuple[float, int]]
"""Possible partners with what speaks against them, best first: (cost, position)."""


def look_alikes(made: Sequence[Versions]) -> dict[int, Candidates]:
    """Partners for each function that has any: rewrites of other functions of its package, of another shape, that match a clone.

    The cost of a partner is how much its overlap with the function's chosen version (:func:`overlap`) differs from the overlap
    of the function's own rewrite, and, with :data:`LENGTH_WEIGHT`, how much their lengths differ relative to the own
    rewrite's. At most :data:`CANDIDATES` each. Returns positions in ``made``.
    """
    words: dict[str, int] = {}
    shapes = [(shape(one.plain[0]), shape(one.plain[one.chosen])) for one in made]
    firsts = [_Words.of(one.plain[one.chosen], words) for one in made]
    seconds = [_Words.of(one.rewritten, words) for one in made]
    packages: dict[str, list[int]] = defaultdict(list)
    for position, one in enumerate(made):
        packages[one.package].append(position)
    found: dict[int, Candidates] = {}
    for members in packages.values():
        left, right = (_table([side[m] for m in members], len(words)) for side in (firsts, seconds))
        left_sizes, right_sizes = left.getnnz(axis=1), right.getnnz(axis=1)
        lengths = np.array([seconds[m].length for m in members], np.float64)
        for row, common in enumerate(_products(left, right)):
            member = members[row]
            overlaps = common / (left_sizes[row] + right_sizes - common)
            costs = abs(overlaps - overlaps[row]) + LENGTH_WEIGHT * abs(lengths / lengths[row] - 1)
            nearest = _smallest(costs, 2 * CANDIDATES)
            others = [(float(costs[n]), members[n]) for n in nearest if _differ(shapes[member], shapes[members[n]])]
            if others:
                found[member] = others[:CANDIDATES]
    return found


def _products(left: sparse.csr_matrix, right: sparse.csr_matrix, rows: int = 256) -> Iterator[np.ndarray]:
    """The rows of ``left @ right.T``: several are computed at once, but never all of a large package."""
    turned = right.T.tocsr()
    for start in range(0, left.shape[0], rows):
        yield from (left[start : start + rows] @ turned).toarray()


def _smallest(costs: np.ndarray, count: int) -> list[int]:
    """Positions of the ``count`` least costs, ascending; of equal ones the first comes first, so that ties fall the same way
    everywhere."""
    positions = np.arange(len(costs))
    if count < len(costs):
        positions = np.flatnonzero(costs <= np.partition(costs, count - 1)[count - 1])
    order = np.argsort(costs[positions], kind="stable")[:count]
    return [int(position) for position in positions[order]]


def _differ(one: Sequence[tuple[str, ...]], other: Sequence[tuple[str, ...]]) -> bool:
    return all(mine != yours for mine, yours in zip(one, other, strict=True))


@dataclass(frozen=True, slots=True)
class _Words:
    """A program's tokens as sorted numbers without repetition, and how many there were with it."""

    numbers: list[int]
    length: int

    @classmethod
    def of(cls, text: str, words: dict[str, int]) -> _Words:
        tokens = lexical_tokens(text)
        return cls(sorted({words.setdefault(token, len(words)) for token in tokens}), len(tokens))


def _table(rows: Sequence[_Words], width: int) -> sparse.csr_matrix:
    indices = np.concatenate([row.numbers for row in rows])
    starts = np.cumsum([0, *(len(row.numbers) for row in rows)])
    return sparse.csr_matrix((np.ones(len(indices), np.float32), indices, starts), (len(rows), width))


def splits(
    sizes: Mapping[str, int],
    context: Context,
    min_lines: int = 4,
    max_lines: int = 14,
    max_tokens: int = 90,
    least_rewrites: int = 3,
    near_misses: float = NEAR_MISSES,
) -> Splits:
    """Build the data: classes balanced, functions split by module, near-duplicates removed.

    Args:
        sizes: pairs of ``train``, ``valid``, ``budget`` and ``test``.
        context: ``context.rng("data")`` draws everything.
        min_lines: fewest non-blank lines of a function (docstring removed).
        max_lines: most.
        max_tokens: most lexical tokens.
        least_rewrites: functions to which fewer kinds of rewrite (renaming counted) apply are passed over.
        near_misses: share of near misses among the pairs that are no clones (more where too few functions have a neighbour).

    Raises:
        bench.errors.DataError: the installed packages hold too few functions.
    """
    rng = context.rng("data", "clones")
    known: dict[Function, Versions] = {}

    def accept(function: Function) -> bool:
        # Special methods keep their name; an equal name would tell a clone by its first line.
        special = function.qualified.endswith("__")
        if special or not fits(function.text, (min_lines, max_lines), max_tokens):
            return False
        try:
            made = versions(function, rng, least_rewrites)
        except SyntaxError:  # dedenting broke a string that spans lines
            return False
        if made is not None:
            known[function] = made
        return made is not None

    dealt = deal(installed.modules(), sizes, accept, rng)
    notes: dict[str, Mapping[str, Any]] = {"source": {"name": "embedded", "versions": installed.versions()}}
    parts = {split: tuple(_pairs([known[f] for f in part], near_misses, rng, notes)) for split, part in dealt.items()}
    return Splits(**parts, notes=notes)


def _pairs(
    made: Sequence[Versions], near_misses: float, rng: np.random.Generator, notes: dict[str, Mapping[str, Any]]
) -> list[Sample]:
    """One pair for each function, half of them clones, in random order."""
    candidates = look_alikes(made)
    best = sorted(candidates, key=lambda position: candidates[position][0][0])
    wanted = min(round((1 - near_misses) * (len(made) // 2)), len(best) // 2)
    # As many functions with an equally good neighbour become clones, so that having one tells nothing.
    matched = [best[i] for i in rng.permutation(2 * wanted).tolist()]
    partners = _assign(sorted(matched[:wanted]), candidates)
    rest = sorted(set(range(len(made))) - set(matched))
    missed = {rest[i] for i in rng.permutation(len(rest))[: len(made) // 2 - len(partners)].tolist()}
    samples = []
    for position in rng.permutation(len(made)).tolist():
        one = made[position]
        other = made[partners[position]] if position in partners else one
        kind = "neighbour" if position in partners else "near_miss" if position in missed else "clone"
        version = 1 - one.chosen if kind == "near_miss" else one.chosen
        programs = (one.plain[version], other.rewritten)
        paths = [one.path, other.path]
        name = digest_of({"origin": paths, "programs": programs})[:16]
        notes[name] = {
            "pair": kind,
            "functions": paths,
            "mutations": [list(one.mutations) * version, list(other.mutations) * other.chosen],
            "rewrites": list(other.rewrites),
        }
        samples.append(Sample(name, programs, "python", int(kind == "clone"), group=one.function.module))
    return samples


def _assign(positions: Sequence[int], candidates: Mapping[int, Candidates]) -> dict[int, int]:
    """A partner for each position, the cheapest first; none serves twice while another candidate is left."""
    partners: dict[int, int] = {}
    used: set[int] = set()
    for _, position, partner in sorted((cost, p, partner) for p in positions for cost, partner in candidates[p]):
        if position not in partners and partner not in used:
            partners[position] = partner
            used.add(partner)
    return {position: partners.get(position, candidates[position][0][1]) for position in positions}
