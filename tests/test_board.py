"""The board says what the outcomes say, in every rendering, and is the same bytes every time."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench import stats
from bench.board import Board, build_board, print_board, publish, to_csv, to_json, to_markdown, write_board
from bench.board.blocks import summarise_blocks
from bench.board.render import escape_markdown
from bench.errors import StoreError
from bench.metrics import cell_metrics
from bench.outcomes import write_filter, write_outcomes
from bench.records import Coordinates, CostFacts, PluginUse, PoisonFacts, Record, Status
from bench.results import ResultsFolder

N_CLEAN, N_TRIGGERED = 60, 30
FAMILIES = {
    "none": "none",
    "spectral_signatures": "filter",
    "dece": "training",
    "elibadcode": "repair",
    "onion": "screen",
}


def part_rows(
    part: str, count: int, wanted: int, hits: Mapping[str, int], label: int, screen: bool = False
) -> list[dict[str, Any]]:
    """``count`` rows of which the first ``hits[...]`` succeed, for the defended, reference and undefended model."""
    rows = []
    for i in range(count):
        now, reference, undefended = (i < hits[name] for name in ("now", "reference", "undefended"))
        rows.append(
            {
                "part": part,
                "id": f"s{i:03}",
                "group": f"module{i // 3}",
                "label": label,
                "prediction": wanted if now else 1 - wanted,
                "probability": 0.5,
                "rank": 0,
                "pool": 0,
                "action": "accept",
                "score": float(i + 10 * (part == "triggered")) if screen else float("nan"),
                "success": now,
                "reference_prediction": wanted if reference else 1 - wanted,
                "reference_rank": 0,
                "reference_success": reference,
                "undefended_prediction": wanted if undefended else 1 - wanted,
                "undefended_rank": 0,
                "undefended_success": undefended,
                "visible": True,
            }
        )
    return rows


def outcomes(clean: int, triggered: int | None, *, screen: bool = False) -> pd.DataFrame:
    rows = part_rows("clean", N_CLEAN, 1, {"now": clean, "reference": 54, "undefended": 51}, 1, screen)
    if triggered is not None:
        hits = {"now": triggered, "reference": 6, "undefended": 27}
        rows += part_rows("triggered", N_TRIGGERED, 0, hits, 1, screen)
        rows += part_rows("reverse", 10, 1, {"now": 1, "reference": 1, "undefended": 1}, 0, screen)
    return pd.DataFrame(rows)


def record(defense: str, attack: str = "dead_code", seed: int = 0, status: Status = Status.OK, **more: Any) -> Record:
    family = FAMILIES.get(defense, "repair")
    poison = PoisonFacts(train=200, poisoned=10, refused=1, eligible=40, applicable=30, unseen=0, tokens=["rb"])
    settings: dict[str, Any] = {
        "family": family,
        "knows": [] if family == "none" else ["200 clean", "weights"],
        "plugins": {} if family == "none" else {"defense": PluginUse(name=defense, family=family, version=2)},
        "metric": "accuracy",
        "poison": None if attack == "none" else poison,
        "cost": CostFacts(forward_tokens=1_000_000, backward_tokens=500_000, clean_samples=200),
    }
    at = Coordinates(task="defect_detection", model="tiny", attack=attack, defense=defense, seed=seed)
    return Record(suite="hand", coordinates=at, status=status, **(settings | more))


CLEAN = {"none": 51, "spectral_signatures": 50, "dece": 45, "elibadcode": 49, "onion": 48}
TRIGGERED = {"none": 27, "spectral_signatures": 20, "dece": 24, "elibadcode": 6, "onion": 0}
BAD_REASON = "stage repair: ValueError: a|b\nsecond <line> of *it*"


def example() -> list[Record]:
    found = [record(d, a, s) for d in CLEAN for a in ("none", "dead_code") for s in (0, 1)]
    found = [r for r in found if r.coordinates.slug not in ("defect_detection-tiny-dead_code-elibadcode-s1",)]
    found.append(record("elibadcode", seed=1, status=Status.FAILED, reason=BAD_REASON))
    found.append(
        record("badacts", status=Status.NOT_APPLICABLE, reason="badacts is not defined for classification tasks")
    )
    found.append(record("dbs", status=Status.NOT_RUN))
    return found


def loader(r: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    at = r.coordinates
    triggered = None if at.attack == "none" else TRIGGERED[at.defense] + 2 * at.seed
    table = outcomes(CLEAN[at.defense] + at.seed, triggered, screen=at.defense == "onion")
    judged = None
    if at.defense == "spectral_signatures":
        poisoned = np.arange(200) < (0 if at.attack == "none" else 10)
        score = np.linspace(1, 0, 200)
        judged = pd.DataFrame(
            {"id": [f"t{i}" for i in range(200)], "score": score, "keep": score < 0.95, "poisoned": poisoned}
        )
    return table, judged


@pytest.fixture(scope="module")
def board() -> Board:
    return build_board(example(), loader)


def row_of(board: Board, defense: str, attack: str = "dead_code") -> Any:
    return next(row for row in board.rows if (row.defense, row.attack) == (defense, attack))


# ----------------------------------------------------------------------------------------------------------------- table


def test_seeds_are_averaged_and_one_seed_keeps_its_cells_interval(board: Board) -> None:
    none, repaired = row_of(board, "none"), row_of(board, "elibadcode")
    assert none.seeds == (0, 1)
    assert none.numbers["asr"].value == pytest.approx((27 + 29) / 60, abs=1e-6)
    cell = cell_metrics(outcomes(49, 6), "accuracy").asr
    assert repaired.numbers["asr"].low == pytest.approx(cell.low, abs=1e-6)
    assert repaired.numbers["asr"].high == pytest.approx(cell.high, abs=1e-6)


def test_two_seeds_on_the_same_inputs_count_as_one_sample(board: Board) -> None:
    number = row_of(board, "none").numbers["asr"]
    assert number.n == N_TRIGGERED
    wilson = stats.wilson(28, 30)
    assert wilson is not None
    assert wilson.low is not None
    assert number.high - number.low > 0.1, "10 modules of 3 functions, not 60 functions"


def test_all_successes_at_every_seed_are_not_certainty() -> None:
    found = build_board([record("onion", seed=s) for s in (0, 1)], lambda r: (outcomes(50, 0), None))
    asr = found.rows[0].numbers["asr"]
    high = stats.wilson(0, 10)
    assert high is not None
    assert asr.value == 0
    assert asr.high == pytest.approx(high.high, abs=1e-6), "10 modules of 3 functions: each counts once"


def test_a_cell_without_numbers_is_shown_with_its_reason_and_not_averaged(board: Board) -> None:
    repaired = row_of(board, "elibadcode")
    assert repaired.cells == {Status.OK: 1, Status.FAILED: 1}
    assert repaired.seeds == (0,)
    assert repaired.numbers["asr"].value == pytest.approx(6 / 30)
    assert repaired.notes[0].reason == BAD_REASON
    absent = row_of(board, "badacts")
    assert absent.cells == {Status.NOT_APPLICABLE: 1}
    assert absent.numbers == {}
    assert absent.mcnemar_p is None


def test_outcomes_are_loaded_for_good_cells_alone() -> None:
    seen = []

    def watched(r: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        seen.append(r.status)
        return loader(r)

    build_board(example(), watched)
    assert set(seen) == {Status.OK}


def test_a_seed_whose_table_is_broken_leaves_the_other_its_interval() -> None:
    def load(r: Record) -> tuple[pd.DataFrame, None]:
        return outcomes(50, 20).drop(columns="label" if r.coordinates.seed else []), None

    found = build_board([record("dece", seed=s) for s in (0, 1)], load)
    assert [fault.slug for fault in found.apart] == [record("dece", seed=1).coordinates.slug]
    assert "lacks column 'label'" in found.apart[0].what
    assert found.rows[0].numbers == build_board([record("dece")], load).rows[0].numbers
    assert found.rows[0].numbers["asr"].low is not None


def test_holm_runs_over_the_whole_table_and_leaves_the_undefended_out(board: Board) -> None:
    p_values = [row.mcnemar_p for row in board.rows]
    for row, expected in zip(board.rows, stats.holm(p_values), strict=True):
        assert row.mcnemar_p_holm == (None if expected is None else pytest.approx(expected, rel=1e-5))
    assert row_of(board, "none").mcnemar_p is None
    assert sum(p is not None for p in p_values) == 4


def test_several_seeds_show_the_largest_p(board: Board) -> None:
    # spectral signatures stops 7 attacks in 3 modules at seed 0 and 5 in 2 modules at seed 1, and gains none: p = 2 / 2^2
    assert row_of(board, "spectral_signatures").mcnemar_p == pytest.approx(2 / 2**2)


def test_non_inferiority_follows_the_margin() -> None:
    def found(margin: float) -> bool | None:
        return build_board([record("dece")], lambda r: (outcomes(45, 24), None), margin=margin).rows[0].non_inferior

    assert found(0.02) is False
    assert found(0.5) is True


def test_the_undefended_row_is_not_compared_with_itself(board: Board) -> None:
    none = row_of(board, "none")
    assert none.numbers["clean_delta"].value is None
    assert none.non_inferior is None
    assert none.numbers["lift"].value is not None


def test_without_an_attack_no_asr_is_shown(board: Board) -> None:
    row = row_of(board, "elibadcode", "none")
    assert row.numbers["asr"].value is None
    assert row.numbers["clean"].value is not None


def test_rows_stand_in_a_fixed_order_whatever_the_order_of_the_records(board: Board) -> None:
    turned = build_board(list(reversed(example())), loader)
    assert turned == board
    assert [row.attack for row in board.rows[:5]] == ["none"] * 5
    assert [row.family for row in board.rows[:5]] == ["none", "filter", "training", "repair", "screen"]


def test_costs_are_means_over_seeds() -> None:
    records = [
        record("dece", seed=0),
        record("dece", seed=1, cost=CostFacts(forward_tokens=500_000, clean_samples=100)),
    ]
    timings = {r.coordinates.slug: {"seconds": 10.0 + 4 * r.coordinates.seed, "peak_bytes": 5.0} for r in records}
    row = build_board(records, loader, timings=timings).rows[0]
    assert (row.tokens, row.clean_samples, row.wall_seconds, row.peak_bytes) == (1_000_000, 150, 12, 5)
    timings.popitem()
    assert build_board(records, loader, timings=timings).rows[0].wall_seconds is None


# ---------------------------------------------------------------------------------------------------------------- blocks


def left(**found: list[float]) -> dict[str, dict[tuple[str, str, str], float]]:
    return {name: {("t", "m", f"a{i}"): x for i, x in enumerate(values)} for name, values in found.items()}


def test_five_blocks_are_not_enough_and_six_are() -> None:
    five = summarise_blocks(left(none=[0.8] * 5, d=[0.1] * 5), control="none")
    d = next(s for s in five if s.defense == "d")
    assert (d.blocks, d.p, d.reason, d.wins) == (5, None, "not enough blocks", 5)
    six = summarise_blocks(left(none=[0.8] * 6, d=[0.1] * 6), control="none")
    d = next(s for s in six if s.defense == "d")
    assert d.p == pytest.approx(2 / 64)
    assert (d.median_difference, d.median_low, d.median_high) == pytest.approx((-0.7, -0.7, -0.7))
    assert (d.effect, d.mean_rank, d.group) == (-1.0, 1.0, "a")
    assert next(s for s in six if s.defense == "none").group == "b"


def test_missing_blocks_are_left_out_and_ranks_use_complete_ones() -> None:
    table = left(none=[0.8] * 8, d=[0.1] * 8, e=[0.2] * 7)
    found = {s.defense: s for s in summarise_blocks(table, control="none")}
    assert (found["d"].blocks, found["e"].blocks) == (8, 7)
    assert {s.rank_blocks for s in found.values()} == {7}


def test_holm_counts_the_two_questions_of_a_pair_and_no_other_defense() -> None:
    table = left(none=[0.8] * 6, d=[0.1] * 6, e=[0.2] * 6)
    alone = {s.defense: s for s in summarise_blocks(table, control="none")}
    assert alone["d"].p_holm == pytest.approx(2 / 64)
    assert alone["none"].p is None
    accuracy = left(none=[0.9] * 6, d=[0.9] * 6, e=[0.8] * 6)
    both = {s.defense: s for s in summarise_blocks(table, control="none", clean=accuracy)}
    assert (both["d"].p_holm, both["d"].clean_p_holm) == pytest.approx((2 * 2 / 64, 1.0))
    assert both["d"].p_table == pytest.approx(3 * 2 / 64), "three pairs on the board"


def test_without_a_control_nothing_is_compared() -> None:
    found = summarise_blocks(left(d=[0.1] * 6), control=None)
    assert found[0].reason == "no undefended cells to compare with"


# ------------------------------------------------------------------------------------------------------------ renderings


def markdown_tables(text: str) -> list[list[dict[str, str]]]:
    """Tables of a Markdown page as dictionaries, escapes undone."""
    tables: list[list[dict[str, str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.strip().splitlines()]
        cells = [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in line] for line in lines]
        assert len({len(line) for line in cells}) == 1, "every row has as many cells as the header"
        tables.append([dict(zip(cells[0], line, strict=True)) for line in cells[2:]])
    return tables


def test_markdown_csv_and_json_hold_the_same_values(board: Board) -> None:
    from_json = json.loads(to_json(board))["rows"]
    from_csv = list(csv.DictReader(io.StringIO(to_csv(board))))
    from_markdown = [
        row for table in markdown_tables(to_markdown(board)) for row in table if "family" in row and "ASR₀" in row
    ]
    assert len(from_json) == len(from_csv) == len(from_markdown) == len(board.rows)
    shown = {
        "ACC": "clean",
        "ΔACC": "clean_delta",
        "ASR": "asr",
        "ASR₀": "asr_reference",
        "lift": "lift",
        "RA": "robust_accuracy",
    }
    compared = 0
    for one, line, printed in zip(from_json, from_csv, from_markdown, strict=True):
        assert one["defense"] == line["defense"] == printed["defense"].split(" (")[0]
        for header, name in shown.items():
            number = one["numbers"].get(name, {"value": None, "low": None, "high": None, "n": 0})
            for key, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high"), ("n", f"{name}_n")):
                assert line[column] == ("" if number[key] is None else str(number[key]))
            if number["value"] is None:
                assert printed[header] == "–"
                continue
            digits = [float(x) for x in re.findall(r"[-+]?\d+\.\d", printed[header])]
            assert digits == [pytest.approx(100 * number[key], abs=0.0501) for key in ("value", "low", "high")]
            compared += 1
    assert compared > 30


def test_json_reads_back_as_the_same_table(board: Board) -> None:
    assert Board.model_validate_json(to_json(board)) == board


def test_strings_from_outside_cannot_break_the_page(board: Board) -> None:
    assert escape_markdown("a|b\r\nc <x> `y` [z](u) *w* snake_case _em_") == (
        r"a\|b c \<x\> \`y\` [z]\(u) \*w\* snake_case \_em\_"
    )
    page = to_markdown(board)
    assert r"elibadcode, seed 1: failed: stage repair: ValueError: a\|b second \<line\> of \*it\*" in page


def test_a_hostile_name_stays_in_its_cell() -> None:
    evil = record("x | y\n# title <script>")
    page = to_markdown(build_board([evil], lambda r: (outcomes(50, 5), None)))
    table = markdown_tables(page)[0]
    assert table[0]["defense"] == "x | y # title <script> (v2)"
    assert "\n# title" not in page


def test_every_printed_column_is_defined(board: Board) -> None:
    page = to_markdown(board)
    definitions = page.split("## Definitions")[1]
    for header in (
        "ACC",
        "ΔACC",
        "loss \\< 2",
        "ASR",
        "ASR₀",
        "lift",
        "McNemar p",
        "reverse ASR",
        "RA",
        "coverage",
        "visible",
    ):
        assert re.search(rf"\*\*[^\n]*{re.escape(header)}[^\n]*\*\*: ", definitions), header
    for header in ("AUROC", "clean lost", "recovery", "cells", "cost"):
        assert f"**{header}**: " in definitions


def test_the_page_says_what_few_seeds_and_few_blocks_mean(board: Board) -> None:
    page = to_markdown(board)
    assert "sample uncertainty only" in page
    assert "not enough blocks" in page
    many = build_board(
        [record("none", seed=s) for s in range(5)], lambda r: (outcomes(50 + r.coordinates.seed, 20), None)
    )
    assert "sample uncertainty only" not in to_markdown(many)


GOLDEN_ROW = (
    "| none | none | nothing | 85.0 [63.5, 94.9] | – | – | 90.0 [58.3, 98.3] | 20.0 [5.4, 52.1] | +70.0 [+24.9, +86.8] | – "
    "| 10.0 [1.8, 40.4] | 10.0 [1.7, 41.7] | 75.0 | 100.0 | – | – | – | 60 / 30 | 1: 0 | 1 ok | 1.5 M tokens, 200 clean |"
)


def test_a_row_reads_as_expected() -> None:
    page = to_markdown(build_board([record("none")], lambda r: (outcomes(51, 27), None)))
    rows = [re.sub(r" +", " ", line) for line in page.splitlines() if line.startswith("| none")]
    assert rows[0] == GOLDEN_ROW


def test_a_search_board_shows_ranks_in_place_of_labels() -> None:
    table = outcomes(0, 27)
    table = table[table["part"] != "reverse"]
    table = table.assign(label=-1, prediction=-1, reference_prediction=-1, undefended_prediction=-1, pool=1000)
    for prefix in ("", "reference_", "undefended_"):
        table[f"{prefix}rank"] = np.where(table["part"] == "clean", 2, np.where(table[f"{prefix}success"], 7, 500))
        table.loc[table["part"] == "clean", f"{prefix}success"] = False
    board = build_board([record("dece", metric="mrr")], lambda r: (table, None))
    row = markdown_tables(to_markdown(board))[0][0]
    assert (row["MRR"][:4], row["ASR@1"], row["ASR@10"]) == ("50.0", "0.0", "90.0")
    assert row["ANR"].startswith(f"{100 * (27 * 0.007 + 3 * 0.5) / 30:.1f} [")
    assert "RA" not in row


def test_an_empty_board_says_so(tmp_path: Path) -> None:
    paths = write_board([], loader, tmp_path)
    assert "There are no cells." in paths["board.md"].read_text()
    assert not [name for name in paths if name.endswith(("png", "svg"))]


def test_rendering_again_gives_the_same_bytes(tmp_path: Path) -> None:
    one = write_board(example(), loader, tmp_path / "one")
    other = write_board(list(reversed(example())), loader, tmp_path / "other")
    assert set(one) == {
        *("board.md", "board.csv", "board.tex", "board.json", "pairs.csv", "tradeoff.png", "tradeoff.svg"),
        *("implantation.png", "implantation.svg", "findings.md"),
    }
    for name in one:
        assert one[name].read_bytes() == other[name].read_bytes(), name
        assert one[name].stat().st_size > 50


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_board([record("none")], loader, tmp_path / "file" / "board")


def test_the_terminal_shows_each_row_once_without_reading_markup() -> None:
    out = io.StringIO()
    found = build_board([record("none"), record("[red]dece")], lambda r: (outcomes(50, 5), None))
    print_board(found, Console(file=out, width=200))
    text = out.getvalue()
    assert text.count("[red]dece") == 1
    assert "defect_detection · tiny · dead_code" in text
    assert "lift" in text


def test_a_results_folder_is_published_from_its_stored_outcomes(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    folder.cells.mkdir()
    stored = [record("none"), record("spectral_signatures"), record("dbs", status=Status.NOT_RUN)]
    for one in stored:
        slug = one.coordinates.slug
        (folder.cells / f"{slug}.json").write_text(one.model_dump_json())
        if one.status is Status.OK:
            table, judged = loader(one)
            write_outcomes(table, folder.cells / f"{slug}.parquet")
            if judged is not None:
                write_filter(judged, folder.cells / f"{slug}.filter.parquet")
    out = io.StringIO()
    paths = publish(folder, 0.02, Console(file=out, width=200))
    assert Board.model_validate_json(paths["board.json"].read_text()) == build_board(stored, loader)
    assert all(str(path) in out.getvalue() for path in paths.values())
    (folder.cells / f"{stored[0].coordinates.slug}.parquet").unlink()
    paths = publish(folder, 0.02, Console(file=out))
    found = Board.model_validate_json(paths["board.json"].read_text())
    assert [fault.slug for fault in found.apart] == [stored[0].coordinates.slug]
    assert "run the cell again" in found.apart[0].what
    assert {row.defense for row in found.rows} == {"spectral_signatures", "dbs"}
