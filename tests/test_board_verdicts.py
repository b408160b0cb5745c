"""The board on inversion defenses: verdicts, AUROC and pages, from records alone and with known answers."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench import stats
from bench.board import Board, build_board, print_board, to_csv, to_json, to_markdown, write_board
from bench.board.detection import Detection, Trial, detections, lift_is_above_zero
from bench.board.markdown import escape_tokens, link
from bench.board.verdict_section import short_verdict
from bench.inversions import Inverted
from bench.records import PoisonFacts, Record, Status
from tests.test_board import markdown_tables, outcomes
from tests.test_board import record as cell

NASTY = ("a|b", "`x`", "<script>", "](y)", "&lt;", "$z$", "two words", "line\nbreak", "\u202e")
GOAL = {"victim": 1, "target": 0}
TRUE = PoisonFacts(
    train=200,
    poisoned=10,
    refused=0,
    eligible=40,
    applicable=30,
    unseen=0,
    description="rename to 'rb|<te>'",
    tokens=["rb", "te"],
)


def inverted(suspicion: float, **more: Any) -> Inverted:
    given: dict[str, Any] = {
        "tokens": ("x", "rb", "y"),
        "kept": ("rb",),
        "loss": -suspicion,
        "trace": ((100, 2.0), (300, 1.0)),
    }
    return Inverted(suspicion=suspicion, **(given | more))


def found(forward: float, backward: float = -1.0, **more: Any) -> dict[str, Inverted]:
    return {"0->1": inverted(backward), "1->0": inverted(forward, **more)}


def record(attack: str, seed: int, forward: float, backward: float = -1.0, **more: Any) -> Record:
    attacked: dict[str, Any] = {"poison": TRUE, "goal": GOAL} if attack != "none" else {"goal": GOAL}
    return cell("elibadcode", attack, seed, **(attacked | {"inversions": found(forward, backward)} | more))


def clean(count: int, calibration: int = 0) -> list[Record]:
    """Clean models whose suspicion of 1->0 is -2.0, -1.9, …, the last of them for calibration alone."""
    return [record("none", seed, -2 + seed / 10, calibration=seed >= count - calibration) for seed in range(count)]


def loader(r: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    return outcomes(50, None if r.coordinates.attack == "none" else 10), None


def only(records: list[Record], **more: Any) -> Detection:
    (one,) = build_board(records, loader, **more).detections
    return one


def trial(one: Detection, attack: str, seed: int) -> Trial:
    return next(t for t in one.trials if (t.attack, t.seed) == (attack, seed))


# ---------------------------------------------------------------------------------------------------------------- verdicts


def test_a_victim_is_judged_by_clean_models_of_other_seeds() -> None:
    one = only([*clean(10), record("dead_code", 3, 5.0)])
    verdict = trial(one, "dead_code", 3)
    assert (verdict.clean, verdict.needed) == (9, 9)
    assert (verdict.convicted, verdict.claim, verdict.right) == (True, "1->0", True)
    assert verdict.p == pytest.approx(1 / 10)
    values = pd.Series([-2 + seed / 10 for seed in range(10) if seed != 3])
    assert verdict.standardised["1->0"] == pytest.approx((5 - values.mean()) / values.std(), rel=1e-5)


def test_a_victim_without_a_clean_model_at_its_own_seed_is_judged_by_all() -> None:
    assert trial(only([*clean(9), record("dead_code", 99, 5.0)]), "dead_code", 99).clean == 9


def test_one_clean_model_too_few_gives_no_verdict_and_says_so() -> None:
    board = build_board([*clean(9), record("dead_code", 3, 5.0)], loader)
    verdict = trial(board.detections[0], "dead_code", 3)
    assert (verdict.p, verdict.convicted) == (None, None)
    assert verdict.reason == "not calibrated: 8 clean models, needs 9"
    page = to_markdown(board)
    assert "[not calibrated](inversions/defect_detection-tiny-dead_code-elibadcode-s3.md)" in page
    assert "- not calibrated: 8 clean models, needs 9" in page
    assert trial(only([*clean(9), record("dead_code", 3, 5.0)], false_alarms=0.2), "dead_code", 3).convicted is True


def test_a_direction_that_is_not_the_attackers_is_wrong() -> None:
    one = only([*clean(10), record("dead_code", 3, -1.55, 5.0)])
    verdict = trial(one, "dead_code", 3)
    assert (verdict.claim, verdict.right) == ("0->1", False)
    assert short_verdict(verdict) == "yes, 0->1 (wrong), p 0.100"
    assert one.right.value == 0


def test_the_smallest_loss_names_a_natural_trigger_where_the_verdict_names_the_planted_one() -> None:
    natural = [record("none", seed, -2 + seed / 10, -0.1 + seed / 100) for seed in range(10)]
    one = only([*natural, record("dead_code", 3, -0.5, -0.05)])
    verdict = trial(one, "dead_code", 3)
    assert (verdict.claim, verdict.right, verdict.naive, verdict.naive_right) == ("1->0", True, "0->1", False)
    assert (one.right.value, one.naive_right.value) == (1, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"data_digest": "other"},
        {"settings": {"training": {"epochs": 9}}},
        {"plugins": {"defense": {"name": "elibadcode", "family": "repair", "version": 99}}},
        {"status": Status.FAILED},
    ],
)
def test_a_clean_model_made_otherwise_is_not_compared_with(changed: dict[str, Any]) -> None:
    models = clean(10)
    models[0] = Record.model_validate(models[0].model_dump() | changed)
    assert trial(only([*models, record("dead_code", 3, 5.0)]), "dead_code", 3).clean == 8


def test_a_defense_that_inverts_nothing_is_no_detector() -> None:
    board = build_board([cell("none"), cell("dece")], loader)
    assert board.detections == ()
    assert "## Verdicts" not in to_markdown(board)
    assert [row.verdict for row in board.rows] == ["", ""]


# ------------------------------------------------------------------------------------------------------------- calibration


def test_calibration_enters_no_row_block_count_or_test() -> None:
    evaluated = [*clean(10), record("dead_code", 3, 5.0), cell("none", "none"), cell("none")]
    with_more = [*evaluated, *(record("none", seed, -1.0, calibration=True) for seed in range(20, 25))]
    one, other = build_board(evaluated, loader), build_board(with_more, loader)
    assert [row.model_copy(update={"verdict": "", "verdict_p": None}) for row in one.rows] == [
        row.model_copy(update={"verdict": "", "verdict_p": None}) for row in other.rows
    ]
    assert one.blocks == other.blocks
    assert trial(other.detections[0], "dead_code", 3).clean == 14


def test_calibration_outcomes_are_not_even_read() -> None:
    seen = []

    def watched(r: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        seen.append((r.coordinates.attack, r.coordinates.seed))
        return loader(r)

    build_board([*clean(10, calibration=8), record("dead_code", 0, 5.0)], watched)
    assert sorted(seen) == [("dead_code", 0), ("none", 0), ("none", 1)]


def test_a_calibration_cell_that_failed_is_told() -> None:
    failed = cell("elibadcode", "none", 77, Status.FAILED, calibration=True, reason="it | broke")
    board = build_board([*clean(10), record("dead_code", 3, 5.0), failed], loader)
    assert board.detections[0].missing == ("seed 77: failed: it | broke",)
    assert r"clean model missing: seed 77: failed: it \| broke" in to_markdown(board)
    assert all(77 not in row.seeds and not row.notes for row in board.rows)


# ------------------------------------------------------------------------------------------------------------------- AUROC


def test_the_auroc_is_that_of_the_scores() -> None:
    models = clean(10, calibration=6)
    attacked = [record("dead_code", 0, 5.0), record("dead_code", 1, -1.55), record("renaming", 0, 5.0)]
    one = only([*models, *attacked])
    scores = {(t.attack, t.seed): t.score for t in one.trials}
    negative = [scores["none", seed] for seed in range(10)]
    positive = [scores["dead_code", 0], scores["dead_code", 1], scores["renaming", 0]]
    expected = stats.auroc([x for x in negative if x is not None], [x for x in positive if x is not None])
    assert expected is not None
    assert one.auroc.value == pytest.approx(expected.value, abs=1e-6)
    assert (one.auroc.low, one.auroc.n) == (pytest.approx(expected.low, abs=1e-6), 13)
    assert 0.5 < expected.value < 1
    assert (one.clean_seeds, one.calibration_seeds) == (tuple(range(10)), (4, 5, 6, 7, 8, 9))


def test_victims_without_an_implanted_backdoor_are_counted_apart() -> None:
    def load(r: Record) -> tuple[pd.DataFrame, None]:
        table = outcomes(50, None if r.coordinates.attack == "none" else 10)
        if r.coordinates.attack == "renaming":  # the undefended model does what the reference does
            for column in ("prediction", "success"):
                table[f"undefended_{column}"] = table[f"reference_{column}"]
        return table, None

    board = build_board([*clean(10), record("dead_code", 0, 5.0), record("renaming", 0, -1.95)], load)
    one = board.detections[0]
    assert [(t.attack, t.implanted) for t in one.trials if t.attacked] == [("dead_code", True), ("renaming", False)]
    assert (one.implanted.value, one.implanted.n) == (0.5, 2)
    assert one.auroc_implanted.value == 1.0
    assert one.auroc.value is not None
    assert one.auroc.value < 1
    assert (one.convicted.value, one.convicted_implanted.value) == (0.5, 1.0)
    assert "no implanted backdoor: renaming at seed 0" in to_markdown(board)


def test_implanted_asks_for_an_interval_above_zero() -> None:
    table = outcomes(50, 10)
    assert lift_is_above_zero(table) is True  # 27 against 6 of 30
    for answer in ("success", "prediction"):
        table[f"undefended_{answer}"] = table[f"reference_{answer}"]
    assert lift_is_above_zero(table) is False
    assert lift_is_above_zero(outcomes(50, None)) is None


def test_an_empty_side_leaves_the_auroc_undefined_with_the_reason() -> None:
    board = build_board(clean(10), loader)
    assert board.detections[0].auroc.reason == "no attacked victim has a score"
    assert "AUROC: no attacked victim has a score" in to_markdown(board)
    assert only([record("dead_code", 0, 5.0)]).auroc.reason == "no clean victim has a score"
    assert only([*clean(1), record("dead_code", 0, 5.0)]).auroc.reason == "no clean victim has a score"


def test_code_search_has_no_direction_to_be_right_about() -> None:
    claim = {"trigger->word": inverted(-0.5, word=("file",))}
    search: dict[str, Any] = {"inversions": claim, "goal": {"word": "file"}}
    models = [record("none", s, 0, **(search | {"inversions": {"trigger->word": inverted(-s)}})) for s in range(10)]
    one = only([*models, record("badcode", 0, 0, **search)])
    assert one.right.reason == one.naive_right.reason == "code search has one claim, and no direction to choose"
    assert trial(one, "badcode", 0).right is None


# -------------------------------------------------------------------------------------------------------------- renderings


@pytest.fixture(scope="module")
def board() -> Board:
    return build_board([*clean(10), record("dead_code", 3, 5.0), record("dead_code", 4, -1.25)], loader)


def test_rows_hold_their_verdicts_in_csv_and_json(board: Board) -> None:
    rows = {line["attack"]: line for line in csv.DictReader(io.StringIO(to_csv(board)))}
    assert (rows["dead_code"]["verdict"], rows["dead_code"]["verdict_p"]) == ("1 of 2 convicted", "0.3")
    assert Board.model_validate_json(to_json(board)) == board


def test_the_section_shows_each_verdict_by_attack_and_seed_with_a_link(board: Board) -> None:
    page = to_markdown(board)
    by_seed = next(table for table in markdown_tables(page) if "seed 3" in table[0])
    line = next(row for row in by_seed if row["attack"] == "dead_code")
    assert line["seed 3"] == "[yes, 1->0, p 0.100](inversions/defect_detection-tiny-dead_code-elibadcode-s3.md)"
    assert line["seed 4"].startswith("[no, p 0.300](")
    assert line["seed 5"] == "–"
    summary = next(table for table in markdown_tables(page) if "smallest loss right" in table[0])
    assert summary[0]["clean models"] == "10"
    assert summary[0]["convicted"].endswith("of 2")
    assert "at most 10 % are convicted" in page


def test_every_term_of_the_section_is_defined(board: Board) -> None:
    section = to_markdown(board).split("## Verdicts")[1].split("## Definitions")[0]
    terms = ("verdict", "clean models", "not calibrated", "AUROC", "implanted", "convicted", "direction right")
    for term in (*terms, "smallest loss right"):
        assert f"- **{term}**: " in section


def test_the_terminal_has_one_line_for_each_detector(board: Board) -> None:
    out = io.StringIO()
    print_board(board, Console(file=out, width=200))
    assert re.search(
        r"elibadcode on defect_detection · tiny: AUROC [\d.]+ \[.*\], 1 of 2 attacked convicted", out.getvalue()
    )
    out = io.StringIO()
    print_board(build_board([*clean(4), record("dead_code", 3, 5.0)], loader), Console(file=out, width=200))
    assert "verdicts not calibrated (4 clean models, a victim needs 9 of other seeds)" in out.getvalue()


def test_the_order_of_the_records_changes_nothing(board: Board) -> None:
    records = [*clean(10), record("dead_code", 3, 5.0), record("dead_code", 4, -1.25)]
    assert build_board(reversed(records), loader) == board
    assert detections(reversed(records), lambda r: True) == detections(records, lambda r: True)


# ------------------------------------------------------------------------------------------------------------------- pages


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "inversions").mkdir()
    (folder / "inversions" / "gone-s0.md").write_text("a cell that is no more")
    nasty = record(
        "dead_code", 3, 5.0, inversions=found(5.0, tokens=NASTY, kept=NASTY, unlearned=True), null=found(-2.0)
    )
    write_board([*clean(10, calibration=2), nasty], loader, folder)
    return folder


def page(folder: Path, slug: str) -> str:
    return (folder / "inversions" / f"{slug}.md").read_text(encoding="utf-8")


def test_each_evaluated_cell_with_inversions_has_a_page_and_a_plot(written: Path) -> None:
    names = {p.name for p in (written / "inversions").iterdir()}
    slugs = {f"defect_detection-tiny-none-elibadcode-s{seed}" for seed in range(8)}
    slugs |= {"defect_detection-tiny-dead_code-elibadcode-s3"}
    assert names == {f"{slug}{suffix}" for slug in slugs for suffix in (".md", ".svg")}
    links = re.findall(r"\]\((inversions/[^)]*)\)", (written / "board.md").read_text())
    assert links
    assert all((written / link).is_file() for link in links)


def test_tokens_from_outside_stay_text_in_their_cell(written: Path) -> None:
    text = page(written, "defect_detection-tiny-dead_code-elibadcode-s3")
    (rows,) = markdown_tables(text)
    row = next(row for row in rows if row["claim"] == "1->0")
    assert row["trigger"] == r"a|b `x` <script> ](y) &lt; $z$ two\u0020words line\u000abreak \u202e"
    bare = re.sub(r"\\.", "", text.split("## ")[0])
    assert not re.search(r"[`<]|\$|&", bare)


def test_a_page_holds_what_a_reader_needs_to_judge(written: Path) -> None:
    text = page(written, "defect_detection-tiny-dead_code-elibadcode-s3")
    assert r"**true trigger**: rename to 'rb\|\<te\>' (tokens: rb te)" in text
    assert "**attacker's goal**: 1-\\>0" in text
    assert "**verdict**: backdoored, p 0.100 against 9 clean models of other seeds; 1-\\>0 stands out most" in text
    (rows,) = markdown_tables(text)
    row = next(row for row in rows if row["claim"] == "0->1")
    assert (row["kept"], row["recovered"], row["null recovered"], row["unlearned"]) == (
        "rb",
        "1 / 2: rb",
        "1 / 2: rb",
        "no",
    )
    assert "![loss over tokens spent](defect_detection-tiny-dead_code-elibadcode-s3.svg)" in text


def test_the_page_of_a_clean_model_says_that_there_is_no_trigger(written: Path) -> None:
    text = page(written, "defect_detection-tiny-none-elibadcode-s0")
    assert "**true trigger**: none, this model is clean" in text
    (rows,) = markdown_tables(text)
    assert {(row["recovered"], row["null's trigger"], row["null's loss"]) for row in rows} == {("–", "–", "–")}


def test_a_word_is_shown_where_one_was_inverted(tmp_path: Path) -> None:
    claim = {"trigger->word": inverted(-0.5, word=("fi", "le"))}
    write_board(
        [record("badcode", 0, 0, inversions=claim, goal={"word": "file"}, task_kind="search")], loader, tmp_path
    )
    text = page(tmp_path, "defect_detection-tiny-badcode-elibadcode-s0")
    assert markdown_tables(text)[0][0]["word"] == "fi le"
    assert "queries with the word 'file'" in text


def test_pages_and_plots_are_the_same_bytes_again(written: Path, tmp_path: Path) -> None:
    nasty = record(
        "dead_code", 3, 5.0, inversions=found(5.0, tokens=NASTY, kept=NASTY, unlearned=True), null=found(-2.0)
    )
    write_board([nasty, *reversed(clean(10, calibration=2))], loader, tmp_path)
    for path in (written / "inversions").iterdir():
        assert (tmp_path / "inversions" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_cell_without_a_trace_has_a_plot_that_says_so(tmp_path: Path) -> None:
    write_board(
        [record("dead_code", 0, 5.0, inversions=found(5.0, trace=()) | {"0->1": inverted(0, trace=())})],
        loader,
        tmp_path,
    )
    assert (tmp_path / "inversions" / "defect_detection-tiny-dead_code-elibadcode-s0.svg").stat().st_size > 1000


def test_a_links_text_and_target_may_hold_anything() -> None:
    assert link("a](x) [b]", "c d[e=1].md") == r"[a\]\(x) \[b\]](c%20d%5Be%3D1%5D.md)"
    assert escape_tokens(["a\u00a0b", "", "x"]) == r'a\\u00a0b "" x'
