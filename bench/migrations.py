"""Reading records of every schema version that was ever written: a step from each version to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from bench.records import SCHEMA_VERSION, Record

Step = Callable[[dict[str, Any]], dict[str, Any]]


class UnreadableRecord(ValueError):
    """What is wrong with a record, and what to do. The caller knows the file."""


def _from_2(value: dict[str, Any]) -> dict[str, Any]:
    """Version 3 says the weights' type, which was float32 in all that version 2 described, and digests of the tables."""
    return {**value, "dtype": "float32", "files": {}}


STEPS: Final[Mapping[int, Step]] = {2: _from_2}
"""Version → what makes the next one of it."""


def read_record(value: object) -> Record:
    """A record from its JSON, of this or an older version.

    Raises:
        UnreadableRecord: no record, of a newer version, or with fields missing, unknown or of the wrong kind (the first is named).
    """
    version = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(version, int) or isinstance(version, bool):
        raise UnreadableRecord("it is no record: it states no schema_version. Delete it and run the suite again")
    if version > SCHEMA_VERSION:
        raise UnreadableRecord(
            f"schema version {version} is newer than {SCHEMA_VERSION}, which this reads. Update codebackdoorbench, or run the cell again"
        )
    while version < SCHEMA_VERSION:
        if version not in STEPS:
            raise UnreadableRecord(f"schema version {version} was never written by a release. Run the cell again")
        value = STEPS[version](value)
        version += 1
    try:
        return Record.model_validate({**value, "schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnreadableRecord(f"{where}: {first['msg']}. Delete it and run the suite again") from error
