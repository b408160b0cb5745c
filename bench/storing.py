"""Looking after a store: what lies in it, whether it is intact, what may go, and carrying results from one to another."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.errors import DamagedArchive, StoreError
from bench.samples import digest_of
from bench.store import MANIFEST, Store, files_of, is_inside, sha256_of, told_by

SAFE = (".json", ".jsonl", ".parquet", ".safetensors", ".txt")
"""What results are made of: nothing that runs code when it is read. Other files of an archive are refused."""


@dataclass(frozen=True)
class Kind:
    """The results of one kind: how many, and how many bytes of files."""

    name: str
    entries: int
    bytes: int


@dataclass(frozen=True)
class Damage:
    """A result that is not what it should be, and why."""

    kind: str
    key: str
    reason: str


@dataclass(frozen=True)
class Waste:
    """What pruning removes: its place below the store, and its bytes."""

    path: Path
    bytes: int


def open_store(root: Path) -> Store:
    """A store that is there already.

    Raises:
        StoreError: there is none.
    """
    if not (root / "entries").is_dir():
        raise StoreError(f"there is no store at {root}; name it with --store")
    return Store(root)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder. What vanishes meanwhile counts nothing."""
    total = 0
    for place in [path] if path.is_file() else path.rglob("*"):
        with suppress(FileNotFoundError):
            total += place.stat().st_size if place.is_file() else 0
    return total


def entries(store: Store) -> Iterator[tuple[str, str, Path]]:
    """(kind, key, folder) of every published result, sorted."""
    for kind in sorted((store.root / "entries").iterdir()):
        for folder in sorted(kind.iterdir()) if kind.is_dir() else ():
            if folder.is_dir():
                yield kind.name, folder.name, folder


def kinds(store: Store) -> list[Kind]:
    """What lies in a store, by kind of stage."""
    found: dict[str, list[int]] = {}
    for kind, _, folder in entries(store):
        found.setdefault(kind, []).append(size_of(folder))
    return [Kind(kind, len(sizes), sum(sizes)) for kind, sizes in found.items()]


def largest(store: Store, kind: str | None, count: int) -> list[tuple[str, str, int]]:
    """(kind, key, bytes) of the largest results."""
    found = [(of, key, size_of(folder)) for of, key, folder in entries(store) if kind in (None, of)]
    return sorted(found, key=lambda row: (-row[2], row[1]))[:count]


# --------------------------------------------------------------------------------------------------------------- verify


def fault_of(folder: Path, kind: str, key: str) -> str | None:
    """What is wrong with an entry's bytes, or ``None``. Every file is read.

    Its manifest must be of this kind and key, the key must be the digest of the inputs that the manifest tells, every file must
    have the digest that it tells, and there must be no other file.
    """
    try:
        files = files_of(folder, kind, key)
        if files is None:
            return f"{MANIFEST} is not this result's"
        inputs = json.loads((folder / MANIFEST).read_bytes()).get("inputs")
        if digest_of(inputs) != key:
            return f"the key is not the digest of the inputs in {MANIFEST}"
        for name, digest in files.items():
            if sha256_of(folder / name) != digest:
                return f"{name} has other bytes than {MANIFEST} tells"
        known = {*files, MANIFEST}
        found = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}
    except (
        ValueError,
        RecursionError,
    ) as error:  # infinite numbers, halves of characters, a thousand brackets: JSON that we never write
        return f"{MANIFEST} is not what a stage writes: {error}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"cannot be read: {error}"
    return f"holds {min(found - known)}, which no stage wrote" if found - known else None


def verify(store: Store) -> Iterator[tuple[str, str, Damage | None]]:
    """(kind, key, what is wrong or ``None``) of every result. Nothing is changed."""
    for kind, key, folder in entries(store):
        reason = fault_of(folder, kind, key)
        yield kind, key, None if reason is None else Damage(kind, key, reason)


