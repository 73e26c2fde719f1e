"""Emission lines of arc lamps and night sky: simulated exposures shine them, wavelengths are fitted to them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qlstream.configs import config_path

LINE = np.dtype([("wave", "f8"), ("name", "U6"), ("strength", "f8")])


def arc_lines() -> NDArray[np.void]:
    """Lines of the Hg, Cd, Ne, Ar, Kr and Xe lamps, ordered by wavelength.

    Returns
    -------
    (n,) structured array: `wave` [Angstrom, vacuum, NIST], `name` of the element, `strength` (photons, strongest 1000)
    """
    return _read("arc.csv").copy()


def sky_lines() -> NDArray[np.void]:
    """Bright lines of the night sky, ordered by wavelength.

    Returns
    -------
    (n,) structured array: `wave` [Angstrom, vacuum], `name` ([OI], NaI, [NI], OH, O2), `strength` (dark-sky flux
    [1e-17 erg/s/cm2/arcsec2])
    """
    return _read("sky.csv").copy()


def is_isolated(
    lines: NDArray[np.void], separation: float | NDArray[np.float64] = 4.0, contamination: float = 0.03
) -> NDArray[np.bool_]:
    """Which lines stand alone at the resolution of an instrument.

    Parameters
    ----------
    lines : as `arc_lines` or `sky_lines` give them
    separation : how far a neighbour must be to do no harm [Angstrom]; about three times the instrument's FWHM; one
        for all, or (n,)
    contamination : summed strength of nearer neighbours that is tolerated, as a fraction of the line's own

    Returns
    -------
    (n,) bool
    """
    total = np.concatenate([[0.0], np.cumsum(lines["strength"])])
    first = np.searchsorted(lines["wave"], lines["wave"] - separation)
    last = np.searchsorted(lines["wave"], lines["wave"] + separation, side="right")
    neighbours = total[last] - total[first] - lines["strength"]
    return np.asarray(neighbours <= contamination * lines["strength"])


def read_lines(path: Path) -> NDArray[np.void]:
    """A line list of one's own: comma-separated columns wave, name, strength under a row with these names; # comments.

    Returns
    -------
    (n,) as `arc_lines`, ordered by wavelength

    Raises
    ------
    OSError, ValueError : the file cannot be read; the message names file and row
    """
    text = path.read_text().splitlines()
    rows = [(number, row) for number, row in enumerate(text, start=1) if row.strip() and not row.startswith("#")]
    found = []
    for number, row in rows[1:]:  # the first names the columns
        try:
            wave, name, strength = row.split(",")
            found.append((float(wave), name.strip(), float(strength)))
        except ValueError:
            raise ValueError(
                f"{path}, row {number}: {row!r} is not wave,name,strength, e.g. 5462.2675,Hg,528"
            ) from None
    if not found:
        raise ValueError(f"{path} holds no lines; a row of column names and rows of wave,name,strength are expected")
    return np.sort(np.array(found, dtype=LINE), order="wave")


@cache
def _read(name: str) -> NDArray[np.void]:
    return read_lines(config_path("lines", name))
