"""The board as LaTeX: one ``booktabs`` table a group of rows, to ``\\input`` into a paper that loads ``booktabs``.

Only ASCII and plain macros are written, so that any engine compiles it; text from outside is escaped, and a character that LaTeX has no
plain spelling for is written as its code point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bench.board.across_section import BLOCK_HEADERS, block_row
from bench.board.analysis import MOST_GROUPS
from bench.board.columns import METRIC_NAMES, p_value, percent, status_words, yes_no
from bench.board.groups import compared, groups
from bench.board.table import Board, Row

_PLAIN: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\char96{}",
    "–": r"\textendash{}",
    "−": "$-$",
    "·": r"$\cdot$",
    "Δ": r"$\Delta$",
    "₀": "$_0$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
}


def escape_latex(text: str) -> str:
    """Text from outside on one line, with everything that LaTeX would read as markup escaped."""
    line = "".join(map(_ascii, " ".join(text.split())))
    return line.replace("--", "-{}-")


def _ascii(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    if character.isascii() and character.isprintable():
        return character
    return f"[U+{ord(character):04X}]"


_HEADERS: Final = (
    "family",
    "{clean}",
    "Δ{clean}",
    "keeps",
    "ASR",
    "ASR₀",
    "lift",
    "p (Holm)",
    "seeds",
    "cells",
)


def to_latex(board: Board) -> str:
    """All groups of rows, then the defenses across blocks; what has no numbers stands in the tables' notes."""
    suites = escape_latex(", ".join(board.suites))
    parts = [
        f"% Board: {re.sub('[^ -~]', '?', ' '.join(' '.join(board.suites).split()))}. Needs \\usepackage{{booktabs}}.",
        "% Shares in per cent with 95 % intervals, differences in points; definitions: board.md.",
    ]
    for number, (names, rows) in enumerate(groups(board)):
        title = escape_latex(" · ".join(names))
        caption = (
            f"{suites}: {title}. Shares in per cent with 95\\,\\% intervals; "
            f"keeps: the loss of the clean metric is below {100 * board.margin:g} points."
        )
        clean = METRIC_NAMES.get(next((row.metric for row in rows if row.metric), ""), "clean")
        lead = compared(rows)
        headers = [lead, *(header.format(clean=clean) for header in _HEADERS)]
        parts.append(
            _table(
                headers,
                [[getattr(row, lead), *_row(row)] for row in rows],
                caption,
                f"board-{number + 1}",
                _notes(rows),
            )
        )
    if board.blocks:
        found = board.analysis
        caption = f"{suites}: defenses across {found.blocks} blocks (task $\\times$ model $\\times$ attack)"
        caption += f", {found.complete} of them complete."
        if found.too_many_groups:
            caption += f" There are more than {MOST_GROUPS} groups, too many to letter: every pair stands in pairs.csv."
        elif found.tested:
            caption += " Defenses that share a letter are not told apart."
        parts.append(
            _table(BLOCK_HEADERS, [block_row(summary) for summary in board.blocks], caption, "board-blocks", [])
        )
    return "\n\n".join(parts) + "\n"


def _row(row: Row) -> list[str]:
    numbers = row.numbers
    return [
        row.family or "–",
        percent(numbers.get("clean")),
        percent(numbers.get("clean_delta"), signed=True),
        yes_no(row.non_inferior),
        percent(numbers.get("asr")),
        percent(numbers.get("asr_reference"), interval=False),
        percent(numbers.get("lift"), signed=True),
        p_value(row.mcnemar_p_holm),
        str(len(row.seeds)),
        status_words(row),
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row.defense}, seed {note.seed}: {note.status.value.replace('_', ' ')}: {note.reason or 'no reason recorded'}"
        for row in rows
        for note in row.notes
    ]


def _table(
    headers: Sequence[str], body: Sequence[Sequence[str]], caption: str, label: str, notes: Sequence[str]
) -> str:
    columns = "l" + "r" * (len(headers) - 1)
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line(headers),
        r"\midrule",
        *(_line(row) for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\raggedright {escape_latex(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    # An empty group before a bracket: "\\ [" would be read as a row's optional argument.
    return (
        " & ".join("{}" + escape_latex(cell) if cell.startswith(("[", "*")) else escape_latex(cell) for cell in cells)
        + r" \\"
    )
