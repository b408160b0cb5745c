"""Is every program that an attack writes still a program? A table over attacks and languages, and examples to look at.

``codebackdoorbench validity`` judges each attack of the registry on real programs (:mod:`bench.validity.programs`), check by
check (:mod:`bench.validity.judging`). Attacks are treated alike: prepared on a small training set for a classification task,
with their toy parameters where they have any (a surrogate trained for a minute says nothing else about validity).
"""

from __future__ import annotations

import logging
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args, get_origin, get_type_hints

from rich import box
from rich.console import Console
from rich.table import Table

from bench import languages
from bench.context import Context
from bench.contracts import Attack, LabelGoal, TaskKind, Trigger
from bench.errors import BenchError, ConfigError, StoreError, suggest
from bench.models import Trainer, TrainingSettings
from bench.plugins import Registry
from bench.progress import track
from bench.suite import NONE, Entry, attack_parts
from bench.validity import examples, table
from bench.validity.judging import judge
from bench.validity.programs import SEED, Corpus, corpus, fixtures
from bench.validity.table import ValidityRow

__all__ = ["ValidityRow", "rows_of", "show_validity", "write_examples"]

TRAINING: Final = TrainingSettings(epochs=1)
COMMAND: Final = ("codebackdoorbench", "validity")


def entries(registry: Registry, names: Sequence[str], variants: bool) -> list[Entry]:
    """The attacks to judge: those named, or all of the registry but the null.

    Args:
        names: as a suite names attacks; empty for all.
        variants: also every other value of a parameter that is a choice, one at a time.

    Raises:
        ConfigError: an unknown attack or parameter, or a name that cannot be read.
    """
    try:
        chosen = [Entry.model_validate(Entry.parse(name)) for name in names]
    except ValueError as error:
        raise ConfigError(f"--attack: {error}") from error
    if not names:
        known = [name for name in registry.names("attack") if name != NONE]
        chosen = [Entry(name=n, parameters=dict(registry.load("attack", n).toy_parameters)) for n in known]
    for entry in chosen:
        registry.build("attack", entry.name, entry.parameters)
    return [each for entry in chosen for each in (entry, *(_variants(registry, entry) if variants else ()))]


def _variants(registry: Registry, entry: Entry) -> Iterator[Entry]:
    attack = registry.build("attack", entry.name, entry.parameters)
    hints = get_type_hints(type(attack))
    for parameter in fields(cast(Any, attack)):
        hint, current = hints[parameter.name], getattr(attack, parameter.name)
        options = (False, True) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        for option in options:
            if option != current:
                yield Entry(name=entry.name, parameters={**entry.parameters, parameter.name: option})


def prepared(registry: Registry, entry: Entry, found: Corpus) -> Trigger | str:
    """The attack's trigger for these programs, or why there is none."""
    attack = cast(Attack, registry.build("attack", entry.name, entry.parameters))
    parts = attack_parts(registry, attack)
    info = found.info
    reason = next((r for part in (attack, *parts) if (r := part.not_applicable(info)) is not None), None)
    if reason is not None:
        return f"not applicable: {reason}"
    assert info.kind is TaskKind.CLASSIFICATION
    with tempfile.TemporaryDirectory() as folder:
        context = Context(seeds={"poison": SEED}, scratch=Path(folder), parts=parts)
        if any(part.surrogate for part in (attack, *parts)):
            context.trainer = Trainer(TRAINING, (), context)
        try:
            trigger = attack.prepare(found.training, LabelGoal(), info, context)
        except BenchError as error:
            return f"cannot be prepared: {error}"
    return trigger if trigger is not None else "it makes no trigger"


def judged(registry: Registry, entry: Entry, found: Corpus, show: bool = False) -> ValidityRow:
    """One row of the table. An attack that raises has a row that says so, and the others are judged."""
    language = found.info.language
    at: Any = "its preparation"
    try:
        trigger = prepared(registry, entry, found)
        if isinstance(trigger, str):
            return ValidityRow(entry.title, language, found.origin, missing=trigger)
        judgements = []
        for at in track(found.programs, f"{entry.title}, {language}", show=show):
            judgements.append(judge(trigger, at, SEED))
    except Exception as error:
        where = at if isinstance(at, str) else f"program {at.id}"
        logging.getLogger("bench").debug("%s, %s, %s", entry.title, language, where, exc_info=True)
        said = f"raised {type(error).__name__} in {where}: {error}"
        return ValidityRow(entry.title, language, found.origin, missing=said, raised=True)
    return ValidityRow(entry.title, language, found.origin, tuple(judgements))


