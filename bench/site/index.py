"""What the front page of a board shows, as plain values for its template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any, Final

from markupsafe import Markup

from bench import stats
from bench.board.across_section import gap_lines
from bench.board.analysis import MOST_GROUPS
from bench.board.findings import find
from bench.board.planting import planted
from bench.board.table import FAMILY_ORDER, Row
from bench.metrics import Number
from bench.records import Record, Status
from bench.site import words
from bench.site.charts.cost import cost_chart, spent, unit
from bench.site.charts.curves import curve_chart
from bench.site.charts.looks import Look, looks
from bench.site.charts.ranks import rank_chart, ranked
from bench.site.charts.tradeoff import tradeoff
from bench.site.content import Content, place
from bench.site.links import CELLS, TRADEOFFS, cell_link
from bench.site.reported import AVERAGE, NUMBERS, Reported, of_board

STATUS_LETTERS: Final = {
    Status.NOT_APPLICABLE: "n/a",
    Status.FAILED: "failed",
    Status.BLOCKED: "blocked",
    Status.NOT_RUN: "not run",
}
ON_FRONT: Final = 1500
"""Points of the trade-off charts that the front page can hold and still opens at once."""
PER_CHART: Final = 8
"""Curves that one panel tells apart."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with its heading."""

    heading: str
    chart: Markup


@dataclass(frozen=True, slots=True)
class Group:
    """The panels of one (task, model)."""

    heading: str
    panels: tuple[Panel, ...]
    page: str = ""
    """Where the panels stand, if not on the front page."""


def first_link(content: Content, row: Row, base: str = f"{CELLS}/") -> str:
    """The page of a row: its first good cell, else its first."""
    records = content.records[place(row)]
    good = next((record for record in records if record.status is Status.OK), records[0])
    return cell_link(good.coordinates, base)


# ----------------------------------------------------------------------------------------------------------- the table


FIELDS: Final = (
    *("task", "model", "attack", "defense", "version", "family", "knows", "metric", "clean", "delta", "within"),
    *("asr", "reference", "lift", "p", "tokens", "seconds", "cells", "first"),
)
"""Of a row of the table, in the order in which it is sent to the page; ``first`` is the place of the cell that the row opens."""


def table_rows(content: Content) -> list[list[Any]]:
    """The rows of the table as JSON-ready values of :data:`FIELDS`; shares in per cent with one decimal, as everywhere: rounding twice
    would print other numbers than the board.

    Rows on clean models stand last: they have no lift.
    """
    attacked_first = sorted(content.board.rows, key=lambda row: row.attack == "none")
    return [_table_row(content, row) for row in attacked_first]


def _table_row(content: Content, row: Row) -> list[Any]:
    records = content.records[place(row)]
    cells = [[record.coordinates.seed, record.status.value, cell_link(record.coordinates)] for record in records]
    first = next((i for i, record in enumerate(records) if record.status is Status.OK), 0)
    clean, delta, asr, reference, lift = (
        _triple(row.numbers.get(name)) for name in ("clean", "clean_delta", "asr", "asr_reference", "lift")
    )
    return [
        *(row.task, row.model, row.attack, row.defense, row.version, row.family, row.knows),
        *(words.metric_name(row.metric), clean, delta, row.non_inferior, asr, reference, lift),
        *(row.mcnemar_p_holm, row.tokens, row.wall_seconds, cells, first),
    ]


def _triple(number: Number | None) -> list[float | None] | None:
    if number is None or number.value is None:
        return None
    return [None if end is None else round(100 * end, 1) + 0.0 for end in (number.value, number.low, number.high)]


# -------------------------------------------------------------------------------------------------------------- charts


