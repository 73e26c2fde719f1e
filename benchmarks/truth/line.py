"""One row of the truth table, and the statistics that its subjects share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SURE = 3.0  # sigma that a difference needs beyond its tolerance to miss an aim
CONSISTENT = 4.0  # sigma; of some hundred rows, one in a hundred tables has one beyond by chance


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes
    ----------
    stage : stage or metric class that gives the number
    quantity : result key and what it is of, with its unit
    truth, measured : as shown
    sigmas : difference in units of the expected statistical error; NaN where the row is itself a rate or a scatter
    aim : what is asked for
    met : whether it is
    reference : what the reference pipeline reaches, where that is known
    """

    stage: str
    quantity: str
    truth: str
    measured: str
    sigmas: float
    aim: str
    met: bool
    reference: str = ""


def compared(
    stage: str,
    quantity: str,
    truth: float,
    measured: float,
    sigma: float,
    relative: float | None = None,
    absolute: float | None = None,
) -> Line:
    """A number against the truth: within its statistical error, or within a tolerance if one is given.

    Parameters
    ----------
    sigma : statistical error that the noise of this exposure implies
    relative, absolute : tolerance; a larger difference is granted as far as noise explains it, to SURE sigma. Without
        a tolerance the difference must be less than CONSISTENT sigma
    """
    difference = measured - truth
    sigmas = difference / sigma if sigma > 0 else math.nan
    if relative is not None:
        met, aim = abs(difference) <= max(relative * abs(truth), SURE * sigma), f"{100 * relative:g} %"
    elif absolute is not None:
        met, aim = abs(difference) <= max(absolute, SURE * sigma), f"± {absolute:g}"
    else:
        met, aim = abs(sigmas) <= CONSISTENT, f"{CONSISTENT:g} σ"
    digits = 3 if abs(truth) >= 0.1 else 4
    told = f"{measured:.{digits + 1}g}"
    if relative is not None and truth:
        told += f" ({100 * difference / truth:+.2f} %)"
    return Line(stage, quantity, f"{truth:.{digits + 1}g}", told, sigmas, aim, bool(met))


def worst(
    stage: str,
    quantity: str,
    truth: Mapping[str, float],
    measured: Mapping[str, float],
    sigma: Mapping[str, float],
    relative: float | None = None,
    absolute: float | None = None,
) -> Line:
    """Of several elements (amplifiers, classes), the one that is farthest from its truth."""
    lines = {
        name: compared(stage, f"{quantity}, worst: {name}", truth[name], value, sigma[name], relative, absolute)
        for name, value in measured.items()
    }

    def badness(name: str) -> float:
        if relative is None and absolute is None:
            return abs(lines[name].sigmas)
        return abs(measured[name] - truth[name]) / (abs(truth[name]) if relative is not None else 1.0)

    return lines[max(lines, key=badness)]


def pulls(
    stage: str,
    quantity: str,
    values: Array,
    tolerance: float = 0.01,
    reference: str = "",
    granted: float = 0.0,
    low: bool = False,
) -> Line:
    """Pulls, which are unit normal if values and errors are right: plain scatter within `tolerance` of 1.

    The robust scatter stands beside it; it may differ where few electrons make few different values.

    Parameters
    ----------
    granted : share of values that may lie beyond 5 sigma (the halo of a huge cosmic ray); they are counted apart
    low : a scatter below 1 is right too
    """
    beyond = np.abs(values) > 5.0 if granted else np.zeros(values.shape, dtype=bool)
    robust, plain = nmad(values), rms(values[~beyond])
    error = 1.0 / math.sqrt(2 * values.size)
    measured = f"{plain:.3f} / {robust:.3f} (mean {values.mean():+.3f})"
    if beyond.any():
        measured += f", {beyond.sum()} of {beyond.size} beyond 5 σ"
    off = plain - 1 if low else abs(plain - 1)
    met = off <= max(tolerance, 2 * error) and beyond.mean() <= granted
    name, aim = f"{quantity}, rms / nmad", f"≤ {1 + tolerance:g}" if low else f"1.00 ± {tolerance:g}"
    return Line(stage, name, "1 / 1", measured, (plain - 1) / error, aim, bool(met), reference)


def nmad(values: Array) -> float:
    """Robust scatter; that of a Gaussian is its sigma."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def rms(values: Array) -> float:
    """Root of the mean square, about zero."""
    return float(np.sqrt(np.mean(np.square(values))))
