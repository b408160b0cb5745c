"""The outcome table refuses whatever contradicts itself, names the place, and is the same bytes for the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import PluginError, StoreError
from bench.outcomes import (
    FILTER_COLUMNS,
    OUTCOME_COLUMNS,
    read_filter,
    read_outcomes,
    validate,
    validate_filter,
    write_filter,
    write_outcomes,
)


def row(part: str, id: str, label: int, prediction: int, **more: Any) -> dict[str, Any]:
    success = more.pop("success", prediction == (label if part == "clean" else 1 - label))
    defaults: dict[str, Any] = {
        "group": "g",
        "probability": 0.5,
        "rank": 0,
        "pool": 0,
        "action": "accept",
        "score": float("nan"),
        "success": success,
        "reference_prediction": prediction,
        "reference_rank": 0,
        "reference_success": success,
        "undefended_prediction": prediction,
        "undefended_rank": 0,
        "undefended_success": success,
        "visible": True,
    }
    return {"part": part, "id": id, "label": label, "prediction": prediction} | defaults | more


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows) or [row("clean", "a", 1, 1), row("clean", "b", 0, 1), row("triggered", "a", 1, 0)])


def search_row(part: str, id: str, rank: int, success: bool, **more: Any) -> dict[str, Any]:
    ranks = {"rank": rank, "reference_rank": rank, "undefended_rank": rank, "pool": 100}
    nothing = {"reference_prediction": -1, "undefended_prediction": -1, "probability": float("nan")}
    return row(part, id, -1, -1, success=success) | ranks | nothing | more


def test_a_valid_table_comes_back_in_canonical_form() -> None:
    frame = table().iloc[::-1].sample(frac=1, axis=1, random_state=0)
    found = validate(frame)
    assert list(found.columns) == list(OUTCOME_COLUMNS)
    assert list(found["id"]) == ["a", "b", "a"]
    assert list(found["part"]) == ["clean", "clean", "triggered"]


def test_an_empty_table_is_valid() -> None:
    assert len(validate(pd.DataFrame(columns=list(OUTCOME_COLUMNS)))) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": "train"}, "column 'part'.*'train'.*clean, triggered, reverse"),
        ({"action": "drop"}, "column 'action'"),
        ({"probability": 1.2}, r"column 'probability', row clean/a.*outside \[0, 1\]"),
        ({"success": False}, "column 'success', row clean/a.*contradicts"),
        ({"reference_success": False}, "column 'reference_success', row clean/a"),
        ({"undefended_success": False}, "column 'undefended_success', row clean/a"),
        ({"prediction": -1, "success": False}, "column 'prediction'.*not rejected"),
        ({"undefended_prediction": -1, "undefended_success": False}, "column 'undefended_prediction'"),
        ({"action": "reject", "success": False}, "column 'prediction'.*rejected"),
        ({"action": "reject", "prediction": -1}, "column 'success'.*rejected"),
        ({"rank": 3}, "column 'rank'"),
        ({"score": float("inf")}, "column 'score'"),
        ({"label": -2}, "column 'label'"),
        ({"id": "b", "label": 0, "success": False}, "column 'id'.*twice"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(change: dict[str, Any], message: str) -> None:
    rows = [row("clean", "a", 1, 1) | change, row("clean", "b", 0, 1)]
    with pytest.raises(PluginError, match=message):
        validate(table(*rows))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 0.5, "column 'label', row 0: 0.5 is not an integer"),
        ("label", True, "column 'label', row 0"),
        ("id", 7, "column 'id', row 0: 7 is not text"),
        ("success", 1, "column 'success', row 0: .*not true or false"),
        ("probability", "high", "column 'probability', row 0: 'high' is not a number"),
    ],
)
def test_a_wrong_type_is_named(column: str, value: object, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        validate(table(row("clean", "a", 1, 1) | {column: value}))


def test_missing_and_unknown_columns_are_named() -> None:
    with pytest.raises(PluginError, match=r"lacks column 'rank'.*unknown column 'ranks'"):
        validate(table().rename(columns={"rank": "ranks"}))


def test_the_goal_cannot_change_within_a_table() -> None:
    with pytest.raises(PluginError, match="several classes"):
        validate(table(row("triggered", "a", 1, 0), row("triggered", "b", 1, 1, success=True)))
    with pytest.raises(PluginError, match="counts as success"):
        validate(table(row("triggered", "a", 1, 0), row("triggered", "b", 1, 0, success=False)))


def test_search_rows_follow_their_ranks() -> None:
    validate(table(search_row("clean", "a", 1, True), search_row("triggered", "a", 10, True)))
    with pytest.raises(PluginError, match=r"column 'success', row triggered/a.*top 10"):
        validate(table(search_row("triggered", "a", 11, True)))
    with pytest.raises(PluginError, match=r"column 'rank'.*outside its pool"):
        validate(table(search_row("clean", "a", 101, False)))
    with pytest.raises(PluginError, match="column 'rank'"):
        validate(table(search_row("clean", "a", 0, False)))


def test_equal_tables_are_equal_bytes_and_come_back_equal(tmp_path: Path) -> None:
    frame = table()
    one = write_outcomes(frame, tmp_path / "one.parquet")
    other = write_outcomes(frame.iloc[::-1].reset_index(drop=True), tmp_path / "deep" / "other.parquet")
    assert one.read_bytes() == other.read_bytes()
    pd.testing.assert_frame_equal(read_outcomes(one), validate(frame))
    changed = write_outcomes(table(row("clean", "a", 1, 0)), tmp_path / "changed.parquet")
    assert changed.read_bytes() != one.read_bytes()


def test_a_truncated_file_says_what_to_do(tmp_path: Path) -> None:
    path = write_outcomes(table(), tmp_path / "cut.parquet")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"cut.parquet cannot be read.*run the cell again"):
        read_outcomes(path)
    with pytest.raises(StoreError, match="cannot be read"):
        read_outcomes(tmp_path / "absent.parquet")


def test_filter_tables_round_trip_and_are_checked(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["b", "a"], "score": [0.5, 1.0], "keep": [True, False], "poisoned": [False, True]})
    path = write_filter(frame, tmp_path / "filter.parquet")
    assert read_filter(path).to_dict("list") == {
        "id": ["a", "b"],
        "score": [1.0, 0.5],
        "keep": [False, True],
        "poisoned": [True, False],
    }
    assert list(read_filter(path).columns) == list(FILTER_COLUMNS)
    with pytest.raises(PluginError, match=r"column 'score', row a.*not finite"):
        validate_filter(frame.assign(score=[0.5, float("nan")]))
    with pytest.raises(PluginError, match="twice"):
        validate_filter(frame.assign(id=["a", "a"]))
