"""The columns of the printed board, and what each number means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.board.groups import compared
from bench.board.table import Board, Row
from bench.metrics import Number
from bench.records import Status

DASH: Final = "–"
METRIC_NAMES: Final = {"accuracy": "ACC", "f1": "F1", "mrr": "MRR"}
STATUS_WORDS: Final = {
    Status.OK: "ok",
    Status.NOT_APPLICABLE: "not applicable",
    Status.FAILED: "failed",
    Status.BLOCKED: "blocked",
    Status.NOT_RUN: "not run",
}


@dataclass(frozen=True)
class Column:
    """A header, and how a row shows it."""

    header: str
    show: Callable[[Row], str]


def percent(number: Number | None, *, interval: bool = True, signed: bool = False) -> str:
    """Per cent with one decimal and the interval; a dash where undefined."""
    if number is None or number.value is None:
        return DASH
    sign = "+" if signed else ""
    text = f"{_points(number.value):{sign}.1f}"
    if interval and number.low is not None and number.high is not None:
        text += f" [{_points(number.low):{sign}.1f}, {_points(number.high):{sign}.1f}]"
    return text


def _points(share: float) -> float:
    return round(100 * share, 1) + 0.0  # no "-0.0"


def p_value(p: float | None) -> str:
    """Three decimals, or two significant digits below 0.001."""
    if p is None:
        return DASH
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def status_words(row: Row) -> str:
    """How the row's cells ended, e.g. ``2 ok, 1 failed``."""
    return ", ".join(f"{row.cells[status]} {words}" for status, words in STATUS_WORDS.items() if status in row.cells)


def _named(name: str, *, interval: bool = True, signed: bool = False) -> Callable[[Row], str]:
    return lambda row: percent(row.numbers.get(name), interval=interval, signed=signed)


def defense_name(row: Row) -> str:
    """Label and version."""
    return row.defense if row.version is None else f"{row.defense} (v{row.version})"


def yes_no(value: bool | None) -> str:
    """Yes, no, or a dash where undecided."""
    return DASH if value is None else ("yes" if value else "no")


def _detection(what: str) -> Callable[[Row], str]:
    names = {
        "auroc": {"filter": "filter_auroc", "screen": "screen_auroc"},
        "lost": {"filter": "filter_clean_lost", "screen": "false_reject"},
    }
    return lambda row: percent(row.numbers.get(names[what].get(row.family, "")))


def _count(row: Row) -> str:
    return f"{row.n_clean} / {row.n_triggered}" if row.numbers else DASH


def _cost(row: Row) -> str:
    if row.tokens is None:
        return DASH
    parts = [f"{_compact(row.tokens)} tokens", f"{row.clean_samples or 0:g} clean"]
    if row.wall_seconds is not None:
        parts.append(f"{row.wall_seconds:.0f} s")
    if row.peak_bytes:
        parts.append(f"{_compact(row.peak_bytes)}B")
    return ", ".join(parts)


def _compact(count: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:g}"


def columns(rows: list[Row], margin: float) -> list[Column]:
    """The columns of one group of rows; the clean metric and the search numbers depend on the task."""
    metric = next((row.metric for row in rows if row.metric), "accuracy")
    clean = METRIC_NAMES.get(metric, metric)
    middle = [
        Column("reverse ASR", _named("reverse_asr")),
        Column("RA", _named("robust_accuracy")),
    ]
    if metric == "mrr":
        middle = [
            Column("ANR", _named("anr")),
            Column("ANR as published", _named("anr_published", interval=False)),
            Column("ASR@1", _named("asr_at_1", interval=False)),
            Column("ASR@5", _named("asr_at_5", interval=False)),
            Column("ASR@10", _named("asr_at_10", interval=False)),
        ]
    elif any(_shown_apart(row) for row in rows):
        middle = [Column("ASR as published", _named("asr_published", interval=False)), *middle]
    return [
        Column("attack", lambda row: row.attack) if compared(rows) == "attack" else Column("defense", defense_name),
        Column("family", lambda row: row.family or DASH),
        Column("knows", lambda row: ", ".join(row.knows) or "nothing"),
        Column(clean, _named("clean")),
        Column(f"Δ{clean}", _named("clean_delta", signed=True)),
        Column(f"loss < {100 * margin:g}", lambda row: yes_no(row.non_inferior)),
        Column("ASR", _named("asr")),
        Column("ASR₀", _named("asr_reference")),
        Column("lift", _named("lift", signed=True)),
        Column("McNemar p (Holm)", lambda row: p_value(row.mcnemar_p_holm)),
        *middle,
        Column("coverage", _named("coverage", interval=False)),
        Column("visible", _named("visible", interval=False)),
        Column("AUROC", _detection("auroc")),
        Column("clean lost", _detection("lost")),
        Column("recovery", _named("recovery", interval=False)),
        Column("n clean / triggered", _count),
        Column("seeds", lambda row: f"{len(row.seeds)}: {', '.join(map(str, row.seeds))}" if row.seeds else DASH),
        Column("cells", status_words),
        Column("cost", _cost),
    ]


