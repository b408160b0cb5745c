"""What a plan says before anything starts: tokens, hours at a rate, disk; and it agrees with what then happens."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.contracts import TaskInfo, TaskKind
from bench.estimating import Estimator, Work, sizes_of, tokens_a_sample, training_tokens
from bench.pipeline import Builder, merge
from bench.planning import bytes_by_kind, seconds_by_kind
from bench.plugins import Registry
from bench.store import Store
from bench.storing import entries
from bench.suite import CellPlan, cells, load_suite, parse_suite
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tests.engine import MODEL, PLUGINS, run, suite_content, write_suite

WINDOW = 160
assert MODEL["parameters"]["window"] == WINDOW  # type: ignore[index]
ROOT = Path(__file__).parents[1]
DEFENSES = [
    "none",
    "spectral_signatures",
    "dece",
    "fine_tuning[clean=20]",
    {
        "name": "elibadcode",
        "label": "elibadcode",
        "parameters": {"clean": 20, "victims": 4, "iterations": 3, "width": 8, "top_k": 4, "variant": "paper"},
    },
    {"name": "dbs", "label": "dbs", "parameters": {"clean": 20, "victims": 4, "iterations": 5, "length": 3}},
    {"name": "attdef", "label": "attdef", "parameters": {"clean": 20, "steps": 2}},
    "screen/normalise",
    "strip[clean=20]",
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry().discover()
    found.add_file(PLUGINS)
    return found


def estimator(content: dict[str, object], registry: Registry, store: Store) -> tuple[Estimator, list[str]]:
    """For a suite, with the labels of its stages by key."""
    suite = parse_suite(content, "test suite")
    builder = Builder(suite)
    graphs = [builder.cell(plan) for plan in cells(suite, registry)]
    stages = merge(graphs)
    plans = {stage.key: graph.plan for graph in graphs for stage in graph.stages}
    return Estimator(stages, plans, registry, store), list(stages)


def plan_of(kind: TaskKind, registry: Registry) -> CellPlan:
    plan = next(iter(cells(parse_suite(suite_content(), "test suite"), registry)))
    info = TaskInfo("x", kind, "python", ("a", "b"), "accuracy")

    class Other(type(plan.task)):  # type: ignore[misc]
        @property
        def info(self) -> TaskInfo:
            return info

    return replace(plan, task=Other())


def test_a_pair_is_two_windows_and_a_query_has_its_own(registry: Registry) -> None:
    query = int(plan_of(TaskKind.SEARCH, registry).model_settings.query_window)
    for kind, each in (
        (TaskKind.CLASSIFICATION, WINDOW),
        (TaskKind.PAIRS, 2 * WINDOW),
        (TaskKind.SEARCH, WINDOW + query),
    ):
        plan = plan_of(kind, registry)
        assert tokens_a_sample(plan) == each
        assert training_tokens(plan) == (plan.task.training_samples or 0) * each * plan.training.epochs


def test_a_plan_tells_tokens_and_hours_and_after_the_run_nothing_is_left(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    told = run("plan", suite, "--rate", "1000", folder=tmp_path).stdout
    tokens = 2 * 160 * WINDOW * 2  # two trainings of 160 samples, two epochs
    found = re.search(r"2 trainings, at most ([\d,]+) tokens forward and ([\d,]+) back", told)
    assert found is not None, told
    forward, back = (int(number.replace(",", "")) for number in found.groups())
    assert back == tokens <= forward  # forward: with the validation split
    found = re.search(r"  ([\d,]+) passes \(a token back counts as two\): ([\d.,]+) hours at 1,000 a second", told)
    assert found is not None, told
    passes = int(found[1].replace(",", ""))
    assert passes >= forward + 2 * back
    assert found[2] == f"{passes / 1000 / 3600:,.1f}"
    assert "disk" not in told.splitlines()[-1]
    assert "unmeasured" in told
    assert run("run", suite, folder=tmp_path).returncode == 0
    told = run("plan", suite, folder=tmp_path).stdout
    assert "missing: 0 stages, nothing to do" in told
    assert "trainings" not in told
    more = run("plan", write_suite(tmp_path, seeds=[0, 1]), "--brief", folder=tmp_path).stdout
    # Another seed of what was run: its cost is known, and no bound.
    assert re.search(r"2 trainings, about [\d,]+ tokens forward and [\d,]+ back", more), more
    assert re.search(r"disk: about \d+\.\d GB, by what results of the same kinds take", more)
    assert re.search(r"missing: \d+ stages, about \d+\.\d\d h by what the same work took here, in one process", more)
    assert "train toy" not in more
    assert "train toy" in run("plan", write_suite(tmp_path, seeds=[0, 1]), folder=tmp_path).stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    finished = run("run", write_suite(folder, defenses=DEFENSES), "-j", "1", folder=folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


def counted(store: Store, kind: str, key: str) -> Work:
    cost = json.loads((store.folder(kind, key) / "cost.json").read_text())
    return Work(cost["forward_tokens"], cost["backward_tokens"])


def test_no_stage_computes_more_than_its_bound_and_what_is_not_known_is_not_told(
    done: Path, registry: Registry, tmp_path: Path
) -> None:
    content = suite_content(defenses=DEFENSES)
    bounds, keys = estimator(content, registry, Store(tmp_path))
    store, unknown, held = Store(done / "store"), set(), set()
    for key in keys:
        stage = bounds._stages[key]
        if stage.kind in ("data", "score", "stealth"):
            assert bounds.bound(stage) == Work()
            continue
        bound, actual = bounds.bound(stage), counted(store, stage.kind, key)
        name = str(stage.inputs.get("defense", {}).get("name", stage.kind))
        if bound is None:
            unknown.add(name)
            assert bounds.estimate(stage).source == "unknown"
            continue
        held.add(name)
        assert actual.forward <= bound.forward, stage.label
        assert actual.backward <= bound.backward, stage.label
    assert unknown == {"strip"}
    assert held >= {
        "train",
        "predict",
        "spectral_signatures",
        "fine_tuning",
        "elibadcode",
        "dbs",
        "attdef",
        "normalise",
    }


def test_the_same_work_of_another_seed_is_told_as_it_was_measured(done: Path, registry: Registry) -> None:
    store = Store(done / "store")
    known, keys = estimator(suite_content(defenses=DEFENSES, seeds=[0, 5]), registry, store)
    missing = [known._stages[key] for key in keys if not store.has(known._stages[key].kind, key)]
    assert {stage.kind for stage in missing} >= {"train", "filter", "repair", "screen", "predict"}
    for stage in missing:
        if stage.kind in ("score", "stealth"):
            continue
        found = known.estimate(stage)
        assert (found.source, found.seconds is not None) == ("measured", True), stage.label
        twin = next(
            s for s in known._stages.values() if s not in missing and known._signature(s) == known._signature(stage)
        )
        assert found.work is not None
        assert found.work.passes == pytest.approx(counted(store, twin.kind, twin.key).passes, rel=0.5)
        if stage.kind == "train":
            rate = known.rate(stage)
            assert rate is not None
            assert rate > 0


def test_another_model_has_bounds_and_no_rate(done: Path, registry: Registry) -> None:
    wider = {**MODEL, "parameters": {**MODEL["parameters"], "hidden": 48}}  # type: ignore[dict-item]
    store = Store(done / "store")
    known, keys = estimator(suite_content(models=[wider]), registry, store)
    stages = [known._stages[key] for key in keys if known._stages[key].kind in ("train", "predict")]
    assert stages
    assert {known.estimate(stage).source for stage in stages} == {"bound"}
    assert {known.rate(stage) for stage in stages} == {None}
    told = run("plan", write_suite(done, models=[wider], name="wider"), folder=done).stdout
    assert "python -m tests.benchmarks device measures it: prediction, tokens/s" in told


def test_sizes_of_published_sets_are_known_without_loading(registry: Registry) -> None:
    plan = next(iter(cells(parse_suite(suite_content(), "test suite"), registry)))
    clones = replace(plan, task=CloneDetection(source="bigclonebench", path="x", valid=50))
    assert sizes_of(clones) == {"train": 901028, "valid": 50, "test": 415416}
    search = replace(plan, task=CodeSearch(source="codesearchnet", path="x", language="java"))
    assert sizes_of(search) == {"train": 454451, "valid": 15328, "test": 26909}
    assert sizes_of(search, {"train": 5, "valid": 2, "test": 3}) == {"train": 5, "valid": 2, "test": 3}


@pytest.mark.skipif(
    not (ROOT / "data" / "devign").is_dir(), reason="the suite's data are not in the project's folder data"
)
def test_the_committed_plan_of_the_papers_suite_is_current(tmp_path: Path) -> None:
    page = (ROOT / "results" / "plans" / "paper.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"(?ms)^```text\n(.*?)^```$", page)
    assert load_suite("paper").name == "paper"
    told = run("plan", "paper", "--brief", "--rate", "100000", folder=tmp_path).stdout
    trimmed = [line.strip() for line in told.splitlines()]
    assert trimmed == [line.strip() for line in shown.splitlines()]


def test_bytes_are_the_mean_over_results_of_a_kind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for place, size in enumerate((100, 300)):
        folder = store.root / "entries" / "train" / f"{place}"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(bytes(size))
    for stray in (store.root / "entries", store.root / "entries" / "train"):
        (stray / ".DS_Store").write_bytes(bytes(5000))  # as a file manager leaves them
    assert bytes_by_kind(store) == {"train": 200.0}
    assert [key for _, key, _ in entries(store)] == ["0", "1"]


def test_what_is_no_timing_is_passed_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.note_timing("train", "a", 3.0, 1)
    (store.root / "timings" / "folder.json").mkdir()
    for name, text in (("list", "[]"), ("cut", '{"kind": "tr'), ("none", '{"kind": "train", "seconds": null}')):
        (store.root / "timings" / f"{name}.json").write_text(text)
    assert seconds_by_kind(store) == {"train": 3.0}


@pytest.mark.parametrize(
    ("task", "samples"),
    [
        (DefectDetection(), 6000),
        (DefectDetection(train=50), 50),
        (DefectDetection(source="devign", path="x"), 21854),
        (DefectDetection(source="juliet", path="x"), None),
        (CloneDetection(source="bigclonebench", path="x"), 901028),
        (CodeSearch(), 8000),
        (CodeSearch(source="codesearchnet", path="x", language="java"), 454451),
    ],
)
def test_sizes_are_known_without_loading(task: DefectDetection, samples: int | None) -> None:
    assert task.training_samples == samples
