"""Lines identified by their pattern, and followed from fiber to fiber."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.bootcalib.arclines import DETECTED, resolved_lines
from algorithms.bootcalib.neighbours import follow_lines
from algorithms.bootcalib.triplets import DispersionPrior, NotIdentified, identify
from qlstream import lines

Array = NDArray[np.float64]

NY = 4000


def wave_of(row: Array) -> Array:
    """A dispersion 10 % off the prior that changes by 14 % over the CCD, with a cubic term of a pixel."""
    t = (row - 1999.5) / 1999.5
    return 6700.0 + 0.6 * 1999.5 * (t - 0.035 * t**2) + 0.6 * t**3


def arc(off: tuple[str, ...] = (), seed: int = 1) -> tuple[Array, Array, Array]:
    """Rows and fluxes of the lines that are seen, with their wavelengths; some are cosmic rays (nan)."""
    rng = np.random.default_rng(seed)
    table = lines.arc_lines()
    row_of = np.interp(table["wave"], wave_of(np.arange(float(NY))), np.arange(float(NY)), left=-1, right=-1)
    seen = (row_of > 10) & (row_of < NY - 10) & (table["strength"] > 8) & ~np.isin(table["name"], off)
    row = np.append(row_of[seen] + rng.normal(0, 0.05, seen.sum()), rng.uniform(20, NY - 20, 5))
    flux = np.append(40 * table["strength"][seen] * rng.lognormal(0, 0.5, seen.sum()), rng.uniform(1e3, 2e4, 5))
    wave = np.append(table["wave"][seen], np.full(5, np.nan))
    order = np.argsort(row)
    return row[order], flux[order], wave[order]


def known() -> Array:
    table = lines.arc_lines()
    table = table[(table["wave"] > 5300) & (table["wave"] < 8100)]
    return resolved_lines(table, 0.65)[0]


@pytest.mark.parametrize("off", [(), ("Ne",), ("Ar", "Cd", "Xe"), ("Kr", "Hg")])
def test_lines_are_identified_though_lamps_are_off(off: tuple[str, ...]) -> None:
    row, flux, wave = arc(off)

    found = identify(row, flux, known(), NY, DispersionPrior(0.545))

    true = wave[found.index]
    wrong = ~(np.abs(found.wave - true) < 0.5)  # blends are known by their common peak
    print(f"{off}: {len(row)} lines, {len(found.row)} identified, {wrong.sum()} wrongly, rms {found.rms:.3f} Angstrom")
    assert wrong.sum() <= 2, "a cosmic ray may lie where a faint line is listed"
    assert len(found.row) > 0.7 * np.isfinite(wave).sum()
    rows = np.arange(100.0, NY - 100)
    fitted = np.polyval(found.coef[::-1], (rows - 1999.5) / 1999.5)
    low, high = np.nanmin(true), np.nanmax(true)
    inside = (wave_of(rows) > low) & (wave_of(rows) < high)
    assert np.abs(fitted - wave_of(rows))[inside].max() < 0.5, "a pixel: what following the lines needs"


def test_lines_of_no_lamp_are_not_identified() -> None:
    rng = np.random.default_rng(4)
    row, flux = np.sort(rng.uniform(0, NY, 30)), rng.uniform(1e3, 1e4, 30)
    with pytest.raises(NotIdentified, match="were the lamps on"):
        identify(row, flux, known(), NY, DispersionPrior(0.545))


def test_too_few_lines_say_so() -> None:
    with pytest.raises(NotIdentified, match="2 lines detected"):
        identify(np.array([5.0, 9.0]), np.ones(2), known(), NY, DispersionPrior(0.545))


def test_lines_are_followed_over_dark_and_poor_fibers() -> None:
    """Rows smile by 100 pixels and scatter by 0.2 from fiber to fiber; three fibers are dark, one shows two lines."""
    rng = np.random.default_rng(6)
    nspec, nline = 120, 14
    wave = np.sort(rng.uniform(6000, 7600, nline))
    u = np.linspace(-1, 1, nspec)
    rows = 100 + (wave - 5950) / 0.5 + (100 * u**2 + rng.normal(0, 0.2, nspec))[:, None] * (1 + 1e-4 * (wave - 6800))
    lit = np.ones(nspec, dtype=bool)
    lit[[30, 31, 80]] = False
    table = []
    for f in np.flatnonzero(lit):
        seen = [3, 9] if f == 50 else np.flatnonzero(rng.uniform(size=nline) > 0.1)
        table += [(f, rows[f, k] + rng.normal(0, 0.03), 0.03, 1e4, 1.1) for k in seen]
        table += [(f, y, 0.03, 1e4, 1.1) for y in rng.uniform(0, 3500, 3)]  # lines of nothing
    detected = np.sort(np.array(table, dtype=DETECTED), order=["fiber", "y"])

    found, error = follow_lines(detected, 60, rows[60], wave, lit)

    seen = np.isfinite(error)
    assert not seen[~lit].any()
    assert not seen[50].any(), "two lines do not tell a fiber"
    assert seen[lit].mean() > 0.85
    assert np.mean(np.abs(found - rows)[seen] < 0.15) > 0.995, "5 sigma; few of the false lines lie near"
