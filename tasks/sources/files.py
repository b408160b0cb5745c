"""Reading published data files, with errors that name file and line and say what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import ConfigError, DataError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file (from 1), or a row of a JSON list, for error messages."""

    file: Path
    line: int
    unit: str = "line"

    def error(self, problem: str, mend: str) -> DataError:
        """The error that names this place.

        What the file holds may be quoted in it, and half a surrogate pair could not be printed: it is escaped.
        """
        text = f"{self.file}, {self.unit} {self.line}: {problem}. {mend}"
        return DataError(text.encode("utf-8", "backslashreplace").decode())


def folder(source: str, path: str | None, files: tuple[str, ...]) -> Path:
    """The data folder, checked to hold the files.

    Raises:
        ConfigError: no path was given.
        DataError: the folder or one of its files is missing.
    """
    wanted = ", ".join(files)
    if path is None:
        raise ConfigError(
            f"source {source!r} needs the parameter path: a folder with {wanted} (or with the hub's parquet files; "
            "revision, a commit, gets them from the hub)"
        )
    found = Path(path).expanduser()
    if not found.is_dir():
        raise DataError(
            f"{found}: there is no such folder. Put {source}'s published files there ({wanted}), or mend path."
        )
    for name in files:
        if not (found / name).is_file():
            raise DataError(f"{found / name}: the file is missing. {source} needs {wanted} in this folder.")
    return found


def digest(file: Path) -> str:
    """sha256 (hex) of a file, which is not held in memory for it."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read(file: Path) -> str:
    """The file's text.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise Place(file, line).error("is not UTF-8", "Get the file again from its publisher.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Check the file and its permissions.") from error


def lines(file: Path) -> Iterator[tuple[Place, str]]:
    """The file's lines that are not blank, with their places."""
    for number, line in enumerate(read(file).split("\n"), start=1):
        if line.strip():
            yield Place(file, number), line


def json_lines(file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """One JSON object a line.

    Raises:
        DataError: a line is no JSON object, or cannot be read as one (nested too deeply, a number of thousands of digits).
    """
    for place, line in lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise place.error(f"is no JSON ({error.msg}, column {error.colno})", "Mend or delete the line.") from error
        except (ValueError, RecursionError) as error:
            raise place.error(f"cannot be read as JSON ({_reason(error)})", "Mend or delete the line.") from error
        if not isinstance(row, dict):
            raise place.error(f"is a JSON {type(row).__name__}, not an object", "Mend or delete the line.")
        yield place, row


def json_list(file: Path) -> list[tuple[Place, Mapping[str, Any]]]:
    """A JSON list of objects. Places count rows from 1.

    Raises:
        DataError: the file is no JSON list, or cannot be read as one, or a row is no object.
    """
    try:
        rows = json.loads(read(file))
    except json.JSONDecodeError as error:
        raise Place(file, error.lineno).error(
            f"is no JSON ({error.msg}, column {error.colno})", "Get the file again from its publisher."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: cannot be read as JSON ({_reason(error)}). Get the file again from its publisher."
        ) from error
    if not isinstance(rows, list):
        raise Place(file, 1).error(f"holds a JSON {type(rows).__name__}", "It must be a list of objects.")
    placed: list[tuple[Place, Mapping[str, Any]]] = []
    for number, row in enumerate(rows, start=1):
        place = Place(file, number, "row")
        if not isinstance(row, dict):
            raise place.error(f"is a JSON {type(row).__name__}, not an object", "Mend or delete the row.")
        placed.append((place, row))
    return placed


def _reason(error: ValueError | RecursionError) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def get(place: Place, row: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """A required field of a row; a text, and the texts of a list, are characters that can be written again.

    Raises:
        DataError: it is missing, of another type, or holds half a surrogate pair.
    """
    if key not in row:
        raise place.error(f"has no field {key!r}", f"It has: {', '.join(sorted(row)) or 'none'}. Mend the row.")
    value = row[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise place.error(f"field {key!r} is {value!r}, not of type {kind.__name__}", "Mend the row.")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            _written(place, key, text)
    return value


def _written(place: Place, key: str, text: str) -> None:
    """See that a text can be written: JSON lets ``"\\ud800"`` through, and everything after the loader is UTF-8.

    Raises:
        DataError: it holds half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise place.error(
            f"field {key!r} holds \\u{ord(text[error.start]):04x} as its character {error.start + 1}: half a surrogate pair, "
            "which is no character and no UTF-8",
            "Mend or delete the row.",
        ) from error


def program(place: Place, row: Mapping[str, Any], key: str) -> str:
    """A required field that holds a program: not blank, line ends made ``\\n``.

    Raises:
        DataError: it is missing, of another type, blank, or holds half a surrogate pair.
    """
    text = get(place, row, key, str).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise place.error(f"field {key!r} is blank", "Mend or delete the row.")
    return text


def boolean(place: Place, row: Mapping[str, Any], key: str) -> int:
    """A required label that is true or false (as the hub holds them), or 0 or 1.

    Raises:
        DataError: it is missing or anything else.
    """
    value = row.get(key)
    return int(value) if isinstance(value, bool) else label(place, value)


def label(place: Place, value: object) -> int:
    """A label 0 or 1, given as a number or its text.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(value, bool) or str(value) not in ("0", "1"):
        raise place.error(f"label {value!r} is neither 0 nor 1", "Mend or delete the row.")
    return int(str(value))
