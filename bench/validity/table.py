"""The validity table: a row for each attack and language, as Markdown, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.board.markdown import escape_markdown, escaped_table
from bench.validity.judging import Judgement

SHOWN: Final = 3
"""Programs that fail a check, shown for each row."""


@dataclass(frozen=True)
class ValidityRow:
    """One attack in one language.

    Attributes:
        attack: as a suite names it.
        language: of the programs.
        origin: where the programs come from.
        judgements: one a program; empty where ``missing`` says why there is none.
        missing: the attack does not apply to the language, cannot be prepared, or raised.
        raised: it raised what is no error for people.
    """

    attack: str
    language: str
    origin: str = ""
    judgements: tuple[Judgement, ...] = ()
    missing: str = ""
    raised: bool = False

    def count(self, outcome: str) -> int:
        """Programs with this outcome."""
        return sum(j.outcome == outcome for j in self.judgements)

    @property
    def valid(self) -> int:
        """Applied, and every check passed."""
        return sum(j.valid for j in self.judgements)

    def passed(self, check: str) -> tuple[int, int]:
        """(passed, asked) of a check that may have no meaning for a program."""
        told = [getattr(j, check) for j in self.judgements if getattr(j, check) is not None]
        return sum(told), len(told)

    def twice(self) -> Counter[str]:
        """What the trigger does to its own outcome."""
        return Counter(j.twice for j in self.judgements if j.twice is not None)

    def reasons(self) -> Counter[str]:
        """Why programs were refused or are not valid; numbers are left out."""
        return Counter(re.sub(r"\d+", "n", j.reason) for j in self.judgements if j.reason)


HEADERS: Final = (
    *("attack", "language", "programs", "applied", "valid", "refused", "no place"),
    *("compiles", "restored", "structure", "twice: not again / again / broken"),
)


def cells(row: ValidityRow) -> list[str]:
    """A row's cells, in the order of :data:`HEADERS`."""
    if row.missing:
        return [row.attack, row.language, row.missing, *[""] * (len(HEADERS) - 3)]
    twice = row.twice()
    return [
        row.attack,
        row.language,
        str(len(row.judgements)),
        str(row.count("applied")),
        str(row.valid),
        str(row.count("refused")),
        str(row.count("no place")),
        *(_share(*row.passed(check)) for check in ("compiles", "restored", "structure")),
        " / ".join(str(twice[what]) for what in ("not again", "again", "broken")),
    ]


def _share(passed: int, asked: int) -> str:
    return f"{passed} / {asked}" if asked else "–"


def to_markdown(rows: Sequence[ValidityRow], command: str) -> str:
    """The table with its legend, why programs were refused, and programs that failed."""
    origins = {row.language: row.origin for row in rows if row.origin}
    parts = [
        "# Validity of the attacks",
        f"Made by `{command}`. " + _LEGEND,
        "\n".join(f"- **{language}**: {escape_markdown(origin)}" for language, origin in sorted(origins.items())),
        escaped_table(HEADERS, [cells(row) for row in rows]),
    ]
    reasons = [
        f"- {escape_markdown(row.attack)}, {row.language}: {escape_markdown(why)}: {count}"
        for row in rows
        for why, count in row.reasons().most_common()
    ]
    parts += ["## Refused or not valid, and why", "\n".join(reasons) or "Nothing."]
    failures = list(_failures(rows))
    if failures:
        parts += ["## Programs that fail a check", *failures]
    return "\n\n".join(parts) + "\n"


_LEGEND: Final = (
    "*Applied*: the trigger fits and the outcome parses with no new syntax error node (Python: compiles). *Refused*: it does not; the "
    "harness never uses such an edit. *Valid*: applied, and every check to the right passed. *Compiles*: C, `gcc -fsyntax-only` after "
    "the standard headers, of the programs that it accepts without the trigger (a function out of its file seldom is one). *Restored*: "
    "taking the edits back gives every byte, and applying again the same program. *Structure*: of edits that only rename, how many "
    "leave every name bound at the same places and change no other name. *Twice*: the trigger on its own outcome."
)


def _failures(rows: Iterable[ValidityRow]) -> Iterable[str]:
    for row in rows:
        failed = [j for j in row.judgements if j.outcome == "applied" and j.reason][:SHOWN]
        for judgement in failed:
            yield f"{escape_markdown(row.attack)}, {row.language}: {escape_markdown(judgement.reason)}"
            yield fenced(judgement.after, row.language)


def fenced(text: str, language: str = "") -> str:
    """A Markdown code block that its content cannot end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def to_csv(rows: Iterable[ValidityRow]) -> str:
    """One line a row; counts as whole numbers, empty where a check has no meaning."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    checks = ("compiles", "restored", "structure")
    writer.writerow(
        [
            *("attack", "language", "origin", "missing", "programs", "applied", "valid", "refused", "no_place"),
            *(f"{check}_{what}" for check in checks for what in ("passed", "asked")),
            *("twice_not_again", "twice_again", "twice_broken", "reasons"),
        ]
    )
    for row in rows:
        twice = row.twice()
        counts: list[object] = [
            len(row.judgements),
            row.count("applied"),
            row.valid,
            row.count("refused"),
            row.count("no place"),
        ]
        counts += [number for check in checks for number in row.passed(check)]
        counts += [twice[what] for what in ("not again", "again", "broken")]
        reasons = "; ".join(f"{why}: {count}" for why, count in row.reasons().most_common())
        shown = [""] * len(counts) if row.missing else counts
        writer.writerow([row.attack, row.language, row.origin, row.missing, *shown, reasons])
    return out.getvalue()
