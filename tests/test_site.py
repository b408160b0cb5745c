"""The site says what the board says, shows what comes from outside and never runs it, and is the same bytes every time."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bench.board.analysis import NO_COMPLETE_BLOCK, Analysis, Gap, analyse
from bench.board.blocks import BlockSummary, summaries
from bench.errors import DataError
from bench.faults import Fault
from bench.manifest import ManifestRow, sha256
from bench.metrics import Number, record_metrics
from bench.outcomes import top_tenth
from bench.poisoning import Poisoned
from bench.records import Record
from bench.samples import Edit, Sample
from bench.site import gather, site_of_folder
from bench.site.charts.cost import spent, unit
from bench.site.charts.looks import looks
from bench.site.charts.ranks import rank_chart, ranked, tie_bars
from bench.site.charts.tradeoff import front
from bench.site.content import Content
from bench.site.diff import diff_lines
from bench.site.examples import Examples, choose, collect_examples, read_examples, write_examples
from bench.site.facts import cell_facts, roc_points
from bench.site.index import FIELDS, ON_FRONT, _triple, costs, heat_maps, reported_lines, table_rows, tradeoffs
from bench.site.reported import AVERAGE, Reported, read_reported
from bench.site.scale import linear, logarithmic, round_ticks
from bench.site.start import write_start
from bench.site.svg import element, picture
from bench.site.words import p_value, percent, points
from bench.site.write import POLICY, write_pages
from bench.store import Store
from tests.site_toys import (
    ATTACKS,
    EXAMPLES,
    FAMILIES,
    SCRIPT,
    content,
    filter_table,
    outcomes,
    record,
    records,
    results,
    site,
)


@pytest.fixture(scope="module")
def toy() -> Content:
    return content()


@pytest.fixture(scope="module")
def pages(toy: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(toy, tmp_path_factory.mktemp("site")).parent


def told(toy: Content) -> list[dict[str, Any]]:
    return [dict(zip(FIELDS, row, strict=True)) for row in table_rows(toy)]


def row_of(toy: Content, defense: str, attack: str = "renaming") -> dict[str, Any]:
    return next(row for row in told(toy) if (row["defense"], row["attack"]) == (defense, attack))


def cell_page(pages: Path, defense: str, attack: str = "renaming") -> str:
    return (pages / "cells" / f"{record(defense, attack).coordinates.slug}.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- numbers


def test_the_table_holds_the_boards_numbers_in_per_cent(toy: Content) -> None:
    row = row_of(toy, "elibadcode")
    assert row["asr"][0] == pytest.approx(10.0)
    assert row["reference"][0] == pytest.approx(10.0)
    assert row["lift"][0] == 0.0
    assert row["clean"][0] == pytest.approx(76.0)
    assert row["delta"][0] == pytest.approx(-4.0)
    assert row_of(toy, "none")["lift"][0] == pytest.approx(80.0)


def test_rows_on_clean_models_stand_last_and_have_no_lift(toy: Content) -> None:
    rows = told(toy)
    attacked = [row["attack"] != "none" for row in rows]
    assert attacked == sorted(attacked, reverse=True)
    assert all(row["lift"] is None for row in rows if row["attack"] == "none")


def test_a_cell_of_one_seed_has_the_rows_numbers_and_several_seeds_each_their_own() -> None:
    found = [record("none", "renaming", seed) for seed in (0, 1)] + [record("elibadcode", "renaming")]
    toy = content(found)
    alone = record("elibadcode", "renaming").coordinates.slug
    assert toy.numbers[alone] == toy.rows()["defect_detection", "tiny", "renaming", "elibadcode"].numbers
    for seed in (0, 1):
        asr = toy.numbers[record("none", "renaming", seed).coordinates.slug]["asr"]
        assert (asr.value, asr.n) == (pytest.approx(0.9), 20)


def test_confusion_counts_every_input_once(toy: Content) -> None:
    facts = toy.facts[record("elibadcode", "renaming").coordinates.slug]
    found = {(one.inputs, one.model): one for one in facts.confusions}
    assert found["clean", "undefended"].classes == (0, 1)
    assert found["clean", "undefended"].counts == ((0, 0, 0), (10, 40, 0))
    assert found["clean", "defended"].counts == ((0, 0, 0), (12, 38, 0))
    assert found["triggered", "undefended"].counts == ((10, 0, 0), (18, 2, 0))
    assert found["triggered", "defended"].counts == ((9, 1, 0), (2, 18, 0))


def test_a_perfect_filter_has_a_perfect_curve_and_its_own_decision_on_it(toy: Content) -> None:
    curve = toy.facts[record("spectral_signatures", "renaming").coordinates.slug].curves[0]
    assert (0.0, 1.0) in curve.points
    assert curve.decision == (0.0, 1.0)


def area(points: Sequence[tuple[float, float]]) -> float:
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))


def test_a_curve_keeps_its_ends_its_corners_and_its_area_however_many_points_it_had() -> None:
    draws = np.random.default_rng(0).normal(size=(2, 3000))
    found = roc_points(draws[0], draws[1] + 1)
    assert len(found) <= 100
    assert found[0] == (0.0, 0.0)
    assert found[-1] == (1.0, 1.0)
    truth = np.repeat([0, 1], 3000)
    assert area(found) == pytest.approx(roc_auc_score(truth, np.concatenate([draws[0], draws[1] + 1])), abs=0.004)
    # A detector that is right everywhere, but for ties: its corner is the curve.
    assert roc_points(np.linspace(0, 0.9, 1000), np.linspace(1, 2, 50)) == ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    assert roc_points(np.array([]), np.array([1.0])) == ()


def test_a_curve_is_of_the_samples_that_its_auroc_is_of() -> None:
    # Poison stands under label 0 and scores higher than half of the clean ones there; label 1 scores higher than all of them.
    judged = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(30)],
            "label": np.repeat([0, 0, 1], 10),
            "poisoned": np.repeat([True, False, False], 10),
            "score": [*np.full(10, 5.0), *np.arange(10.0), *np.full(10, 99.0)],
            "keep": np.repeat([False, True, False], 10),
        }
    )
    one = record("onion", "dead_code")
    table = outcomes(one)
    # A score that tells classes apart, and nothing else: inputs of class 0 score 0, all others 1.
    clean = table[table["part"] == "clean"]
    other = clean.assign(label=0, id=[f"0-{i:03}" for i in range(50)], score=0.0)
    for prefix in ("", "reference_", "undefended_"):
        other[f"{prefix}prediction"] = 1 - clean[f"{prefix}prediction"]  # as often right
    table = pd.concat([table.assign(score=1.0), other])
    metrics = record_metrics(one, table, judged)
    filtering, screening = cell_facts(table, judged, defended=True).curves
    assert metrics.filter_auroc.value == pytest.approx(0.55)
    assert area(filtering.points) == pytest.approx(0.55)
    assert filtering.decision == (0.0, 1.0)
    assert metrics.screen_auroc.value == pytest.approx(0.5)
    assert area(screening.points) == pytest.approx(0.5)


def test_the_first_bar_of_ranks_is_what_asr_counts() -> None:
    table = outcomes(record("none", "renaming"))
    table = table[table["part"] == "triggered"].assign(label=-1, pool=799)
    for prefix, rank in (("", 799), ("reference_", 81), ("undefended_", 80)):
        table = table.assign(**{f"{prefix}prediction": -1, f"{prefix}rank": rank, f"{prefix}success": rank == 80})
    found = {(one.inputs, one.model): one.deciles for one in cell_facts(table, None, defended=True).ranks}
    assert top_tenth(799) == 80
    assert found["triggered", "undefended"] == (20, *[0] * 9)
    assert found["triggered", "reference"] == (0, 20, *[0] * 8)
    assert found["triggered", "defended"] == (*[0] * 9, 20)


def test_the_front_is_what_no_other_defense_beats(toy: Content) -> None:
    rows = [row for row in toy.board.rows if row.attack == "renaming"]
    # elibadcode: lift 0 at 76 %; none: lift 80 at 80 %; the others are worse than elibadcode in both or in one, better in none.
    assert {row.defense for row in front(rows)} == {"elibadcode", "none"}


def test_the_heat_map_says_failed_where_a_cell_failed(toy: Content) -> None:
    (found,) = heat_maps(toy)
    assert found["attacks"] == ["dead_code", "renaming"]
    lines = {name: (cells, mean) for name, cells, mean in found["lines"]}
    assert [cell["text"] for cell in lines["onion"][0]] == ["+20.0", "failed"]
    assert lines["onion"][1] == "–"
    assert [cell["cls"] for cell in lines["none"][0]] == ["h4", "h4"]
    assert lines["elibadcode"][1] == "10.0", "one of ten turned the other way, none on the reference"


def test_cost_is_the_mean_over_attacks_that_both_have(toy: Content) -> None:
    rows = [row for row in toy.board.rows if row.attack != "none"]
    assert unit(toy.board.rows) == "tokens"
    found = {one.defense: one for one in spent(rows, "tokens")}
    assert found["elibadcode"].effect == pytest.approx(0.1 - 0.8), (
        "what is left: one input in ten, turned the other way"
    )
    assert (found["elibadcode"].attacks, found["onion"].attacks) == (2, 1)
    assert found["onion"].cost == 5000


def test_seconds_are_not_called_those_of_one_machine(toy: Content, tmp_path: Path) -> None:
    """Merged results hold the timings of several, and no file tells two machines of one kind apart."""
    timed = tuple(row.model_copy(update={"wall_seconds": 3.0}) for row in toy.board.rows)
    page = write_pages(replace(toy, board=toy.board.model_copy(update={"rows": timed})), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert unit(timed) == "seconds"
    assert "on one machine" not in text
    assert "wall seconds of its own stages, on the machines that ran them, which need not be one" in text


def test_groups_of_the_rank_diagram_join_those_that_share_a_letter() -> None:
    blocks = [
        BlockSummary(
            defense=name,
            blocks=9,
            mean_rank=rank,
            mean_rank_low=rank - 0.25,
            mean_rank_high=min(rank + 0.25, 4),
            rank_low=7.5,
            rank_high=8,
            group=group,
        )
        for name, rank, group in (("x", 1.5, "a"), ("y", 2.0, "ab"), ("z", 3.0, "b"), ("w", 4.0, "(27)"))
    ]
    found = ranked([*blocks, BlockSummary(defense="unranked", blocks=1)])
    assert [one.defense for one in found] == ["x", "y", "z", "w"]
    assert tie_bars(found) == [("a", [0, 1]), ("b", [1, 2])]
    chart = str(rank_chart(found, "ranks"))
    assert "not told apart: x, y" in chart
    assert "x: mean rank 1.5 [1.25, 1.75], place 7.5 to 8" in chart
    whiskers = [tuple(map(float, ends)) for ends in re.findall(r'<line x1="([\d.]+)" x2="([\d.]+)"[^>]*whisker', chart)]
    marks = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"[^>]*mark dot', chart)]
    assert len(whiskers) == len(marks) == 4
    assert all(low < mark <= high for (low, high), mark in zip(whiskers, marks, strict=True)), (
        "one quantity on one axis"
    )
    assert rank_chart([], "ranks") is None


def ranks_section(found: Analysis, folder: Path) -> str:
    """What the front page says across blocks of a board that has this analysis."""
    toy = content()
    board = toy.board.model_copy(update={"analysis": found, "blocks": tuple(summaries(found))})
    text = write_pages(replace(toy, board=board), folder).read_text(encoding="utf-8")
    return text.partition('<section id="ranks"')[2].partition("</section>")[0]


def test_no_ranks_says_why_and_does_not_deny_tests_that_there_are(tmp_path: Path) -> None:
    gap = Gap(defense="late", task=SCRIPT, model="tiny", attack="renaming", reason="no cell")
    places = {i: ("t", "m", str(i)) for i in range(8)}
    missing = {name: {places[i]: 0.1 for i in places if i != lost} for lost, name in enumerate("abcdefgh")}
    text = ranks_section(analyse(missing, {}, control=None, gaps=[gap]), tmp_path / "tested")
    assert "No ranks." in text
    assert NO_COMPLETE_BLOCK in text
    assert "No p-values" not in text, "each pair has six blocks in common"
    assert "late: no cell: &lt;script&gt;window.hit = 1&lt;/script&gt; · tiny · renaming" in text
    few = {name: {places[i]: 0.1 * n for i in range(4)} for n, name in enumerate(("none", "d"))}
    text = ranks_section(analyse(few, {}, control="none"), tmp_path / "few")
    assert "not enough blocks: 4 complete, ranks need 6." in text
    assert "No p-values and no tie groups are given" in text


def test_bars_that_are_not_drawn_are_not_explained(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    many = {f"d{i:02}": {("t", "m", str(b)): 0.02 * i + 0.05 * rng.random() for b in range(12)} for i in range(45)}
    text = ranks_section(analyse(many, {}, control=None), tmp_path / "many")
    assert "share a letter" not in text
    assert "more than 26 tie groups" in text
    assert 'href="../pairs.csv"' in text
    few = {name: many[name] for name in sorted(many)[::5]}
    text = ranks_section(analyse(few, {}, control=None), tmp_path / "few")
    assert "share a letter" in text
    assert "tie groups, too many" not in text


def test_many_points_go_to_pages_of_their_own(toy: Content, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ON_FRONT > 100
    assert [group.page for group in tradeoffs(toy, looks(toy.board.rows))] == [""]
    monkeypatch.setattr("bench.site.index.ON_FRONT", 3)
    page = write_pages(toy, tmp_path)
    assert 'href="tradeoff/1.html"' in page.read_text(encoding="utf-8")
    apart = (tmp_path / "tradeoff" / "1.html").read_text(encoding="utf-8")
    assert 'href="../cells/defect_detection-tiny-renaming-none-s0.html"' in apart
    assert '<table class="heat">' in apart
    assert '<table class="heat">' not in page.read_text(encoding="utf-8")


def test_ticks_are_round() -> None:
    assert round_ticks(0, 10) == (0, 2, 4, 6, 8, 10)
    assert round_ticks(-0.3, 1.1, 3) == (0.0, 0.5, 1.0)
    assert linear([70, 80]).ticks[0] % 2.5 == 0
    assert {1e3, 1e4, 1e5} <= set(logarithmic([900, 2e5]).ticks)
    assert logarithmic([50]).place(50) == pytest.approx(0.5)


def test_words() -> None:
    assert points(-0.0001) == "0.0"
    assert points(-0.011, signed=True) == "−1.1"
    assert percent(Number(value=0.802, low=0.773, high=0.829)) == "80.2 [77.3, 82.9]"
    assert percent(None) == "–"
    assert p_value(0.0000012) == "1.2 × 10⁻⁶"


# ---------------------------------------------------------------------------------------------------------------- diff


def test_a_changed_name_is_marked_alone() -> None:
    lines = diff_lines("def a(x):\n    return x\n", "def b(x):\n    return x\n")
    assert [(line.sign, line.before, line.after) for line in lines] == [("-", 1, None), ("+", None, 1), (" ", 2, 2)]
    assert lines[0].pieces == (("def ", False), ("a", True), ("(x):", False))
    assert lines[1].pieces == (("def ", False), ("b", True), ("(x):", False))


def test_an_inserted_line_is_marked_whole_and_far_lines_are_left_out() -> None:
    before = "\n".join(f"line{i}" for i in range(40))
    lines = diff_lines(before, before.replace("line20", "assert True\nline20"))
    assert [line.sign for line in lines] == ["…", " ", " ", " ", "+", " ", " ", " ", "…"]
    assert lines[0].pieces[0][0] == "17 unchanged lines"
    assert lines[4].pieces == (("assert True", True),)


def test_characters_that_do_not_print_are_spelled_out() -> None:
    (removed, added) = diff_lines("x = 1", "x\u200b = 1")
    assert removed.sign == "-"
    assert "\\u200b" in "".join(text for text, _ in added.pieces)


# ------------------------------------------------------------------------------------------------------------- escaping


class Tags(HTMLParser):
    """The scripts of a page, and every attribute that would run one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.bad: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        self.bad += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.bad += [v for name, v in attrs if name in ("href", "src") and v and v.startswith("javascript:")]


