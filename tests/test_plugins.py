"""Rules of the registry: how plugins are found, named, built and described."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import pickle
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch

import attacks
from bench.context import Context
from bench.contracts import FAMILIES, Attack, Goal, TaskInfo, Trigger
from bench.errors import ConfigError, PluginError
from bench.jobs import Job, Stage, Workshop
from bench.joining import joined
from bench.pipeline import Builder, _plugin_json
from bench.plugins import ENTRY_POINTS, Registry, build, names_in_source, parameters_of, source_of
from bench.running import load_registry
from bench.samples import Sample
from bench.store import Store
from bench.suite import cells, parse_suite
from tests.engine import suite_content

THIRD_PARTY = Path(__file__).parent / "third_party"

ATTACK = """
    from dataclasses import dataclass
    from typing import ClassVar
    from bench.contracts import Attack

    @dataclass(frozen=True, kw_only=True)
    class {cls}(Attack):
        name: ClassVar[str] = "{name}"
        strength: int = 1

        def prepare(self, train, goal, task, context):
            return None
"""


def attack_source(name: str, cls: str = "Toy") -> str:
    return textwrap.dedent(ATTACK.format(name=name, cls=cls))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder that the attacks package is spread over, empty at first."""
    monkeypatch.setattr(attacks, "__path__", [str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("attacks.", "codebackdoorbench_plugin_")):
            del sys.modules[name]


class Point:
    """An entry point as importlib.metadata gives it."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def entry_points(monkeypatch: pytest.MonkeyPatch, theirs: str, *points: Point) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group == theirs else ())


@dataclass(frozen=True, kw_only=True)
class Rich(Attack):
    """An attack with a parameter of every common type."""

    name: ClassVar[str] = "rich"
    rate: float = 0.5
    tokens: tuple[str, ...] = ("a", "b")
    style: Literal["fixed", "mixed"] = "fixed"
    limit: int | None = None
    flag: bool = True

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger | None:
        return None


# ---------------------------------------------------------------------------------------------------------- discovery


def test_a_plugin_is_found_without_importing_its_module(folder: Path) -> None:
    (folder / "quiet.py").write_text("raise RuntimeError('imported')\n" + attack_source("quiet"))
    assert "quiet" in Registry().discover().names("attack")
    assert "attacks.quiet" not in sys.modules


def test_a_package_is_one_plugin_folder(folder: Path) -> None:
    (folder / "whole").mkdir()
    (folder / "whole" / "__init__.py").write_text(attack_source("whole"))
    registry = Registry().discover()
    assert registry.load("attack", "whole").__module__ == "attacks.whole"


def test_files_whose_name_starts_with_an_underscore_and_other_files_are_passed_over(folder: Path) -> None:
    (folder / "_private.py").write_text(attack_source("private"))
    (folder / "notes.txt").write_text("nothing")
    assert Registry().discover().names("attack") == []


def test_a_broken_import_is_listed_with_its_reason_and_the_others_still_load(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_package_anywhere\n" + attack_source("broken"))
    (folder / "fine.py").write_text(attack_source("fine"))
    rows = {row.name: row for row in Registry().discover().listings() if row.family == "attack"}
    assert "no_such_package_anywhere" in str(rows["broken"].broken)
    assert rows["fine"].broken is None


@pytest.mark.parametrize("source", ["def (:\n", "x = '\0'\n"], ids=["syntax", "null byte"])
def test_a_file_that_does_not_parse_is_listed_under_its_own_name(folder: Path, source: str) -> None:
    (folder / "typo.py").write_text(source)
    rows = {row.name: row for row in Registry().discover().listings()}
    assert "SyntaxError" in str(rows["typo"].broken)


def test_a_module_that_exits_on_import_is_broken_like_any_other(folder: Path) -> None:
    (folder / "exits.py").write_text("import sys\nsys.exit(3)\n" + attack_source("exits"))
    rows = {row.name: row for row in Registry().discover().listings()}
    assert "SystemExit" in str(rows["exits"].broken)


def test_two_modules_with_one_name_are_an_error_that_names_both(folder: Path) -> None:
    (folder / "one.py").write_text(attack_source("same"))
    (folder / "two.py").write_text(attack_source("same"))
    with pytest.raises(ConfigError, match=r"'same'.*attacks\.one and attacks\.two"):
        Registry().discover()


def test_two_classes_of_one_module_with_one_name_are_an_error_that_names_both(folder: Path) -> None:
    (folder / "both.py").write_text(attack_source("same", "First") + attack_source("same", "Second"))
    with pytest.raises(ConfigError, match=r"both\.First and attacks\.both\.Second"):
        Registry().discover().load("attack", "same")


def test_the_same_name_may_stand_in_two_families(folder: Path) -> None:
    (folder / "fine.py").write_text(attack_source("random"))
    assert "random" in Registry().discover().names("attack")


def test_a_class_that_is_no_plugin_of_the_family_is_refused_with_its_place(folder: Path) -> None:
    (folder / "half.py").write_text("class Base: ...\nclass Half(Base):\n    name = 'half'\n")
    with pytest.raises(PluginError, match=r"attacks\.half names a plugin 'half'"):
        Registry().discover().load("attack", "half")


def test_names_in_source_reads_annotated_and_plain_names_of_derived_classes_only() -> None:
    source = "class A(X):\n    name = 'a'\nclass B(X):\n    name: str = 'b'\nclass C:\n    name = 'c'\nclass D(X):\n    other = 'd'\n"
    assert list(names_in_source(source)) == [("A", "a"), ("B", "b")]


def test_discovering_twice_changes_nothing() -> None:
    registry = Registry().discover()
    names = {family: registry.names(family) for family in FAMILIES}
    assert {family: registry.discover().names(family) for family in FAMILIES} == names


# ------------------------------------------------------------------------------------------------------- entry points


def test_every_family_has_its_entry_point_group() -> None:
    assert ENTRY_POINTS == {
        "task": "codebackdoorbench.tasks",
        "attack": "codebackdoorbench.attacks",
        "filter": "codebackdoorbench.filters",
        "training": "codebackdoorbench.trainings",
        "repair": "codebackdoorbench.repairs",
        "screen": "codebackdoorbench.screens",
    }


def test_an_installed_package_offers_plugins_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "their_package_of_attacks.py").write_text(attack_source("theirs"))
    monkeypatch.syspath_prepend(site)
    entry_points(monkeypatch, "codebackdoorbench.attacks", Point("theirs", "their_package_of_attacks:Toy"))
    registry = Registry().discover()
    assert "their_package_of_attacks" not in sys.modules
    assert registry.load("attack", "theirs").__name__ == "Toy"


def test_an_entry_point_that_does_not_import_is_listed_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points(monkeypatch, "codebackdoorbench.screens", Point("gone", "no_such_module:Gone"))
    rows = {row.name: row for row in Registry().discover().listings() if row.family == "screen"}
    assert "no_such_module" in str(rows["gone"].broken)
    assert rows["gone"].origin == "entry point no_such_module:Gone"


def test_an_entry_point_of_the_wrong_family_or_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"{__name__}:Rich"
    entry_points(monkeypatch, "codebackdoorbench.screens", Point("rich", here))
    with pytest.raises(PluginError, match="not a screen plugin"):
        Registry().discover().load("screen", "rich")
    entry_points(monkeypatch, "codebackdoorbench.attacks", Point("poor", here))
    with pytest.raises(PluginError, match="registered as 'poor' but calls itself 'rich'"):
        Registry().discover().load("attack", "poor")


# ------------------------------------------------------------------------------------------------------- file plugins


def test_a_file_outside_the_tree_is_a_plugin_like_any_other() -> None:
    registry = Registry()
    path = THIRD_PARTY / "long_identifiers.py"
    (found,) = registry.add_file(path)
    assert (found.family, found.name, found.origin) == ("screen", "long_identifiers", str(path.resolve()))
    assert registry.files() == [path.resolve()]
    plugin = registry.build("screen", "long_identifiers", {"slack": 9})
    assert pickle.loads(pickle.dumps(plugin)) == plugin


def test_a_file_given_twice_is_one_plugin() -> None:
    registry = Registry()
    first = registry.add_file(THIRD_PARTY / "shout.py")
    assert registry.add_file(THIRD_PARTY / "shout.py") == first


def test_a_file_of_the_tree_gives_the_plugins_that_are_registered_already(folder: Path) -> None:
    (folder / "inside.py").write_text(attack_source("inside"))
    registry = Registry().discover()
    (found,) = registry.add_file(folder / "inside.py")
    assert (found.name, found.origin) == ("inside", "attacks.inside")


def stages_with(file: Path) -> list[Stage]:
    """The stages of a suite with the screen of a file."""
    tasks = [{"name": "toy", "label": "toy", "parameters": {"budget": 120}}]
    suite = joined(parse_suite(suite_content(tasks=tasks, attacks=["none"]), "test"), [file])
    registry = load_registry(suite, [file])
    return [stage for plan in cells(suite, registry) for stage in Builder(suite).cell(plan).stages]


def test_an_edited_file_is_another_plugin_and_the_same_file_elsewhere_is_the_same(tmp_path: Path) -> None:
    text = (THIRD_PARTY / "long_identifiers.py").read_text()
    for name, content in {"one": text, "two": text, "edited": text + "# edited\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(content)
    one, two, edited = (stages_with(tmp_path / name / "mine.py") for name in ("one", "two", "edited"))
    assert [stage.key for stage in one] == [stage.key for stage in two]
    (before,), (after,) = ([s for s in found if s.kind == "screen"] for found in (one, edited))
    assert before.key != after.key
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert before.inputs["defense"]["source"] == digest
    of_score = [
        s.inputs["uses"]["defense"]["source"] for s in one if s.kind == "score" and "defense" in s.inputs["uses"]
    ]
    assert of_score == [digest]
    kept = {s.key for s in one} & {s.key for s in edited}
    assert {s.kind for s in one if s.key in kept} == {"data", "train", "predict", "score"}, (
        "its screen and cell alone are other"
    )


def test_plugins_of_the_tree_have_their_version_in_keys_and_no_source() -> None:
    registry = Registry().discover()
    plugin = registry.build("screen", "onion")
    assert source_of(plugin) is None
    assert _plugin_json(plugin).keys() == {"family", "name", "version", "parameters"}
    registry.add_file(Path(inspect.getfile(type(plugin))))
    assert source_of(registry.build("screen", "onion")) is None, "given as a file too"


def test_a_file_that_is_edited_during_a_run_stops_its_stages(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text((THIRD_PARTY / "long_identifiers.py").read_text())
    registry = Registry()
    registry.add_file(tmp_path / "mine.py")
    use = _plugin_json(registry.build("screen", "long_identifiers"))
    job = Job(
        Stage("screen", {"defense": use}),
        {},
        tmp_path,
        Workshop(Store(tmp_path / "store"), registry),
        torch.device("cpu"),
    )
    assert job.plugin("defense").name == "long_identifiers"
    with pytest.raises(PluginError, match=r"screen 'long_identifiers': its file was edited after this run was planned"):
        job.build({**use, "source": "0" * 64})  # what the worker imported is another edition than the planned one


def test_a_file_that_takes_a_known_name_is_an_error_that_names_both(folder: Path, tmp_path: Path) -> None:
    (folder / "inside.py").write_text(attack_source("same"))
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "mine.py").write_text(attack_source("same"))
    registry = Registry().discover()
    with pytest.raises(ConfigError, match=r"attacks\.inside and .*mine\.py"):
        registry.add_file(outside / "mine.py")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "does not exist"),
        ("x = 1\n", "holds no plugin class"),
        ("import no_such_thing\n", "does not import: ModuleNotFoundError"),
        ("raise SystemExit(1)\n", "does not import: SystemExit"),
        ("def (:\n", "does not import: SyntaxError"),
    ],
)
def test_a_file_that_is_no_plugin_says_why(tmp_path: Path, source: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(ConfigError, match=message):
        Registry().add_file(path)


# ---------------------------------------------------------------------------------------------- names and suggestions


def test_an_unknown_name_suggests_the_right_one() -> None:
    registry = Registry()
    registry.add_file(THIRD_PARTY / "long_identifiers.py")
    with pytest.raises(ConfigError, match=r"unknown screen 'long_identifier'\. Did you mean 'long_identifiers'\?"):
        registry.load("screen", "long_identifier")
    with pytest.raises(ConfigError, match=r"unknown defense 'long_identifer'\. Did you mean 'long_identifiers'\?"):
        registry.defense_family("long_identifer")


def test_an_unknown_name_far_from_all_lists_what_there_is() -> None:
    registry = Registry()
    registry.add_file(THIRD_PARTY / "shout.py")
    with pytest.raises(ConfigError, match=r"unknown attack 'zzz'\. There is: shout\."):
        registry.load("attack", "zzz")


def test_a_defense_is_found_by_its_bare_name_or_with_its_family() -> None:
    registry = Registry()
    registry.add_file(THIRD_PARTY / "long_identifiers.py")
    assert registry.defense_family("long_identifiers") == "screen"
    assert registry.defense_family("screen/long_identifiers") == "screen"
    with pytest.raises(ConfigError, match="unknown filter 'long_identifiers'"):
        registry.defense_family("filter/long_identifiers")
    with pytest.raises(ConfigError, match=r"unknown defense family 'screens'.*Did you mean 'screen'\?"):
        registry.defense_family("screens/long_identifiers")


def test_a_defense_name_of_two_families_must_state_its_family(tmp_path: Path) -> None:
    registry = Registry()
    registry.add_file(THIRD_PARTY / "long_identifiers.py")
    (tmp_path / "rule.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import dataclass
            from bench.contracts import TrainingRule

            @dataclass(frozen=True, kw_only=True)
            class Rule(TrainingRule):
                name = "long_identifiers"

                def train(self, model, known, task, context):
                    return model
            """
        )
    )
    registry.add_file(tmp_path / "rule.py")
    with pytest.raises(ConfigError, match="training/long_identifiers, screen/long_identifiers"):
        registry.defense_family("long_identifiers")