def remove(store: Store, kind: str, key: str) -> None:
    """Take a result out of the store: it vanishes by one rename, then its files go.

    Raises:
        StoreError: the store is not writable.
    """
    aside = store.aside()
    with store.writing():
        with suppress(FileNotFoundError):
            store.folder(kind, key).rename(aside)
        (store.root / "timings" / f"{key}.json").unlink(missing_ok=True)
    shutil.rmtree(aside, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------- prune


def leftovers(store: Store) -> list[Waste]:
    """Half-written results of processes that are gone, and damaged results that were moved aside."""
    return [Waste(path, size_of(path)) for path in store.abandoned()]


def unneeded(store: Store, needed: Iterable[str]) -> list[tuple[str, str, int]]:
    """(kind, key, bytes) of results whose keys are not among those needed."""
    keys = set(needed)
    return [(kind, key, size_of(folder)) for kind, key, folder in entries(store) if key not in keys]


def busy(store: Store) -> list[str]:
    """Processes that may be writing to the store now, as ``PID on HOST``."""
    gone = set(store.abandoned())
    found = set()
    for path in (store.root / "partial").iterdir():
        name, _, host = path.name.partition("@")
        pid = name.partition("-")[0]
        if path not in gone and pid.isdigit() and int(pid) != os.getpid():
            found.add(f"{pid} on {host.partition('~')[0] or 'this machine'}")
    return sorted(found)


# ------------------------------------------------------------------------------------------------------ export, import


def with_ancestors(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Key -> kind of the named results that are there, and of all that they were made from, as far as that is there.

    Raises:
        StoreError: the manifest of one of them is damaged, so that nothing tells what it was made from.
    """
    places = {key: kind for kind, key, _ in entries(store)}
    found: dict[str, str] = {}
    waiting = [key for key in keys if key in places]
    while waiting:
        key = waiting.pop()
        if key in found:
            continue
        found[key] = places[key]
        waiting += [parent for parent in told_by(store.folder(places[key], key)).parents.values() if parent in places]
    return found


def export(store: Store, results: Mapping[str, str], archive: Path) -> int:
    """Write results (key -> kind) to a tar archive, each checked before; equal results give equal bytes. Returns the bytes.

    Raises:
        StoreError: a result is missing or damaged, or the archive cannot be written.
    """
    aside = archive.with_name(f"{archive.name}.{os.getpid()}.part")
    try:
        with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as tar:
            for key, kind in sorted(results.items(), key=lambda item: (item[1], item[0])):
                folder = store.get(kind, key).folder
                for name in sorted([MANIFEST, *store.get(kind, key).files]):
                    _add(tar, folder / name, f"entries/{kind}/{key}/{name}")
        aside.replace(archive)
    except OSError as error:
        raise StoreError(f"the archive {archive} cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return archive.stat().st_size


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = path.stat().st_size, 0o644
    with path.open("rb") as file:
        tar.addfile(member, file)


@dataclass(frozen=True)
class Imported:
    """What became of an archive: results that are new here, and those that were here already."""

    new: int
    known: int


def import_(store: Store, archive: Path) -> Imported:
    """Take the results of an archive into a store. What is here already stays as it is.

    Nothing of the archive is believed: names that leave their folder, links, devices and files of other kinds than results are made of
    are refused, and every digest and key is taken again before a result is published.

    Raises:
        StoreError: the archive cannot be read, holds something that is refused, or a result in it is damaged; names it. Results
            before it are kept.
    """
    try:
        return take(store, archive)
    finally:
        store.seals.save()


def take(store: Store, archive: Path) -> Imported:
    """:func:`import_` for one who takes many archives: the seals are left to be saved when all are in.

    Raises:
        DamagedArchive: the archive is at fault, not this machine.
        StoreError: the archive is not there or cannot be read, or the store cannot be written.
    """
    new = known = 0
    place = store.aside()
    try:
        with store.writing():
            place.mkdir()
        with tarfile.open(archive, "r:") as tar:
            for (kind, key), members in _grouped(tar, archive):
                if store.here(kind, key):
                    known += 1
                    continue
                folder = place / key
                with store.writing():
                    _unpack(tar, members, folder)
                    fault = fault_of(folder, kind, key)
                    if fault is not None:
                        raise DamagedArchive(
                            f"{archive}: {kind} result {key[:12]} is damaged: {fault}. Export it again."
                        )
                    files = files_of(folder, kind, key)
                    new += store.place(folder, kind, key, files or {}) is not None
    except tarfile.TarError as error:
        raise DamagedArchive(f"{archive} is no tar archive, or is cut short: {error}") from error
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename}: there is no such file") from error
    except IsADirectoryError as error:
        raise StoreError(
            f"{archive} is a folder; name an archive that `codebackdoorbench store export` wrote"
        ) from error
    except OSError as error:
        raise StoreError(f"the archive {archive} cannot be taken in: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Imported(new, known)


def _grouped(tar: tarfile.TarFile, archive: Path) -> Iterator[tuple[tuple[str, str], Sequence[tarfile.TarInfo]]]:
    """The members by (kind, key), each with a name that was checked."""
    found: dict[tuple[str, str], list[tarfile.TarInfo]] = {}
    for member in tar.getmembers():
        parts = PurePosixPath(member.name).parts
        fits = is_inside(member.name) and len(parts) >= 4 and parts[0] == "entries" and member.isreg()
        fits = fits and parts[1].isalpha() and len(parts[2]) == 64 and set(parts[2]) <= set("0123456789abcdef")
        if not fits or PurePosixPath(member.name).suffix not in SAFE:
            raise DamagedArchive(
                f"{archive} holds {member.name!r}, which no export writes. Nothing of it was taken: "
                "get the archive again from a source you trust."
            )
        found.setdefault((parts[1], parts[2]), []).append(member)
    yield from found.items()


def _unpack(tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo], folder: Path) -> None:
    for member in members:
        path = folder.joinpath(*PurePosixPath(member.name).parts[3:])
        source = tar.extractfile(member)
        assert source is not None  # a regular file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with source, path.open("xb") as target:
                shutil.copyfileobj(source, target)
        except (FileExistsError, NotADirectoryError) as error:
            raise DamagedArchive(f"the archive holds {member.name!r} twice, or below a file of it") from error
