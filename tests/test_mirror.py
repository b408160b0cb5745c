"""Two machines that share no disk: what one has made the other fetches, and what is damaged on the way is made again."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bench.errors import ConfigError, StoreError
from bench.mirror import Mirror
from bench.samples import digest_of
from bench.store import Store
from tests.engine import run, write_suite

INPUTS = {"a": 1, "parents": {}}
KEY = digest_of(INPUTS)


def machine(folder: Path, url: str) -> Store:
    return Store(folder, Mirror(url))


def make(store: Store, text: str = "{}") -> None:
    store.publish("train", KEY, INPUTS, lambda place: (place / "facts.json").write_text(text))  # type: ignore[arg-type,func-returns-value]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/mirror"
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


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:700],
        lambda data: data.replace(b'"loss"', b'"gain"'),
        lambda data: b"",
        lambda data: renamed(data, "../../../outside.json"),
        lambda data: renamed(data, f"entries/train/{KEY}/code.pkl"),
    ],
    ids=["truncated", "bytes changed", "empty", "a name that climbs", "a pickle"],
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


def test_a_suite_finished_on_one_machine_starts_nothing_on_another(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/mirror"
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
