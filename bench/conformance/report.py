"""The report of the conformance suite: one table a plugin, the reasons below, one line at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.conformance.checks import Outcome, Result
from bench.contracts import TaskKind

STYLE = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.SKIPPED: "yellow"}


def print_plugin(console: Console, family: str, plugin: str, results: Sequence[Result]) -> None:
    """Checks against kinds of task, then why checks failed or were skipped, with the rule where one is broken."""
    columns: list[TaskKind | None] = list(dict.fromkeys(r.kind for r in results if r.kind is not None)) or [None]
    table = Table(title=f"{family}/{plugin}", title_justify="left", show_lines=False)
    table.add_column("check")
    for kind in columns:
        table.add_column(kind.value if kind is not None else "")
    for name in dict.fromkeys(r.check for r in results):
        row = {r.kind: r for r in results if r.check == name}
        table.add_row(name, *(_cell(row.get(None) or row.get(kind)) for kind in columns))
    console.print(table)
    same: dict[tuple[Outcome, str, str, str], list[str]] = {}
    for result in results:
        if result.reason:
            told = same.setdefault((result.outcome, result.check, result.reason, result.rule), [])
            told += [result.kind.value] if result.kind is not None else []
    for (outcome, check, reason, rule), kinds in same.items():
        where = f" on {', '.join(kinds)}" if kinds else ""
        said = f"  [{STYLE[outcome]}]{outcome.value}[/] {check}{where}: {escape(reason)}"
        console.print(said, highlight=False, soft_wrap=True)
        if outcome is Outcome.FAILED and rule:
            console.print(f"         [dim]the rule: {escape(rule)}[/]", highlight=False, soft_wrap=True)


def _cell(result: Result | None) -> str:
    return "" if result is None else f"[{STYLE[result.outcome]}]{result.outcome.value}[/]"


def print_summary(console: Console, results: Sequence[Result]) -> None:
    """How many plugins and checks, how many of which outcome, and which plugins failed."""
    plugins = list(dict.fromkeys((r.family, r.plugin) for r in results))
    count = Counter(r.outcome for r in results)
    failed = list(dict.fromkeys(f"{r.family}/{r.plugin}" for r in results if r.outcome is Outcome.FAILED))
    parts = ", ".join(f"{count[outcome]} {outcome.value.lower()}" for outcome in Outcome)
    console.print(f"\n{len(plugins)} plugin(s), {len(results)} checks: {parts}", highlight=False)
    if failed:
        console.print(f"[bold red]broken rules in:[/] {', '.join(failed)}", highlight=False)
