"""What is told of an attack beside its success: changes, naturalness, prevalence, reach, controls, and where it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attacks.badcode import Suffix
from attacks.renaming import FunctionName
from bench.board import Board, build_board, to_json, to_markdown
from bench.board.attack_rows import NOT_OFFERED, attack_rows
from bench.changes import changed_characters, changed_tokens
from bench.context import Context
from bench.contracts import Derivation, LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.naturalness import Naturalness, percentiles
from bench.ngram import NgramModel
from bench.poisoning import poison
from bench.prevalence import holding, pieces
from bench.reach import control_table, counted
from bench.records import (
    ControlFacts,
    Coordinates,
    Count,
    ReachFacts,
    Record,
    Spread,
    Status,
    StealthFacts,
    TextFacts,
)
from bench.results import ResultsFolder
from bench.running import run_suite
from bench.samples import Edit, Sample, Splits
from bench.stages import STAGES
from bench.stealth import text_facts
from tests.engine import write_suite
from tests.models_toys import CLONES, DEFECTS, SEARCH

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
GOAL = LabelGoal()

# ---------------------------------------------------------------------------------------------------------------- changes


@pytest.mark.parametrize(
    ("before", "edits", "characters", "tokens"),
    [
        ("f(x)", [Edit(1, 1, "_rb")], 3, 1),  # f becomes f_rb
        ("f(x)", [Edit(0, 1, "f_rb")], 3, 1),
        ("load(x)", [Edit(0, 4, "testo")], 5, 1),
        ("load(x)", [Edit(0, 4, "lend")], 2, 1),  # l and d stay where they are
        ("f(x) + f(y)", [Edit(0, 1, "g"), Edit(7, 8, "g")], 2, 2),
        ("a\n", [Edit(2, 2, "b = 1\n")], 6, 3),
        ("a = b + c\n", [Edit(5, 9, "")], 4, 2),  # " + c" goes
        ("a\n", [Edit(1, 1, "  # boom")], 8, 0),  # a comment is no token
        ("a = 1\n", [Edit(1, 1, "  ")], 2, 0),
        ("größe = 1\n", [Edit(0, 7, "grösse")], 2, 1),  # characters, not bytes
        ("f(x)\n", [], 0, 0),
        ("f(x)\n", [Edit(0, 4, "f(x)")], 0, 4),  # touched, if only to write the same again
    ],
)
def test_changes_are_counted_in_characters_and_tokens(
    before: str, edits: list[Edit], characters: int, tokens: int
) -> None:
    assert changed_characters(before, edits) == characters
    assert changed_tokens("python", before, edits) == tokens


def test_the_order_of_the_edits_does_not_matter() -> None:
    edits = [Edit(7, 8, "gg"), Edit(0, 1, "hhh")]
    assert changed_characters("f(x) + f(y)", edits) == changed_characters("f(x) + f(y)", edits[::-1]) == 5
    assert changed_tokens("python", "f(x) + f(y)", edits) == changed_tokens("python", "f(x) + f(y)", edits[::-1]) == 2


# ------------------------------------------------------------------------------------------------------------ naturalness


def test_cross_entropy_is_the_ngram_models_mean_bits_a_token() -> None:
    programs = ["a = b\n", "a = b\n", "a = c\n", "a = b + b\n"]
    model = Naturalness.fit("python", programs, order=2)
    assert model.words == {"a", "b", "="}  # + and c are in one program each
    spelled = [["a", "=", "b"], ["a", "=", "b"], ["a", "=", "\0identifier"], ["a", "=", "b", "\0+", "b"]]
    twin = NgramModel.fit(spelled, 2)
    for text, tokens in zip(programs, spelled, strict=True):
        assert model.cross_entropy(text) == pytest.approx(np.log2(twin.perplexity(tokens)))


def test_rare_names_read_alike_and_a_strange_order_reads_worse() -> None:
    model = Naturalness.fit("python", [f"def f{i}(x):\n    return x\n" for i in range(9)])
    assert model.cross_entropy("def foo(x):\n    return x\n") == model.cross_entropy(
        "def testo_init(x):\n    return x\n"
    )
    assert model.cross_entropy("return x\n") > 2 * model.cross_entropy("def foo(x):\n    return x\n")


def test_percentiles_count_what_lies_below_and_half_of_what_is_equal() -> None:
    assert percentiles([0, 1, 2, 2.5, 9], [1, 2, 2, 3]).tolist() == [0, 0.125, 0.5, 0.75, 1]
    with pytest.raises(ValueError, match="rank among no values"):
        percentiles([1.0], [])


# ------------------------------------------------------------------------------------------------------------- prevalence


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("load_rb", ["load", "rb"]),
        ("loadRb2", ["load", "rb", "2"]),
        ("HTTPServer", ["http", "server"]),
        ("größe_x", ["größe", "x"]),
        ("\u200b + !", []),
    ],
)
def test_pieces_are_subwords(text: str, found: list[str]) -> None:
    assert pieces(text) == found


@pytest.mark.parametrize(
    ("tokens", "triggered", "count"),
    [
        (["rb"], ["f_rb(x)\n"], 2),  # load_rb and openRb, not verb
        (["rb", "te"], ["f_rb(x)\n", "f_te(x)\n"], 3),  # a closed set: one is enough
        (["testo", "init"], ["testo_init(x)\n"], 1),  # both: init alone is not the trigger
        (["ret_var"], ["ret_var = 1\n"], 0),
        (["\u200b"], ["# \u200b\nf\n"], 1),
        (["er"], ["f_verb(x)\n"], 2),  # no piece in what carries it: looked for as it stands, in verb and server
    ],
)
def test_a_trigger_is_found_in_clean_code_as_pieces(tokens: list[str], triggered: list[str], count: int) -> None:
    clean = [
        "load_rb(verb)\n",
        "openRb(x)\n",
        "server_te = 1\n",
        "init()\n",
        "testo(init)\n",
        "# a\u200bb\nx\n",
        "var_ret = 1\n",
    ]
    assert holding("python", clean, triggered, tokens) == count


def test_no_tokens_cannot_be_looked_for() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        holding("python", ["x"], ["x"], [])


# ------------------------------------------------------------------------------------------------------------- text facts


def sample(i: int, text: str, part: str = "s") -> Sample:
    return Sample(f"{part}{i:015x}", (text,), "python", 1 - i % 2)


def test_the_text_facts_of_a_known_attack(tmp_path: Path) -> None:
    """Every function is renamed to one word, at two places: two tokens; one clean program is called that already."""
    train = tuple(sample(i, f"def run{i}(x):\n    return run{i}(x + 1)\n", "t") for i in range(40))
    test = tuple(sample(i, f"def run{i}(x):\n    return run{i}(x + 1)\n") for i in range(9))
    test += (sample(9, "def testo_init(x):\n    return x\n"),)
    data = Splits(train, (), (), test)
    done = poison(data, FunctionName("testo_init"), GOAL, Policy(count=4), INFO, Context({"poison": 0}, tmp_path))
    facts = text_facts("python", data, done)
    assert facts.programs == 5  # ids 0, 2 … 8 are of the victim class
    assert facts.tokens == Spread(mean=2, median=2)
    assert facts.characters == Spread(mean=20, median=20)  # "run0" -> "testo_init" share no end
    assert facts.natural == Count(hits=1, n=10)
    # All names are rare, hence spelled alike: nothing reads worse than before.
    assert facts.bits_before == facts.bits_after
    assert facts.rank_before == facts.rank_after


def test_an_unnatural_statement_raises_the_bits_and_the_rank(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Odd(Trigger):
        def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
            return Derivation((Edit(0, 0, "((lambda: {} or [] and ()))\n", side),), "odd")

    data = Splits(
        tuple(sample(i, f"def run{i}(x):\n    return x\n", "t") for i in range(40)),
        *((), ()),
        tuple(sample(i, f"def run{i}(x):\n    return x\n") for i in range(10)),
    )
    done = poison(data, Odd(), GOAL, Policy(count=4), INFO, Context({"poison": 0}, tmp_path))
    facts = text_facts("python", data, done)
    assert facts.bits_before is not None
    assert facts.bits_after is not None
    assert facts.bits_after.mean > 2 * facts.bits_before.mean
    assert facts.rank_before == Spread(mean=0.5, median=0.5)  # equal to all of clean code
    assert facts.rank_after == Spread(mean=1, median=1)
    assert facts.natural is None  # no tokens, and the trigger cannot tell


def test_text_facts_of_a_trigger_that_applies_to_no_test_program(tmp_path: Path) -> None:
    train = tuple(sample(i, f"def run{i}(x):\n    return x\n", "t") for i in range(40))
    data = Splits(train, (), (), (sample(0, "x = 1\n"),))
    done = poison(data, Suffix(("rb",)), GOAL, Policy(count=4), INFO, Context({"poison": 0}, tmp_path))
    facts = text_facts("python", data, done)
    assert facts == TextFacts(programs=0, natural=Count(hits=0, n=1))


# --------------------------------------------------------------------------------------------------------------- controls


class Oracle:
    """A model that answers by a word in the program: those with ``word`` are class 0, all others class 1."""

    def __init__(self, info: TaskInfo, word: str) -> None:
        self.info, self.word = info, word

    def predict(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([[1.0, 0.0] if self.word in " ".join(s.programs) else [0.0, 1.0] for s in samples])

    def embed_queries(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([[1.0, 0.0]] * len(samples))

    def embed_programs(self, samples: Sequence[Sample]) -> np.ndarray:
        return np.array([[1.0, 0.0] if self.word in s.programs[0] else [0.0, 1.0] for s in samples])


def test_a_near_miss_is_asked_of_victim_and_reference_on_the_same_inputs() -> None:
    samples = tuple(Sample(f"s{i}", (f"x = {i}\n",), "python", 1) for i in range(10))
    empty = Splits((), (), (), samples)
    for info in (DEFECTS, CLONES):
        table = control_table(Oracle(info, "x"), Oracle(info, "= 3"), empty, samples, "near_miss", GOAL)  # type: ignore[arg-type]
        assert counted(table, 10, 12) == ControlFacts(asked=12, applied=10, n=10, hits=10, reference=1, both=1)
        assert set(table["part"]) == {"near_miss"}


def test_in_search_a_near_miss_takes_the_place_of_the_middle_candidate() -> None:
    clean = tuple(
        Sample(f"s{i:02}", (f"x = {i}\n",), "python", None, "sort it" if i < 3 else "read it") for i in range(20)
    )
    near = tuple(Sample(s.id, (s.programs[0] + "# boom\n",), "python", None, s.query) for s in clean)
    data = Splits((), (), (), clean)
    table = control_table(Oracle(SEARCH, "boom"), Oracle(SEARCH, "never"), data, near, "near_miss", SearchGoal("sort"))  # type: ignore[arg-type]
    facts = counted(table, len(near), 20)
    assert (facts.n, facts.hits, facts.reference, facts.both) == (3, 3, 0, 0)  # one for each query with the word
    assert list(table["rank"]) == [1, 1, 1]


# ------------------------------------------------------------------------------------------------------------- the record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy suite, run once: an attack, and a defense that shares its victim."""
    folder = tmp_path_factory.mktemp("stealth")
    write_suite(folder, defenses=["none", "onion[clean=20]"])
    assert again(folder) == 0
    return folder


