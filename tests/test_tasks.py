"""The three tasks on embedded data: what must hold for every split, whatever the seed."""

from __future__ import annotations

import ast
import gc
import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from bench.context import Context
from bench.contracts import LabelGoal, SearchGoal, Task, TaskKind
from bench.errors import ConfigError, DataError
from bench.pipeline import Builder, Computing
from bench.plugins import Registry
from bench.running import narrow
from bench.samples import Sample, Splits
from bench.suite import cells, load_suite
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tasks.sources import installed
from tasks.sources.clones import _products, _smallest, overlap, shape
from tasks.sources.dealing import Novelty, deal, jaccard, shingles
from tasks.sources.defects import fill, places, plant
from tasks.sources.installed import DISTRIBUTIONS, Function, lexical_tokens, modules, versions
from tasks.sources.origin import UNTOLD
from tasks.sources.parsing import compiles, parse, uncollected, walk
from tasks.sources.search import query_of
from tasks.sources.weaknesses import WEAKNESSES

SIZES = {"train": 120, "valid": 20, "budget": 30, "test": 60}
TASKS: dict[str, type[Task]] = {
    "defect_detection": DefectDetection,
    "clone_detection": CloneDetection,
    "code_search": CodeSearch,
}


@cache
def built(name: str, seed: int = 0) -> Splits:
    return TASKS[name](**SIZES).splits(Context({"data": seed}, Path("unused")))


def samples(splits: Splits) -> list[Sample]:
    return [sample for part in splits.parts().values() for sample in part]


@pytest.mark.parametrize("name", TASKS)
def test_splits_have_the_sizes_asked_for_and_unique_opaque_ids(name: str) -> None:
    splits = built(name)
    assert {split: len(part) for split, part in splits.parts().items()} == SIZES
    ids = [sample.id for sample in samples(splits)]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)
    assert set(ids) < set(splits.notes)


@pytest.mark.parametrize("name", TASKS)
def test_no_module_stands_in_two_splits(name: str) -> None:
    splits = built(name)
    groups = [{s.group for s in part} for part in splits.parts().values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) > 20
    if name == "clone_detection":
        homes = [
            {f.rsplit(".", 1)[0] for s in part for f in splits.notes[s.id]["functions"]}
            for part in splits.parts().values()
        ]
        assert sum(map(len, homes)) == len(set().union(*homes))


@pytest.mark.parametrize("name", TASKS)
def test_no_program_of_one_split_nearly_repeats_in_another(name: str) -> None:
    parts = [[shingles(s.programs[0]) for s in part] for part in built(name).parts().values()]
    for index, one in enumerate(parts):
        for other in parts[index + 1 :]:
            assert max(jaccard(a, b) for a in one for b in other) < 0.8


@pytest.mark.parametrize("name", TASKS)
def test_programs_compile_and_classes_are_balanced(name: str) -> None:
    splits = built(name)
    assert all(compiles(program) for sample in samples(splits) for program in sample.programs)
    for part in splits.parts().values():
        labels = Counter(sample.label for sample in part)
        assert set(labels) == ({None} if name == "code_search" else {0, 1})
        assert len(set(labels.values())) == 1


def test_the_seed_of_the_data_decides_everything() -> None:
    first = built("defect_detection")
    again = TASKS["defect_detection"](**SIZES).splits(Context({"data": 0}, Path("unused")))
    assert first.digest() == again.digest()
    assert first.notes == again.notes
    other = built("defect_detection", seed=1)
    assert other.digest() != first.digest()
    assert not {s.id for s in samples(other)} & {s.id for s in samples(first)}


def test_tasks_are_found_and_built_by_name_and_state_what_they_are() -> None:
    registry = Registry().discover()
    kinds = {}
    for name in TASKS:
        task = registry.build("task", name, {"train": 5})
        assert isinstance(task, Task)
        kinds[name] = (task.info.kind, task.info.language, task.info.metric, task.goal())
    assert kinds == {
        "defect_detection": (TaskKind.CLASSIFICATION, "python", "accuracy", LabelGoal(1, 0)),
        "clone_detection": (TaskKind.PAIRS, "python", "f1", LabelGoal(1, 0)),
        "code_search": (TaskKind.SEARCH, "python", "mrr", SearchGoal("array")),
    }
    assert DefectDetection(source="juliet").info.language == "c"
    assert CloneDetection(source="bigclonebench").info.language == "java"
    for wrong in ({"train": -1}, {"source": "devin"}, {"trian": 3}):
        with pytest.raises(ConfigError):
            registry.build("task", "defect_detection", wrong)


