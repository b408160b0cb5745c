"""Two machines that share no disk: what one has made the other fetches, and what is damaged on the way is made again."""

from __future__ import annotations

import errno
import io
import pickle
import shutil
import socket
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bench import stages
from bench.errors import ConfigError, ResultLost, StoreError
from bench.execute import Run
from bench.jobs import Job, Stage, Workshop
from bench.mirror import Mirror
from bench.plugins import Registry
from bench.running import run_suite
from bench.samples import digest_of
from bench.stages import run_stage
from bench.store import Store, write_json
from tests.engine import run, write_suite

INPUTS = {"a": 1, "parents": {}}
KEY = digest_of(INPUTS)


def machine(folder: Path, url: str) -> Store:
    return Store(folder, Mirror(url))


def make(store: Store, text: str = "{}") -> None:
    store.publish("train", KEY, INPUTS, lambda place: (place / "facts.json").write_text(text))  # type: ignore[arg-type,func-returns-value]


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A server on this machine that speaks S3's protocol (``nox -s mirror`` installs it): its address."""
    pytest.importorskip("s3fs", reason="nox -s mirror")
    server = pytest.importorskip("moto.server", reason="nox -s mirror").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket there; processes that a test starts reach it, too."""
    told = {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/folder"


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/mirror"
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/folder"


def test_what_one_machine_made_the_other_has(tmp_path: Path, url: str) -> None:
    one = machine(tmp_path / "one", url)
    assert one.find("train", KEY) is None
    make(one, '{"loss": 1}')
    two = machine(tmp_path / "two", url)
    assert two.has("train", KEY)
    assert not two.here("train", KEY), "nothing is fetched before it is needed"
    assert two.get("train", KEY).json("facts.json") == {"loss": 1}
    assert two.here("train", KEY)
    assert two.get("train", KEY).files == one.get("train", KEY).files


def test_a_machine_that_was_there_before_finds_what_came_later(tmp_path: Path, url: str) -> None:
    one, two = machine(tmp_path / "one", url), machine(tmp_path / "two", url)
    make(one)
    assert not two.has("train", KEY), "listed when the mirror was opened"
    assert two.find("train", KEY) is not None, "but a stage that asks for it gets it"


def test_the_store_here_outlives_the_mirror(tmp_path: Path, url: str) -> None:
    make(machine(tmp_path / "one", url))
    assert Store(tmp_path / "one").get("train", KEY).json("facts.json") == {}


def rewritten(url: str, change: Any) -> None:
    """Change the archive of the one result in a mirror."""
    files, root = fsspec.url_to_fs(url)
    place = f"{root}/entries/train/{KEY}.tar"
    data = files.cat_file(place)
    files.pipe_file(place, change(data))


def renamed(data: bytes, name: str) -> bytes:
    """The archive with another name for its first file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for place, member in enumerate(old.getmembers()):
            content = old.extractfile(member)
            member.name = member.name if place else name
            new.addfile(member, content)
    return out.getvalue()


