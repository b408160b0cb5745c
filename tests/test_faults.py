"""What a machine does to a run: sudden death at any moment, a full disk at any write, damaged bytes, a wrong clock, plugins out of bounds.

After each: nothing published is wrong, nothing finished is lost, and the next run completes. Most stages here are stand-ins that take
microseconds, so that hundreds of moments can be tried; they run through the real ``run_stage``, ``Run`` and ``Store``. The moments are
lines of the harness: the tracer counts them, and the process kills itself at the chosen one with SIGKILL. Real stages are killed from
outside at any time, in Python or below it.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import execute, finished, stages, storing
from bench.errors import PluginError, ResultLost, StoreError
from bench.execute import Report, Run
from bench.exporting import export
from bench.finished import Question, recall, remember
from bench.jobs import Job, Stage, Workshop
from bench.pipeline import CellGraph, merge
from bench.plugins import Registry
from bench.results import ResultsFolder
from bench.running import graphs_of, load_registry
from bench.store import Store, sha256_of, write_json
from bench.suite import load_suite
from tests.engine import ATTACK, PLUGINS, command, write_suite
from tests.killed_runs import running

BENCH = str(Path(stages.__file__).parent)
POINTS = {"run": 140, "import": 60}
"""At how many lines a run of stand-in stages and an import are killed, each chosen with equal chance and only once."""
STAGES_KILLED = ("poison", "train", "filter", "repair", "screen", "predict", "score")
TIMES = 3
"""How often a run of real stages is killed in a stage of each of these kinds."""


def _fill(job: Job) -> None:
    """What every stand-in stage does: a text, and weights made from its parents' bytes."""
    parents = [(entry.folder / "model" / "weights.safetensors").read_bytes() for entry in job.parents.values()]
    (job.folder / "model").mkdir()
    (job.folder / "model" / "weights.safetensors").write_bytes(b"".join(parents) + bytes(range(64)))
    write_json(job.folder / "facts.json", {"kind": job.stage.kind})


