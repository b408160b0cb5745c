"""A verdict convicts clean models at the stated rate whatever they look like, and names the planted direction."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.verdicts import clean_models_needed, judge, naive_claim

ALPHA = 0.1


def models(table: NDArray[np.float64] | list[list[float]]) -> list[dict[str, float]]:
    """One mapping a row; claims are a, b, …"""
    return [{"abcdefgh"[i]: float(value) for i, value in enumerate(row)} for row in table]


# ----------------------------------------------------------------------------------------------------------- known answers


def test_a_suspicion_is_standardised_against_the_clean_models_alone() -> None:
    verdict = judge({"a": 5.0, "b": 0.0}, models([[1, 0], [2, 1], [3, 2]]), ALPHA)
    assert dict(verdict.standardised) == {"a": pytest.approx((5 - 2) / 1), "b": pytest.approx((0 - 1) / 1)}
    assert (verdict.score, verdict.claim) == (pytest.approx(3.0), "a")


def test_one_claim_gives_the_rank_of_the_victim() -> None:
    clean = models([[x] for x in range(1, 20)])  # 1 … 19
    for value, not_below in ((19.5, 0), (18.5, 1), (10.5, 9), (0.0, 19)):
        assert judge({"a": value}, clean, ALPHA).p == pytest.approx((1 + not_below) / 20)
    assert judge({"a": 18.5}, clean, ALPHA).convicted is True  # p = 0.1 is at most 0.1
    assert judge({"a": 17.5}, clean, ALPHA).convicted is False


def test_a_victim_equal_to_a_clean_model_is_not_above_it() -> None:
    clean = models([[x] for x in range(1, 20)])
    assert judge({"a": 19.0}, clean, ALPHA).p == pytest.approx(2 / 20)


def test_a_claim_that_is_always_suspicious_convicts_nobody() -> None:
    # Claim a is natural: it inverts well on every model. What stands out is claim b of the victim.
    clean = models([[9.0 + x / 10, 0.0 + x / 10] for x in range(9)])
    assert judge({"a": 9.4, "b": 0.4}, clean, ALPHA).convicted is False
    planted = judge({"a": 9.4, "b": 3.0}, clean, ALPHA)
    assert (planted.convicted, planted.claim, planted.p) == (True, "b", pytest.approx(0.1))
    assert naive_claim({"a": -9.4, "b": -3.0}) == "a"


@pytest.mark.parametrize(("rate", "needed"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.07, 14), (0.3, 3), (0.5, 2), (0.9, 2)])
def test_a_verdict_needs_enough_clean_models(rate: float, needed: int) -> None:
    assert clean_models_needed(rate) == needed
    assert needed == 2 or 1 / needed > rate
    clean = models([[float(x)] for x in range(needed)])
    assert judge({"a": 99.0}, clean, rate).convicted is True
    few = judge({"a": 99.0}, clean[:-1], rate)
    assert (few.p, few.convicted) == (None, None)
    assert few.reason == f"not calibrated: {needed - 1} clean model{'s' * (needed != 2)}, needs {needed}"


def test_below_two_clean_models_there_is_no_score_and_from_two_there_is() -> None:
    assert judge({"a": 1.0}, models([[0]]), ALPHA).score is None
    assert judge({"a": 1.0}, [], ALPHA).reason == "not calibrated: 0 clean models, needs 9"
    assert judge({"a": 3.0}, models([[0], [2]]), ALPHA).score == pytest.approx(2 / math.sqrt(2))


def test_equal_clean_models_neither_divide_by_zero_nor_convict_by_rounding() -> None:
    clean = models([[0.3]] * 9)
    assert judge({"a": 0.3}, clean, ALPHA).p == 1.0
    for nearly in (0.1 + 0.2, float(np.float32(0.3)), np.nextafter(0.3, 1)):
        assert judge({"a": nearly}, clean, ALPHA).p == 1.0
    assert judge({"a": 0.31}, clean, ALPHA).p == pytest.approx(0.1)
    zero = judge({"a": 0.0}, models([[0.0]] * 9), ALPHA)
    assert (zero.p, zero.score) == (1.0, 0.0)


def test_ties_are_ties_whatever_the_order_of_the_sums() -> None:
    values = [0.1, 0.7, 0.1, 0.7, 0.3, 0.7, 0.1, 0.7, 0.3]
    for order in (values, sorted(values), sorted(values, reverse=True)):
        assert judge({"a": 0.7}, models([[x] for x in order]), ALPHA).p == pytest.approx((1 + 4) / 10)


def test_claims_that_some_model_lacks_are_not_compared() -> None:
    clean = [*models([[float(x), 0.0] for x in range(8)]), {"a": 8.0}]
    verdict = judge({"a": 4.0, "b": 99.0, "c": 99.0}, clean, ALPHA)
    assert set(verdict.standardised) == {"a"}
    assert verdict.convicted is False
    nothing = judge({"z": 1.0}, clean, ALPHA)
    assert (nothing.score, nothing.p) == (None, None)
    assert nothing.reason == "no claim was inverted on the victim and on every clean model"


def test_two_claims_that_stand_out_alike_name_none() -> None:
    clean = models([[x, x] for x in range(9)])
    verdict = judge({"a": 20.0, "b": 20.0}, clean, ALPHA)
    assert (verdict.convicted, verdict.claim) == (True, None)


def test_the_naive_verdict_names_the_smallest_loss() -> None:
    assert naive_claim({"0->1": 0.5, "1->0": 0.4}) == "1->0"
    assert naive_claim({"0->1": 0.5, "1->0": 0.5}) is None
    assert naive_claim({}) is None


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        judge({"a": math.nan}, models([[0.0]] * 9), ALPHA)
    for rate in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            judge({"a": 1.0}, [], rate)


# -------------------------------------------------------------------------------------------------------------- simulation

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy-tailed": lambda rng, shape: rng.standard_cauchy(size=shape),
    "discrete": lambda rng, shape: rng.integers(3, size=shape).astype(float),
    "nearly constant": lambda rng, shape: (rng.random(size=shape) < 0.02).astype(float),
    "claims of one model go together": lambda rng, shape: rng.normal(size=(shape[0], 1)) + 0.1 * rng.normal(size=shape),
}
TRIALS = 1500


@pytest.mark.parametrize("clean", [9, 14])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_models_drawn_alike_are_convicted_at_most_at_the_stated_rate(name: str, clean: int) -> None:
    rng = np.random.default_rng([len(name), clean])
    convicted = 0
    for _ in range(TRIALS):
        victim, *others = models(DISTRIBUTIONS[name](rng, (clean + 1, 4)))
        convicted += judge(victim, others, ALPHA).convicted is True
    assert convicted / TRIALS <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / TRIALS)


def test_where_nothing_ties_the_rate_is_met_and_not_only_kept() -> None:
    rng = np.random.default_rng(1)
    share = np.mean([judge(*_split(rng.normal(size=(10, 4))), ALPHA).convicted is True for _ in range(TRIALS)])
    assert share == pytest.approx(ALPHA, abs=3 * math.sqrt(ALPHA * (1 - ALPHA) / TRIALS))


def _split(table: NDArray[np.float64]) -> tuple[dict[str, float], list[dict[str, float]]]:
    victim, *clean = models(table)
    return victim, clean


def test_a_planted_claim_is_convicted_and_named() -> None:
    rng = np.random.default_rng(2)
    right = 0
    for _ in range(300):
        table = rng.normal(size=(10, 4)) * [1.0, 5.0, 0.1, 1.0]
        table[0, 2] += 1.0  # ten standard deviations of the quietest claim, well below the loudest one's noise
        verdict = judge(*_split(table), ALPHA)
        right += verdict.convicted is True and verdict.claim == "c"
    assert right / 300 > 0.95
