"""What every export holds of a number: digits beyond what sums in another order could change are cut."""

from __future__ import annotations

from bench.metrics import Number


def rounded(value: float | None) -> float | None:
    """Six significant digits, for p-values and scores."""
    return None if value is None else float(f"{value:.6g}")


def rounded_number(number: Number) -> Number:
    """Six decimals."""
    fields = {
        name: None if (x := getattr(number, name)) is None else round(x, 6) + 0.0 for name in ("value", "low", "high")
    }
    return number.model_copy(update=fields)
