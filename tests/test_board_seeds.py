"""A mean over seeds must not speak for seeds that differ: where a backdoor is, which seeds are compared, which way they point."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from bench.board import Board, build_board, to_csv, to_findings, to_json, to_markdown
from bench.board.attack_rows import _paired
from bench.board.table import Loader, Row
from bench.measures import Measure, Sort, over_seeds
from bench.records import ControlFacts, Record, Status
from bench.stats import Clustered, student_half_width
from tests.test_board import outcomes, record

UNDEFENDED = {0: 27, 1: 6, 2: 24}
"""Successes of 30 by seed, where the reference has 6: at seed 1 nothing is planted."""


def loader(hits: Mapping[str, Mapping[int, int]]) -> Loader:
    def load(r: Record) -> tuple[pd.DataFrame, None]:
        at = r.coordinates
        if at.attack == "none":
            return outcomes(51, None), None
        before = UNDEFENDED[at.seed]
        table = outcomes(51, before if at.defense == "none" else hits[at.defense][at.seed])
        rows = (table["part"] == "triggered").to_numpy()
        success = np.arange(rows.sum()) < before
        table.loc[rows, "undefended_success"] = success
        table.loc[rows, "undefended_prediction"] = np.where(success, 0, 1)
        return table, None

    return load


def board(hits: Mapping[str, Mapping[int, int]]) -> Board:
    records = [record(defense, seed=seed) for defense, found in hits.items() for seed in found]
    return build_board([*records, *(record("none", seed=seed) for seed in UNDEFENDED)], loader(hits))


def judged(found: Board, defense: str) -> Row:
    return next(row for row in found.judged if row.defense == defense)


def test_each_seed_is_on_the_row_in_the_csv_and_in_the_implantation_table() -> None:
    found = board({})
    (row,) = found.rows
    assert [round(30 * (one.lift.value or 0)) for one in row.each] == [21, 0, 18]
    assert row.implanted_seeds == (0, 2)
    assert [one.asr_delta for one in row.each] == [None] * 3
    page = to_markdown(found)
    assert "at 2 of 3 seeds" in page
    assert "+70.0, 0.0, +60.0" in page.replace("+0.0", "0.0")
    assert "0.7 0 0.6" in to_csv(found)
    assert Board.model_validate_json(to_json(found)) == found


def test_a_defense_is_judged_on_the_seeds_that_have_a_backdoor() -> None:
    """It does nothing where there is one, and plants one where there is none: over all seeds that would look like a loss alone."""
    found = board({"elibadcode": {0: 6, 1: 30, 2: 6}})
    shown = next(row for row in found.rows if row.defense == "elibadcode")
    assert shown.seeds == (0, 1, 2)
    assert shown.numbers["asr"].value == pytest.approx((6 + 30 + 6) / 90, abs=1e-6)
    row = judged(found, "elibadcode")
    assert row.seeds == (0, 2)
    assert row.numbers["asr"].value == pytest.approx(0.2, abs=1e-6)
    findings = to_findings(found)
    assert "at some seeds only: dead_code (at 0, 2; lifts +70.0, +0.0, +60.0)" in findings
    (line,) = [line for line in findings.splitlines() if line.startswith("| elibadcode")]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3:5] == ["1", "1 (1)"]
    assert cells[8] == "20.0 (85.0)"


def test_what_is_planted_nowhere_is_judged_nowhere() -> None:
    found = build_board([record(defense, seed=1) for defense in ("none", "elibadcode")], loader({"elibadcode": {1: 0}}))
    assert found.judged == []
    assert found.analysis.blocks == 0
    assert "0 of 1 implanted" in to_findings(found)


def test_a_row_that_lacks_a_seed_is_a_gap_and_not_a_win() -> None:
    """The same answers as the undefended model, but for a seed that failed: neither better nor worse."""
    hits = {"elibadcode": {0: 27, 1: 6}, "dece": {0: 27, 1: 6, 2: 24}}
    records = [record("elibadcode", seed=2, status=Status.FAILED, reason="out of memory")]
    records += [record(d, seed=s) for d, found in hits.items() for s in found]
    records += [record("none", seed=seed) for seed in UNDEFENDED]
    found = build_board(records, loader(hits))
    (gap,) = found.analysis.gaps
    assert gap.defense == "elibadcode"
    assert "lacks a seed" in gap.reason
    assert [row.defense for row in found.judged] == ["none", "dece"]
    assert "1 rows lack a seed" in to_findings(found)


def test_an_undefended_seed_that_cannot_be_read_takes_no_defense_with_it() -> None:
    """Seed 2's undefended cell is gone: defenses are judged on the seeds that are known to have the backdoor, which they all have."""
    hits = {"elibadcode": {0: 6, 2: 6, 3: 6}, "dece": {0: 27, 2: 24}}
    records = [record(d, seed=s) for d, found in hits.items() for s in found]
    undefended = [record("none", seed=seed) for seed in (0, 3)]
    before = dict(UNDEFENDED) | {3: 27}

    def load(r: Record) -> tuple[pd.DataFrame, None]:
        at = r.coordinates
        return outcomes(51, before[at.seed] if at.defense == "none" else hits[at.defense][at.seed]), None

    found = build_board([*records, *undefended], load)
    row = judged(found, "elibadcode")
    assert (row.seeds, row.numbers["asr"].value) == ((0, 3), pytest.approx(0.2, abs=1e-6))
    (gap,) = found.analysis.gaps
    assert (gap.defense, gap.reason) == ("dece", "it lacks a seed at which there is a backdoor (it has 0, 2)"), (
        "it lacks 3"
    )