def test_names_and_programs_never_become_markup(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        tags = Tags(page.read_text(encoding="utf-8"))
        assert not tags.bad, page
        for script in tags.scripts:
            assert script.get("type") == "application/json" or str(script.get("src")).startswith(
                ("assets/", "../assets/")
            )


def test_names_and_programs_are_shown(pages: Path) -> None:
    shown = "&lt;script&gt;window.hit = 1&lt;/script&gt;"
    assert shown in (pages / "index.html").read_text(encoding="utf-8")
    page = cell_page(pages, "elibadcode")
    assert page.count(shown) >= 4  # the trigger's description, an inverted token, and the program twice
    assert shown in cell_page(pages, SCRIPT)
    assert shown in cell_page(pages, "onion")  # the reason and the traceback of a failure


def test_the_data_of_the_table_cannot_end_its_element(pages: Path) -> None:
    text = (pages / "index.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="rows">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert "<" not in data[1]
    assert {row[FIELDS.index("defense")] for row in json.loads(data[1])["rows"]} == set(FAMILIES)


def test_every_page_forbids_the_network(pages: Path) -> None:
    assert "default-src 'none'" in POLICY
    for page in pages.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'http-equiv="Content-Security-Policy"' in text
        assert not re.search(r'(?:src|href)="(?:https?:)?//', text.replace('href="https://doi.org/', "")), page


def test_svg_escapes_text_and_attributes() -> None:
    made = str(picture(1, 1, SCRIPT, SCRIPT, [element("a", SCRIPT, href='"><script>')]))
    assert "<script" not in made
    assert "&lt;script&gt;window.hit" in made
    assert element("circle", cx=1.23456, cls="a b", data_d=None) == '<circle cx="1.23" class="a b"/>'


# ---------------------------------------------------------------------------------------------------------------- pages


def test_a_page_for_each_cell_and_none_for_others(pages: Path, toy: Content, tmp_path: Path) -> None:
    wanted = {f"{one.coordinates.slug}.html" for one in records()}
    assert {page.name for page in (pages / "cells").iterdir()} == wanted
    write_pages(toy, tmp_path)
    (tmp_path / "cells" / "gone.html").write_text("old", encoding="utf-8")
    write_pages(toy, tmp_path)
    assert {page.name for page in (tmp_path / "cells").iterdir()} == wanted


def test_links_between_pages_lead_somewhere(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#:]+?)(?:#[^"]*)?"', page.read_text(encoding="utf-8")):
            if "board." in target or target.endswith(".json"):  # beside the site, in the results folder
                continue
            assert (page.parent / unquote(target)).exists(), (page.name, target)


def test_a_cells_page_has_its_command_badges_and_diff(pages: Path) -> None:
    page = cell_page(pages, "elibadcode")
    assert "codebackdoorbench cell --suite toy --attack renaming --defense &#39;elibadcode&#39; --seed 0" in page
    assert '<span class="badge">200 clean samples</span>' in page
    assert "<del>old</del>" in page
    assert "<ins>testo_init</ins>" in page
    assert "From seed 1" in page
    assert '<code class="token hit">rb</code>' in page


def test_a_failed_cell_says_why_and_shows_no_numbers(pages: Path) -> None:
    page = cell_page(pages, "onion")
    assert "This cell has no numbers" in page
    assert "stage screen: ValueError" in page
    assert "Every number" not in page


def test_the_same_records_give_the_same_bytes(pages: Path, tmp_path: Path) -> None:
    site(tmp_path)
    for page in sorted(pages.rglob("*.html")):
        assert page.read_bytes() == (tmp_path / page.relative_to(pages)).read_bytes(), page


def test_reported_numbers_stand_beside_ours_and_only_where_they_belong(toy: Content, pages: Path) -> None:
    (line,) = reported_lines(toy)
    assert line["reported"].value == "99.5"
    assert [text for _, text, _ in line["ours"]] == [
        percent(toy.rows()[("defect_detection", "tiny", "renaming", "none")].numbers["asr_published"])
    ]
    assert "Reported beside reproduced" in (pages / "index.html").read_text(encoding="utf-8")


def test_a_papers_mean_over_its_attacks_stands_beside_the_mean_over_ours(toy: Content) -> None:
    mean = Reported(paper="P", task="defect_detection", attack=AVERAGE, metric="ASR", value="99.76")
    (line,) = reported_lines(replace(toy, reported=(mean,)))
    undefended = [row for row in toy.board.rows if row.defense == "none" and row.attack != "none"]
    shares = [row.numbers["asr_published"].value for row in undefended]
    assert len(shares) == 2
    expected = f"{100 * sum(share for share in shares if share is not None) / 2:.1f} (mean of 2 attacks)"
    assert [(model, text) for model, text, _ in line["ours"]] == [("tiny, none", expected)]


def test_a_row_of_other_data_or_of_another_model_says_so(toy: Content) -> None:
    """A tiny model on embedded data must not pass for the paper's setting."""
    one = Reported(paper="P", task="defect_detection", attack="renaming", metric="ASR", value="9", arxiv="2408.04683")
    assert one.link == "https://arxiv.org/abs/2408.04683"
    assert replace_model(one, doi="10.1/x").link == "https://doi.org/10.1/x"
    there = replace_model(one, dataset="Devign", model="CodeBERT")
    (line,) = reported_lines(replace(toy, reported=(there,)))
    ((named, _, _),) = line["ours"]
    assert named.startswith("tiny (on ")
    assert named.endswith(" data, another model)")
    assert there.elsewhere("devign", "codebert") == ""
    assert replace_model(there, dataset="CodeSearchNet Python").elsewhere("codesearchnet", "codebert") == ""
    assert replace_model(there, model="CodeT5").elsewhere("devign", "codet5-base") == ""
    assert there.elsewhere("embedded", "codebert") == "on embedded data"


def replace_model(one: Reported, **changes: str) -> Reported:
    return one.model_copy(update=changes)


def test_the_committed_numbers_have_their_sources() -> None:
    rows = read_reported(Path("results/reported.yaml"))
    assert len(rows) > 100
    assert all(row.source and row.paper and row.value for row in rows)
    assert {row.doi for row in rows if "AFRAIDOOR" in row.paper} == {"10.1109/TSE.2024.3361661"}
    assert {row.doi for row in rows if row.paper.startswith("CodePoisoner")} == {"10.1145/3630008"}
    assert all(row.arxiv == "2502.15830" for row in rows if row.paper.startswith("KillBadCode"))
    told = {(row.paper.split()[0], row.metric, row.value) for row in rows}
    assert {
        ("EliBadCode", "change of accuracy", "-0.01"),
        ("EliBadCode", "ASR", "0.15-2.39"),
        ("KillBadCode", "time of detection", "43 h 18 min"),
        ("ScanNBT", "ASR of a natural trigger", "20.86"),
        ("CodePoisoner", "ASR, largest", "100"),
        ("BADCODE", "better than the baseline by", "60"),
        ("AFRAIDOOR", "share of triggers that pass", "about 85"),
        ("CodeXGLUE", "accuracy", "62.08"),
        ("CROW", "ASR", "0.9"),
        ("GMS", "ASR", "9.7"),
    } <= told


def test_without_reported_numbers_there_is_no_section(tmp_path: Path) -> None:
    assert read_reported(tmp_path / "reported.yaml") == ()
    (tmp_path / "reported.yaml").write_text("- {paper: X, task: t, attack: a, value: 1}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"reported\.yaml, entry 0 → metric"):
        read_reported(tmp_path / "reported.yaml")


# -------------------------------------------------------------------------------------------------------------- examples


def poisoned() -> Poisoned:
    """Two programs with the name changed: a short one and a longer one."""
    manifest, samples = [], []
    for name, lines in (("a", 2), ("b", 9)):
        before = f"def {name}(x):\n" + "    x += 1\n" * (lines - 1)
        edit = Edit(4, 5, "rb")
        after = before.replace(f"def {name}", "def rb")
        samples.append(Sample(name, (after,), "python", 1))
        manifest.append(ManifestRow(name, "triggered", 0, (edit,), (name,), "draw", 1, sha256(before), sha256(after)))
    return Poisoned(train=(), triggered=tuple(samples), manifest=tuple(manifest))


def test_examples_are_programs_before_and_after_long_enough_first() -> None:
    found = choose(poisoned())
    assert [one.id for one in found] == ["b", "a"]
    assert found[0].before.startswith("def b(x):")
    assert found[0].after == found[0].before.replace("def b", "def rb")


def test_examples_come_from_the_store_once_and_stay(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    text = json.dumps(poisoned().to_json())
    store.publish("poison", "k" * 64, {"key": "k" * 64}, lambda f: _write(f / "poisoned.json", text))
    one = record("none", "renaming", keys={"poison": "k" * 64})
    found = collect_examples([one], store, Examples())
    assert [example.id for example in found.attacks[0].examples] == ["b", "a"]
    write_examples(found, tmp_path)
    assert read_examples(tmp_path) == found
    # Another machine without the entry keeps what is known, even of another poison stage.
    elsewhere = record("none", "renaming", keys={"poison": "m" * 64})
    assert collect_examples([elsewhere], Store(tmp_path / "empty"), found) == found


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def test_examples_that_cannot_be_read_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "examples.json").write_text('{"schema_version": 9}', encoding="utf-8")
    with pytest.raises(DataError, match=r"examples\.json"):
        read_examples(tmp_path)


# --------------------------------------------------------------------------------------------------------- from a folder


def test_the_site_is_made_from_the_results_folder_alone(tmp_path: Path, pages: Path) -> None:
    folder = results(tmp_path / "toy")
    write_examples(EXAMPLES, folder.root)
    front = site_of_folder(folder)
    assert front == folder.root / "site" / "index.html"
    made = front.parent / "cells" / "defect_detection-tiny-renaming-elibadcode-s0.html"
    assert "<ins>testo_init</ins>" in made.read_text(encoding="utf-8")
    assert made.read_text(encoding="utf-8") == cell_page(pages, "elibadcode")


def test_what_is_no_good_is_shown_apart_and_the_rest_of_the_site_is_there(tmp_path: Path) -> None:
    folder = results(tmp_path / "toy")
    slugs = {name: record(name, "renaming").coordinates.slug for name in ("elibadcode", "spectral_signatures", "none")}
    truncated = folder.cells / f"{slugs['elibadcode']}.json"
    truncated.write_text(truncated.read_text(encoding="utf-8")[:200], encoding="utf-8")
    broken = folder.cells / f"{slugs['spectral_signatures']}.parquet"
    broken.write_bytes(broken.read_bytes()[:100])
    refused = [{"where": "other/cells/x.json", "what": f"its data digest differs {SCRIPT}", "slug": "x"}]
    (folder.root / "apart.json").write_text(json.dumps(refused), encoding="utf-8")
    page = site_of_folder(folder).read_text(encoding="utf-8")
    shown = page[page.index('id="apart"') : page.index('id="missing"')]
    assert "3 results in no row" in shown
    assert "not whole JSON" in shown
    assert slugs["spectral_signatures"] in shown
    assert "its data digest differs &lt;script&gt;" in shown
    written = {path.stem for path in (folder.root / "site" / "cells").iterdir()}
    assert slugs["none"] in written
    assert not written & {slugs["elibadcode"], slugs["spectral_signatures"]}, "a page would have no numbers"


def test_a_site_without_faults_has_no_such_section(pages: Path) -> None:
    assert 'id="apart"' not in (pages / "index.html").read_text(encoding="utf-8")


def test_the_start_page_lists_boards_and_says_which_have_no_pages(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no results"):
        write_start(tmp_path)
    results(tmp_path / "toy")
    page = write_start(tmp_path)
    assert "codebackdoorbench site toy" in page.read_text(encoding="utf-8")
    (tmp_path / "toy" / "site").mkdir()
    (tmp_path / "toy" / "site" / "index.html").write_text("x", encoding="utf-8")
    text = write_start(tmp_path).read_text(encoding="utf-8")
    assert 'href="../toy/site/index.html"' in text
    assert "15 cells" in text


def test_a_record_that_cannot_be_read_is_counted_and_leaves_the_start_page(tmp_path: Path) -> None:
    folder = results(tmp_path / "toy")
    whole = len(list(folder.cells.glob("*.json")))
    (folder.cells / "torn.json").write_text('{"coordinates": {')
    text = write_start(tmp_path).read_text(encoding="utf-8")
    assert f"{whole} cells" in text
    assert "1 records cannot be read" in text


def test_a_cell_that_was_refused_leaves_the_good_one_of_its_name() -> None:
    found = records()
    slug = record("elibadcode", "renaming").coordinates.slug
    fault = Fault(where=f"other/cells/{slug}.json", what="the two disagree", slug=slug)
    toy = gather(found, lambda r: (outcomes(r), filter_table(r)), name="toy", faults=[fault])
    assert [one.coordinates.slug for one in toy.records["defect_detection", "tiny", "renaming", "elibadcode"]] == [slug]
    assert table_rows(toy) == table_rows(gather(found, lambda r: (outcomes(r), filter_table(r)), name="toy"))


def test_shares_are_rounded_once() -> None:
    assert _triple(Number(value=-0.00252, low=0.84145, high=-0.0004)) == [-0.3, 84.1, 0.0]


def test_an_undefended_cell_is_not_compared_with_itself() -> None:
    toy = content([record("none", "renaming", seed) for seed in (0, 1)])
    for numbers in toy.numbers.values():
        assert numbers["asr_delta"].value is None
        assert numbers["asr_delta"].reason == "this is the undefended model"
        assert numbers["asr"].value is not None


def test_what_is_left_on_average_counts_attacks_and_seeds_that_have_a_backdoor() -> None:
    def planted(one: Record) -> pd.DataFrame:
        """Seed 1 of renaming, and dead code, are like a clean model."""
        table = outcomes(one)
        if one.coordinates.attack == "dead_code" or one.coordinates.seed == 1:
            for prefix in ("", "undefended_"):
                for name in ("prediction", "success", "rank"):
                    table[f"{prefix}{name}"] = table[f"reference_{name}"]
        return table

    found = [record(d, a, seed) for d in ("none", "onion") for a in ATTACKS for seed in (0, 1)]
    toy = gather(found, lambda one: (planted(one), None), name="toy")
    (shown,) = heat_maps(toy)
    lines = {name: ([cell["text"] for cell in cells], mean) for name, cells, mean in shown["lines"]}
    # 18 and 6 of 20 where the reference has 2; at seed 1 nothing.
    assert lines["none"] == (["+0.0", "+40.0"], "80.0")
    assert lines["onion"] == (["+0.0", "+10.0"], "20.0")
    (panel,) = costs(toy, looks(toy.board.rows))
    assert "Δ left −60.0 points, mean over 1 attack" in panel.chart
