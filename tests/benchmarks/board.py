"""The board of 10,000 cells with 1,000 outcomes each: seconds and memory; its site, in a browser too; the bootstrap against a loop."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.board import Board, build_board, write_files
from bench.outcomes import OUTCOME_COLUMNS, write_outcomes
from bench.records import Coordinates, PoisonFacts, Record, Status
from bench.results import ResultsFolder
from bench.store import write_json
from tests.benchmarks import Measure

TASKS, MODELS, ATTACKS, DEFENSES, SEEDS = 4, 5, 10, 10, 5
CLEAN, TRIGGERED, REVERSE = 500, 300, 200
FAMILIES = ("none", "filter", "training", "repair", "screen")


def outcomes(rng: np.random.Generator, strength: float) -> pd.DataFrame:
    """1,000 answers in 300 groups; the defense takes away its strength of the backdoor."""
    part = np.repeat(["clean", "triggered", "reverse"], [CLEAN, TRIGGERED, REVERSE])
    n = len(part)
    place = np.concatenate([np.arange(CLEAN), np.arange(TRIGGERED), np.arange(REVERSE)])
    label = np.where(part == "clean", place % 2, part == "triggered").astype(int)

    def prediction(attack: float) -> NDArray[np.int64]:
        right = rng.random(n) < 0.85
        fooled = (part == "triggered") & (rng.random(n) < attack)
        return np.where(fooled, 0, np.where(right, label, 1 - label))

    def success(predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.where(
            part == "clean", predicted == label, np.where(part == "triggered", predicted == 0, predicted == 1)
        )

    columns: dict[str, object] = {
        "part": part,
        "id": [f"s{i:04}" for i in place],
        "group": [f"module{i // 2:03}" for i in place],
        "label": label,
        "probability": np.full(n, 0.5),
        "action": np.full(n, "accept"),
        "score": np.full(n, np.nan),
        "visible": np.ones(n, dtype=bool),
        **{f"{prefix}rank": np.zeros(n, dtype=int) for prefix in ("", "reference_", "undefended_")},
        "pool": np.zeros(n, dtype=int),
    }
    for prefix, attack in (("", 0.9 * (1 - strength)), ("reference_", 0.0), ("undefended_", 0.9)):
        columns[f"{prefix}prediction"] = prediction(attack)
        columns[f"{prefix}success"] = success(columns[f"{prefix}prediction"])  # type: ignore[arg-type]
    return pd.DataFrame({name: columns[name] for name in OUTCOME_COLUMNS})


def write_cells(folder: ResultsFolder) -> int:
    """Records of all cells; the tables of each defense and seed are drawn once and shared by links. Returns the cells."""
    folder.cells.mkdir(parents=True)
    count = 0
    for defense in range(DEFENSES):
        for seed in range(SEEDS):
            rng = np.random.default_rng([defense, seed])
            table = write_outcomes(outcomes(rng, defense / DEFENSES), folder.root / f"d{defense}s{seed}.parquet")
            for task in range(TASKS):
                for model in range(MODELS):
                    for attack in range(ATTACKS):
                        at = Coordinates(
                            task=f"task{task}",
                            model=f"model{model}",
                            attack=f"attack{attack}",
                            defense=f"defense{defense}" if defense else "none",
                            seed=seed,
                        )
                        poison = PoisonFacts(
                            train=3000, poisoned=150, refused=0, eligible=400, applicable=TRIGGERED, unseen=0
                        )
                        family = FAMILIES[min(defense, 4)]
                        record = Record(
                            suite="big",
                            coordinates=at,
                            status=Status.OK,
                            metric="accuracy",
                            family=family,
                            poison=poison,
                        )
                        write_json(folder.cells / f"{at.slug}.json", record.model_dump(mode="json"))
                        (folder.cells / f"{at.slug}.parquet").hardlink_to(table)
                        count += 1
    return count


def render(root: str) -> None:
    """Read, build and write the board of a folder; prints cells, wall seconds, CPU seconds and peak GB."""
    folder = ResultsFolder(Path(root))
    started, before = time.perf_counter(), time.process_time()
    found = folder.read()
    workers = os.cpu_count() or 1
    board: Board = build_board(found.records, folder.load, workers=workers)
    assert not board.apart
    assert len(board.rows) == TASKS * MODELS * ATTACKS * DEFENSES
    write_files(board, found.records, folder.root, workers=workers)
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Of the largest worker; each is counted as if it was as large.
    peak = (own.ru_maxrss + others.ru_maxrss * (os.cpu_count() or 1)) * 1024 / 1e9
    cpu = time.process_time() - before + others.ru_utime + others.ru_stime
    print(len(found.records), time.perf_counter() - started, cpu, peak)


def write_site(root: str) -> None:
    """Gather and write the site of a folder's board; prints both times, peak GB, and the front page."""
    from bench.site import (  # and with it torch, which a board does without and its measured memory must not hold
        gather,
        write_pages,
    )

    folder = ResultsFolder(Path(root))
    started = time.perf_counter()
    content = gather(folder.read().records, folder.load, name="big")
    gathered = time.perf_counter()
    front = write_pages(content, folder.root / "site")
    written = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(gathered - started, written - gathered, peak, front)


