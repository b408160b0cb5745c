"""Tables compare what differs, and plots are drawn only where they have something to compare."""

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.board import build_board, print_board, to_latex, to_markdown, write_board
from bench.board.groups import compared, groups, undefended
from bench.board.implantation_plot import draw_implantation
from bench.board.lift_plot import MANY, draw_lifts, has_lifts
from bench.board.plot import LARGEST, TOLD_APART, draw_tradeoff, drawing, has_tradeoff
from bench.board.table import Board
from bench.records import Record
from tests.test_board import loader, outcomes, record

HITS = {"weak": 6, "middle": 15, "strong": 30}
"""Of 30 triggered inputs, by attack; 6 of them succeed on the reference."""


def load(r: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    return outcomes(51, HITS[r.coordinates.attack]), None


@pytest.fixture(scope="module")
def attacks_alone() -> Board:
    return build_board([record("none", attack) for attack in HITS], load)


@pytest.fixture(scope="module")
def crossed() -> Board:
    defenses = ("none", "dece", "onion")
    return build_board([record(d, a) for d in defenses for a in ("none", "dead_code", "renaming")], loader)


def test_with_one_defense_a_table_compares_the_attacks(attacks_alone: Board) -> None:
    ((names, rows),) = groups(attacks_alone)
    assert names == ("defect_detection", "tiny")
    assert [row.attack for row in rows] == sorted(HITS)
    assert compared(rows) == "attack"


def test_with_several_defenses_a_table_compares_them_under_one_attack(crossed: Board) -> None:
    found = list(groups(crossed))
    assert [names[-1] for names, _ in found] == ["none", "dead_code", "renaming"]
    assert all(len(rows) == 3 and compared(rows) == "defense" for _, rows in found)


def test_one_attack_under_one_defense_is_named_by_its_defense() -> None:
    board = build_board([record("none")], loader)
    ((names, rows),) = groups(board)
    assert names == ("defect_detection", "tiny", "dead_code")
    assert compared(rows) == "defense"


def test_no_row_is_lost_or_shown_twice(attacks_alone: Board, crossed: Board) -> None:
    for board in (attacks_alone, crossed):
        assert [row for _, rows in groups(board) for row in rows] == list(board.rows)


def test_every_rendering_names_the_rows_by_their_attacks(attacks_alone: Board) -> None:
    markdown = to_markdown(attacks_alone)
    assert markdown.count("## defect\\_detection · tiny") + markdown.count("## defect_detection · tiny") == 2, (
        "the table, and the section on implantation"
    )
    assert "\n| attack" in markdown
    latex = to_latex(attacks_alone)
    assert latex.count(" & family & ") == 1
    assert "attack & family" in latex
    out = io.StringIO()
    print_board(attacks_alone, Console(file=out, width=160))
    printed = out.getvalue()
    for attack in HITS:
        assert attack in printed
        assert f"\n{attack} & " in latex


def test_a_plot_is_written_where_it_has_something_to_compare(tmp_path: Path) -> None:
    records = [record("none", attack) for attack in HITS]
    (tmp_path / "tradeoff.png").write_bytes(b"of an earlier board, which had a defense")
    paths = write_board(records, load, tmp_path)
    assert {"implantation.png", "implantation.svg"} < set(paths)
    assert not (tmp_path / "tradeoff.png").exists()
    assert not (tmp_path / "curves.png").exists()
    paths = write_board([record("none", "none"), record("dece", "none")], loader, tmp_path)
    assert not (tmp_path / "implantation.png").exists(), "no attack: nothing to implant"
    assert not has_tradeoff(build_board([record("none", "none"), record("dece", "none")], loader))


def test_the_implantation_plot_has_a_line_for_each_attack_the_greatest_lift_on_top(attacks_alone: Board) -> None:
    (axes,) = draw_implantation(attacks_alone).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["weak", "middle", "strong"]
    assert [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2][-1] == (20.0, 100.0)
    faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert faces[1] == "white", "weak: no lift, not implanted"
    assert faces[5] != "white"


def test_the_implantation_plot_holds_every_attack_of_a_long_list() -> None:
    board = build_board([record("none", f"attack{i:02}") for i in range(40)], lambda r: (outcomes(51, 20), None))
    assert len(undefended(board)) == 40
    (axes,) = draw_implantation(board).axes
    assert len(axes.get_yticklabels()) == 40


def test_the_tradeoff_leaves_out_attacks_that_no_defense_met() -> None:
    records = [record("none", attack) for attack in HITS] + [record("dece", "strong")]
    board = build_board(records, load)
    assert has_tradeoff(board)
    drawn = [axes for axes in draw_tradeoff(board).axes if axes.axison]
    assert [axes.get_title().splitlines()[-1] for axes in drawn] == ["strong"]


def test_more_defenses_than_can_be_told_apart_have_no_tradeoff() -> None:
    records = [record(defense, "strong") for defense in ("none", *(f"repair{i}" for i in range(TOLD_APART)))]
    assert has_tradeoff(build_board(records, load))
    more = build_board([*records, record("dece", "strong")], load)
    assert not has_tradeoff(more)
    assert has_lifts(more), "which has a line for each"


def test_the_tradeoff_stops_at_its_largest_size_and_says_so(tmp_path: Path) -> None:
    attacks = [f"attack{i:02}" for i in range(LARGEST + 3)]
    records = [record(defense, attack) for attack in attacks for defense in ("none", "dece")]
    board = build_board(records, lambda r: (outcomes(51, 20), None))
    with drawing():
        figure = draw_tradeoff(board)
        figure.savefig(tmp_path / "tradeoff.svg")
    assert sum(axes.axison for axes in figure.axes) == LARGEST
    assert figure.get_suptitle().startswith(f"the first {LARGEST} of {LARGEST + 3}")
    assert ElementTree.parse(tmp_path / "tradeoff.svg").getroot().tag.endswith("svg")


def test_many_defenses_stand_in_a_list_by_family_the_undefended_on_top() -> None:
    defenses = ["none", "filter/random", "spectral_signatures", "dece", *(f"repair{i}" for i in range(6)), "onion"]
    records = [record(d, a) for d in defenses for a in ("none", "dead_code", "renaming")]
    board = build_board(records, lambda r: (outcomes(51, None if r.coordinates.attack == "none" else 20), None))
    assert has_lifts(board)
    (axes,) = draw_lifts(board).axes
    names = [label.get_text() for label in axes.get_yticklabels()][::-1]
    assert names[0] == "none"
    assert names.index("spectral_signatures") < names.index("dece") < names.index("repair0") < names.index("onion")
    points = [line for line in axes.lines if line.get_marker() not in ("None", "|", "_", "")]
    assert len(points) == 2 * len(defenses), "clean models have no lift"
    assert not has_lifts(build_board([record(d) for d in defenses[:MANY]], lambda r: (outcomes(51, 20), None)))
