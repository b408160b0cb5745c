"""Intervals and tests against published values, scipy, statsmodels and cases worked by hand."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bench import stats
from bench.stats import Clustered, Estimate


def bounds(estimate: Estimate | None, digits: int = 4) -> tuple[float, float]:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return round(estimate.low, digits), round(estimate.high, digits)


# ---------------------------------------------------------------------------------------------------------------- shares


def test_wilson_agrees_with_the_closed_form() -> None:
    z = scipy_stats.norm.ppf(0.975)
    for x, n in [(1, 10), (7, 10), (81, 263), (5, 5), (0, 3)]:
        p = x / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        found = stats.wilson(x, n)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_wilson_has_a_width_at_shares_zero_and_one_and_stays_inside() -> None:
    assert bounds(stats.wilson(0, 300)) == (0.0, 0.0126)
    assert bounds(stats.wilson(300, 300)) == (0.9874, 1.0)


def test_wilson_of_newcombes_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I: 81/263 -> 0.2553 to 0.3662
    assert bounds(stats.wilson(81, 263)) == (0.2553, 0.3662)


def test_no_samples_give_none_and_never_nan() -> None:
    assert stats.wilson(0, 0) is None
    assert stats.paired_difference([], []) is None
    assert stats.mcnemar([], []) is None
    assert stats.auroc([], [1.0]) is None
    assert stats.two_level_bootstrap([], stats.mean_statistic) is None
    assert stats.median_difference([]) is None
    assert stats.rank_biserial([]) is None
    assert stats.signed_rank([]).p is None
    assert stats.non_inferior(None, 0.02) is None


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="4 successes of 3"):
        stats.wilson(4, 3)


# ------------------------------------------------------------------------------------------------------------ paired shares


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe (1998), Statistics in Medicine 17:2635-2650, method 10
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
        ((53, 0, 1, 0), (-0.0977, 0.0496)),
        # Altman et al., Statistics with Confidence (2000), table 6.2
        ((14, 5, 0, 22), (0.0115, 0.2265)),
        # Bentur et al. (2009), as re-analysed by Fagerlund, Lydersen and Laake (2014)
        ((1, 1, 7, 12), (-0.5069, -0.0256)),
    ],
)
def test_paired_difference_gives_the_published_intervals(
    table: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert bounds(stats.paired_difference_counts(*table)) == pytest.approx(expected, abs=1e-4)


def test_paired_difference_turns_round_when_the_samples_are_swapped() -> None:
    one, other = stats.paired_difference_counts(20, 12, 2, 16), stats.paired_difference_counts(20, 2, 12, 16)
    assert one is not None
    assert other is not None
    assert bounds(other, 12) == pytest.approx(tuple(-x for x in reversed(bounds(one, 12))))


def test_paired_difference_counts_pairs_and_stays_inside() -> None:
    found = stats.paired_difference([True, True, True, False], [True, False, False, False])
    assert found is not None
    assert found.value == 0.5
    assert found.n == 4
    everything = stats.paired_difference([True] * 5, [False] * 5)
    assert everything is not None
    assert everything.value == 1.0
    assert everything.high == 1.0
    assert everything.low is not None
    assert 0 < everything.low < 1


def test_paired_difference_covers_as_it_says() -> None:
    """Exact coverage over all tables of n = 25 at one point of the parameter space."""
    cells, n = np.array([0.55, 0.2, 0.05, 0.2]), 25
    tables = [(a, b, c, n - a - b - c) for a, b, c in product(range(n + 1), repeat=3) if a + b + c <= n]
    masses = scipy_stats.multinomial.pmf(np.array(tables), n, cells)
    inside = 0.0
    for table, mass in zip(tables, masses, strict=True):
        low, high = bounds(stats.paired_difference_counts(*table), 9)
        inside += float(mass) if low <= 0.15 <= high else 0.0
    assert 0.94 < inside < 0.98


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes"):
        stats.paired_difference([True], [True, False])


# --------------------------------------------------------------------------------------------------------------- McNemar


def flags(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    x = [True] * (both + first) + [False] * (second + neither)
    y = [True] * both + [False] * first + [True] * second + [False] * neither
    return x, y


@pytest.mark.parametrize("table", [(5, 9, 2, 4), (0, 3, 3, 0), (10, 0, 7, 1), (1, 1, 0, 1)])
def test_exact_mcnemar_agrees_with_statsmodels(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    found = stats.mcnemar(*flags(*table))
    assert found is not None
    assert found.p == pytest.approx(statsmodels_mcnemar([[a, b], [c, d]], exact=True).pvalue)


def test_mcnemar_by_hand() -> None:
    found = stats.mcnemar(*flags(3, 1, 5, 0))
    assert found is not None
    # 6 discordant, 1 one way: p = 2 (1 + 6) / 64; mid-p takes off P(X = 1) = 6/64
    assert found.p == pytest.approx(14 / 64)
    assert found.mid_p == pytest.approx(8 / 64)
    assert (found.first_only, found.second_only) == (1, 5)


def test_mcnemar_without_discordant_pairs_finds_nothing() -> None:
    found = stats.mcnemar([True, False], [True, False])
    assert found is not None
    assert (found.p, found.mid_p) == (1.0, 1.0)


def test_mid_p_of_an_even_split_is_one() -> None:
    found = stats.mcnemar(*flags(0, 4, 4, 0))
    assert found is not None
    assert found.mid_p == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------------------------ multiplicity


def test_holm_by_hand_and_absent_tests_do_not_count() -> None:
    # sorted 0.01, 0.02, 0.03: times 3, 2, 1, made monotone -> 0.03, 0.04, 0.04
    assert stats.holm([0.03, None, 0.01, 0.02]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert stats.holm([None, None]) == [None, None]
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


# --------------------------------------------------------------------------------------------------------- non-inferiority


def test_non_inferior_reads_the_lower_end_against_the_margin() -> None:
    assert stats.non_inferior(Estimate(-0.01, -0.019, 0.0, 100), 0.02) is True
    assert stats.non_inferior(Estimate(-0.01, -0.02, 0.0, 100), 0.02) is False
    assert stats.non_inferior(Estimate(0.0, -0.05, 0.05, 10), 0.02) is False, (
        "no evidence of harm is no evidence of none"
    )
    assert stats.non_inferior(Estimate(0.0, None, None, 1), 0.02) is None
    with pytest.raises(ValueError, match="positive"):
        stats.non_inferior(Estimate(0.0, -0.1, 0.1, 10), 0.0)


# ----------------------------------------------------------------------------------------------------------------- AUROC


def test_auroc_agrees_with_scikit_learn_with_ties() -> None:
    rng = np.random.default_rng(0)
    negative, positive = rng.integers(0, 6, 40), rng.integers(2, 9, 25)
    found = stats.auroc(negative, positive)
    assert found is not None
    expected = roc_auc_score([0] * 40 + [1] * 25, np.concatenate([negative, positive]))
    assert found.value == pytest.approx(expected)
    assert found.n == 65


def test_auroc_interval_solves_its_equation() -> None:
    found = stats.auroc([0.1, 0.4, 0.35, 0.2], [0.8, 0.3, 0.6])
    assert found is not None
    z, m, n = scipy_stats.norm.ppf(0.975), 3, 4
    for theta in (found.low, found.high):
        assert theta is not None
        spread = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        assert abs(theta - found.value) == pytest.approx(
            z * math.sqrt(theta * (1 - theta) * spread / (m * n)), abs=1e-9
        )


def test_auroc_keeps_a_width_at_its_ends() -> None:
    perfect, worst = stats.auroc([0, 1], [2, 3]), stats.auroc([2, 3], [0, 1])
    assert perfect is not None
    assert worst is not None
    assert (perfect.value, perfect.high, worst.value, worst.low) == (1.0, 1.0, 0.0, 0.0)
    assert perfect.low is not None
    assert worst.high is not None
    assert 0 < perfect.low < 1
    assert worst.high == pytest.approx(1 - perfect.low)


# ------------------------------------------------------------------------------------------------------------- bootstrap


def clustered(values: np.ndarray, groups: list[str] | None = None) -> Clustered:
    names = np.array(groups or [f"g{i}" for i in range(len(values))], dtype=object)
    return Clustered(np.stack([values, np.ones(len(values))], axis=1), names)


def test_bootstrap_of_independent_samples_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).random(200)
    found = stats.two_level_bootstrap([clustered(values)], stats.mean_statistic)
    expected = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval
    assert found is not None
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_bootstrap_is_wider_when_samples_come_in_clusters() -> None:
    values = np.repeat([0.0, 1.0] * 10, 10)
    alone = stats.two_level_bootstrap([clustered(values)], stats.mean_statistic)
    together = stats.two_level_bootstrap([clustered(values, [f"m{i // 10}" for i in range(200)])], stats.mean_statistic)
    (a, b), (c, d) = bounds(alone), bounds(together)
    # 20 clusters in place of 200 samples: about sqrt(10) times as wide
    assert (d - c) / (b - a) == pytest.approx(math.sqrt(10), rel=0.2)


def test_three_seeds_on_the_same_inputs_are_not_three_times_the_inputs() -> None:
    values = np.random.default_rng(5).integers(0, 2, 100).astype(float)
    one = stats.two_level_bootstrap([clustered(values)], stats.mean_statistic)
    three = stats.two_level_bootstrap([clustered(values)] * 3, stats.mean_statistic)
    assert bounds(one, 9) == bounds(three, 9)


def test_seeds_are_drawn_again_from_five_on_only() -> None:
    samples = 400
    spread = [clustered(np.full(samples, x)) for x in (0.1, 0.3, 0.5, 0.7, 0.9)]
    four, five = (stats.two_level_bootstrap(spread[:k], stats.mean_statistic) for k in (4, 5))
    assert four is not None
    assert five is not None
    assert four.low == pytest.approx(four.high), "within a seed nothing varies, and four seeds are held fixed"
    low, high = bounds(five)
    assert low < 0.3
    assert high > 0.7


def test_bootstrap_is_the_same_every_time() -> None:
    part = clustered(np.random.default_rng(0).random(50))
    assert stats.two_level_bootstrap([part], stats.mean_statistic) == stats.two_level_bootstrap(
        [part], stats.mean_statistic
    )


def test_f1_statistic_by_hand() -> None:
    sums = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    values = stats.f1_statistic(sums)
    assert values[0] == pytest.approx(6 / 9)
    assert np.isnan(values[1])


def test_an_undefined_statistic_gives_none() -> None:
    part = Clustered(np.zeros((4, 3)), np.array(["a"] * 4, dtype=object))
    assert stats.two_level_bootstrap([part], stats.f1_statistic) is None


# ----------------------------------------------------------------------------------------------------------- signed ranks


def test_fewer_than_six_blocks_give_no_p_value() -> None:
    found = stats.signed_rank([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (found.p, found.reason, found.effect) == (None, "not enough blocks", 1.0)
    assert stats.signed_rank([1, 2, 3, 4, 5, 6]).p == pytest.approx(2 / 64)


@pytest.mark.parametrize("seed", range(4))
def test_signed_rank_agrees_with_scipys_exact_test(seed: int) -> None:
    x = np.random.default_rng(seed).normal(0.4, 1, 6 + 4 * seed)
    assert stats.signed_rank(x).p == pytest.approx(scipy_stats.wilcoxon(x, method="exact").pvalue)


def test_signed_rank_is_exact_under_ties_and_zeros() -> None:
    x = np.array([0.1, -0.1, 0.2, 0.2, 0.2, -0.3, 0.4, 0.0, 0.4])
    kept = x[x != 0]
    ranks = scipy_stats.rankdata(np.abs(kept))
    observed = ranks[kept > 0].sum()
    null = np.array([ranks[list(signs)].sum() for signs in product([False, True], repeat=len(kept))])
    centre = ranks.sum() / 2
    expected = float((np.abs(null - centre) >= abs(observed - centre)).mean())
    found = stats.signed_rank(x)
    assert found.p == pytest.approx(expected)
    assert found.blocks == 9


def test_differences_that_are_equal_on_paper_are_tied() -> None:
    x = [0.3 - 0.2, 0.2 - 0.1, 0.1 - 0.0, -(0.4 - 0.3), 0.5 - 0.4, 0.6 - 0.5]
    assert stats.signed_rank(x).p == pytest.approx(2 * 7 / 64), (
        "six equal differences, one of them negative: a sign test"
    )


def test_no_difference_anywhere_is_p_one() -> None:
    found = stats.signed_rank([0.0] * 7)
    assert (found.p, found.effect, found.blocks) == (1.0, 0.0, 7)


def test_rank_biserial_by_hand() -> None:
    # |x| ranks 1, 2, 3, 4; negative is the 2: (8 - 2) / 10
    assert stats.rank_biserial([1, -2, 3, 4]) == pytest.approx(0.6)


def test_a_nan_difference_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        stats.signed_rank([0.1, float("nan")])


def test_median_interval_is_the_sign_tests() -> None:
    found = stats.median_difference(range(1, 11))
    # n = 10: P(X <= 1) = 11/1024 = 0.0107 <= 0.025 < P(X <= 2) = 0.0547 -> second smallest, second largest
    assert found == Estimate(5.5, 2.0, 9.0, 10)
    assert stats.median_difference([3, 1, 2, 5, 4, 6]) == Estimate(3.5, 1.0, 6.0, 6)
    assert stats.median_difference([1, 2, 3, 4, 5]) == Estimate(3.0, None, None, 5)


def test_win_tie_loss_counts_smaller_as_better() -> None:
    assert stats.win_tie_loss([-0.5, -0.01, 0.0, 0.01, 0.2], 0.01) == stats.WinTieLoss(1, 3, 1)


# ------------------------------------------------------------------------------------------------------- groups and ranks


def test_tie_groups_share_a_letter_exactly_when_not_told_apart() -> None:
    groups = stats.tie_groups(["p", "q", "r"], {("p", "r"): True})
    assert groups == {"p": "a", "q": "ab", "r": "b"}
    assert stats.tie_groups(["p", "q"], {}) == {"p": "a", "q": "a"}
    assert stats.tie_groups([], {}) == {}


@pytest.mark.parametrize("seed", range(5))
def test_tie_groups_hold_for_any_pattern_of_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = list("uvwxyz")
    different = {(a, b): bool(rng.integers(2)) for a, b in product(items, items) if a < b}
    letters = stats.tie_groups(items, different)
    for (a, b), apart in different.items():
        assert (set(letters[a]).isdisjoint(letters[b])) == apart


def test_rank_intervals_of_a_clear_order_are_points() -> None:
    table = np.array([[0.1, 0.2, 0.3]] * 6)
    found = stats.rank_intervals(table)
    assert found is not None
    assert [(r.mean_rank, r.low, r.high) for r in found] == [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (3.0, 3.0, 3.0)]


def test_rank_intervals_of_equals_span_the_places() -> None:
    rng = np.random.default_rng(0)
    found = stats.rank_intervals(rng.random((12, 3)))
    assert found is not None
    assert max(r.high - r.low for r in found) >= 1
    assert found == stats.rank_intervals(np.random.default_rng(0).random((12, 3)))


def test_an_interval_of_places_has_places_at_its_ends_and_is_never_too_narrow() -> None:
    """Ten blocks on which the first of two wins eight times: how often it stands where is a binomial."""
    table = np.array([[0.0, 1.0]] * 8 + [[1.0, 0.0]] * 2)
    found = stats.rank_intervals(table, resamples=41, level=0.9)
    assert found is not None
    drawn = np.random.default_rng(0).integers(10, size=(41, 10))
    wins = np.sort([int((row < 8).sum()) for row in drawn])  # of the first
    places = np.sort(np.where(wins > 5, 1.0, np.where(wins == 5, 1.5, 2.0)))
    assert (found[0].low, found[0].high) == (places[2], places[38]), "5 % and 95 % of 40 steps"
    # With 11 resamples 5 % lies half way between two of them: the outer one is taken.
    few = stats.rank_intervals(np.random.default_rng(3).random((7, 14)), resamples=11, level=0.9)
    assert few is not None
    assert all((2 * end).is_integer() for one in few for end in (one.low, one.high))
    drawn = np.random.default_rng(0).integers(7, size=(11, 7))
    ranks = np.argsort(np.argsort(np.random.default_rng(3).random((7, 14)), axis=1), axis=1) + 1
    ordered = np.sort(scipy_stats.rankdata(np.round(ranks[drawn].mean(axis=1), 12), axis=1), axis=0)
    assert [(one.low, one.high) for one in few] == list(zip(ordered[0], ordered[10], strict=True))


def test_a_mean_rank_and_a_place_have_intervals_of_their_own() -> None:
    """Among 20 one is always second behind somebody else: a mean rank of 2, and nobody's is better. Another is best or last."""
    rows = [[1.5, *np.random.default_rng(i).permutation(19) + 1.0] for i in range(9)]
    second = stats.rank_intervals(rows)
    assert second is not None
    one = second[0]
    assert (one.mean_rank, one.mean_low, one.mean_high, one.low, one.high) == (2.0, 2.0, 2.0, 1.0, 1.0)
    extremes = [[0.0 if i < 6 else 99.0, *row[1:]] for i, row in enumerate(rows)]
    found = stats.rank_intervals(extremes)
    assert found is not None
    assert found[0].mean_rank == pytest.approx((6 + 3 * 20) / 9)
    # Of nine blocks drawn again a third are bad: none of them in 2.6 % of the draws, more than six in 0.8 %.
    assert (found[0].mean_low, found[0].mean_high) == (1.0, pytest.approx((3 + 6 * 20) / 9))
    assert all(one.mean_low <= one.mean_rank <= one.mean_high for one in [*found, *second])


def test_ranks_need_enough_and_complete_blocks() -> None:
    assert stats.rank_intervals(np.zeros((5, 2))) is None
    with pytest.raises(ValueError, match="complete"):
        stats.rank_intervals([[0.1, float("nan")]] * 6)
