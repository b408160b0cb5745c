"""Which rows of a board stand in one table, and what they are told apart by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

from bench.board.table import Board, Row


def groups(board: Board) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """What names a table, and its rows, in the board's order.

    A table compares the defenses of one (task, model, attack). Where a (task, model) has several attacks and one defense (a suite
    without defenses), a table a row would compare nothing: there it compares the attacks.
    """
    for (task, model), found in groupby(board.rows, key=lambda row: (row.task, row.model)):
        rows = list(found)
        if compared(rows) == "attack":
            yield (task, model), rows
            continue
        for attack, part in groupby(rows, key=lambda row: row.attack):
            yield (task, model, attack), list(part)


def compared(rows: Sequence[Row]) -> Literal["attack", "defense"]:
    """What differs between the rows of one table."""
    return "attack" if len({row.defense for row in rows}) == 1 < len({row.attack for row in rows}) else "defense"


def undefended(board: Board) -> list[Row]:
    """The rows that tell whether an attack is implanted: its undefended victims, those with triggered inputs."""
    return [row for row in board.rows if row.family == "none" and row.attacked]
