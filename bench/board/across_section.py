"""The board's section on what holds across blocks: a table of the defenses, the pairs that are told apart, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from bench.board.analysis import Analysis, Comparison, Gap, Pair
from bench.board.blocks import BlockSummary
from bench.board.columns import BLOCK_DEFINITIONS, DASH, p_value, percent
from bench.board.markdown import escape_markdown, escaped_table
from bench.board.table import Board
from bench.metrics import Number

BLOCK_HEADERS: Final = [
    *(
        "defense",
        "blocks",
        "left",
        "median Δ left",
        "p (Holm)",
        "p (table)",
        "effect",
        "win/tie/loss",
        "group",
        "rank",
    ),
]
PAIR_HEADERS: Final = [
    "one",
    "other",
    "blocks",
    "median Δ",
    "p (Holm)",
    "p (table)",
    "effect",
    "win/tie/loss",
    "better",
]
MOST_PAIRS: Final = 60
"""Printed; of more than that only those with a control. All of them stand in ``pairs.csv`` and ``board.json``."""
RANDOM: Final = "/random"
"""How the labels of the controls without skill end."""


def across_section(board: Board) -> list[str]:
    """The section's paragraphs; none where no defense has a lift."""
    if not board.blocks:
        return []
    found = board.analysis
    parts = [
        "## Across blocks",
        _counts(found) + (f" No ranks: {escape_markdown(found.reason)}." if found.reason else ""),
    ]
    parts.append(escaped_table(BLOCK_HEADERS, [block_row(summary) for summary in board.blocks]))
    told = [(pair, question) for question in ("left", "clean") for pair in found.pairs if _told(pair, question)]
    if told:
        strict = sum((p := getattr(pair, question).p_table) is not None and p < found.alpha for pair, question in told)
        parts.append(
            f"{len(told)} answers tell a pair apart, each pair on its own ({strict} of them over the whole table, p (table))."
        )
        shown = [one for one in told if len(told) <= MOST_PAIRS or _with_control(one[0], found.control)]
        parts[-1] += " All of them:" if len(shown) == len(told) else " Those against no defense and against random:"
        parts.append("\n".join(f"- {told_apart(*one)}" for one in shown))
        if len(shown) < len(told):
            parts.append("The others stand in `pairs.csv`.")
    unranked = [f"- {escape_markdown(s.defense)}: {escape_markdown(s.reason)}" for s in found.standings if s.reason]
    if unranked and not found.reason:
        parts.append("\n".join(unranked))
    missing = list(gap_lines(found.gaps))
    if missing:
        parts += ["Blocks without a number, left out of every comparison:", "\n".join(f"- {line}" for line in missing)]
    parts.append("\n".join(f"- **{escape_markdown(term)}**: {text}" for term, text in BLOCK_DEFINITIONS))
    return parts


def _counts(found: Analysis) -> str:
    """How many blocks there are. Only an undefended cell tells whether a block has a backdoor to remove."""
    if found.control is None:
        return (
            f"{found.blocks} blocks, {found.complete} of them complete. No undefended cells have numbers: whether there is a backdoor "
            "to remove is not known of any block, and no defense is compared with none."
        )
    known = next(standing.blocks for standing in found.standings if standing.defense == found.control)
    counts = f"{known} blocks with a backdoor to remove, {found.complete} of them complete."
    if known < found.blocks:
        counts += f" {found.blocks - known} more have no undefended numbers: whether there is a backdoor to remove is not known there."
    return counts


def block_row(summary: BlockSummary) -> list[str]:
    """The cells of one defense, in the order of :data:`BLOCK_HEADERS`, as plain text."""
    difference = Number(value=summary.median_difference, low=summary.median_low, high=summary.median_high)
    compared = summary.median_difference is not None
    rank = DASH
    if summary.mean_rank is not None:
        ends = list(dict.fromkeys(f"{end:g}" for end in (summary.rank_low, summary.rank_high) if end is not None))
        rank = f"{summary.mean_rank:.2f}; place {' to '.join(ends)}"
    return [
        summary.defense,
        str(summary.blocks),
        percent(Number(value=summary.mean_left)),
        percent(difference, signed=True),
        p_value(summary.p_holm) if summary.p_holm is not None else summary.reason or DASH,
        p_value(summary.p_table),
        f"{summary.effect:+.2f}" if summary.effect is not None else DASH,
        f"{summary.wins}/{summary.ties}/{summary.losses}" if compared else DASH,
        summary.group or DASH,
        rank,
    ]


def pair_row(one: str, other: str, found: Comparison) -> list[str]:
    """The cells of one question of a pair, in the order of :data:`PAIR_HEADERS`, as plain text."""
    median = Number(value=found.median, low=found.low, high=found.high)
    better = {"one": one, "other": other, None: found.reason or DASH}
    return [
        one,
        other,
        str(found.blocks),
        percent(median, signed=True),
        p_value(found.p_holm),
        p_value(found.p_table),
        DASH if found.effect is None else f"{found.effect:+.2f}",
        f"{found.wins}/{found.ties}/{found.losses}",
        better.get(found.better, found.better or DASH),
    ]


def _told(pair: Pair, question: str) -> bool:
    """Does one question tell a pair apart?"""
    return getattr(pair, question).better in ("one", "other")


def _with_control(pair: Pair, control: str | None) -> bool:
    return any(name == control or name.endswith(RANDOM) for name in (pair.one, pair.other))


def told_apart(pair: Pair, question: str) -> str:
    """What one question says of a pair that it tells apart, in Markdown."""
    words = {"left": "less left of the backdoor", "clean": "clean metric higher"}
    found: Comparison = getattr(pair, question)
    better, worse = _named(pair, found)
    median = percent(Number(value=found.median, low=found.low, high=found.high), signed=True)
    return (
        f"{escape_markdown(better)} before {escape_markdown(worse)}: {words[question]} on {found.blocks} blocks "
        f"({escape_markdown(pair.one)} − {escape_markdown(pair.other)}: median {median} points, "
        f"p (Holm) {p_value(found.p_holm)})"
    )


def _named(pair: Pair, found: Comparison) -> tuple[str, str]:
    return (pair.one, pair.other) if found.better == "one" else (pair.other, pair.one)


def gap_lines(gaps: tuple[Gap, ...], escape: Callable[[str], str] = escape_markdown) -> Iterator[str]:
    """A line for each defense and reason, with the blocks that it holds for; in Markdown, unless text is escaped in another way."""
    key = sorted(gaps, key=lambda gap: (gap.defense, gap.reason, gap.task, gap.model, gap.attack))
    for (defense, reason), group in groupby(key, key=lambda gap: (gap.defense, gap.reason)):
        places = [" · ".join((gap.task, gap.model, gap.attack)) for gap in group]
        shown = ", ".join(escape(place) for place in places[:6])
        more = f" and {len(places) - 6} more" if len(places) > 6 else ""
        yield f"{escape(defense)}: {escape(reason) or 'no reason recorded'}: {shown}{more}"


def apart_section(board: Board) -> list[str]:
    """What cannot be read or does not fit; no paragraph where there is nothing of it."""
    if not board.apart:
        return []
    count = len(board.apart)
    introduction = (
        f"{count} result{'s' * (count != 1)} in no row, block or test of this board: "
        "unreadable, changed, or not fitting the others."
    )
    lines = [f"- {escape_markdown(fault.where)}: {escape_markdown(fault.what)}" for fault in board.apart]
    return ["## Set apart", introduction, "\n".join(lines)]
