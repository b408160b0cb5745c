"""What a machine does to a run: sudden death at any line, a full disk at any write, damaged bytes, a wrong clock, plugins out of bounds.

After each: nothing published is wrong, nothing finished is lost, and the next run completes. The stages here are stand-ins that take
microseconds, so that hundreds of moments can be tried; they run through the real ``run_stage``, ``Run`` and ``Store``. The moments are
lines of the harness: the tracer counts them, and the process kills itself at the chosen one with SIGKILL.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import finished, stages, storing
from bench.errors import PluginError, StoreError
from bench.execute import Run
from bench.finished import Question, recall, remember
from bench.jobs import Job, Stage, Workshop
from bench.plugins import Registry
from bench.store import Store, write_json

BENCH = str(Path(stages.__file__).parent)
EXAMPLES = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


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
    """Do it in a forked child that kills itself at the n-th line of the harness: (its signal or 0, its exit status)."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        left = line

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(BENCH):
                return None
            if event == "line" and left is not None:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return (os.WTERMSIG(status), 0) if os.WIFSIGNALED(status) else (0, os.WEXITSTATUS(status))


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many lines of the harness a whole run executes."""
    root, count = tmp_path_factory.mktemp("count"), 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(BENCH):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        run(root)
    finally:
        sys.settrace(before)
    assert count > 200
    return count


@settings(EXAMPLES, max_examples=120)
@given(share=st.floats(0, 1, exclude_max=True), again=st.floats(0, 1, exclude_max=True))
def test_a_run_killed_at_any_line_and_again_is_completed_by_the_next(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], lines: int, share: float, again: float
) -> None:
    root = tmp_path_factory.mktemp("killed")
    assert in_a_child(lambda: run(root), int(share * lines)) == (signal.SIGKILL, 0)
    in_a_child(lambda: run(root), int(again * lines))  # what is left may be shorter: it may also come to its end
    recovers(root, whole)


@EXAMPLES
@given(line=st.integers(0, 400))
def test_an_import_killed_at_any_line_publishes_nothing_wrong(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], line: int
) -> None:
    root = tmp_path_factory.mktemp("import")
    run(root / "from") if (root / "from").mkdir() is None else None
    archive = root / "all.tar"
    store = Store(root / "from" / "store")
    storing.export(store, {key: kind for kind, key, _ in storing.entries(store)}, archive)
    (root / "to").mkdir()
    in_a_child(lambda: storing.import_(Store(root / "to" / "store"), archive), line)
    recovers(root / "to", whole)


@EXAMPLES
@given(line=st.integers(0, 60))
def test_a_removal_killed_at_any_line_leaves_a_result_whole_or_gone(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], line: int
) -> None:
    root = tmp_path_factory.mktemp("remove")
    run(root)
    key = next(iter(graph()))
    in_a_child(lambda: storing.remove(Store(root / "store"), "data", key), line)
    recovers(root, whole)


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


@settings(EXAMPLES, max_examples=100)
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


def test_a_plugin_that_may_not_write_elsewhere_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(job: Job) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/passwd")

    report = run_with(tmp_path, monkeypatch, writes).report
    assert list(report.failed.values()) == ["PermissionError: [Errno 13] Permission denied: '/etc/passwd'"]
    assert len(report.done) == 2


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
