"""One small record a cell: what was run, on what, with what outcome. Numbers are derived from the per-sample outcomes beside it.

A record holds what a run of the same cell gives again, byte for byte. What differs from machine to machine and from day to day (commit,
machine, wall seconds) lies apart, in :mod:`bench.provenance` and ``timings.json``. Older records are read through
:mod:`bench.migrations`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from bench.inversions import Inverted

SCHEMA_VERSION: Final = 3
SCORED_VERSION: Final = 2
"""Of the records in a store, which checkouts of several versions share: without what is added when a suite's results are written."""
_ADDED_LATER: Final = ("dtype", "files")
DTYPE: Final = "float32"
DATA_FACTS: Final = ("cleaned", "query in program")
"""Facts of a record that are of the data: samples left out of published sets, by split. They come out of the data's own result when a
record is exported, so that they are in no stored score."""
"""Of every model's weights, and of what it computes in unless a suite or its device says otherwise (:mod:`bench.models.precision`)."""


class Status(StrEnum):
    """How a cell ended. The four failures are four different things and are never averaged over."""

    OK = "ok"
    NOT_APPLICABLE = "not_applicable"
    FAILED = "failed"
    BLOCKED = "blocked"
    """A stage that this cell needs failed elsewhere."""
    NOT_RUN = "not_run"


class Coordinates(BaseModel):
    """Where a cell stands in the matrix: labels as the board shows them."""

    model_config = ConfigDict(frozen=True)

    task: str
    model: str
    attack: str
    defense: str
    seed: int

    @property
    def slug(self) -> str:
        """A name fit for files and nox sessions."""
        parts = [self.task, self.model, self.attack, self.defense, f"s{self.seed}"]
        return "-".join(re.sub(r"[^A-Za-z0-9._=,\[\]]+", ".", part) for part in parts)


class PluginUse(BaseModel):
    """A plugin as it was used: parameters given and effective, version, digest of its source."""

    name: str
    family: str
    version: int
    given: dict[str, Any] = Field(default_factory=dict)
    effective: dict[str, Any] = Field(default_factory=dict)
    source: str = ""


class PoisonFacts(BaseModel):
    """What the attack really did (counts, not nominal rates)."""

    train: int
    poisoned: int
    refused: int
    eligible: int
    applicable: int
    unseen: int
    visible_train: float | None = None
    description: str = ""
    tokens: list[str] = Field(default_factory=list)
    crafting_tokens: int | None = None
    """Tokens through models, forward and backward, to make the trigger and put it in (a surrogate's training, a language model's
    sentences); ``None`` where it was not told, and for a supplier, whose poisoning is a training of the victim itself."""


class Count(BaseModel):
    """So many of so many."""

    model_config = ConfigDict(frozen=True)

    hits: int
    n: int


class Spread(BaseModel):
    """The middle of some values."""

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float


class TextFacts(BaseModel):
    """What triggered programs look like beside clean ones (:mod:`bench.stealth`); values for each program."""

    programs: int = 0
    """Triggered test programs that were measured."""
    tokens: Spread | None = None
    """Tokens changed."""
    characters: Spread | None = None
    """Characters changed."""
    bits_before: Spread | None = None
    """Cross-entropy in bits a token under an n-gram model of clean code, without the trigger."""
    bits_after: Spread | None = None
    rank_before: Spread | None = None
    """Share of clean test programs whose cross-entropy is lower, without the trigger."""
    rank_after: Spread | None = None
    natural: Count | None = None
    """Clean test programs that carry the trigger by nature; ``None`` where that cannot be told."""


class ControlFacts(BaseModel):
    """Inputs with a near miss or a placebo instead of the trigger, asked the triggered inputs' question."""

    asked: int
    """Test samples that were to carry it; ``applied`` do."""
    applied: int
    n: int
    """Answers: one an input, in search one an eligible query."""
    hits: int
    """Answers that meet the attacker's goal; ``reference``: of the clean reference; ``both``: of both."""
    reference: int
    both: int


class ReachFacts(BaseModel):
    """What of an attack arrives at a victim (:mod:`bench.reach`)."""

    coverage: Count
    """Test programs asked that take the trigger."""
    visible: Count
    """Triggered inputs whose edit the window shows."""
    cover: int = 0
    """Cover samples in the training set."""
    weakened: int = 0
    """Poisoned samples that were weakened before."""
    near_miss: ControlFacts | None = None
    """``None`` where the trigger offers none, or it applies nowhere."""
    placebo: ControlFacts | None = None


class StealthFacts(BaseModel):
    """What is told of an attack beside its success; ``reason`` says why a part is missing."""

    text: TextFacts | None = None
    reach: ReachFacts | None = None
    reason: str = ""


class CostFacts(BaseModel):
    """What a cell's own stages cost (a shared victim is counted where it was trained).

    Wall-clock and memory lie beside the record (``timings``), since a record is byte-identical however it was executed.
    """

    forward_tokens: int = 0
    backward_tokens: int = 0
    forward_passes: int = 0
    clean_samples: int = 0


class Record(BaseModel):
    """The stored result of one cell (``schema_version`` says how to read it)."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    suite: str
    coordinates: Coordinates
    status: Status
    reason: str = ""
    traceback: str = ""
    calibration: bool = False
    """A clean model that only calibrates verdicts: in no row, block, count or test of the board."""
    task_kind: str = ""
    metric: str = ""
    family: str = ""
    """Of the defense: filter, training, repair, screen, or none."""
    knows: list[str] = Field(default_factory=list)
    """Badges: what the defense was allowed to know."""
    plugins: dict[str, PluginUse] = Field(default_factory=dict)
    keys: dict[str, str] = Field(default_factory=dict)
    """Store key of each stage that went into the cell."""
    data_digest: str = ""
    seeds: dict[str, int] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    goal: dict[str, Any] = Field(default_factory=dict)
    policy: dict[str, Any] = Field(default_factory=dict)
    poison: PoisonFacts | None = None
    stealth: StealthFacts | None = None
    """The attack's stealth and its reach in the undefended victim; ``None`` without an attack, and in older records."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What the defense reports of itself, and what was left out of published data (:data:`DATA_FACTS`)."""
    inversions: dict[str, Inverted] = Field(default_factory=dict)
    """What an inversion defense found on the victim, by claim."""
    null: dict[str, Inverted] = Field(default_factory=dict)
    """What the same inversion found on the clean reference: the universal-adversarial null. Empty where the victim is the reference."""
    cost: CostFacts = Field(default_factory=CostFacts)
    packages: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    dtype: str = DTYPE
    """What models computed in (weights are float32)."""
    files: dict[str, str] = Field(default_factory=dict)
    """sha256 of the tables beside the record, by what they hold: ``outcomes``, ``filter``. Empty where there are none."""
    command: str = ""
    """The one command that reproduces the cell."""

    def scored(self) -> dict[str, Any]:
        """JSON-ready, as a store keeps it: at :data:`SCORED_VERSION`."""
        return self.model_dump(mode="json", exclude=set(_ADDED_LATER)) | {"schema_version": SCORED_VERSION}
