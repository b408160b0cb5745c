"""Published tables, and the libraries that others use for the same tests."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from bench import stats
from bench.board.analysis import analyse

DEMSAR = np.array(
    [
        (0.763, 0.768, 0.771, 0.798),
        (0.599, 0.591, 0.590, 0.569),
        (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657),
        (0.882, 0.888, 0.886, 0.898),
        (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685),
        (0.583, 0.583, 0.563, 0.625),
        (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000),
        (0.940, 0.962, 0.965, 0.962),
        (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.975, 0.975),
        (0.957, 0.978, 0.946, 0.970),
    ]
)
"""Demšar (2006), JMLR 7:1-30, table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets."""
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")


def test_mean_ranks_are_demsars() -> None:
    unrounded = DEMSAR.copy()
    unrounded[12, 2] += 1e-5  # the paper ranks voting by digits that it does not print: 2 and 3, not 2.5 each
    found = stats.rank_intervals(1 - unrounded)
    assert found is not None
    assert [round(one.mean_rank, 3) for one in found] == [3.143, 2.000, 2.893, 1.964]
    ranks = np.array([one.mean_rank for one in found])
    chi = 12 * 14 / (4 * 5) * ((ranks**2).sum() - 4 * 5**2 / 4)
    assert round(chi, 2) == 9.28, "Friedman's statistic as printed there"


def test_signed_ranks_are_demsars() -> None:
    """Table 2 there: R+ = 93 and R− = 12 with the two zeros split, 91.5 − 2·10 and 10.5 − 2·2 without them."""
    x = DEMSAR[:, 1] - DEMSAR[:, 0]
    kept = x[x != 0]
    ranks = scipy_stats.rankdata(np.round(np.abs(kept), 12))
    assert (ranks[kept > 0].sum(), ranks[kept < 0].sum()) == (71.5, 6.5)
    found = stats.signed_rank(x)
    assert found.effect == pytest.approx((71.5 - 6.5) / 78)
    assert found.blocks == 14
    # Two-sided 5 % point of 12 pairs: 13, 1 % point: 7 (any table of the signed-rank test)
    assert found.p is not None
    assert found.p < 0.01


@pytest.mark.parametrize(
    ("n", "five", "one"),
    [(6, 0, None), (8, 3, 0), (10, 8, 3), (12, 13, 7), (14, 21, 12), (16, 29, 19), (20, 52, 37), (25, 89, 68)],
)
def test_critical_values_of_the_signed_rank_table(n: int, five: int, one: int | None) -> None:
    """Wilcoxon's table of two-sided critical values: T at most so much is significant, one more is not."""

    def p_of(smaller: int) -> float:
        signs, left = np.ones(n), smaller
        for rank in range(n, 0, -1):
            if left >= rank:
                signs[rank - 1], left = -1, left - rank
        assert left == 0
        found = stats.signed_rank(signs * np.arange(1, n + 1)).p
        assert found is not None
        return found

    assert p_of(five) <= 0.05 < p_of(five + 1)
    if one is not None:
        assert p_of(one) <= 0.01 < p_of(one + 1)


def test_wilcoxons_own_rule_against_scipy_with_zeros_and_ties() -> None:
    rng = np.random.default_rng(0)
    for n in (80, 200):
        x = np.round(rng.normal(0.1, 1, n), 1)
        assert (x == 0).any()
        expected = scipy_stats.wilcoxon(x, zero_method="wilcox", correction=True, method="asymptotic").pvalue
        assert stats.signed_rank(x).p == pytest.approx(expected, rel=1e-9)


def test_the_approximation_meets_the_exact_test_where_it_takes_over() -> None:
    x = np.random.default_rng(3).normal(0.25, 1, stats.EXACT_BLOCKS + 1)
    exact = scipy_stats.wilcoxon(x, method="exact").pvalue
    assert stats.signed_rank(x).p == pytest.approx(exact, rel=0.03)
    assert stats.signed_rank(x[:-1]).p == pytest.approx(scipy_stats.wilcoxon(x[:-1], method="exact").pvalue)


def test_holm_is_statsmodels() -> None:
    p_values = list(np.random.default_rng(0).random(40) ** 3)
    assert stats.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_wilson_is_statsmodels() -> None:
    for x, n in [(0, 30), (1, 30), (15, 30), (30, 30), (3, 300), (2999, 3000)]:
        assert stats.wilson_bounds(x, n) == pytest.approx(proportion_confint(x, n, method="wilson"), abs=1e-12)
    low, high = stats.wilson_bounds(np.arange(31), 30)
    each = [stats.wilson_bounds(x, 30) for x in range(31)]
    assert [(a, b) for a, b in zip(low, high, strict=True)] == each


