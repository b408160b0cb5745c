"""The page of findings counts what the board's rows say, and nothing that their intervals leave open."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.board import build_board, write_board
from bench.board.findings import to_findings
from bench.records import Record, Status
from tests.test_board import example, loader, markdown_tables, outcomes, record

ASR = {
    "none": 27,
    "repair/oracle": 6,
    "repair/random": 27,  # of 30; 6 succeed on the reference
    "strong": 6,
    "weak": 26,
    "worse": 30,
}
CLEAN = {"none": 51, "repair/oracle": 51, "repair/random": 51, "strong": 20, "weak": 51, "worse": 51}
"""Right answers of 60; the undefended victim has 51, the reference 54."""


def load(r: Record) -> tuple[pd.DataFrame, None]:
    at = r.coordinates
    return outcomes(CLEAN[at.defense], None if at.attack == "none" else ASR[at.defense]), None


@pytest.fixture(scope="module")
def page() -> str:
    records = [record(d, a) for d in ASR for a in ("none", "dead_code", "renaming")]
    return to_findings(build_board(records, load))


def rows(page: str) -> dict[str, dict[str, str]]:
    return {row["defense"]: row for row in markdown_tables(page)[0]}


def test_each_count_is_what_the_intervals_say(page: str) -> None:
    found = rows(page)
    strong, weak, worse = found["strong"], found["weak"], found["worse"]
    assert strong["blocks"] == weak["blocks"] == "2", "the two implanted attacks; a clean model is none"
    assert (strong["lowers"], strong["no change shown"], strong["raises"]) == ("2 (0)", "0", "0 (0)"), (
        "McNemar over ten modules, Holm over ten rows"
    )
    assert (weak["lowers"], weak["no change shown"], weak["raises"]) == ("0 (0)", "2", "0 (0)"), (
        "26 of 30 in place of 27"
    )
    assert (worse["lowers"], worse["no change shown"]) == ("0 (0)", "2"), "30 in place of 27: the interval reaches 0"
    assert (strong["nothing left shown"], weak["nothing left shown"]) == ("2", "0")
    assert strong["ASR, mean"] == "20.0 (90.0)"
    assert (strong["keeps"], strong["loses"]) == ("0", "2")
    assert (weak["keeps"], weak["loses"]) == ("0", "0"), "60 samples neither show a loss nor exclude one of two points"
    assert strong["Δ clean, mean"] == f"{100 * (20 - 51) / 60:+.1f}"
    assert strong["on clean models"].startswith("-51.7 [")


def test_what_holds_at_every_seed_is_counted_in_brackets() -> None:
    records = [record(d, a) for d in ("none", "strong") for a in ("dead_code", "renaming")]
    assert rows(to_findings(build_board(records, load)))["strong"]["lowers"] == "2 (2)", "Holm over two rows: p 0.03"


def test_controls_are_compared_with_everybody_but_themselves(page: str) -> None:
    found = rows(page)
    assert (found["strong"]["vs random"], found["strong"]["vs oracle"]) == ("2:0:0", "0:2:0")
    assert (found["weak"]["vs random"], found["weak"]["vs oracle"]) == ("0:2:0", "0:0:2")
    assert (found["repair/random"]["vs random"], found["repair/random"]["vs oracle"]) == ("–", "0:0:2")
    assert list(found)[:2] == ["repair/oracle", "repair/random"], "controls first"


def test_an_attack_that_is_not_implanted_counts_for_no_defense() -> None:
    records = [record(d, a) for d in ("none", "dece") for a in ("none", "dead_code", "renaming")]

    def weak(r: Record) -> tuple[pd.DataFrame, None]:
        hits = {"none": None, "dead_code": 27, "renaming": 6}[r.coordinates.attack]
        return outcomes(51, hits), None

    page = to_findings(build_board(records, weak))
    assert "1 of 2 implanted; not implanted: renaming" in page
    assert rows(page)["dece"]["blocks"] == "1"
    assert "vs random" not in markdown_tables(page)[0][0], "this board has no control"


def test_rows_without_numbers_are_counted_not_hidden() -> None:
    records = [record("none"), record("dece"), record("onion", status=Status.FAILED, reason="no memory")]
    page = to_findings(build_board(records, loader))
    assert "1 of 3 rows have no numbers" in page
    assert "onion" not in rows(page)


def test_a_board_without_defenses_has_attacks_alone() -> None:
    page = to_findings(build_board([record("none"), record("none", "renaming")], loader))
    assert "2 of 2 implanted" in page
    assert "## Defenses" not in page
    assert to_findings(build_board([], loader)).startswith("# Findings")


def test_names_with_markup_stay_text() -> None:
    evil = "<script>alert(1)</script>|x"
    page = to_findings(build_board([record("none", evil), record(evil, evil)], lambda r: (outcomes(51, 20), None)))
    assert "<script>" not in page


def test_the_page_is_written_beside_the_board(tmp_path: Path) -> None:
    paths = write_board(example(), loader, tmp_path)
    assert paths["findings.md"].read_text() == to_findings(build_board(example(), loader))


def test_a_reference_that_is_no_better_than_a_constant_answer_is_called_weak() -> None:
    both = [record("none"), record("none", "renaming")]

    def balanced(r: Record) -> tuple[pd.DataFrame, None]:  # 30 of each class, of which the reference has 54 right
        table = outcomes(51, 27)
        clean = table["part"] == "clean"
        flipped = clean & (np.arange(len(table)) % 2 == 0)
        for column in ("label", "prediction", "reference_prediction", "undefended_prediction"):
            table.loc[flipped, column] = 1 - table.loc[flipped, column]
        return table, None

    assert "weak" not in to_findings(build_board(both, balanced))
    page = to_findings(build_board(both, loader))  # all of its samples are of one class
    assert re.search(r"The clean reference is weak: its ACC, 90\.0 .*constant answer, 100\.0;", page)


def test_across_blocks_each_defense_is_named_where_its_tests_say_so(page: str) -> None:
    assert "less of the backdoor is left" not in page, "two blocks allow no test"
    attacks = [f"a{i}" for i in range(7)]
    found = to_findings(build_board([record(d, a) for d in ASR for a in attacks], load))

    def told(term: str) -> str:
        (line,) = [line for line in found.splitlines() if line.startswith(f"- **{term}")]
        return line.partition("**: ")[2]

    assert told("less of the backdoor is left than without") == "repair/oracle (0.0), strong (0.0), weak (66.7)."
    assert told("more is left") == "worse (80.0)."
    assert told("not told apart from no defense") == "repair/random (70.0)."
    assert told("less is left than by the random") == "repair/oracle (0.0), strong (0.0), weak (66.7)."
    assert told("a lower clean metric") == "strong (-51.7).", "what the brackets hold is the metric, not the backdoor"
    without = [record(d, a) for d in ("none", "strong") for a in attacks]
    assert "random control of the same family" not in to_findings(build_board(without, load)).split("### How")[0]


def test_fewer_blocks_than_the_undefended_victim_has_are_said_with_what_is_left_there() -> None:
    """70 points are left undefended on seven blocks, 80 on the eighth; two defenses have seven, one of them without the eighth."""
    attacks = [f"a{i}" for i in range(8)]
    hits = {"none": 27, "all": 20, "late": 20, "early": 20}
    cells = [record("none", a) for a in attacks] + [record("all", a) for a in attacks]
    cells += [record("late", a) for a in attacks[1:]] + [record("early", a) for a in attacks[:7]]

    def one_more_at_the_end(r: Record) -> tuple[pd.DataFrame, None]:
        at = r.coordinates
        return outcomes(20 if at.defense == "late" else 51, hits[at.defense] + 3 * (at.attack == "a7")), None

    page = to_findings(build_board(cells, one_more_at_the_end))
    less, lower = (
        next(line for line in page.splitlines() if line.startswith(f"- **{start}")).partition("**: ")[2]
        for start in ("less of the backdoor is left than without", "a lower clean metric")
    )
    assert "is left than without a defense (8 blocks; in brackets what is left, mean)" in page
    # of 30, 6 on the reference: (7 * 14 + 17) / 8, (6 * 14 + 17) / 7, 14; undefended (6 * 21 + 24) / 7, 21
    told = {part.split(" (")[0]: part for part in re.split(r"(?<=\)), ", less.removesuffix("."))}
    assert told == {
        "all": "all (47.9)",
        "late": "late (48.1 on 7 blocks, 71.4 undefended)",
        "early": "early (46.7 on 7 blocks, 70.0 undefended)",
    }
    assert lower == "late (-51.7 on 7 blocks)."