def test_seeds_that_disagree_are_no_significant_change() -> None:
    against = board({"elibadcode": {0: 6, 1: 6, 2: 30}})
    row = judged(against, "elibadcode")
    assert row.mcnemar_p == 1.0
    both = judged(board({"elibadcode": {0: 6, 1: 6, 2: 6}}), "elibadcode")
    assert both.mcnemar_p < 0.05


def share(hits: int, n: int) -> Measure:
    flags = (np.arange(n) < hits).astype(float)
    names = np.arange(n).astype(str).astype(object)
    return Measure(Sort.SHARE, Clustered(np.stack([flags, np.ones(n)], axis=1), names))


def test_one_success_more_does_not_shrink_the_interval_of_a_share() -> None:
    none = over_seeds([share(0, 18)] * 3)
    one = over_seeds([share(0, 18), share(0, 18), share(1, 18)])
    assert none is not None
    assert one is not None
    assert none.high == pytest.approx(0.1759, abs=1e-3), "Wilson's, 0 of 18: the same inputs at each seed"
    assert one.high is not None
    assert one.high > 0.09, "Wilson's, 1 of 54; the bootstrap alone has 0.056"


def test_four_samples_all_one_way_are_no_proof() -> None:
    """Exact sign test: p = 0.125. The bootstrap's percentiles would exclude 0."""

    def change(found: int) -> Measure:
        first = (np.arange(150) < found).astype(float)
        names = np.arange(150).astype(str).astype(object)
        columns = np.stack([first, np.zeros(150), np.ones(150)], axis=1)
        return Measure(Sort.SHARE_DIFFERENCE, Clustered(columns, names))

    found = over_seeds([change(2), change(1), change(1)])
    assert found is not None
    assert found.value == pytest.approx(4 / 450)
    assert found.low is not None
    assert found.low <= 0


def test_from_five_seeds_on_the_interval_is_at_least_students() -> None:
    hits = (5, 10, 20, 40, 60)
    found = over_seeds([share(hit, 100) for hit in hits])
    half = student_half_width([hit / 100 for hit in hits])
    # sd of (5, 10, 20, 40, 60) is 22.8035..., t(4) = 2.7764
    assert half == pytest.approx(2.776445 * 0.2280351 / 5**0.5, abs=1e-6)
    assert found is not None
    assert found.high == pytest.approx(0.27 + half)
    assert found.low == 0.0, "a share is not negative"


def test_counts_alone_are_laid_out_the_same_way_at_each_seed() -> None:
    """Gains first and losses last, whatever stands between: seeds then never look as if they cancelled each other."""
    found = _paired(ControlFacts(asked=10, applied=10, n=10, hits=6, reference=5, both=3))
    victim, reference, _ = found.data.columns.T
    assert victim.tolist() == [1] * 6 + [0] * 4
    assert reference.tolist() == [0] * 3 + [1] * 3 + [0] * 2 + [1] * 2