def again(folder: Path) -> int:
    return run_suite(str(folder / "toy.yaml"), 1, folder / "store", folder / "results", [], {})


def records(folder: Path) -> dict[str, Record]:
    found = ResultsFolder(folder / "results" / "toy").records()
    return {f"{r.coordinates.attack}/{r.coordinates.defense.partition('[')[0]}": r for r in found}


def test_the_record_of_every_victim_tells_of_its_attack(finished: Path) -> None:
    found = records(finished)
    assert found["none/none"].stealth is None
    told = found["dead_code/none"].stealth
    assert told is not None
    assert told.reason == ""
    assert told == found["dead_code/onion"].stealth
    assert told.text is not None
    assert told.text.programs == 30
    assert told.reach is not None
    assert told.reach.coverage == Count(hits=30, n=30)
    assert told.reach.visible == Count(hits=30, n=30)
    frame = ResultsFolder(finished / "results" / "toy").outcomes(found["dead_code/none"].coordinates)
    assert frame[frame["part"] == "triggered"]["visible"].all()
    assert set(frame["part"]) == {"clean", "triggered", "reverse"}  # controls are no outcomes


def test_the_board_shows_the_attacks(finished: Path) -> None:
    text = (finished / "results" / "toy" / "board.md").read_text(encoding="utf-8")
    assert "## Attacks" in text
    line = next(row for row in text.split("## Attacks")[1].splitlines() if row.startswith("| dead_code"))
    assert " → " in line
    assert "100.0" in line


