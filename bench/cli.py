"""The command line: thin; everything it does is a function elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.errors import BenchError, ConfigError, Interrupted
from bench.store_commands import commands as store_commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Benchmark of backdoor attacks on, and defenses of, neural code models.",
)

app.add_typer(store_commands, name="store")

SuiteArgument = Annotated[str, typer.Argument(help="A suite file, or a name from results/suites.")]
StoreOption = Annotated[
    Path, typer.Option("--store", envvar="CODEBACKDOORBENCH_STORE", help="Where stage results lie.")
]
MirrorOption = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        envvar="CODEBACKDOORBENCH_MIRROR",
        help="URL of an object store (s3://bucket/folder, …) that shares results with other machines; docs/cluster.md.",
    ),
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Where records and boards lie.")]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Processes; 0: one a core.")]
PluginsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        "--plugin",
        help="A plugin file outside the tree; may be repeated. In run and plan it joins the suite.",
    ),
]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="axis=value, to run a part; may be repeated.")]

GivenOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--given",
        help="A results folder; its cells are taken as they are where they answer the same question. May be repeated.",
    ),
]

DEFAULT_STORE = Path(".store")
DEFAULT_RESULTS = Path("results")
EXAMPLES = Path("docs") / "attacks-examples.md"


def parse_only(values: list[str] | None) -> dict[str, list[str]]:
    """``axis=value`` options by axis.

    Raises:
        ConfigError: not of that form, or an unknown axis.
    """
    from bench.errors import suggest

    axes = ("task", "model", "attack", "defense", "seed")
    chosen: dict[str, list[str]] = {}
    for value in values or []:
        axis, equals, wanted = value.partition("=")
        if not equals or axis not in axes:
            raise ConfigError(f"--only {value!r} must be AXIS=VALUE.{suggest(axis, axes)}")
        chosen.setdefault(axis, []).append(wanted)
    return chosen


@app.command()
def run(
    suite: SuiteArgument,
    jobs: JobsOption = 0,
    store: StoreOption = DEFAULT_STORE,
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginsOption = None,
    only: OnlyOption = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster to run on ('auto', 'local', HOST:PORT); docs/cluster.md."),
    ] = None,
    mirror: MirrorOption = None,
    given: GivenOption = None,
) -> None:
    """Run a suite, or what is missing of it, and print its board."""
    from bench.finished import Question, show_finished
    from bench.suite_files import suite_file

    chosen, path = parse_only(only), suite_file(suite)
    if ray is None and not given and show_finished(Question(path, store, results, plugin or [], chosen)):
        return
    from bench.running import run_suite

    jobs = jobs or os.cpu_count() or 1
    raise typer.Exit(run_suite(suite, jobs, store, results, plugin or [], chosen, ray, mirror, given or []))


@app.command()
def plan(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    plugin: PluginsOption = None,
    only: OnlyOption = None,
    mirror: MirrorOption = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1, help="Tokens a second that the device sends forward (one back counts as two); tells hours."
        ),
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Without the names of what is missing.")] = False,
    given: GivenOption = None,
) -> None:
    """Show what a suite would run, what is known already, and what the rest will cost."""
    from bench.planning import show_plan

    show_plan(suite, store, plugin or [], parse_only(only), mirror, rate, brief, given or [])


@app.command()
def cell(
    task: Annotated[str, typer.Option(help="Task, e.g. defect_detection or 'defect_detection[train=500]'.")],
    attack: Annotated[str, typer.Option(help="Attack, e.g. 'dead_code[variant=grammar]'.")],
    defense: Annotated[str, typer.Option(help="Defense, or none.")],
    model: Annotated[str, typer.Option(help="Model.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    suite: Annotated[str, typer.Option(help="Suite whose settings and labels are used.")] = "quickstart",
    jobs: JobsOption = 0,
    store: StoreOption = DEFAULT_STORE,
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginsOption = None,
    mirror: MirrorOption = None,
) -> None:
    """Run one cell, given by its coordinates, and print its numbers."""
    from bench.running import run_cell

    at = {"task": task, "model": model, "attack": attack, "defense": defense}
    raise typer.Exit(run_cell(suite, at, seed, jobs or os.cpu_count() or 1, store, results, plugin or [], mirror))


@app.command()
def board(
    suite: SuiteArgument,
    results: ResultsOption = DEFAULT_RESULTS,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="A table for each task, model, attack, defense or family.")
    ] = None,
) -> None:
    """Make a suite's board again from its stored outcomes; no model is needed."""
    from bench.running import make_board

    raise typer.Exit(make_board(suite, results, Console(), group_by))