def retold(data: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with another manifest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old_tar, tarfile.open(fileobj=out, mode="w") as new_tar:
        for member in old_tar.getmembers():
            content = old_tar.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith("manifest.json"):
                assert old in content
                content = content.replace(old, new)
            member.size = len(content)
            new_tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:700],
        lambda data: retold(data, b'"a": 1', b'"a": NaN'),
        lambda data: retold(data, b'"a": 1', b'"a": "\\ud800"'),
        lambda data: retold(data, b'"a": 1', b'"a": ' + b"[" * 10**5 + b"]" * 10**5),
        lambda data: retold(data, b'"facts.json"', b'"\\ud800.json"'),
        lambda data: data.replace(b'"loss"', b'"gain"'),
        lambda data: b"",
        lambda data: renamed(data, "../../../outside.json"),
        lambda data: renamed(data, f"entries/train/{KEY}/code.pkl"),
    ],
    ids=[
        "truncated",
        "not a number",
        "half a character",
        "deep",
        "half a character in a name",
        "bytes changed",
        "empty",
        "a name that climbs",
        "a pickle",
    ],
)
def test_a_damaged_object_is_not_used_and_is_replaced(
    tmp_path: Path, url: str, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    make(machine(tmp_path / "one", url), '{"loss": 1}')
    rewritten(url, change)
    two = machine(tmp_path / "two", url)
    assert two.find("train", KEY) is None
    assert "is not used" in caplog.text
    assert not list(tmp_path.rglob("outside.json"))
    assert not list((tmp_path / "two" / "partial").iterdir())
    make(two, '{"loss": 1}')
    three = machine(tmp_path / "three", url)
    assert three.get("train", KEY).json("facts.json") == {"loss": 1}, "the machine that made it again has put it there"


def test_another_result_under_a_name_is_no_result(tmp_path: Path, url: str) -> None:
    one = machine(tmp_path / "one", url)
    make(one)
    other = {"a": 2, "parents": {}}
    one.publish("train", digest_of(other), other, lambda place: (place / "facts.json").write_text("{}"))  # type: ignore[arg-type,func-returns-value]
    files, root = fsspec.url_to_fs(url)
    files.pipe_file(f"{root}/entries/train/{KEY}.tar", files.cat_file(f"{root}/entries/train/{digest_of(other)}.tar"))
    two = machine(tmp_path / "two", url)
    assert two.find("train", KEY) is None
    assert not machine(tmp_path / "three", url).has("train", KEY), "it is not there for anybody any more"


def test_a_full_disk_here_is_told_of_the_store_and_costs_the_mirror_nothing(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(machine(tmp_path / "one", url))
    two = machine(tmp_path / "two", url)

    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place, name in ((two.mirror._files, "get_file"), (shutil, "copyfileobj")):  # type: ignore[union-attr]
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(StoreError, match=r"no space left on the disk of the store"):
                two.find("train", KEY)
    assert two.find("train", KEY) is not None, "the object in the mirror was whole, and is there still"


def chain() -> dict[str, Stage]:
    """A stage, and one that reads it."""
    first = Stage("data", {"numerics": {"device": "cpu", "threads": 1}}, label="first")
    second = Stage("train", first.inputs, {"data": ("data", first.key)}, label="second")
    return {stage.key: stage for stage in (first, second)}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stages of :func:`chain` did, in order."""
    done: list[str] = []

    def stage(job: Job) -> None:
        done.append(job.stage.label)
        before = [entry.json("facts.json") for entry in job.parents.values()]
        write_json(job.folder / "facts.json", [job.stage.label, before])

    monkeypatch.setattr(stages, "STAGES", {"data": stage, "train": stage})
    return done


def test_a_run_that_met_a_damaged_object_is_followed_by_one_that_makes_it_again(
    tmp_path: Path, url: str, work: list[str]
) -> None:
    graph = chain()
    first, second = graph.values()
    alone = {first.key: first}
    Run(alone, machine(tmp_path / "one", url), lambda event: None).here(Registry(), show=False)
    files, root = fsspec.url_to_fs(url)
    files.pipe_file(f"{root}/entries/data/{first.key}.tar", b"rot")
    with pytest.raises(ResultLost, match="no intact data result") as lost:
        Run(graph, machine(tmp_path / "two", url), lambda event: None).here(Registry(), show=False)
    assert (lost.value.kind, lost.value.key) == ("data", first.key)
    report = Run(graph, machine(tmp_path / "two", url), lambda event: None).here(Registry(), show=False)
    assert report.done == graph.keys()
    assert work == ["first", "first", "second"]
    assert machine(tmp_path / "three", url).get("data", first.key).json("facts.json") == ["first", []]
    assert machine(tmp_path / "three", url).get("train", second.key).json("facts.json")[0] == "second"


def out_of_reach(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mirror of a store takes nothing from now on."""

    def fails(*arguments: object, **more: object) -> None:
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(store.mirror._files, "put_file", fails)  # type: ignore[union-attr]


@pytest.mark.parametrize("again", ["the stage", "the run"])
def test_what_was_published_and_not_put_there_is_put_there_by_the_next(
    tmp_path: Path, work: list[str], monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    url = f"file://{tmp_path}/mirror"
    first, second = chain().values()
    one = machine(tmp_path / "one", url)
    with monkeypatch.context() as patch:
        out_of_reach(one, patch)
        with pytest.raises(StoreError, match="network is gone"):
            run_stage(first, Workshop(one, Registry()))
    assert one.here("data", first.key)
    assert not machine(tmp_path / "two", url).has("data", first.key)
    store = machine(tmp_path / "one", url)
    if again == "the stage":
        run_stage(first, Workshop(store, Registry()))
    else:
        assert Run({first.key: first}, store, lambda event: None).pending() == []
    assert work == ["first"], "it is put there as it is"
    two = machine(tmp_path / "two", url)
    assert run_stage(second, Workshop(two, Registry())).json("facts.json") == ["second", [["first", []]]]


def test_what_is_known_to_be_there_is_not_put_there_again(
    tmp_path: Path, url: str, work: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(chain().values()))
    two = machine(tmp_path / "two", url)  # opened, and so listed, before the other machine puts it there
    run_stage(first, Workshop(machine(tmp_path / "one", url), Registry()))
    out_of_reach(two, monkeypatch)
    run_stage(first, Workshop(two, Registry()))
    assert Run({first.key: first}, two, lambda event: None).pending() == []
    assert work == ["first"]


def test_a_lost_result_comes_whole_out_of_a_worker() -> None:
    error = pickle.loads(pickle.dumps(ResultLost("it is gone", "data", "abc")))
    assert (str(error), error.kind, error.key) == ("it is gone", "data", "abc")


def test_a_bucket_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path, bucket: str) -> None:
    files = fsspec.filesystem("s3")
    name = f"misspelt-{uuid.uuid4().hex}"
    with pytest.raises(StoreError, match=rf"the mirror s3://{name}/folder cannot be used: .*does not exist"):
        Mirror(f"s3://{name}/folder")
    store = Store(tmp_path, Mirror(bucket))
    gone = bucket.split("/")[2]
    files.rmdir(gone)
    with pytest.raises(StoreError, match=r"cannot be used: .*does not exist"):
        make(store)
    assert Store(tmp_path).find("train", KEY) is not None
    assert not files.exists(gone)


def test_a_server_that_does_not_answer_is_an_error(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound and never listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(StoreError, match=r"cannot be used: .*connect.*run again when it can be reached"):
            Mirror(bucket)


def test_a_broken_line_keeps_what_is_finished_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machine(tmp_path / "one", f"file://{tmp_path}/mirror")

    def fails(*arguments: object, **more: object) -> None:
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(store.mirror._files, "put_file", fails)  # type: ignore[union-attr]
    with pytest.raises(StoreError, match=r"cannot be used.*network is gone.*local store.*without --mirror"):
        make(store)
    assert Store(tmp_path / "one").find("train", KEY) is not None


def test_an_unknown_protocol_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--mirror nowhere://x.*Give a URL"):
        Mirror("nowhere://x")


@pytest.mark.parametrize("protocol", ["file", "s3"])
def test_a_suite_finished_on_one_machine_starts_nothing_on_another(
    tmp_path: Path, request: pytest.FixtureRequest, protocol: str
) -> None:
    url = request.getfixturevalue("bucket") if protocol == "s3" else f"file://{tmp_path}/mirror"
    folders = [tmp_path / name for name in ("one", "two")]
    outcomes = []
    for folder in folders:
        folder.mkdir()
        done = run("run", write_suite(folder), "-j", "2", "--mirror", url, folder=folder)
        assert done.returncode == 0, done.stderr
        outcomes.append({p.name: p.read_bytes() for p in (folder / "results" / "toy" / "cells").glob("*.parquet")})
        started = [line for line in done.stderr.splitlines() if "done train" in line or "done predict" in line]
        assert bool(started) == (folder == folders[0])
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 2
    kinds = {path.name for path in (folders[1] / "store" / "entries").iterdir()}
    assert kinds == {"score", "stealth", "reach"}, "what the board needs is fetched, no model"


@pytest.mark.slow
def test_what_is_damaged_in_the_mirror_is_made_again_within_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A parent that a missing stage reads, and a score that only the board reads."""
    mirror = tmp_path / "mirror"

    def ran(name: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        suite = str(write_suite(folder))
        assert run_suite(suite, 1, folder / "store", folder / "results", [], {}, mirror=f"file://{mirror}") == 0
        return capsys.readouterr().err

    assert "it is made again" not in ran("one")
    objects = {path: path.read_bytes() for path in mirror.rglob("*.tar")}
    (data,) = (path for path in objects if path.parent.name == "data")
    scores = [path for path in objects if path.parent.name == "score"]
    for path in (data, scores[0]):
        path.write_bytes(path.read_bytes()[:700])
    for path in objects:
        if path.parent.name == "stealth":
            path.unlink()  # so that something is to be done, which reads the data
    told = ran("two")
    assert told.count("it is made again") == 2
    assert "2 ok" in told
    assert {path: path.read_bytes() for path in mirror.rglob("*.tar")} == objects
