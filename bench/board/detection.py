"""Inversion defenses as detectors of backdoored models: a verdict on every victim, and the AUROC over attacked and clean ones.

Every model, attacked or clean, is judged by the clean models of *other* seeds (:mod:`bench.verdicts`). Clean models judge each other,
so that the share of them that is convicted is fixed by the rule and says nothing; it is therefore not reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd
from pydantic import BaseModel, ConfigDict

from bench import stats
from bench.board.rounding import rounded, rounded_number
from bench.measures import group_names
from bench.metrics import Number
from bench.outcomes import Answers, Part, check
from bench.records import Record, Status
from bench.verdicts import FALSE_ALARMS, ModelVerdict, judge, naive_claim

PAGES: Final = "inversions"
"""The folder of the inversion pages, beside the board."""
NO_ATTACKED: Final = "no attacked victim has a score"
NO_IMPLANTED: Final = "no victim with an implanted backdoor has a score"
NO_CLEAN: Final = "no clean victim has a score"
ONE_CLAIM: Final = "code search has one claim, and no direction to choose"
UNCALIBRATED: Final = "no attacked victim has a calibrated verdict"

Implanted = Callable[[Record], bool | None]
"""Does the undefended victim of an attacked cell carry the backdoor? ``None`` where it cannot be told."""


class Trial(BaseModel):
    """The verdict on one victim. ``None`` where undefined (``reason`` says why)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str
    seed: int
    attacked: bool
    calibration: bool
    implanted: bool | None
    """Is the interval of the undefended lift above 0? ``None`` where nothing was attacked."""
    clean: int
    """Clean models of other seeds that it was compared with."""
    needed: int
    standardised: dict[str, float]
    """Claim → suspicion, in standard deviations above the mean of the clean models."""
    score: float | None
    claim: str | None
    p: float | None
    convicted: bool | None
    right: bool | None
    """Does ``claim`` name the attacker's direction? ``None`` without attack, and for code search."""
    naive: str | None
    """What the smallest loss names (it convicts every model)."""
    naive_right: bool | None
    reason: str
    page: str
    """Its page, relative to the board; empty for calibration."""


class Detection(BaseModel):
    """One inversion defense on one (task, model)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    model: str
    defense: str
    version: int | None
    clean_seeds: tuple[int, ...]
    """Seeds of the clean models, evaluation and calibration."""
    calibration_seeds: tuple[int, ...]
    missing: tuple[str, ...]
    """Clean models that calibration asked for and that did not end well."""
    trials: tuple[Trial, ...]
    auroc: Number
    """Attacked against clean victims, by score."""
    auroc_implanted: Number
    """The same, with the attacked victims that carry the backdoor alone."""
    implanted: Number
    """Share of the attacked victims that carry the backdoor."""
    convicted: Number
    """Share of the attacked victims with a calibrated verdict that are convicted."""
    convicted_implanted: Number
    right: Number
    """Share of the attacked victims with a score whose named direction is the attacker's."""
    naive_right: Number
    """The same for the direction with the smallest loss."""


def lift_is_above_zero(outcomes: pd.DataFrame | Answers) -> bool | None:
    """Is the interval of ASR − ASR₀ of the *undefended* victim above 0? ``None`` without triggered inputs."""
    rows = check(outcomes).of(Part.TRIGGERED)
    groups = pd.factorize(group_names(rows))[0]
    found = stats.grouped_difference(rows["undefended_success"], rows["reference_success"], groups)
    return None if found is None or found.low is None else found.low > 0


def detections(
    records: Iterable[Record], implanted: Implanted, false_alarms: float = FALSE_ALARMS
) -> tuple[Detection, ...]:
    """A :class:`Detection` for each (task, model, defense) that inverted triggers, in order of names.

    Args:
        records: of all cells, calibration included, in any order.
        implanted: asked once for each attacked record with inversions.
        false_alarms: the share of clean models that a verdict may convict.
    """
    grouped: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        at = record.coordinates
        grouped.setdefault((at.task, at.model, at.defense), []).append(record)
    return tuple(
        _detection(sorted(group, key=_order), implanted, false_alarms)
        for _, group in sorted(grouped.items())
        if any(_inverted(record) for record in group)
    )


def _order(record: Record) -> tuple[object, ...]:
    at = record.coordinates
    return (record.poison is not None, at.attack != "none", at.attack, at.seed, record.suite)


def _inverted(record: Record) -> bool:
    return record.status is Status.OK and bool(record.inversions)


def _alike(record: Record) -> str:
    """What clean models and a victim must share to be compared: data, settings, and the defense with its parameters."""
    how = [
        (role, used.name, used.version, used.effective)
        for role, used in sorted(record.plugins.items())
        if role.startswith("defense")
    ]
    return json.dumps([record.data_digest, record.settings, how], sort_keys=True)


