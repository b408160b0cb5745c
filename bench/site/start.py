"""The start page: every board of a results folder that has a site, with what it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bench.errors import ConfigError, DataError, StoreError
from bench.site.links import ASSETS
from bench.site.write import copy_assets, environment
from bench.suite import load_suite

SITE: Final = "site"


@dataclass(frozen=True, slots=True)
class Board:
    """One line of the start page."""

    name: str
    description: str
    href: str
    """Empty where the board has no site yet."""
    cells: int
    unreadable: int
    """Records that are none; the board's own page says what is wrong with them."""
    tasks: tuple[str, ...]
    attacks: int
    defenses: int


def boards(results: Path) -> list[Board]:
    """The results folders with cells, by name."""
    found = []
    for cells in sorted(results.glob("*/cells")):
        read = [_coordinates(path) for path in sorted(cells.glob("*.json"))]
        places = [found for found in read if found is not None]
        if read:
            front = cells.parent / SITE / "index.html"
            found.append(
                Board(
                    name=cells.parent.name,
                    description=_description(results, cells.parent.name),
                    href=f"../{quote(cells.parent.name)}/{SITE}/index.html" if front.is_file() else "",
                    cells=len(places),
                    unreadable=len(read) - len(places),
                    tasks=tuple(sorted({task for task, _, _ in places})),
                    attacks=len({attack for _, attack, _ in places} - {"none"}),
                    defenses=len({defense for _, _, defense in places} - {"none"}),
                )
            )
    return found


def _coordinates(path: Path) -> tuple[str, str, str] | None:
    try:
        at = json.loads(path.read_text(encoding="utf-8"))["coordinates"]
        return str(at["task"]), str(at["attack"]), str(at["defense"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _description(results: Path, name: str) -> str:
    path = results / "suites" / f"{name}.yaml"
    try:
        return load_suite(path).description if path.is_file() else ""
    except ConfigError:
        return ""


def write_start(results: Path) -> Path:
    """Write ``site/index.html`` of a results folder; returns it.

    Raises:
        DataError: there are no results.
        StoreError: the page cannot be written.
    """
    found = boards(results)
    if not found:
        raise DataError(f"{results} holds no results; run a suite first")
    folder = results / SITE
    try:
        copy_assets(folder / ASSETS)
        page = folder / "index.html"
        page.write_text(environment().get_template("start.html").render(boards=found, root=""), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the start page cannot be written to {folder}: {error}. Choose another folder.") from error
    return page
