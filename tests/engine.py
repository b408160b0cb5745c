"""What the tests of the engine share: a small suite over the toy task, written to a folder of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PLUGINS = Path(__file__).with_name("toy_plugins.py")
MODEL = {
    "name": "tiny",
    "label": "tiny",
    "parameters": {"layers": 1, "hidden": 32, "heads": 2, "vocabulary": 300, "window": 160},
}
ATTACK = {"name": "dead_code", "label": "dead_code", "policy": {"rate": 0.2}}


def suite_content(**changes: Any) -> dict[str, Any]:
    """A suite of the toy task: one attack and the null, no defense."""
    content: dict[str, Any] = {
        "name": "toy",
        "tasks": ["toy"],
        "models": [MODEL],
        "attacks": ["none", ATTACK],
        "defenses": ["none"],
        "training": {"epochs": 2, "learning_rate": 0.005, "batch_size": 16},
        "device": "cpu",
        "plugins": [str(PLUGINS)],
    }
    return content | changes


def write_suite(folder: Path, **changes: Any) -> Path:
    """Write :func:`suite_content` to a file."""
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(suite_content(**changes)), encoding="utf-8")
    return path


def command(*arguments: str | Path, folder: Path) -> list[str]:
    """The command line, with store and results in the test's folder."""
    places: list[str] = []
    if arguments[0] not in ("board", "check") and "--store" not in arguments:
        places += ["--store", str(folder / "store")]
    if arguments[0] in ("run", "board", "cell"):
        places += ["--results", str(folder / "results")]
    return [sys.executable, "-m", "bench.cli", *map(str, arguments), *places]


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line and wait for it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        command(*arguments, folder=folder), capture_output=True, text=True, env=environment, check=False
    )
