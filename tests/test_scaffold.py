"""Rules of the texts of new plugins."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.conformance import check_class
from bench.conformance import subjects as conformance_subjects
from bench.conformance.checks import Outcome
from bench.contracts import TaskKind
from bench.errors import ConfigError
from bench.plugins import Registry
from bench.scaffold import TEXTS, plugin_text, write_plugin


@pytest.mark.parametrize("family", sorted(TEXTS))
def test_a_new_plugin_passes_the_conformance_suite(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance_subjects, "kinds_of", lambda cls: (TaskKind.CLASSIFICATION,))  # for the test's time
    registry = Registry()
    (found,) = registry.add_file(write_plugin(family, "my_new_one", tmp_path))
    assert (found.family, found.name) == (family, "my_new_one")
    results = check_class(registry.load(family, "my_new_one"))
    assert [r for r in results if r.outcome is Outcome.FAILED] == []
    assert sum(r.outcome is Outcome.PASSED for r in results) >= 12


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