DRAWN = """
(function look() {
  if (document.querySelector("#board tbody tr td")) requestAnimationFrame(() => { window.drawnAfter = performance.now(); });
  else requestAnimationFrame(look);
})();
"""
"""Notes the milliseconds from navigation until the frame after the first in which the table has rows."""
SORT = """
(place) => new Promise((resolve) => {
  const body = document.querySelector("#board tbody");
  const started = performance.now();
  new MutationObserver((_, watching) => {
    watching.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - started)));
  }).observe(body, { childList: true });
  document.querySelectorAll("#board thead th")[place].click();
})
"""
"""Clicks on a column's header; milliseconds until its new rows have been painted."""


def in_a_browser(front: Path) -> list[Measure]:
    """Milliseconds until the front page's table is drawn, and of sorting it; nothing where there is no browser."""
    chromium = os.environ.get("CODEBACKDOORBENCH_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("no chromium: the site is not measured in a browser", file=sys.stderr)
        return []
    from playwright.sync_api import sync_playwright

    opened, sorts = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)
            page.add_init_script(DRAWN)
            page.goto(front.as_uri())
            page.wait_for_function("window.drawnAfter !== undefined")
            opened.append(page.evaluate("window.drawnAfter"))
            rows = int(page.locator(".dt-info").inner_text().split(" of ")[1].split()[0].replace(",", ""))
            assert rows == TASKS * MODELS * ATTACKS * DEFENSES
            sorts += [page.evaluate(SORT, place) for place in (7, 7, 0)]  # by lift up and down, by name
            page.close()
        browser.close()
    title = f"front page of {TASKS * MODELS * ATTACKS * DEFENSES:,} rows"
    return [
        Measure(
            f"{title}: milliseconds from navigation until its table is drawn", float(np.median(opened)), at_most=1000
        ),
        Measure(f"{title}: milliseconds of one sort", float(np.median(sorts)), at_most=300),
    ]


def in_its_own_process(function: str, folder: ResultsFolder) -> list[str]:
    """What a function of this module prints of a folder, word by word; its memory is its own."""
    code = f"from tests.benchmarks.board import {function}; {function}({str(folder.root)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def whole_board() -> list[Measure]:
    """The board and its site, from the same records."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = ResultsFolder(Path(scratch) / "big")
        cells = write_cells(folder)
        told = in_its_own_process("render", folder)
        assert int(told[0]) == cells
        wall, cpu, peak = map(float, told[1:])
        gathering, writing, site_peak, front = in_its_own_process("write_site", folder)
        pages = list(Path(front).parent.rglob("*.html"))
        assert len(pages) > cells
        size = sum(path.stat().st_size for path in Path(front).parent.rglob("*") if path.is_file()) / 1e6
        first = Path(front).stat().st_size / 1e6
        seen = in_a_browser(Path(front))
    title = f"board of {cells:,} cells x {CLEAN + TRIGGERED + REVERSE:,} outcomes"
    site = f"site of {cells:,} cells"
    return [
        Measure(f"{title}: seconds", wall, at_most=60),
        Measure(f"{title}: seconds of processor time", cpu),
        Measure(f"{title}: peak GB", peak, at_most=2.0),
        Measure(f"{site}: seconds to read and count its outcomes, one process", float(gathering)),
        Measure(f"{site}: seconds to write its {len(pages):,} pages, one process", float(writing), at_most=60),
        Measure(f"{site}: MB of all pages", size),
        Measure(f"{site}: MB of its front page", first),
        Measure(f"{site}: peak GB", float(site_peak), at_most=2.0),
        *seen,
    ]


def naive(parts: list[stats.Clustered], resamples: int) -> NDArray[np.float64]:
    """The bootstrap as one would write it: draw groups, gather their samples, take the mean; for each seed and resample."""
    names = np.unique(parts[0].groups)
    rng = np.random.default_rng(0)
    means = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.choice(names, len(names))
        each = []
        for part in parts:
            members = {name: part.columns[part.groups == name] for name in names} if i == 0 else each_members[id(part)]
            if i == 0:
                each_members[id(part)] = members
            rows = np.concatenate([members[name] for name in drawn])
            each.append(rows[:, 0].sum() / rows[:, 1].sum())
        means[i] = np.mean(each)
    return means


each_members: dict[int, dict[str, NDArray[np.float64]]] = {}


def bootstrap_ratio() -> Measure:
    """One number of three seeds, 2,000 resamples of 150 groups."""
    rng = np.random.default_rng(0)
    groups = np.array([f"g{i // 2}" for i in range(TRIGGERED)], dtype=object)
    parts = [
        stats.Clustered(np.stack([rng.random(TRIGGERED) < 0.5, np.ones(TRIGGERED)], axis=1).astype(float), groups)
        for _ in range(3)
    ]
    started = time.perf_counter()
    means = naive(parts, 200)
    plain = (time.perf_counter() - started) * stats.RESAMPLES / 200
    stats.two_level_bootstrap(parts, stats.mean_statistic)  # the draws are kept from here on, as on a board
    started = time.perf_counter()
    found = stats.two_level_bootstrap(parts, stats.mean_statistic)
    at_once = time.perf_counter() - started
    assert found is not None
    assert found.low is not None
    assert abs(np.quantile(means, 0.025) - found.low) < 0.02
    return Measure("bootstrap of one number, 3 seeds: times faster than the plain loop", plain / at_once, at_least=20)


def run() -> list[Measure]:
    """(title, measured, bound)."""
    return [bootstrap_ratio(), *whole_board()]
