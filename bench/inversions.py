"""What a defense that inverts triggers found, one :class:`Inverted` a claim. Returned by repairs, stored in records, read by boards."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Inverted(BaseModel):
    """The trigger that an inversion found for one claim ("class 1 is turned into class 0", written ``1->0``).

    Losses are means over the samples that were inverted on: in nats towards the target class, and for code search the mean
    squared gap between cosines and 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tokens: tuple[str, ...]
    """The inverted trigger, as the tokenizer's pieces without space markers."""
    kept: tuple[str, ...]
    """What of it carries the effect (anchoring), or all of it where the method does not ask."""
    word: tuple[str, ...] = ()
    """Code search: the inverted target word."""
    loss: float
    """Of the whole trigger."""
    suspicion: float
    """That this claim is true; higher is more. Compared with the same claim on clean models (:mod:`bench.verdicts`)."""
    unlearned: bool = False
    """Was it among the triggers that the model was to be taught to ignore?"""
    trace: tuple[tuple[int, float], ...] = ()
    """(forward and backward tokens spent on this claim so far, loss of the best trigger so far); never rises."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """More that the method tells of it, JSON-ready."""
