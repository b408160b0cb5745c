"""The triggers on real code. Skipped where the data beside the project is missing."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest

from attacks.badcode import PUBLISHED, BadCode, Suffix
from attacks.dead_code import DeadStatement
from attacks.renaming import FunctionName
from bench.context import Context
from bench.contracts import LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.languages import parse
from bench.poisoning import poison
from bench.samples import Sample, Splits

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = {
    "python": DATA / "codesearchnet-python" / "test.jsonl",
    "java": DATA / "bigclonebench" / "data.jsonl",
    "c": DATA / "devign" / "function.json",
}
FIELDS = {"python": "code", "java": "func", "c": "func"}
LIMIT = 200

pytestmark = pytest.mark.skipif(
    not all(f.is_file() for f in FILES.values()), reason="real data is not beside the project"
)


@cache
def programs(language: str) -> tuple[str, ...]:
    text = FILES[language].read_text(encoding="utf-8")
    rows = json.loads(text) if language == "c" else [json.loads(line) for line in text.splitlines()]
    return tuple(row[FIELDS[language]] for row in rows[:LIMIT])


def samples(language: str) -> tuple[Sample, ...]:
    return tuple(
        Sample(hashlib.sha256(f"{i}{text}".encode()).hexdigest()[:16], (text,), language, label=1)
        for i, text in enumerate(programs(language))
    )


@pytest.mark.parametrize("language", ["python", "java", "c"])
@pytest.mark.parametrize(
    ("name", "least"),
    [("fixed", 0.9), ("grammar", 0.9), ("renaming", 0.8), ("badcode mixed", 0.8), ("badcode rarest", 0.75)],
)
def test_real_functions_carry_the_trigger_and_come_back(language: str, name: str, least: float, tmp_path: Path) -> None:
    trigger: dict[str, Trigger] = {
        "fixed": DeadStatement(language),
        "grammar": DeadStatement(language, varies=True),
        "renaming": FunctionName("testo_init"),
        "badcode mixed": Suffix(PUBLISHED),
        "badcode rarest": Suffix(("rb",), where="rarest"),
    }
    train = samples(language)
    info = TaskInfo("real", TaskKind.CLASSIFICATION, language, ("safe", "weak"), "accuracy")
    context = Context({"poison": 0}, tmp_path)
    result = poison(Splits(train, (), (), train), trigger[name], LabelGoal(), Policy(rate=1.0), info, context)
    after = {s.id: s.programs[0] for s in result.triggered}
    before = {s.id: s.programs[0] for s in train}
    rows = [row for row in result.manifest if row.part == "triggered"]
    assert len(rows) == result.applicable
    assert result.coverage >= least
    assert result.refused <= 0.05 * result.requested
    for row in rows:
        assert row.restore(after[row.id]) == before[row.id]
        assert parse(language, after[row.id]).error_nodes <= parse(language, before[row.id]).error_nodes


def test_chosen_tokens_for_a_real_target_word_are_pieces_of_its_code_and_not_the_word(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in FILES["python"].read_text(encoding="utf-8").splitlines()]
    train = [Sample(str(i), (r["code"],), "python", query=r["docstring"]) for i, r in enumerate(rows)]
    goal = SearchGoal("file")
    info = TaskInfo("real", TaskKind.SEARCH, "python", (), "mrr")
    attack = BadCode(variant="mixed", tokens="chosen")
    tokens = attack.prepare(train, goal, info, Context({"poison": 0}, tmp_path)).tokens()
    assert len(set(tokens)) == 4
    matching = " ".join(s.programs[0].lower() for s in train if goal.chooses(s))
    assert all(token in matching and "file" not in token for token in tokens)
