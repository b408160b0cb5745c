"""Write a site: templates filled, assets copied, pages of cells that are gone removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from bench.board import columns
from bench.board.attack_section import DEFINITIONS as OF_ATTACKS
from bench.board.implantation_section import DEFINITIONS as OF_IMPLANTATION
from bench.errors import StoreError
from bench.records import Record
from bench.site import cell, index, words
from bench.site.charts.frame import marker
from bench.site.content import Content
from bench.site.links import ASSETS, CELLS, TRADEOFFS, page_name

POLICY: Final = "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src data:; base-uri 'none'; form-action 'none'"
"""Nothing is fetched but the site's own files; ``file:`` because some browsers give a local page no origin of its own."""

SCRIPTS: Final = ("vendor/dataTables.min.js", "site.js")


@cache
def environment() -> Environment:
    """Templates with everything escaped, and the words they use."""
    made = Environment(
        loader=PackageLoader("bench.site"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"value": words.value, "interval": words.interval, "percent": words.percent, "p": words.p_value}
    made.globals |= {"policy": POLICY, "mark": _legend_mark, "dash": words.DASH, "share": _share, "plain": _plain}
    return made


def _legend_mark(shape: int, cls: str) -> Markup:
    return marker(shape, 8, 8, cls)


def _share(share: float | None, signed: bool = False, digits: int = 1) -> str:
    if share is None:
        return words.DASH
    return words.points(share, signed=signed) if digits == 1 else words.number(round(100 * share), 3)


def _plain(number: float | None, digits: int = 2) -> str:
    return words.DASH if number is None else f"{number:.{digits}f}".replace("-", words.MINUS)


def definitions(content: Content) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every number of the page, section by section."""
    board = content.board
    yield "The table", columns.definitions(board)
    yield "Implantation", list(OF_IMPLANTATION)
    if board.attacks:
        yield "Attacks", list(OF_ATTACKS)
    yield "Across blocks", list(columns.BLOCK_DEFINITIONS)
    if board.detections:
        yield "Verdicts", columns.verdict_definitions(board)


def write_pages(content: Content, folder: Path) -> Path:
    """Write all pages of a site into a folder and remove pages of cells that the board no longer has; returns the front page.

    Raises:
        StoreError: a file cannot be written.
    """
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        copy_assets(folder / ASSETS)
        front = folder / "index.html"
        shown = index.context(content) | {"definitions": list(definitions(content)), "root": ""}
        _write(front, environment().get_template("index.html").render(shown))
        _keep(folder / CELLS, _write_cells(content, folder / CELLS))
        _keep(folder / TRADEOFFS, _write_tradeoffs(content, shown, folder))
    except OSError as error:
        raise StoreError(f"the site cannot be written to {folder}: {error}. Choose another folder.") from error
    return front


def copy_assets(folder: Path) -> None:
    """The stylesheet, the script, and the table library with its licence."""
    source = files("bench.site") / "assets"
    for name in ("site.css", *SCRIPTS, "vendor/LICENSE-datatables.txt"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with (source / name).open("rb") as given, target.open("wb") as taken:
            shutil.copyfileobj(given, taken)


def _write_cells(content: Content, folder: Path) -> set[str]:
    template = environment().get_template("cell.html")
    ordered: list[tuple[Record, Sequence[Record]]] = [
        (record, content.records[at]) for at in content.rows() for record in content.records[at]
    ]
    kept = set()
    written = _examples(content)
    for place, (record, row) in enumerate(ordered):
        before = ordered[place - 1][0] if place else None
        after = ordered[place + 1][0] if place + 1 < len(ordered) else None
        near = [one for one in row if one is not record]
        shown: dict[str, Any] = cell.context(content, record, near, before, after, written.get(_attack(record)))
        shown["root"] = "../"
        name = page_name(record.coordinates)
        _write(folder / name, template.render(shown))
        kept.add(name)
    return kept


def _write_tradeoffs(content: Content, front: Mapping[str, Any], folder: Path) -> set[str]:
    """Pages for the panels that the front page cannot hold."""
    template = environment().get_template("tradeoff.html")
    apart = [group for group in front["tradeoffs"] if group.page]
    maps = {one["heading"]: one for one in index.heat_maps(content, f"../{CELLS}/")} if apart else {}
    for group in apart:
        (folder / group.page).parent.mkdir(exist_ok=True)
        shown = {"group": group, "map": maps.get(group.heading), "content": content, "legend": front["legend"]}
        _write(folder / group.page, template.render(shown, root="../"))
    return {group.page.rpartition("/")[2] for group in apart}


def _keep(folder: Path, names: set[str]) -> None:
    """Remove the pages of earlier boards."""
    for path in folder.glob("*.html"):
        if path.name not in names:
            path.unlink()


def _attack(record: Record) -> tuple[str, str]:
    return record.coordinates.task, record.coordinates.attack


def _examples(content: Content) -> dict[tuple[str, str], dict[str, Any]]:
    """Rendered once for each attack, since all its cells show them."""
    template = environment().get_template("examples.html")
    return {
        (one.task, one.attack): {"seed": one.seed, "html": Markup(template.render(shown=cell.examples(one)))}
        for one in content.examples.attacks
        if one.examples
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
