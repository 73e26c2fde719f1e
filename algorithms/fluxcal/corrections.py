"""What each fiber catches of its own target, against what the flat field says and what imaging saw (spec §9)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.fluxcal.fiberloss import point_fraction, source_fraction
from qlstream.datamodel.fibermap import Fibermap

Array = NDArray[np.float64]

MM_PER_ARCSEC = 0.0704  # of DESI's focal plane: its fibers of 107 micron see 1.52 arcsec
_LOST = 0.01  # of its light: a fiber that catches less has missed its target
_IMAGING = 0.789  # of a point source's light in the fiber fluxes of the imaging surveys


def fiber_corrections(fibermap: Fibermap, seeing: float, fiber_diameter: float) -> NDArray[Any]:
    """Table FIBERCORR: FLAT_TO_PSF_FLUX and PSF_TO_FIBER_FLUX of every row of the fibermap.

    Parameters
    ----------
    seeing, fiber_diameter : [arcsec]
    """
    table = np.zeros(len(fibermap), dtype=[("FLAT_TO_PSF_FLUX", "f8"), ("PSF_TO_FIBER_FLUX", "f8")])
    table["FLAT_TO_PSF_FLUX"] = flat_to_psf(fibermap, seeing, fiber_diameter)
    table["PSF_TO_FIBER_FLUX"] = psf_to_fiber(fibermap, seeing, fiber_diameter)
    return table


def flat_to_psf(fibermap: Fibermap, seeing: float, fiber_diameter: float) -> Array:
    """(nspec,) by how much the counts of a point source fall short in each fiber, relative to the mean; 0 if lost.

    The flat field fills a fiber evenly, a star does not: one beside its star catches less. Lost is what catches less
    than 1 %.
    """
    caught = point_fraction(seeing, fiber_offsets(fibermap), fiber_diameter)
    good = caught > _LOST
    factor = np.where(good, 1.0 / np.where(good, caught, 1.0), 0.0)
    return np.asarray(factor / factor[good].mean() if good.any() else factor)


def psf_to_fiber(fibermap: Fibermap, seeing: float, fiber_diameter: float) -> Array:
    """(nspec,) from a calibrated flux, right for a point source, to the flux inside a nominal fiber; 0 if lost.

    n a / c: a and c are what the fiber catches of a point and of the real source, n what a nominal one (1 arcsec
    seeing, no offset) does, scaled so that a point source there gives the 0.789 of the imaging surveys' fiber fluxes.
    """
    points = np.char.strip(fibermap.column("MORPHTYPE", "PSF").astype(str)) == "PSF"
    half_light = np.where(points, 0.0, fibermap.column("SHAPE_R", 0.0).astype(float))
    offset = fiber_offsets(fibermap)
    point = point_fraction(seeing, offset, fiber_diameter)
    source = source_fraction(seeing, offset, fiber_diameter, half_light)
    nominal = source_fraction(1.0, 0.0, fiber_diameter, half_light)
    scale = _IMAGING / float(point_fraction(1.0, 0.0, fiber_diameter))
    good = source > _LOST
    return np.asarray(np.where(good, scale * nominal * point / np.where(good, source, 1.0), 0.0))


def fiber_offsets(fibermap: Fibermap) -> Array:
    """(nspec,) distance of each fiber from its target [arcsec]; 0 where it is not known."""
    axes = [np.nan_to_num(fibermap.column(name, 0.0).astype(float)) for name in ("DELTA_X", "DELTA_Y")]
    return np.asarray(np.hypot(*axes) / MM_PER_ARCSEC)
