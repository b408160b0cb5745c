"""The stage ``stealth``: what an attack's edits look like beside clean code, whatever model is attacked.

Measured on the triggered test inputs of the victim class (search: on all test programs that take the trigger), with a
language model of the clean training split. Nothing here can be told to a defense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.changes import changed_characters, changed_tokens
from bench.jobs import Job, read_poisoned, read_splits
from bench.naturalness import Naturalness, percentiles
from bench.poisoning import ManifestRow, Poisoned, training_order
from bench.prevalence import holding
from bench.records import Count, Spread, TextFacts
from bench.samples import Splits
from bench.store import write_json

CORPUS = 2000
"""Most training programs that the language model learns from, drawn by the hash of their ids."""


@dataclass(frozen=True)
class Change:
    """One triggered program, before and after."""

    row: ManifestRow
    before: str
    after: str


def changes(splits: Splits, poisoned: Poisoned) -> list[Change]:
    """Every triggered test program with what it was."""
    clean = {s.id: s for s in splits.test}
    triggered = {s.id: s for s in poisoned.triggered}
    rows = [row for row in poisoned.manifest if row.part == "triggered"]
    return [Change(r, clean[r.id].programs[r.side], triggered[r.id].programs[r.side]) for r in rows]


def text_facts(language: str, splits: Splits, poisoned: Poisoned) -> TextFacts:
    """How much the trigger changes, how natural the outcome reads, and how common the trigger is."""
    made = changes(splits, poisoned)
    if not made:
        return TextFacts(programs=0, natural=_natural(language, splits, poisoned, []))
    corpus = [text for s in training_order(splits.train) for text in s.programs][:CORPUS]
    model = Naturalness.fit(language, corpus)
    clean = [model.cross_entropy(text) for s in splits.test for text in s.programs]
    before = [model.cross_entropy(c.before) for c in made]
    after = [model.cross_entropy(c.after) for c in made]
    return TextFacts(
        programs=len(made),
        tokens=_spread([changed_tokens(language, c.before, c.row.edits) for c in made]),
        characters=_spread([changed_characters(c.before, c.row.edits) for c in made]),
        bits_before=_spread(before),
        bits_after=_spread(after),
        rank_before=_spread(percentiles(before, clean).tolist()),
        rank_after=_spread(percentiles(after, clean).tolist()),
        natural=_natural(language, splits, poisoned, made),
    )


def _natural(language: str, splits: Splits, poisoned: Poisoned, made: Sequence[Change]) -> Count | None:
    """Clean test programs that carry the trigger: by its own answer, or by its tokens; ``None`` where neither tells."""
    if poisoned.natural is not None:
        hits, n = poisoned.natural
        return Count(hits=hits, n=n)
    if not poisoned.tokens:
        return None
    clean = [text for s in splits.test for text in s.programs]
    return Count(hits=holding(language, clean, [c.after for c in made], poisoned.tokens), n=len(clean))


def _spread(values: Sequence[float]) -> Spread:
    """Mean and median, to six decimals."""
    return Spread(mean=round(float(np.mean(values)), 6), median=round(float(np.median(values)), 6))


def stealth(job: Job) -> None:
    """Write ``facts.json``."""
    facts = text_facts(job.info.language, read_splits(job.parents["data"]), read_poisoned(job.parents["poison"]))
    write_json(job.folder / "facts.json", facts.model_dump(mode="json"))
