"""Nox sessions: thin doors to the ``codebackdoorbench`` command. All of them use the environment that nox itself runs in.

nox -s quickstart                       the quickstart suite and its board
nox -s tests | lint | conformance | benchmarks
nox -s suite -- laptop                  any suite
nox -s cell -- --task defect_detection --attack dead_code --defense onion
nox -s leaderboard -- quickstart        the board again, from stored outcomes
nox -s families                         every family of published models, small and random, from end to end
nox -s fuzz -- edit_layer               bytes that find their own way into a target of tests/fuzz_targets.py (needs the extra fuzz)
nox -s cluster | mirror | apart         on Ray; with a server that speaks S3; on two machines made of namespaces (root)
nox -s docs                             the documentation site, in build/docs (needs the extra docs)
nox -s "quickstart_cell(…)"             one cell of the quickstart suite (nox -l lists them)
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import sys

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "none"
nox.options.error_on_external_run = False
nox.options.sessions = ["lint", "tests", "conformance"]
PYTHON = sys.executable  # nox would look "python" up on the PATH, where another one may stand first
BENCH = (PYTHON, "-m", "bench.cli")


def quickstart_cells() -> list[nox._parametrize.Param]:
    """The cells of the quickstart suite, from the same file as the engine reads."""
    from bench.suite import load_suite

    suite = load_suite("quickstart")
    axes = (suite.tasks, suite.models, suite.attacks, suite.defenses)
    return [
        nox.param(
            *(entry.title for entry in entries), seed, id="-".join([*(entry.title for entry in entries), f"s{seed}"])
        )
        for entries, seed in itertools.product(itertools.product(*axes), suite.seeds)
    ]


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run the quickstart suite: real code, one defense of each family, a board at the end."""
    session.run(*BENCH, "run", "quickstart", *session.posargs)


@nox.session
@nox.parametrize("task,model,attack,defense,seed", quickstart_cells())
def quickstart_cell(session: nox.Session, task: str, model: str, attack: str, defense: str, seed: int) -> None:
    """Run one cell of the quickstart suite."""
    at = ("--task", task, "--model", model, "--attack", attack, "--defense", defense, "--seed", str(seed))
    session.run(*BENCH, "cell", "--suite", "quickstart", *at, *session.posargs)


@nox.session
def cell(session: nox.Session) -> None:
    """Run any cell, given by its coordinates."""
    session.run(*BENCH, "cell", *session.posargs)


@nox.session
def suite(session: nox.Session) -> None:
    """Run any suite."""
    session.run(*BENCH, "run", *session.posargs)


@nox.session
def leaderboard(session: nox.Session) -> None:
    """Make a suite's board again from stored outcomes; no model is needed."""
    session.run(*BENCH, "board", *(session.posargs or ["quickstart"]))


@nox.session
def conformance(session: nox.Session) -> None:
    """Run the conformance suite on every plugin, or on the plugin files given."""
    session.run(*BENCH, "check", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    session.run(PYTHON, "-m", "ruff", "check", ".")
    session.run(PYTHON, "-m", "ruff", "format", "--check", ".")
    session.run(PYTHON, "-m", "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, spread over the cores."""
    session.run(PYTHON, "-m", "pytest", "-n", "auto", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in build/docs; a warning is an error."""
    session.run(PYTHON, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "docs", "build/docs", *session.posargs)


def needed(session: nox.Session, modules: tuple[str, ...], how: str) -> None:
    """Where these sessions' tests would be skipped, they shall fail."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        session.error(f"not installed: {', '.join(missing)}; {PYTHON} -m pip install {how}")


@nox.session
def cluster(session: nox.Session) -> None:
    """Start a local Ray cluster of two nodes, run a suite on it, kill a node, and compare with one process (extra ray)."""
    needed(session, ("ray",), "-c constraints.txt -e '.[ray]'")
    session.run(PYTHON, "-m", "pytest", "tests/test_ray.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def mirror(session: nox.Session) -> None:
    """Share results through folders, memory, and a server on this machine that speaks S3's protocol (extra s3, and moto)."""
    needed(session, ("s3fs", "moto"), "-e '.[s3]' 'moto[server]'")
    session.run(PYTHON, "-m", "pytest", "tests/test_mirror.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def apart(session: nox.Session) -> None:
    """Run a suite on two machines that share no disk, made of namespaces, with a mirror between them (root; extras ray, s3, and moto)."""
    needed(session, ("ray", "s3fs", "moto"), "-e '.[ray,s3]' 'moto[server]'")
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        session.error(
            "this makes network namespaces: run it as root, with ip (iproute2) and unshare (util-linux) installed"
        )
    session.run(PYTHON, "-m", "pytest", "tests/test_apart.py", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def families(session: nox.Session) -> None:
    """Every family of published models from end to end, small and random; writes results/families.md."""
    session.run(PYTHON, "-m", "tests.families", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz suite files, records, data files and the edit layer with atheris, two minutes each, or one target (extra fuzz)."""
    targets = session.posargs[:1] or ["suite_file", "record", "data_files", "edit_layer"]
    options = session.posargs[1:] or ["-max_total_time=120"]
    for target in targets:
        session.run(PYTHON, "-m", "tests.fuzz_targets", target, *options, env={"OMP_NUM_THREADS": "1"})


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure the ratios that the README quotes: each against the plain way of doing it, in one run."""
    session.run(PYTHON, "-m", "tests.benchmarks", *session.posargs)
