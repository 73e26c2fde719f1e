"""Magnitudes from the calibrated spectra, against those of the imaging."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from speclite import filters

from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.qframe import CALIBRATED, QFrame
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

_AB_FLUX_DENSITY = 0.10885  # 3631 Jy times c [erg/s/cm2/A * A^2]: f_AB(wave) = this / wave^2
_FLUX_UNIT = 1e-17


class Integrate_Spec(MonitoringAlg[QFrame]):
    """AB magnitude of every calibrated spectrum in the arm's imaging band, and its difference to the imaging.

    SPEC_MAGS: -2.5 log10 of the photon-weighted mean flux over the part of the band that the arm covers, against that
    of an AB source over the same part; DELTAMAG: spectrum less imaging; DELTAMAG_TGT: median per target class;
    DELTAMAG_MEDIAN: over all targets; NFIBNOTGT: targets without positive flux (spec quicklook-qa §1.13, whose zero
    point lacked the filter's integral).
    """

    title = "flux against imaging"

    def run(self, qframe: QFrame, context: Context) -> QAResult:
        if qframe.bunit != CALIBRATED:
            raise ValueError(f"these spectra are in {qframe.bunit}; Integrate_Spec needs {CALIBRATED}")
        if qframe.fibermap is None:
            raise ValueError("no fibermap, so there are no imaging fluxes")
        spec_mags = synthetic_magnitudes(qframe, context.arm.filter_curve)
        flux = qframe.fibermap.column(f"FLUX_{context.arm.band}", 0.0).astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            imaging = np.where(flux > 0, 22.5 - 2.5 * np.log10(flux), np.nan)
        usable = qframe.fibermap.is_usable("flux", context.camera[:1])
        delta = np.where(usable, spec_mags - imaging, np.nan)
        per_class: dict[str, float | None] = {}
        targets = np.zeros(qframe.nspec, dtype=bool)
        for name in CLASSES:
            members = qframe.fibermap.is_class(name) & usable
            targets |= members
            found = delta[members & np.isfinite(delta)]
            per_class[name] = None if not members.any() else float(np.median(found)) if found.size else float("nan")
        found = delta[targets & np.isfinite(delta)]
        metrics = {
            "DELTAMAG_MEDIAN": float(np.median(found)) if found.size else float("nan"),
            "NFIBNOTGT": float((targets & ~np.isfinite(spec_mags)).sum()),
        }
        return QAResult(
            self.name,
            metrics,
            per_class={"DELTAMAG_TGT": per_class},
            per_fiber={"SPEC_MAGS": spec_mags, "DELTAMAG": delta},
            units=dict.fromkeys(("DELTAMAG_MEDIAN", "DELTAMAG_TGT", "SPEC_MAGS", "DELTAMAG"), "mag"),
            summary=f"spectra less imaging: {metrics['DELTAMAG_MEDIAN']:+.2f} mag in {context.arm.band.lower()}",
        ).graded(context.ranges, context.where)


def synthetic_magnitudes(qframe: QFrame, filter_curve: str) -> NDArray[np.float64]:
    """(nspec,) AB magnitudes over the covered part of the filter; NaN where the mean flux is not positive.

    Rows without information are left out of both integrals.
    """
    wave, response = _filter(filter_curve)
    transmission = np.interp(qframe.wave.ravel(), wave, response, left=0.0, right=0.0).reshape(qframe.wave.shape)
    weight = np.where(qframe.ivar > 0, transmission * qframe.wave * qframe.dwave, 0.0)
    signal = (weight * qframe.flux).sum(axis=1) * _FLUX_UNIT
    reference = (weight * _AB_FLUX_DENSITY / qframe.wave**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((signal > 0) & (reference > 0), -2.5 * np.log10(signal / reference), np.nan)


@cache
def _filter(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    curve = filters.load_filter(name)
    return np.asarray(curve.wavelength, dtype=float), np.asarray(curve.response, dtype=float)
