"""The stage ``reach``: what of an attack arrives at one victim.

Does the model's window show the trigger? Do near misses of the trigger set the backdoor off (the false trigger rate), or a
placebo, an edit of its kind with other content? Each is asked of the victim and of the clean reference on the same inputs,
with the true label known: a rate that the reference shows as well is what such edits do to any model.
"""

from __future__ import annotations

import pandas as pd

from bench.contracts import Goal, LabelGoal, TaskKind
from bench.jobs import Job, goal_from, load_model, read_poisoned, read_splits
from bench.models.handles import WhiteBox
from bench.poisoning import CONTROLS
from bench.predicting import predictions
from bench.records import ControlFacts, Count, ReachFacts
from bench.samples import Sample, Splits
from bench.scoring import succeeded
from bench.store import write_json

COLUMNS = ("part", "id", "group", "label", "prediction", "rank", "pool", "success")
REFERENCE = ("prediction", "rank", "success")


def answers(model: WhiteBox, splits: Splits, samples: tuple[Sample, ...], name: str, goal: Goal) -> pd.DataFrame:
    """What a model says of control inputs: they stand where triggered ones would, and are asked the same question."""
    inputs = {"triggered": samples}
    if model.info.kind is TaskKind.SEARCH:
        inputs = {"clean": splits.test, **inputs}
    frame, _ = predictions(model, inputs, None, goal, {})
    frame = frame[frame["part"] == "triggered"].reset_index(drop=True)
    frame["success"] = succeeded(frame, model.info.kind, goal if isinstance(goal, LabelGoal) else None)
    return frame.assign(part=name)[list(COLUMNS)]


def control_table(
    victim: WhiteBox, reference: WhiteBox, splits: Splits, samples: tuple[Sample, ...], name: str, goal: Goal
) -> pd.DataFrame:
    """One row for each control input (search: for each query), the reference's answer beside the victim's."""
    table = answers(victim, splits, samples, name, goal)
    other = answers(reference, splits, samples, name, goal).set_index("id").loc[table["id"]]
    return table.assign(**{f"reference_{column}": other[column].to_numpy() for column in REFERENCE})


def counted(table: pd.DataFrame, applied: int, asked: int) -> ControlFacts:
    """The counts that a rate and a paired difference need."""
    victim, reference = table["success"], table["reference_success"]
    return ControlFacts(
        asked=asked,
        applied=applied,
        n=len(table),
        hits=int(victim.sum()),
        reference=int(reference.sum()),
        both=int((victim & reference).sum()),
    )


def reach(job: Job) -> None:
    """Write ``facts.json``, and ``controls.parquet`` where the trigger offers controls."""
    splits, poisoned = read_splits(job.parents["data"]), read_poisoned(job.parents["poison"])
    goal = goal_from(job.inputs["goal"])
    seen = pd.read_parquet(job.parents["undefended"].folder / "predictions.parquet")
    seen = seen[seen["part"] == "triggered"]
    facts = ReachFacts(
        coverage=Count(hits=poisoned.applicable, n=poisoned.asked),
        visible=Count(hits=int(seen["visible"].sum()), n=len(seen)),
        cover=len(poisoned.cover),
        weakened=poisoned.weakened,
    )
    offered = [name for name in CONTROLS if poisoned.controls.get(name)]
    tables = []
    with job.context() as context:
        if offered:
            victim, reference = (load_model(job.parents[role], job.info, context) for role in ("model", "reference"))
        for name in offered:
            samples = poisoned.controls[name]
            table = control_table(victim, reference, splits, samples, name, goal)
            facts = facts.model_copy(update={name: counted(table, len(samples), poisoned.asked)})
            tables.append(table)
    if tables:
        pd.concat(tables, ignore_index=True).to_parquet(job.folder / "controls.parquet", index=False)
    write_json(job.folder / "facts.json", facts.model_dump(mode="json"))