def test_asking_for_more_than_there_is_says_how_many_there_are() -> None:
    some = [module for module in modules() if module.package == "patsy"]
    with pytest.raises(DataError, match=r"too few fitting functions: [1-9]\d* of 40000 wanted\. Ask for smaller"):
        deal(some, {"train": 30000, "test": 10000}, lambda function: True, np.random.default_rng(0))


# -------------------------------------------------------------------------------------------------------- the source


def test_only_named_distributions_are_read_and_their_versions_are_told() -> None:
    found = versions()
    assert set(found) == {"python", *DISTRIBUTIONS}
    assert "+" not in found["torch"]
    names = [m.name for m in modules()]
    assert names == sorted(set(names))
    assert "torch.nn.modules.linear" in names
    assert not any(part in ("tests", "test", "testing") for name in names for part in name.split(".")[:-1])
    assert not any(name.startswith(("pytest", "hypothesis", "mypy", "ruff", "bench", "tasks")) for name in names)


def test_a_missing_distribution_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"'no-such-thing', which is not installed here\. Install"):
        modules(("no-such-thing",))


def test_novelty_refuses_what_nearly_repeats_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    novelty = Novelty(threshold=0.7)
    base = [f"name{i}" for i in range(60)]
    assert novelty.add(" ".join(base))
    assert not novelty.add(" ".join(base))
    assert not novelty.add(" ".join([*base[:-1], "other"]))
    assert novelty.add(" ".join([*base[:20], *(f"new{i}" for i in range(40))]))
    assert all(novelty.add(" ".join(f"w{rng.integers(10**9)}" for _ in range(40))) for _ in range(50))


# -------------------------------------------------------------------------------------------------- defect detection


def test_the_catalogue_has_its_kinds_surfaces_and_equal_shapes() -> None:
    assert len({w.cwe for w in WEAKNESSES}) >= 24
    differences = []
    for weakness in WEAKNESSES:
        assert len(weakness.seen) >= 3
        forms = [form for surface in weakness.surfaces for form in surface]
        assert len(set(forms)) == len(forms)
        for weak, safe in weakness.surfaces:
            texts = [fill(form, ("x", "y"), frozenset(), np.random.default_rng(0)) for form in (weak, safe)]
            assert all(compiles(text) for text in texts), texts
            differences.append(len(lexical_tokens(texts[0])) - len(lexical_tokens(texts[1])))
    assert max(map(abs, differences)) <= 2
    assert abs(np.mean(differences)) < 0.1


def test_a_defect_is_at_least_one_weak_statement_and_two_or_three_are_planted() -> None:
    splits = built("defect_detection")
    for sample in samples(splits):
        statements = splits.notes[sample.id]["statements"]
        assert len(statements) in (2, 3)
        assert sample.label == int(any(s["weak"] for s in statements))
        assert splits.notes[sample.id]["cwe"] == [s["cwe"] for s in statements if s["weak"]]
        lines = [line.strip() for line in sample.programs[0].split("\n")]
        positions = [lines.index(s["text"]) for s in statements]
        assert positions == sorted(positions)


def test_held_out_surfaces_appear_in_test_alone() -> None:
    splits = built("defect_detection")
    held = {
        split: sum(s["held_out"] for sample in part for s in splits.notes[sample.id]["statements"])
        for split, part in splits.parts().items()
    }
    assert held.pop("test") > 10
    assert set(held.values()) == {0}


def test_neither_length_nor_count_tells_the_label() -> None:
    task = DefectDetection(train=1200, valid=0, budget=0, test=0)
    splits = task.splits(Context({"data": 0}, Path("unused")))
    labels = [s.label for s in splits.train]
    # An AUC of 0.5 is chance; its standard error is about 0.017 here.
    for measure in (
        [len(lexical_tokens(s.programs[0])) for s in splits.train],
        [len(s.programs[0]) for s in splits.train],
        [s.programs[0].count("\n") for s in splits.train],
        [len(splits.notes[s.id]["statements"]) for s in splits.train],
    ):
        assert abs(roc_auc_score(labels, measure) - 0.5) < 0.06


HOST = """\
def host(self, path, mode=1):
    total = 0
    for item in path:
        if item: continue
        total += item
    else:
        spare = 2
    with open(path) as handle:
        size = 1
    try:
        del mode
    except OSError as error:
        raise
    if total:
        return size
    elif item:
        return 0
"""