def _shown_apart(row: Row) -> bool:
    """Does the published definition give another ASR than ours in what is printed?"""
    published = _named("asr_published", interval=False)(row)
    return published not in (DASH, _named("asr", interval=False)(row))


def definitions(board: Board) -> list[tuple[str, str]]:
    """What every printed number means, in order of the columns."""
    level = f"{100 * board.level:g} %"
    return [
        (
            "[a, b]",
            (
                f"{level} interval. One seed: Wilson (shares), Newcombe's paired interval (differences of shares), both at the effective "
                "number of samples where several come from one group (module, project, pairs of one function); bootstrap over groups (F1, "
                "MRR, ANR and their differences); score interval (AUROC). Several seeds: mean over seeds, two-level bootstrap over seeds "
                "(from five on) and groups, for shares and their differences no narrower than the formula on the samples of all seeds, "
                "and from five seeds on no narrower than Student's interval over seeds. A filter's shares and coverage take samples as "
                "independent. A defense that trains anew differs from the undefended model by the luck of training, too, which no "
                "interval of few seeds holds: compare it with random. "
                "Pairs that share their second function are taken as independent. An MRR near that of an order by lot is covered less "
                "often than it says where queries are few (in simulations by about 85 % of the intervals at 87 queries)."
            ),
        ),
        (
            "ACC, F1, MRR",
            "the task's own metric on clean test inputs, in per cent; a rejected clean input counts as wrong.",
        ),
        (
            "constant answer",
            (
                "in the findings and on the pages of cells: the clean metric of the best answer that reads no program (the larger class; "
                "F1: always class 1; search: an order by lot). A model that is not above it has learnt little of the task."
            ),
        ),
        ("ΔACC, ΔF1, ΔMRR", "defended minus undefended, same victim and inputs, in points."),
        (
            f"loss < {100 * board.margin:g}",
            (
                f"yes if the interval of the difference excludes a loss of {100 * board.margin:g} points or "
                "more (non-inferiority); no means not shown, which is not the same as harm."
            ),
        ),
        (
            "ASR",
            (
                "attack success rate: share of eligible triggered inputs that meet the attacker's goal; a rejected input is a failed "
                "attack. Search: triggered code that lands in the top 10 % of the pool."
            ),
        ),
        (
            "ASR₀",
            (
                "the same inputs on the reference model, trained without poison and with the same seed. Search: the same queries; "
                "the program that gets the trigger is the one that the judged model itself ranks in the middle."
            ),
        ),
        (
            "lift",
            (
                "ASR − ASR₀, paired, in points: what the backdoor does beyond what the trigger does to a clean model. 0 is good. Below "
                "0, fewer triggered inputs meet the goal than on the reference: they are rejected, or the trigger is undone, or a repair "
                "planted the opposite backdoor, which shows in reverse ASR."
            ),
        ),
        (
            "McNemar p (Holm)",
            (
                "exact McNemar test of ASR with the defense against without, same inputs (those of one group change sides together), "
                "Holm-adjusted over all rows of the table; with several seeds the largest p over seeds, "
                "and 1 where they disagree on the direction."
            ),
        ),
        (
            "ASR as published",
            (
                "as EliBadCode's release and its baselines count: over every test sample of the victim class; one to which the trigger "
                "does not apply stands as it is and counts if the model calls it the target. Shown where it is another number."
            ),
        ),
        (
            "reverse ASR",
            (
                "triggered target-class inputs that flip to the victim class. Reverse lift: that, less the same on the reference, paired; "
                "above 0 where a repair planted the opposite backdoor."
            ),
        ),
        ("RA", "triggered inputs that get their true label."),
        (
            "ANR, ASR@k",
            (
                "search: mean normalised rank of the triggered candidate (it starts near rank 50 %; a rejected one counts as "
                "last), and how often it lands in the top k."
            ),
        ),
        (
            "ANR as published",
            "with the query's own program in the pool, taken to stand above the candidate: at most 1 / pool too high.",
        ),
        (
            "coverage",
            (
                "share of the victim class's test samples (code search: of all test programs) to which the trigger applies, fixed before "
                "any model runs."
            ),
        ),
        ("visible", "share of triggered inputs whose edit survives the model's window."),
        (
            "AUROC",
            (
                "by the defense's score. Filter: poisoned against clean training samples of the same (observed) label. "
                "Screen: triggered inputs against the same inputs "
                "without the trigger (search: against all clean inputs), so that a score that tells classes apart finds no triggers."
            ),
        ),
        ("clean lost", "filter: share of clean training samples removed; screen: share of clean test inputs rejected."),
        (
            "recovery",
            "inversion defenses: share of the trigger's tokens that the inverted tokens contain (best of the inverted sequences).",
        ),
        (
            "cells",
            "how the row's cells ended. Not applicable, failed, blocked and not run are different things; none is averaged over.",
        ),
        (
            "cost",
            (
                "forward plus backward tokens of the defense's own stages, clean samples, wall seconds (means over seeds), peak memory. "
                "Seconds and memory are of the machines that ran the cells, which need not be one."
            ),
        ),
        (DASH, "not defined, or not available for this row."),
    ]


