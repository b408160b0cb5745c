"""What lies in a model folder, as a digest: a result's key must change when somebody puts other weights into the same folder."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from bench.models.presets import PRESETS


def local_folder(name: str, path: str | None) -> Path | None:
    """The folder that a model comes from; ``None`` for models that are made here, of a package or on the hub."""
    if path is not None:
        return Path(path).expanduser()
    if name in PRESETS or name in ("tiny", "minilm"):
        return None
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def digest_of_folder(folder: Path) -> str | None:
    """sha256 (hex) over the names and contents of a folder's own files; ``None`` where there is no such folder.

    Files whose names begin with a dot do not count. A folder is read once a process, unless a size or time in it changed.
    """
    if not folder.is_dir():
        return None
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return _digest(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


def origin_of(**models: str) -> dict[str, str]:
    """For a plugin's ``origin``: parameter -> digest, for those that name a folder (a hub model is known by its commit)."""
    found = {parameter: digest_of_folder(Path(name).expanduser()) for parameter, name in models.items()}
    return {parameter: digest for parameter, digest in found.items() if digest is not None}


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            total.update(f"{Path(name).name}\x1f{hashlib.file_digest(file, 'sha256').hexdigest()}\x1e".encode())
    return total.hexdigest()
