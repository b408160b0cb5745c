"""Defenses across blocks (block = task × model × attack, seeds averaged first): who is told apart from whom, and by how much.

Two questions are asked of every pair of defenses, over the blocks on which both have a number: which leaves less of the backdoor
(:attr:`bench.board.table.Row.left`; a repair that plants the opposite one leaves that), and which clean metric is higher.

The family of a Holm adjustment is one pair: its two questions. What is said of two defenses then rests on those two alone, and no
third defense on the board can change it; Holm over all pairs would, since every newcomer makes every test stricter. The price: 5 % is
the chance of a false verdict on one pair, not on the table. ``p_table`` is the strict figure beside it: Holm over all pairs of the
board, which does depend on who else stands there, and decides nothing. For the same reason tests never use mean ranks (Benavoli,
Corani and Mangili, JMLR 2016): mean ranks describe, and a rank is relative to all by its nature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from bench import stats
from bench.board.rounding import rounded

TIE_MARGIN: Final = 0.01
ALPHA: Final = 0.05
MOST_GROUPS: Final = 26
"""Tie groups that letters are given to. Many defenses overlap in a hundred groups, and nobody reads a hundred letters."""
RANKED_SHARE: Final = 0.8
"""A defense is ranked if it has a lift on this share of the control's blocks: one that hardly applies must not shrink the complete
blocks of all others."""
NO_COMPLETE_BLOCK: Final = "no complete block: on no block has every ranked defense a lift"
NO_CONTROL: Final = "no undefended cells to compare with"

Block = tuple[str, str, str]
"""(task, model, attack)."""
Values = Mapping[str, Mapping[Block, float]]
"""Defense → block → number."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Comparison(_Frozen):
    """One question of one pair, ``one − other`` over their common blocks. ``None`` where undefined (``reason`` says why)."""

    blocks: int
    median: float | None = None
    """Median paired difference, with the sign test's exact interval (none below six blocks)."""
    low: float | None = None
    high: float | None = None
    effect: float | None = None
    """Matched-pairs rank-biserial correlation, −1 to 1; its sign is the difference's."""
    wins: int = 0
    """Blocks on which ``one`` is better by more than one point; ``ties``: within it."""
    ties: int = 0
    losses: int = 0
    p: float | None = None
    """Two-sided Wilcoxon signed-rank test."""
    p_holm: float | None = None
    """Holm over the pair's two questions; it decides ``better``."""
    p_table: float | None = None
    """Holm over all pairs of the board; for information."""
    better: Literal["one", "other", "not told apart"] | None = None
    """``None`` where there is no test."""
    reason: str = ""


class Pair(_Frozen):
    """Two defenses, in the order of the standings."""

    one: str
    other: str
    left: Comparison
    """Of what is left of the backdoor: smaller is better."""
    clean: Comparison
    """Of the clean metric: higher is better."""


class Standing(_Frozen):
    """One defense across blocks."""

    defense: str
    blocks: int
    """Blocks on which it has a lift."""
    mean_left: float | None = None
    """Mean of what is left over them."""
    mean_rank: float | None = None
    """By what is left on the complete blocks, 1 is best; ``mean_rank_low`` and ``mean_rank_high``: its bootstrap interval."""
    mean_rank_low: float | None = None
    mean_rank_high: float | None = None
    rank_low: float | None = None
    """Bootstrap interval of its place among all, which is not its mean rank: one that is always second has a mean rank of 2, and so has
    one of three that is as often first as last."""
    rank_high: float | None = None
    letters: str = ""
    """Tie groups: two defenses share a letter exactly where what they leave does not tell them apart. Empty without any test, and
    where there would be more than :data:`MOST_GROUPS` of them."""
    reason: str = ""
    """Why it has no rank."""


class Gap(_Frozen):
    """A block on which a defense has no lift though another one has."""

    defense: str
    task: str
    model: str
    attack: str
    reason: str


class Analysis(_Frozen):
    """All that is said across cells; pages and exports read this object and compute nothing."""

    control: str | None = None
    """The undefended rows' label."""
    alpha: float = ALPHA
    tie_margin: float = TIE_MARGIN
    blocks: int = 0
    """Blocks on which any defense has a lift."""
    complete: int = 0
    """Blocks on which every ranked defense has one; ranks rest on these alone."""
    standings: tuple[Standing, ...] = ()
    """Best first by mean rank; those without a rank after them, by the mean of what is left."""
    pairs: tuple[Pair, ...] = ()
    gaps: tuple[Gap, ...] = ()
    reason: str = ""
    """Why nothing is ranked."""

    @property
    def tested(self) -> bool:
        """Has any pair a test? Ranks ask for complete blocks, a pair's test only for those that the two have in common."""
        return any(pair.left.p is not None for pair in self.pairs)

    @property
    def too_many_groups(self) -> bool:
        """Are there tests, and no letters since there would be too many?"""
        return self.tested and not any(standing.letters for standing in self.standings)

    def pair(self, one: str, other: str) -> Pair | None:
        """The pair of two defenses, turned round where it stands the other way; ``None`` where one of them has no lift."""
        for pair in self.pairs:
            if (pair.one, pair.other) == (one, other):
                return pair
            if (pair.one, pair.other) == (other, one):
                return Pair(one=one, other=other, left=_turned(pair.left), clean=_turned(pair.clean))
        return None