@pytest.fixture(autouse=True, scope="module")
def stand_ins() -> Iterator[None]:
    """Stand-in stages; and the harness's own source, which test_finished looks after, is not read a thousand times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "STAGES", dict.fromkeys(("data", "train", "repair"), _fill))
        for name in ("source_digests", "_installed", "_foreign_plugins"):
            patch.setattr(finished, name, list)
        yield


def graph() -> dict[str, Stage]:
    """Three kinds stand for all: nothing above ``STAGES`` looks at the kind of a stage."""
    data = Stage("data", {"seed": 0})
    train = Stage("train", {"seed": 0}, {"data": ("data", data.key)})
    repair = Stage("repair", {"seed": 0}, {"model": ("train", train.key)})
    return {stage.key: stage for stage in (data, train, repair)}


def run(root: Path) -> None:
    """A whole run with what comes before and after it."""
    store = Store(root / "store")
    store.sweep()
    report = Run(graph(), store, lambda event: None).here(Registry(), show=False)
    assert report.done == set(graph()), report
    (root / "results").mkdir(exist_ok=True)
    remember(question(root), root / "results", [(s.kind, k) for k, s in graph().items()], 1, store.seals, {})


def question(root: Path) -> Question:
    (root / "suite.yaml").write_text("name: small\n") if not (root / "suite.yaml").exists() else None
    return Question(root / "suite.yaml", root / "store", root, (), {})


def bytes_of(root: Path) -> dict[str, bytes]:
    base = root / "store" / "entries"
    return {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every byte of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    run(root)
    found = bytes_of(root)
    assert len(found) == 9
    return found


def recovers(root: Path, whole: dict[str, bytes]) -> None:
    """Nothing published is wrong; the next run keeps it and completes; nothing is left lying about."""
    store = Store(root / "store")
    assert all(damage is None for _, _, damage in storing.verify(store))
    before = bytes_of(root)
    times = {name: (root / "store" / "entries" / name).stat().st_mtime_ns for name in before}
    run(root)
    assert bytes_of(root) == whole
    assert all((root / "store" / "entries" / name).stat().st_mtime_ns == at for name, at in times.items())
    left = [p for p in (root / "store" / "partial").iterdir() if not p.name.startswith("0-damaged")]
    assert left == []
    assert not (root / "store" / "conflicts.jsonl").exists()


# ---------------------------------------------------------------------------------------------------------- sudden death


def in_a_child(work: Callable[[], object], line: int | None) -> tuple[int, int]:
    """Do it in a forked child that kills itself before the n-th line of the harness: (its signal or 0, lines that it executed)."""
    sys.stdout.flush()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal count
            if not frame.f_code.co_filename.startswith(BENCH):
                return None
            if event == "line":
                if count == line:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
            return trace

        try:
            sys.settrace(trace)
            work()
            sys.settrace(None)
            os.write(theirs, str(count).encode())
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.close(theirs)
    with os.fdopen(ours, "rb") as told:
        lines = told.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work itself failed"
    return (os.WTERMSIG(status), 0) if os.WIFSIGNALED(status) else (0, int(lines))


def lines_of(work: Callable[[], object]) -> int:
    """How many lines of the harness some work executes."""
    killed, lines = in_a_child(work, None)
    assert not killed
    return lines


def killed_at(work: Callable[[], object], line: int) -> bool:
    """Was it killed at that line?"""
    return in_a_child(work, line) == (signal.SIGKILL, 0)


def points(what: str, lines: int) -> list[int]:
    """Lines at which to kill, each with the same chance; the same ones in every run of this test."""
    return random.Random(what).sample(range(lines), POINTS[what])


def test_there_are_two_hundred_moments() -> None:
    """Beside the second deaths of the runs, those of removals and of real stages. Each test sees to it that its own did happen."""
    assert sum(POINTS.values()) >= 200


def test_a_run_killed_at_any_line_and_again_is_completed_by_the_next(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes]
) -> None:
    base, chance = tmp_path_factory.mktemp("killed"), random.Random("again")
    (base / "count").mkdir()
    lines = lines_of(lambda: run(base / "count"))
    assert lines > 500
    for line in points("run", lines):
        root = base / str(line)
        root.mkdir()
        assert killed_at(lambda root=root: run(root), line), line
        # What was left undone takes at least as many lines as it would have taken, but for the end of a stage that is published.
        again = chance.randrange(max(1, lines - line - 100))
        assert killed_at(lambda root=root: run(root), again), (line, again)
        recovers(root, whole)
        shutil.rmtree(root)


def test_an_import_killed_at_any_line_publishes_nothing_wrong(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes]
) -> None:
    base = tmp_path_factory.mktemp("import")
    (base / "from").mkdir()
    run(base / "from")
    archive = base / "all.tar"
    store = Store(base / "from" / "store")
    storing.export(store, {key: kind for kind, key, _ in storing.entries(store)}, archive)

    def take_in(root: Path) -> None:
        storing.import_(Store(root / "store"), archive)

    for line in points("import", lines_of(lambda: take_in(base / "count"))):
        root = base / str(line)
        root.mkdir()
        assert killed_at(lambda root=root: take_in(root), line), line
        recovers(root, whole)
        shutil.rmtree(root)


def test_a_removal_killed_at_any_line_leaves_a_result_whole_or_gone(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("remove")
    key = next(iter(graph()))

    def remove() -> None:
        storing.remove(Store(root / "store"), "data", key)

    run(root)
    lines = lines_of(remove)
    assert lines > 10
    for line in range(lines):
        run(root)
        assert killed_at(remove, line), line
        recovers(root, whole)


# ------------------------------------------------------------------------------------------------ sudden death of real stages


@dataclass(frozen=True)
class Real:
    """A small suite of real stages, and a run of it that nothing disturbed."""

    root: Path
    suite: Path
    graphs: list[CellGraph]
    stages: dict[str, Stage]
    bytes: dict[str, bytes]

    @property
    def store(self) -> Path:
        return self.root / "store"


def run_real(root: Path, stages: dict[str, Stage], kill: Callable[[Connection], None] | None = None) -> int | None:
    """A run in a process of its own; killed when ``kill`` returns, or at its end. Returns its exit code where it was killed."""
    with running(root / "store", stages, (PLUGINS,)) as (process, told):
        if kill is not None:
            kill(told)
            process.kill()
            process.join()
            return process.exitcode
        what, key = told.recv()
        while what != "end":
            what, key = told.recv()
        assert key == "", key
        return None


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    root = tmp_path_factory.mktemp("real")
    defenses = ["none", "spectral_signatures", "fine_tuning[clean=20,epochs=1]", "onion[clean=20]"]
    task = {"name": "toy", "label": "toy", "parameters": {"train": 80, "valid": 20, "test": 40}}
    path = write_suite(root, tasks=[task], attacks=[ATTACK], defenses=defenses)
    suite = load_suite(path)
    graphs = graphs_of(suite, load_registry(suite, []), {})
    found = merge(graphs)
    run_real(root, found)
    return Real(root, path, graphs, found, bytes_of(root))


def pending(real: Real, root: Path, kind: str) -> list[str]:
    """A copy of the store in which nothing of a kind is left; returns the keys of what is missing, in the order of a run."""
    shutil.copytree(real.store, root / "store")
    keys = [key for key, stage in real.stages.items() if stage.kind == kind]
    for key in keys:
        storing.remove(Store(root / "store"), kind, key)
    return keys


@pytest.mark.parametrize("kind", STAGES_KILLED)
def test_a_real_stage_killed_at_any_time_is_run_again_and_gives_the_same_bytes(
    tmp_path: Path, real: Real, kind: str
) -> None:
    """The moment is a random share of the time that the stage took undisturbed, after its start: in Python or below it.

    A machine that is busy elsewhere may look too late: then the next moment is right after the start.
    """
    chance, inside, tried = random.Random(kind), 0, 0
    while tried < TIMES or (not inside and tried < 20):
        root = tmp_path / str(tried)
        victim = chance.choice(pending(real, root, kind))
        timing = Store(real.store).timing(victim)
        assert timing is not None
        wait = chance.random() * timing["seconds"] if tried < TIMES else 0.0
        seen: list[tuple[str, str]] = []

        def kill(told: Connection, victim: str = victim, wait: float = wait, seen: list[Any] = seen) -> None:
            while ("start", victim) not in seen:
                seen.append(told.recv())
            time.sleep(wait)
            while told.poll():
                seen.append(told.recv())

        assert run_real(root, real.stages, kill) == -signal.SIGKILL
        inside += ("done", victim) not in seen
        recovers_real(root, real)
        shutil.rmtree(root)
        tried += 1
    assert inside, "not one of the deaths was within a stage of this kind"


def recovers_real(root: Path, real: Real) -> None:
    """As :func:`recovers`."""
    store = Store(root / "store")
    assert all(damage is None for _, _, damage in storing.verify(store))
    before = bytes_of(root)
    assert before.items() <= real.bytes.items()
    times = {name: (root / "store" / "entries" / name).stat().st_mtime_ns for name in before}
    run_real(root, real.stages)
    assert bytes_of(root) == real.bytes
    assert all((root / "store" / "entries" / name).stat().st_mtime_ns == at for name, at in times.items())
    assert not [p for p in (root / "store" / "partial").iterdir() if not p.name.startswith("0-damaged")]
    assert not (root / "store" / "conflicts.jsonl").exists()


def results_in(root: Path) -> int:
    return len(list((root / "store" / "entries").glob("*/*")))


def busy_workers(root: Path) -> set[int]:
    """Processes that write a result."""
    names = [path.name.partition("-")[0] for path in (root / "store" / "partial").iterdir() if path.is_dir()]
    return {int(name) for name in names if name not in ("", "0")}


def state_of(process: int) -> str:
    """As the kernel tells it: T where it is stopped, X where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def kill_a_worker(root: Path) -> bool:
    """Kill one within a stage: it is stopped first, to see that it still is in one."""
    for worker in busy_workers(root):
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)
            while state_of(worker) not in "TZX":
                time.sleep(0.001)
            if state_of(worker) == "T" and worker in busy_workers(root):
                os.kill(worker, signal.SIGKILL)
                return True
            os.kill(worker, signal.SIGCONT)
    return False