# ------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "parameters",
    [{}, {"rate": 0.25, "limit": 3}, {"tokens": ["x"], "style": "mixed", "flag": False}],
    ids=["defaults", "numbers", "list for a tuple"],
)
def test_parameters_round_trip_through_json(parameters: dict[str, object]) -> None:
    plugin = build(Rich, parameters)
    effective = json.loads(json.dumps(parameters_of(plugin)))
    assert set(effective) == {"rate", "tokens", "style", "limit", "flag"}
    assert build(Rich, effective) == plugin


def test_an_unknown_parameter_suggests_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"attack 'rich' has no parameter 'rat'\. Did you mean 'rate'\?"):
        build(Rich, {"rat": 0.1})


def test_a_wrong_value_names_plugin_parameter_and_value() -> None:
    with pytest.raises(ConfigError, match=r"attack 'rich', parameter style: .*'fixed' or 'mixed'.*'loud'"):
        build(Rich, {"style": "loud"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"attack 'rich'.*finite"):
        build(Rich, {"rate": value})


def test_a_plugin_that_is_no_frozen_dataclass_is_refused() -> None:
    class Plain(Attack):
        name = "plain"

        def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger | None:
            return None

    @dataclass(kw_only=True)
    class Loose(Plain):
        name = "loose"

    for cls in (Plain, Loose):
        with pytest.raises(PluginError, match="must be a dataclass"):
            build(cls, {})


def test_the_source_digest_changes_with_the_source(folder: Path) -> None:
    path = folder / "drifting.py"
    path.write_text(attack_source("drifting"))
    registry = Registry().discover()
    before = registry.source_digest("attack", "drifting")
    path.write_text(path.read_text() + "# a comment\n")
    assert registry.source_digest("attack", "drifting") != before


# ------------------------------------------------------------------------------------------------ the project's own


def test_every_plugin_of_the_project_imports() -> None:
    assert [row for row in Registry().discover().listings() if row.broken] == []
