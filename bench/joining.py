"""Plugin files given on the command line join a suite: each plugin becomes an entry of its axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.contracts import DEFENSE_FAMILIES
from bench.plugins import Registry
from bench.suite import AttackEntry, DefenseEntry, Entry, Suite, TaskEntry

ENTRIES = {"tasks": TaskEntry, "attacks": AttackEntry, "defenses": DefenseEntry}


def joined(suite: Suite, files: Sequence[Path]) -> Suite:
    """The suite with the plugins of some files, at their defaults, as further entries.

    A plugin that the suite names already, with parameters of its own perhaps, is not added a second time.

    Raises:
        bench.errors.ConfigError: a file is missing, does not import or holds no plugin, or its plugin has the name of another.
    """
    if not files:
        return suite
    registry = Registry().discover()
    for file in suite.plugins:
        registry.add_file(Path(file))
    found = {(row.family, row.name): None for file in files for row in registry.add_file(file)}
    axes: dict[str, list[Entry]] = {axis: list(getattr(suite, axis)) for axis in ENTRIES}
    for family, name in found:
        axis = "defenses" if family in DEFENSE_FAMILIES else f"{family}s"
        if (family, name) not in set(_named(registry, axis, axes[axis])):
            axes[axis].append(ENTRIES[axis](name=_spelled(registry, family, name)))
    return suite.model_copy(update={axis: tuple(entries) for axis, entries in axes.items()})


def _named(registry: Registry, axis: str, entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """(family, name) of every plugin that the entries of an axis name; what cannot be told is left to the suite's own check."""
    for entry in entries:
        for part in (isinstance(entry, DefenseEntry) and entry.parts) or (entry,):
            family, _, bare = part.name.rpartition("/")
            for each in DEFENSE_FAMILIES if axis == "defenses" else (axis.removesuffix("s"),):
                if family in ("", each) and bare in registry.names(each):
                    yield each, bare


def _spelled(registry: Registry, family: str, name: str) -> str:
    """The plugin as a suite names it: with its family where several families have a defense of that name."""
    if family in DEFENSE_FAMILIES and sum(name in registry.names(each) for each in DEFENSE_FAMILIES) > 1:
        return f"{family}/{name}"
    return name
