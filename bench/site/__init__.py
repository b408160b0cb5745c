"""A board as a static site: one folder to open in a browser, with no server and no network.

::

    results/<suite>/site/index.html         the board: a table to sort and filter, charts, definitions
    results/<suite>/site/cells/<slug>.html  a page a cell
    results/<suite>/site/assets/            style, script, and the table library with its licence
    results/<suite>/examples.json           a few programs before and after each attack, where a store could tell them

Made from records and outcomes alone; only the example programs come from the store, and stay in the results folder.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.board.table import MARGIN
from bench.records import Record
from bench.results import ResultsFolder
from bench.site.content import Content, gather
from bench.site.examples import collect_examples, read_examples, write_examples
from bench.site.reported import NAME as REPORTED
from bench.site.reported import read_reported
from bench.site.start import write_start
from bench.site.write import write_pages
from bench.store import Store
from bench.verdicts import FALSE_ALARMS

__all__ = ["Content", "gather", "site_of_folder", "write_pages", "write_start"]

FOLDER = "site"


def site_of_folder(
    folder: ResultsFolder,
    *,
    description: str = "",
    margin: float = MARGIN,
    false_alarms: float = FALSE_ALARMS,
    store: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Make the site of a results folder.

    Args:
        folder: with records and outcomes.
        description: of the suite, in a sentence.
        margin: how much of the clean metric may be lost.
        false_alarms: the share of clean models that a verdict may convict.
        store: where example programs are taken from, if it is there; ``None`` leaves ``examples.json`` as it is.
        out: where the site is written; ``site`` in the results folder by default.

    Returns:
        The front page.

    Raises:
        bench.errors.DataError: no record that can be read; unreadable examples or published numbers. Single records and tables that are
            no good are set apart on the page.
        bench.errors.StoreError: a file cannot be written.
    """

    def load(record: Record) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        return folder.outcomes(record.coordinates), folder.filter_table(record.coordinates)

    records, faults = folder.read()
    examples = read_examples(folder.root)
    if store is not None and store.is_dir():
        found = collect_examples(records, Store(store), examples)
        if found != examples:
            write_examples(found, folder.root)
        examples = found
    content = gather(
        records,
        load,
        name=folder.root.name,
        description=description,
        margin=margin,
        false_alarms=false_alarms,
        timings=folder.timings(),
        examples=examples,
        reported=read_reported(folder.root.parent / REPORTED),
        faults=faults,
    )
    return write_pages(content, out or folder.root / FOLDER)
