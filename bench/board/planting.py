"""Is the backdoor of an undefended victim there, and at which seeds: said in the same words by every rendering."""

from __future__ import annotations

from bench.board.columns import percent
from bench.board.table import Row
from bench.metrics import Number


def planted(row: Row) -> str:
    """Is the backdoor of an undefended row there: ``yes``, ``no``, or at how many of its seeds; empty where that is not known."""
    if not row.attacked or any(one.lift.low is None for one in row.each):
        return ""
    there, seeds = len(row.implanted_seeds), len(row.each)
    return "yes" if there == seeds else "no" if there == 0 else f"at {there} of {seeds} seeds"


def seed_by_seed(row: Row) -> str:
    """The lift of each seed in points, with its seed where there are several; empty for one."""
    if len(row.each) < 2:
        return ""
    return ", ".join(percent(Number(value=one.lift.value), signed=True) for one in row.each)