def test_a_run_of_the_command_in_a_pool_killed_at_any_time_is_finished_by_the_next(tmp_path: Path, real: Real) -> None:
    """First the whole run dies, then a worker of the next: the pool gives its stage to another, and all ends well."""
    chance = random.Random("pool")
    shutil.copy(real.suite, tmp_path)
    start = command("run", tmp_path / "toy.yaml", "-j", "2", folder=tmp_path)
    environment, said = os.environ | {"OMP_NUM_THREADS": "1"}, tmp_path / "said.txt"

    def started() -> subprocess.Popen[bytes]:
        with said.open("wb") as file:
            return subprocess.Popen(start, env=environment, start_new_session=True, stderr=file, stdout=file)

    def until(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
        while not reached():
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)

    results = chance.randrange(1, 6)
    going = started()
    until(going, lambda: results_in(tmp_path) >= results)
    time.sleep(chance.random() / 5)
    os.killpg(going.pid, signal.SIGKILL)
    assert going.wait() == -signal.SIGKILL
    while any(state_of(worker) not in "ZX" for worker in busy_workers(tmp_path)):
        time.sleep(0.02)  # all of its group die, each in its own time
    assert all(damage is None for _, _, damage in storing.verify(Store(tmp_path / "store")))
    before = bytes_of(tmp_path)
    assert before.items() < real.bytes.items()
    known = results_in(tmp_path)
    going = started()
    until(going, lambda: results_in(tmp_path) > known)
    until(going, lambda: kill_a_worker(tmp_path))
    assert going.wait() == 0, said.read_text()
    assert "its worker died" in said.read_text()
    assert bytes_of(tmp_path) == real.bytes
    assert not (tmp_path / "store" / "conflicts.jsonl").exists()


