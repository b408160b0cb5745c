"""What a store remembers of the entries whose bytes it has checked: size and times of every file.

A file whose size, modification time and change time are as they were when its digest was taken has not been written to since. That
is enough to say that a result is there; a process that reads a result for work takes its digests once, and again where these numbers
have changed. The memory is a cache: losing it costs time and nothing else, and a copied store makes its own.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

NAME = "seals.json"

Seal = dict[str, list[int]]
"""File name -> [bytes, modification time, change time], times in nanoseconds."""


def seal_of(folder: Path, names: Iterable[str]) -> Seal | None:
    """Sizes and times of files, or ``None`` where one is missing."""
    seal: Seal = {}
    for name in names:
        try:
            found = os.stat(f"{folder}/{name}")  # noqa: PTH116 - tens of thousands of them: half the time of a Path
        except OSError:
            return None
        seal[name] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    return seal


class Seals:
    """The seals of one store, by ``kind/key``. Read once, written when asked; a lost update is harmless."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Seal] | None = None
        self._new: dict[str, Seal] = {}

    def _read(self) -> dict[str, Seal]:
        try:
            value = json.loads((self._root / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(value, dict):
            return {}
        return {name: seal for name, seal in value.items() if isinstance(seal, dict)}

    def note(self, name: str, folder: Path, files: Iterable[str]) -> None:
        """Remember an entry whose digests have just been found right."""
        seal = seal_of(folder, files)
        if seal is not None:
            self._new[name] = seal

    def forget(self, name: str) -> None:
        """The entry is gone or damaged."""
        self._new.pop(name, None)
        if self._known is not None:
            self._known.pop(name, None)

    def hold(self, name: str, folder: Path) -> bool:
        """Is the entry remembered, and untouched since?"""
        if self._known is None:
            self._known = self._read()
        seal = self._new.get(name) or self._known.get(name)
        return seal is not None and len(seal) > 0 and seal_of(folder, seal) == seal

    def save(self) -> None:
        """Write what is new beside what others wrote. A store that cannot be written keeps no seals."""
        if not self._new:
            return
        merged = {**self._read(), **self._new}
        aside = self._root / "partial" / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            aside.write_text(json.dumps(merged, separators=(",", ":")), encoding="utf-8")
            aside.replace(self._root / NAME)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            return
        self._known, self._new = merged, {}
