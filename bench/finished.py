"""What makes running a finished suite again cheap: a note of the run that finished it, and a look at what that run rested on.

Building the stages of a suite means importing torch, every plugin and the board. Nothing of that is needed to see that nothing has
changed: the suite's file and every file or folder that it names, the source of the harness and of the plugins, the installed
packages, the graphics devices, the stored results and the files in the results folder. Where all of them are as they were, the run is
over; where one is not, or cannot be judged this way, the run goes the long way, which always comes to the right answer.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.seals import Seal, Seals, seal_of
from bench.store import discard

FORMAT = 1
PACKAGES = ("bench", "attacks", "defenses", "tasks")
GROUP = "codebackdoorbench."
DEVICES = ("/dev/dxg", "/dev/nvidiactl", "/proc/driver/nvidia/version")
MOST_FILES = 20_000
"""A suite that names a folder with more files is not judged this way."""


@dataclass(frozen=True)
class Question:
    """A run that somebody asks for.

    Attributes:
        suite: the suite file.
        store: the store's root.
        results: the folder of all results.
        plugins: plugin files of the command line.
        only: axis -> values, where a part is asked for.
    """

    suite: Path
    store: Path
    results: Path
    plugins: Sequence[Path]
    only: Mapping[str, Sequence[str]]

    @property
    def note(self) -> Path:
        """Where the answer is kept: one a suite, results folder and part."""
        part = sorted((axis, sorted(values)) for axis, values in self.only.items())
        asked = json.dumps([str(self.suite.resolve()), str(self.results.resolve()), part])
        return self.store / "finished" / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.json"

    def grounds(self) -> str | None:
        """sha256 of all that a run of the suite rests on, or ``None`` where that cannot be told."""
        try:
            text = self.suite.read_bytes()
            content = yaml.safe_load(text)
            named = list(_named(content, self.suite.parent))
            parts: list[Any] = [FORMAT, str(self.suite.resolve()), hashlib.sha256(text).hexdigest(), str(Path.cwd())]
            parts += [[str(p.resolve()), hashlib.sha256(p.read_bytes()).hexdigest()] for p in self.plugins]
        except (OSError, ValueError, yaml.YAMLError):
            return None
        trees = [_tree(path) for path in named]
        if any(tree is None for tree in trees) or _foreign_plugins():
            return None
        parts += [trees, source_digests(), _installed(), sys.version, platform.platform(), _devices()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _named(content: object, beside: Path) -> Iterator[Path]:
    """Every file and folder that a suite's values name, whole or inside brackets."""
    seen = set()
    for text in _strings(content):
        for piece in {text, *re.split(r"[\[\],=+\s'\"]+", text)}:
            if not piece.strip() or "\0" in piece or len(piece) > 1000:
                continue
            path = Path(piece).expanduser()
            seen |= {found.resolve() for found in (path, beside / path) if found.exists()}
    yield from sorted(seen)


def _tree(root: Path) -> list[Any] | None:
    """Name, size and times of every file at or below a path; ``None`` where there are too many."""
    found: list[Any] = []
    for folder, folders, files in os.walk(root) if root.is_dir() else [(str(root.parent), [], [root.name])]:
        folders.sort()
        found += [[folder, seal_of(Path(folder), sorted(files))]]
        if sum(len(seal or ()) for _, seal in found) > MOST_FILES:
            return None
    return found


def source_digests() -> list[list[str]]:
    """Name and sha256 of every source file of the harness and its plugins; the same wherever a checkout lies."""
    found = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(place).rglob("*.py")):
                name = f"{package}/{path.relative_to(place).as_posix()}"
                found.append([name, hashlib.sha256(path.read_bytes()).hexdigest()])
    return found


def _installed() -> list[str]:
    """Folder names of the installed distributions; they hold name and version."""
    found: set[str] = set()
    for place in sys.path:
        if place and Path(place).is_dir():
            found |= {path.name for path in Path(place).glob("*.*-info")}
    return sorted(found)


def _foreign_plugins() -> bool:
    """Are there plugins of other packages? Their source is not known without importing them."""
    return any(group.startswith(GROUP) for group in importlib.metadata.entry_points().groups)


def _devices() -> list[str]:
    """What decides which device ``auto`` is."""
    return [name for name in DEVICES if Path(name).exists()] + [os.environ.get("CUDA_VISIBLE_DEVICES", "all")]


def _results(folder: Path) -> Seal | None:
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    return seal_of(folder, sorted(names))


def remember(
    question: Question,
    folder: Path,
    stages: Iterable[tuple[str, str]],
    cells: int,
    seals: Seals,
    told: Mapping[str, str],
) -> None:
    """Note that a run is finished: every cell ended well.

    Args:
        question: what was asked for.
        folder: where the suite's records and board lie.
        stages: (kind, key) of every stage.
        cells: how many cells.
        seals: the store's.
        told: what was printed: ``plain`` and ``styled``.
    """
    grounds = question.grounds()
    if grounds is None:
        return
    seals.save()
    value = {
        "format": FORMAT,
        "grounds": grounds,
        "stages": [f"{kind}/{key}" for kind, key in stages],
        "cells": cells,
        "folder": str(folder.resolve()),
        "results": _results(folder),
        "told": dict(told),
    }
    aside = question.store / "partial" / f"{os.getpid()}-{uuid.uuid4().hex}"
    try:
        question.note.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")
        aside.replace(question.note)
    except OSError:
        discard(aside)  # the note only saves time


@dataclass(frozen=True)
class Finished:
    """A run of which nothing is left to do."""

    cells: int
    stages: int
    plain: str
    styled: str


def recall(question: Question) -> Finished | None:
    """The finished run, where it is finished and everything is as it was; ``None``: go the long way."""
    try:
        value = json.loads(question.note.read_text(encoding="utf-8"))
        stages: list[str] = value["stages"]
        known = value["format"] == FORMAT
        found = Finished(value["cells"], len(stages), value["told"]["plain"], value["told"]["styled"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    seen = _results(Path(value.get("folder", "")))
    if not known or seen is None or value.get("results") != seen or (question.store / "conflicts.jsonl").exists():
        return None
    seals = Seals(question.store)
    if not all(seals.hold(name, question.store / "entries" / name) for name in stages):
        return None
    return found if question.grounds() == value["grounds"] else None


def show_finished(question: Question) -> bool:
    """Print what a finished run printed; ``False``, and nothing printed, where something may be left to do."""
    found = recall(question)
    if found is None:
        return False
    print(
        f"{found.cells} cells, {found.stages} stages, all of them known already: nothing was started", file=sys.stderr
    )
    print(found.styled if sys.stdout.isatty() else found.plain, end="")
    return True
