"""Bad suites are refused before anything runs, with a message that names the key and suggests the right one."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.contracts import Policy
from bench.errors import ConfigError
from bench.plugins import Registry
from bench.suite import Entry, Suite, cells, check_unique, load_suite, make_policy, parse_suite
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
