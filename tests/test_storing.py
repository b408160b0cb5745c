"""Looking after a store: sizes, verification, pruning, and carrying results from one store to another."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import re
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench import storing
from bench.errors import DamagedArchive, StoreError
from bench.joining import joined
from bench.pipeline import merge, resolve_device
from bench.running import explain, graphs_of, load_registry
from bench.samples import digest_of
from bench.store import Store, write_json
from bench.store_commands import commands, size
from bench.suite import load_suite
from tests.engine import write_suite

IDENTITY = {"kind": "data", "version": 1, "inputs": {"seed": 0}, "parents": {}}
DATA = digest_of(IDENTITY)
CHILD = {"kind": "train", "version": 1, "inputs": {"seed": 0}, "parents": {"data": DATA}}
TRAIN = digest_of(CHILD)
OTHER = {"kind": "data", "version": 1, "inputs": {"seed": 1}, "parents": {}}


def write(text: str):
    def into(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights.safetensors").write_bytes(text.encode() * 100)
        write_json(folder / "facts.json", {"text": text})

    return into


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Data, a model trained on them, and other data."""
    made = Store(tmp_path / "store")
    made.publish("data", DATA, IDENTITY, write("data"))
    made.publish("train", TRAIN, CHILD, write("model"))
    made.publish("data", digest_of(OTHER), OTHER, write("other"))
    return made


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in (root / "entries").rglob("*") if p.is_file()}


def call(store: Store, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, [*words, "--store", str(store.root)])
    return done.exit_code, done.output if done.exception is None or isinstance(
        done.exception, SystemExit
    ) else f"{done.output}{done.exception}"


def test_sizes_are_those_of_the_files(store: Store) -> None:
    rows = {row.name: row for row in storing.kinds(store)}
    assert {name: row.entries for name, row in rows.items()} == {"data": 2, "train": 1}
    assert sum(row.bytes for row in rows.values()) == sum(map(len, bytes_of(store.root).values()))
    assert [size(n) for n in (0, 999, 1000, 1_234_567, 5 * 10**15)] == ["0 B", "999 B", "1.0 kB", "1.2 MB", "5000.0 TB"]
    code, text = call(store, "ls", "--largest", "1")
    assert (code, "data             2 results" in text, "leftovers" in text) == (0, True, False)
    assert "there is: data, train" in call(store, "ls", "--kind", "trian")[1]


def test_an_intact_store_verifies_wherever_it_lies(store: Store, tmp_path: Path) -> None:
    assert call(store, "verify") == (0, "3 results checked, 0 damaged\n")
    shutil.copytree(store.root, tmp_path / "copy")
    shutil.move(store.root, tmp_path / "moved")
    for place in ("copy", "moved"):
        there = Store(tmp_path / place)
        assert call(there, "verify")[0] == 0
        assert there.has("train", TRAIN)
        assert (there.get("train", TRAIN).folder / "facts.json").is_relative_to(tmp_path / place)
    assert str(tmp_path).encode() not in b"".join(bytes_of(tmp_path / "copy").values())


def damage(folder: Path, how: str) -> None:
    weights = folder / "model" / "weights.safetensors"
    manifest = json.loads((folder / "manifest.json").read_text())
    if how == "flipped bit":
        data = bytearray(weights.read_bytes())
        data[17] ^= 4
        times = weights.stat()
        weights.write_bytes(data)
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif how == "cut short":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif how == "missing":
        weights.unlink()
    elif how == "one more":
        (folder / "model" / "evil.pkl").write_bytes(b"x")
    elif how == "other inputs":
        manifest["inputs"]["inputs"]["seed"] = 7
        write_json(folder / "manifest.json", manifest)
    elif how == "other key":
        manifest["key"] = "0" * 64
        write_json(folder / "manifest.json", manifest)
    elif how in ODD:
        text = json.dumps(manifest).replace('"seed": 0', f'"seed": {ODD[how]}')
        (folder / "manifest.json").write_text(text)
    elif how == "half a character in a name":
        manifest["files"]["\ud800"] = "0" * 64
        (folder / "manifest.json").write_text(json.dumps(manifest))
    elif how == "climbing name":
        manifest["files"]["../../data"] = "0" * 64
        write_json(folder / "manifest.json", manifest)
    else:
        (folder / "manifest.json").write_bytes(b"\xff\xfe{")


