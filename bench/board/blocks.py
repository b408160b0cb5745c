"""Defenses across blocks (block = task × model × attack, seeds averaged first).

What is compared is the distance of the lift from zero: a repair that plants a reverse backdoor (lift far below 0) is not better than none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Final

from pydantic import BaseModel, ConfigDict

from bench import stats

TIE_MARGIN: Final = 0.01
ALPHA: Final = 0.05

Lifts = Mapping[str, Mapping[Hashable, float]]


class BlockSummary(BaseModel):
    """One defense across blocks, against no defense. ``None`` where undefined (``reason`` says why)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defense: str
    blocks: int
    """Blocks on which both this defense and none have a lift."""
    mean_distance: float | None = None
    """Mean |lift| over the blocks on which this defense has one."""
    median_difference: float | None = None
    """Median of |lift| − |lift without defense|; negative is better."""
    median_low: float | None = None
    median_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    """Two-sided Wilcoxon signed-rank test, Holm over the defenses."""
    effect: float | None = None
    """Rank-biserial correlation; −1: nearer to zero than none on every block."""
    wins: int = 0
    ties: int = 0
    losses: int = 0
    group: str = ""
    """Defenses that share a letter are not told apart (pairwise Wilcoxon, Holm over the pairs)."""
    mean_rank: float | None = None
    rank_low: float | None = None
    rank_high: float | None = None
    rank_blocks: int = 0
    """Complete blocks: every defense has a lift."""
    reason: str = ""


def summarise_blocks(
    lifts: Mapping[str, Mapping[tuple[str, str, str], float]], *, control: str | None
) -> list[BlockSummary]:
    """Summaries of all defenses that have a lift anywhere, best first (by mean rank where there is one, else by mean |lift|).

    Args:
        lifts: defense → block → lift (mean over seeds). A missing block is left out, never filled in.
        control: the defense that stands for none, or ``None`` where the table has none.
    """
    distances: dict[str, dict[Hashable, float]] = {
        name: {block: abs(lift) for block, lift in found.items()} for name, found in lifts.items() if found
    }
    names = sorted(distances, key=lambda name: (_mean(distances[name]), name))
    tests = {name: _against(distances, name, control) for name in names}
    adjusted = dict(zip(names, stats.holm([tests[name].p for name in names]), strict=True))
    letters = _letters(distances, names)
    ranks = _ranks(distances, names)
    summaries = []
    for name in names:
        base = tests[name]
        update: dict[str, object] = {"p_holm": _short(adjusted[name]), "group": letters.get(name, "")}
        if name in ranks:
            rank = ranks[name]
            update |= {
                "mean_rank": _short(rank.mean_rank),
                "rank_low": _short(rank.low),
                "rank_high": _short(rank.high),
                "rank_blocks": rank.blocks,
            }
        summaries.append(base.model_copy(update=update))
    return sorted(summaries, key=lambda s: (s.mean_rank or 0.0, s.mean_distance or 0.0, s.defense))


def _against(distances: Mapping[str, Mapping[Hashable, float]], name: str, control: str | None) -> BlockSummary:
    mean = _short(_mean(distances[name]))
    if control is None or control not in distances:
        return BlockSummary(defense=name, blocks=0, mean_distance=mean, reason="no undefended cells to compare with")
    if name == control:
        return BlockSummary(defense=name, blocks=len(distances[name]), mean_distance=mean, reason="the control")
    differences = _differences(distances[name], distances[control])
    test, median = stats.signed_rank(differences), stats.median_difference(differences)
    counts = stats.win_tie_loss(differences, TIE_MARGIN)
    return BlockSummary(
        defense=name,
        blocks=len(differences),
        mean_distance=mean,
        median_difference=_short(median.value) if median else None,
        median_low=_short(median.low) if median else None,
        median_high=_short(median.high) if median else None,
        p=_short(test.p),
        effect=_short(test.effect),
        wins=counts.wins,
        ties=counts.ties,
        losses=counts.losses,
        reason=test.reason,
    )


def _differences(one: Mapping[Hashable, float], other: Mapping[Hashable, float]) -> list[float]:
    return [one[block] - other[block] for block in one if block in other]


def _letters(distances: Mapping[str, Mapping[Hashable, float]], names: Sequence[str]) -> dict[str, str]:
    pairs = list(combinations(names, 2))
    p_values = [stats.signed_rank(_differences(distances[a], distances[b])).p for a, b in pairs]
    if all(p is None for p in p_values):
        return {}
    apart = {pair: p is not None and p < ALPHA for pair, p in zip(pairs, stats.holm(p_values), strict=True)}
    return stats.tie_groups(names, apart)


def _ranks(distances: Mapping[str, Mapping[Hashable, float]], names: Sequence[str]) -> dict[str, stats.RankInterval]:
    if not names:
        return {}
    complete = [block for block in distances[names[0]] if all(block in distances[name] for name in names)]
    intervals = stats.rank_intervals([[distances[name][block] for name in names] for block in complete])
    return dict(zip(names, intervals, strict=True)) if intervals else {}


def _mean(values: Mapping[Hashable, float]) -> float:
    return sum(values.values()) / len(values)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
