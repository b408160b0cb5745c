"""Several defenses as one: each acts where its family acts, on what the parts before it left."""

from pathlib import Path
from typing import Any

import pytest

from bench.composing import Composition, part_of, parts_of
from bench.contracts import Access, Defense
from bench.errors import ConfigError
from bench.jobs import Stage
from bench.pipeline import Builder, CellGraph, badges
from bench.plugins import Registry
from bench.records import Record, Status
from bench.results import ResultsFolder
from bench.suite import cells, parse_suite
from tests.engine import ATTACK, PLUGINS, run, suite_content, write_suite

WHOLE = "onion[clean=20] + fine_tuning[clean=30,epochs=1] + dece + spectral_signatures"


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry().discover()
    found.add_file(PLUGINS)
    return found


def graph(registry: Registry, defense: Any, attack: Any = ATTACK) -> CellGraph:
    suite = parse_suite(suite_content(attacks=[attack], defenses=[defense]), "test")
    (plan,) = cells(suite, registry)
    return Builder(suite).cell(plan)


def defense(registry: Registry, entry: Any) -> Defense:
    built = graph(registry, entry).plan.defense
    assert built is not None
    return built


def stage(graph: CellGraph, role: str) -> Stage:
    assert graph.score is not None
    _, key = graph.score.parents[role]
    return next(s for s in graph.stages if s.key == key)


def test_parts_act_in_the_order_of_their_families_however_they_are_written(registry: Registry) -> None:
    parts = parts_of(defense(registry, WHOLE))
    assert [p.name for p in parts] == ["spectral_signatures", "dece", "fine_tuning", "onion"]


def test_each_part_meets_what_the_parts_before_it_left(registry: Registry) -> None:
    whole = graph(registry, WHOLE)
    sieve, rule, repair, screen, last = (
        stage(whole, role) for role in ("filter", "trained", "repair", "screen", "defended")
    )
    victim = stage(whole, "undefended").parents["model"]
    assert sieve.parents["model"] == victim
    assert rule.parents["filter"] == (sieve.kind, sieve.key)
    assert rule.inputs["rule"]["name"] == "dece"
    assert repair.parents["model"] == (rule.kind, rule.key)
    assert screen.parents.get("model", (repair.kind, repair.key)) == (repair.kind, repair.key)
    assert last.parents["model"] == (repair.kind, repair.key)
    assert last.parents["screen"] == (screen.kind, screen.key)


def test_a_filter_and_a_screen_alone_train_again_and_screen_the_new_model(registry: Registry) -> None:
    both = graph(registry, "spectral_signatures + onion[clean=20]")
    trained, last = stage(both, "trained"), stage(both, "defended")
    assert "rule" not in trained.inputs
    assert last.parents["model"] == (trained.kind, trained.key)
    alone = graph(registry, "spectral_signatures")
    assert stage(alone, "trained").key == trained.key  # shared with the cell of the filter alone


def test_the_whole_knows_what_its_parts_know_together(registry: Registry) -> None:
    needs = defense(registry, WHOLE).needs
    assert (needs.clean, needs.training_set, needs.model) == (30, True, Access.WEIGHTS)
    assert not needs.truth
    assert badges(defense(registry, "filter/oracle + fine_tuning[clean=20]"))[-1] == "ORACLE: the truth"


def test_the_null_of_a_composition_is_the_clean_cells_own_repair(registry: Registry) -> None:
    entry = "dece + elibadcode[clean=20]"
    attacked, clean = graph(registry, entry), graph(registry, entry, "none")
    assert stage(attacked, "null").key == stage(clean, "repair").key
    assert stage(attacked, "null").parents["model"] != stage(attacked, "repair").parents["model"]


def test_a_composition_is_not_applicable_where_a_part_is_not(registry: Registry) -> None:
    whole = defense(registry, WHOLE)
    assert isinstance(whole, Composition)
    assert part_of(whole, "screen") is whole.parts[-1]
    info = graph(registry, "none").plan.task.info
    refusing = type("Refusing", (type(whole.parts[0]),), {"not_applicable": lambda self, task: "it refuses"})()
    assert whole.not_applicable(info) is None
    assert Composition([refusing, whole.parts[1]]).not_applicable(info) == "it refuses"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("onion[clean=20] + screen/random", "'?onion and random'? are both of 'screen'"),
        ({"parts": ["onion"]}, "at least two parts"),
        ("dece + onoin", r"unknown defense 'onoin'\. Did you mean 'onion'"),
        ({"parts": ["dece", "onion"], "parameters": {"a": 1}}, "no parameters of its own"),
        ({"partz": ["dece", "onion"], "name": "composition"}, r"unknown key\. Did you mean 'parts'"),
    ],
)
def test_what_does_not_go_together_is_said(registry: Registry, entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        graph(registry, entry)


def test_a_composition_runs_and_its_record_names_every_part(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, attacks=[ATTACK], defenses=[{"label": "all four", "parts": WHOLE.split(" + ")}])
    done = run("run", suite, "-j", "1", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record: Record
    (record,) = ResultsFolder(tmp_path / "results" / "toy").records()
    assert record.status is Status.OK
    assert record.family == "composition"
    assert {role for role in record.plugins if role.startswith("defense")} == {
        "defense.filter",
        "defense.training",
        "defense.repair",
        "defense.screen",
    }
    assert record.cost.forward_tokens > 0
    assert "training" in record.facts
    board = (tmp_path / "results" / "toy" / "board.md").read_text(encoding="utf-8")
    assert "all four" in board
