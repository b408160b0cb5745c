"""A store's second copy in an object store (S3, GCS, a web folder … whatever ``fsspec`` speaks), for machines that share no disk.

Every machine keeps a store of its own on its disk; the mirror holds one object a result, ``entries/<kind>/<key>.tar``, in the form of
``codebackdoorbench store export``. A result that is missing here is fetched, and what is made here is put there. An upload of one object is
atomic in an object store; where it is not (a plain folder), the object is written aside and renamed. Nothing of the mirror is believed:
a fetched archive is checked as ``store import`` checks one, and what is damaged or refused there is removed, so that it is made again.

Credentials and options are those of the protocol's own package (``s3fs``, ``gcsfs`` …), which the user installs.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from bench.errors import ConfigError, DamagedArchive, StoreError

if TYPE_CHECKING:
    from bench.store import Store

_RENAMES: Final = ("file", "local")
"""Protocols whose uploads others could see half-way."""


class Mirror:
    """One folder of an object store.

    Args:
        url: as ``fsspec`` takes it: ``s3://bucket/folder``, ``gs://…``, ``file:///shared/folder``, ``memory://x``.

    Raises:
        ConfigError: no such protocol, or its package is not installed.
        StoreError: it cannot be reached, or its bucket does not exist.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        try:
            self._files, root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"--mirror {url}: {error}. Give a URL that fsspec reads, and install its package (s3fs for s3://, gcsfs for gs://)."
            ) from error
        self._root = str(root).rstrip("/")
        protocol = self._files.protocol
        self._renames = bool({protocol} & set(_RENAMES) if isinstance(protocol, str) else set(protocol) & set(_RENAMES))
        self._log = logging.getLogger("bench")
        self.look()

    def look(self) -> None:
        """List what is there.

        Raises:
            StoreError: the mirror cannot be reached.
        """
        self._known = self._listing()

    def has(self, kind: str, key: str) -> bool:
        """Was a result there when last looked? (Listed when the mirror was opened; what this process puts or fetches is added.)"""
        return (kind, key) in self._known

    def pull(self, store: Store, kind: str, key: str) -> bool:
        """Fetch a result into a store; false where the mirror has none that is whole.

        A damaged one is removed there: left in place, every later run would list it, take it for known, and stop at it again.

        Raises:
            StoreError: the mirror cannot be reached or written, or the disk is full.
        """
        from bench.storing import take

        archive, place = store.aside(), self._place(kind, key)
        try:
            with self._reached(), store.writing():
                try:
                    self._files.get_file(place, str(archive))
                except FileNotFoundError:
                    self._known.discard((kind, key))
                    return False
            try:
                take(store, archive)
                fault = None if store.folder(kind, key).is_dir() else "it holds another result"
            except DamagedArchive as error:
                fault = str(error)
            if fault is not None:
                self._log.warning(
                    "%s: %s result %s is not used, and removed there: %s", self.url, kind, key[:12], fault
                )
                self._remove(kind, key)
                return False
            self._known.add((kind, key))  # it may have come after the listing
            return True
        finally:
            archive.unlink(missing_ok=True)

    def _remove(self, kind: str, key: str) -> None:
        self._known.discard((kind, key))
        with self._reached(), suppress(FileNotFoundError):  # another machine may be first
            self._files.rm_file(self._place(kind, key))

    def push(self, store: Store, kind: str, key: str) -> None:
        """Put a result there, unless one is there already.

        Raises:
            StoreError: the mirror cannot be reached or written.
        """
        from bench.storing import export

        if self.has(kind, key):
            return
        archive, place = store.aside(), self._place(kind, key)
        try:
            export(store, {key: kind}, archive)
            with self._reached():
                if self._renames:
                    # Elsewhere there are no folders, and a bucket whose name is misspelt would be made.
                    self._files.makedirs(str(PurePosixPath(place).parent), exist_ok=True)
                    aside = f"{place}.{uuid.uuid4().hex}.part"
                    self._files.put_file(str(archive), aside)
                    Path(aside).replace(place)
                else:
                    self._files.put_file(str(archive), place)
        finally:
            archive.unlink(missing_ok=True)
        self._known.add((kind, key))

    def _place(self, kind: str, key: str) -> str:
        return f"{self._root}/entries/{kind}/{key}.tar"

    def _listing(self) -> set[tuple[str, str]]:
        with self._reached():
            self._files.invalidate_cache()  # of listings, which processes share by address
            found = self._files.find(
                f"{self._root}/entries"
            )  # a folder that is not there holds nothing; a bucket must be there
        paths = [PurePosixPath(str(path)) for path in found]
        return {(path.parent.name, path.stem) for path in paths if path.suffix == ".tar"}

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # each protocol has errors of its own
            raise StoreError(
                f"the mirror {self.url} cannot be used: {type(error).__name__}: {error}. What is finished lies in the local store; "
                "run again when it can be reached, or without --mirror."
            ) from error


def opened(url: str | None) -> Mirror | None:
    """The mirror at a URL, if there is one."""
    return None if url is None else Mirror(url)


__all__ = ["Mirror", "opened"]