def by_model(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(heading, rows) of each (task, model), in the board's order."""
    for (task, model), group in groupby(rows, key=lambda row: (row.task, row.model)):
        yield f"{task} · {model}", list(group)


def tradeoffs(content: Content, look: Mapping[str, Look]) -> list[Group]:
    """A panel for each attack, by (task, model); beyond :data:`ON_FRONT` points each group has a page of its own."""
    groups: list[Group] = []
    apart = sum(row.left is not None for row in content.board.rows) > ON_FRONT
    for heading, rows in by_model(content.board.rows):
        name = f"{TRADEOFFS}/{len(groups) + 1}.html" if apart else ""
        base = f"../{CELLS}/" if apart else f"{CELLS}/"
        panels = [
            Panel(attack, chart)
            for attack, found in groupby(rows, key=lambda row: row.attack)
            if (chart := _tradeoff(content, list(found), look, base, f"Trade-off on {attack}, {heading}")) is not None
        ]
        if panels:
            groups.append(Group(heading, tuple(panels), name))
    return groups


def _tradeoff(content: Content, rows: list[Row], look: Mapping[str, Look], base: str, title: str) -> Markup | None:
    return tradeoff(rows, look, content.board.margin, lambda row: first_link(content, row, base), title)


def legend(look: Mapping[str, Look], content: Content) -> list[tuple[str, Look]]:
    """One entry a look; defenses without any lift are left out."""
    shown = {row.defense for row in content.board.rows if row.left is not None}
    entries = {one.legend: one for name, one in look.items() if name in shown}
    return list(entries.items())


def costs(content: Content, look: Mapping[str, Look]) -> list[Panel]:
    """A panel for each (task, model) with a backdoor to remove on which a defense spends anything; over the seeds that have one."""
    measure = unit(content.board.rows)
    found = []
    for heading, rows in by_model(content.board.judged):
        chart = cost_chart(spent(rows, measure), measure, look, f"Cost against effect, {heading}")
        if chart is not None:
            found.append(Panel(heading, chart))
    return found


def curve_panels(content: Content) -> list[dict[str, Any]]:
    """Poison and budget curves, at most :data:`PER_CHART` a panel, each with the names in its legend."""
    panels: list[dict[str, Any]] = []
    grouped = groupby(content.board.curves, key=lambda curve: (curve.kind, curve.task, curve.model))
    for (kind, task, model), group in grouped:
        shown = list(group)
        for start in range(0, len(shown), PER_CHART):
            part = shown[start : start + PER_CHART]
            heading = f"{task} · {model}"
            panels.append(
                {
                    "kind": kind,
                    "heading": heading,
                    "chart": curve_chart(part, f"Lift over {kind}, {heading}"),
                    "names": [curve.name for curve in part],
                    "from": [curve.implants_from for curve in part],
                }
            )
    return panels


# ------------------------------------------------------------------------------------------------------------ heat maps


def heat_maps(content: Content, base: str = f"{CELLS}/") -> list[dict[str, Any]]:
    """Lift by defense (rows) and attack (columns) on each (task, model); attacks without a lift anywhere have no column.

    What is left, mean: over the attacks and seeds that have a backdoor, as across blocks.
    """
    judged = {place(row): row for row in content.board.judged}
    planted = {at[:3] for at in judged}
    maps = []
    for heading, rows in by_model(content.board.rows):
        attacked = [row for row in rows if row.attack != "none"]
        attacks = list(dict.fromkeys(row.attack for row in attacked))
        found = {(row.defense, row.attack): row for row in attacked}
        names = list(dict.fromkeys(row.defense for row in sorted(attacked, key=_by_family)))
        body = [[_heat(content, found.get((name, attack)), base) for attack in attacks] for name in names]
        if body and attacks:
            task, model = rows[0].task, rows[0].model
            counted = [attack for attack in attacks if (task, model, attack) in planted]
            means = [_mean_left([judged.get((task, model, attack, name)) for attack in counted]) for name in names]
            lines = list(zip(names, body, means, strict=True))
            maps.append({"heading": heading, "attacks": attacks, "lines": lines})
    return maps


def _by_family(row: Row) -> tuple[object, ...]:
    return FAMILY_ORDER.index(row.family) if row.family in FAMILY_ORDER else len(FAMILY_ORDER), row.defense


def _heat(content: Content, row: Row | None, base: str) -> dict[str, str]:
    if row is None:
        return {"text": "", "cls": "absent", "title": "not in the suite", "href": ""}
    href, lift = first_link(content, row, base), row.numbers.get("lift")
    if lift is None or lift.value is None:
        status = next((status for status in STATUS_LETTERS if status in row.cells), None)
        why = row.notes[0].reason if row.notes else lift.reason if lift is not None else ""
        return {"text": STATUS_LETTERS[status] if status else words.DASH, "cls": "absent", "title": why, "href": href}
    step = min(5, max(-5, round(5 * lift.value)))
    cls = f"h{abs(step)}" + ("n" if step < 0 else "")
    return {
        "text": words.points(lift.value, signed=True),
        "cls": cls,
        "title": f"{row.defense} on {row.attack}: lift {words.percent(lift, signed=True)}",
        "href": href,
    }


def _mean_left(rows: Sequence[Row | None]) -> str:
    """Mean of what is left; a dash unless every attack has one, since a mean over fewer would be another number."""
    known = [row.left for row in rows if row is not None and row.left is not None]
    return words.points(sum(known) / len(known)) if known and len(known) == len(rows) else words.DASH


# --------------------------------------------------------------------------------------------------------------- tables


def counts(content: Content) -> list[tuple[str, int]]:
    """How the cells ended."""
    statuses = [record.status for found in content.records.values() for record in found]
    return [(status.value.replace("_", " "), statuses.count(status)) for status in Status if status in statuses]


def missing(content: Content) -> list[dict[str, str]]:
    """Cells without numbers, and why."""
    return [
        {
            "cell": " · ".join((row.task, row.model, row.attack, row.defense, f"seed {note.seed}")),
            "status": note.status.value.replace("_", " "),
            "reason": note.reason,
            "href": next(
                cell_link(r.coordinates) for r in content.records[place(row)] if r.coordinates.seed == note.seed
            ),
        }
        for row in content.board.rows
        for note in row.notes
    ]


def implantation(content: Content) -> list[dict[str, Any]]:
    """What each attack does to the undefended model."""
    lines = []
    for row in content.board.rows:
        asr = row.numbers.get("asr")
        if row.family != "none" or asr is None or asr.value is None:
            continue
        lift = row.numbers["lift"]
        delta = row.numbers.get("reference_delta")
        lines.append(
            {
                "row": row,
                "href": first_link(content, row),
                "cells": [
                    words.DASH if row.poisoned is None else f"{row.poisoned:g}",
                    words.percent(asr),
                    words.percent(row.numbers.get("asr_reference")),
                    words.percent(lift, signed=True),
                    words.percent(delta, signed=True),
                    planted(row) or words.DASH,
                ],
            }
        )
    return lines


def reported_lines(content: Content) -> list[dict[str, Any]]:
    """Published numbers, each with the board's rows of the same task, attack and defense."""
    plugins = {at: _plugin_names(found[0]) for at, found in content.records.items()}
    tasks, attacks, defenses = (
        {names[i] for names in plugins.values()} | {at[j] for at in plugins} for i, j in ((0, 0), (1, 2), (2, 3))
    )
    rows = content.rows()

    def fits(at: tuple[str, str, str, str], one: Reported) -> bool:
        task, attack, defense = plugins[at]
        attacked = one.attack in (attack, at[2]) or (one.attack == AVERAGE and attack != "none")
        return attacked and one.task in (task, at[0]) and one.defense in (defense, at[3])

    lines = []
    for one in of_board(content.reported, tasks, attacks, defenses):
        number = NUMBERS.get(one.metric.lower())
        fitting = [
            (row, row.numbers[number])
            for at, row in rows.items()
            if number in row.numbers and fits(at, one) and row.numbers[number].value is not None
        ]
        ours = [(_named(content, row, one), words.percent(found), first_link(content, row)) for row, found in fitting]
        if one.attack == AVERAGE:
            ours = _means(content, fitting, one)
        lines.append({"reported": one, "ours": ours})
    return lines


def _named(content: Content, row: Row, one: Reported) -> str:
    """The row's model, with what of the paper's setting it has not."""
    task = content.records[place(row)][0].plugins.get("task")
    data = str(task.effective.get("source", task.name)) if task is not None else ""
    differs = one.elsewhere(data, row.model)
    return f"{row.model} ({differs})" if differs else row.model


def _means(content: Content, fitting: Sequence[tuple[Row, Number]], one: Reported) -> list[tuple[str, str, str]]:
    """The mean over the attacks for each task, model and defense, without an interval; the link leads to the first of them."""
    grouped: dict[tuple[str, str, str], list[tuple[Row, Number]]] = {}
    for row, number in fitting:
        grouped.setdefault((row.task, row.model, row.defense), []).append((row, number))
    found = []
    for (_, _, defense), cells in grouped.items():
        mean = fmean(number.value for _, number in cells if number.value is not None)
        text = f"{words.percent(Number(value=mean))} (mean of {len(cells)} attacks)"
        found.append((f"{_named(content, cells[0][0], one)}, {defense}", text, first_link(content, cells[0][0])))
    return found


def _plugin_names(record: Record) -> tuple[str, str, str]:
    at = record.coordinates
    used = record.plugins
    return (
        used["task"].name if "task" in used else at.task,
        used["attack"].name if "attack" in used else at.attack,
        used["defense"].name if "defense" in used else at.defense,
    )


def context(content: Content) -> dict[str, Any]:
    """Everything the template asks for."""
    board = content.board
    look = looks(board.rows)
    order = ranked(board.blocks)
    return {
        "content": content,
        "board": board,
        "table": {"fields": FIELDS, "rows": table_rows(content)},
        "axes": {axis: list(dict.fromkeys(getattr(row, axis) for row in board.rows)) for axis in _AXES},
        "knows": sorted({badge for row in board.rows for badge in row.knows}),
        "seeds": sorted({record.coordinates.seed for found in content.records.values() for record in found}),
        "counts": counts(content),
        "look": look,
        "legend": legend(look, content),
        "by_family": len({one.legend for one in look.values()}) < len(look),
        "tradeoffs": tradeoffs(content, look),
        "heat_maps": heat_maps(content),
        "rank_chart": rank_chart(order, "Mean ranks of the defenses with tie groups"),
        "rank_blocks": max((one.rank_blocks for one in board.blocks), default=0),
        "findings": find(board),
        "blocks": sorted(board.blocks, key=lambda one: one.mean_rank is None),
        "gaps": list(gap_lines(board.analysis.gaps, escape=str)),
        "most_groups": MOST_GROUPS,
        "few_blocks": stats.MINIMUM_BLOCKS,
        "curves": curve_panels(content),
        "cost_unit": unit(board.rows),
        "costs": costs(content, look),
        "implantation": implantation(content),
        "missing": missing(content),
        "reported": reported_lines(content),
    }


_AXES: Final = ("task", "model", "attack", "defense", "family")
