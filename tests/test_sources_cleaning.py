"""The cleaned variants: what leaks across splits or contradicts itself goes, everything else stays, and both are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bench.context import Context
from bench.records import Record
from bench.results import ResultsFolder
from bench.samples import Sample
from bench.site.cell import _provenance
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection
from tasks.sources.cleaning import THRESHOLD, _digest, cleaned, clusters
from tasks.sources.dealing import jaccard, shingles
from tasks.sources.installed import lexical_tokens
from tasks.sources.sizes import Published
from tests.engine import run, write_suite

DATA = Path(__file__).parents[2] / "shared" / "data"
WORDS = [f"word{i}" for i in range(400)]


def program(seed: int, length: int = 60) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


def near(text: str) -> str:
    """One token of sixty changed: three of its 58 runs."""
    return text.replace(text.split()[30], "changed", 1)


def sample(name: str, *texts: str, label: int | None = 0, group: str = "") -> Sample:
    return Sample(name, texts, "c", label, None if label is not None else "query", group or name)


def ids(part: Sequence[Sample]) -> list[str]:
    return [s.id for s in part]


def test_conflicts_commits_and_near_duplicates_go_in_this_order_and_are_counted() -> None:
    a, b, c, d, e = (program(i) for i in range(5))
    data = Published(
        "known",
        train=[
            sample("conflict1", a, label=0),
            sample("commit of test", b, group="shared"),
            sample("near test", near(c)),
            sample("near valid", near(d)),
            sample("kept", e),
            sample("kept too", near(e), label=1),  # within a split, and no conflict: a fix changes a line
        ],
        valid=[
            sample("conflict2", a.replace(" ", "\n  "), label=1),
            sample("valid", d),
            sample("valid near test", near(near(c))),
        ],
        test=[sample("test", c), sample("test2", program(9), group="shared")],
    )
    found = cleaned(data, commits=True)
    assert ids(found.train) == ["kept", "kept too"]
    assert ids(found.valid) == ["valid"]
    assert ids(found.test) == ["test", "test2"]
    assert found.facts["cleaned"] == {
        "published": {"test": 2, "valid": 3, "train": 6},
        "label conflicts": {"test": 0, "valid": 1, "train": 1},
        "commit overlap": {"test": 0, "valid": 0, "train": 1},
        "near-duplicates across splits": {"test": 0, "valid": 1, "train": 2},
    }
    assert "commit of test" in ids(cleaned(data, commits=False).train)


def test_pairs_are_compared_as_pairs_in_either_order() -> None:
    a, b, c = (program(i) for i in range(3))
    data = Published(
        "pairs",
        train=[sample("same", near(b), a, label=1), sample("half", a, c, label=1), sample("torn", b, c, label=0)],
        valid=[],
        test=[sample("test", a, b, label=1), sample("torn2", c, b, label=1)],
    )
    found = cleaned(data, commits=False)
    assert (ids(found.train), ids(found.test)) == (["half"], ["test"])


def test_queries_have_no_labels_to_contradict() -> None:
    a = program(0)
    data = Published(
        "search",
        [sample("train", near(a), label=None)],
        [],
        [sample("test", a, label=None), sample("2", a, label=None)],
    )
    found = cleaned(data, commits=False)
    assert (ids(found.train), ids(found.test)) == ([], ["test", "2"])


def test_clusters_are_the_classes_of_what_brute_force_finds_alike() -> None:
    rng = np.random.default_rng(0)
    texts = [program(i, int(rng.integers(20, 80))) for i in range(60)]
    for _ in range(100):
        words = texts[int(rng.integers(len(texts)))].split()
        for place in rng.integers(len(words), size=int(rng.integers(1, 3))):
            words[int(place)] = str(rng.choice(WORDS))
        texts.append(" ".join(words))
    texts = list(dict.fromkeys(texts))
    found = clusters(texts, {t: _digest(lexical_tokens(t)) for t in texts})
    leader = {t: t for t in texts}

    def lead(text: str) -> str:
        return text if leader[text] == text else lead(leader[text])

    alike = 0
    for one, other in combinations(texts, 2):
        if jaccard(shingles(one), shingles(other)) >= THRESHOLD:
            alike += 1
            leader[lead(one)] = lead(other)
    assert alike > 30
    for one, other in combinations(texts, 2):
        assert (found[one] == found[other]) == (lead(one) == lead(other))


def test_a_task_reports_the_counts_beside_the_data(tmp_path: Path) -> None:
    rows = [{"project": "p", "commit_id": f"c{i}", "target": i % 2, "func": program(i)} for i in range(12)]
    rows[11] = {**rows[0], "commit_id": "c11"}
    (tmp_path / "function.json").write_text(json.dumps(rows))
    for split, numbers in {"train": range(8), "valid": range(8, 10), "test": range(10, 12)}.items():
        (tmp_path / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
    context = Context({"data": 0}, Path("unused"))
    whole = DefectDetection(source="devign", path=str(tmp_path), budget=0)
    part = DefectDetection(source="devign", path=str(tmp_path), budget=0, cleaned=True)
    assert len(whole.splits(context).train) == 8
    found = part.splits(context)
    assert len(found.train) == 7
    assert found.notes["source"]["cleaned"]["near-duplicates across splits"] == {"test": 0, "valid": 0, "train": 1}


def test_a_record_tells_what_was_left_out_and_one_of_other_data_nothing(tmp_path: Path) -> None:
    rows = [{"project": "p", "commit_id": f"c{i}", "target": i % 2, "func": program(i, 20)} for i in range(40)]
    rows[39] = {**rows[0], "commit_id": "c39", "target": 1}  # contradicts what is in train
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "function.json").write_text(json.dumps(rows))
    for split, numbers in {"train": range(24), "valid": range(24, 30), "test": range(30, 40)}.items():
        (tmp_path / "data" / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
    task = {"name": "defect_detection", "parameters": {"source": "devign", "path": str(tmp_path / "data"), "budget": 2}}
    whole = {**task, "label": "whole"}
    clean = {**task, "label": "clean", "parameters": {**task["parameters"], "cleaned": True}}  # type: ignore[dict-item]
    suite = write_suite(tmp_path, tasks=[whole, clean], attacks=["none"], plugins=[], training={"epochs": 1})
    cells = tmp_path / "results" / "toy" / "cells"

    def records() -> dict[str, Record]:
        done = run("run", suite, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return {r.coordinates.task: r for r in ResultsFolder(cells.parent).records()}

    found = records()
    assert found["whole"].facts == {}
    assert found["clean"].facts == {
        "cleaned": {
            "published": {"test": 10, "valid": 6, "train": 24},
            "label conflicts": {"test": 1, "valid": 0, "train": 1},
            "commit overlap": {"test": 0, "valid": 0, "train": 0},
            "near-duplicates across splits": {"test": 0, "valid": 0, "train": 0},
        }
    }
    told = dict(dict(_provenance(found["clean"]))["Seeds and data"])
    assert told["cleaned: label conflicts"] == '{"test": 1, "train": 1, "valid": 0}'
    assert not {"What the defense tells of itself"} & set(dict(_provenance(found["clean"])))
    # A score that is known already: its data are made again, and tell the same.
    texts = {path.name: path.read_bytes() for path in cells.glob("*.json")}
    shutil.rmtree(tmp_path / "store" / "entries" / "data")
    records()
    assert {path.name: path.read_bytes() for path in cells.glob("*.json")} == texts


@pytest.mark.skipif(not DATA.is_dir(), reason="no published data on this machine")
@pytest.mark.parametrize(
    "make",
    [
        lambda on: DefectDetection(source="devign", path=str(DATA / "devign"), cleaned=on),
        lambda on: CloneDetection(source="bigclonebench", path=str(DATA / "bigclonebench"), cleaned=on),
        lambda on: CodeSearch(source="codesearchnet", path=str(DATA / "codesearchnet-python"), cleaned=on),
    ],
    ids=["devign", "bigclonebench", "codesearchnet"],
)
def test_cleaning_real_data_leaves_most_of_it_and_no_leak(make) -> None:  # type: ignore[no-untyped-def]
    context = Context({"data": 0}, Path("unused"))
    whole, part = make(False).splits(context), make(True).splits(context)
    counts = part.notes["source"]["cleaned"]
    for split in ("train", "valid", "test"):
        gone = sum(step[split] for name, step in counts.items() if name != "published")
        kept = len(getattr(part, split)) + (len(part.budget) if split == "train" else 0)
        assert kept == counts["published"][split] - gone
    assert {s.id for s in part.test} <= {s.id for s in whole.test}
    assert len(part.test) >= 0.95 * len(whole.test)
    texts = {tuple(sorted(s.programs)) for s in part.test}
    assert not texts & {tuple(sorted(s.programs)) for s in part.train + part.budget + part.valid}
