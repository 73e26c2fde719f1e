"""The stage that turns counts into flux density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from algorithms.fluxcal.calibrate import calibrate
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.qframe import CALIBRATED, QFrame
from qlstream.pipeline.algorithm import PipelineAlg
from qlstream.pipeline.context import Context

_SEEING_CARDS = ("SEEING", "ETCSEENG", "PMSEEING")
_DEFAULT_SEEING = 1.1  # [arcsec]
_DEFAULT_AIRMASS = 1.0


class ApplyFluxCalibration(PipelineAlg[QFrame, QFrame]):
    """Electrons per row to 1e-17 erg/s/cm2/Angstrom by the average calibration of the arm, for airmass and seeing.

    Clouds and light lost beside the fibers stay in: no zero point is fitted to this exposure.
    """

    needs = ("SkySub_QP",)

    def run(self, qframe: QFrame, context: Context) -> QFrame:
        """Raises MissingCalibration if the tree has no FLUXCALIB or the header no exposure time."""
        fluxcalib = context.calibration.fluxcalib
        if context.exptime <= 0:
            raise MissingCalibration(f"no flux calibration without EXPTIME, which is {context.header.get('EXPTIME')!r}")
        seeing = first_number(context.header, _SEEING_CARDS, _DEFAULT_SEEING)
        airmass = first_number(context.header, ("AIRMASS",), _DEFAULT_AIRMASS)
        flux, ivar, mask, sky = calibrate(qframe, fluxcalib, context.exptime, airmass, seeing)
        middle = float(np.mean(context.arm.wave_science))
        cards = {
            "CALWAVE": middle,
            "CALVALUE": float(fluxcalib.at([middle], airmass, seeing)[0] * context.exptime),
            "CALAIRM": airmass,
            "CALSEE": seeing,
        }
        return replace(
            qframe, flux=flux, ivar=ivar, mask=mask, sky=sky, bunit=CALIBRATED, meta={**qframe.meta, **cards}
        )


def first_number(header: Mapping[str, Any], names: tuple[str, ...], default: float) -> float:
    """The first of the cards `names` that holds a positive finite number, else `default`."""
    for name in names:
        value = header.get(name)
        if isinstance(value, (int, float)) and np.isfinite(value) and value > 0:
            return float(value)
    return default
