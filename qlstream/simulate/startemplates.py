"""A small grid of star templates, of the same stuff as the simulated stars."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qlstream.datamodel.stars import StarTemplates
from qlstream.io.stdstars import write_star_templates
from qlstream.simulate import templates

TEMPERATURES = np.arange(5400.0, 7900.0, 100.0)
_WAVE = np.arange(3450.0, 10100.0, 0.5)


def star_grid() -> StarTemplates:
    """Templates every 100 K; gravity and metallicity are those of a main-sequence halo star for all."""
    flux = np.stack([templates.star(_WAVE, temperature) for temperature in TEMPERATURES])
    flux /= flux.mean(axis=1, keepdims=True)
    n = len(TEMPERATURES)
    return StarTemplates(_WAVE, flux.astype(np.float32), TEMPERATURES, np.full(n, 4.0), np.full(n, -1.5))


def write_star_grid(calib: Path) -> None:
    """stars/templates.fits of the calibration tree."""
    path = calib / "stars" / "templates.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star_templates(path, star_grid())
