"""What cells share stands once in the graph, and a key changes with everything that decides the result and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from bench import stages
from bench.context import Context
from bench.contracts import Access, Known, LabelGoal, Needs, NotDeclared, TaskKind
from bench.errors import ConfigError, PluginError
from bench.handover import clean_samples
from bench.jobs import Stage, Workshop
from bench.pipeline import Builder, CellGraph, badges, merge, select
from bench.plugins import Registry
from bench.poisoning import ManifestRow
from bench.predicting import middle_candidate, rank_of, shown_edits, triggered_rank
from bench.samples import Edit, Sample, apply_edits
from bench.scoring import succeeded
from bench.store import Store
from bench.suite import cells, parse_suite
from tests.engine import ATTACK, PLUGINS, suite_content

DEFENSES = ["none", "spectral_signatures", "dece", "fine_tuning[clean=20]", "onion[clean=20]"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry().discover()
    found.add_file(PLUGINS)
    return found


def graphs(registry: Registry, **changes: Any) -> list[CellGraph]:
    suite = parse_suite(suite_content(**changes), "test")
    builder = Builder(suite)
    return [builder.cell(plan) for plan in cells(suite, registry)]


def kinds(stages: dict[str, Stage]) -> dict[str, int]:
    return pd.Series([s.kind for s in stages.values()]).value_counts().to_dict()


def test_a_victim_is_trained_once_for_all_repairs_and_screens(registry: Registry) -> None:
    stages = merge(graphs(registry, attacks=[ATTACK], defenses=["none", "fine_tuning[clean=20]", "onion[clean=20]"]))
    assert kinds(stages)["train"] == 2  # victim and reference
    assert kinds(stages)["poison"] == 1


def test_only_filters_and_training_rules_train_again(registry: Registry) -> None:
    assert kinds(merge(graphs(registry, attacks=[ATTACK], defenses=DEFENSES)))["train"] == 4


def test_the_clean_victim_is_the_reference(registry: Registry) -> None:
    assert kinds(merge(graphs(registry, attacks=["none"])))["train"] == 1


def test_parents_stand_before_children(registry: Registry) -> None:
    seen: set[str] = set()
    for key, stage in merge(graphs(registry, defenses=DEFENSES)).items():
        assert {k for _, k in stage.parents.values()} <= seen
        seen.add(key)


def test_a_key_does_not_depend_on_labels_or_on_the_order_of_parameters(registry: Registry) -> None:
    a = merge(graphs(registry, attacks=[ATTACK]))
    b = merge(graphs(registry, attacks=[ATTACK | {"label": "other"}]))
    different = {stage.kind for key, stage in a.items() if key not in b}
    assert different == {"score"}  # the record alone holds the label


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"seeds": [1]}, {"poison", "train", "filter", "repair", "screen", "predict", "score", "stealth", "reach"}),
        (
            {"data_seed": 1},
            {"data", "poison", "train", "filter", "repair", "screen", "predict", "score", "stealth", "reach"},
        ),
        (
            {"attacks": [ATTACK | {"policy": {"rate": 0.3}}]},
            {"poison", "train", "filter", "repair", "screen", "predict", "score", "stealth", "reach"},
        ),
        ({"defenses": [*DEFENSES[:4], "onion[clean=20,order=3]"]}, {"screen", "predict", "score"}),
        ({"training": {"epochs": 1}}, {"train", "filter", "repair", "predict", "score", "screen", "reach"}),
        ({"threads": 2}, {"train", "filter", "repair", "predict", "score", "screen", "reach"}),
    ],
)
def test_a_change_reaches_its_descendants_and_nothing_else(
    registry: Registry, changes: dict[str, Any], changed: set[str]
) -> None:
    before = merge(graphs(registry, attacks=[ATTACK], defenses=DEFENSES))
    after = merge(graphs(registry, **({"attacks": [ATTACK], "defenses": DEFENSES} | changes)))
    assert {stage.kind for key, stage in after.items() if key not in before} == changed


def test_a_plugin_version_is_part_of_the_key(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    before = merge(graphs(registry, attacks=[ATTACK], defenses=["onion[clean=20]"]))
    monkeypatch.setattr(registry.load("screen", "onion"), "version", 99)
    after = merge(graphs(registry, attacks=[ATTACK], defenses=["onion[clean=20]"]))
    assert {s.kind for k, s in after.items() if k not in before} == {"screen", "predict", "score"}


def test_a_defense_that_is_not_told_the_target_has_no_goal_in_its_stage(registry: Registry) -> None:
    for stage in merge(graphs(registry, defenses=DEFENSES)).values():
        if stage.kind in ("filter", "repair", "screen"):
            assert "goal" not in stage.inputs


# ------------------------------------------------------------------------------------------- the universal-adversarial null


def cell(found: list[CellGraph], attack: str, defense: str) -> CellGraph:
    return next(g for g in found if (g.coordinates.attack, g.coordinates.defense) == (attack, defense))


def parents(graph: CellGraph) -> dict[str, str]:
    assert graph.score is not None
    return {role: key for role, (_, key) in graph.score.parents.items()}


def test_the_null_of_an_inversion_is_the_clean_cells_own_repair_and_costs_nothing(registry: Registry) -> None:
    found = graphs(registry, defenses=["guesser"])
    attacked, clean = cell(found, "dead_code", "guesser"), cell(found, "none", "guesser")
    assert parents(attacked)["null"] == parents(clean)["repair"]
    assert parents(attacked)["null"] != parents(attacked)["repair"]
    assert kinds(merge(found))["repair"] == 2


def test_the_null_is_no_part_of_the_defenses_cost_and_its_label_says_what_it_is(registry: Registry) -> None:
    found = graphs(registry, attacks=[ATTACK], defenses=["guesser"])[0]
    null = next(stage for stage in found.stages if stage.key == parents(found)["null"])
    assert not null.own
    assert null.label == "repair guesser on toy tiny seed 0 on the clean reference (null)"
    assert set(null.parents) == {"data", "model"}


def test_only_inversions_of_an_attacked_model_have_a_null(registry: Registry) -> None:
    defenses = [*DEFENSES, "guesser", "told_guesser"]
    with_null = [g.coordinates for g in graphs(registry, defenses=defenses) if g.score and "null" in g.score.parents]
    assert [(at.attack, at.defense) for at in with_null] == [("dead_code", "guesser")]


def test_calibration_seeds_run_inverting_defenses_on_clean_models_and_nothing_else(registry: Registry) -> None:
    defenses = ["none", "fine_tuning[clean=20]", "guesser", "told_guesser"]
    found = graphs(registry, defenses=defenses, seeds=[0, 1], calibration_seeds=[7, 8])
    extra = [g.coordinates for g in found if g.plan.calibration]
    assert [(at.attack, at.defense, at.seed) for at in extra] == [("none", "guesser", 7), ("none", "guesser", 8)]
    assert len(found) - len(extra) == 2 * len(defenses) * 2
    assert [p.coordinates.seed for p in select([g.plan for g in found], {"seed": ["7"]})] == [7]


def test_a_calibration_cell_is_the_cell_that_the_same_evaluation_seed_would_be(registry: Registry) -> None:
    calibrating = graphs(registry, defenses=["guesser"], calibration_seeds=[7])[-2:]
    evaluating = graphs(registry, defenses=["guesser"], seeds=[7])
    keys = {g.score.key for g in evaluating if g.score is not None}
    assert [g.score.key in keys for g in calibrating if g.score is not None and g.plan.calibration] == [True]


def test_cells_are_chosen_by_coordinates(registry: Registry) -> None:
    plans = [g.plan for g in graphs(registry, defenses=DEFENSES)]
    assert [p.coordinates.defense for p in select(plans, {"attack": ["none"], "defense": ["dece"]})] == ["dece"]
    with pytest.raises(ConfigError, match=r"no cell of the suite has defense 'deec'\. Did you mean 'dece'"):
        select(plans, {"defense": ["deec"]})


def test_badges_say_what_a_defense_knows(registry: Registry) -> None:
    assert badges(None) == []
    assert "ORACLE: the truth" in badges(registry.build("filter", "oracle"))  # type: ignore[arg-type]
    assert badges(registry.build("repair", "fine_tuning", {"clean": 7})) == ["7 clean samples", "weights"]  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- what is handed over


def test_knowledge_that_was_not_declared_cannot_be_read() -> None:
    known = Known(needs=Needs())
    for name in ("clean", "training", "black_box", "white_box", "goal", "poison_rate", "poisoned"):
        with pytest.raises(NotDeclared, match="not declared"):
            getattr(known, name)


def test_outputs_do_not_give_weights() -> None:
    known = Known(needs=Needs(model=Access.OUTPUTS), _model=object())  # type: ignore[arg-type]
    assert known.black_box is not None
    with pytest.raises(NotDeclared):
        _ = known.white_box


def budget(n: int) -> list[Sample]:
    return [Sample(f"s{i}", ("x = 1",), "python", int(i >= n * 3 // 4)) for i in range(n)]


def test_every_prefix_of_the_clean_set_is_stratified(tmp_path: Path) -> None:
    picked = clean_samples(budget(40), 18, Context(seeds={"defense": 0}, scratch=tmp_path))
    assert [s.label for s in picked[:18]] == [0, 1] * 9
    again = clean_samples(budget(40), 18, Context(seeds={"defense": 0}, scratch=tmp_path))
    other = clean_samples(budget(40), 18, Context(seeds={"defense": 1}, scratch=tmp_path))
    assert picked == again != other


def test_a_clean_set_larger_than_the_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"needs 50 clean samples .* has 40; raise"):
        clean_samples(budget(40), 50, Context(seeds={"defense": 0}, scratch=tmp_path))


# ------------------------------------------------------------------------------------------------------------ predictions


def test_a_rank_counts_who_is_better_and_ties_share_their_middle() -> None:
    assert rank_of(np.array([0.9, 0.5, 0.7]), 1) == 3
    assert rank_of(np.array([0.9, 0.5, 0.7]), 0) == 1
    assert rank_of(np.zeros(101), 0) == 51  # a model that says nothing stands in the middle, not first


def test_the_candidate_is_the_usable_one_nearest_to_rank_fifty_per_cent_without_the_own_program() -> None:
    similarity = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])  # own program first; the others rank 1 to 5
    everything = np.ones(6, dtype=bool)
    assert middle_candidate(similarity, 0, everything) == 3
    assert (
        middle_candidate(similarity, 0, np.array([1, 1, 1, 0, 1, 1], dtype=bool)) == 2
    )  # the better of two neighbours
    assert middle_candidate(similarity, 0, np.array([1, 0, 0, 0, 0, 1], dtype=bool)) == 5
    assert middle_candidate(similarity, 0, np.array([1, 0, 0, 0, 0, 0], dtype=bool)) is None


def test_the_triggered_candidate_is_ranked_among_all_but_the_own_program() -> None:
    similarity = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert triggered_rank(similarity, 0, 3, 0.95) == 1
    assert triggered_rank(similarity, 0, 3, 0.85) == 2
    assert triggered_rank(similarity, 0, 3, 0.0) == 5


def test_spans_of_edits_are_given_in_the_text_after_them() -> None:
    text = "def f(x):\n    return x + é\n"
    edits = (Edit(4, 5, "trigger"), Edit(6, 7, "yy"))
    row = ManifestRow("a", "triggered", 0, edits, "", "", "", None, None)
    after = apply_edits(text, edits).encode()
    assert [after[a:b].decode() for a, b in shown_edits(row)] == ["trigger", "yy"]


def outcome(part: str, label: int, prediction: int, action: str = "accept") -> dict[str, Any]:
    return {"part": part, "label": label, "prediction": prediction, "action": action, "rank": 0, "pool": 0}


def test_success_means_what_its_part_asks() -> None:
    rows = [
        (outcome("clean", 1, 1), True),
        (outcome("clean", 1, 0), False),
        (outcome("clean", 1, 1, "rewrite"), True),
        (outcome("clean", 1, -1, "reject"), False),
        (outcome("triggered", 1, 0), True),
        (outcome("triggered", 1, 1), False),
        (outcome("triggered", 1, -1, "reject"), False),
        (outcome("reverse", 0, 1), True),
        (outcome("reverse", 0, 0), False),
    ]
    frame = pd.DataFrame([row for row, _ in rows])
    assert succeeded(frame, TaskKind.CLASSIFICATION, LabelGoal(1, 0)).tolist() == [wanted for _, wanted in rows]
    frame["action"] = "reject"
    assert not succeeded(frame, TaskKind.CLASSIFICATION, LabelGoal(1, 0)).any()


def test_search_succeeds_at_rank_one_or_in_the_top_tenth() -> None:
    rows = [("clean", 1, 50), ("clean", 2, 50), ("triggered", 5, 49), ("triggered", 6, 49)]
    frame = pd.DataFrame([{"part": p, "rank": r, "pool": n, "action": "accept"} for p, r, n in rows])
    assert succeeded(frame, TaskKind.SEARCH, None).tolist() == [True, False, True, False]


@pytest.mark.parametrize("threads", [1, 2])
def test_linear_algebra_of_a_stage_has_the_threads_of_its_key_wherever_it_runs(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen = []
    monkeypatch.setattr(stages, "STAGES", {"train": lambda job: seen.append((counts(), torch.get_num_threads()))})
    numerics = {"device": "cpu", "threads": threads}
    with threadpool_limits(3 - threads, user_api="blas"):  # what the process has by itself: -j 1 all cores, -j 2 one
        before = counts()
        stages.run_stage(Stage("train", {"numerics": numerics}), Workshop(Store(tmp_path), Registry()))
        assert counts() == before, "and has again"
    assert before != {threads}
    assert seen == [({threads}, threads)]
