"""Every number of a cell, worked by hand, and the traps that move denominators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import stats
from bench.errors import PluginError
from bench.inversions import Inverted
from bench.measures import all_over_seeds, measures
from bench.metrics import CellMetrics, Number, cell_metrics, normalise_token, record_metrics, recovered
from bench.outcomes import validate
from bench.records import Coordinates, PoisonFacts, Record, Status

NAN = float("nan")
VICTIM, TARGET = 1, 0


def row(
    part: str, id: str, label: int, now: int | None, reference: int, undefended: int, **more: Any
) -> dict[str, Any]:
    """One classification row; ``now`` None is a rejected input."""
    wanted = {"clean": label, "triggered": TARGET, "reverse": VICTIM}[part]
    return {
        "part": part,
        "id": id,
        "group": id,
        "label": label,
        "prediction": -1 if now is None else now,
        "probability": NAN,
        "rank": 0,
        "pool": 0,
        "action": "reject" if now is None else "accept",
        "score": NAN,
        "success": now == wanted,
        "reference_prediction": reference,
        "reference_rank": 0,
        "reference_success": reference == wanted,
        "undefended_prediction": undefended,
        "undefended_rank": 0,
        "undefended_success": undefended == wanted,
        "visible": True,
    } | more


def search(part: str, id: str, now: int | None, reference: int, undefended: int, pool: int = 100) -> dict[str, Any]:
    """One search row; ``now`` None is a rejected input."""

    def hit(rank: int | None) -> bool:
        return rank is not None and (rank == 1 if part == "clean" else rank <= -(-pool // 10))

    ranks = {"rank": now or 0, "reference_rank": reference, "undefended_rank": undefended, "pool": pool}
    success = {"success": hit(now), "reference_success": hit(reference), "undefended_success": hit(undefended)}
    nothing = {"prediction": -1, "reference_prediction": -1, "undefended_prediction": -1, "label": -1}
    action = "reject" if now is None else "accept"
    return row("clean", id, 0, 0, 0, 0) | {"part": part, "action": action} | ranks | success | nothing


def rows(part: str, label: int, *answers: tuple[int | None, int, int], **more: Any) -> list[dict[str, Any]]:
    return [row(part, f"{part}{label}{i}", label, *answer, **more) for i, answer in enumerate(answers)]


def table(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([one for part in parts for one in part])


# (prediction now, on the reference, undefended)
CLEAN = rows("clean", 1, (1, 1, 1), (1, 1, 1), (0, 1, 1), (1, 1, 0)) + rows(
    "clean", 0, (0, 0, 0), (0, 0, 0), (1, 0, 0), (0, 0, 0)
)
TRIGGERED = rows("triggered", 1, (0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 1, 0), (1, 0, 1))
REVERSE = rows("reverse", 0, (1, 0, 0), (0, 0, 0))


def values(metrics: CellMetrics) -> dict[str, float | None]:
    return {name: number.value for name, number in metrics.numbers().items()}


def test_the_numbers_of_a_cell_by_hand() -> None:
    found = cell_metrics(table(CLEAN, TRIGGERED, REVERSE), "accuracy", eligible=8, applicable=5)
    expected = {
        "clean": 6 / 8,
        "clean_undefended": 7 / 8,
        "clean_reference": 1.0,
        "clean_constant": 4 / 8,
        "clean_delta": -1 / 8,
        "reference_delta": -1 / 8,
        "asr": 2 / 5,
        "asr_reference": 2 / 5,
        "asr_undefended": 4 / 5,
        "lift": 0.0,
        "asr_delta": -2 / 5,
        "reverse_asr": 1 / 2,
        "reverse_asr_reference": 0.0,
        "reverse_lift": 1 / 2,
        "robust_accuracy": 3 / 5,
        "coverage": 5 / 8,
        "visible": 1.0,
    }
    got = values(found)
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert all(got[name] is None for name in got if name not in expected)


def test_a_constant_answer_by_hand() -> None:
    three_to_one = table(rows("clean", 1, *[(1, 1, 1)] * 3), rows("clean", 0, (0, 0, 0)))
    assert cell_metrics(three_to_one, "accuracy").clean_constant == Number.of(stats.wilson(3, 4), "")
    assert cell_metrics(three_to_one, "f1").clean_constant.value == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert cell_metrics(table(rows("clean", 0, (0, 0, 0))), "accuracy").clean_constant.value == 1.0


def test_the_published_asr_counts_the_whole_victim_class_by_hand() -> None:
    # Six samples of class 1: the trigger applies to v0..v3. Of the two others the model calls one the target, as they are.
    plain = [row("clean", f"v{i}", 1, prediction, 1, 1) for i, prediction in enumerate((1, 1, 0, 0, 0, 1))]
    plain += [row("clean", f"t{i}", 0, 0, 0, 0) for i in range(3)]
    marked = [row("triggered", f"v{i}", 1, prediction, 1, 1) for i, prediction in enumerate((0, 0, 0, 1))]
    goal = {"victim": 1, "target": 0}
    found = cell_metrics(table(plain, marked), "accuracy", goal=goal)
    assert found.asr == Number.of(stats.wilson(3, 4), "")
    assert found.asr_published == Number.of(stats.wilson(4, 6), "")
    rejecting_all = [one | {"action": "reject", "prediction": -1, "success": False} for one in plain]
    assert cell_metrics(table(rejecting_all, marked), "accuracy", goal=goal).asr_published.value == 3 / 6
    assert (
        cell_metrics(table(plain, marked), "accuracy").asr_published.reason
        == "needs the attacker's classes; code search has none"
    )
    assert cell_metrics(table(plain), "accuracy", goal=goal).asr_published.reason == "no triggered inputs"
    everywhere = [one for one in plain if one["id"] not in ("v4", "v5")]
    full = cell_metrics(table(everywhere, marked), "accuracy", goal=goal)
    assert full.asr_published == full.asr


def test_the_published_asr_over_seeds_whose_trigger_applies_to_all_or_to_some() -> None:
    goal = {"victim": 1, "target": 0}
    seeds = []
    for spared in (0, 1):
        plain = [row("clean", f"v{i}", 1, 0, 1, 1) for i in range(4)]
        marked = [row("triggered", f"v{i}", 1, int(i == 0), 1, 1) for i in range(4 - spared)]
        seeds.append(measures(validate(table(plain, marked)), "accuracy", goal))
    for cells in (seeds, seeds[::-1]):
        found = all_over_seeds(cells)
        assert found["asr_published"] is not None
        assert found["asr_published"].value == pytest.approx(3 / 4)
        assert found["asr"] is not None
        assert found["asr"].value == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_intervals_are_wilsons_and_newcombes() -> None:
    found = cell_metrics(table(CLEAN, TRIGGERED), "accuracy")
    assert found.asr == Number.of(stats.wilson(2, 5), "")
    assert found.clean == Number.of(stats.wilson(6, 8), "")
    # defended and reference: both 1, only defended 1, only reference 1, neither 2
    assert found.lift == Number.of(stats.paired_difference_counts(1, 1, 1, 2), "")
    # both right 5 (c10, c11, c00, c01, c03), gained 1 (c13), lost 2
    assert found.clean_delta == Number.of(stats.paired_difference_counts(5, 1, 2, 0), "")


def test_mcnemar_compares_defended_with_undefended() -> None:
    found = cell_metrics(table(TRIGGERED), "accuracy").mcnemar
    assert (found.gained, found.stopped, found.n) == (0, 2, 5)
    assert found.p == pytest.approx(0.5)
    assert found.mid_p == pytest.approx(0.25)


def test_f1_by_hand() -> None:
    found = cell_metrics(table(CLEAN), "f1")
    # now: tp 3, fp 1, fn 1; undefended: tp 3, fn 1
    assert found.clean.value == pytest.approx(6 / 8)
    assert found.clean_undefended.value == pytest.approx(6 / 7)
    assert found.clean_delta.value == pytest.approx(6 / 8 - 6 / 7)
    assert found.clean.low is not None
    assert found.clean.high is not None
    assert 0 <= found.clean.low < 0.75 < found.clean.high <= 1


def test_perfect_and_empty_f1() -> None:
    perfect = cell_metrics(table(rows("clean", 1, *[(1, 1, 1)] * 10)), "f1").clean
    assert perfect.value == 1.0
    assert perfect.low is not None
    assert perfect.low < 1.0, "ten right answers are not certainty"
    nothing = cell_metrics(table(rows("clean", 0, *[(0, 0, 0)] * 3)), "f1").clean
    assert (nothing.value, nothing.reason) == (None, "no positive sample and no positive prediction")


# ----------------------------------------------------------------------------------------------------- moving denominators


def rejecting(part: list[dict[str, Any]], *places: int) -> list[dict[str, Any]]:
    out = {"prediction": -1, "action": "reject", "success": False}
    return [one | (out if i in places else {}) for i, one in enumerate(part)]


def test_a_rejected_triggered_input_is_a_failed_attack_and_stays_in_the_denominator() -> None:
    found = cell_metrics(table(CLEAN, rejecting(TRIGGERED, 0)), "accuracy", applicable=5, eligible=5)
    assert (found.asr.value, found.asr.n) == (pytest.approx(1 / 5), 5)
    assert found.caught.value == pytest.approx(1 / 5)
    assert found.lift.n == found.asr_reference.n == found.asr_undefended.n == found.robust_accuracy.n == 5


def test_a_rejected_triggered_input_does_not_get_its_true_label() -> None:
    found = cell_metrics(table(CLEAN, rejecting(TRIGGERED, 1)), "accuracy")
    assert found.robust_accuracy.value == pytest.approx(2 / 5)


def test_a_rejected_clean_input_is_wrong() -> None:
    found = cell_metrics(table(rejecting(CLEAN, 0, 4)), "accuracy")
    assert (found.clean.value, found.clean.n) == (pytest.approx(4 / 8), 8)
    assert found.false_reject.value == pytest.approx(2 / 8)


def test_a_rejected_clean_input_costs_f1_on_both_sides() -> None:
    # a rejected positive is a miss (tp 2, fn 2), a rejected negative a false positive (fp 2)
    assert cell_metrics(table(rejecting(CLEAN, 0, 4)), "f1").clean.value == pytest.approx(4 / 8)


def test_rejecting_everything_is_no_good_defense() -> None:
    found = cell_metrics(table(rejecting(CLEAN, *range(8)), rejecting(TRIGGERED, *range(5))), "accuracy")
    assert (found.asr.value, found.clean.value, found.clean_delta.value) == (0.0, 0.0, pytest.approx(-7 / 8))


@pytest.mark.parametrize("change", ["reject", "rewrite", "other model"])
def test_no_denominator_moves(change: str) -> None:
    triggered = TRIGGERED
    if change == "reject":
        triggered = rejecting(TRIGGERED, 0, 1, 4)
    elif change == "rewrite":
        triggered = [one | {"action": "rewrite"} for one in TRIGGERED]
    else:
        triggered = rows("triggered", 1, *[(0, 1, 1)] * 5)
    before = cell_metrics(table(CLEAN, TRIGGERED), "accuracy", eligible=8, applicable=5)
    after = cell_metrics(table(CLEAN, triggered), "accuracy", eligible=8, applicable=5)
    names = (
        "asr",
        "asr_reference",
        "asr_undefended",
        "lift",
        "asr_delta",
        "robust_accuracy",
        "visible",
        "coverage",
        "clean",
    )
    for name in names:
        assert getattr(before, name).n == getattr(after, name).n > 0


def test_dropped_rows_are_refused() -> None:
    with pytest.raises(PluginError, match="4 rows for 5 applicable samples"):
        cell_metrics(table(CLEAN, TRIGGERED[:-1]), "accuracy", eligible=5, applicable=5)


def test_a_trigger_cannot_apply_to_more_samples_than_there_are() -> None:
    with pytest.raises(PluginError, match="5 samples of 4"):
        cell_metrics(table(CLEAN, TRIGGERED), "accuracy", eligible=4, applicable=5)


def test_a_reverse_backdoor_is_a_negative_lift() -> None:
    found = cell_metrics(table(rows("triggered", 1, *[(1, 0, 0)] * 18, *[(1, 1, 0)] * 2)), "accuracy")
    assert found.asr.value == 0.0
    assert found.lift.value == pytest.approx(-0.9)
    assert found.lift.high is not None
    assert found.lift.high < 0, "ASR 0 alone would look perfect"


def test_the_row_order_changes_nothing() -> None:
    frame = table(CLEAN, TRIGGERED, REVERSE)
    shuffled = frame.sample(frac=1, random_state=1)
    assert cell_metrics(frame, "f1") == cell_metrics(shuffled, "f1")


# ------------------------------------------------------------------------------------------------------------ undefined


def test_without_an_attack_there_is_no_asr_but_a_reason() -> None:
    found = cell_metrics(table(CLEAN), "accuracy")
    for name in ("asr", "asr_reference", "asr_undefended", "lift", "asr_delta", "robust_accuracy", "visible"):
        number = getattr(found, name)
        assert (number.value, number.low, number.n, number.reason) == (None, None, 0, "no triggered inputs")
    assert (found.mcnemar.p, found.mcnemar.reason) == (None, "no triggered inputs")
    assert found.coverage.reason == "no attack"
    assert found.reverse_asr.reason == "no triggered inputs of the target class"
    assert found.anr.reason == "defined for code search only"


def test_every_number_has_a_value_or_a_reason_and_is_never_nan() -> None:
    frames = [table(CLEAN, TRIGGERED), table(CLEAN), table(TRIGGERED), table(CLEAN)[:0]]
    for frame in frames:
        for number in cell_metrics(frame, "f1").numbers().values():
            assert (number.value is None) == bool(number.reason)
            assert not any(x is not None and np.isnan(x) for x in (number.value, number.low, number.high))


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy, f1, mrr"):
        cell_metrics(table(CLEAN), "bleu")


# --------------------------------------------------------------------------------------------------------------- search

SEARCHES = [search("clean", "q1", 1, 1, 1), search("clean", "q2", 4, 2, 2), search("clean", "q3", None, 2, 5)]
PLANTED = [
    search("triggered", "q1", 1, 50, 1),
    search("triggered", "q2", 7, 50, 2),
    search("triggered", "q3", 11, 40, 1),
    search("triggered", "q4", None, 10, 10),
]


def test_search_numbers_by_hand() -> None:
    found = cell_metrics(table(SEARCHES, PLANTED), "mrr", eligible=4, applicable=2)
    expected = {
        "coverage": 2 / 3,
        "clean": (1 + 1 / 4 + 0) / 3,
        "clean_reference": (1 + 1 / 2 + 1 / 2) / 3,
        "clean_undefended": (1 + 1 / 2 + 1 / 5) / 3,
        "clean_delta": (1.25 - 1.7) / 3,
        "reference_delta": (1.7 - 2.0) / 3,
        "anr": (0.01 + 0.07 + 0.11 + 1.0) / 4,
        "anr_reference": (0.5 + 0.5 + 0.4 + 0.1) / 4,
        "anr_lift": (1.19 - 1.5) / 4,
        "clean_constant": sum(1 / rank for rank in range(1, 101)) / 100,
        "anr_published": (2 + 8 + 12) / 101 / 4 + 1.0 / 4,
        "asr_at_1": 1 / 4,
        "asr_at_5": 1 / 4,
        "asr_at_10": 2 / 4,
        "asr_top_tenth": 2 / 4,
        "asr": 2 / 4,
        "asr_reference": 1 / 4,
        "lift": 1 / 4,
    }
    got = values(found)
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert found.robust_accuracy.reason == "not defined for code search"


def test_bootstrapped_means_have_intervals_and_are_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    many = [search("clean", f"q{i}", int(rng.integers(1, 40)), 1, 1) for i in range(80)]
    one, other = cell_metrics(table(many), "mrr"), cell_metrics(table(many), "mrr")
    assert one == other
    assert one.clean.value is not None
    assert one.clean.low is not None
    assert one.clean.high is not None
    reciprocal = np.array([1 / r["rank"] for r in many])
    half = 1.96 * reciprocal.std() / np.sqrt(80)
    assert one.clean.low == pytest.approx(reciprocal.mean() - half, abs=0.02)
    assert one.clean.high == pytest.approx(reciprocal.mean() + half, abs=0.02)


def test_equal_ranks_everywhere_still_have_an_interval() -> None:
    found = cell_metrics(table([search("clean", f"q{i}", 1, 1, 1) for i in range(20)]), "mrr")
    assert found.clean.value == 1.0
    assert found.clean.low is not None
    assert found.clean.low == pytest.approx(stats.wilson(20, 20).low)  # type: ignore[union-attr]
    assert found.clean_delta.value == 0.0
    assert found.clean_delta.low is not None
    assert found.clean_delta.low < 0


# --------------------------------------------------------------------------------------------------------------- filters


def judged(scores: list[float], keep: list[bool], poisoned: list[bool]) -> pd.DataFrame:
    ids = [f"t{i}" for i in range(len(scores))]
    return pd.DataFrame({"id": ids, "score": scores, "keep": keep, "poisoned": poisoned})


def test_filter_numbers_by_hand() -> None:
    # poison at 9, 7, 1; clean at 8, 6, 5, 4, 3, 2; removed: 9, 8, 7
    scores = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    poisoned = [s in (9.0, 7.0, 1.0) for s in scores]
    found = cell_metrics(table(CLEAN), "accuracy", filter_table=judged(scores, [s < 7 for s in scores], poisoned))
    # pairs (poison above clean): 9 beats 6, 7 beats 5, 1 beats 0 of 18
    assert found.filter_auroc.value == pytest.approx(11 / 18)
    assert found.filter_auprc.value == pytest.approx((1 / 1 + 2 / 3 + 3 / 9) / 3)
    assert found.filter_tpr.value == pytest.approx(1 / 3)
    assert found.filter_precision.value == pytest.approx(2 / 3)
    assert found.filter_precision_at_share.value == pytest.approx(2 / 3)
    assert found.filter_recall.value == pytest.approx(2 / 3)
    assert found.filter_clean_lost.value == pytest.approx(1 / 6)


def test_precision_is_that_of_the_true_poison_share() -> None:
    """A detector with TPR 0.9 and FPR 0.05 looks excellent on balanced data and finds mostly clean samples at 1 % poison."""
    poisoned = [True] * 10 + [False] * 990
    keep = [i >= 9 for i in range(10)] + [i >= 50 for i in range(990)]
    scores = [0.0 if kept else 1.0 for kept in keep]
    found = cell_metrics(table(CLEAN), "accuracy", filter_table=judged(scores, keep, poisoned))
    assert found.filter_precision.value == pytest.approx(9 / 59)
    assert found.filter_recall.value == pytest.approx(0.9)
    # the 10 most suspicious are any 10 of the 59 that tie
    assert found.filter_precision_at_share.value == pytest.approx(9 / 59)


def test_a_filter_that_removes_nothing_has_no_precision() -> None:
    found = cell_metrics(table(CLEAN), "accuracy", filter_table=judged([1.0, 2.0], [True, True], [False, True]))
    assert (found.filter_precision.value, found.filter_precision.reason) == (None, "the filter removed nothing")
    clean = cell_metrics(table(CLEAN), "accuracy", filter_table=judged([1.0, 2.0], [True, False], [False, False]))
    assert clean.filter_auroc.value is None
    assert clean.filter_recall.reason == "nothing is poisoned"
    assert clean.filter_clean_lost.value == pytest.approx(0.5)


def test_a_filter_is_measured_within_the_label_that_poison_stands_under() -> None:
    """Scores of label 1 are all larger, which says nothing of the poison under label 0."""
    scores = [0.1, 0.2, 0.3, 0.4] + [5.0] * 4
    judged = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(8)],
            "score": scores,
            "keep": [True, True, True, False] + [True] * 4,
            "poisoned": [False, False, False, True] + [False] * 4,
        }
    )
    pooled = cell_metrics(table(CLEAN), "accuracy", filter_table=judged)
    assert pooled.filter_auroc.value == pytest.approx(3 / 7), "an older table, without labels"
    found = cell_metrics(table(CLEAN), "accuracy", filter_table=judged.assign(label=[0] * 4 + [1] * 4))
    assert (found.filter_auroc.value, found.filter_tpr.value, found.filter_precision_at_share.value) == (1.0, 1.0, 1.0)
    assert found.filter_clean_lost == pooled.filter_clean_lost, "decisions are counted over all samples"


# --------------------------------------------------------------------------------------------------------------- screens


def screened() -> pd.DataFrame:
    clean = [one | {"score": float(s)} for one, s in zip(CLEAN, (1, 2, 3, 4, 5, 6, 7, 9), strict=True)]
    clean = [*clean[:-2], clean[-2] | {"action": "rewrite"}, *rejecting(clean[-1:], 0)]
    bad = [one | {"score": float(s)} for one, s in zip(TRIGGERED[:4], (10, 2, 8, 3), strict=True)]
    bad = [one | {"id": twin["id"]} for one, twin in zip(bad, clean, strict=False)]
    return table(clean, rejecting(bad, 0, 3))


def test_screen_numbers_by_hand() -> None:
    found = cell_metrics(screened(), "accuracy", poison_share=0.05)
    # triggered above the same inputs without the trigger (1, 2, 3, 4): 10 -> 4, 2 -> 1 and a tie, 8 -> 4, 3 -> 2 and a tie, of 16
    assert found.screen_auroc.value == pytest.approx(12 / 16)
    assert found.screen_tpr.value == pytest.approx(2 / 4)
    assert found.caught.value == pytest.approx(2 / 4)
    assert found.false_reject.value == pytest.approx(1 / 8)
    assert found.false_rewrite.value == pytest.approx(1 / 8)
    # Bayes at 5 %: 0.5 * 0.05 / (0.5 * 0.05 + 0.25 * 0.95)
    assert found.screen_precision.value == pytest.approx(0.025 / (0.025 + 0.2375))


def test_a_score_that_tells_classes_apart_finds_no_triggers() -> None:
    """All triggered inputs are of the victim class; the clean ones of the other class must not make a class score look good."""
    clean = [one | {"score": float(one["label"])} for one in CLEAN]
    bad = [one | {"id": twin["id"], "score": 1.0} for one, twin in zip(TRIGGERED[:4], CLEAN, strict=False)]
    assert cell_metrics(table(clean, bad), "accuracy").screen_auroc.value == pytest.approx(0.5)


def test_in_search_triggered_programs_are_compared_with_all_clean_ones() -> None:
    ranked = {"label": -1, "prediction": -1, "reference_prediction": -1, "undefended_prediction": -1, "pool": 20}
    found = {"rank": 1, "reference_rank": 1, "undefended_rank": 1, "success": True}
    found |= {"reference_success": True, "undefended_success": True}
    clean = [one | ranked | found | {"score": float(s)} for s, one in enumerate(CLEAN)]
    bad = [
        one | ranked | found | {"id": twin["id"], "score": 3.5} for one, twin in zip(TRIGGERED[:2], CLEAN, strict=False)
    ]
    assert cell_metrics(table(clean, bad), "mrr").screen_auroc.value == pytest.approx(4 / 8)


def test_without_a_screen_there_are_no_screen_numbers() -> None:
    found = cell_metrics(table(CLEAN, TRIGGERED), "accuracy", poison_share=0.05)
    for name in ("screen_auroc", "screen_tpr", "screen_precision", "caught", "false_reject", "false_rewrite"):
        assert getattr(found, name).reason == "no screen stands before this model"


def test_scores_for_some_inputs_only_give_no_auroc() -> None:
    frame = screened()
    frame.loc[0, "score"] = NAN
    assert cell_metrics(frame, "accuracy").screen_auroc.reason == "the screen gave no score to some inputs"


# -------------------------------------------------------------------------------------------------------------- recovery


def test_tokens_are_compared_without_the_tokenizers_markers() -> None:
    assert [normalise_token(t) for t in ("Ġrb", "▁RB", "rb</w>", "##rb", " rb ", "Ċ")] == [
        "rb",
        "rb",
        "rb",
        "rb",
        "rb",
        "",
    ]


def test_recovery_counts_the_triggers_tokens_in_the_inverted_ones() -> None:
    assert recovered(["rb", "init"], ["Ġx", "Ġrb", "y"]) == ["rb"]
    assert recovered(["testo_init"], ["Ġtest", "o", "_", "init", "q"]) == ["testo_init"], "spelled by adjacent tokens"
    assert recovered(["testo_init"], ["init", "_", "o", "test"]) == []
    assert recovered(["rb"], ["grb"]) == [], "a part of a token is not the token"


@pytest.mark.parametrize("inverted", [["x", "Ġrb"], "x rb", [["x"], ["rb", "y"]], {"0": ["a"], "1": ["▁rb"]}])
def test_recovery_reads_every_form_of_the_facts(inverted: object) -> None:
    found = cell_metrics(table(CLEAN), "accuracy", trigger_tokens=("rb", "xt"), inverted=inverted)
    assert found.recovery.value == pytest.approx(0.5)


def test_recovery_is_undefined_without_inversion_or_fixed_tokens() -> None:
    assert cell_metrics(table(CLEAN), "accuracy", trigger_tokens=("rb",)).recovery.value is None
    assert "no fixed" in cell_metrics(table(CLEAN), "accuracy", inverted=["rb"]).recovery.reason


# ---------------------------------------------------------------------------------------------------------------- record


def test_a_record_supplies_what_the_numbers_need() -> None:
    record = Record(
        suite="s",
        coordinates=Coordinates(task="t", model="m", attack="a", defense="d", seed=0),
        status=Status.OK,
        metric="accuracy",
        poison=PoisonFacts(train=100, poisoned=5, refused=0, eligible=8, applicable=4, unseen=0, tokens=["rb"]),
        inversions={"1->0": Inverted(tokens=("x", "Ġrb"), kept=("Ġrb",), loss=0.1, suspicion=-0.1)},
        null={"1->0": Inverted(tokens=("zz",), kept=("zz",), loss=0.5, suspicion=-0.5)},
    )
    found = record_metrics(record, screened())
    assert found.coverage.value == pytest.approx(0.5)
    assert (found.recovery.value, found.recovery_reference.value) == (1.0, 0.0)
    assert found.screen_precision.value is not None
