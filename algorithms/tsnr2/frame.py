"""TSNR2 and effective time of the fibers of a calibrated frame (spec offline-reduction §10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithms.expected import expected_rows
from algorithms.fluxcal.corrections import fiber_offsets
from algorithms.fluxcal.fiberloss import point_fraction, source_fraction
from algorithms.tsnr2.information import tsnr2
from algorithms.tsnr2.nominal import NOMINAL_TIME, fitted_variance, nominal_tsnr2
from algorithms.tsnr2.tracers import TIMED, TRACERS, template_of
from qlstream.datamodel.fluxcalib import FluxCalib, FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.instrument import Arm, Instrument
from qlstream.numeric.dust import extinction

Array = NDArray[np.float64]


def frame_tsnr2(clean: Frame, calib: FrameFluxCalib, instrument: Instrument, seeing: float) -> dict[str, Array]:
    """Tracer -> (nspec,) TSNR2 of each fiber by this arm; 0 without information.

    The variance is that of the frame, less the noise of the row itself and of the fiber's own target (see
    `algorithms.expected`), plus the photons of the tracer. The signal is what the calibration vector of the fiber makes
    of the template behind the dust of its target, times what it would catch of the tracer's size against a point.

    Parameters
    ----------
    clean : flat-fielded and sky-subtracted [electron/Angstrom], with its sky and fibermap
    calib : calibration vectors of the same fibers and bins
    seeing : FWHM [arcsec]

    Raises
    ------
    ValueError : the frame has no fibermap
    """
    if clean.fibermap is None:
        raise ValueError(f"frame_tsnr2: no fibermap in the frame of {clean.camera}; it tells dust and fiber offsets")
    arm = instrument.arm(clean.camera)
    good = (clean.mask == 0) & (calib.mask == 0) & (calib.ivar > 0)
    bins = replace(clean, ivar=np.where(good, clean.ivar, 0.0)).per_bin()
    expected = expected_rows(bins)
    ebv = np.nan_to_num(clean.fibermap.column("EBV", 0.0).astype(float))
    clear = 10.0 ** (-0.4 * ebv[:, None] * extinction(clean.wave))
    grid = template_of(TRACERS[0], arm).wave  # one for all tracers of an arm
    electrons = np.stack([np.interp(grid, clean.wave, row, left=0.0, right=0.0) for row in calib.value * clear])
    offset, fibers = fiber_offsets(clean.fibermap), np.arange(clean.nspec)
    point = point_fraction(seeing, offset, instrument.fiber_diameter)
    out = {}
    for name in TRACERS:
        template = template_of(name, arm)
        share = source_fraction(seeing, offset, instrument.fiber_diameter, template.half_light)
        share /= np.maximum(point, 1e-6)
        out[name] = np.nan_to_num(
            tsnr2(expected, bins.wave, fibers, template, electrons, share, (arm.wave_science[0], arm.wave_science[1]))
        )
    return out


def tsnr2_columns(found: Mapping[str, Array], letter: str) -> dict[str, NDArray[Any]]:
    """Columns of a SCORES table: TSNR2_<tracer>_<letter>."""
    return {f"TSNR2_{name}_{letter}": values for name, values in found.items()}


def nominal_cards(instrument: Instrument, arm: Arm, fluxcalib: FluxCalib) -> dict[str, float]:
    """Header cards NOM<tracer>: TSNR2 of this arm in 1000 s of nominal conditions, of the tracers that tell times."""
    fitted = partial(fitted_variance, readnoise=arm.readnoise, sigma=arm.xsigma)
    return {f"NOM{name}": nominal_tsnr2(name, instrument, arm, fluxcalib, fitted) for name in TIMED}


def efftime_columns(scores: NDArray[Any], cards: Mapping[str, Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Columns EFFTIME_<tracer>_<letter> [second of nominal conditions], from those of TSNR2.

    Each is the share of its arm, so that they add up over arms and exposures as TSNR2 does: 1000 s times TSNR2 over the
    nominal TSNR2 of all arms together. A tracer without nominal conditions in some arm has none.

    Parameters
    ----------
    cards : arm -> header cards of a frame of it
    """
    columns: dict[str, NDArray[Any]] = {}
    for name in TIMED:
        nominal = [float(header.get(f"NOM{name}") or 0.0) for header in cards.values()]
        if all(f"NOM{name}" in header for header in cards.values()) and sum(nominal) > 0:
            for arm in cards:
                told = f"{name}_{arm.upper()}"
                if f"TSNR2_{told}" in (scores.dtype.names or ()):
                    columns[f"EFFTIME_{told}"] = NOMINAL_TIME / sum(nominal) * scores[f"TSNR2_{told}"]
    return columns
