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
    """Checks against kinds of task, then why checks failed or were skipped."""
    columns: list[TaskKind | None] = list(dict.fromkeys(r.kind for r in results if r.kind is not None)) or [None]
    table = Table(title=f"{family}/{plugin}", title_justify="left", show_lines=False)
    table.add_column("check")
    for kind in columns:
        table.add_column(kind.value if kind is not None else "")
    for name in dict.fromkeys(r.check for r in results):
        row = {r.kind: r for r in results if r.check == name}
        table.add_row(name, *(_cell(row.get(None) or row.get(kind)) for kind in columns))
    console.print(table)
    for result in results:
        if result.reason:
            where = f" on {result.kind.value}" if result.kind is not None else ""
            style = STYLE[result.outcome]
            console.print(
                f"  [{style}]{result.outcome.value}[/] {result.check}{where}: {escape(result.reason)}", highlight=False
            )


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
