"""The conformance suite: rules that every plugin must keep, checked on a toy, for the project's plugins and anyone's.

``codebackdoorbench check PATH`` runs it on a plugin file; without a path on every plugin of the project.

A rule passes, fails with a reason, or is skipped with a reason. A plugin of which every rule on the toy was skipped fails:
nothing is known about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from bench.conformance.checks import Outcome, Result
from bench.contracts import Plugin
from bench.errors import BenchError
from bench.plugins import Registry
from bench.progress import track

__all__ = ["Outcome", "Result", "check", "check_class", "run"]


def check(paths: Sequence[Path], *, console: Console | None = None) -> int:
    """Check the plugins of files, or every plugin of the project where no file is given. Prints a report.

    Returns:
        0 when no rule is broken, else 1.

    Raises:
        ConfigError: a file is missing, does not import or holds no plugin.
    """
    registry = Registry().discover()
    if paths:
        found = [(listing.family, listing.name) for path in paths for listing in registry.add_file(path)]
    else:
        found = [(listing.family, listing.name) for listing in registry.listings()]
    return _check_all(registry, found, console or Console())


def run(plugins: Sequence[tuple[str, str]], files: Sequence[Path] = (), *, console: Console | None = None) -> int:
    """Check plugins by (family, name), and all plugins of ``files``. Prints a report.

    Returns:
        0 when no rule is broken, else 1.

    Raises:
        ConfigError: an unknown plugin, or a file that holds none.
    """
    registry = Registry().discover()
    chosen = list(plugins)
    for path in files:
        chosen += [(listing.family, listing.name) for listing in registry.add_file(path)]
    for family, name in chosen:
        registry.load(family, name)
    return _check_all(registry, chosen, console or Console())


def check_class(cls: type[Plugin]) -> list[Result]:
    """Every rule of a plugin class, on every kind of task that it supports."""
    from bench.conformance.subjects import results

    return list(results(cls))


def _check_all(registry: Registry, plugins: Iterable[tuple[str, str]], console: Console) -> int:
    from bench.conformance.report import print_plugin, print_summary

    everything: list[Result] = []
    for family, name in track(list(dict.fromkeys(plugins)), "conformance"):
        found = list(_of(registry, family, name))
        print_plugin(console, family, name, found)
        everything += found
    print_summary(console, everything)
    return int(not everything or any(r.outcome is Outcome.FAILED for r in everything))


def _of(registry: Registry, family: str, name: str) -> Iterator[Result]:
    try:
        cls = registry.load(family, name)
    except BenchError as error:
        yield Result(family, name, None, "import", Outcome.FAILED, str(error))
        return
    yield from check_class(cls)
