"""What the board says across cells: verdicts on two defenses rest on those two alone, and nothing missing is filled in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.board import build_board, to_findings, to_latex, to_markdown
from bench.board.analysis import NO_COMPLETE_BLOCK, Analysis, analyse
from bench.board.blocks import summaries
from bench.records import Record, Status
from tests.test_board import outcomes, part_rows, record

Table = dict[str, list[float | None]]


def analysis(left: Table, clean: Table | None = None, control: str | None = "none") -> Analysis:
    def keyed(table: Table) -> dict[str, dict[Any, float]]:
        return {name: {i: x for i, x in enumerate(xs) if x is not None} for name, xs in table.items()}

    return analyse(keyed(left), keyed(clean or {}), control=control)


def verdicts(found: Analysis, names: list[str]) -> dict[tuple[str, str], Any]:
    """What is decided of the pairs among some defenses; ``p_table`` is for information and left out."""
    decided = {}
    for one in names:
        for other in names:
            pair = found.pair(one, other) if one < other else None
            if pair is not None:
                left_out = {"p_table": None}
                decided[one, other] = (
                    pair.left.model_copy(update=left_out),
                    pair.clean.model_copy(update=left_out),
                )
    return decided


blocks = st.integers(0, 14).flatmap(
    lambda n: st.lists(
        st.lists(st.one_of(st.none(), st.integers(-100, 100).map(lambda x: x / 100)), min_size=n, max_size=n),
        min_size=4,
        max_size=4,
    )
)


@settings(max_examples=150, deadline=None)
@given(lifts=blocks, clean=blocks, weak=st.lists(st.floats(0.9, 1.0), min_size=14, max_size=14))
def test_another_defense_never_changes_the_verdict_on_two_others(
    lifts: list[list[float | None]], clean: list[list[float | None]], weak: list[float]
) -> None:
    names = ["none", "a", "b", "c"]
    lift_table, clean_table = dict(zip(names, lifts, strict=True)), dict(zip(names, clean, strict=True))
    n = len(lifts[0])
    before = analysis(lift_table, clean_table)
    after = analysis({**lift_table, "weak": list(weak[:n])}, {**clean_table, "weak": [0.5] * n})
    assert verdicts(before, names) == verdicts(after, names)


@pytest.mark.parametrize("company", [0, 1, 10])
def test_a_pair_that_holm_over_all_pairs_would_lose_stays_told_apart(company: int) -> None:
    rng = np.random.default_rng(0)
    lifts: Table = {"none": [0.8] * 8, "d": [0.3 + 0.01 * i for i in range(8)]}
    lifts |= {f"weak{i}": list(0.8 + 0.01 * rng.standard_normal(8)) for i in range(company)}
    pair = analysis(lifts).pair("d", "none")
    assert pair is not None
    assert pair.left.better == "one"
    assert pair.left.p_holm == pytest.approx(2 / 2**8, rel=1e-5)
    pairs = (company + 2) * (company + 1) / 2
    assert pair.left.p_table == pytest.approx(min(1.0, pairs * 2 / 2**8), rel=1e-5)


def test_letters_are_shared_exactly_where_two_are_not_told_apart() -> None:
    rng = np.random.default_rng(1)
    lifts: Table = {f"d{i}": list(np.clip(0.1 * i + 0.12 * rng.standard_normal(10), -1, 1)) for i in range(6)}
    found = analysis(lifts, control=None)
    letters = {s.defense: set(s.letters) for s in found.standings}
    decided = {p.left.better for p in found.pairs}
    assert decided >= {"not told apart", "one"}, "the example holds both"
    for pair in found.pairs:
        together = bool(letters[pair.one] & letters[pair.other])
        assert together == (pair.left.better == "not told apart"), (pair.one, pair.other)


def test_a_pair_turned_round_says_the_same() -> None:
    found = analysis({"none": [0.8] * 7, "d": [0.1 + 0.01 * i for i in range(7)]}, {"none": [0.9] * 7, "d": [0.7] * 7})
    one, other = found.pair("d", "none"), found.pair("none", "d")
    assert one is not None
    assert other is not None
    assert (one.left.better, other.left.better) == ("one", "other")
    assert (one.left.wins, other.left.losses, one.left.effect, other.left.effect) == (7, 7, -1.0, 1.0)
    assert (one.left.low, one.left.high) == (-(other.left.high or 0), -(other.left.low or 0))
    assert (one.clean.median, one.clean.better, one.clean.losses) == (-0.2, "other", 7)


def test_letters_are_given_to_so_many_groups_as_can_be_read() -> None:
    rng = np.random.default_rng(2)
    many: Table = {f"d{i:02}": list(0.02 * i + 0.05 * rng.random(12)) for i in range(45)}
    found = analysis(many, control=None)
    assert all(s.letters == "" and s.mean_rank is not None for s in found.standings)
    assert found.too_many_groups
    few: Table = {name: many[name] for name in sorted(many)[::5]}
    lettered = analysis(few, control=None)
    assert all(s.letters for s in lettered.standings)
    assert not lettered.too_many_groups
    assert not analysis({"none": [0.8] * 4, "d": [0.1] * 4}).too_many_groups, "no test, no groups"


def test_no_caption_says_that_letters_are_shared_where_there_are_none() -> None:
    rng = np.random.default_rng(2)
    many: Table = {f"d{i:02}": list(0.02 * i + 0.05 * rng.random(12)) for i in range(45)}
    few: Table = {name: many[name] for name in sorted(many)[::5]}
    bare = build_board([record("none")], load)
    shared = "Defenses that share a letter are not told apart."
    for lifts, said, unsaid in ((many, "too many to letter", shared), (few, shared, "too many to letter")):
        found = analysis(lifts, control=None)
        shown = to_latex(bare.model_copy(update={"analysis": found, "blocks": tuple(summaries(found))}))
        assert said in shown
        assert unsaid not in shown
    assert shared not in to_latex(bare), "one block allows no test"


def answers(success: int, reference: int, reverse: int, reverse_reference: int) -> pd.DataFrame:
    """30 triggered inputs and 30 of the target class, of which so many flip; half of the clean ones are right."""
    flips = {"triggered": (success, reference), "reverse": (reverse, reverse_reference)}
    rows = part_rows("clean", 30, 1, {"now": 15, "reference": 15, "undefended": 15}, 1)
    for part, (now, clean) in flips.items():
        rows += part_rows(part, 30, int(part == "reverse"), {"now": now, "reference": clean, "undefended": now}, 1)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("counts", "left", "nothing"),
    [
        ((24, 6, 1, 1), 0.6, False),  # the backdoor
        ((0, 6, 0, 1), 0.0, True),  # every triggered input rejected: less than a clean model falls for
        ((0, 6, 28, 1), 0.9, False),  # the opposite backdoor
        ((9, 6, 1, 1), 0.1, True),  # a tenth, and the interval reaches 0
    ],
    ids=["backdoor", "below a clean model", "reversed", "within the interval"],
)
def test_what_is_left_of_a_backdoor(counts: tuple[int, int, int, int], left: float, nothing: bool) -> None:
    (row,) = build_board([record("none")], lambda r: (answers(*counts), None)).rows
    assert row.left == pytest.approx(left)
    assert row.nothing_left is nothing


def test_rejecting_all_inputs_with_the_trigger_is_told_apart_from_no_defense() -> None:
    # On half of these blocks the trigger turns half of a clean model's answers, too: the lift's distance from 0 would punish the screen.
    attacks = [f"a{i}" for i in range(8)]

    def tables(r: Record) -> tuple[pd.DataFrame, None]:
        floor = 15 if r.coordinates.attack in attacks[::2] else 6
        return answers(0 if r.coordinates.defense == "onion" else 30, floor, 1, 1), None

    found = build_board([record(d, a) for d in ("none", "onion") for a in attacks], tables)
    pair = found.analysis.pair("onion", "none")
    assert pair is not None
    assert (pair.left.better, pair.left.wins) == ("one", 8)
    assert [s.mean_left for s in found.analysis.standings if s.defense == "onion"] == [0.0]


def test_a_defense_that_hardly_applies_is_compared_but_not_ranked() -> None:
    found = analysis({"none": [0.8] * 10, "d": [0.1] * 10, "e": [0.2] * 6 + [None] * 4})
    places = {s.defense: s for s in found.standings}
    assert found.complete == 10, "e has 6 of 10 blocks and must not shrink them to 6"
    assert places["e"].mean_rank is None
    assert places["e"].reason == "not ranked: it has a lift on 6 of 10 blocks"
    pair = found.pair("d", "e")
    assert pair is not None
    assert pair.left.blocks == 6


def test_no_complete_block_is_said() -> None:
    lifts: Table = {f"d{i}": [None if place == i else 0.1 for place in range(6)] for i in range(6)}
    found = analysis(lifts, control=None)
    assert (found.complete, found.blocks, found.reason) == (0, 6, NO_COMPLETE_BLOCK)
    assert all(s.mean_rank is None and s.reason == NO_COMPLETE_BLOCK for s in found.standings)
    few = analysis({"none": [0.8] * 4, "d": [0.1] * 4})
    assert few.reason == "not enough blocks: 4 complete, ranks need 6"


def load(r: Record) -> tuple[Any, None]:
    return outcomes(50, 25 if r.coordinates.defense == "none" else 10), None


def test_every_missing_number_has_its_reason() -> None:
    records = [record("none", f"a{i}") for i in range(3)]
    records += [record("dece", "a0"), record("dece", "a1", status=Status.FAILED, reason="out of memory")]
    found = build_board(records, load)
    gaps = {gap.attack: gap.reason for gap in found.analysis.gaps if gap.defense == "dece"}
    assert gaps == {"a1": "failed: out of memory", "a2": "no cell"}


def test_a_suite_without_an_undefended_row_still_compares_its_defenses() -> None:
    found = build_board([record(name, f"a{i}") for name in ("dece", "onion") for i in range(6)], load)
    assert found.analysis.control is None
    assert {block.reason for block in found.blocks} == {"no undefended cells to compare with"}
    assert len(found.analysis.pairs) == 1
    assert "no undefended cells to compare with" in to_markdown(found)


def test_without_undefended_cells_nobody_is_told_of_backdoors() -> None:
    cells = [record(name, f"a{i}") for name in ("dece", "onion") for i in range(2)]
    found = build_board(cells, load)
    page, findings = to_markdown(found), to_findings(found)
    assert "2 blocks, 2 of them complete. No undefended cells have numbers" in page
    assert "2 blocks with a backdoor" not in page
    assert [(one.blocks, one.mean_left) for one in found.blocks] == [(2, 0.133333)] * 2, "10 of 30, 6 on the reference"
    assert "2 of 2 blocks with an attack have no undefended numbers" in findings
    some = build_board([*cells, record("none", "a0")], load)
    page, findings = to_markdown(some), to_findings(some)
    assert "1 blocks with a backdoor to remove, 1 of them complete. 1 more have no undefended numbers" in page
    assert "1 of 2 blocks with an attack have no undefended numbers" in findings
    whole = build_board([*cells, record("none", "a0"), record("none", "a1")], load)
    assert "2 blocks with a backdoor to remove, 2 of them complete." in to_markdown(whole)
    assert "have no undefended numbers" not in to_markdown(whole) + to_findings(whole)
