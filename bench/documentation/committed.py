"""The rows of the committed boards in which a plugin takes part."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.board.columns import METRIC_NAMES, percent
from bench.errors import DataError
from bench.metrics import Number

NUMBERS = ("clean", "clean_delta", "asr", "asr_reference", "lift")
SIGNED = ("clean_delta", "lift")


@dataclass(frozen=True)
class BoardRow:
    """One row of a committed board.

    Attributes:
        suite, task, model, attack, defense: where it stands, as the board calls it.
        metric: the clean metric's short name.
        seeds: how many.
        shown: each of :data:`NUMBERS` as the board prints it.
        plugins: (family, name) of every plugin that takes part.
    """

    suite: str
    task: str
    model: str
    attack: str
    defense: str
    metric: str
    seeds: int
    shown: Mapping[str, str]
    plugins: frozenset[tuple[str, str]]

    @property
    def undefended(self) -> bool:
        """Is it the row that all others are compared with?"""
        return self.defense == "none"


def boards(results: Path) -> tuple[BoardRow, ...]:
    """The rows of every ``results/<suite>/board.csv``, in its order; single cells that somebody ran are no board.

    Raises:
        DataError: a board or a record cannot be read.
    """
    found = sorted(path for path in results.glob("*/board.csv"))
    return tuple(row for path in found for row in _rows(path))


def _rows(path: Path) -> Iterator[BoardRow]:
    try:
        used = _used(path.parent / "cells")
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                at = (line["task"], line["attack"], line["defense"])
                yield BoardRow(
                    suite=line["suites"],
                    task=line["task"],
                    model=line["model"],
                    attack=line["attack"],
                    defense=line["defense"],
                    metric=METRIC_NAMES.get(line["metric"], line["metric"]),
                    seeds=len(line["seeds"].split()),
                    shown={name: percent(_number(line, name), signed=name in SIGNED) for name in NUMBERS},
                    plugins=frozenset(used.get(at, set())),
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a readable board: {error!r}; make it again with codebackdoorbench board"
        ) from error


def _number(line: Mapping[str, str], name: str) -> Number | None:
    if not line[name]:
        return None
    low, high = (float(line[f"{name}_{end}"]) if line[f"{name}_{end}"] else None for end in ("low", "high"))
    return Number(value=float(line[name]), low=low, high=high, n=int(float(line[f"{name}_n"] or 0)))


def _used(cells: Path) -> dict[tuple[str, str, str], set[tuple[str, str]]]:
    """Which plugins stand behind the titles of a row, told by the records: task, attack and defense -> (family, name)."""
    found: dict[tuple[str, str, str], set[tuple[str, str]]] = {}
    for path in sorted(cells.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        at = record["coordinates"]
        uses = found.setdefault((at["task"], at["attack"], at["defense"]), set())
        uses |= {(use["family"], use["name"]) for use in record["plugins"].values()}
    return found