@pytest.fixture(scope="module")
def distances() -> pd.DataFrame:
    """What four defenses leave of a backdoor on twelve blocks."""
    rng = np.random.default_rng(5)
    return pd.DataFrame({f"d{i}": np.abs(0.1 * i**1.5 + 0.15 * rng.standard_normal(12)) for i in range(4)})


def test_pairwise_tests_are_scikit_posthocs(distances: pd.DataFrame) -> None:
    """Raw p-values, and Holm over the whole table."""
    long = distances.melt(var_name="defense", value_name="distance")
    found = analyse({name: dict(column) for name, column in distances.items()}, {}, control=None)
    for adjust, ours in ((None, "p"), ("holm", "p_table")):
        theirs = scikit_posthocs.posthoc_wilcoxon(
            long, val_col="distance", group_col="defense", p_adjust=adjust, zero_method="wilcox", sort=True
        )
        for one, other in combinations(distances.columns, 2):
            pair = found.pair(one, other)
            assert pair is not None
            assert getattr(pair.left, ours) == pytest.approx(theirs.loc[one, other], rel=1e-4)


def test_letters_say_what_scikit_posthocs_say(distances: pd.DataFrame) -> None:
    p_values = pd.DataFrame(1.0, index=distances.columns, columns=distances.columns)
    for one, other in combinations(distances.columns, 2):
        p = stats.signed_rank(distances[one] - distances[other]).p
        p_values.loc[one, other] = p_values.loc[other, one] = p
    theirs = scikit_posthocs.compact_letter_display(p_values, alpha=0.05)
    apart = {(a, b): p_values.loc[a, b] < 0.05 for a, b in combinations(distances.columns, 2)}
    ours = stats.tie_groups(list(distances.columns), apart)
    assert 0 < sum(apart.values()) < 6
    for one, other in combinations(distances.columns, 2):
        shared = {letter for letter in theirs[one] if letter.strip()} & set(theirs[other])
        assert bool(shared) == bool(set(ours[one]) & set(ours[other]))


def test_grouped_intervals_are_the_plain_ones_where_every_sample_stands_alone() -> None:
    rng = np.random.default_rng(2)
    for share in (0.0, 0.02, 0.5, 1.0):
        x, y, alone = rng.random(200) < share, rng.random(200) < 0.4, rng.permutation(200)
        plain, grouped = stats.wilson(int(x.sum()), 200), stats.grouped_share(x, alone)
        assert plain is not None
        assert grouped is not None
        assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high))
        one, other = stats.paired_difference(x, y), stats.grouped_difference(x, y, alone)
        assert one is not None
        assert other is not None
        assert (other.low, other.high, other.n) == pytest.approx((one.low, one.high, 200))
        test, singles = stats.mcnemar(x, y), stats.mcnemar(x, y, alone)
        assert test is not None
        assert singles is not None
        assert (singles.p, singles.mid_p) == pytest.approx((test.p, test.mid_p))


def test_samples_that_are_the_same_sample_count_once() -> None:
    x = np.repeat(np.arange(40) < 10, 5)
    groups = np.repeat(np.arange(40), 5)
    found, once = stats.grouped_share(x, groups), stats.wilson(10, 40)
    assert found is not None
    assert once is not None
    # The design effect is 5 but for the divisors n − 1 and m − 1 of the two variances.
    assert (found.low, found.high) == pytest.approx((once.low, once.high), abs=0.003)
    y = np.repeat(np.arange(40) < 4, 5)
    test, single = stats.mcnemar(x, y, groups), stats.mcnemar(x[::5], y[::5])
    assert test is not None
    assert single is not None
    assert test.p == pytest.approx(single.p)


def test_a_group_flips_as_one() -> None:
    # groups differ by 3, 1 and −1: of 8 sign patterns |sum| ≥ 3 holds for ±3±1±1 except ±(3 − 1 − 1): 6
    x = [True, True, True, True, False]
    y = [False, False, False, False, True]
    found = stats.mcnemar(x, y, np.array([0, 0, 0, 1, 2]))
    assert found is not None
    assert (found.first_only, found.second_only) == (4, 1)
    assert found.p == pytest.approx(6 / 8)
