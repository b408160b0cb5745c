"""The exports, to the letter: golden files, LaTeX that compiles, names that hold markup, and the terminal by every axis.

After a wanted change: ``python -m tests.test_board_exports`` writes the golden files again; read the difference.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.board import (
    Board,
    build_board,
    print_board,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_pairs_csv,
    write_board,
)
from bench.board.latex import escape_latex
from bench.board.terminal import AXES, axis_of
from bench.errors import ConfigError
from bench.faults import Fault
from bench.records import Record, Status
from tests.test_board import BAD_REASON, CLEAN, TRIGGERED, outcomes, record

GOLDEN = Path(__file__).parent / "fixtures" / "board"
EVIL = r"\evil{$x$} & 50%_#~^<script>alert(1)</script> |`*[a](b)* '--' “中”"


def records() -> list[Record]:
    """Seven attacks on five defenses, one of which fails once; one defense that hardly applies; and a name full of markup."""
    found = [record(defense, f"attack{i}") for i in range(7) for defense in CLEAN]
    found = [r for r in found if (r.coordinates.attack, r.coordinates.defense) != ("attack6", "onion")]
    found.append(record("onion", "attack6", status=Status.FAILED, reason=BAD_REASON))
    return [*found, record(EVIL, "attack0")]


def loader(r: Record) -> tuple[pd.DataFrame, None]:
    at = r.coordinates
    place = int(at.attack[-1])
    return outcomes(CLEAN.get(at.defense, 40) - place % 3, max(0, TRIGGERED.get(at.defense, 9) - place)), None


def golden_board() -> Board:
    fault = Fault(where="cells/x.json", what="it is not whole JSON; truncated? <b>Delete</b> it | run again", slug="x")
    return build_board(records(), loader, faults=[fault])


def terminal(board: Board, axis: str | None = None, width: int = 150) -> str:
    out = io.StringIO()
    print_board(board, Console(file=out, width=width), axis_of(axis))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def renderings(board: Board) -> dict[str, str]:
    return {
        "board.md": to_markdown(board),
        "board.csv": to_csv(board),
        "pairs.csv": to_pairs_csv(board),
        "board.tex": to_latex(board),
        "analysis.json": board.analysis.model_dump_json(indent=1) + "\n",
        "terminal.txt": terminal(board),
        "terminal-by-defense.txt": terminal(board, "defense"),
    }


@pytest.fixture(scope="module")
def board() -> Board:
    return golden_board()


@pytest.mark.parametrize(
    "name",
    ["board.md", "board.csv", "pairs.csv", "board.tex", "analysis.json", "terminal.txt", "terminal-by-defense.txt"],
)
def test_each_rendering_is_as_it_was_read_last(board: Board, name: str) -> None:
    assert renderings(board)[name] == (GOLDEN / name).read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------- LaTeX


def tables_of(text: str) -> list[list[list[str]]]:
    """Cells of each tabular, split at the ampersands that LaTeX splits at."""
    found = []
    for body in re.findall(r"\\begin\{tabular\}\{[lr]+\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        lines = [line.removesuffix(r"\\").strip() for line in body.splitlines() if line.endswith(r"\\")]
        found.append([re.split(r"(?<!\\)&", line) for line in lines])
    return found


def test_latex_is_balanced_ascii_with_one_width_a_table(board: Board) -> None:
    text = to_latex(board)
    assert text.isascii()
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 8
    bare = re.sub(r"\\[\\{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert re.sub(r"\\\$", "", text).count("$") % 2 == 0
    for cells in tables_of(text):
        assert len({len(line) for line in cells}) == 1
        assert len(cells) > 1
    assert all(text.count(rule) == 8 for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_latex_says_what_markdown_says(board: Board) -> None:
    rows = [line for table in tables_of(to_latex(board))[:-1] for line in table[1:]]
    assert len(rows) == len(board.rows)
    for row, cells in zip(board.rows, rows, strict=True):
        assert cells[0].strip() == escape_latex(row.defense)
        shown = cells[7].strip()
        lift = row.numbers["lift"].value if row.numbers else None
        if lift is None:
            assert shown == r"\textendash{}"
        else:
            assert float(shown.split(" ")[0]) == pytest.approx(100 * lift, abs=0.051)


def test_every_character_of_a_name_survives_as_text() -> None:
    assert escape_latex("a_b%c&d#e$f{g}h\\i~j^k") == (
        r"a\_b\%c\&d\#e\$f\{g\}h\textbackslash{}i\textasciitilde{}j\textasciicircum{}k"
    )
    assert escape_latex("x\n--y 中") == r"x -{}-y [U+4E2D]"


@pytest.mark.skipif(not (shutil.which("tectonic") or shutil.which("pdflatex")), reason="no LaTeX engine here")
def test_latex_compiles(board: Board, tmp_path: Path) -> None:
    page = (
        r"\documentclass{article}\usepackage{booktabs}\usepackage[landscape]{geometry}\begin{document}"
        + to_latex(board)
        + r"\end{document}"
    )
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    engine = ["tectonic"] if shutil.which("tectonic") else ["pdflatex", "-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([*engine, "page.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 1000


# --------------------------------------------------------------------------------------------------------- names with markup


def test_a_name_with_markup_is_text_everywhere(board: Board, tmp_path: Path) -> None:
    page, table = to_markdown(board), to_latex(board)
    assert "<script>" not in page.replace("\\<", "")
    assert r"\<script\>alert(1)\</script\>" in page
    assert r"\evil" not in table
    assert r"\textbackslash{}evil\{\$x\$\} \& 50\%\_\#" in table
    assert EVIL in {row["defense"] for row in csv.DictReader(io.StringIO(to_csv(board)))}
    assert EVIL in {row.defense for row in Board.model_validate_json(to_json(board)).rows}
    paths = write_board(records(), loader, tmp_path)
    assert "<script>" not in paths["tradeoff.svg"].read_text()


# ---------------------------------------------------------------------------------------------------------------- terminal


@pytest.mark.parametrize("axis", AXES)
def test_the_terminal_shows_every_row_once_by_any_axis(board: Board, axis: str) -> None:
    text = terminal(board, axis, width=400)
    values = {getattr(row, axis) for row in board.rows}
    assert [line for line in text.splitlines() if re.match(rf" *{axis}: ", line)].__len__() == len(values)
    rows = [line for line in text.splitlines() if re.search(r"\d ok|\d failed", line)]
    assert len(rows) == len(board.rows)


def test_an_unknown_axis_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--group-by 'defence' is no axis\. Did you mean 'defense'"):
        axis_of("defence")


def test_the_terminal_says_what_is_set_apart(board: Board) -> None:
    assert "set apart: cells/x.json: it is not whole JSON" in terminal(board)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, text in renderings(golden_board()).items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