# ------------------------------------------------------------------------------------------------ disks that do not take


@dataclass
class Disk:
    """Refuses the n-th write below a folder, and all after it, as the kernel would."""

    root: str = ""
    left: int = 0
    error: int = errno.ENOSPC
    refused: int = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.root or event not in ("open", "os.mkdir", "os.rename", "os.link", "os.truncate", "os.chmod"):
            return
        path = arguments[0]
        writes = event != "open" or (
            isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root):
            self.left -= 1
            if self.left < 0:
                self.refused += 1
                raise OSError(self.error, os.strerror(self.error), os.fspath(path))


DISK = Disk()
sys.addaudithook(DISK)


@contextmanager
def disk(root: Path, after: int, error: int) -> Iterator[Disk]:
    """The disk below ``root`` refuses all writes after so many."""
    DISK.root, DISK.left, DISK.error, DISK.refused = str(root), after, error, 0
    try:
        yield DISK
    finally:
        DISK.root = ""


def _refused(root: Path) -> str:
    """Run, and what the store's error says of it."""
    try:
        run(root)
    except StoreError as said:
        return str(said)
    return ""


@pytest.mark.parametrize(
    ("error", "message"),
    [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "no space left"), (errno.EROFS, "cannot write to the store")],
)
def test_a_disk_that_refuses_any_write_is_one_clear_error_and_loses_nothing(
    tmp_path: Path, whole: dict[str, bytes], error: int, message: str
) -> None:
    writes = 0
    while True:
        root = tmp_path / str(writes)
        (root / "store").mkdir(parents=True)
        question(root)
        with disk(root / "store", writes, error) as refusing:
            said = _refused(root)
        assert said == "" or ((message in said or os.strerror(error) in said) and str(root / "store") in said)
        complete = bytes_of(root) == whole
        recovers(root, whole)
        if not refusing.refused:
            assert complete
            break
        writes += 1
    assert writes > 25  # the folders, and each stage's files, manifest, rename and timing


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_results_folder_that_refuses_any_write_is_one_clear_error_and_the_next_export_mends_it(
    tmp_path: Path, real: Real, error: int
) -> None:
    store, report = Store(real.store), Report(done=set(real.stages))
    export(real.graphs, report, store, ResultsFolder(tmp_path / "whole"), "toy")
    expected = files_of(tmp_path / "whole")
    assert len(expected) > 2 * len(real.graphs)
    writes = 0
    while True:
        folder = ResultsFolder(tmp_path / str(writes))
        said = ""
        with disk(folder.root, writes, error) as refusing:
            try:
                export(real.graphs, report, store, folder, "toy")
            except StoreError as raised:
                said = str(raised)
        assert bool(said) == bool(refusing.refused)
        if not said:
            break
        assert said.startswith(f"results cannot be written to {folder.root}: ")
        assert os.strerror(error) in said
        assert "--results" in said
        export(real.graphs, report, store, folder, "toy")
        assert files_of(folder.root) == expected
        writes += 1
    assert writes >= len(expected)


