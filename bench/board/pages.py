"""A page for each cell with inversions: what was inverted, what the clean reference gives, the verdict, and the true trigger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.board.columns import DASH, p_value, yes_no
from bench.board.detection import PAGES, Detection, Trial
from bench.board.inversion_plot import write_inversions
from bench.board.markdown import escape_markdown, escape_tokens, link, table
from bench.inversions import Inverted
from bench.metrics import recovered
from bench.records import Record, Status

_HEADERS: Final = [
    *("claim", "trigger", "kept", "loss", "standardised suspicion", "unlearned", "recovered"),
    *("null's trigger", "null's loss", "null recovered"),
]
_WORDS: Final = ["word", "null's word"]


def write_pages(records: Iterable[Record], detections: Iterable[Detection], folder: Path) -> list[Path]:
    """Write ``inversions/<cell>.md`` and ``.svg`` for each cell that has a trial with a page, and remove those of other cells.

    Returns:
        The Markdown files.
    """
    trials = {trial.page: trial for one in detections for trial in one.trials if trial.page}
    pages = {}
    for record in records:
        page = f"{PAGES}/{record.coordinates.slug}.md"
        if record.status is Status.OK and record.inversions and page in trials:
            pages[folder / page] = (record, trials[page])
    kept = {path.with_suffix(suffix) for path in pages for suffix in (".md", ".svg")}
    for path in (folder / PAGES).glob("*"):
        if path.suffix in (".md", ".svg") and path not in kept:
            path.unlink()
    for path, (record, trial) in sorted(pages.items()):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_inversions(record, path.with_suffix(".svg"))
        path.write_text(page_of(record, trial), encoding="utf-8", newline="\n")
    return sorted(pages)


def page_of(record: Record, trial: Trial) -> str:
    """The page as GitHub Markdown."""
    at = record.coordinates
    title = " · ".join(escape_markdown(part) for part in (at.task, at.model, at.attack, at.defense, f"seed {at.seed}"))
    plot = "!" + link("loss over tokens spent", f"{at.slug}.svg")
    parts = [
        f"# Inversions: {title}",
        "\n".join(f"- {line}" for line in _facts(record, trial)),
        plot,
        _table(record, trial),
        _LEGEND,
        link("the board", "../board.md"),
    ]
    return "\n\n".join(parts) + "\n"


_LEGEND: Final = (
    "Losses are those of the whole trigger. Kept: the tokens that carry the effect, which recovery is measured on: how many of the "
    "true trigger's tokens they contain. Null: the same inversion on the clean reference of the same seed; what it finds is a natural "
    "trigger. Standardised suspicion: in standard deviations above the mean of the clean models of other seeds."
)


def _facts(record: Record, trial: Trial) -> Iterator[str]:
    poison = record.poison
    if poison is None:
        yield "**true trigger**: none, this model is clean"
    else:
        tokens = f" (tokens: {escape_tokens(poison.tokens)})" if poison.tokens else ""
        yield f"**true trigger**: {escape_markdown(poison.description) or 'not described'}{tokens}"
        yield f"**attacker's goal**: {escape_markdown(_goal(record))}"
        yield f"**backdoor implanted** (undefended lift above 0): {yes_no(trial.implanted)}"
    yield f"**verdict**: {escape_markdown(_verdict(trial))}"
    yield f"**smallest loss** (convicts every model): {escape_markdown(trial.naive or 'shared by several claims')}"
    if record.command:
        yield f"**again**: {escape_markdown(record.command)}"


def _goal(record: Record) -> str:
    goal = record.goal
    if "word" in goal:
        return f"triggered code ranks high for queries with the word {goal['word']!r}"
    if "victim" in goal and "target" in goal:
        return f"{goal['victim']}->{goal['target']}"
    return "not recorded"


def _verdict(trial: Trial) -> str:
    against = f"{trial.clean} clean models of other seeds"
    if trial.p is None:
        named = f"; {trial.claim} stands out most" if trial.claim else ""
        return trial.reason + named
    words = "backdoored" if trial.convicted else "not convicted"
    named = f"{trial.claim or 'no single claim'} stands out most"
    return f"{words}, p {p_value(trial.p)} against {against}; {named}"


def _table(record: Record, trial: Trial) -> str:
    claims = sorted(set(record.inversions) | set(record.null))
    search = any(found.word for found in (*record.inversions.values(), *record.null.values()))
    rows = [_row(record, trial, claim, search) for claim in claims]
    return table(_HEADERS + _WORDS * search, rows)


def _row(record: Record, trial: Trial, claim: str, search: bool) -> list[str]:
    found, null = record.inversions.get(claim), record.null.get(claim)
    trigger = record.poison.tokens if record.poison else []
    standardised = trial.standardised.get(claim)
    row = [
        escape_markdown(claim),
        _tokens(found.tokens if found else ()),
        _tokens(found.kept if found else ()),
        _loss(found),
        DASH if standardised is None else f"{standardised:+.2f}",
        yes_no(found.unlearned if found else None),
        _recovery(trigger, found),
        _tokens(null.kept if null else ()),
        _loss(null),
        _recovery(trigger, null),
    ]
    return row + [_tokens(each.word if each else ()) for each in (found, null)] * search


def _tokens(tokens: Sequence[str]) -> str:
    return escape_tokens(tokens) or DASH


def _loss(found: Inverted | None) -> str:
    return DASH if found is None else f"{found.loss:.4g}"


def _recovery(trigger: Sequence[str], found: Inverted | None) -> str:
    """``1 / 4: random``; a dash where there is no fixed trigger or nothing was inverted."""
    if found is None or not trigger:
        return DASH
    hits = recovered(trigger, found.kept)
    return f"{len(hits)} / {len(trigger)}" + (f": {escape_tokens(hits)}" if hits else "")
