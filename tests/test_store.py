import errno
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import StoreError
from bench.store import Store, host, write_json

KEY = "a" * 64


def put(text: str):
    return lambda folder: (folder / "value.txt").write_text(text)


def test_a_published_result_is_found_again_with_its_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("train", KEY) is None
    store.publish("train", KEY, {"x": 1}, put("hello"))
    entry = Store(tmp_path).get("train", KEY)
    assert (entry.folder / "value.txt").read_text() == "hello"
    assert list(entry.files) == ["value.txt"]


def test_a_writer_that_raises_publishes_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def write(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        store.publish("train", KEY, {}, write)
    assert store.find("train", KEY) is None
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_full_disk_is_a_clear_error_and_keeps_what_is_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish("train", "b" * 64, {}, put("kept"))

    def write(folder: Path) -> None:
        (folder / "part.bin").write_bytes(b"x" * 100)
        Path("/dev/full").write_bytes(b"x" * 100_000)  # the kernel's own ENOSPC

    with pytest.raises(
        StoreError, match=r"no space left on the disk of the store .*run again: what is published is kept"
    ):
        store.publish("train", KEY, {}, write)
    assert Store(tmp_path).find("train", KEY) is None
    assert Store(tmp_path).find("train", "b" * 64) is not None
    assert list((tmp_path / "partial").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "delete", "manifest"])
def test_a_damaged_entry_counts_as_missing_and_can_be_made_again(tmp_path: Path, damage: str) -> None:
    entry = Store(tmp_path).publish("train", KEY, {}, put("hello world"))
    if damage == "truncate":
        (entry.folder / "value.txt").write_text("hello")
    elif damage == "delete":
        (entry.folder / "value.txt").unlink()
    else:
        (entry.folder / "manifest.json").write_text('{"files": ')
    store = Store(tmp_path)
    assert store.find("train", KEY) is None
    with pytest.raises(StoreError, match="no intact train result"):
        store.get("train", KEY)
    store.publish("train", KEY, {}, put("hello world"))
    assert (store.get("train", KEY).folder / "value.txt").read_text() == "hello world"


def test_the_second_publisher_of_equal_bytes_is_benign(tmp_path: Path) -> None:
    Store(tmp_path).publish("train", KEY, {}, put("same"))
    Store(tmp_path).publish("train", KEY, {}, put("same"))
    assert not (tmp_path / "conflicts.jsonl").exists()


def test_the_second_publisher_of_other_bytes_is_recorded_and_the_first_is_kept(tmp_path: Path) -> None:
    Store(tmp_path).publish("train", KEY, {}, put("first"))
    entry = Store(tmp_path).publish("train", KEY, {}, put("second"))
    assert (entry.folder / "value.txt").read_text() == "first"
    (line,) = (tmp_path / "conflicts.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == KEY


def _publish_many(root: str, which: int) -> None:
    store = Store(Path(root))
    for i in range(40):
        store.publish("data", f"{i:064d}", {}, put(f"value {i}"))


def test_two_processes_on_one_store_publish_each_result_exactly_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_publish_many, args=(str(tmp_path), i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = Store(tmp_path)
    assert all((store.get("data", f"{i:064d}").folder / "value.txt").read_text() == f"value {i}" for i in range(40))
    assert not (tmp_path / "conflicts.jsonl").exists()
    assert list((tmp_path / "partial").iterdir()) == []


def test_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead = multiprocessing.get_context("fork").Process(target=lambda: None)
    dead.start()
    dead.join()
    (tmp_path / "partial" / f"{dead.pid}-x").mkdir()
    (tmp_path / "partial" / f"{os.getpid()}-y").mkdir()
    assert store.sweep() == 1
    assert [p.name for p in (tmp_path / "partial").iterdir()] == [f"{os.getpid()}-y"]


def test_a_container_of_the_same_name_is_another_machine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead = multiprocessing.get_context("fork").Process(target=lambda: None)
    dead.start()
    dead.join()
    name, _, place = host().partition("~")
    assert (name, len(place)) == (re.sub(r"[^A-Za-z0-9.-]", ".", platform.node()), 12)
    # A living process of another container: its number is free here.
    theirs = tmp_path / "partial" / f"{dead.pid}-x@{name}~0123456789ab"
    theirs.mkdir()
    ours = tmp_path / "partial" / f"{dead.pid}-y@{host()}"
    ours.mkdir()
    assert store.sweep() == 1
    assert [p.name for p in (tmp_path / "partial").iterdir()] == [theirs.name]
    os.utime(theirs, (0, 0))
    assert store.sweep() == 1, "nobody writes for so long"


def test_a_process_of_another_namespace_has_another_place() -> None:
    code = "from bench.store import host; print(host())"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    other = subprocess.run(inside, capture_output=True, text=True, check=False)
    if other.returncode != 0:
        pytest.skip(f"no namespaces here: {other.stderr.strip()[-200:]}")
    assert other.stdout.strip().partition("~")[0] == host().partition("~")[0]
    assert other.stdout.strip() != host()
    same = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert same.stdout.strip() == host(), "a later process on this machine clears up after an earlier one"


def test_a_failure_is_a_record_and_never_a_hit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail("repair", KEY, "ValueError: no", "Traceback …")
    assert store.find("repair", KEY) is None
    assert store.failure(KEY)["reason"] == "ValueError: no"
    store.publish("repair", KEY, {}, put("fine now"))
    assert store.failure(KEY) is None


def test_a_key_is_explained_by_its_beginning(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish("train", KEY, {"inputs": {"seed": 3}}, put("x"))
    kind, inputs = store.inputs("aaaa")
    assert (kind, inputs["inputs"]) == ("train", {"seed": 3})
    assert store.inputs("ffff") is None
    store.publish("train", "a" * 63 + "b", {}, put("y"))
    with pytest.raises(StoreError, match="fits 2 results"):
        store.inputs("aaaa")


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to the store"):
        Store(tmp_path / "file" / "store")


def test_json_is_canonical(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, "é"]})
    write_json(tmp_path / "b", {"a": [1.5, "é"], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "c", float("nan"))


def test_an_unexpected_os_error_is_not_dressed_up(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        raise OSError(errno.EIO, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        Store(tmp_path).publish("train", KEY, {}, write)


def test_json_that_is_interrupted_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "provenance.json"
    write_json(path, {"old": 1})
    whole = Path.write_text

    def half(self: Path, text: str, **more: str) -> int:
        whole(self, text[: len(text) // 2], **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": 2})
    assert path.read_text() == '{\n "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]