@app.command()
def site(
    suite: Annotated[
        str | None, typer.Argument(help="A suite file or name; none: the start page of all boards.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    results: ResultsOption = DEFAULT_RESULTS,
    examples: Annotated[
        bool, typer.Option("--examples/--no-examples", help="Take example programs from the store, if it is there.")
    ] = True,
) -> None:
    """Make a suite's board as a static site: a table to sort and filter, charts, a page a cell."""
    from bench.site.make import make_site

    make_site(suite, results, store if examples else None, Console())


@app.command()
def verify(
    what: Annotated[str, typer.Argument(help="A suite that was run, a cell's name, or the path of a record.")],
    jobs: JobsOption = 0,
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginsOption = None,
    only: OnlyOption = None,
    flips: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a part's inputs whose outcome may differ.")
    ] = 0.01,
    numbers: Annotated[float, typer.Option(min=0, max=1, help="By how much a share or metric may differ.")] = 0.01,
) -> None:
    """Run stored cells again in a fresh store and compare what comes out with what is stored."""
    from bench import verifying

    raise typer.Exit(
        verifying.verify(
            what,
            results,
            plugin or [],
            parse_only(only),
            jobs or os.cpu_count() or 1,
            Console(),
            flips=flips,
            numbers=numbers,
        )
    )


@app.command()
def merge(
    into: Annotated[Path, typer.Argument(help="Results folder that takes the cells in, e.g. results/laptop.")],
    sources: Annotated[list[Path], typer.Argument(help="Results folders of other machines.")],
) -> None:
    """Merge results folders of several machines; what does not fit is refused with the reason and shown apart on the board."""
    from bench.merging import merge_folders

    done, lines = merge_folders(into, sources)
    for line in lines:
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if done.refused else 0)


@app.command("list")
def list_plugins(plugin: PluginsOption = None) -> None:
    """List every plugin, with the reason where one cannot be imported."""
    from bench.plugins import Registry, parameters_of

    registry = Registry().discover()
    for path in plugin or []:
        registry.add_file(path)
    table = Table(title="plugins", show_lines=False)
    for column in ("family", "name", "version", "summary", "parameters"):
        table.add_column(column, overflow="fold")
    for listing in registry.listings():
        if listing.broken is not None:
            table.add_row(listing.family, listing.name, "", f"[red]cannot be imported:[/] {listing.broken}", "")
            continue
        cls = registry.load(listing.family, listing.name)
        built = registry.build(listing.family, listing.name)
        shown = ", ".join(f"{k}={v!r}" for k, v in parameters_of(built).items())
        table.add_row(listing.family, listing.name, str(cls.version), cls.summary, shown)
    Console().print(table)


@app.command()
def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Plugin files; none: every plugin of the project.")] = None,
) -> None:
    """Run the conformance suite on plugins."""
    from bench import conformance

    raise typer.Exit(conformance.check(paths or []))


@app.command()
def validity(
    attack: Annotated[list[str] | None, typer.Option(help="Attack; may be repeated. None: all.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="python, java or c; may be repeated. None: all.")] = None,
    programs: Annotated[int, typer.Option(min=1, help="Programs of each language.")] = 1000,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with bigclonebench/, devign/ and juliet-c/; without one, Java and C are fixtures."),
    ] = None,
    variants: Annotated[bool, typer.Option("--variants", help="Also the other choices of every parameter.")] = False,
    example_page: Annotated[
        bool, typer.Option("--examples", help="Write docs/attacks-examples.md instead: before and after.")
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
    plugin: PluginsOption = None,
) -> None:
    """Judge whether what attacks write are still programs: parsing, compiling, bound names, taken back and applied twice."""
    from bench import validity as judging
    from bench.plugins import Registry

    registry = Registry().discover()
    for path in plugin or []:
        registry.add_file(path)
    if example_page:
        judging.write_examples(registry, attack or [], EXAMPLES)
        Console().print(f"wrote {EXAMPLES}")
        return
    raise typer.Exit(
        judging.show_validity(registry, attack or [], language or [], programs, data, variants, results, Console())
    )


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="attack, defense or task; or a defense's family itself.")],
    name: Annotated[str, typer.Argument(help="Its name in suites, e.g. my_defense.")],
    family: Annotated[
        str | None, typer.Option(help="Of a defense: filter, training, repair or screen, by where it acts.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where to write the file.")] = Path(),
) -> None:
    """Write a new plugin: one documented file that already passes the conformance suite."""
    from bench.scaffold import family_of, write_plugin

    path = write_plugin(family_of(kind, family), name, folder)
    for line in (f"wrote {path}", f"next: edit it, then  codebackdoorbench check {path}"):
        Console().print(line, highlight=False, soft_wrap=True)


@app.command()
def why(
    what: Annotated[str, typer.Argument(help="A result's key (or the beginning of one).")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Explain a key: everything that went into a stored result."""
    from bench.running import explain

    explain(what, store, Console())


def main() -> None:
    """Entry point: errors for people are one message and exit status 2; an interrupt is 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console = Console(stderr=True)
    try:
        app()
    except BenchError as error:
        console.print("[bold red]error:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except (KeyboardInterrupt, Interrupted):
        console.print(
            "\ninterrupted. Everything that was finished is stored: the same command goes on from here.", soft_wrap=True
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
