"""What a model says of a cell's test inputs, one row an input: the raw material of every number.

Code search (ANR, as in Wan et al. FSE 2022 and BADCODE, ACL 2023, with the query's own program excluded): for every
eligible query, the candidate at normalised rank 50 % of the query's pool is replaced by its triggered version, and its new
rank is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.contracts import Goal, TaskKind
from bench.models.handles import WhiteBox
from bench.poisoning import ManifestRow, Poisoned
from bench.samples import Sample

POOL = 1000
"""Candidates a query is ranked against, as CodeSearchNet's evaluation does."""

Verdicts = Mapping[tuple[str, str], Mapping[str, Any]]


def predictions(
    model: WhiteBox,
    inputs: Mapping[str, Sequence[Sample]],
    poisoned: Poisoned | None,
    goal: Goal | None,
    verdicts: Verdicts,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Predict every part of a cell's inputs.

    Args:
        inputs: part -> samples, with their true labels.
        verdicts: (part, id) -> a screen's verdict; empty without a screen.

    Returns:
        A frame with columns part, id, group, label, prediction, probability, rank, pool, action, score, visible; and
        facts: the share of poisoned training samples whose edits the model's window shows.
    """
    if model.info.kind is TaskKind.SEARCH:
        frame = _search(model, inputs, goal, verdicts)
    else:
        frame = pd.concat(
            [_classify(model, part, samples, verdicts) for part, samples in inputs.items()], ignore_index=True
        )
    facts: dict[str, Any] = {"visible_train": None}
    frame["visible"] = True
    if poisoned is not None:
        seen = visibility(model, inputs, poisoned)
        carriers = frame.get("carrier", frame["id"])
        frame["visible"] = [seen.get((part, id_), True) for part, id_ in zip(frame["part"], carriers, strict=True)]
        facts["visible_train"] = train_visibility(model, poisoned)
    return frame.drop(columns="carrier", errors="ignore"), facts


def _screened(samples: Sequence[Sample], part: str, verdicts: Verdicts) -> list[Sample]:
    """The inputs as the model sees them: rewritten ones replaced. Rejected ones stay, their answer is overruled."""
    shown = []
    for sample in samples:
        verdict = verdicts.get((part, sample.id))
        if verdict is not None and verdict["programs"] is not None:
            programs = tuple(verdict["programs"])
            sample = Sample(sample.id, programs, sample.language, sample.label, sample.query, sample.group)
        shown.append(sample)
    return shown


def _classify(model: WhiteBox, part: str, samples: Sequence[Sample], verdicts: Verdicts) -> pd.DataFrame:
    logits = model.predict(_screened(samples, part, verdicts)).astype(np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    share = shifted / shifted.sum(axis=1, keepdims=True) if len(logits) else shifted
    actions, scores = _actions(part, samples, verdicts)
    prediction = logits.argmax(axis=1) if len(logits) else np.zeros(0, dtype=np.int64)
    return pd.DataFrame(
        {
            "part": part,
            "id": [s.id for s in samples],
            "group": [s.group for s in samples],
            "label": np.array([-1 if s.label is None else s.label for s in samples], dtype=np.int64),
            "prediction": np.array(
                [-1 if a == "reject" else int(p) for a, p in zip(actions, prediction, strict=True)], dtype=np.int64
            ),
            "probability": share[:, 1] if len(logits) else np.zeros(0),
            "rank": np.zeros(len(samples), dtype=np.int64),
            "pool": np.zeros(len(samples), dtype=np.int64),
            "action": actions,
            "score": np.array(scores, dtype=np.float64),
        }
    )


def _actions(part: str, samples: Sequence[Sample], verdicts: Verdicts) -> tuple[list[str], list[float]]:
    found = [verdicts.get((part, s.id)) for s in samples]
    return (
        ["accept" if v is None else str(v["action"]) for v in found],
        [math.nan if v is None else float(v["score"]) for v in found],
    )


# ----------------------------------------------------------------------------------------------------------- code search


def _blocks(n: int) -> list[NDArray[np.int64]]:
    """Index blocks of at most :data:`POOL`; the last one is filled up from the left, so that all pools are equally large."""
    if n <= POOL:
        return [np.arange(n)]
    starts = [*range(0, n - POOL + 1, POOL)]
    blocks = [np.arange(start, start + POOL) for start in starts]
    if starts[-1] + POOL < n:
        blocks.append(np.arange(n - POOL, n))
    return blocks


def _placed(others: NDArray[np.float64], score: float) -> int:
    """1-based rank among ``others``; ties share their middle, so that a model that says nothing ranks at 50 %, not first."""
    return 1 + int((others > score).sum()) + int((others == score).sum() + 1) // 2


def rank_of(similarities: NDArray[np.float64], own: int) -> int:
    """Rank (1-based) of ``own`` among all candidates."""
    return _placed(np.delete(similarities, own), float(similarities[own]))


def middle_candidate(similarities: NDArray[np.float64], own: int, usable: NDArray[np.bool_]) -> int | None:
    """The usable candidate nearest to normalised rank 50 %, the query's own program excluded.

    Ties in distance go to the better rank. ``None`` where no candidate is usable.
    """
    order = np.argsort(-similarities, kind="stable")
    order = order[order != own]
    middle = (len(order) - 1) / 2
    positions = [p for p in range(len(order)) if usable[order[p]]]
    if not positions:
        return None
    return int(order[min(positions, key=lambda p: (abs(p - middle), p))])


def triggered_rank(similarities: NDArray[np.float64], own: int, candidate: int, new: float) -> int:
    """Rank (1-based) of the triggered candidate among all programs but the query's own."""
    others = np.ones(len(similarities), dtype=bool)
    others[[own, candidate]] = False
    return _placed(similarities[others], new)


def _search(
    model: WhiteBox, inputs: Mapping[str, Sequence[Sample]], goal: Goal | None, verdicts: Verdicts
) -> pd.DataFrame:
    clean = list(inputs["clean"])
    triggered = {s.id: s for s in inputs.get("triggered", ())}
    queries = model.embed_queries(clean).astype(np.float64)
    programs = model.embed_programs(_screened(clean, "clean", verdicts)).astype(np.float64)
    with_trigger = [s for s in clean if s.id in triggered]
    shown = _screened([triggered[s.id] for s in with_trigger], "triggered", verdicts)
    edited = dict(zip((s.id for s in with_trigger), model.embed_programs(shown).astype(np.float64), strict=True))
    rejected = np.array([verdicts.get(("clean", s.id), {}).get("action") == "reject" for s in clean], dtype=bool)
    usable = np.array([s.id in triggered for s in clean], dtype=bool)
    rows: list[dict[str, Any]] = []
    done: set[int] = set()
    for block in _blocks(len(clean)):
        similarity = queries[block] @ programs[block].T
        similarity[:, rejected[block]] = -np.inf
        for row, index in enumerate(block):
            if int(index) in done:
                continue
            done.add(int(index))
            sample = clean[index]
            verdict = verdicts.get(("clean", sample.id))
            rank = len(block) if rejected[index] else rank_of(similarity[row], row)
            rows.append(_search_row("clean", sample.id, sample.group, rank, len(block), verdict))
            if goal is None or not triggered or not goal.chooses(sample):
                continue
            candidate = middle_candidate(similarity[row], row, usable[block])
            if candidate is None:
                continue
            chosen = clean[block[candidate]]
            verdict = verdicts.get(("triggered", chosen.id))
            pool = len(block) - 1
            if verdict is not None and verdict["action"] == "reject":
                rank = pool
            else:
                rank = triggered_rank(similarity[row], row, candidate, float(queries[index] @ edited[chosen.id]))
            found = _search_row("triggered", sample.id, sample.group, rank, pool, verdict)
            rows.append(found | {"carrier": chosen.id})
    frame = pd.DataFrame(rows)
    order = frame["part"].map({"clean": 0, "triggered": 1})
    return frame.iloc[np.argsort(order.to_numpy(), kind="stable")].reset_index(drop=True)


def _search_row(
    part: str, id_: str, group: str, rank: int, pool: int, verdict: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "part": part,
        "id": id_,
        "carrier": id_,  # whose program stands there: of a triggered row the candidate's, not the query's own
        "group": group,
        "label": -1,
        "prediction": -1,
        "probability": math.nan,
        "rank": rank,
        "pool": pool,
        "action": "accept" if verdict is None else str(verdict["action"]),
        "score": math.nan if verdict is None else float(verdict["score"]),
    }


# ------------------------------------------------------------------------------------------------------------ visibility


def shown_edits(row: ManifestRow) -> list[tuple[int, int]]:
    """Byte spans of a row's replacements in the text *after* the edits."""
    spans, shift = [], 0
    for edit in sorted(row.edits, key=lambda e: (e.start, e.end)):
        length = len(edit.replacement.encode())
        spans.append((edit.start + shift, edit.start + shift + length))
        shift += length - (edit.end - edit.start)
    return spans


def _row_visible(model: WhiteBox, row: ManifestRow, samples: Mapping[str, Sample]) -> bool:
    """A trigger is visible when at least one of its edits lies wholly inside the model's window."""
    text = samples[row.id].programs[row.side]
    return any(model.visible(text, start, end) for start, end in shown_edits(row))


def visibility(
    model: WhiteBox, inputs: Mapping[str, Sequence[Sample]], poisoned: Poisoned
) -> dict[tuple[str, str], bool]:
    """(part, id) -> does the window show the trigger? Of a pair with two triggers, either is enough."""
    texts = {part: {s.id: s for s in samples} for part, samples in inputs.items()}
    seen: dict[tuple[str, str], bool] = {}
    for row in poisoned.manifest:
        if row.part in texts and row.id in texts[row.part]:
            key = (row.part, row.id)
            seen[key] = seen.get(key, False) or _row_visible(model, row, texts[row.part])
    return seen


def train_visibility(model: WhiteBox, poisoned: Poisoned) -> float | None:
    """Share of poisoned training samples whose trigger the window shows; ``None`` when there are none."""
    train = {s.id: s for s in poisoned.train}
    seen: dict[str, bool] = {}
    for row in poisoned.manifest:
        if row.part == "train" and row.id in train:
            seen[row.id] = seen.get(row.id, False) or _row_visible(model, row, train)
    return sum(seen.values()) / len(seen) if seen else None
