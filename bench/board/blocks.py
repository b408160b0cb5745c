"""Each defense against no defense across blocks: the pairs of :mod:`bench.board.analysis` that hold the control, one line a defense."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from bench.board.analysis import NO_CONTROL, Analysis, Block, Comparison, Standing, analyse


class BlockSummary(BaseModel):
    """One defense across blocks, against no defense. ``None`` where undefined (``reason`` says why)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defense: str
    blocks: int
    """Blocks on which both this defense and none have a lift; without undefended cells those on which this defense has one."""
    mean_left: float | None = None
    """Mean of what is left of the backdoor, over the blocks on which this defense has a lift."""
    median_difference: float | None = None
    """Median of what is left less what is there without defense; negative is better."""
    median_low: float | None = None
    median_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    """Two-sided Wilcoxon signed-rank test, Holm over the pair's two questions (lift and clean metric)."""
    p_table: float | None = None
    """The same, Holm over all pairs of the board."""
    effect: float | None = None
    """Rank-biserial correlation; −1: less left than with none on every block."""
    wins: int = 0
    ties: int = 0
    losses: int = 0
    clean_median: float | None = None
    """Median of the clean metric less that without defense."""
    clean_p_holm: float | None = None
    group: str = ""
    """Defenses that share a letter are not told apart."""
    mean_rank: float | None = None
    mean_rank_low: float | None = None
    mean_rank_high: float | None = None
    rank_low: float | None = None
    """Of its place."""
    rank_high: float | None = None
    rank_blocks: int = 0
    """Complete blocks: every ranked defense has a lift."""
    reason: str = ""


def summarise_blocks(
    left: Mapping[str, Mapping[Block, float]],
    *,
    control: str | None,
    clean: Mapping[str, Mapping[Block, float]] | None = None,
) -> list[BlockSummary]:
    """Summaries of all defenses that have a lift anywhere, best first; arguments as :func:`bench.board.analysis.analyse`."""
    return summaries(analyse(left, clean or {}, control=control))


def summaries(analysis: Analysis) -> list[BlockSummary]:
    """A summary for each standing, in its order."""
    return [_summary(analysis, standing) for standing in analysis.standings]


def _summary(analysis: Analysis, standing: Standing) -> BlockSummary:
    compared, clean, reason = _against(analysis, standing)
    return BlockSummary(
        defense=standing.defense,
        blocks=compared.blocks,
        mean_left=standing.mean_left,
        median_difference=compared.median,
        median_low=compared.low,
        median_high=compared.high,
        p=compared.p,
        p_holm=compared.p_holm,
        p_table=compared.p_table,
        effect=compared.effect,
        wins=compared.wins,
        ties=compared.ties,
        losses=compared.losses,
        clean_median=clean.median,
        clean_p_holm=clean.p_holm,
        group=standing.letters,
        mean_rank=standing.mean_rank,
        mean_rank_low=standing.mean_rank_low,
        mean_rank_high=standing.mean_rank_high,
        rank_low=standing.rank_low,
        rank_high=standing.rank_high,
        rank_blocks=analysis.complete if standing.mean_rank is not None else 0,
        reason=reason,
    )


def _against(analysis: Analysis, standing: Standing) -> tuple[Comparison, Comparison, str]:
    if analysis.control is None:
        return Comparison(blocks=standing.blocks), Comparison(blocks=0), NO_CONTROL
    if standing.defense == analysis.control:
        return Comparison(blocks=standing.blocks), Comparison(blocks=0), "the control"
    pair = analysis.pair(standing.defense, analysis.control)
    assert pair is not None
    return pair.left, pair.clean, pair.left.reason