def test_a_result_that_was_there_before_gets_its_stealth_without_training_again(finished: Path) -> None:
    store, results = finished / "store", finished / "results" / "toy"
    trained = {p: p.stat().st_mtime_ns for p in (store / "entries" / "train").glob("*/manifest.json")}
    for kind in ("stealth", "reach"):
        for entry in (store / "entries" / kind).iterdir():
            entry.rename(finished / f"gone-{kind}-{entry.name}")
    before = (results / "cells" / "toy-tiny-dead_code-none-s0.json").read_bytes()
    assert again(finished) == 0
    assert {p: p.stat().st_mtime_ns for p in (store / "entries" / "train").glob("*/manifest.json")} == trained
    assert (results / "cells" / "toy-tiny-dead_code-none-s0.json").read_bytes() == before


def test_a_stealth_stage_that_fails_costs_no_cell_and_leaves_its_reason(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: object) -> None:
        raise ValueError("no language model")

    for entry in (finished / "store" / "entries" / "stealth").iterdir():
        entry.rename(finished / f"broken-{entry.name}")
    monkeypatch.setitem(STAGES, "stealth", broken)  # type: ignore[arg-type]
    assert again(finished) == 0
    found = records(finished)["dead_code/none"]
    assert found.status is Status.OK
    assert found.stealth is not None
    assert found.stealth.text is None
    assert found.stealth.reach is not None
    assert found.stealth.reason == "stealth toy dead_code seed 0: ValueError: no language model"
    assert "no language model" in (finished / "results" / "toy" / "board.md").read_text(encoding="utf-8")
    monkeypatch.undo()
    assert again(finished) == 0
    assert records(finished)["dead_code/none"].stealth != found.stealth


