"""What a task's data are made from, for the key of the data: package versions, or digests of published files."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.sources import bigclonebench, codesearchnet, devign, files, hub, installed

FILES: Mapping[str, tuple[str, ...]] = {
    "devign": devign.FILES,
    "juliet": devign.FILES,
    "bigclonebench": bigclonebench.FILES,
    "codesearchnet": codesearchnet.FILES,
}

UNTOLD: Mapping[str, str] = {
    "python": "3.11",
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "datasketch": "2.0.0",
    "fonttools": "4.68.0",
    "fsspec": "2026.9.0",
    "huggingface-hub": "2.4.0",
    "jinja2": "3.1.6",
    "joblib": "1.6.0",
    "matplotlib": "3.11.2",
    "mpmath": "1.3.0",
    "networkx": "3.6.1",
    "numpy": "2.4.6",
    "pandas": "3.1.1",
    "patsy": "1.0.3",
    "pydantic": "2.14.3",
    "pygments": "2.21.0",
    "rich": "15.0.0",
    "scikit-learn": "1.9.1",
    "scipy": "1.17.1",
    "statsmodels": "0.15.0",
    "sympy": "1.14.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "typer": "0.29.2",
}
"""The versions that all stored results of embedded clones were made from. Those results were stored before clone data told their
origin: so that their keys stay, these versions, and no others, stand in no key. Never to be raised with ``constraints.txt``: other
versions are other data, and their key says so."""


def origin(
    source: str, path: str | None, revision: str | None = None, repository: hub.Repository | None = None
) -> dict[str, str]:
    """Version by distribution (embedded), sha256 by file (published; the folder's place does not matter), or the hub's commit.

    Raises:
        bench.errors.ConfigError: a published source without a path, or see :func:`tasks.sources.hub.is_hub`.
        bench.errors.DataError: a package or file is missing.
    """
    if source == "embedded":
        return installed.versions()
    if hub.is_hub(repository, path, revision, FILES[source]) and repository is not None:
        return hub.origin(repository, path, revision)
    folder = files.folder(source, path, FILES[source])
    return {name: files.digest(folder / name) for name in FILES[source]}
