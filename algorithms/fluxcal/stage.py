"""The stage that turns counts into flux density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from algorithms.fluxcal.calibrate import calibrate, scaled_sky
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.context import Context

SEEING_CARDS = ("SEEING", "ETCSEENG", "PMSEEING")
_DEFAULT_SEEING = 1.1  # [arcsec]
_DEFAULT_AIRMASS = 1.0


class ApplyFluxCalibration(PipelineAlg[CameraSpectra, CameraSpectra]):
    """Electrons to 1e-17 erg/s/cm2/Angstrom by the average calibration of the arm, for airmass and seeing.

    Clouds and light lost beside the fibers stay in: no zero point is fitted to this exposure. Takes qframes and frames.
    """

    needs = (("SkySub_QP", "SkySub_QL", "SkySub"),)

    def run(self, spectra: CameraSpectra, context: Context) -> CameraSpectra:
        """Raises MissingCalibration if the tree has no FLUXCALIB or the header no exposure time."""
        fluxcalib = context.calibration.fluxcalib
        if context.exptime <= 0:
            raise MissingCalibration(f"no flux calibration without EXPTIME, which is {context.header.get('EXPTIME')!r}")
        seeing = seeing_of(context.header)
        airmass = first_number(context.header, ("AIRMASS",), _DEFAULT_AIRMASS)
        bins = spectra.per_bin()
        flux, ivar, mask, sky = calibrate(bins, fluxcalib, context.exptime, airmass, seeing)
        middle = float(np.mean(context.arm.wave_science))
        cards = {
            "CALWAVE": middle,
            "CALVALUE": float(fluxcalib.at([middle], airmass, seeing)[0] * context.exptime),
            "CALAIRM": airmass,
            "CALSEE": seeing,
        }
        out = replace(bins, flux=flux, ivar=ivar, mask=mask, sky=sky, bunit=CALIBRATED, meta={**bins.meta, **cards})
        if not isinstance(spectra, Frame):
            return out
        factor = fluxcalib.at(spectra.wave, airmass, seeing) * context.exptime
        return replace(spectra.with_bins(out), sky=None if spectra.sky is None else scaled_sky(spectra.sky, factor))


def seeing_of(header: Mapping[str, Any]) -> float:
    """FWHM of the exposure's header [arcsec], 1.1 if it has none."""
    return first_number(header, SEEING_CARDS, _DEFAULT_SEEING)


def first_number(header: Mapping[str, Any], names: tuple[str, ...], default: float) -> float:
    """The first of the cards `names` that holds a positive finite number, else `default`."""
    for name in names:
        value = header.get(name)
        if isinstance(value, (int, float)) and np.isfinite(value) and value > 0:
            return float(value)
    return default
