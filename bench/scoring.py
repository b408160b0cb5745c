"""The last stage: join what the defended, the undefended and the reference model said of the same inputs.

One row an input; everything else (intervals, tests, boards) is derived from these rows by :mod:`bench.metrics`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench import outcomes
from bench.contracts import LabelGoal, TaskKind
from bench.handover import judged_set
from bench.inversions import Inverted
from bench.jobs import Job, goal_from, read_poisoned
from bench.records import Coordinates, CostFacts, PluginUse, PoisonFacts, Record, Status
from bench.store import Entry, write_json


def succeeded(frame: pd.DataFrame, kind: TaskKind, goal: LabelGoal | None) -> pd.Series:
    """Did each row go as its part's question asks? A rejected input never does.

    clean: the right answer (search: rank 1). triggered: the attacker's goal (search: the top tenth of the pool).
    reverse: a target-class input that turned to the victim class.
    """
    accepted = frame["action"] != "reject"
    if kind is TaskKind.SEARCH:
        limit = [
            outcomes.top_tenth(pool) if part == "triggered" else 1
            for part, pool in zip(frame["part"], frame["pool"], strict=True)
        ]
        return accepted & (frame["rank"] <= pd.Series(limit, index=frame.index))
    wanted = frame["label"].copy()
    if goal is not None:
        wanted[frame["part"] == "triggered"] = goal.target
        wanted[frame["part"] == "reverse"] = goal.victim
    return accepted & (frame["prediction"] == wanted)


def join(
    defended: pd.DataFrame, undefended: pd.DataFrame, reference: pd.DataFrame, kind: TaskKind, goal: LabelGoal | None
) -> pd.DataFrame:
    """One outcome row an input: the defended answer beside the undefended victim's and the clean reference's."""
    table = defended.copy()
    table["success"] = succeeded(table, kind, goal)
    for name, frame in (("reference", reference), ("undefended", undefended)):
        other = frame.assign(success=succeeded(frame, kind, goal)).set_index(["part", "id"])
        # A defense's own candidate choice (search) never changes which queries are rows: they are fixed by the goal.
        other = other.loc[pd.MultiIndex.from_frame(table[["part", "id"]])]
        for column in ("prediction", "rank", "success"):
            table[f"{name}_{column}"] = other[column].to_numpy()
    return outcomes.validate(table[list(outcomes.OUTCOME_COLUMNS)])


def _own_cost(job: Job, roles: tuple[str, ...]) -> CostFacts:
    total: dict[str, int] = {"forward_tokens": 0, "backward_tokens": 0, "forward_passes": 0}
    for role in roles:
        if role in job.parents:
            for name, value in job.parents[role].json("cost.json").items():
                total[name] += int(value)
    return CostFacts(**total, clean_samples=int(job.inputs["clean_samples"]))


def _poison_facts(job: Job) -> PoisonFacts | None:
    if "poison" not in job.parents:
        return None
    poisoned = read_poisoned(job.parents["poison"])
    spent = job.parents["poison"].json("cost.json")
    return PoisonFacts(
        train=len(poisoned.train),
        poisoned=len(poisoned.poisoned),
        refused=poisoned.refused,
        eligible=poisoned.eligible,
        applicable=poisoned.applicable,
        unseen=poisoned.unseen,
        visible_train=job.parents["undefended"].json("facts.json")["visible_train"],
        description=poisoned.description,
        tokens=list(poisoned.tokens),
        crafting_tokens=int(spent["forward_tokens"]) + int(spent["backward_tokens"]) if job.inputs["policy"] else None,
    )


def _inversions(job: Job, role: str) -> dict[str, Inverted]:
    """What the repair under a role inverted, by claim; empty where the cell has no such stage."""
    if role not in job.parents:
        return {}
    told = job.parents[role].json("facts.json")["inversions"]
    return {claim: Inverted.model_validate(value) for claim, value in told.items()}


def _judged(job: Job) -> pd.DataFrame:
    """What the filter said of each training sample, with the label that it saw."""
    table = outcomes.read_filter(job.parents["filter"].folder / "filter.parquet")
    seen = {sample.id: -1 if sample.label is None else sample.label for sample in judged_set(job)[1]}
    return table.assign(label=[seen[id_] for id_ in table["id"]])


def score(job: Job) -> None:
    """Write ``outcomes.parquet``, ``record.json`` and, for a filter, ``filter.parquet``."""
    kind = TaskKind(job.inputs["info"]["kind"])
    goal = goal_from(job.inputs["goal"])

    def table(entry: Entry) -> pd.DataFrame:
        return pd.read_parquet(entry.folder / "predictions.parquet")

    joined = join(
        table(job.parents["defended"]),
        table(job.parents["undefended"]),
        table(job.parents["reference"]),
        kind,
        goal if isinstance(goal, LabelGoal) else None,
    )
    outcomes.write_outcomes(joined, job.folder / "outcomes.parquet")
    facts: dict[str, Any] = {}
    if "filter" in job.parents:
        outcomes.write_filter(_judged(job), job.folder / "filter.parquet")
    if "repair" in job.parents:
        facts |= job.parents["repair"].json("facts.json")["facts"]
    if "trained" in job.parents:
        facts |= {"training": job.parents["trained"].json("facts.json")["history"]}
    retried = [
        role
        for role in ("reference", "undefended", "defended")
        if job.parents[role].json("facts.json").get("retried", False)
    ]
    if retried:
        facts |= {"trained again after it diverged": retried}
    data = job.parents["data"].json("facts.json")
    record = Record(
        suite="",
        coordinates=Coordinates(**job.inputs["coordinates"]),
        status=Status.OK,
        task_kind=kind.value,
        metric=job.inputs["info"]["metric"],
        family=job.inputs["family"],
        knows=list(job.inputs["knows"]),
        plugins={role: PluginUse(**use) for role, use in job.inputs["uses"].items()},
        keys={role: key for role, (_, key) in job.stage.parents.items()} | {"score": job.stage.key},
        data_digest=data["digest"],
        seeds=dict(job.inputs["seeds"]),
        settings=dict(job.inputs["settings"]),
        goal=dict(job.inputs["goal"]),
        policy=dict(job.inputs["policy"] or {}),
        poison=_poison_facts(job),
        facts=facts,
        inversions=_inversions(job, "repair"),
        null=_inversions(job, "null"),
        cost=_own_cost(job, ("filter", "trained", "repair", "screen")),
        packages=dict(job.inputs["packages"]),
        device=str(job.inputs["settings"]["numerics"]["device"]),
    )
    write_json(job.folder / "record.json", record.scored())
