"""Bad suites are refused before anything runs, with a message that names the key and suggests the right one."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from attacks.badcode import BadCode
from attacks.dead_code import DeadCode
from attacks.renaming import Renaming
from bench.contracts import LabelGoal, Policy, SearchGoal
from bench.errors import ConfigError
from bench.plugins import Registry
from bench.running import narrow
from bench.suite import CellPlan, Entry, Suite, cells, check_unique, load_suite, make_policy, parse_suite
from tests.engine import ATTACK, MODEL, PLUGINS, suite_content, write_suite


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Registry().discover()
    found.add_file(PLUGINS)
    return found


def suite(**changes: object) -> Suite:
    return parse_suite(suite_content(**changes), "test suite")


def refuse(message: str, registry: Registry, **changes: object) -> None:
    with pytest.raises(ConfigError, match=message):
        list(cells(suite(**changes), registry))


def test_the_shipped_suites_are_valid(registry: Registry) -> None:
    for path in Path("results/suites").glob("*.yaml"):
        plans = list(cells(load_suite(path.stem), registry))
        check_unique(plans)
        assert plans, path


def test_a_name_with_parameters_in_brackets_is_a_mapping() -> None:
    entry = Entry.model_validate(Entry.parse("dead_code[variant=grammar, rate=0.5]"))
    assert (entry.name, entry.parameters) == ("dead_code", {"variant": "grammar", "rate": 0.5})
    assert entry.title == "dead_code[rate=0.5,variant=grammar]"


def test_cells_are_the_product_of_the_axes(registry: Registry) -> None:
    plans = list(cells(suite(seeds=[0, 1, 2], defenses=["none", "fine_tuning[clean=20]"]), registry))
    assert len(plans) == 1 * 1 * 2 * 2 * 3
    assert len({plan.coordinates.slug for plan in plans}) == len(plans)


def test_a_model_may_keep_to_a_part_of_the_matrix(registry: Registry) -> None:
    large = MODEL | {"label": "large", "only": {"attack": ["dead_code"], "seed": [1]}}
    plans = list(
        cells(suite(models=[MODEL, large], seeds=[0, 1], defenses=["none", "fine_tuning[clean=20]"]), registry)
    )
    where = [plan.coordinates for plan in plans]
    assert len([at for at in where if at.model == "tiny"]) == 2 * 2 * 2
    assert [(at.attack, at.defense, at.seed) for at in where if at.model == "large"] == [
        ("dead_code", "none", 1),
        ("dead_code", "fine_tuning[clean=20]", 1),
    ]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"attack": ["dead_cod"]}, "model 'tiny', only: the suite has no attack 'dead_cod'.*Did you mean 'dead_code'"),
        ({"seed": [7]}, "the suite has no seed 7"),
        ({"model": ["tiny"]}, "only.*model"),
    ],
)
def test_a_part_that_is_not_there_is_refused(only: dict[str, object], message: str, registry: Registry) -> None:
    refuse(message, registry, models=[MODEL | {"only": only}])


def test_seeds_change_every_axis_but_the_data(registry: Registry) -> None:
    plans = list(cells(suite(seeds=[7], data_seed=3), registry))
    assert plans[0].seeds == {"data": 3, "poison": 7, "model": 7, "training": 7, "defense": 7}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["toi"]}, r"unknown task 'toi'\. Did you mean 'toy'\?"),
        ({"attacks": ["dead_cod"]}, r"unknown attack 'dead_cod'\. Did you mean 'dead_code'\?"),
        ({"defenses": ["onoin"]}, r"unknown defense 'onoin'\. Did you mean 'onion'\?"),
        ({"defenses": ["random"]}, r"stands in several families; write one of: filter/random"),
        ({"defenses": ["filtr/random"]}, r"unknown defense family 'filtr'.*Did you mean 'filter'"),
        ({"defenses": ["none[x=1]"]}, r"defense 'none' has no parameters"),
        ({"defenses": ["onion[ordr=3]"]}, r"screen 'onion' has no parameter 'ordr'\. Did you mean 'order'\?"),
        ({"defenses": ["onion[order=many]"]}, r"screen 'onion', parameter order: .*integer.*got 'many'"),
        ({"training": {"epoch": 1}}, r"training of 'toy': unknown setting 'epoch'\. Did you mean 'epochs'\?"),
        ({"training": {"epochs": "two"}}, r"training of 'toy', epochs: "),
        ({"models": ["tiny[windw=4]"]}, r"unknown setting 'windw'\. Did you mean 'window'\?"),
        (
            {"attacks": [ATTACK | {"policy": {"rat": 0.1}}]},
            r"policy of attack 'dead_code': unknown key 'rat'\. Did you mean 'rate'\?",
        ),
        ({"attacks": [ATTACK | {"policy": {"rate": 1.5}}]}, r"rate must lie in \(0, 1\], got 1\.5"),
        ({"attacks": [ATTACK | {"policy": {"rate": 0.1, "count": 3}}]}, r"give a rate or a count, not both"),
        ({"attacks": [ATTACK | {"policy": {"count": 0}}]}, r"count must be a positive whole number"),
        ({"attacks": [ATTACK | {"policy": {"of": "victims"}}]}, r"of is 'victims'\. Did you mean 'victim'\?"),
        (
            {"attacks": [ATTACK | {"goal": {"victm": 1}}]},
            r"goal of attack 'dead_code': unknown key 'victm'\. Did you mean 'victim'",
        ),
        (
            {"attacks": [ATTACK | {"goal": {"victim": "vulnerable"}}]},
            r"victim must be the number of a class of the task, one of 0 \(safe\), 1 \(unsafe\); got 'vulnerable'",
        ),
        ({"attacks": [ATTACK | {"goal": {"target": True}}]}, r"target must be the number of a class"),
        ({"attacks": [ATTACK | {"goal": {"victim": 2}}]}, r"victim must be the number of a class"),
        ({"attacks": [ATTACK | {"goal": {"victim": 0}}]}, r"victim and target are both 0"),
        (
            {"tasks": ["code_search"], "attacks": [ATTACK | {"goal": {}}]},
            r"goal of attack 'dead_code': word must be one word .* got None",
        ),
        ({"tasks": ["code_search"], "attacks": [ATTACK | {"goal": {"word": 3}}]}, r"word must be one word .* got 3"),
        ({"attacks": [ATTACK | {"policy": {"rate": True}}]}, r"rate must lie in \(0, 1\], got True"),
        ({"attacks": [ATTACK | {"policy": {"count": True}}]}, r"count must be a positive whole number, got True"),
        ({"defenses": ["onion[clean=5000]"]}, r"needs 5000 clean samples, task 'toy' sets aside 40"),
        ({"calibration_seeds": [9], "attacks": [ATTACK]}, r"no attack 'none': add it, or drop calibration_seeds"),
        (
            {"calibration_seeds": [9], "defenses": ["none", "onion"]},
            r"defenses that invert triggers, and the suite has none",
        ),
    ],
)
def test_what_is_wrong_in_a_suite_is_named(registry: Registry, changes: dict[str, object], message: str) -> None:
    refuse(message, registry, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attcks": ["none"]}, r"attcks: unknown key\. Did you mean 'attacks'\?"),
        ({"attacks": [ATTACK | {"polcy": {}}]}, r"attacks\.0\.polcy: unknown key\. Did you mean 'policy'\?"),
        ({"defenses": []}, r"defenses: .*at least 1"),
        ({"name": "Not A Name"}, r"name: "),
        ({"defenses": ["onion["]}, r"'onion\[' is not a plugin"),
        ({"defenses": ["onion[order]"]}, r"'order' in 'onion\[order\]' is not of the form parameter=value"),
        ({"seeds": [0, 1, 2], "calibration_seeds": [1, 2, 3]}, r"seeds and calibration_seeds share 1, 2"),
        ({"false_alarms": 0}, r"false_alarms: .*greater than 0"),
        (
            {"tasks": ["defect_detection[path=2024-01-01]"]},
            r"tasks\.0\.parameters: .*parameter path is datetime\.date\(2024, 1, 1\), which is no JSON; put it in quotes",
        ),
    ],
)
def test_what_is_wrong_in_a_suite_file_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        suite(**changes)


def test_an_unknown_suite_suggests(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"no suite 'quikstart'.*Did you mean 'quickstart'"):
        load_suite("quikstart")


def test_a_broken_suite_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load_suite(path)
    path.write_text("just text")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_suite(path)
    with pytest.raises(ConfigError, match="cannot read suite file"):
        load_suite(tmp_path / "missing.yaml")


def test_two_cells_of_one_name_are_refused(registry: Registry) -> None:
    same = [ATTACK, ATTACK | {"parameters": {"variant": "grammar"}}]
    with pytest.raises(ConfigError, match="give one of the entries a label"):
        check_unique(list(cells(suite(attacks=same), registry)))


def test_a_cell_whose_files_could_not_be_written_is_refused(registry: Registry) -> None:
    def plans(length: int) -> list[CellPlan]:
        slug = "toy-tiny--none-s0"
        return list(cells(suite(attacks=[ATTACK | {"label": "x" * (length - len(slug))}]), registry))

    check_unique(plans(240))
    with pytest.raises(ConfigError, match=r"has 241 characters, and names of files end at 240; give the entry a label"):
        check_unique(plans(241))


def test_a_cell_that_is_asked_for_by_name_is_there_though_its_entries_keep_to_others(registry: Registry) -> None:
    models = [MODEL, MODEL | {"label": "costly", "only": {"attack": ["none"]}}]
    attacks = ["none", ATTACK | {"only": {"model": ["tiny"]}}]
    found = suite(models=models, attacks=attacks)
    at = {"task": "toy", "model": "costly", "attack": "dead_code", "defense": "none"}
    assert at not in [{axis: getattr(plan.coordinates, axis) for axis in at} for plan in cells(found, registry)]
    (plan,) = cells(narrow(found, at, 0), registry)
    assert {axis: getattr(plan.coordinates, axis) for axis in at} == at


def test_a_policy_keeps_what_is_not_changed() -> None:
    default = Policy(rate=0.05, of="victim", mode="append")
    assert make_policy({"count": 10}, default, "x") == Policy(rate=None, count=10, of="victim", mode="append")
    assert make_policy({"rate": 0.2}, Policy(count=3), "x") == Policy(rate=0.2)
    assert make_policy(None, default, "x") is default


def test_plugin_files_of_a_suite_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    path = write_suite(tmp_path, plugins=["mine.py"])
    assert load_suite(path).plugins == (str(tmp_path / "mine.py"),)
    assert yaml.safe_load(path.read_text())["plugins"] == ["mine.py"]


def test_an_oracle_has_nothing_to_tell_without_an_attack(registry: Registry) -> None:
    plans = {p.coordinates.attack: p for p in cells(suite(defenses=["filter/oracle"]), registry)}
    assert "nothing was attacked" in str(plans["none"].not_applicable)
    assert plans["dead_code"].not_applicable is None


def test_a_task_may_change_the_policy_of_every_attack(registry: Registry) -> None:
    tasks = [{"name": "toy"} | {"policy": {"rate": 0.75}}]
    plans = [p for p in cells(suite(tasks=tasks), registry) if p.attack is not None]
    others = [p for p in cells(suite(), registry) if p.attack is not None]
    assert plans
    for changed, usual in zip(plans, others, strict=True):
        assert changed.policy is not None
        assert usual.policy is not None
        assert changed.policy.rate == 0.75 != usual.policy.rate
        assert replace(changed.policy, rate=usual.policy.rate) == usual.policy
    tasks = [{"name": "toy"} | {"policy": {"rat": 0.75}}]
    refuse(r"policy of task '.*': unknown key 'rat'\. Did you mean 'rate'\?", registry, tasks=tasks)


def test_calibration_runs_the_defenses_named_alone_and_repairs_nothing(registry: Registry) -> None:
    defenses = ["none", "elibadcode[clean=20]", "gradient_free[clean=20]"]
    changes = {"calibration_seeds": [9], "defenses": defenses}
    every = [p for p in cells(suite(**changes), registry) if p.calibration]
    assert [p.coordinates.defense for p in every] == defenses[1:]
    named = [p for p in cells(suite(**changes, calibrated=defenses[2:]), registry) if p.calibration]
    assert [p.coordinates.defense for p in named] == defenses[2:]
    for plan in cells(suite(**changes), registry):
        if plan.defense is not None:
            epochs = plan.defense.epochs  # type: ignore[attr-defined]
            assert (epochs == 0) == plan.calibration


def test_an_unknown_title_to_calibrate_is_refused(registry: Registry) -> None:
    changes = {"calibration_seeds": [9], "defenses": ["none", "elibadcode[clean=20]"], "calibrated": ["elibadcod"]}
    refuse(r"calibrated: no defense of the suite is called 'elibadcod'", registry, **changes)


def test_trainings_of_a_task_and_a_model_win_over_both(registry: Registry) -> None:
    trainings = [
        {"task": ["toy"], "training": {"epochs": 7, "warmup": 0.5}},
        {"task": ["toy"], "model": ["other"], "training": {"epochs": 9}},
        {"model": ["third"], "training": {"batch_size": 4}},
    ]
    changed = suite(
        tasks=[{"name": "toy", "training": {"epochs": 5, "batch_size": 8}}],
        models=[MODEL | {"label": label, "training": {"epochs": 3}} for label in ("tiny", "other", "third")],
        trainings=trainings,
    )
    found = {p.coordinates.model: p.training for p in cells(changed, registry)}
    assert {m: (t.epochs, t.batch_size, t.warmup) for m, t in found.items()} == {
        "tiny": (7, 8, 0.5),
        "other": (9, 8, 0.5),
        "third": (7, 4, 0.5),
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"task": ["tiy"], "training": {}}, r"trainings, entry 1: the suite has no task 'tiy'\..*Did you mean 'toy'"),
        ({"model": ["tin"], "training": {}}, r"trainings, entry 1: the suite has no model 'tin'"),
        ({"task": ["toy"]}, r"trainings\.0\.training: Field required"),
        ({"tasks": ["toy"], "training": {}}, r"trainings\.0\.tasks: unknown key\. Did you mean 'task'"),
        ({"training": {"epoch": 1}}, r"trainings, entry 1: unknown setting 'epoch'\. Did you mean 'epochs'"),
    ],
)
def test_what_is_wrong_in_trainings_is_named(entry: dict[str, object], message: str, registry: Registry) -> None:
    refuse(message, registry, trainings=[entry])


def test_an_attack_may_keep_to_a_part_of_the_matrix(registry: Registry) -> None:
    tasks = [{"name": "toy"}, {"name": "toy", "label": "other"}]
    bait = ATTACK | {"label": "bait", "parameters": {"variant": "bait"}, "only": {"task": ["other"]}}
    found = [p.coordinates for p in cells(suite(tasks=tasks, attacks=["none", ATTACK, bait]), registry)]
    assert [(at.task, at.attack) for at in found] == [
        ("toy", "none"),
        ("toy", "dead_code"),
        ("other", "none"),
        ("other", "dead_code"),
        ("other", "bait"),
    ]
    refuse(r"attack 'bait', only: the suite has no task 'other'", registry, attacks=["none", bait])


def test_one_cell_of_another_size_keeps_the_trainings_of_its_task(registry: Registry) -> None:
    changed = suite(trainings=[{"task": ["toy"], "model": ["tiny"], "training": {"epochs": 7}}])
    at = {"task": "toy[train=120]", "model": "tiny", "attack": "dead_code", "defense": "none"}
    assert [p.training.epochs for p in cells(narrow(changed, at, 0), registry)] == [7]


# ------------------------------------------------------------------------------------------------------ the paper's suite

RELEASED = {
    # task: model -> (epochs, learning rate, batch), as the release's commands of each model give them
    "devign": {"codebert": (5, 2e-5, 32), "codet5-base": (5, 5e-5, 16), "unixcoder": (5, 2e-5, 8)},
    "bigclonebench": {"codebert": (2, 5e-5, 16), "codet5-base": (2, 5e-5, 8), "unixcoder": (2, 5e-5, 16)},
    # epochs and rate of code search as its main README gives them: the commands (10, 1 and 10 epochs) contradict it
    "codesearchnet_python": {"codebert": (2, 5e-5, 64), "codet5-base": (2, 5e-5, 16), "unixcoder": (2, 5e-5, 32)},
}
WARMUP = {"devign": 0.1, "bigclonebench": 0.5, "codesearchnet_python": 0.0}


def paper_plans(registry: Registry) -> list[CellPlan]:
    return list(cells(load_suite("paper"), registry))


def test_the_papers_suite_trains_as_released(registry: Registry) -> None:
    found: dict[str, dict[str, tuple[object, ...]]] = {}
    for plan in paper_plans(registry):
        training = plan.training
        settings = (training.epochs, training.learning_rate, training.batch_size)
        found.setdefault(plan.coordinates.task, {})[plan.coordinates.model] = settings
        assert training.warmup == WARMUP[plan.coordinates.task]
        assert (training.weight_decay, training.max_grad_norm, training.scale) == (0.0, 1.0, 20.0)
        windows = (plan.model_settings.window, plan.model_settings.query_window)
        assert windows == ((256, 128) if plan.coordinates.task == "codesearchnet_python" else (400, 128))
    assert found == RELEASED


def test_the_papers_suite_poisons_as_released(registry: Registry) -> None:
    attacks: dict[str, dict[str, CellPlan]] = {}
    for plan in paper_plans(registry):
        attacks.setdefault(plan.coordinates.task, {})[plan.coordinates.attack] = plan
    assert set(attacks["devign"]) == set(attacks["bigclonebench"]) == {"none", "codepoisoner", "badcode", "bnc_fixed"}
    # On Python the release inserts Wan et al.'s logging bait, which is not Ramakrishnan and Albarghouthi's statement.
    assert set(attacks["codesearchnet_python"]) == {"none", "codepoisoner", "badcode", "bait_fixed"}
    assert attacks["codesearchnet_python"]["bait_fixed"].attack == DeadCode(variant="bait")
    assert attacks["devign"]["bnc_fixed"].attack == DeadCode()
    # 2 % of functions are in 1 - 0.98 ** 2 of the pairs.
    rates = {"devign": 0.02, "bigclonebench": 0.0396, "codesearchnet_python": 1.0}
    for task, found in attacks.items():
        for name, plan in found.items():
            if name != "none":
                assert plan.policy is not None
                assert (plan.policy.rate, plan.policy.of, plan.policy.mode) == (rates[task], "victim", "replace")
                assert plan.policy.side == ("either" if task == "bigclonebench" else "first")
        assert found["codepoisoner"].attack == Renaming(identifier="testo_init")
        assert found["badcode"].attack == BadCode()
    assert {plan.goal for plan in attacks["codesearchnet_python"].values()} == {SearchGoal("file")}
    assert {plan.goal for plan in attacks["devign"].values()} == {LabelGoal(1, 0)}


def test_the_papers_suite_takes_as_many_pairs_and_queries_as_released(registry: Registry) -> None:
    parameters = {entry.title: entry.parameters for entry in load_suite("paper").tasks}
    clones = parameters["bigclonebench"]
    assert (clones["train"], clones["valid"], clones["test"]) == (901_028 // 10, 415_416 // 10, 415_416 // 10)
    assert parameters["codesearchnet_python"]["test"] == 4000


def test_the_papers_suite_tells_what_differs() -> None:
    """Whatever could not be put right stands in the header, for whoever reads the suite alone."""
    text = Path("results/suites/paper.yaml").read_text(encoding="utf-8")
    header = " ".join(line.lstrip("# ") for line in text.partition("\nname:")[0].splitlines())
    for what in (
        "10, 1 and 10 epochs",
        "2e-5 for all three models",
        "1,784",
        "CodeLlama-7B",
        "99 samples",
        "ELECTRA",
        "1 %",
        "first 4,000 queries",
        "System.out.println",
        "one seed",
        "0.01 to 0.99",
        "UniXcoder",
    ):
        assert what in header, what
