"""Interval arithmetic on the pure part of expressions: enough to prove that ``sin(0.3) > 5`` never holds.

``None`` stands for everything of which nothing is known, whether it may have an effect or not. A :class:`Range` promises that
evaluating the expression has no effect and gives a number (or a truth value, as 0 or 1) within its bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

WIDEST_INT = 2**31 - 1
"""Beyond it C and Java wrap around, or are undefined."""
SLACK = 1e-9
"""A library may round a function's value another way than ours, by far less than this."""

Comparison = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``whole`` where only integers are meant."""

    low: float
    high: float
    whole: bool = False


FALSE, TRUE, EITHER = Range(0, 0, True), Range(1, 1, True), Range(0, 1, True)


def number(value: float) -> Range | None:
    """A literal."""
    return _kept(value, value, isinstance(value, int))


def truth(value: Range | None) -> bool | None:
    """Is a value true or false as a condition; ``None`` where it may be either."""
    if value is None:
        return None
    if value.low > 0 or value.high < 0:
        return True
    return False if value.low == value.high == 0 else None


def negated(value: Range | None) -> Range | None:
    """``!value``."""
    if value is None:
        return None
    known = truth(value)
    return EITHER if known is None else FALSE if known else TRUE


def minus(value: Range | None) -> Range | None:
    """``-value``."""
    return None if value is None else Range(-value.high, -value.low, value.whole)


def arithmetic(operator: str, left: Range | None, right: Range | None) -> Range | None:
    """``left + right``, ``-`` and ``*``; of other operators nothing is known."""
    if left is None or right is None:
        return None
    whole = left.whole and right.whole
    if operator == "+":
        return _kept(left.low + right.low, left.high + right.high, whole)
    if operator == "-":
        return _kept(left.low - right.high, left.high - right.low, whole)
    if operator == "*":
        corners = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
        return _kept(min(corners), max(corners), whole)
    return None


def compared(operator: str, left: Range | None, right: Range | None) -> Range | None:
    """``left < right`` and the other five."""
    if left is None or right is None:
        return None
    if operator in (">", ">="):
        left, right, operator = right, left, operator.replace(">", "<")
    if operator == "<":
        return _decided(left.high < right.low, left.low >= right.high)
    if operator == "<=":
        return _decided(left.high <= right.low, left.low > right.high)
    same = left.low == left.high == right.low == right.high
    apart = left.high < right.low or right.high < left.low
    if operator == "==":
        return _decided(same, apart)
    return _decided(apart, same) if operator == "!=" else None


def both(left: Range | None, right: Range | None) -> Range | None:
    """``left && right`` as a condition: what is on the right does not run where the left is false."""
    if truth(left) is False:
        return FALSE
    if left is None or right is None:
        return None
    known = (truth(left), truth(right))
    return FALSE if known[1] is False else TRUE if known == (True, True) else EITHER


def either(left: Range | None, right: Range | None) -> Range | None:
    """``left || right`` as a condition."""
    if truth(left) is True:
        return TRUE
    if left is None or right is None:
        return None
    known = (truth(left), truth(right))
    return TRUE if known[1] is True else FALSE if known == (False, False) else EITHER


def called(function: str, arguments: list[Range | None]) -> Range | None:
    """The value of a library function by its bare name (``sin``, ``rand`` …); ``None`` for one that is not known."""
    if function in ("random", "rand"):
        high, whole = (1, False) if function == "random" else (WIDEST_INT, True)
        return Range(0, high, whole) if not arguments else None
    if len(arguments) != 1 or (x := arguments[0]) is None:
        return None
    if function in ("sin", "cos"):
        return Range(-1, 1)
    if function in ("fabs", "abs"):
        low = 0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
        return Range(low, max(abs(x.low), abs(x.high)), x.whole and function == "abs")
    if function == "exp" and x.high < 700:
        return _rounded(math.exp(x.low), math.exp(x.high))
    if function == "sqrt" and x.low >= 0:
        return _rounded(math.sqrt(x.low), math.sqrt(x.high))
    if function == "cbrt":
        return _rounded(math.cbrt(x.low), math.cbrt(x.high))
    return None


def _rounded(low: float, high: float) -> Range:
    return Range(low - SLACK * abs(low), high + SLACK * abs(high))


def _decided(yes: bool, no: bool) -> Range:
    return TRUE if yes else FALSE if no else EITHER


def _kept(low: float, high: float, whole: bool) -> Range | None:
    """``None`` beyond what the languages' numbers hold without a surprise."""
    if whole:
        return Range(low, high, True) if max(abs(low), abs(high)) <= WIDEST_INT else None
    # Whole numbers above 2**53 and floats do not compare as we would.
    return Range(low, high, False) if max(abs(low), abs(high)) < 1e15 else None
