"""The command ``codebackdoorbench site``: the site of one suite, or the start page of all boards."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench.results import ResultsFolder
from bench.site import site_of_folder
from bench.site.start import write_start
from bench.suite import load_suite


def make_site(suite: str | None, results: Path, store: Path | None, console: Console) -> Path:
    """Make a site and print where it lies.

    Args:
        suite: file or name; ``None`` makes the start page alone.
        results: where records and boards lie.
        store: where example programs come from; ``None`` leaves them as they are.
        console: takes the path.

    Raises:
        bench.errors.ConfigError: an unknown suite.
        bench.errors.DataError: no or unreadable results.
        bench.errors.StoreError: an outcome table cannot be read, or a page cannot be written.
    """
    if suite is None:
        page = write_start(results)
    else:
        known = load_suite(suite)
        page = site_of_folder(
            ResultsFolder(results / known.name),
            description=known.description,
            margin=known.margin,
            false_alarms=known.false_alarms,
            store=store,
        )
    console.print(Text(str(page)), soft_wrap=True)
    return page
