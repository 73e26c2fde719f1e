"""The calibration lamps: arc lines and the flat-field continuum."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from qlstream.instrument import Arm
from qlstream.lines import arc_lines

Array = NDArray[np.float64]

LAMPS = ("Ar", "Cd", "Hg", "Kr", "Ne", "Xe")
ARC_EXPTIME, FLAT_EXPTIME = 5.0, 120.0
ARC_STRONGEST = 4e4  # electrons of the strongest line in a perfect fiber, at ARC_EXPTIME
FLAT_PEAK = 1e4  # electrons of the brightest pixels along a trace, at FLAT_EXPTIME


def arc_light(rng: np.random.Generator, exptime: float, dead: Collection[str] = ()) -> tuple[Array, Array]:
    """Lines of the arc lamps; each lamp burns by 15 % and each line by 4 % differently in every exposure.

    Parameters
    ----------
    rng : of the exposure, so that all cameras see the same lamps
    exptime : [second]
    dead : names among LAMPS of those that are off

    Returns
    -------
    wave, electrons : (nline,) [Angstrom], [electron] in a perfect fiber of full throughput
    """
    table = arc_lines()
    lamp = {name: np.exp(rng.normal(0.0, 0.15)) for name in LAMPS}
    factor = np.array([lamp[name] for name in table["name"]]) * np.exp(rng.normal(0.0, 0.04, len(table)))
    factor[np.isin(table["name"], list(dead))] = 0.0
    return table["wave"], ARC_STRONGEST / 1000.0 * table["strength"] * factor * exptime / ARC_EXPTIME


def flat_light(arm: Arm, wave: Array, exptime: float) -> Array:
    """(n,) electrons per Angstrom of the flat-field lamp in a perfect fiber of full throughput.

    The lamp is smooth; its level makes FLAT_PEAK electrons in the central pixel of a trace where the arm is best.
    """
    first, last = arm.wave_science
    t = (wave - first) / (last - first)
    spectrum = 0.75 + 0.25 * np.cos(2.2 * (t - 0.55)) + 0.03 * np.sin(9.0 * t)
    row = FLAT_PEAK * np.sqrt(2 * np.pi) * arm.xsigma
    angstrom_per_row = 0.5 * sum(arm.dispersion)
    return np.asarray(row / angstrom_per_row * spectrum * exptime / FLAT_EXPTIME)
