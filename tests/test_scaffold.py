"""Rules of the texts of new plugins."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench.conformance import check_class
from bench.conformance import subjects as conformance_subjects
from bench.conformance.checks import Outcome
from bench.contracts import FAMILIES, Defense, TaskKind
from bench.errors import ConfigError
from bench.plugins import Registry, parameters_of
from bench.scaffold import family_of, plugin_text, write_plugin


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_plugin_passes_the_conformance_suite(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance_subjects, "kinds_of", lambda cls: (TaskKind.CLASSIFICATION,))  # for the test's time
    registry = Registry()
    (found,) = registry.add_file(write_plugin(family, "brand_new", tmp_path))
    assert (found.family, found.name) == (family, "brand_new")
    results = check_class(registry.load(family, "brand_new"))
    assert [r for r in results if r.outcome is Outcome.FAILED] == []
    assert sum(r.outcome is Outcome.PASSED for r in results) >= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_of_the_template_s_own_name_is_left(family: str) -> None:
    text = plugin_text(family, "brand_new")
    assert 'name = "brand_new"' in text
    assert text.startswith('"""Brand new: ')
    assert "class BrandNew(" in text
    assert f"my_{family}" not in text.lower()
    assert f"my {family}" not in text.lower()
    assert f"my{family}" not in text.lower()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_function_and_parameter_is_documented(family: str, tmp_path: Path) -> None:
    path, registry = write_plugin(family, "brand_new", tmp_path), Registry()
    tree = ast.parse(path.read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    missing = [getattr(n, "name", "module") for n in documented if not ast.get_docstring(n)]
    assert missing in ([], ["loss"])  # the training template's loss is an inner function of one line
    registry.add_file(path)
    described = (registry.load(family, "brand_new").__doc__ or "").partition("Attributes:")[2]
    parameters = parameters_of(registry.build(family, "brand_new"))
    assert parameters
    assert [name for name in parameters if f"{name}:" not in described] == []


@pytest.mark.parametrize(
    ("kind", "family", "made"),
    [
        ("attack", None, "attack"),
        ("task", None, "task"),
        ("defense", "filter", "filter"),
        ("defense", "screen", "screen"),
        ("screen", None, "screen"),
        ("screen", "screen", "screen"),
    ],
)
def test_a_kind_and_a_family_say_what_is_made(kind: str, family: str | None, made: str) -> None:
    assert family_of(kind, family) == made


@pytest.mark.parametrize(
    ("kind", "family", "message"),
    [
        ("defense", None, r"one of four families: add --family filter, --family training, .* or --family screen"),
        ("defense", "screens", r"no defense family 'screens'\. Did you mean 'screen'\?"),
        ("defense", "attack", r"no defense family 'attack'"),
        ("defence", None, r"no kind of plugin 'defence'\. Did you mean 'defense'\?"),
        ("attack", "screen", r"a new attack has no other family"),
    ],
)
def test_a_wrong_kind_or_family_says_what_there_is(kind: str, family: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        family_of(kind, family)


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = write_plugin("screen", "mine", tmp_path)
    path.write_text("precious")
    with pytest.raises(ConfigError, match="exists already"):
        write_plugin("screen", "mine", tmp_path)
    assert path.read_text() == "precious"


def test_an_unknown_family_suggests_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"'screens'.*Did you mean 'screen'\?"):
        plugin_text("screens", "mine")


@pytest.mark.parametrize("name", ["", "My_Name", "9lives", "a b", "../evil", "has-dash"])
def test_a_name_that_a_suite_could_not_spell_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must match"):
        plugin_text("screen", name)


@pytest.mark.parametrize(
    ("family", "name"), [("attack", "trigger"), ("screen", "verdict"), ("task", "task"), ("screen", "none")]
)
def test_a_name_whose_class_would_hide_one_of_the_contracts_is_refused(family: str, name: str) -> None:
    with pytest.raises(ConfigError, match="add a word"):
        plugin_text(family, name)


@pytest.mark.parametrize(("family", "name"), [("attack", "badcode"), ("screen", "onion"), ("screen", "dbs")])
def test_a_name_that_a_plugin_has_already_is_refused(family: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is taken"):
        write_plugin(family, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_file_and_says_what_comes_next(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.cli", "new", "defense", "mine", "--family", "repair", "--folder", "sub"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["wrote sub/mine.py", "next: edit it, then  codebackdoorbench check sub/mine.py"]
    registry = Registry()
    registry.add_file(tmp_path / "sub" / "mine.py")
    assert issubclass(registry.load("repair", "mine"), Defense)
