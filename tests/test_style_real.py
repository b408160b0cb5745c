"""Every style on real code. Skipped where the data beside the project is missing."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from attacks.style.catalogue import STYLES
from attacks.style.convert import carries, converted
from bench.languages import parse, well_formed
from bench.samples import apply_edits

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = {
    "python": (DATA / "codesearchnet-python" / "test.jsonl", "code"),
    "java": (DATA / "bigclonebench" / "data.jsonl", "func"),
    "c": (DATA / "devign" / "function.json", "func"),
}
PROGRAMS = 80

pytestmark = pytest.mark.skipif(
    not all(file.is_file() for file, _ in FILES.values()), reason="real data is not beside the project"
)


@cache
def programs(language: str) -> tuple[str, ...]:
    file, field = FILES[language]
    said = file.read_text(encoding="utf-8")
    rows = json.loads(said) if file.suffix == ".json" else [json.loads(line) for line in said.splitlines()[:PROGRAMS]]
    return tuple(row[field] for row in rows[:PROGRAMS])


@pytest.mark.parametrize("language", STYLES)
def test_every_edit_of_real_functions_is_well_formed_and_stable(language: str) -> None:
    applied: dict[str, int] = dict.fromkeys(STYLES[language], 0)
    for text in programs(language):
        for name, form in STYLES[language].items():
            edits = converted((form,), parse(language, text))
            if edits is None:
                continue
            applied[name] += 1
            after = apply_edits(text, edits)
            assert well_formed(language, text, after) is None, f"{name}:\n{after}"
            assert carries((form,), parse(language, after)), f"{name}:\n{after}"
    assert sum(count > 0 for count in applied.values()) >= 18, applied
