"""Intervals and tests. Pure functions of counts and arrays; nothing here knows what a cell is.

An empty sample gives ``None``, never NaN. The formulas are checked against ``scipy``, ``statsmodels`` and ``scikit-posthocs``, against
published tables, and by simulation (``tests/test_stats*.py``). Bootstraps take a seed, so that the same outcomes always render the
same page.
"""

from bench.stats.bootstrap import (
    MINIMUM_SEEDS,
    RESAMPLES,
    Clustered,
    Question,
    Statistic,
    difference_statistic,
    f1_difference_statistic,
    f1_statistic,
    mean_statistic,
    two_level_bootstrap,
    two_level_bootstraps,
)
from bench.stats.estimates import (
    LEVEL,
    Estimate,
    bounded_mean,
    effective_size,
    grouped_difference,
    grouped_share,
    paired_bounds,
    paired_difference,
    paired_difference_counts,
    student_half_width,
    wilson,
    wilson_bounds,
)
from bench.stats.letters import tie_groups
from bench.stats.ranks import (
    EXACT_BLOCKS,
    MINIMUM_BLOCKS,
    NOT_ENOUGH_BLOCKS,
    RankInterval,
    SignedRank,
    WinTieLoss,
    median_difference,
    rank_biserial,
    rank_intervals,
    signed_rank,
    win_tie_loss,
)
from bench.stats.tests import McNemar, auroc, holm, mcnemar, non_inferior

__all__ = [
    "EXACT_BLOCKS",
    "LEVEL",
    "MINIMUM_BLOCKS",
    "MINIMUM_SEEDS",
    "NOT_ENOUGH_BLOCKS",
    "RESAMPLES",
    "Clustered",
    "Estimate",
    "McNemar",
    "Question",
    "RankInterval",
    "SignedRank",
    "Statistic",
    "WinTieLoss",
    "auroc",
    "bounded_mean",
    "difference_statistic",
    "effective_size",
    "f1_difference_statistic",
    "f1_statistic",
    "grouped_difference",
    "grouped_share",
    "holm",
    "mcnemar",
    "mean_statistic",
    "median_difference",
    "non_inferior",
    "paired_bounds",
    "paired_difference",
    "paired_difference_counts",
    "rank_biserial",
    "rank_intervals",
    "signed_rank",
    "student_half_width",
    "tie_groups",
    "two_level_bootstrap",
    "two_level_bootstraps",
    "wilson",
    "wilson_bounds",
    "win_tie_loss",
]
