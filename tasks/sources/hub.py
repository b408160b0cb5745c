"""Published data as the Hugging Face hub holds them: from the hub at a pinned commit, or from a local copy in the same form.

A local copy is a folder with the hub's parquet files, or one that ``Dataset.save_to_disk`` wrote. Scripts of a repository are never
run: ``datasets`` reads parquet and arrow alone. Which form a ``path`` has is told by what lies in it: where all of the authors' own
files do, they are read. ``datasets`` writes what it reads of a folder of parquet files as arrow files into a temporary folder first.

A repository whose main branch holds a script has its parquet files, made by the hub itself, on the branch
``refs/convert/parquet`` (``<part>/<split>/0000.parquet``). A branch moves, so what is pinned is a full commit of that branch.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, ConfigError, DataError
from tasks.sources.files import Place, digest

SAVED = "dataset_dict.json"
CONFIGURING = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files at the top of a folder by which ``datasets`` decides what it reads as which split."""
PARQUET = "refs/convert/parquet"
"""The branch on which the hub keeps the parquet files that it makes of a repository."""
COMMIT = re.compile(r"[0-9a-f]{40}")

Rows = Mapping[str, Iterator[tuple[Place, Mapping[str, Any]]]]
"""Split (``train``, ``valid``, ``test``) -> its rows in the published order, with their places."""


@dataclass(frozen=True)
class Repository:
    """A data set of the hub.

    Attributes:
        name: as the hub calls it.
        columns: those that are read.
        folder: where one of several parts (a language) lies in it; ``None``: there is one part.
        parts: the folders of all of its parts.
        optional: columns that are read where they are there.
    """

    name: str
    columns: tuple[str, ...]
    folder: str | None = None
    parts: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


DEVIGN = Repository("google/code_x_glue_cc_defect_detection", ("id", "func", "target", "project", "commit_id"))
BIGCLONEBENCH = Repository(
    "google/code_x_glue_cc_clone_detection_big_clone_bench", ("id", "id1", "id2", "func1", "func2", "label")
)


def code_search_net(language: str) -> Repository:
    """CodeSearchNet's functions in one language."""
    where = ("repository_name", "func_path_in_repository")
    what = ("func_code_string", "func_documentation_string", "func_documentation_tokens")
    parts = ("all", "go", "java", "javascript", "php", "python", "ruby")
    return Repository("code-search-net/code_search_net", where + what, language, parts, optional=("language",))


def is_hub(repository: Repository | None, path: str | None, revision: str | None, files: Sequence[str]) -> bool:
    """Are the data to be read in the hub's form? ``False``: in their authors' files.

    Args:
        repository: where the hub has them; ``None``: nowhere.
        path: the folder.
        revision: a commit, in its place.
        files: the authors' own; a folder that holds them all is theirs, whatever else lies below it.

    Raises:
        ConfigError: path and revision are both given, path is blank, the revision is no commit, or the set is not on the hub.
    """
    if path is not None and not path.strip():
        raise ConfigError("the parameter path is blank: give the folder that holds the data, or leave path out")
    if revision is None:
        if path is None or repository is None:
            return False
        folder = Path(path).expanduser()
        if all((folder / name).is_file() for name in files):
            return False
        return (folder / SAVED).is_file() or any(folder.rglob("*.parquet"))
    if repository is None:
        raise ConfigError("this source is not on the hub: drop the parameter revision, and give path")
    if path is not None:
        raise ConfigError(f"give path (a local copy) or revision (a commit of {repository.name} on the hub), not both")
    if not COMMIT.fullmatch(revision):
        raise ConfigError(
            f"revision {revision!r} is no full commit hash (40 of 0-9 a-f). A branch or tag moves and would change the data under the "
            f"results. {how_to_pin(repository)}"
        )
    return True


def how_to_pin(repository: Repository) -> str:
    """Where a user finds the full commit of the files that are read."""
    page = f"https://huggingface.co/datasets/{repository.name}/commits"
    return (
        f"Copy a full commit from {page}/main; where main holds a script and no parquet files, from the branch that does, {PARQUET}: "
        f"{page}/{PARQUET.replace('/', '%2F')}, or print("
        f"huggingface_hub.HfApi().dataset_info({repository.name!r}, revision={PARQUET!r}).sha)"
    )


def origin(repository: Repository, path: str | None, revision: str | None) -> dict[str, str]:
    """What the data are made from: repository and commit, or sha256 by file of a local copy. The hub is not asked.

    Of a copy every file counts that is not hidden, since not the rows alone decide: the card (``README.md``) says which files are which
    split, and so does what ``save_to_disk`` writes beside the rows.

    Raises:
        DataError: a file cannot be read, or the copy lacks the part.
    """
    if path is None:
        part = {"part": repository.folder} if repository.folder else {}
        return {"repository": repository.name, **part, "revision": str(revision)}
    base = Path(path).expanduser()
    root = _below(base, repository)
    try:
        files = {p for p in root.rglob("*") if not any(name.startswith(".") for name in p.relative_to(root).parts)}
        files |= {base / name for name in CONFIGURING}
        return {str(p.relative_to(base)): digest(p) for p in sorted(files) if p.is_file()}
    except OSError as error:
        raise DataError(f"{base}: cannot be read ({error}). Check the folder and its permissions.") from error