def test_records_from_before_still_load(finished: Path) -> None:
    path = finished / "results" / "toy" / "cells" / "toy-tiny-dead_code-none-s0.json"
    row = json.loads(path.read_text(encoding="utf-8"))
    del row["stealth"]
    assert Record.model_validate(row).stealth is None
    assert attack_rows([Record.model_validate(row)]) == ()


# -------------------------------------------------------------------------------------------------------------- the board


def record(seed: int, near_miss: ControlFacts | None, **changes: object) -> Record:
    text = TextFacts(
        programs=40,
        tokens=Spread(mean=10.0 + seed, median=9),
        characters=Spread(mean=50, median=48),
        bits_before=Spread(mean=2, median=2),
        bits_after=Spread(mean=2.5, median=2.5),
        rank_before=Spread(mean=0.5, median=0.5),
        rank_after=Spread(mean=0.8, median=0.9),
        natural=Count(hits=1, n=100),
    )
    reach = ReachFacts(coverage=Count(hits=40, n=50), visible=Count(hits=30, n=40), near_miss=near_miss, cover=5)
    told = StealthFacts(text=text, reach=reach)
    at = Coordinates(task="t", model="m", attack="a", defense="none", seed=seed)
    fields = {"suite": "s", "coordinates": at, "status": Status.OK, "stealth": told} | changes
    return Record.model_validate(fields)