def rows_of(
    registry: Registry, chosen: Sequence[Entry], corpora: Mapping[str, Corpus], show: bool = False
) -> list[ValidityRow]:
    """Every attack in every language, attacks first."""
    return [judged(registry, entry, found, show) for entry in chosen for found in corpora.values()]


def _languages(names: Sequence[str]) -> tuple[str, ...]:
    known = ("python", "java", "c")
    assert set(known) == set(languages.names())
    for name in names:
        if name not in known:
            raise ConfigError(f"--language {name!r} is none of {', '.join(known)}.{suggest(name, known)}")
    return tuple(name for name in known if name in names) if names else known


def show_validity(
    registry: Registry,
    attacks: Sequence[str],
    languages: Sequence[str],
    count: int,
    data: Path | None,
    variants: bool,
    results: Path,
    console: Console,
) -> int:
    """Judge, print the table and write ``validity.md`` and ``validity.csv`` to ``results``. Returns 1 if a program is not valid
    or an attack raised.

    Raises:
        ConfigError: an unknown attack, parameter or language.
        bench.errors.DataError: a data folder that is given does not exist, or a file in it is malformed.
        StoreError: the table cannot be written.
    """
    if data is not None and not data.is_dir():
        raise ConfigError(
            f"--data {data}: there is no such folder; leave it out to judge Java and C on the own fixtures"
        )
    chosen = entries(registry, attacks, variants)
    corpora = {name: corpus(name, count, data, registry) for name in _languages(languages)}
    rows = rows_of(registry, chosen, corpora, show=True)
    print_table(rows, console)
    command = _command(attacks, languages, count, data, variants)
    texts = {"validity.md": table.to_markdown(rows, command), "validity.csv": table.to_csv(rows)}
    for name, text in texts.items():
        _write(results / name, text)
        console.print(str(results / name), soft_wrap=True)
    return int(any(row.raised or row.valid < row.count("applied") for row in rows))


def _command(attacks: Sequence[str], languages: Sequence[str], count: int, data: Path | None, variants: bool) -> str:
    """The command that makes the table again; where the data lies is the reader's own matter."""
    words = list(COMMAND)
    for name in attacks:
        words += ["--attack", name]
    for name in languages:
        words += ["--language", name]
    words += ["--programs", str(count)]
    words += ["--variants"] if variants else []
    return shlex.join(words) + (" --data FOLDER" if data is not None else "")


def print_table(rows: Sequence[ValidityRow], console: Console) -> None:
    """The table for the terminal."""
    shown = Table(title="validity (twice: not again / again / broken)", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in table.HEADERS:
        name = header.partition(":")[0]
        shown.add_column(name, overflow="fold", min_width=len(name) if name != "attack" else 18)
    for row in rows:
        shown.add_row(*table.cells(row))
    console.print(shown)
    for row in rows:
        for why, number in row.reasons().most_common():
            console.print(
                f"{row.attack}, {row.language}: {why}: {number}", highlight=False, markup=False, soft_wrap=True
            )


def write_examples(registry: Registry, attacks: Sequence[str], path: Path) -> None:
    """Write what each attack does to a fixture of each language, as Markdown.

    Raises:
        ConfigError: an unknown attack or parameter.
        StoreError: the page cannot be written.
    """
    chosen = entries(registry, attacks, variants=False)
    rows = rows_of(registry, chosen, {name: fixtures(name) for name in _languages(())})
    summaries = {entry.title: registry.load("attack", entry.name).summary for entry in chosen}
    command = shlex.join([*COMMAND, "--examples", *(word for name in attacks for word in ("--attack", name))])
    _write(path, examples.to_markdown(rows, summaries, command))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Choose another folder.") from error
