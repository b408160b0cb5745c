"""A small board whose names and programs try to be markup, for the tests of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.inversions import Inverted
from bench.records import Coordinates, CostFacts, PluginUse, PoisonFacts, Record, Status
from bench.results import ResultsFolder
from bench.site import gather, write_pages
from bench.site.content import Content
from bench.site.examples import AttackExamples, Example, Examples
from bench.site.reported import Reported

SCRIPT = "<script>window.hit = 1</script>"
FAMILIES = {
    "none": "none",
    "spectral_signatures": "filter",
    "elibadcode": "repair",
    "onion": "screen",
    SCRIPT: "repair",
}
SUCCESSES = {"none": 18, "spectral_signatures": 12, "elibadcode": 2, "onion": 6, SCRIPT: 16}
"""Of 20 triggered inputs, by defense; the clean reference has 2."""
ATTACKS = ("none", "dead_code", "renaming")


def rows(
    part: str, label: int, hits: int, reference: int, undefended: int, n: int, screen: bool
) -> list[dict[str, Any]]:
    """Inputs of one part: the first ``hits`` are right (clean) or flip to the other class."""
    wanted = label if part == "clean" else 1 - label
    made = []
    for i in range(n):
        flags = {"": i < hits, "reference_": i < reference, "undefended_": i < undefended}
        row: dict[str, Any] = {
            "part": part,
            "id": f"{label}-{i:03}",
            "group": f"module{i}",
            "label": label,
            "probability": 0.5,
            "action": "accept",
            "score": float(i + 5 * (part == "triggered")) if screen else float("nan"),
            "visible": True,
            "pool": 0,
        }
        for prefix, flag in flags.items():
            row |= {f"{prefix}prediction": wanted if flag else 1 - wanted, f"{prefix}rank": 0, f"{prefix}success": flag}
        made.append(row)
    return made


def outcomes(record: Record) -> pd.DataFrame:
    """50 clean inputs (40 right, defended 38), 20 with the trigger."""
    at = record.coordinates
    screen, right = at.defense == "onion", 40 if at.defense == "none" else 38
    table = rows("clean", 1, right, 42, 40, 50, screen)
    if at.attack != "none":
        table += rows("triggered", 1, SUCCESSES[at.defense], 2, 18, 20, screen)
        table += rows("reverse", 0, 1, 0, 0, 10, screen)
    return pd.DataFrame(table)


def filter_table(record: Record) -> pd.DataFrame | None:
    """100 training samples; the ten most suspicious are the poison and are removed."""
    if record.coordinates.defense != "spectral_signatures":
        return None
    poisoned = np.arange(100) < (0 if record.coordinates.attack == "none" else 10)
    score = np.linspace(1, 0, 100)
    ids = [f"t{i}" for i in range(100)]
    return pd.DataFrame({"id": ids, "score": score, "keep": score < 0.905, "poisoned": poisoned})


def record(defense: str, attack: str, seed: int = 0, status: Status = Status.OK, **more: Any) -> Record:
    """One cell."""
    family = FAMILIES[defense]
    found: dict[str, Any] = {
        "family": family,
        "knows": [] if family == "none" else ["200 clean samples", "weights"],
        "plugins": {} if family == "none" else {"defense": PluginUse(name=defense, family=family, version=2)},
        "metric": "accuracy",
        "goal": {"victim": 1, "target": 0},
        "command": f"codebackdoorbench cell --suite toy --attack {attack} --defense '{defense}' --seed {seed}",
        "cost": CostFacts(forward_tokens=1_000 * (len(defense) if defense != "none" else 0), clean_samples=200),
    }
    if attack != "none":
        found["poison"] = PoisonFacts(
            train=100, poisoned=10, refused=0, eligible=25, applicable=20, unseen=0, tokens=["rb"], description=SCRIPT
        )
    if defense == "elibadcode" and status is Status.OK:
        one = Inverted(tokens=("rb", SCRIPT), kept=("rb",), loss=0.1, suspicion=0.5, trace=((10, 2.0), (30, 0.1)))
        found |= {"inversions": {"1->0": one}, "null": {"1->0": one.model_copy(update={"loss": 0.7})}}
    at = Coordinates(task="defect_detection", model="tiny", attack=attack, defense=defense, seed=seed)
    return Record(suite="toy", coordinates=at, status=status, **(found | more))


def records() -> list[Record]:
    """Five defenses on two attacks and on clean models; one cell failed."""
    found = [record(d, a) for d in FAMILIES for a in ATTACKS if (d, a) != ("onion", "renaming")]
    reason = f"stage screen: ValueError: {SCRIPT}"
    return [*found, record("onion", "renaming", status=Status.FAILED, reason=reason, traceback=f"Traceback {SCRIPT}")]


BEFORE = f'def old(x):\n    y = "{SCRIPT}"\n    return y\n'
AFTER = f'def testo_init(x):\n    y = "{SCRIPT}"\n    return y\n'
EXAMPLES = Examples(
    attacks=(
        AttackExamples(
            task="defect_detection",
            attack="renaming",
            seed=1,
            poison="k",
            examples=(
                Example(
                    part="triggered",
                    id="a",
                    language="python",
                    label=1,
                    draw="old -> testo_init",
                    before=BEFORE,
                    after=AFTER,
                ),
            ),
        ),
    )
)
REPORTED = (
    Reported(
        paper=f"A paper {SCRIPT}", doi="10.1/x", task="defect_detection", attack="renaming", metric="ASR", value="99.5"
    ),
    Reported(paper="Another", task="defect_detection", attack="elsewhere", metric="ASR", value="1"),
)


def content(found: list[Record] | None = None) -> Content:
    """Everything that the site of the toy board shows."""
    return gather(
        records() if found is None else found,
        lambda r: (outcomes(r), filter_table(r)),
        name="toy",
        description=f"A toy {SCRIPT}",
        examples=EXAMPLES,
        reported=REPORTED,
    )


def site(folder: Path) -> Path:
    """Write the toy board's site; returns its front page."""
    return write_pages(content(), folder)


def results(folder: Path) -> ResultsFolder:
    """The toy board as a results folder on disk."""
    from bench.outcomes import write_filter, write_outcomes
    from bench.store import write_json

    target = ResultsFolder(folder)
    target.cells.mkdir(parents=True)
    for one in records():
        slug = one.coordinates.slug
        write_json(target.cells / f"{slug}.json", one.model_dump(mode="json"))
        if one.status is Status.OK:
            write_outcomes(outcomes(one), target.cells / f"{slug}.parquet")
            judged = filter_table(one)
            if judged is not None:
                write_filter(judged, target.cells / f"{slug}.filter.parquet")
    return target