def test_places_are_statement_boundaries_with_the_names_that_certainly_exist() -> None:
    found = {place.line: (len(place.indent), place.names) for place in places(HOST)}
    assert found == {
        1: (4, ("path",)),
        2: (4, ("path", "total")),
        3: (8, ("path", "total", "item")),
        4: (8, ("path", "total", "item")),
        6: (8, ("path", "total")),
        7: (4, ("path", "total")),
        8: (8, ("path", "total", "handle")),
        9: (4, ("path", "total", "handle")),
        10: (8, ("path", "total", "handle")),
        12: (8, ("path", "total", "handle")),
        13: (4, ("path", "total", "handle")),
        14: (8, ("path", "total", "handle")),
        16: (8, ("path", "total", "handle")),
    }


def test_operands_come_from_the_scope_and_new_names_are_new() -> None:
    text = fill(
        "$r = f($a, $b, '$w', '$v', $$x)".replace("$$x", "'$$x'"),
        ("one", "two"),
        frozenset({"result"}),
        np.random.default_rng(3),
    )
    call = ast.parse(text).body[0]
    assert isinstance(call, ast.Assign)
    names = [node.id for node in ast.walk(call) if isinstance(node, ast.Name)]
    assert {"one", "two"} < set(names)
    assert "result" not in names
    assert "'$x'" in text
    assert "one" not in fill("f($b)", ("one",), frozenset(), np.random.default_rng(0))


def test_planting_leaves_the_host_as_it_was_around_the_statements() -> None:
    for seed in range(30):
        planted = plant(Function("m", "host", HOST, None), seed % 2, True, np.random.default_rng(seed))
        assert planted is not None
        program, statements = planted
        left = program.split("\n")
        for statement in statements:
            left.remove(next(line for line in left if line.strip() == statement.text))
        assert "\n".join(left) == HOST


# --------------------------------------------------------------------------------------------------- clone detection


def test_clones_are_rewrites_near_misses_differ_by_a_mutation_and_neighbours_by_their_function() -> None:
    splits = built("clone_detection")
    rewrites: Counter[str] = Counter()
    for part in splits.parts().values():
        kinds = Counter(splits.notes[sample.id]["pair"] for sample in part)
        assert kinds["clone"] == len(part) // 2
        assert abs(kinds["near_miss"] - kinds["neighbour"]) <= 1
        assert kinds.total() == len(part)
    for sample in samples(splits):
        note = splits.notes[sample.id]
        first, second = note["functions"]
        assert sample.label == int(note["pair"] == "clone")
        assert (first == second) == (note["pair"] != "neighbour")
        assert first.partition(".")[0] == second.partition(".")[0]
        mutations = note["mutations"]
        if note["pair"] == "clone":
            assert mutations[0] == mutations[1]
        elif note["pair"] == "near_miss":
            assert sorted(map(len, mutations))[0] == 0 < max(map(len, mutations)) <= 2
        else:
            assert shape(sample.programs[0]) != shape(sample.programs[1])
        assert "rename_function" in note["rewrites"]
        assert len(note["rewrites"]) >= 3
        rewrites.update(note["rewrites"])
    assert len(rewrites) >= 10


def test_originals_and_mutants_stand_on_both_sides_of_all_kinds_of_pair() -> None:
    splits = built("clone_detection")
    seen = {
        (note["pair"], side, bool(note["mutations"][side]))
        for note in (splits.notes[sample.id] for sample in splits.train)
        for side in (0, 1)
    }
    assert len(seen) == 3 * 2 * 2


@pytest.mark.parametrize(("share", "kind"), [(1.0, "near_miss"), (0.0, "neighbour")])
def test_the_share_of_near_misses_is_what_was_asked_for(share: float, kind: str) -> None:
    task = CloneDetection(train=400, valid=0, budget=0, test=0, near_misses=share)
    splits = task.splits(Context({"data": 0}, Path("unused")))
    kinds = Counter(splits.notes[sample.id]["pair"] for sample in splits.train)
    assert kinds["clone"] == 200
    # A function that is alone in its package has no neighbour; a near miss takes the place.
    assert kinds[kind] >= (200 if kind == "near_miss" else 190)


def test_neither_overlap_nor_length_of_the_two_programs_tells_a_clone() -> None:
    task = CloneDetection(train=1200, valid=0, budget=0, test=0)
    splits = task.splits(Context({"data": 0}, Path("unused")))
    labels = [s.label for s in splits.train]
    lengths = [[len(lexical_tokens(p)) for p in s.programs] for s in splits.train]
    # An AUC of 0.5 is chance; its standard error is about 0.017 here. A bag of tokens told 99 % of version 1's pairs.
    bounds = (
        ([overlap(*s.programs) for s in splits.train], 0.35, 0.75),
        ([second - first for first, second in lengths], 0.4, 0.6),
        ([abs(second - first) for first, second in lengths], 0.35, 0.65),
        ([first for first, _ in lengths], 0.43, 0.57),
        ([second for _, second in lengths], 0.43, 0.57),
    )
    for measure, low, high in bounds:
        assert low < roc_auc_score(labels, measure) < high
    # Near misses alone: nothing to see at all for who counts tokens.
    near = [i for i, s in enumerate(splits.train) if splits.notes[s.id]["pair"] != "neighbour"]
    assert roc_auc_score([labels[i] for i in near], [bounds[0][0][i] for i in near]) < 0.6