def _turned(found: Comparison) -> Comparison:
    def minus(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    better: dict[str | None, Literal["one", "other"]] = {"one": "other", "other": "one"}
    return found.model_copy(
        update={
            "median": minus(found.median),
            "low": minus(found.high),
            "high": minus(found.low),
            "effect": minus(found.effect),
            "wins": found.losses,
            "losses": found.wins,
            "better": better.get(found.better, found.better),
        }
    )


def analyse(left: Values, clean: Values, *, control: str | None, gaps: Iterable[Gap] = ()) -> Analysis:
    """The analysis of all defenses that have a lift anywhere.

    Args:
        left: defense → block → what is left of the backdoor, 0 or more (mean over seeds). A missing block is left out, never filled in.
        clean: the same of the clean metric.
        control: the undefended rows' label, or ``None``.
        gaps: handed on.
    """
    left = {name: found for name, found in left.items() if found}
    ranked, complete = _ranked(left, control)
    ranks = stats.rank_intervals([[left[name][block] for name in ranked] for block in complete])
    places = dict(zip(ranked, ranks, strict=True)) if ranks else {}
    order = sorted(
        left,
        key=lambda name: (name not in places, places[name].mean_rank if name in places else 0.0, _key(left, name)),
    )
    pairs = _pairs(order, left, clean)
    tested = [name for name in order if any(p.left.p is not None for p in pairs if name in (p.one, p.other))]
    apart = {(p.one, p.other): p.left.better in ("one", "other") for p in pairs}
    letters = stats.tie_groups(tested, apart, most=MOST_GROUPS)
    reason = ""
    if not places and left:
        few = f"{stats.NOT_ENOUGH_BLOCKS}: {len(complete)} complete, ranks need {stats.MINIMUM_BLOCKS}"
        reason = few if complete else NO_COMPLETE_BLOCK
    standings = []
    for name in order:
        place = places.get(name)
        standings.append(
            Standing(
                defense=name,
                blocks=len(left[name]),
                mean_left=rounded(_mean(left[name])),
                mean_rank=rounded(place.mean_rank) if place else None,
                mean_rank_low=rounded(place.mean_low) if place else None,
                mean_rank_high=rounded(place.mean_high) if place else None,
                rank_low=place.low if place else None,
                rank_high=place.high if place else None,
                letters=letters.get(name, ""),
                reason="" if place else reason if name in ranked else _too_few(left, name, control),
            )
        )
    return Analysis(
        control=control if control in left else None,
        blocks=len({block for found in left.values() for block in found}),
        complete=len(complete),
        standings=tuple(standings),
        pairs=tuple(pairs),
        gaps=tuple(gaps),
        reason=reason,
    )


def _key(left: Values, name: str) -> tuple[float, str]:
    return rounded(_mean(left[name])) or 0.0, name


def _mean(values: Mapping[Block, float]) -> float:
    return sum(values.values()) / len(values)


def _base(left: Values, control: str | None) -> set[Block]:
    """The blocks that a ranked defense is asked for: the control's, or all where there is none."""
    if control is not None and control in left:
        return set(left[control])
    return {block for found in left.values() for block in found}


def _ranked(left: Values, control: str | None) -> tuple[list[str], list[Block]]:
    """The defenses that are ranked, by name, and the complete blocks."""
    base = _base(left, control)
    ranked = sorted(name for name, found in left.items() if len(base & set(found)) >= RANKED_SHARE * len(base))
    complete = [block for block in base if all(block in left[name] for name in ranked)] if ranked else []
    return ranked, sorted(complete, key=str)


def _too_few(left: Values, name: str, control: str | None) -> str:
    base = _base(left, control)
    return f"not ranked: it has a lift on {len(base & set(left[name]))} of {len(base)} blocks"


def _pairs(order: Sequence[str], left: Values, clean: Values) -> list[Pair]:
    found = []
    for one, other in combinations(order, 2):
        common = [block for block in left[one] if block in left[other]]
        known = [block for block in common if block in clean.get(one, {}) and block in clean.get(other, {})]
        questions = [
            _compare([left[one][b] - left[other][b] for b in common], smaller=True),
            _compare([clean[one][b] - clean[other][b] for b in known], smaller=False),
        ]
        adjusted = stats.holm([question.p for question in questions])
        told = [_decided(question, p) for question, p in zip(questions, adjusted, strict=True)]
        found.append(Pair(one=one, other=other, left=told[0], clean=told[1]))
    tables = [stats.holm([getattr(pair, name).p for pair in found]) for name in ("left", "clean")]
    return [
        pair.model_copy(
            update={
                "left": pair.left.model_copy(update={"p_table": rounded(of_left)}),
                "clean": pair.clean.model_copy(update={"p_table": rounded(of_clean)}),
            }
        )
        for pair, of_left, of_clean in zip(found, *tables, strict=True)
    ]


def _compare(differences: Sequence[float], *, smaller: bool) -> Comparison:
    test, median = stats.signed_rank(differences), stats.median_difference(differences)
    counts = stats.win_tie_loss(differences if smaller else [-x for x in differences], TIE_MARGIN)
    return Comparison(
        blocks=len(differences),
        median=rounded(median.value) if median else None,
        low=rounded(median.low) if median else None,
        high=rounded(median.high) if median else None,
        effect=rounded(test.effect),
        wins=counts.wins,
        ties=counts.ties,
        losses=counts.losses,
        p=rounded(test.p),
        # Filled in by _decided; the sign of the effect says who is better.
        better=None if test.p is None else "one" if ((test.effect or 0.0) < 0) == smaller else "other",
        reason=test.reason,
    )


def _decided(found: Comparison, p_holm: float | None) -> Comparison:
    apart = p_holm is not None and p_holm < ALPHA
    better = found.better if apart or found.p is None else "not told apart"
    return found.model_copy(update={"p_holm": rounded(p_holm), "better": better})
