"""Brightness of the sky in magnitudes, from the model that was subtracted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.fluxcal.stage import SEEING_CARDS, first_number
from qa.fiberlight import aperture_fraction
from qa.photometry import band_fluxes, magnitudes
from qa.sky import usable_sky_fibers
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
_UNKNOWN_ACCEPTANCE = 0.6  # of a DESI fiber in typical seeing (spec quicklook-qa §4)


class Sky_Rband(MonitoringAlg[CameraSpectra]):
    """Surface brightness of the sky in the arm's imaging band [AB mag/arcsec^2], as seen from the ground.

    SKY_MAG_<band>: of the mean over the sky fibers of the sky model; SKY_MAG_FIB of each. Of an r arm these are also
    the seed's SKYRBAND and SKYRBAND_FIB, which it took from spectra without sky, 42.5 mag off and with the exposure
    time divided out twice (spec quicklook-qa §1.12).
    The flux calibration is that of a point source above the atmosphere: it makes up for light that misses the fiber
    and that the air takes. Sky light does neither, so both are taken out again: `acceptance`, and the extinction of
    the calibration at the airmass of the exposure. What remains is the flux through the fiber's area.
    """

    title = "sky magnitude"

    class Params(StageParams):
        acceptance: float | None = Field(
            None,
            gt=0,
            le=1,
            description="fraction of a point source's light in a fiber that the calibration stands for; default: that "
            "of a Gaussian image in the seeing of the header, 0.6 if there is none",
        )

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.bunit != CALIBRATED:
            raise ValueError(f"these spectra are in {qframe.bunit}; Sky_Rband needs {CALIBRATED}")
        if qframe.sky is None:
            raise ValueError("no sky model on these spectra; subtract the sky before the calibration")
        sky = usable_sky_fibers(qframe, context)
        diameter, band = context.instrument.fiber_diameter, context.arm.band
        area = np.pi * (0.5 * diameter) ** 2
        wave = qframe.wave[sky]
        brightness = qframe.sky[sky] * (self._acceptance(context, diameter) / area) * _transmission(wave, context)
        of_fiber = np.full(qframe.nspec, np.nan)
        of_fiber[sky] = band_fluxes(
            wave, brightness.astype(np.float32), qframe.ivar[sky], context.arm.filter_curve, context.arm.wave_science
        )
        found = of_fiber[np.isfinite(of_fiber)]
        mean = float(magnitudes(np.array([found.mean()]))[0]) if found.size else float("nan")
        per_fiber = {"SKY_MAG_FIB": magnitudes(of_fiber)}
        metrics = {f"SKY_MAG_{band}": mean}
        if band == "R":
            metrics["SKYRBAND"], per_fiber["SKYRBAND_FIB"] = mean, per_fiber["SKY_MAG_FIB"]
        return QAResult(
            self.name,
            metrics,
            per_fiber=per_fiber,
            vectors={"SKYFIBERID": qframe.fibers[sky]},
            units=dict.fromkeys((*metrics, *per_fiber), "AB mag/arcsec^2"),
            summary=f"sky {mean:.2f} AB mag/arcsec^2 in {band.lower()}, {found.size} sky fibers",
        ).graded(context.ranges, context.where)

    def _acceptance(self, context: Context, diameter: float) -> float:
        if self.params.acceptance is not None:
            return float(self.params.acceptance)
        seeing = first_number(context.header, SEEING_CARDS, float("nan"))
        return float(aperture_fraction(diameter, seeing)) if np.isfinite(seeing) else _UNKNOWN_ACCEPTANCE


def _transmission(wave: Array, context: Context) -> Array:
    """Fraction of starlight that reaches the ground, by the extinction of the flux calibration; same shape as wave."""
    fluxcalib = context.calibration.fluxcalib
    airmass = first_number(context.header, ("AIRMASS",), 1.0)
    extinction = np.interp(wave.ravel(), fluxcalib.wave, fluxcalib.airmass_term).reshape(wave.shape)
    return np.asarray(10.0 ** (-0.4 * airmass * extinction))
