"""Who computed a cell, where and with what: beside the records, never in them, since it differs from machine to machine.

``results/<suite>/provenance.json`` holds each environment once and, for every cell, which of them it is. Comparisons of records
leave this file out, and so does the board, but for what it says of a cell whose record was changed by hand.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import bench
from bench.errors import DataError
from bench.store import write_json

PROVENANCE_VERSION: Final = 1
FILE: Final = "provenance.json"
CODE: Final = ("bench", "attacks", "defenses", "tasks", "results/suites", "pyproject.toml", "constraints.txt")
"""What makes a checkout dirty when it differs from its commit."""


class Environment(BaseModel):
    """A checkout on a machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str = ""
    """Of the checkout that wrote the cell's record; empty for an installed package."""
    dirty: bool | None = None
    """Does its code differ from that commit? ``None`` where there is none."""
    version: str = ""
    """Of the installed package."""
    python: str = ""
    system: str = ""
    machine: str = ""
    """Kind of processor."""
    accelerator: str = ""
    """Name of the graphics device, where torch sees one."""
    packages: dict[str, str] = Field(default_factory=dict)
    """Every installed package that the project depends on."""

    @property
    def digest(self) -> str:
        """What cells name it by."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


class CellProvenance(BaseModel):
    """Where one cell's record comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    record: str
    """sha256 of the record file, as it was written."""


class Provenance(BaseModel):
    """``provenance.json``."""

    model_config = ConfigDict(extra="forbid")

    provenance_version: int = PROVENANCE_VERSION
    environments: dict[str, Environment] = Field(default_factory=dict)
    cells: dict[str, CellProvenance] = Field(default_factory=dict)
    """By slug. A cell that an older version wrote stands in none."""

    def note(self, slug: str, environment: Environment, path: Path) -> None:
        """Say where a record that has just been written comes from. A record that did not change keeps what is known of it."""
        written = sha256_of(path)
        known = self.cells.get(slug)
        if known is None or known.record != written:
            self.environments[environment.digest] = environment
            self.cells[slug] = CellProvenance(environment=environment.digest, record=written)

    def of(self, slug: str) -> Environment | None:
        """The environment of a cell."""
        known = self.cells.get(slug)
        return None if known is None else self.environments.get(known.environment)

    def write(self, folder: Path) -> None:
        """Write the file, without environments that no cell names."""
        used = {cell.environment for cell in self.cells.values()}
        kept = {digest: found for digest, found in self.environments.items() if digest in used}
        write_json(folder / FILE, self.model_copy(update={"environments": kept}).model_dump(mode="json"))


def read_provenance(folder: Path) -> Provenance:
    """The provenance of a results folder; empty where there is no file.

    Raises:
        DataError: the file is unreadable, or of a newer version.
    """
    path = folder / FILE
    if not path.is_file():
        return Provenance()
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        newer = isinstance(value, dict) and value.get("provenance_version", 0) > PROVENANCE_VERSION
        if newer:
            raise DataError(f"{path} is of version {value['provenance_version']}; update codebackdoorbench to read it")
        return Provenance.model_validate(value)
    except (OSError, ValueError, ValidationError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Delete it: only where cells come from is lost") from error


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def environment() -> Environment:
    """This checkout on this machine."""
    root = Path(bench.__file__).parents[1]
    commit, dirty = _git(root, "rev-parse", "HEAD"), None
    if commit:
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE))
    return Environment(
        commit=commit or "",
        dirty=dirty,
        version=_version("codebackdoorbench"),
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
        accelerator=_accelerator(),
        packages=_packages(),
    )


def _git(root: Path, *words: str) -> str | None:
    """What git answers; ``None`` where there is no git or ``root`` is no checkout of it."""
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _packages() -> dict[str, str]:
    """The project's direct dependencies as installed."""
    try:
        needs = importlib.metadata.requires("codebackdoorbench") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    names = sorted({need.split(";")[0].split(">")[0].split("=")[0].strip() for need in needs if "extra ==" not in need})
    return {name: found for name in names if (found := _version(name))}


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
