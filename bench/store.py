"""The content-addressed store: one folder a stage result, published by atomic rename.

Layout::

    <root>/entries/<kind>/<key>/     files of the result, and manifest.json: key inputs, size and sha256 of every file
    <root>/failures/<key>.json       a stage that raised: traceback; never a hit
    <root>/timings/<key>.json        wall seconds and peak memory of the run that published (never part of a result)
    <root>/partial/<pid>-<random>@<host>/   results being written; swept when their process is gone (:func:`host`)
    <root>/conflicts.jsonl           a second execution that gave other bytes: a determinism defect, kept as evidence
    <root>/seals.json                sizes and times of files whose digests were found right (a cache; bench.seals)

No file of a store names the store's own place: it can be moved or copied.

Execution is at least once, publication exactly once: two runs on one store may compute the same stage, the first to
finish publishes, the second compares digests and goes on.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bench.errors import ResultLost, StoreError
from bench.seals import Seals

if TYPE_CHECKING:
    from bench.mirror import Mirror

MANIFEST = "manifest.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
FOREIGN_SECONDS = 7 * 86400.0
"""Half-written results of other machines, whose processes cannot be asked after, are swept when they are this old."""


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
    """Write JSON in canonical, readable form: sorted keys, indented, newline at the end.

    It is written aside and then renamed, so that an interrupt or a full disk leaves the file that was there.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}.part")  # no reader takes that for a record
    try:
        aside.write_text(_canonical(value), encoding="utf-8")
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _canonical(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def host() -> str:
    """Where this process's number means something, in a form fit for file names: ``<host name>~<digest>``.

    Containers and copied machines share host names, and would take each other's processes for dead. So the running system's boot and,
    since containers of one system share that too, the namespace of process numbers stand in the digest. After a new boot a machine's
    own leftovers are another machine's: they go when they are old.
    """
    name = re.sub(r"[^A-Za-z0-9.-]", ".", platform.node()) or "unknown"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        processes = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # a system without them has no containers of its own either
        return name
    return f"{name}~{hashlib.sha256(f'{boot} {processes}'.encode()).hexdigest()[:12]}"


def _no_space(error: BaseException) -> bool:
    # The weights' writer (safetensors) says it in words: its errors have no errno.
    return getattr(error, "errno", None) in FULL or "(os error 28)" in str(error)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _end_strays(owner: int) -> None:
    """End a process that a stage forked and did not end: its parent publishes, it must neither write nor clean up."""
    if os.getpid() != owner:
        os._exit(70)


def discard(path: Path) -> None:
    """Remove a folder or a file, as far as that goes."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _mapping(path: Path) -> Mapping[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def files_of(folder: Path, kind: str, key: str) -> dict[str, str] | None:
    """File name -> sha256 as the manifest of an entry tells, or ``None`` where it is not this entry's manifest.

    Raises:
        OSError: there is no manifest, or it cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    told = (manifest.get("kind"), manifest.get("key"))
    names_fit = all(is_inside(name) and isinstance(digest, str) for name, digest in files.items())
    return files if told == (kind, key) and names_fit else None


@dataclass(frozen=True)
class Told:
    """What a manifest tells of its entry, for people and for exports; whoever reads the entry's files checks more (:func:`files_of`)."""

    kind: str
    key: str
    inputs: Mapping[str, Any]
    parents: Mapping[str, str]
    """Role -> key."""


def told_by(folder: Path) -> Told:
    """What an entry's manifest tells.

    Raises:
        StoreError: it is missing, cut or otherwise not what a stage writes.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        inputs = dict(manifest["inputs"])
        json.dumps(inputs, ensure_ascii=False, allow_nan=False).encode()  # half a character can be read, and not shown
        return Told(str(manifest["kind"]), str(manifest["key"]), inputs, _texts(inputs.get("parents", {})))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"the {MANIFEST} of {folder.parent.name} result {folder.name[:12]} is damaged ({type(error).__name__}: {error}). "
            "`codebackdoorbench store verify --remove` takes damaged results out, and the next run makes them again."
        ) from error


def _texts(value: Any) -> dict[str, str]:
    """A mapping of texts.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise TypeError("its parents are no keys")
    return value


def is_inside(name: object) -> bool:
    """Is it a relative file name that stays in its folder?"""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    if any("\ud800" <= character <= "\udfff" for character in name):  # half a character: no file can be named by it
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts != ()


class Store:
    """Results by key. Safe for several processes at once.

    Args:
        root: its folder, made where it is missing.
        mirror: a second copy that other machines share: what is missing here is fetched from it, what is made here is put there.
    """

    def __init__(self, root: Path, mirror: Mirror | None = None) -> None:
        self.root = root
        self.mirror = mirror
        self._verified: dict[str, Entry] = {}
        self.seals = Seals(root)
        try:
            for name in ("entries", "failures", "timings", "partial"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {root}: {error.strerror}. Choose another with --store."
            ) from error

    def abandoned(self) -> list[Path]:
        """Folders of half-written results that no process is writing any more, and of damaged ones moved aside."""
        found = []
        for folder in (self.root / "partial").iterdir():
            name, _, where = folder.name.partition("@")
            pid, gone = name.partition("-")[0], False
            if not pid.isdigit():
                continue
            if where and where != host():
                with suppress(FileNotFoundError):
                    gone = self._now() - folder.stat().st_mtime > FOREIGN_SECONDS
            else:
                gone = pid == "0" or not _alive(int(pid))
            if gone:
                found.append(folder)
        return sorted(found)

    def _now(self) -> float:
        """The time of the disk's clock, which the machines that share it agree on; this machine's may be wrong by years."""
        probe = self.aside()
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return 0.0
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove half-written results of processes that are gone; damaged ones stay until ``prune``. Returns how many."""
        gone = [folder for folder in self.abandoned() if not folder.name.startswith("0-")]
        for path in gone:
            discard(path)
        return len(gone)

    def aside(self) -> Path:
        """A new name below ``partial``, this process's own."""
        return self.root / "partial" / f"{os.getpid()}-{uuid.uuid4().hex}@{host()}"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a full disk and a missing permission into the error that says what to do.

        Raises:
            StoreError: the disk is full or not writable.
        """
        try:
            yield
        except Exception as error:
            place = str(getattr(error, "filename", None) or "")
            ours = place.startswith(str(self.root))
            if _no_space(error):
                at = f" (while writing {place})" if place and not ours else ""
                raise StoreError(
                    f"no space left on the disk of the store {self.root}{at}. Free some, then run again: what is published is kept."
                ) from error
            if ours and isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise StoreError(f"cannot write to the store {self.root}: {error.strerror}") from error
            raise

    def folder(self, kind: str, key: str) -> Path:
        """Where a result lies, published or not."""
        return self.root / "entries" / kind / key

    def find(self, kind: str, key: str) -> Entry | None:
        """A published and intact result, or ``None``. A damaged one is moved aside and counts as missing; the mirror is asked then."""
        found = self._find_here(kind, key)
        if found is None and self.mirror is not None and self.mirror.pull(self, kind, key):
            found = self._find_here(kind, key)
        return found

    def _find_here(self, kind: str, key: str) -> Entry | None:
        folder = self.folder(kind, key)
        known = self._verified.pop(key, None)
        # Another process, or a plugin of this one, may have written into it or moved it since its digests were taken here.
        if known is not None and self.seals.hold(f"{kind}/{key}", folder):
            self._verified[key] = known
            return known
        if not folder.is_dir():
            return None
        try:
            files = files_of(folder, kind, key)
            intact = files is not None and all(sha256_of(folder / name) == files[name] for name in files)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            intact, files = False, None
        except OSError as error:  # not to be read now is not damaged
            raise StoreError(f"store entry {folder} cannot be read: {error}") from error
        if not intact or files is None:
            self.seals.forget(f"{kind}/{key}")
            aside = self.root / "partial" / f"0-damaged-{key[:12]}-{uuid.uuid4().hex[:6]}"
            try:
                folder.rename(aside)
            except FileNotFoundError:
                return None  # another process was first to move it
            except OSError as error:
                raise StoreError(
                    f"store entry {folder} is damaged and cannot be moved aside: {error.strerror}"
                ) from error
            return None
        return self._note(Entry(kind, key, folder, files))

    def _note(self, entry: Entry) -> Entry:
        self._verified[entry.key] = entry
        self.seals.note(f"{entry.kind}/{entry.key}", entry.folder, [MANIFEST, *entry.files])
        return entry

    def forget(self, entry: Entry) -> None:
        """Take the digests of an entry again when it is asked for next."""
        self._verified.pop(entry.key, None)
        self.seals.forget(f"{entry.kind}/{entry.key}")

    def note_published(self, kind: str, key: str) -> None:
        """Another process of this run has just published a result: its digests need not be taken again to say that it is there."""
        folder = self.folder(kind, key)
        try:
            files = files_of(folder, kind, key)
        except OSError:
            return
        if files is not None:
            self.seals.note(f"{kind}/{key}", folder, [MANIFEST, *files])

    def has(self, kind: str, key: str) -> bool:
        """Is a result here, or in the mirror?"""
        return self.here(kind, key) or (self.mirror is not None and self.mirror.has(kind, key))

    def here(self, kind: str, key: str) -> bool:
        """Is a result in this folder? Digests are taken where its files changed since they were last taken, and only there."""
        if self.seals.hold(f"{kind}/{key}", self.folder(kind, key)):
            return True
        return self._find_here(kind, key) is not None

    def get(self, kind: str, key: str) -> Entry:
        """As :meth:`find`.

        Raises:
            ResultLost: the result is missing or damaged.
        """
        entry = self.find(kind, key)
        if entry is None:
            raise ResultLost(
                f"the store {self.root} has no intact {kind} result {key[:12]}; run the suite again to make it",
                kind,
                key,
            )
        return entry

    def look_again(self) -> None:
        """Forget what this process knows to be there: another may have moved it aside as damaged, here or in the mirror.

        Raises:
            StoreError: the mirror cannot be reached.
        """
        self._verified.clear()
        if self.mirror is not None:
            self.mirror.look()

    def publish(self, kind: str, key: str, inputs: Mapping[str, Any], write: Callable[[Path], None]) -> Entry:
        """Let ``write`` fill a folder, then publish it in one atomic step.

        Raises:
            StoreError: the disk is full or not writable; nothing half-written becomes visible.
        """
        owner, partial, entry = os.getpid(), self.aside(), None
        try:
            with self.writing():
                partial.mkdir()
                write(partial)
                _end_strays(owner)
                files = {str(p.relative_to(partial)): sha256_of(p) for p in sorted(partial.rglob("*")) if p.is_file()}
                write_json(partial / MANIFEST, {"kind": kind, "key": key, "inputs": inputs, "files": files})
                self._flush(partial)
                entry = self.place(partial, kind, key, files)
        finally:
            _end_strays(owner)
            discard(partial)
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)
        entry = entry or self.get(kind, key)
        self.share(kind, key)
        return entry

    def share(self, kind: str, key: str) -> None:
        """Put a result that is here into the mirror, where there is one that has it not: who published it may have died before, or the
        mirror was out of reach.

        Raises:
            ResultLost: the result is missing or damaged.
            StoreError: the mirror cannot be reached or written.
        """
        if self.mirror is not None:
            self.mirror.push(self, kind, key)

    def place(self, folder: Path, kind: str, key: str, files: Mapping[str, str]) -> Entry | None:
        """Publish a complete folder of this disk by one rename; ``None`` where the result was there already.

        Raises:
            OSError: the disk is full or not writable.
        """
        final = self.folder(kind, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._compare(kind, key, files)
            return None
        return self._note(Entry(kind, key, final, files))

    @staticmethod
    def _flush(folder: Path) -> None:
        # Some writers make files for their user alone; who may read the manifest may read the rest.
        mode = (folder / MANIFEST).stat().st_mode & 0o777
        for path in folder.rglob("*"):
            if path.is_file():
                path.chmod(mode)
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def _compare(self, kind: str, key: str, files: Mapping[str, str]) -> None:
        """Another process was first. Equal bytes are fine; others are evidence of a determinism defect."""
        first = self.find(kind, key)
        if first is not None and dict(first.files) != dict(files):
            line = {"kind": kind, "key": key, "first": dict(first.files), "second": dict(files)}
            with (self.root / "conflicts.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")

    def _note_beside(self, path: Path, value: Any) -> None:
        """Write a small file at once: no reader sees half of it."""
        aside = self.aside()
        with self.writing():
            try:
                aside.write_text(_canonical(value), encoding="utf-8")
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)

    def fail(self, kind: str, key: str, reason: str, traceback: str) -> None:
        """Record that a stage failed. A failure is a record, never a hit."""
        value = {
            "kind": kind,
            "key": key,
            "reason": reason,
            "traceback": traceback,
            "when": datetime.now(UTC).isoformat(),
        }
        self._note_beside(self.root / "failures" / f"{key}.json", value)

    def failure(self, key: str) -> Mapping[str, str] | None:
        """The record of a failed stage; ``None`` also where it is unreadable."""
        return _mapping(self.root / "failures" / f"{key}.json")

    def forget_failure(self, key: str) -> None:
        """So that the next run tries the stage again."""
        (self.root / "failures" / f"{key}.json").unlink(missing_ok=True)

    def note_timing(
        self, kind: str, key: str, seconds: float, peak_bytes: int, more: Mapping[str, int | str] | None = None
    ) -> None:
        """Beside a result, never inside it: results are byte-identical, timings are not. ``more``: of a device, and which model."""
        self._note_beside(
            self.root / "timings" / f"{key}.json",
            {"kind": kind, "seconds": round(seconds, 3), "peak_bytes": peak_bytes, **(more or {})},
        )

    def timing(self, key: str) -> Mapping[str, Any] | None:
        """Wall seconds and peak memory of the run that published a result; ``None`` also where that is unreadable."""
        return _mapping(self.root / "timings" / f"{key}.json")

    def inputs(self, key: str) -> tuple[str, Mapping[str, Any]] | None:
        """(kind, inputs) of a key or of a unique prefix of one, to explain it.

        Raises:
            StoreError: the prefix fits several keys, or the result's manifest is damaged.
        """
        hits = sorted(p for p in (self.root / "entries").glob(f"*/{key}*") if p.is_dir())
        if len(hits) > 1:
            raise StoreError(f"{key!r} fits {len(hits)} results: " + ", ".join(p.name[:16] for p in hits[:5]))
        if not hits:
            return None
        told = told_by(hits[0])
        return told.kind, {"key": told.key, **told.inputs}
