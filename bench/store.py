"""The content-addressed store: one folder a stage result, published by atomic rename.

Layout::

    <root>/entries/<kind>/<key>/     files of the result, and manifest.json: key inputs, size and sha256 of every file
    <root>/failures/<key>.json       a stage that raised: traceback; never a hit
    <root>/timings/<key>.json        wall seconds and peak memory of the run that published (never part of a result)
    <root>/partial/<pid>-<random>/   results being written; swept when their process is gone
    <root>/conflicts.jsonl           a second execution that gave other bytes: a determinism defect, kept as evidence

Execution is at least once, publication exactly once: two runs on one store may compute the same stage, the first to
finish publishes, the second compares digests and goes on.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import StoreError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A published result: its folder and the digests of its files."""

    kind: str
    key: str
    folder: Path
    files: Mapping[str, str]

    def json(self, name: str) -> Any:
        """One of its JSON files."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON in canonical, readable form: sorted keys, indented, newline at the end."""
    path.write_text(
        json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Store:
    """Results by key. Safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[str, Entry] = {}
        try:
            for name in ("entries", "failures", "timings", "partial"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {root}: {error.strerror}. Choose another with --store."
            ) from error

    def sweep(self) -> int:
        """Remove half-written results of processes that are gone. Returns how many."""
        removed = 0
        for folder in (self.root / "partial").iterdir():
            pid = folder.name.partition("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        return removed

    def folder(self, kind: str, key: str) -> Path:
        """Where a result lies, published or not."""
        return self.root / "entries" / kind / key

    def find(self, kind: str, key: str) -> Entry | None:
        """A published and intact result, or ``None``. A damaged one is moved aside and counts as missing."""
        if key in self._verified:
            return self._verified[key]
        folder = self.folder(kind, key)
        if not folder.is_dir():
            return None
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files: dict[str, str] = manifest["files"]
            intact = all(
                (folder / name).is_file() and _sha256(folder / name) == digest for name, digest in files.items()
            )
        except (OSError, ValueError, KeyError):
            intact, files = False, {}
        if not intact:
            aside = self.root / "partial" / f"0-damaged-{key[:12]}-{uuid.uuid4().hex[:6]}"
            try:
                folder.rename(aside)
            except OSError as error:
                raise StoreError(
                    f"store entry {folder} is damaged and cannot be moved aside: {error.strerror}"
                ) from error
            return None
        entry = Entry(kind, key, folder, files)
        self._verified[key] = entry
        return entry

    def get(self, kind: str, key: str) -> Entry:
        """As :meth:`find`.

        Raises:
            StoreError: the result is missing or damaged.
        """
        entry = self.find(kind, key)
        if entry is None:
            raise StoreError(
                f"the store {self.root} has no intact {kind} result {key[:12]}; run the suite again to make it"
            )
        return entry

    def publish(self, kind: str, key: str, inputs: Mapping[str, Any], write: Callable[[Path], None]) -> Entry:
        """Let ``write`` fill a folder, then publish it in one atomic step.

        Raises:
            StoreError: the disk is full or not writable; nothing half-written becomes visible.
        """
        partial = self.root / "partial" / f"{os.getpid()}-{uuid.uuid4().hex}"
        try:
            partial.mkdir()
            write(partial)
            files = {str(p.relative_to(partial)): _sha256(p) for p in sorted(partial.rglob("*")) if p.is_file()}
            write_json(partial / MANIFEST, {"kind": kind, "key": key, "inputs": inputs, "files": files})
            self._flush(partial)
            final = self.folder(kind, key)
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                self._compare(kind, key, files)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StoreError(
                    f"no space left on the disk of the store {self.root}. Free some, then run again: what is published is kept."
                ) from error
            if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise StoreError(f"cannot write to the store {self.root}: {error.strerror}") from error
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)
        return self.get(kind, key)

    @staticmethod
    def _flush(folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def _compare(self, kind: str, key: str, files: Mapping[str, str]) -> None:
        """Another process was first. Equal bytes are fine; others are evidence of a determinism defect."""
        first = self.find(kind, key)
        if first is not None and dict(first.files) != dict(files):
            line = {"kind": kind, "key": key, "first": dict(first.files), "second": dict(files)}
            with (self.root / "conflicts.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")

    def fail(self, kind: str, key: str, reason: str, traceback: str) -> None:
        """Record that a stage failed. A failure is a record, never a hit."""
        value = {
            "kind": kind,
            "key": key,
            "reason": reason,
            "traceback": traceback,
            "when": datetime.now(UTC).isoformat(),
        }
        write_json(self.root / "failures" / f"{key}.json", value)

    def failure(self, key: str) -> Mapping[str, str] | None:
        """The record of a failed stage."""
        path = self.root / "failures" / f"{key}.json"
        if not path.is_file():
            return None
        value: Mapping[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return value

    def forget_failure(self, key: str) -> None:
        """So that the next run tries the stage again."""
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)

    def note_timing(self, kind: str, key: str, seconds: float, peak_bytes: int) -> None:
        """Beside a result, never inside it: results are byte-identical, timings are not."""
        write_json(
            self.root / "timings" / f"{key}.json",
            {"kind": kind, "seconds": round(seconds, 3), "peak_bytes": peak_bytes},
        )

    def timing(self, key: str) -> Mapping[str, Any] | None:
        """Wall seconds and peak memory of the run that published a result."""
        path = self.root / "timings" / f"{key}.json"
        if not path.is_file():
            return None
        value: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value

    def inputs(self, key: str) -> tuple[str, Mapping[str, Any]] | None:
        """(kind, inputs) of a key or of a unique prefix of one, to explain it.

        Raises:
            StoreError: the prefix fits several keys.
        """
        hits = sorted(p for p in (self.root / "entries").glob(f"*/{key}*") if p.is_dir())
        if len(hits) > 1:
            raise StoreError(f"{key!r} fits {len(hits)} results: " + ", ".join(p.name[:16] for p in hits[:5]))
        if not hits:
            return None
        manifest = json.loads((hits[0] / MANIFEST).read_text(encoding="utf-8"))
        return manifest["kind"], {"key": manifest["key"], **manifest["inputs"]}
