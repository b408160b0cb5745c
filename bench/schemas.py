"""The JSON Schemas of what lies in a results folder, for readers that are not Python: ``python -m bench.schemas results/schema``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.provenance import Provenance
from bench.records import Record
from bench.store import write_json


def schemas() -> Mapping[str, dict[str, Any]]:
    """File name → schema."""
    return {
        "record.json": Record.model_json_schema(mode="serialization"),
        "provenance.json": Provenance.model_json_schema(mode="serialization"),
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write them; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        write_json(folder / name, schema)
    return [folder / name for name in schemas()]


if __name__ == "__main__":
    for path in write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "results/schema")):
        print(path)
