"""Rules of plugin files that join a suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import ConfigError
from bench.joining import joined
from bench.plugins import Registry
from bench.scaffold import plugin_text
from bench.suite import Suite, cells, parse_suite
from tests.engine import PLUGINS, run, suite_content, write_suite

THIRD_PARTY = Path(__file__).with_name("third_party")
SCREEN, ATTACK = THIRD_PARTY / "long_identifiers.py", THIRD_PARTY / "shout.py"


TOY = [{"name": "toy", "label": "toy", "parameters": {"budget": 120}}]


def suite(**changes: object) -> Suite:
    return parse_suite(suite_content(tasks=TOY, **changes), "test suite")


def titles(found: Suite) -> dict[str, list[str]]:
    return {axis: [entry.title for entry in getattr(found, axis)] for axis in ("tasks", "attacks", "defenses")}


def test_each_plugin_of_a_file_becomes_an_entry_of_its_axis() -> None:
    found = joined(suite(), [SCREEN, ATTACK])
    assert titles(found) == {
        "tasks": ["toy"],
        "attacks": ["none", "dead_code", "shout"],
        "defenses": ["none", "long_identifiers"],
    }
    registry = Registry().discover()
    for file in (PLUGINS, SCREEN, ATTACK):
        registry.add_file(file)
    assert len(list(cells(found, registry))) == 3 * 2


def test_a_task_joins_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs_of_mine.py"
    path.write_text(plugin_text("task", "pairs_of_mine"))
    assert titles(joined(suite(), [path]))["tasks"] == ["toy", "pairs_of_mine"]


def test_without_files_the_suite_is_as_it_was() -> None:
    assert joined(suite(), []) == suite()


@pytest.mark.parametrize(
    "defenses",
    [
        ["none", "long_identifiers[slack=9]"],
        ["none", "screen/long_identifiers"],
        ["none", "fine_tuning[clean=20] + long_identifiers"],
    ],
)
def test_a_plugin_that_the_suite_names_already_is_not_added_again(defenses: list[str]) -> None:
    assert (
        titles(joined(suite(defenses=defenses), [SCREEN]))["defenses"] == titles(suite(defenses=defenses))["defenses"]
    )


def test_a_file_given_twice_joins_once() -> None:
    assert titles(joined(suite(), [SCREEN, SCREEN]))["defenses"] == ["none", "long_identifiers"]


def test_a_defense_that_shares_its_name_with_another_family_is_named_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(plugin_text("filter", "onion"))  # a screen is called so
    found = joined(suite(defenses=["none", "screen/onion"]), [path])
    assert titles(found)["defenses"] == ["none", "screen/onion", "filter/onion"]


def test_a_file_that_holds_no_plugin_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"empty\.py holds no plugin class"):
        joined(suite(), [path])


def test_run_with_a_file_puts_its_plugin_on_the_board(tmp_path: Path) -> None:
    file = write_suite(tmp_path, tasks=TOY)
    done = run("run", file, "-j", "1", "--with", SCREEN, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 cells: 4 ok" in done.stderr
    board = (tmp_path / "results" / "toy" / "board.md").read_text()
    assert board.count("| long_identifiers (v1)") >= 2
    assert "long_identifiers" in done.stdout


def test_plan_with_a_file_counts_its_cells(tmp_path: Path) -> None:
    done = run("plan", write_suite(tmp_path, tasks=TOY), "--with", SCREEN, "--with", ATTACK, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 cells" in done.stdout
