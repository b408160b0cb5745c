"""Ratios against the plain way of doing a thing, measured in one run. Never part of the tests: machines differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One figure beside what is required of it; one without bounds is for information.

    Attributes:
        title: what was measured, with its unit.
        value: what came out.
        at_least: the floor, for speed-ups.
        at_most: the ceiling, for costs.
    """

    title: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def good(self) -> bool:
        """Does the value keep its bounds?"""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def status(self) -> str:
        """``ok``, ``MISSED``, or ``-`` where nothing is required."""
        if self.at_least is None and self.at_most is None:
            return "-"
        return "ok" if self.good else "MISSED"

    @property
    def required(self) -> str:
        """The bounds in words."""
        parts = [
            f"{sign} {bound:g}" for sign, bound in ((">=", self.at_least), ("<=", self.at_most)) if bound is not None
        ]
        return ", ".join(parts) or "-"