def test_files_that_a_full_disk_cut_short_are_written_again(tmp_path: Path, real: Real) -> None:
    store, report, folder = Store(real.store), Report(done=set(real.stages)), ResultsFolder(tmp_path / "results")
    export(real.graphs, report, store, folder, "toy")
    expected = files_of(folder.root)
    for name, content in expected.items():
        for cut in (b"", content[: len(content) // 2]):
            (folder.root / name).write_bytes(cut)
            export(real.graphs, report, store, folder, "toy")
            assert files_of(folder.root) == expected


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_store_can_be_read_where_it_cannot_be_written(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run(tmp_path)
    with disk(tmp_path, 0, errno.EROFS):
        store = Store(tmp_path / "store")
        assert all(store.has(s.kind, key) and store.get(s.kind, key) for key, s in graph().items())
        assert Run(graph(), store, lambda event: None).here(Registry(), show=False).done == set(graph())
        assert all(damage is None for _, _, damage in storing.verify(store))
        with pytest.raises(StoreError, match="cannot write to the store"):
            store.publish("data", "0" * 64, {}, lambda folder: None)


def test_weights_on_a_full_disk_are_the_disks_failure_and_not_the_methods(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    def write(folder: Path) -> None:
        # How the library says it: an error without a number.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreError, match="no space left"):
        Store(tmp_path).publish("train", "0" * 64, {}, write)


# -------------------------------------------------------------------------------------------------------- damaged bytes


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data(), cut=st.booleans())
def test_a_flipped_bit_or_a_cut_anywhere_is_never_taken_for_the_result(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], data: st.DataObject, cut: bool
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    run(root)
    name = data.draw(st.sampled_from(sorted(whole)))
    path = root / "store" / "entries" / name
    content = bytearray(whole[name])
    place = data.draw(st.integers(0, len(content) - 1))
    if cut:
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    kind, key = name.split("/")[:2]
    assert recall(question(root)) is None
    entry = Store(root / "store").find(kind, key)
    if entry is not None:  # the manifest's own words were hit: the files are right, and ``store verify`` tells
        assert name.endswith("manifest.json")
        assert {n: (entry.folder / n).read_bytes() for n in entry.files} == {
            n: whole[f"{kind}/{key}/{n}"] for n in entry.files
        }
        damaged = [d.key for _, _, d in storing.verify(Store(root / "store")) if d is not None]
        assert damaged == [key] or json.loads(path.read_bytes()) == json.loads(whole[name])
        storing.remove(Store(root / "store"), kind, key)
    run(root)
    assert bytes_of(root) == whole


def test_rot_that_changes_no_time_is_found_before_the_bytes_are_used(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run(tmp_path)
    data, train, _ = graph().values()
    storing.remove(Store(tmp_path / "store"), "train", train.key)
    store = Store(tmp_path / "store")
    weights = store.folder("data", data.key) / "model" / "weights.safetensors"
    weights.write_bytes(b"\xff" + weights.read_bytes()[1:])
    store.seals.note(f"data/{data.key}", weights.parents[1], store.seals._read()[f"data/{data.key}"])
    assert store.has("data", data.key)  # as the disk's times have it
    with pytest.raises(StoreError, match=r"no intact data result .*; run the suite again to make it"):
        Run(graph(), store, lambda event: None).here(Registry(), show=False)
    recovers(tmp_path, whole)


# --------------------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("years", [-30, 30])
def test_a_clock_that_jumps_loses_nothing_and_sweeps_nobody_elses_work(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 86400)
    run(tmp_path)
    theirs = tmp_path / "store" / "partial" / "7-x@another-machine"
    theirs.mkdir()
    for path in (tmp_path / "store" / "entries").rglob("*"):
        os.utime(path, (real() - years * 365 * 86400,) * 2)
    store = Store(tmp_path / "store")
    assert store.sweep() == 0
    assert theirs.is_dir()
    theirs.rmdir()
    run(tmp_path)
    assert bytes_of(tmp_path) == whole


# ------------------------------------------------------------------------------------------------- plugins out of bounds


def run_with(root: Path, monkeypatch: pytest.MonkeyPatch, repair: Callable[[Job], None]) -> Run:
    monkeypatch.setitem(stages.STAGES, "repair", repair)  # type: ignore[arg-type]
    going = Run(graph(), Store(root / "store"), lambda event: None)
    going.here(Registry(), show=False)
    return going


@pytest.mark.parametrize("how", ["changed", "added", "removed"])
def test_a_plugin_that_writes_into_a_stored_result_fails_and_what_it_hit_is_made_again(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def vandal(job: Job) -> None:
        _fill(job)
        weights = job.parents["model"].folder / "model" / "weights.safetensors"
        if how == "changed":
            weights.write_bytes(bytes(weights.stat().st_size))
        elif how == "added":
            (weights.parent / "more.json").write_text("{}")
        else:
            weights.unlink()

    with monkeypatch.context() as patch:
        report = run_with(tmp_path, patch, vandal).report
        (reason,) = report.failed.values()
        assert "wrote into a stored train result" in reason
        assert "context.scratch" in reason
    for extra in (tmp_path / "store" / "entries").rglob("more.json"):
        extra.unlink()  # a file more harms nobody; ``store verify`` names it
    run(tmp_path)
    assert bytes_of(tmp_path) == whole


def with_a_sibling() -> dict[str, Stage]:
    """The graph, and one more stage that reads what the repair reads."""
    train = list(graph().values())[1]
    screen = Stage("screen", {"seed": 0}, {"model": ("train", train.key)})
    return graph() | {screen.key: screen}


@pytest.mark.parametrize("after", [lambda: 1 / 0, lambda: sys.exit(3)], ids=["raises", "exits"])
def test_what_a_plugin_wrote_into_before_it_failed_is_read_by_nobody(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, after: Callable[[], object]
) -> None:
    def vandal(job: Job) -> None:
        weights = job.parents["model"].folder / "model" / "weights.safetensors"
        weights.write_bytes(bytes(weights.stat().st_size))
        after()

    stages_of = with_a_sibling()
    with monkeypatch.context() as patch:
        patch.setattr(stages, "STAGES", {**stages.STAGES, "repair": vandal, "screen": _fill})
        going = Run(stages_of, Store(tmp_path / "store"), lambda event: None)
        with pytest.raises(ResultLost, match="no intact train result"):
            going.here(Registry(), show=False)
    (reason,) = going.report.failed.values()
    assert "this stage's plugin, or one that ran beside it, wrote into a stored train result" in reason
    (failure,) = (tmp_path / "store" / "failures").iterdir()
    assert ("ZeroDivisionError" in failure.read_text()) != ("SystemExit" in failure.read_text())
    assert not Store(tmp_path / "store").folder("screen", list(stages_of)[-1]).exists()
    run(tmp_path)
    assert bytes_of(tmp_path) == whole


def test_a_result_that_another_process_wrote_into_or_took_away_is_not_believed_any_more(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    run(tmp_path)
    data, train, _ = graph().values()
    store = Store(tmp_path / "store")
    assert [store.get(stage.kind, stage.key).key for stage in (data, train)] == [data.key, train.key]
    weights = store.folder("train", train.key) / "model" / "weights.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert not store.here("train", train.key)
    storing.remove(Store(tmp_path / "store"), "data", data.key)
    for stage in (data, train):
        with pytest.raises(ResultLost) as lost:
            store.get(stage.kind, stage.key)
        assert (lost.value.kind, lost.value.key) == (stage.kind, stage.key)
    recovers(tmp_path, whole)


def test_a_parent_that_goes_while_a_stage_reads_it_is_no_failure_of_the_stage(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pruned(job: Job) -> None:
        storing.remove(Store(tmp_path / "store"), "train", job.parents["model"].key)
        _fill(job)

    with monkeypatch.context() as patch, pytest.raises(ResultLost, match="was taken out of the store"):
        run_with(tmp_path, patch, pruned)
    assert list((tmp_path / "store" / "failures").iterdir()) == []
    recovers(tmp_path, whole)


def test_a_look_at_what_is_known_takes_no_digest_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished suite of a thousand cells is looked at by some ten thousand of these."""
    run(tmp_path)
    store, taken = Store(tmp_path / "store"), []
    monkeypatch.setattr("bench.store.sha256_of", lambda path: taken.append(path) or sha256_of(path))
    for _ in range(3):
        assert all(store.has(stage.kind, key) for key, stage in graph().items())
    assert taken == []
    for _ in range(3):
        assert all(store.get(stage.kind, key) for key, stage in graph().items())
    assert len(taken) == 6, "once for each of two files of three results"


def test_a_plugin_that_may_not_write_elsewhere_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(job: Job) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/passwd")

    report = run_with(tmp_path, monkeypatch, writes).report
    assert list(report.failed.values()) == ["PermissionError: [Errno 13] Permission denied: '/etc/passwd'"]
    assert len(report.done) == 2


def test_a_plugin_that_exits_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exits(job: Job) -> None:
        sys.exit(3)

    report = run_with(tmp_path / "here", monkeypatch, exits).report
    assert list(report.failed.values()) == ["SystemExit: 3"]
    assert len(report.done) == 2
    store = Store(tmp_path / "here" / "store")
    monkeypatch.setattr(execute, "_workshop", Workshop(store, Registry()))
    with pytest.raises(execute.StageFailed) as failed:
        execute._work(list(graph().values())[2], False)
    assert (failed.value.kind, failed.value.message) == ("SystemExit", "3")


def test_a_plugin_that_ends_its_process_at_once_fails_alone_and_its_children_may(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(job: Job) -> None:
        os._exit(0)

    def lets_a_child_end(job: Job) -> None:
        born = os.fork()
        if not born:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(born, 0)[1]) == 7
        _fill(job)

    real = os._exit
    report = run_with(tmp_path, monkeypatch, ends).report
    (reason,) = report.failed.values()
    assert reason.startswith("PluginError: the plugin called os._exit(0)")
    assert len(report.done) == 2
    assert run_with(tmp_path, monkeypatch, lets_a_child_end).report.done == set(graph())
    assert os._exit is real
    assert bytes_of(tmp_path) == whole


@pytest.mark.parametrize("child", ["returns", "raises", "kills"])
def test_a_stage_that_forks_publishes_once_and_its_child_touches_nothing(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, child: str
) -> None:
    def forks(job: Job) -> None:
        born = os.fork()
        if born:
            os.waitpid(born, 0)
            _fill(job)
        elif child == "raises":
            raise RuntimeError("in the child")
        elif child == "kills":
            os.kill(os.getpid(), signal.SIGKILL)

    mine = os.getpid()
    report = run_with(tmp_path, monkeypatch, forks).report
    assert os.getpid() == mine
    assert report.done == set(graph())
    assert bytes_of(tmp_path) == whole


def test_weights_that_are_not_finite_are_refused_with_their_name(tmp_path: Path) -> None:
    from bench.jobs import save_model

    class Model:
        network = torch.nn.Linear(2, 2)

        def save(self, folder: Path) -> None:
            folder.mkdir()

    save_model(Model(), tmp_path, "training")  # type: ignore[arg-type]
    assert (tmp_path / "model").is_dir()
    for value in (float("nan"), float("inf")):
        Model.network.bias.data[1] = value
        with pytest.raises(
            PluginError, match=r"training left 1 weight tensors that are not finite .*'bias'.*learning rate"
        ):
            save_model(Model(), tmp_path / "other", "training")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


def test_the_workshop_of_the_stand_ins_is_the_real_one(tmp_path: Path) -> None:
    """Guards the stand-ins: were run_stage to stop looking at ``STAGES``, the tests above would test nothing."""
    data = next(iter(graph().values()))
    entry = stages.run_stage(data, Workshop(Store(tmp_path), Registry()))
    assert entry.json("facts.json") == {"kind": "data"}
