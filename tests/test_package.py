"""A separate package that offers plugins by entry points: built, installed, listed, checked and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.engine import write_suite

THIRD_PARTY = Path(__file__).with_name("third_party")
TOY = [{"name": "toy", "label": "toy", "parameters": {"budget": 120}}]


def pip(*arguments: str | Path) -> None:
    """Run pip without network and without dependencies."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments), "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed: a folder of its own, on the path of the processes below alone."""
    folder = tmp_path_factory.mktemp("package")
    source, wheels, target = folder / "source", folder / "wheels", folder / "site"
    shutil.copytree(THIRD_PARTY / "package", source)
    package = source / "methods_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text('"""Methods of mine."""\n')
    for name in ("shout.py", "long_identifiers.py"):
        shutil.copy(THIRD_PARTY / name, package)
    pip("wheel", "--no-build-isolation", "--wheel-dir", wheels, source)
    (wheel,) = wheels.glob("*.whl")
    pip("install", "--target", target, wheel)
    return target


def command(site: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    full = [sys.executable, "-m", "bench.cli", *map(str, arguments)]
    return subprocess.run(full, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_its_plugins_are_listed_beside_the_project_s(site: Path, tmp_path: Path) -> None:
    done = command(site, tmp_path, "list")
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    listed = {(row[1].strip(), row[2].strip()): row[4].strip() for row in rows}
    assert listed["screen", "long_identifiers"].startswith("rejects programs with")
    assert ("attack", "shout") in listed
    assert ("repair", "elibadcode") in listed
    assert "long_identifiers" not in command(tmp_path / "nothing", tmp_path, "list").stdout


def test_they_run_in_a_suite_and_stand_on_its_board(site: Path, tmp_path: Path) -> None:
    attacks = ["none", {"name": "shout", "policy": {"rate": 0.2}}]
    suite = write_suite(tmp_path, tasks=TOY, attacks=attacks, defenses=["none", "long_identifiers"])
    done = command(site, tmp_path, "run", suite, "-j", "2", "--store", "store", "--results", "results")
    assert done.returncode == 0, done.stderr
    board = pd.read_csv(tmp_path / "results" / "toy" / "board.csv", keep_default_na=False)
    assert set(zip(board.attack, board.defense, strict=True)) == {
        (attack, defense) for attack in ("none", "shout") for defense in ("none", "long_identifiers")
    }
    assert set(board.cells_ok) == {1}