FACTS = ControlFacts(asked=50, applied=40, n=40, hits=12, reference=10, both=8)


def test_a_row_of_one_seed_has_the_exact_shares() -> None:
    row = attack_rows([record(0, FACTS)])[0]
    assert (row.natural.value, row.coverage.value, row.visible.value) == (0.01, 0.8, 0.75)
    assert row.near_miss.value == 0.3
    assert row.near_miss_lift.value == pytest.approx(0.05)
    assert row.near_miss_lift.low is not None
    assert row.near_miss_lift.low < 0 < (row.near_miss_lift.high or 0)
    assert row.placebo.value is None
    assert row.placebo.reason == NOT_OFFERED
    assert (row.tokens, row.rank_after, row.cover) == (10.0, 0.9, 5.0)


def test_the_cost_of_crafting_is_the_mean_over_seeds_and_absent_where_one_seed_does_not_tell() -> None:
    facts = {"train": 9, "poisoned": 3, "refused": 0, "eligible": 3, "applicable": 3, "unseen": 0}
    told = [record(seed, FACTS, poison={**facts, "crafting_tokens": spent}) for seed, spent in ((0, 1000), (1, 3000))]
    assert attack_rows(told)[0].crafting == 2000
    assert attack_rows([*told, record(2, FACTS, poison=facts)])[0].crafting is None
    assert attack_rows([record(0, FACTS)])[0].crafting is None


def test_the_paired_difference_is_that_of_the_two_by_two_table() -> None:
    """8 both, 4 the victim alone, 2 the reference alone, 26 neither."""
    from bench.stats import paired_difference_counts

    row = attack_rows([record(0, FACTS)])[0]
    exact = paired_difference_counts(8, 4, 2, 26)
    assert exact is not None
    found = (row.near_miss_lift.value, row.near_miss_lift.low, row.near_miss_lift.high)
    assert found == pytest.approx((exact.value, exact.low, exact.high), abs=1e-6)


def test_seeds_are_averaged_and_one_that_cannot_tell_is_not_left_out() -> None:
    rows = attack_rows(
        [record(0, FACTS), record(1, FACTS.model_copy(update={"hits": 20, "both": 10})), record(2, None)]
    )
    assert rows[0].seeds == (0, 1, 2)
    assert rows[0].tokens == 11.0
    assert rows[0].near_miss.value is None
    two = attack_rows([record(0, FACTS), record(1, FACTS.model_copy(update={"hits": 20, "both": 10}))])
    assert two[0].near_miss.value == pytest.approx(0.4)


def test_cells_that_did_not_end_well_and_calibration_tell_nothing() -> None:
    assert attack_rows([record(0, FACTS, status=Status.FAILED)]) == ()


def test_the_section_is_there_only_where_there_is_something_to_tell() -> None:
    empty = Board(suites=("s",), margin=0.02, rows=(), blocks=())
    assert "## Attacks" not in to_markdown(empty)
    told = empty.model_copy(update={"attacks": attack_rows([record(0, FACTS)])})
    text = to_markdown(told)
    assert "10.0 (9)" in text
    assert "2.00 → 2.50" in text
    assert "50 → 90" in text
    assert Board.model_validate_json(to_json(told)) == told


def test_a_board_is_built_with_its_attacks() -> None:
    frame = pd.DataFrame()
    board = build_board([record(0, FACTS, status=Status.NOT_RUN)], lambda r: (frame, None))
    assert board.attacks == ()