def test_both_programs_of_a_pair_come_from_one_printer_whatever_the_label() -> None:
    for sample in samples(built("clone_detection")):
        for program in sample.programs:
            assert ast.unparse(ast.parse(program)) + "\n" == program
        names = [ast.parse(program).body[0].name for program in sample.programs]  # type: ignore[attr-defined]
        assert names[0] != names[1]


# ------------------------------------------------------------------------------------------------------- code search


def test_queries_are_words_unique_and_not_left_in_the_program() -> None:
    found = samples(built("code_search"))
    queries = [sample.query for sample in found]
    assert len(set(queries)) == len(queries)
    for sample in found:
        assert sample.query is not None
        assert 3 <= len(sample.query.split()) <= 30
        definition = ast.parse(sample.programs[0]).body[0]
        assert isinstance(definition, ast.FunctionDef)
        assert ast.get_docstring(definition) is None


@pytest.mark.parametrize(
    ("docstring", "query"),
    [
        ("Return the *sorted* array.\n\nParameters\n----------\nx : int", "return the sorted array"),
        ("See :class:`~torch.Tensor` and :func:`f <m.f>` of `x_y`", "see torch tensor and f of x y"),
        ("Load it from https://example.org/x now please", "load it from now please"),
        ("Short one.", None),
        (">>> f(1) is a doctest here", None),
        (":param x: first of all arguments", None),
        ("One line of text\n:param x: a thing", "one line of text"),
        ("One line of text\nthat goes on", "one line of text that goes on"),
        ("This is short enough. " + "word " * 40, "this is short enough"),
        ("word " * 40, None),
        ("Это не английский текст, a b c", None),
    ],
)
def test_a_query_is_the_first_paragraph_in_words(docstring: str, query: str | None) -> None:
    assert query_of(docstring) == query


def test_a_tree_is_walked_in_the_order_of_the_standard_library() -> None:
    for path in (Path(ast.__file__), Path(__file__)):
        tree = parse(path.read_text(encoding="utf-8"))
        assert walk(tree) == list(ast.walk(tree))


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_left_as_it_was(collecting: bool) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if collecting else gc.disable()
        with uncollected():
            assert not gc.isenabled()
            with pytest.raises(SyntaxError):
                parse("def")
            assert not gc.isenabled()
        assert gc.isenabled() is collecting
    finally:
        gc.enable() if before else gc.disable()


def test_the_nearest_neighbours_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 3, 40, 41, 500):
        costs = rng.integers(0, 20, size) / 7  # with many ties
        for count in (1, 3, 40):
            assert _smallest(costs, count) == np.argsort(costs, kind="stable")[:count].tolist()


def test_products_of_tables_are_exact_whatever_their_number_of_rows() -> None:
    rng = np.random.default_rng(0)
    left, right = (sparse.csr_matrix((rng.random((7, 30)) < 0.3).astype(np.float32)) for _ in range(2))
    expected = left.toarray() @ right.toarray().T
    for rows in (1, 3, 7, 256):
        assert np.array_equal(np.array(list(_products(left, right, rows))), expected)


# ----------------------------------------------------------------------------------------------------- keys of clone data

STORED = Path(__file__).parents[1] / "results" / "defenses" / "cells" / "clone_detection-tiny_48-none-none-s0.json"


def data_key_of_clones() -> str:
    labels = {"task": "clone_detection", "model": "tiny_48", "attack": "none", "defense": "none"}
    suite, registry = narrow(load_suite("defenses"), labels, 0), Registry().discover()
    plan = next(iter(cells(suite, registry)))
    stages = Builder(suite, Computing("cpu", "float32")).cell(plan).stages
    return next(stage.key for stage in stages if stage.kind == "data")


def test_embedded_clones_of_other_versions_are_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads(STORED.read_text())
    monkeypatch.setattr(installed, "versions", lambda: dict(UNTOLD))
    assert CloneDetection().origin() == {}
    assert data_key_of_clones() == stored["keys"]["data"], "results that are stored are still an answer"
    other = {**UNTOLD, "sympy": "1.15.0"}
    monkeypatch.setattr(installed, "versions", lambda: dict(other))
    assert CloneDetection().origin() == other
    assert data_key_of_clones() != stored["keys"]["data"]
