"""Numbers as the pages write them: per cent with one decimal, a real minus sign, thin spaces nowhere."""

from __future__ import annotations

from typing import Final

from bench.board.columns import METRIC_NAMES
from bench.metrics import Number

DASH: Final = "–"
MINUS: Final = "\u2212"


def metric_name(metric: str) -> str:
    """``ACC``, ``F1`` or ``MRR``."""
    return METRIC_NAMES.get(metric, metric or "metric")


def points(share: float, *, signed: bool = False) -> str:
    """A share or a difference in per cent: ``80.2``, ``+2.4``, ``−1.1``."""
    return _minus(f"{round(100 * share, 1) + 0.0:{'+' if signed else ''}.1f}")


def value(number: Number | None, *, signed: bool = False) -> str:
    """The value alone; a dash where undefined."""
    return DASH if number is None or number.value is None else points(number.value, signed=signed)


def interval(number: Number | None, *, signed: bool = False) -> str:
    """``[77.3, 82.9]``; empty where there is none."""
    if number is None or number.low is None or number.high is None:
        return ""
    return f"[{points(number.low, signed=signed)}, {points(number.high, signed=signed)}]"


def percent(number: Number | None, *, signed: bool = False) -> str:
    """Value and interval on one line."""
    return f"{value(number, signed=signed)} {interval(number, signed=signed)}".strip()


def p_value(p: float | None) -> str:
    """Three decimals; two digits and a power of ten below 0.001."""
    if p is None:
        return DASH
    if p >= 0.001:
        return f"{p:.3f}"
    if p == 0:
        return "0"
    digits, _, power = f"{p:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(_RAISED)}"


_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(given: float | None, digits: int = 4) -> str:
    """A plain number with so many significant digits."""
    return DASH if given is None else _minus(f"{given:.{digits}g}")


def visible(text: str) -> str:
    """Text from outside on one line; characters that do not print are written as ``\\u....``."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in " ".join(text.split(" ")))


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
