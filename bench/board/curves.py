"""What more costs and brings: lift over the number of poisoned samples, and what is left of it over a defense's clean samples.

A curve is not asked for: it is found. Attacks that differ in how many samples they poison and in nothing else are the points of a
poison curve; rows of one defense that differ in their ``clean`` parameter alone are those of a budget curve.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from bench.metrics import Number
from bench.records import PluginUse, Record, Status

if TYPE_CHECKING:
    from bench.board.table import Row

Place = tuple[str, str, str, str]
"""(task, model, attack, defense) of a row."""


class CurvePoint(BaseModel):
    """One row of the board on a curve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: float
    """Poisoned samples, mean over seeds; or clean samples."""
    attack: str
    defense: str
    lift: Number
    clean: Number
    """The clean metric less the reference's (poison) or the undefended victim's (budget)."""
    implanted: bool | None = None
    """Is the lift above zero beyond its interval, at every seed?"""


class Curve(BaseModel):
    """Points in the order of ``x``, at two different ones at least."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["poison", "budget"]
    task: str
    model: str
    name: str
    """The attack, or the defense (with the attack it meets)."""
    points: tuple[CurvePoint, ...]

    @property
    def implants_from(self) -> float | None:
        """Poisoned samples from which on every point is implanted; ``None`` where the last one is not."""
        found = None
        for point in reversed(self.points):
            if not point.implanted:
                break
            found = point.x
        return found


def curves(records: Iterable[Record], shown: Mapping[Place, Row]) -> tuple[Curve, ...]:
    """Every curve that the rows hold, poison curves first, in the order of names.

    Args:
        records: of the cells; those that are ok tell what a row was made with.
        shown: the rows.
    """
    told: dict[Place, list[Record]] = {}
    for record in records:
        at = record.coordinates
        if record.status is Status.OK and not record.calibration and record.poison is not None:
            told.setdefault((at.task, at.model, at.attack, at.defense), []).append(record)
    poison = {place: found for place, found in told.items() if found[0].family == "none"}
    budget = {place: found for place, found in told.items() if _clean(found[0]) is not None}
    return (
        *_of_kind("poison", poison, shown, _attack_without_amount, _poisoned),
        *_of_kind("budget", budget, shown, _defense_without_budget, lambda record: float(_clean(record) or 0)),
    )


def _of_kind(
    kind: Literal["poison", "budget"],
    rows: Mapping[Place, Sequence[Record]],
    shown: Mapping[Place, Row],
    identity: Callable[[Record], str],
    amount: Callable[[Record], float],
) -> Iterator[Curve]:
    grouped: dict[tuple[str, str, str], list[Place]] = {}
    for place, found in rows.items():
        grouped.setdefault((place[0], place[1], identity(found[0])), []).append(place)
    made = []
    for (task, model, _), places in grouped.items():
        points = sorted((_point(kind, place, rows[place], shown, amount) for place in places), key=lambda p: p.x)
        if len({point.x for point in points}) > 1:
            first = rows[places[0]][0]
            if kind == "poison":
                name = _without_amount([place[2] for place in places])
            else:
                name = f"{first.plugins['defense'].name} on {first.coordinates.attack}"
            made.append(Curve(kind=kind, task=task, model=model, name=name, points=tuple(points)))
    yield from sorted(made, key=lambda curve: (curve.task, curve.model, curve.name))


def _point(
    kind: str,
    place: Place,
    found: Sequence[Record],
    shown: Mapping[Place, Row],
    amount: Callable[[Record], float],
) -> CurvePoint:
    row = shown[place]
    lift = row.numbers.get("lift", Number())
    change = "reference_delta" if kind == "poison" else "clean_delta"
    return CurvePoint(
        x=round(sum(map(amount, found)) / len(found), 6),
        attack=place[2],
        defense=place[3],
        lift=lift,
        clean=row.numbers.get(change, Number()),
        implanted=None if lift.low is None else row.implanted_seeds == row.seeds,
    )


def _poisoned(record: Record) -> float:
    assert record.poison is not None
    return float(record.poison.poisoned)


def _attack_without_amount(record: Record) -> str:
    policy = {key: value for key, value in record.policy.items() if key not in ("rate", "count", "of")}
    return json.dumps([_use(record.plugins.get("attack")), policy, record.goal], sort_keys=True)


def _defense_without_budget(record: Record) -> str:
    used = record.plugins["defense"]
    rest = {key: value for key, value in used.effective.items() if key != "clean"}
    return json.dumps([used.name, used.version, rest, record.coordinates.attack], sort_keys=True)


def _use(used: PluginUse | None) -> object:
    return None if used is None else [used.name, used.version, used.effective]


def _clean(record: Record) -> int | None:
    """The clean samples that a defense was given by its parameter, if it has that parameter."""
    used = record.plugins.get("defense")
    given = None if used is None else used.effective.get("clean")
    return given if isinstance(given, int) else None


def _without_amount(titles: Sequence[str]) -> str:
    """What titles such as ``renaming@10`` and ``renaming@30`` call the same attack; else the shortest of them."""
    shared = {title.rpartition("@")[0] or title for title in titles}
    return shared.pop() if len(shared) == 1 and len(titles) > 1 else min(titles, key=lambda title: (len(title), title))
