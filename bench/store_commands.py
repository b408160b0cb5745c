"""``codebackdoorbench store …``: thin; everything it does is a function of :mod:`bench.storing`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import ConfigError, StoreError

commands = typer.Typer(no_args_is_help=True, help="Look after a store: what lies in it, is it intact, what may go.")

StoreOption = Annotated[
    Path, typer.Option("--store", envvar="CODEBACKDOORBENCH_STORE", help="Where stage results lie.")
]
SuitesOption = Annotated[list[str] | None, typer.Option("--suite", help="A suite file or name; may be repeated.")]
PluginsOption = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A plugin file outside the tree; may be repeated.")
]
DEFAULT_STORE = Path(".store")


def size(count: int) -> str:
    """Bytes for people."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _keys(suites: Sequence[str], plugins: Sequence[Path]) -> tuple[set[str], list[str]]:
    """The keys of all stages of suites, as ``run SUITE --with PLUGIN`` makes them on this machine, and what is to be said of them.

    Raises:
        ConfigError: anything wrong in a suite or a plugin file.
    """
    from bench.joining import joined
    from bench.pipeline import computing_here, merge
    from bench.running import graphs_of, load_registry
    from bench.suite import load_suite

    keys: set[str] = set()
    told = []
    for name in suites:
        suite = joined(load_suite(name), plugins)
        computing = computing_here(suite.device, suite.precision)
        keys |= set(merge(graphs_of(suite, load_registry(suite, plugins), {}, computing)))
        if suite.device == "auto":
            told.append(
                f"{suite.name}: 'device: auto' is {computing.device} on this machine, so what was computed for it on another device "
                "counts as not needed"
            )
    return keys, told


@commands.command("ls")
def list_results(
    kind: Annotated[str | None, typer.Option(help="Only this kind of stage, with its results one by one.")] = None,
    count: Annotated[int, typer.Option("--largest", min=0, help="Show so many of the largest results.")] = 0,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """List how many results of each kind there are, and their sizes."""
    from bench import storing

    opened = storing.open_store(store)
    found = storing.kinds(opened)
    if kind is not None and kind not in {row.name for row in found}:
        raise ConfigError(f"the store has no results of kind {kind!r}; there is: {', '.join(r.name for r in found)}")
    for row in found:
        if kind in (None, row.name):
            print(f"{row.name:10} {row.entries:7} results {size(row.bytes):>10}")
    if kind is None:
        print(f"{'all':10} {sum(r.entries for r in found):7} results {size(sum(r.bytes for r in found)):>10}")
    for of, key, many in storing.largest(opened, kind, count or (1 << 30 if kind else 0)):
        print(f"  {size(many):>10}  {of:8} {key[:16]}")
    left = storing.leftovers(opened)
    if left:
        print(f"leftovers: {len(left)}, {size(sum(w.bytes for w in left))} (codebackdoorbench store prune)")


@commands.command()
def verify(
    remove: Annotated[
        bool, typer.Option("--remove", help="Take damaged results out; the next run makes them.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Read every byte of every result, and compare digests and keys. Exit status 1 where something is damaged."""
    from bench import storing

    opened = storing.open_store(store)
    checked, damaged = 0, 0
    for kind, key, damage in storing.verify(opened):
        checked += 1
        if damage is not None:
            damaged += 1
            print(f"damaged: {kind} {key}: {damage.reason}")
            if remove:
                storing.remove(opened, kind, key)
    done = " and taken out" if remove and damaged else ""
    print(f"{checked} results checked, {damaged} damaged{done}")
    raise typer.Exit(1 if damaged and not remove else 0)


@commands.command()
def prune(
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", help="Also remove what these suites do not need; a suite file or name, may be repeated."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only show it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even while other processes write to the store.")] = False,
    plugin: PluginsOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Remove leftovers of broken runs and damaged results, and with --keep every result that the named suites do not need."""
    from bench import storing
    from bench.store import discard

    opened = storing.open_store(store)
    left = storing.leftovers(opened)
    needed, told = _keys(keep, plugin or []) if keep else (set(), [])
    spare = storing.unneeded(opened, needed) if keep else []
    total = sum(w.bytes for w in left) + sum(bytes_ for _, _, bytes_ in spare)
    what = f"{len(left)} leftovers and {len(spare)} results, {size(total)}"
    for line in told:
        print(line)
    if not yes:
        print(f"would remove {what}; --yes does it")
        return
    at_work = storing.busy(opened) if spare else []
    if at_work and not force:
        raise StoreError(
            f"process {', '.join(at_work)} is writing to {store}, and may need what would be removed: wait for it, or use --force"
        )
    for waste in left:
        discard(waste.path)
    for kind, key, _ in spare:
        storing.remove(opened, kind, key)
    print(f"removed {what}")


@commands.command("export")
def export_results(
    archive: Annotated[Path, typer.Argument(help="The tar archive to write.")],
    suite: SuitesOption = None,
    key: Annotated[list[str] | None, typer.Option(help="A result with all it was made from; may be repeated.")] = None,
    plugin: PluginsOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write results to an archive: all, those of suites, or single ones with all that they were made from."""
    from bench import storing

    opened = storing.open_store(store)
    wanted: set[str] = _keys(suite, plugin or [])[0] if suite else set()
    for prefix in key or []:
        found = opened.inputs(prefix)
        if found is None:
            raise StoreError(f"the store {store} has no result whose key begins with {prefix!r}")
        wanted.add(found[1]["key"])
    everything = {k: kind for kind, k, _ in storing.entries(opened)}
    chosen = storing.with_ancestors(opened, wanted) if suite or key else everything
    if not chosen:
        raise StoreError(f"the store {store} holds nothing of what was asked for")
    print(f"wrote {len(chosen)} results to {archive}, {size(storing.export(opened, chosen, archive))}")


@commands.command("import")
def import_results(
    archive: Annotated[Path, typer.Argument(help="An archive that `store export` wrote.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take the results of an archive in; each is checked, and what is here already stays."""
    from bench import storing
    from bench.store import Store

    done = storing.import_(Store(store), archive)
    print(f"{done.new} results are new, {done.known} were here already")
