"""The board's section on verdicts: inversion defenses as detectors, and their verdict on every victim."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.board.columns import DASH, p_value, percent, verdict_definitions
from bench.board.detection import Detection, Trial
from bench.board.markdown import escape_markdown, escaped_table, link, table
from bench.board.table import Board
from bench.metrics import Number

_HEADERS: Final = [
    *("task", "model", "defense", "clean models", "AUROC", "AUROC, implanted", "implanted"),
    *("convicted", "convicted, implanted", "direction right", "smallest loss right"),
]
_NUMBERS: Final = (
    *("auroc", "auroc_implanted", "implanted"),
    *("convicted", "convicted_implanted", "right", "naive_right"),
)
_INTRODUCTION: Final = (
    "Is the model backdoored, and in which direction? What an inversion finds on a victim, against what it finds on clean models "
    "of other seeds. Of models trained like the clean ones at most {rate} are convicted. A verdict links to what was inverted."
)


def verdict_section(board: Board) -> list[str]:
    """The section's paragraphs; none where no defense inverts triggers."""
    if not board.detections:
        return []
    parts = [
        "## Verdicts",
        _INTRODUCTION.format(rate=f"{100 * board.false_alarms:g} %"),
        escaped_table(_HEADERS, [_summary(one) for one in board.detections]),
    ]
    reasons = list(dict.fromkeys(note for one in board.detections for note in _absent(one)))
    if reasons:
        parts.append("\n".join(f"- {note}" for note in reasons))
    for one in board.detections:
        parts += [f"### {_title(one)}", _verdicts(one), "\n".join(f"- {note}" for note in _notes(one))]
    parts.append("\n".join(f"- **{escape_markdown(term)}**: {text}" for term, text in verdict_definitions(board)))
    return parts


def _title(one: Detection) -> str:
    return " · ".join(escape_markdown(part) for part in (one.task, one.model, _defense(one)))


def _defense(one: Detection) -> str:
    return one.defense if one.version is None else f"{one.defense} (v{one.version})"


def _numbers(one: Detection) -> list[Number]:
    return [getattr(one, name) for name in _NUMBERS]


def _summary(one: Detection) -> list[str]:
    shown = [_with_count(number) for number in _numbers(one)]
    return [one.task, one.model, _defense(one), str(len(one.clean_seeds)), *shown]


def _with_count(number: Number) -> str:
    text = percent(number)
    return text if number.value is None else f"{text} of {number.n}"


def _absent(one: Detection) -> Iterator[str]:
    for header, number in zip(_HEADERS[4:], _numbers(one), strict=True):
        if number.value is None:
            yield f"{_title(one)}: {header}: {escape_markdown(number.reason)}"


def _verdicts(one: Detection) -> str:
    """A line for each attack, a column for each seed."""
    found = {(trial.attack, trial.seed): trial for trial in one.trials if not trial.calibration}
    seeds = sorted({seed for _, seed in found})
    attacks = list(dict.fromkeys(attack for attack, _ in found))
    body = [[escape_markdown(attack), *(_cell(found.get((attack, seed))) for seed in seeds)] for attack in attacks]
    return table(["attack", *(f"seed {seed}" for seed in seeds)], body)


def _cell(trial: Trial | None) -> str:
    return DASH if trial is None else link(short_verdict(trial), trial.page)


def short_verdict(trial: Trial) -> str:
    """``yes, 1->0, p 0.091``; ``no, p 0.600``; or that there is none. ``(wrong)`` marks a direction that is not the attacker's."""
    if trial.p is None:
        return "not calibrated" if trial.clean < trial.needed else "undefined"
    if not trial.convicted:
        return f"no, p {p_value(trial.p)}"
    named = trial.claim or "no single direction"
    return f"yes, {named}{' (wrong)' if trial.right is False else ''}, p {p_value(trial.p)}"


def _notes(one: Detection) -> Iterator[str]:
    seeds = ", ".join(str(seed) for seed in one.clean_seeds if seed not in one.calibration_seeds) or "none"
    calibration = ", ".join(map(str, one.calibration_seeds)) or "none"
    yield f"clean models: seeds {seeds}; for calibration alone: {calibration}"
    for missing in one.missing:
        yield f"clean model missing: {escape_markdown(missing)}"
    for reason in dict.fromkeys(trial.reason for trial in one.trials if trial.reason and not trial.calibration):
        yield escape_markdown(reason)
    attacked = [trial for trial in one.trials if trial.attacked and trial.implanted is False]
    if attacked:
        names = ", ".join(f"{escape_markdown(trial.attack)} at seed {trial.seed}" for trial in attacked)
        yield f"no implanted backdoor: {names}"


def verdict_lines(board: Board) -> Iterator[str]:
    """For the terminal: a short line for each detector."""
    for one in board.detections:
        judged = [trial for trial in one.trials if trial.attacked and trial.p is not None]
        convicted = f"{sum(trial.convicted is True for trial in judged)} of {len(judged)} attacked convicted"
        if not judged:
            needed = max((trial.needed for trial in one.trials), default=0)
            convicted = (
                f"verdicts not calibrated ({len(one.clean_seeds)} clean models, a victim needs {needed} of other seeds)"
            )
        yield f"{one.defense} on {one.task} · {one.model}: AUROC {percent(one.auroc)}, {convicted}"
