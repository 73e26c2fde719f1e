"""A small grid of star templates, of the same stuff as the simulated stars."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from qlstream.datamodel.stars import StarTemplates
from qlstream.io.stdstars import write_star_templates
from qlstream.simulate import templates

TEMPERATURES = np.arange(5400.0, 7901.0, 250.0)  # [K]
GRAVITIES = np.array([3.5, 4.0, 4.5])  # log10 [cm/s2]
METALLICITIES = np.array([-2.0, -1.5, -1.0])  # [dex]
_WAVE = np.arange(3450.0, 10100.0, 0.5)


def star_grid() -> StarTemplates:
    """Templates on a grid as coarse as real ones; the simulated standards lie between its temperatures."""
    nodes = np.array(list(product(TEMPERATURES, GRAVITIES, METALLICITIES)))
    flux = np.stack([templates.star(_WAVE, *node) for node in nodes])
    flux /= flux.mean(axis=1, keepdims=True)
    return StarTemplates(_WAVE, flux.astype(np.float32), *nodes.T)


def write_star_grid(calib: Path) -> None:
    """stars/templates.fits of the calibration tree."""
    path = calib / "stars" / "templates.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star_templates(path, star_grid())
