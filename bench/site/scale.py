"""Axes: where a value stands, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values, linear or logarithmic.

    Attributes:
        low: value at 0.
        high: value at 1; above ``low``.
        ticks: values to label, within the range.
        logarithmic: places go by the logarithm; ``low`` is then above 0.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """0 to 1 inside the range; what lies outside is put at its border."""
        if self.logarithmic:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))


def linear(values: Iterable[float], *, within: tuple[float, float] = (-math.inf, math.inf), count: int = 5) -> Axis:
    """An axis around some finite values with round ticks, a little wider than they are but never outside ``within``."""
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    slack = 0.06 * (high - low) or max(0.05 * abs(high), 0.5)
    low, high = max(low - slack, within[0]), min(high + slack, within[1])
    return Axis(low, high, round_ticks(low, high, count))


def round_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """About ``count`` multiples of 1, 2, 2.5 or 5 times a power of ten in [low, high]."""
    rough = (high - low) / max(count, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough - 1e-12)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(place * step, 10) + 0.0 for place in range(first, last + 1))


def logarithmic(values: Sequence[float]) -> Axis:
    """An axis around positive values with ticks at powers of ten; in between too where there are few."""
    low, high = min(values), max(values)
    low, high = low / 1.25, high * 1.25
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = tuple(f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high)
        if len(ticks) >= 3:
            break
    return Axis(low, high, ticks, logarithmic=True)


def compact(value: float) -> str:
    """``1200`` as ``1.2 k``: four characters and a unit at most."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
