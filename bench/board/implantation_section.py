"""The board's section on implantation: what each attack does to the undefended model, and with how much poison."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from bench.board.columns import DASH, METRIC_NAMES, percent
from bench.board.groups import undefended
from bench.board.markdown import escape_markdown, escaped_table
from bench.board.planting import planted, seed_by_seed
from bench.board.table import Board, Row

_INTRODUCTION: Final = (
    "The undefended victim beside the clean reference. An attack is *implanted* at a seed where the interval of that seed's lift lies "
    "above 0. A defense has nothing to remove where it is not: defenses are judged on the seeds that have a backdoor."
)
WITHIN: Final = {None: DASH, True: "yes", False: "not shown"}
DEFINITIONS: Final = (
    (
        "poisoned",
        "training samples with the trigger, mean over seeds; 0 for an attack on the encoder that the user starts from.",
    ),
    (
        "Δ to reference",
        "clean metric of the victim less the reference's on the same inputs: what the attack costs the user.",
    ),
    ("within the margin", "is that loss within the suite's margin (lower end of the paired interval)?"),
    (
        "at each seed",
        "the lift of each seed, in their order: a mean over seeds hides one at which nothing was planted.",
    ),
    ("implants from", "the least poison from which on every point of the attack's curve is implanted at every seed."),
)


def implantation_section(board: Board) -> list[str]:
    """The section's paragraphs; none where the board has no undefended victim of an attack."""
    rows = undefended(board)
    if not rows:
        return []
    parts = [
        "## Implantation",
        _INTRODUCTION,
        "![share of triggered inputs that meet the goal, reference and victim](implantation.svg)",
    ]
    for (task, model), group in groupby(rows, key=lambda row: (row.task, row.model)):
        shown = list(group)
        clean = METRIC_NAMES.get(shown[0].metric, shown[0].metric)
        several = any(len(row.each) > 1 for row in shown)
        headers = [
            *("attack", "poisoned", "seeds", "ASR", "ASR₀", "lift"),
            *(["at each seed"] if several else []),
            *(f"Δ{clean} to reference", "within the margin", "implanted"),
        ]
        body = [_cells(row, several) for row in shown]
        parts += [f"### {escape_markdown(task)} · {escape_markdown(model)}", escaped_table(headers, body)]
    found = [curve for curve in board.curves if curve.kind == "poison"]
    if found:
        headers = ["task", "model", "attack", "poisoned", "implants from"]
        body = [
            [
                curve.task,
                curve.model,
                curve.name,
                ", ".join(f"{point.x:g}" for point in curve.points),
                "none of them" if curve.implants_from is None else f"{curve.implants_from:g}",
            ]
            for curve in found
        ]
        parts += ["### How much poison", escaped_table(headers, body)]
    parts.append("\n".join(f"- **{escape_markdown(term)}**: {text}" for term, text in DEFINITIONS))
    if board.curves:
        parts.append("![lift over poisoned samples, and over clean samples](curves.svg)")
    return parts


def _cells(row: Row, several: bool) -> list[str]:
    numbers = row.numbers
    lift = numbers["lift"]
    return [
        row.attack,
        DASH if row.poisoned is None else f"{row.poisoned:g}",
        str(len(row.seeds)),
        percent(numbers["asr"]),
        percent(numbers["asr_reference"]),
        percent(lift, signed=True),
        *([seed_by_seed(row) or DASH] if several else []),
        percent(numbers["reference_delta"], signed=True),
        WITHIN[row.attack_non_inferior],
        planted(row) or DASH,
    ]
