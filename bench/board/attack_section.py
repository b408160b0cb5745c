"""The board's section on attacks: how much an attack changes, how natural that reads, and what sets its backdoor off."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from bench.board.attack_rows import AttackRow
from bench.board.columns import DASH, percent
from bench.board.markdown import escape_markdown, escaped_table
from bench.board.table import Board

_HEADERS: Final = [
    *("attack", "seeds", "tokens", "characters", "bits/token", "rank", "natural", "coverage", "visible"),
    *("FTR", "FTR lift", "placebo", "placebo lift", "cover", "weakened", "crafting"),
]
_INTRODUCTION: Final = (
    "What each attack looks like beside clean code, what of it arrives at the undefended victim, and what else sets the "
    "backdoor off."
)
DEFINITIONS: Final = (
    (
        "tokens, characters",
        "changed in a triggered test program (inserted, deleted or replaced): mean, and median in brackets.",
    ),
    (
        "bits/token",
        (
            "mean cross-entropy of the programs without → with the trigger, under an n-gram model (order 4, interpolated Kneser-Ney) "
            "of the clean training split; rare tokens are spelled by their grammatical type."
        ),
    ),
    (
        "rank",
        (
            "share of clean test programs with fewer bits a token, median without → with the trigger: 50 is as natural as clean code, "
            "100 is stranger than all of it."
        ),
    ),
    ("natural", "clean test programs that carry the trigger as they are (its tokens, or by the trigger's own answer)."),
    ("coverage", "test programs asked that take the trigger."),
    ("visible", "triggered inputs whose edit survives the model's window."),
    (
        "FTR",
        (
            "false trigger rate: inputs with a near miss of the trigger that meet the attacker's goal. FTR lift: minus the same inputs on "
            "the clean reference, paired: what the backdoor adds."
        ),
    ),
    ("placebo", "the same for an edit of the trigger's kind with other rare content."),
    ("cover, weakened", "cover samples in the training set; poisoned samples weakened before they got the trigger."),
    (
        "crafting",
        (
            "thousands of tokens through models, forward and backward, to make the trigger and put it in; – for a supplier, whose "
            "poisoning is a training of its own."
        ),
    ),
    (
        "interval",
        "one seed: Wilson, Newcombe. Several: two-level bootstrap over seeds and inputs (groups are not told).",
    ),
)


def attack_section(board: Board) -> list[str]:
    """The section's paragraphs; none where no record tells of an attack."""
    if not board.attacks:
        return []
    parts = ["## Attacks", _INTRODUCTION]
    for (task, model), rows in groupby(board.attacks, key=lambda row: (row.task, row.model)):
        shown = list(rows)
        parts += [f"### {escape_markdown(task)} · {escape_markdown(model)}", escaped_table(_HEADERS, _cells(shown))]
        notes = [f"- {escape_markdown(row.attack)}: {escape_markdown(why)}" for row in shown for why in row.reasons]
        if notes:
            parts.append("\n".join(notes))
    parts.append("\n".join(f"- **{escape_markdown(term)}**: {text}" for term, text in DEFINITIONS))
    return parts


def _cells(rows: list[AttackRow]) -> list[list[str]]:
    """The cells of each row, in the order of the headers."""
    return [
        [
            row.attack,
            str(len(row.seeds)),
            _both(row.tokens, row.tokens_median),
            _both(row.characters, row.characters_median),
            _step(row.bits_before, row.bits_after, 1.0, 2),
            _step(row.rank_before, row.rank_after, 100.0, 0),
            percent(row.natural, interval=False),
            percent(row.coverage, interval=False),
            percent(row.visible, interval=False),
            percent(row.near_miss),
            percent(row.near_miss_lift, signed=True),
            percent(row.placebo),
            percent(row.placebo_lift, signed=True),
            _plain(row.cover),
            _plain(row.weakened),
            DASH if row.crafting is None else f"{row.crafting / 1000:.0f} k",
        ]
        for row in rows
    ]


def _both(mean: float | None, median: float | None) -> str:
    return DASH if mean is None or median is None else f"{mean:.1f} ({median:.3g})"


def _step(before: float | None, after: float | None, scale: float, digits: int) -> str:
    if before is None or after is None:
        return DASH
    return f"{scale * before:.{digits}f} → {scale * after:.{digits}f}"


def _plain(value: float | None) -> str:
    return DASH if value is None else f"{value:g}"
