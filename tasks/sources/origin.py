"""What a task's data are made from, for the key of the data: package versions, or digests of published files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tasks.sources import bigclonebench, codesearchnet, devign, files, hub, installed

FILES: Mapping[str, tuple[str, ...]] = {
    "devign": devign.FILES,
    "juliet": devign.FILES,
    "bigclonebench": bigclonebench.FILES,
    "codesearchnet": codesearchnet.FILES,
}


def origin(
    source: str, path: str | None, revision: str | None = None, repository: hub.Repository | None = None
) -> dict[str, str]:
    """Version by distribution (embedded), sha256 by file (published; the folder's place does not matter), or the hub's commit.

    Raises:
        bench.errors.ConfigError: a published source without a path.
        bench.errors.DataError: a package or file is missing.
    """
    if source == "embedded":
        return installed.versions()
    if hub.is_hub(repository, path, revision) and repository is not None:
        return hub.origin(repository, path, revision)
    folder = files.folder(source, path, FILES[source])
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES[source]}