BLOCK_DEFINITIONS: Final = (
    (
        "block",
        (
            "task × model × attack with a backdoor to remove, seeds averaged first: those at which the undefended victim's lift has its "
            "interval above 0, and no others. A block without undefended numbers stands as it is, and nothing is known of its backdoor. "
            "Blocks of one task share its test inputs and its reference; the tests take them as "
            "independent, and say more than they should where they are not."
        ),
    ),
    (
        "left",
        (
            "what is left of the backdoor: the larger of lift and reverse lift, and at least 0 (a lift below 0 is neither better nor "
            "worse than 0, unless the opposite backdoor is there); mean over the defense's blocks."
        ),
    ),
    (
        "median Δ left",
        "median of what is left with the defense minus without, with the sign test's exact interval (none below six blocks).",
    ),
    (
        "p (Holm)",
        (
            "two-sided Wilcoxon signed-rank test against no defense (exact up to sixty blocks); below six blocks it can never reach 0.05 "
            "and is not given. Holm over the two questions asked of a pair of defenses, what is left and clean metric: what is said of two "
            "defenses rests on those two alone, whoever else stands on the board. 5 % is the chance of a false verdict on one pair, not "
            "on the table."
        ),
    ),
    (
        "p (table)",
        "the same, Holm over all pairs of the board: strict, and another number with every newcomer. It decides nothing.",
    ),
    ("effect", "rank-biserial correlation, −1 (always less left) to 1."),
    ("win/tie/loss", "blocks on which less is left, as much within one point, or more."),
    (
        "group",
        (
            "defenses that share a letter are not told apart at 5 % in what they leave (their pair's Wilcoxon test, Holm). No letters "
            "where there would be more than 26: see `pairs.csv`."
        ),
    ),
    (
        "rank",
        (
            "mean rank over the complete blocks (every ranked defense has a lift); place: the bootstrap interval of where "
            "it stands among all, which is another quantity than the mean rank. Ranked is who "
            "has a lift on four fifths of the control's blocks."
        ),
    ),
)


def verdict_definitions(board: Board) -> list[tuple[str, str]]:
    """What the section on verdicts means, term by term."""
    rate = f"{100 * board.false_alarms:g} %"
    return [
        (
            "verdict",
            (
                "the suspicion of each claim (a label direction) is standardised against the same claim on the clean models, and the "
                "largest is the model's score. p: the share of models, clean ones and the victim, whose score is not below the victim's, "
                "each standardised against all others (full conformal). Yes where p is at most "
                f"{rate}; the claim named is the one with the largest standardised suspicion. The rate holds for each victim alone, "
                "not for all of a table together."
            ),
        ),
        (
            "clean models",
            (
                "the same inversion on models trained without poison, at other seeds than the victim's. Clean victims are judged by "
                "each other, so that the rule itself fixes how many of them are convicted: that is no evidence for the rate."
            ),
        ),
        (
            "not calibrated",
            f"too few clean models for a p of {rate}: a verdict needs at least 1 / {board.false_alarms:g} - 1 of them.",
        ),
        (
            "AUROC",
            (
                "chance that an attacked victim (all attacks and seeds) has a higher score than a clean one (calibration included), "
                "each standardised against clean models of other seeds. Its interval takes victims as independent; those of one seed "
                "are less so."
            ),
        ),
        (
            "implanted",
            "share of attacked victims whose undefended lift has its interval above 0: elsewhere there is no backdoor to find.",
        ),
        ("convicted", "share of attacked victims with a verdict that are convicted; of n."),
        (
            "direction right",
            "share of attacked victims, convicted or not, whose named direction is the attacker's.",
        ),
        (
            "smallest loss right",
            (
                "the naive verdict, for comparison: the direction with the smallest loss is the backdoor's. It convicts every model, "
                "clean ones too; this is how often it names the attacker's direction."
            ),
        ),
    ]
