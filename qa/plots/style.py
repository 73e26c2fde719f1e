"""The look of static plots: colours that stay apart for every kind of color vision, and never colour alone."""

from __future__ import annotations

import math

# Okabe & Ito (2008)
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
INK = "#333333"
FAINT = "#8a94a0"
NORMAL_BAND, WARN_BAND = "#009e73", "#e69f00"

# verdict -> colour, mark beside a value: the shapes of the dashboard
VERDICTS = {
    "NORMAL": ("#0072b2", ""),
    "UNKNOWN": (FAINT, "◆"),
    "WARNING": ("#e69f00", "▲"),
    "ALARM": ("#d55e00", "■"),
}


def number(value: float) -> str:
    """Four figures, as people write them."""
    return f"{value:.4g}" if math.isfinite(value) else "–"


def interval(ends: tuple[float | None, float | None] | None) -> str:
    """A range, as people write it; an end without a limit is None."""
    if ends is None:
        return ""
    low, high = ends
    if low is None or high is None:
        return (f"at most {number(high)}" if high is not None else "") if low is None else f"at least {number(low)}"
    return f"{number(low)} to {number(high)}"
