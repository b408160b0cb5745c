"""Which colour and shape a defense has: the same on every chart of a board."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.board.table import FAMILY_ORDER, Row
from bench.site.charts.frame import SHAPES

SERIES: Final = 8
"""Colours of ``site.css`` (``c0`` … ``c7``) that are told apart."""


@dataclass(frozen=True, slots=True)
class Look:
    """Colour class, shape and what the legend calls it."""

    colour: str
    shape: int
    legend: str


def looks(rows: Iterable[Row]) -> Mapping[str, Look]:
    """Defense → look, in the board's order.

    Up to eight defenses have a colour and a shape each. More could not be told apart: they then look like their family.
    """
    families: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (_family(row.family), row.defense)):
        families.setdefault(row.defense, row.family)
    if len(families) <= SERIES:
        return {name: Look(f"c{i}", i % len(SHAPES), name) for i, name in enumerate(families)}
    return {
        name: Look(f"c{_family(family)}", _family(family) % len(SHAPES), family or "none")
        for name, family in families.items()
    }


def _family(family: str) -> int:
    return FAMILY_ORDER.index(family) if family in FAMILY_ORDER else len(FAMILY_ORDER)
