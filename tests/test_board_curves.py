"""Curves are found among the rows that differ in an amount alone; what is not implanted is said."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.board import build_board, to_json, to_markdown, write_board
from bench.board.curve_plot import draw_curves
from bench.board.curves import Curve, curves
from bench.board.table import Board
from bench.metrics import Number
from bench.records import PluginUse, PoisonFacts, Record
from tests.test_board import outcomes, record

UNDEFENDED = {5: 7, 10: 12, 20: 27}
"""Successes of 30 triggered inputs by poisoned samples; 6 of them succeed on the reference."""


def attacked(count: int, variant: str = "fixed", **more: Any) -> Record:
    use = PluginUse(name="dead_code", family="attack", version=1, effective={"variant": variant})
    poison = PoisonFacts(train=200, poisoned=count, refused=0, eligible=40, applicable=30, unseen=0)
    title = f"{variant}@{count}"
    plugins = {"attack": use} | more.pop("plugins", {})
    policy = {"rate": None, "count": count, "of": "victim", "labels": "dirty", "mode": "replace", "side": "first"}
    return record(more.pop("defense", "none"), title, poison=poison, policy=policy, plugins=plugins, **more)


def tuned(clean: int, defense: str | None = None, **effective: Any) -> Record:
    use = PluginUse(
        name="fine_tuning", family="repair", version=1, effective={"clean": clean, "epochs": 2, **effective}
    )
    return attacked(20, defense=defense or f"ft{clean}", plugins={"defense": use})


def load(r: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    at = r.coordinates
    hits = UNDEFENDED[int(at.attack.partition("@")[2])] if at.defense == "none" else 10
    frame = outcomes(51, hits)
    if at.defense == "none":
        for column in ("success", "prediction"):
            frame[f"undefended_{column}"] = frame[column]
    return frame, None


def board(*records: Record) -> Board:
    return build_board(records, load)


def test_attacks_that_differ_in_the_count_alone_are_one_curve_in_its_order() -> None:
    (curve,) = board(attacked(20), attacked(5), attacked(10)).curves
    assert (curve.kind, curve.name) == ("poison", "fixed")
    assert [point.x for point in curve.points] == [5, 10, 20]
    assert [point.lift.value for point in curve.points] == [
        pytest.approx((hits - 6) / 30, abs=1e-6) for hits in UNDEFENDED.values()
    ]


def test_another_variant_is_another_curve_and_one_point_is_none() -> None:
    found = board(attacked(20), attacked(10), attacked(20, "grammar"), attacked(10, "grammar")).curves
    assert [curve.name for curve in found] == ["fixed", "grammar"]
    assert board(attacked(20), attacked(20, "grammar")).curves == ()


def test_an_attack_implants_from_the_least_amount_above_which_it_always_does() -> None:
    def point(x: float, low: float) -> dict[str, Any]:
        return {
            "x": x,
            "attack": "a",
            "defense": "none",
            "lift": Number(value=low + 0.1, low=low, high=1.0, n=30),
            "clean": Number(),
            "implanted": low > 0,
        }

    def curve(*lows: float) -> Curve:
        points = [point(x, low) for x, low in zip((5, 10, 20, 40), lows, strict=False)]
        return Curve.model_validate({"kind": "poison", "task": "t", "model": "m", "name": "a", "points": points})

    assert curve(-0.1, 0.2, 0.3).implants_from == 10
    assert curve(0.1, -0.2, 0.3, 0.4).implants_from == 20
    assert curve(0.1, 0.2, -0.3).implants_from is None


def test_defenses_that_differ_in_their_clean_samples_alone_are_a_budget_curve() -> None:
    found = board(attacked(20), tuned(50), tuned(200), tuned(100, "other", epochs=9)).curves
    (curve,) = [c for c in found if c.kind == "budget"]
    assert [(point.x, point.defense) for point in curve.points] == [(50, "ft50"), (200, "ft200")]
    assert curve.name == "fine_tuning on fixed@20"


def test_the_page_says_what_is_implanted_and_from_how_much() -> None:
    page = to_markdown(board(attacked(5), attacked(20)))
    section = page.partition("## Implantation")[2].partition("## Definitions")[0]
    lines = {line.split("|")[1].strip(): line for line in section.splitlines() if line.startswith("|")}
    assert lines["fixed@5"].rstrip("| ").endswith("no")
    assert lines["fixed@20"].rstrip("| ").endswith("yes")
    assert "5, 20" in section
    assert "curves.svg" in section


def test_a_board_without_an_attack_has_no_such_section() -> None:
    assert "## Implantation" not in to_markdown(
        build_board([record("none", "none")], lambda r: (outcomes(50, None), None))
    )


def test_what_the_attack_costs_is_the_victim_less_the_reference() -> None:
    (row,) = board(attacked(20)).rows
    assert row.numbers["reference_delta"].value == pytest.approx((51 - 54) / 60, abs=1e-6)
    assert row.attack_non_inferior is False
    assert row.poisoned == 20


def test_curves_are_drawn_the_same_each_time_and_only_where_there_are_some(tmp_path: Path) -> None:
    records = [attacked(5), attacked(10), attacked(20)]
    first = write_board(records, load, tmp_path / "a")
    second = write_board(records[::-1], load, tmp_path / "b")
    for name in ("curves.svg", "curves.png"):
        assert first[name].read_bytes() == second[name].read_bytes()
        assert first[name].stat().st_size > 1000
    assert "curves.svg" not in write_board(records[:1], load, tmp_path / "c")
    assert Board.model_validate_json(to_json(board(*records))).curves == board(*records).curves


def test_calibration_and_failed_cells_are_no_points() -> None:
    records = [attacked(20), attacked(10, calibration=True)]
    shown = {("defect_detection", "tiny", row.attack, "none"): row for row in board(*records).rows}
    assert curves(records, shown) == ()


def test_many_curves_stand_in_a_panel_each_with_the_others_behind() -> None:
    variants = [f"v{i}" for i in range(8)]
    found = board(*(attacked(count, variant) for variant in variants for count in (5, 20))).curves
    axes = [one for one in draw_curves(found).axes if one.axison]
    assert [one.get_title().splitlines()[-1] for one in axes] == variants
    assert all(len([line for line in one.lines if line.get_color() == "#DDDDDD"]) == 7 for one in axes)
    assert len(draw_curves(found[:2]).axes) == 1