ODD = {"not a number": "NaN", "half a character": '"\\ud800"', "deep": "[" * 10**5 + "]" * 10**5}
"""Inputs that JSON's reader takes, or chokes on, and no stage writes."""
DAMAGES = {
    "not a number": "manifest.json is not what a stage writes",
    "half a character": "manifest.json is not what a stage writes",
    "deep": "manifest.json is not this result's",
    "half a character in a name": "manifest.json is not this result's",
    "flipped bit": "weights.safetensors has other bytes",
    "cut short": "weights.safetensors has other bytes",
    "missing": "weights.safetensors is missing",
    "one more": "evil.pkl, which no stage wrote",
    "other inputs": "the key is not the digest of the inputs",
    "other key": "manifest.json is not this result's",
    "climbing name": "manifest.json is not this result's",
    "no JSON": "manifest.json is not this result's",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_found_and_named_and_taken_out_when_asked(store: Store, how: str) -> None:
    damage(store.folder("train", TRAIN), how)
    code, text = call(store, "verify")
    assert code == 1
    assert f"damaged: train {TRAIN}: " in text
    assert DAMAGES[how] in text
    assert store.folder("train", TRAIN).is_dir()  # looking changes nothing
    assert call(store, "verify", "--remove") == (0, text.replace("1 damaged\n", "1 damaged and taken out\n"))
    assert call(store, "verify") == (0, "2 results checked, 0 damaged\n")
    assert not Store(store.root).has("train", TRAIN)


def test_pruning_shows_first_and_spares_what_is_alive(store: Store) -> None:
    partial = store.root / "partial"
    for name in (f"{os.getpid()}-x", "0-damaged-x", f"{2**22 + 1}-x", f"1-x@{'z' * 20}"):
        (partial / name).mkdir()
        (partial / name / "half").write_bytes(b"12345")
    assert call(store, "prune") == (0, "would remove 2 leftovers and 0 results, 10 B; --yes does it\n")
    assert len(list(partial.iterdir())) == 4
    assert call(store, "prune", "--yes") == (0, "removed 2 leftovers and 0 results, 10 B\n")
    # Another machine's process cannot be asked after: its folder stays until it is a week old.
    assert {p.name for p in partial.iterdir()} == {f"{os.getpid()}-x", f"1-x@{'z' * 20}"}
    os.utime(partial / f"1-x@{'z' * 20}", (0, 0))
    assert call(store, "prune", "--yes") == (0, "removed 1 leftovers and 0 results, 5 B\n")


def test_pruning_keeps_what_suites_need_and_waits_for_writers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.store_commands._keys", lambda suites, plugins: ({DATA, TRAIN}, []))
    busy = store.root / "partial" / f"{os.getppid()}-x"
    busy.mkdir()
    assert "is writing to" in call(store, "prune", "--keep", "toy", "--yes")[1]
    assert Store(store.root).has("data", digest_of(OTHER))
    busy.rmdir()
    assert "1 results" in call(store, "prune", "--keep", "toy", "--yes")[1]
    assert {key for _, key, _ in storing.entries(store)} == {DATA, TRAIN}


def test_what_a_run_with_a_plugin_file_made_is_needed(tmp_path: Path) -> None:
    budget = [{"name": "toy", "label": "toy", "parameters": {"budget": 120}}]
    file = write_suite(tmp_path, tasks=budget, attacks=["none"], device="auto")
    screen = Path(__file__).with_name("third_party") / "long_identifiers.py"
    suite = joined(load_suite(file), [screen])
    stages = merge(graphs_of(suite, load_registry(suite, [screen]), {}))
    filled = Store(tmp_path / "store")
    for key, stage in stages.items():
        filled.publish(stage.kind, key, stage.identity(), write(stage.kind))
    assert any(stage.kind == "screen" for stage in stages.values())
    status, told = call(filled, "prune", "--keep", str(file), "--plugin", str(screen))
    assert (status, "0 leftovers and 0 results" in told) == (0, True)
    device = resolve_device("auto")
    assert f"toy: 'device: auto' is {device} on this machine, so what was computed for it on another device" in told
    assert told.index("another device") < told.index("--yes does it")
    told = call(filled, "export", str(tmp_path / "all.tar"), "--suite", str(file), "--plugin", str(screen))[1]
    assert f"wrote {len(stages)} results" in told
    assert "device" not in call(filled, "prune", "--keep", str(write_suite(tmp_path, tasks=budget)))[1], "it names one"


def test_an_export_is_imported_byte_for_byte_and_twice_is_harmless(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "all.tar"
    assert "wrote 3 results" in call(store, "export", str(archive))[1]
    there = Store(tmp_path / "there")
    assert storing.import_(there, archive) == storing.Imported(3, 0)
    assert bytes_of(there.root) == bytes_of(store.root)
    assert storing.import_(Store(tmp_path / "there"), archive) == storing.Imported(0, 3)
    assert call(there, "verify")[0] == 0
    assert list((there.root / "partial").iterdir()) == []
    call(there, "export", str(tmp_path / "again.tar"))
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


def test_one_result_is_exported_with_all_that_it_was_made_from(store: Store, tmp_path: Path) -> None:
    assert "wrote 2 results" in call(store, "export", str(tmp_path / "one.tar"), "--key", TRAIN[:10])[1]
    storing.import_(Store(tmp_path / "there"), tmp_path / "one.tar")
    assert {key for _, key, _ in storing.entries(Store(tmp_path / "there"))} == {DATA, TRAIN}


def test_a_damaged_result_is_not_exported_and_no_half_archive_is_left(store: Store, tmp_path: Path) -> None:
    damage(store.folder("train", TRAIN), "flipped bit")
    with pytest.raises(StoreError, match="no intact train result"):
        storing.export(Store(store.root), {DATA: "data", TRAIN: "train"}, tmp_path / "all.tar")
    assert not list(tmp_path.glob("all.tar*"))


@pytest.mark.parametrize(
    "manifest",
    [b'{"files": {"a', b"[1]", b'{"kind": "train"}', b'{"kind": "train", "key": "k", "inputs": {"parents": [1]}}', None]
    + [b'{"kind": "train", "key": "k", "inputs": {"a": %s}}' % value for value in (b'"\\ud800"', b"[" * 10**5)],
    ids=["cut", "a list", "no inputs", "no parents", "missing", "half a character", "deep"],
)
def test_a_damaged_manifest_is_told_with_what_to_do(store: Store, tmp_path: Path, manifest: bytes | None) -> None:
    path = store.folder("train", TRAIN) / "manifest.json"
    if manifest is None:
        path.unlink()
    else:
        path.write_bytes(manifest)
    told = rf"the manifest.json of train result {TRAIN[:12]} is damaged.*store verify --remove"
    with pytest.raises(StoreError, match=told):
        explain(TRAIN[:10], store.root, Console())
    with pytest.raises(StoreError, match=told):
        storing.with_ancestors(store, [TRAIN])
    code, text = call(store, "export", str(tmp_path / "one.tar"), "--key", TRAIN)
    assert (code, re.search(told, text) is not None) == (1, True)
    assert call(store, "verify", "--remove")[0] == 0
    assert storing.with_ancestors(store, [TRAIN, DATA]) == {DATA: "data"}


def test_what_is_no_archive_that_can_be_read_is_said_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Store(tmp_path / "there")
    with pytest.raises(StoreError, match="is a folder; name an archive"):
        storing.import_(there, tmp_path)

    def refuses(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(tarfile, "open", refuses)
    with pytest.raises(StoreError, match=r"all\.tar cannot be taken in: .*Permission denied"):
        storing.import_(there, tmp_path / "all.tar")
    assert list((there.root / "partial").iterdir()) == []


def archive_with(path: Path, name: str, data: bytes = b"x", **more: object) -> Path:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in more.items():
            setattr(member, key, value)
        tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("name", "more"),
    [
        (f"entries/data/{DATA}/../../../../evil.json", {}),
        (f"/entries/data/{DATA}/evil.json", {}),
        ("../evil.json", {}),
        (f"entries/../{DATA}/evil.json", {}),
        (f"entries/data/{DATA}", {}),
        ("entries/data/short/facts.json", {}),
        (f"entries/data/{DATA}/model/model.pkl", {}),
        (f"entries/data/{DATA}/model/pytorch_model.bin", {}),
        (f"entries/data/{DATA}/facts.json", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}),
        (f"entries/data/{DATA}/facts.json", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd", "size": 0}),
        (f"entries/data/{DATA}/facts.json", {"type": tarfile.FIFOTYPE, "size": 0}),
    ],
)
def test_an_archive_that_climbs_links_or_carries_pickles_is_refused_whole(
    tmp_path: Path, name: str, more: dict[str, object]
) -> None:
    there = Store(tmp_path / "there")
    with pytest.raises(StoreError, match="which no export writes"):
        storing.import_(there, archive_with(tmp_path / "bad.tar", name, **more))
    assert list(storing.entries(there)) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar", "there"]
    assert list((there.root / "partial").iterdir()) == []


def test_an_archive_that_is_cut_short_or_changed_publishes_nothing_wrong(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "all.tar"
    call(store, "export", str(archive))
    whole = archive.read_bytes()
    archive.write_bytes(whole.replace(b"model" * 100, b"m0del" * 100))
    there = Store(tmp_path / "there")
    with pytest.raises(StoreError, match=rf"train result {TRAIN[:12]} is damaged: .*other bytes.*Export it again"):
        storing.import_(there, archive)
    assert {kind for kind, _, _ in storing.entries(there)} == {"data"}  # those before it are kept
    for length in range(0, len(whole), len(whole) // 12):
        archive.write_bytes(whole[:length])
        again = Store(tmp_path / f"there{length}")
        with suppress(StoreError):
            storing.import_(again, archive)
        assert all(damage is None for _, _, damage in storing.verify(again))
    with pytest.raises(StoreError, match="there is no such file"):
        storing.import_(there, tmp_path / "missing.tar")


def test_an_archive_that_holds_a_file_twice_or_below_a_file_is_damaged(store: Store, tmp_path: Path) -> None:
    storing.export(store, {DATA: "data"}, tmp_path / "one.tar")
    for below in ("", "/deep.json"):
        with tarfile.open(tmp_path / "one.tar") as old, tarfile.open(tmp_path / "two.tar", "w") as new:
            for member in old.getmembers():
                new.addfile(member, old.extractfile(member))
                member.name += below
                new.addfile(member, old.extractfile(member))
        with pytest.raises(DamagedArchive, match=r"twice, or below a file of it"):
            storing.import_(Store(tmp_path / "there"), tmp_path / "two.tar")
        assert list(storing.entries(Store(tmp_path / "there"))) == []
        assert list((tmp_path / "there" / "partial").iterdir()) == []


def _write_and_import(root: str, archive: str, start: float) -> None:
    store = Store(Path(root))
    for i in range(30):
        identity = {**IDENTITY, "inputs": {"seed": i}}
        store.publish("data", digest_of(identity), identity, write(f"value {i}"))
        if i % 10 == 5:
            storing.import_(Store(Path(root)), Path(archive))
            store.sweep()
            storing.kinds(store)


def test_writers_importers_and_sweepers_share_a_store(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "all.tar"
    storing.export(store, {TRAIN: "train"}, archive)
    context = multiprocessing.get_context("fork")
    there = tmp_path / "there"
    workers = [context.Process(target=_write_and_import, args=(str(there), str(archive), 0.0)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = Store(there)
    assert all(damage is None for _, _, damage in storing.verify(found))
    assert len(list(storing.entries(found))) == 31
    assert list((there / "partial").iterdir()) == []
    assert not (there / "conflicts.jsonl").exists()


def test_a_place_without_a_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        storing.open_store(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