def _below(base: Path, repository: Repository) -> Path:
    """The folder of a part, where a local copy has one.

    Raises:
        DataError: it has others, and not this one.
    """
    if repository.folder is None or (base / SAVED).is_file():
        return base
    if (base / repository.folder).is_dir():
        return base / repository.folder
    others = [part for part in repository.parts if (base / part).is_dir() and any((base / part).rglob("*.parquet"))]
    if others:
        raise DataError(
            f"{base}: holds {', '.join(others)} of {repository.name}, and not {repository.folder}, which is asked for. Get that part as "
            f"well ({base / repository.folder}), or set the task's language."
        )
    return base


@contextmanager
def rows(repository: Repository, path: str | None, revision: str | None) -> Iterator[Rows]:
    """The rows of the three splits, to be read inside the context.

    Raises:
        DataError: the hub cannot be reached or lacks the commit, the folder does not load or lacks the part, or a split or column is
            missing; the message says how to point at a local copy.
        ConfigError: there is no space left where ``datasets`` puts what it reads.
    """
    import datasets

    shown = datasets.are_progress_bars_disabled()
    title = f"{repository.name}@{revision[:12]}" if revision else str(path)
    with ExitStack() as stack:
        datasets.disable_progress_bars()
        if not shown:
            stack.callback(datasets.enable_progress_bars)
        try:
            found = _load(repository, path, revision, stack)
        except BenchError:
            raise
        except Exception as error:  # datasets, the hub client, pyarrow and fsspec raise a dozen kinds
            if _no_space(error):
                raise ConfigError(f"{title}: {_how_to_make_room(path)}") from error
            raise DataError(f"{title}: {_no_load(repository, path, revision, error)}") from error
        yield {split: _split(found, split, title, repository) for split in ("train", "valid", "test")}


def _load(repository: Repository, path: str | None, revision: str | None, stack: ExitStack) -> Mapping[str, Any]:
    import datasets

    found: Mapping[str, Any]
    if path is None:
        # What is downloaded stays in the hub client's own cache, so that the next run needs no network.
        found = datasets.load_dataset(repository.name, data_dir=repository.folder, revision=revision)
        return found
    base = Path(path).expanduser()
    if (base / SAVED).is_file():
        found = datasets.load_from_disk(str(base))
        return found
    cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="codebackdoorbench-"))
    part = repository.folder if _below(base, repository) != base else None
    found = datasets.load_dataset(str(base), data_dir=part, cache_dir=cache)
    return found


def _no_space(error: BaseException) -> bool:
    """Is a full disk the reason? ``datasets`` wraps it in an error of its own."""
    seen: BaseException | None = error
    while seen is not None:
        told = ("no space left", "disk quota exceeded", "not enough disk space", "no usable temporary directory")
        if getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(t in str(seen).lower() for t in told):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _how_to_make_room(path: str | None) -> str:
    import datasets

    if path is None:
        variable, folder = "HF_HOME", str(datasets.config.HF_CACHE_HOME)
    else:
        variable = "TMPDIR"
        try:
            folder = tempfile.gettempdir()
        except OSError:  # not even a file can be made in any
            folder = os.environ.get(variable, "/tmp")
    return (
        f"no space left in {folder}, where datasets writes what it reads as arrow files (larger than the parquet files; the data are not "
        f"at fault). Free some, or set the environment variable {variable} to a folder with more room, and run again."
    )


def _no_load(repository: Repository, path: str | None, revision: str | None, error: Exception) -> str:
    reason = f"{type(error).__name__}: {_first_line(error)}"
    if path is not None:
        return f"does not load ({reason}). It must hold {repository.name}'s parquet files, or what save_to_disk wrote."
    if "script" in reason.lower():
        return f"does not load from the hub ({reason}). Scripts are not run. {how_to_pin(repository)}"
    return (
        f"does not load from the hub ({reason}). Without network, get a copy elsewhere "
        f"(hf download --repo-type dataset {repository.name} --revision {revision} --local-dir FOLDER), "
        "and set the parameter path to that folder instead of revision."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"


def _split(
    found: Mapping[str, Any], split: str, title: str, repository: Repository
) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    name = next((n for n in (split, "validation") if n in found and (n == split or split == "valid")), None)
    if name is None:
        raise DataError(f"{title}: there is no split {split!r}; there is: {', '.join(found)}. Get the whole data set.")
    part = found[name]
    missing = [column for column in repository.columns if column not in part.column_names]
    if missing:
        raise DataError(
            f"{title}, split {name}: there is no column {missing[0]!r}; there is: {', '.join(part.column_names)}. "
            f"This is not {repository.name}."
        )
    read = [*repository.columns, *(column for column in repository.optional if column in part.column_names)]
    return _placed(part.select_columns(read), Path(title) / name)


def _placed(part: Any, file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    rows, number = iter(part), 0
    while True:
        number += 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except (
            Exception
        ) as error:  # a column whose bytes are no UTF-8, a damaged page: pyarrow has a kind of its own for each
            raise Place(file, number, "row").error(
                f"cannot be read ({type(error).__name__}: {_first_line(error)})", "Get the data set again."
            ) from error
        yield Place(file, number, "row"), row
