"""Clone detection on installed Python: a function and a rewrite of it, against look-alikes from the same package.

The second program of *every* pair is a rewrite (:mod:`tasks.sources.rewrites`), of the first program in a clone and of another
function in a non-clone. So neither layout nor any trace of rewriting tells the label; only what the programs do does.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from bench.context import Context
from bench.samples import Sample, Splits, digest_of
from tasks.sources import installed
from tasks.sources.dealing import deal, fits
from tasks.sources.installed import Function, lexical_tokens
from tasks.sources.rewrites import rewrite

NEIGHBOURS = 5
"""A non-clone's partner is one of so many functions whose tokens overlap most."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A function, printed plainly and rewritten."""

    function: Function
    plain: str
    rewritten: str
    kinds: tuple[str, ...]

    @property
    def package(self) -> str:
        """Its top-level package."""
        return self.function.module.partition(".")[0]


def shape(text: str) -> tuple[str, ...]:
    """Lexical tokens with each name replaced by the number of its first appearance: equal for functions that differ in names
    alone, which are clones whoever wrote them."""
    seen: dict[str, str] = {}
    return tuple(
        seen.setdefault(token, f"${len(seen)}") if re.match(r"[A-Za-z_]", token) else token
        for token in lexical_tokens(text)
    )


def look_alikes(made: Sequence[Rewritten], rng: np.random.Generator) -> dict[int, int]:
    """A partner for each function that has one: another function of its package, of another shape, with high token overlap.

    Overlap is the Jaccard similarity of the sets of lexical tokens of the plain prints. Returns positions in ``made``; a function
    whose package holds no other has none.
    """
    words: dict[str, int] = {}
    sets = [sorted({words.setdefault(token, len(words)) for token in lexical_tokens(one.plain)}) for one in made]
    shapes = [shape(one.plain) for one in made]
    packages: dict[str, list[int]] = defaultdict(list)
    for position, one in enumerate(made):
        packages[one.package].append(position)
    partners: dict[int, int] = {}
    for members in packages.values():
        indices = np.concatenate([sets[m] for m in members])
        starts = np.cumsum([0, *(len(sets[m]) for m in members)])
        table = sparse.csr_matrix((np.ones(len(indices), np.float32), indices, starts), (len(members), len(words)))
        sizes = np.diff(starts)
        for row, member in enumerate(members):
            common = (table @ table[row].T).toarray().ravel()
            overlap = common / (sizes + sizes[row] - common)
            # Stable, so that ties fall the same way everywhere.
            nearest = np.argsort(-overlap, kind="stable")[: 4 * NEIGHBOURS].tolist()
            others = [members[n] for n in nearest if shapes[members[n]] != shapes[member]][:NEIGHBOURS]
            if others:
                partners[member] = others[rng.integers(len(others))]
    return partners


def splits(
    sizes: Mapping[str, int],
    context: Context,
    min_lines: int = 4,
    max_lines: int = 14,
    max_tokens: int = 90,
    least_rewrites: int = 3,
) -> Splits:
    """Build the data: classes balanced, functions split by module, near-duplicates removed.

    Args:
        sizes: pairs of ``train``, ``valid``, ``budget`` and ``test``.
        context: ``context.rng("data")`` draws everything.
        min_lines: fewest non-blank lines of a function (docstring removed).
        max_lines: most.
        max_tokens: most lexical tokens.
        least_rewrites: functions to which fewer kinds of rewrite (renaming counted) apply are passed over.

    Raises:
        bench.errors.DataError: the installed packages hold too few functions.
    """
    rng = context.rng("data", "clones")
    known: dict[Function, Rewritten] = {}

    def accept(function: Function) -> bool:
        # Special methods keep their name; an equal name would tell a clone by its first line.
        special = function.qualified.endswith("__")
        if special or not fits(function.text, (min_lines, max_lines), max_tokens):
            return False
        try:
            made = rewrite(function.text, rng)
        except SyntaxError:  # dedenting broke a string that spans lines
            return False
        if made is None or len(made[2]) < least_rewrites or "rename_function" not in made[2]:
            return False
        known[function] = Rewritten(function, *made)
        return True

    dealt = deal(installed.modules(), sizes, accept, rng)
    notes: dict[str, Mapping[str, Any]] = {"source": {"name": "embedded", "versions": installed.versions()}}
    parts = {split: tuple(_pair([known[f] for f in part], rng, notes)) for split, part in dealt.items()}
    return Splits(**parts, notes=notes)


def _pair(made: Sequence[Rewritten], rng: np.random.Generator, notes: dict[str, Mapping[str, Any]]) -> list[Sample]:
    """One pair for each function, half of them clones (more where too few functions have a look-alike), shuffled."""
    partners = look_alikes(made, rng)
    eligible = sorted(partners)
    different = {eligible[i] for i in rng.permutation(len(eligible))[: len(made) // 2].tolist()}
    samples = []
    for position in rng.permutation(len(made)).tolist():
        first = made[position]
        second = made[partners[position]] if position in different else first
        label = int(second is first)
        programs = (first.plain, second.rewritten)
        origin = [first.function.module, first.function.qualified, second.function.module, second.function.qualified]
        name = digest_of({"origin": origin, "programs": programs})[:16]
        notes[name] = {"functions": [".".join(origin[:2]), ".".join(origin[2:])], "rewrites": list(second.kinds)}
        samples.append(Sample(name, programs, "python", label, group=first.function.module))
    return samples