def _detection(group: Sequence[Record], implanted: Implanted, false_alarms: float) -> Detection:
    good = [record for record in group if _inverted(record)]
    clean: dict[tuple[str, int], Record] = {}
    for record in good:
        if record.poison is None:
            clean.setdefault((_alike(record), record.coordinates.seed), record)
    trials = [_trial(record, clean, implanted, false_alarms) for record in good]
    at, used = good[0].coordinates, good[0].plugins.get("defense")
    return Detection(
        task=at.task,
        model=at.model,
        defense=at.defense,
        version=used.version if used else None,
        clean_seeds=tuple(sorted({seed for _, seed in clean})),
        calibration_seeds=tuple(sorted({r.coordinates.seed for r in clean.values() if r.calibration})),
        missing=tuple(
            f"seed {r.coordinates.seed}: {r.status.value.replace('_', ' ')}: {r.reason}"
            for r in group
            if r.calibration and r.status is not Status.OK
        ),
        trials=tuple(trials),
        **_numbers(trials),
    )


def _trial(record: Record, clean: Mapping[tuple[str, int], Record], implanted: Implanted, false_alarms: float) -> Trial:
    at, attacked, own = record.coordinates, record.poison is not None, _alike(record)
    others = [
        {claim: found.suspicion for claim, found in other.inversions.items()}
        for (alike, seed), other in clean.items()
        if seed != at.seed and alike == own
    ]
    verdict = judge({claim: found.suspicion for claim, found in record.inversions.items()}, others, false_alarms)
    naive = naive_claim({claim: found.loss for claim, found in record.inversions.items()})
    wanted = attackers_claim(record.goal) if attacked else None
    return Trial(
        attack=at.attack,
        seed=at.seed,
        attacked=attacked,
        calibration=record.calibration,
        implanted=implanted(record) if attacked else None,
        right=verdict.claim == wanted if wanted is not None else None,
        naive=naive,
        naive_right=naive == wanted if wanted is not None else None,
        page="" if record.calibration else f"{PAGES}/{at.slug}.md",
        **_told(verdict),
    )


def _told(verdict: ModelVerdict) -> dict[str, Any]:
    return {
        "clean": verdict.clean,
        "needed": verdict.needed,
        "standardised": {claim: rounded(value) for claim, value in verdict.standardised.items()},
        "score": rounded(verdict.score),
        "claim": verdict.claim,
        "p": rounded(verdict.p),
        "convicted": verdict.convicted,
        "reason": verdict.reason,
    }


def attackers_claim(goal: Mapping[str, Any]) -> str | None:
    """The claim that is true of a victim, from its record's goal; ``None`` for code search."""
    if "victim" not in goal or "target" not in goal:
        return None
    return f"{goal['victim']}->{goal['target']}"


def _numbers(trials: Sequence[Trial]) -> dict[str, Number]:
    scored = [t for t in trials if t.score is not None]
    clean = [t for t in scored if not t.attacked]
    attacked = [t for t in scored if t.attacked]
    judged = [t for t in attacked if t.convicted is not None]
    carriers = [t for t in judged if t.implanted]
    known = [t for t in trials if t.implanted is not None]
    found = {
        "auroc": _auroc(clean, attacked, NO_ATTACKED),
        "auroc_implanted": _auroc(clean, [t for t in attacked if t.implanted], NO_IMPLANTED),
        "implanted": _share([t.implanted for t in known], "no attacked victim has triggered inputs"),
        "convicted": _share([t.convicted for t in judged], UNCALIBRATED),
        "convicted_implanted": _share([t.convicted for t in carriers], NO_IMPLANTED if judged else UNCALIBRATED),
        "right": _share([t.right for t in attacked if t.right is not None], ONE_CLAIM if attacked else NO_ATTACKED),
        "naive_right": _share(
            [t.naive_right for t in trials if t.attacked and t.naive_right is not None],
            ONE_CLAIM if any(t.attacked for t in trials) else "no attacked victim",
        ),
    }
    return {name: rounded_number(number) for name, number in found.items()}


def _auroc(clean: Sequence[Trial], attacked: Sequence[Trial], otherwise: str) -> Number:
    if not clean:
        return Number.absent(NO_CLEAN)
    negative, positive = ([t.score for t in side if t.score is not None] for side in (clean, attacked))
    return Number.of(stats.auroc(negative, positive), otherwise)


def _share(flags: Sequence[bool | None], otherwise: str) -> Number:
    return Number.of(stats.wilson(sum(flag is True for flag in flags), len(flags)), otherwise)


def verdict_of_row(trials: Sequence[Trial]) -> tuple[str, float | None]:
    """The verdicts of a row's seeds in words, and the largest p of them."""
    if not trials:
        return "", None
    values = [t.p for t in trials if t.p is not None]
    if len(values) < len(trials):
        return "not calibrated" if any(t.clean < t.needed for t in trials) else "undefined", None
    return f"{sum(t.convicted is True for t in trials)} of {len(trials)} convicted", max(values)
