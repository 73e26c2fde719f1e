"""Magnitudes from the calibrated spectra, against those of the imaging."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from speclite import filters

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.qframe import CALIBRATED, QFrame
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]

_AB_FLUX_DENSITY = 0.10885  # 3631 Jy times c [erg/s/cm2/A * A^2]: f_AB(wave) = this / wave^2
_FLUX_UNIT = 1e-17
_POINT_SOURCES = ("STAR", "MWS", "QSO")


class Integrate_Spec(MonitoringAlg[CameraSpectra]):
    """AB magnitude of every calibrated spectrum in the arm's imaging band, and its difference to the imaging.

    SPEC_MAGS: -2.5 log10 of the photon-weighted mean flux over the part of the band that the arm covers, against that
    of an AB source over the same part; DELTAMAG: spectrum less imaging; DELTAMAG_TGT: median per target class;
    DELTAMAG_MEDIAN: over the point sources (stars and quasars), since the calibration is that of a point source and a
    galaxy is larger than a fiber; NFIBNOTGT: targets without positive flux (spec quicklook-qa §1.13, whose zero
    point lacked the filter's integral).
    """

    title = "flux against imaging"

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
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
        targets, points = np.zeros(qframe.nspec, dtype=bool), np.zeros(qframe.nspec, dtype=bool)
        for name in CLASSES:
            members = qframe.fibermap.is_class(name) & usable
            targets |= members
            if name in _POINT_SOURCES:
                points |= members
            found = delta[members & np.isfinite(delta)]
            per_class[name] = None if not members.any() else float(np.median(found)) if found.size else float("nan")
        found = delta[points & np.isfinite(delta)]
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
            summary=f"point sources, spectra less imaging: {metrics['DELTAMAG_MEDIAN']:+.2f} mag in "
            f"{context.arm.band.lower()}",
        ).graded(context.ranges, context.where)


def synthetic_magnitudes(qframe: QFrame, filter_curve: str) -> Array:
    """(nspec,) AB magnitudes over the covered part of the filter; NaN where the mean flux is not positive.

    Rows without information are left out of both integrals.
    """
    wave, response = _filter(filter_curve)
    signal, reference = _integrate(qframe.wave, qframe.flux, qframe.ivar, wave, response)
    signal *= _FLUX_UNIT
    reference *= _AB_FLUX_DENSITY
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((signal > 0) & (reference > 0), -2.5 * np.log10(signal / reference), np.nan)


@njit(nogil=True, cache=True)
def _integrate(
    wave: Array, flux: NDArray[np.float32], ivar: NDArray[np.float32], curve_wave: Array, response: Array
) -> tuple[Array, Array]:
    """Photon-weighted integrals over the good rows: of the flux, and of 1 / wave^2."""
    nspec, ny = flux.shape
    signal, reference = np.zeros(nspec), np.zeros(nspec)
    for i in range(nspec):
        k = 0
        for j in range(ny):
            w = wave[i, j]
            if ivar[i, j] <= 0 or w <= curve_wave[0] or w >= curve_wave[-1]:
                continue
            while curve_wave[k + 1] < w:
                k += 1
            share = (w - curve_wave[k]) / (curve_wave[k + 1] - curve_wave[k])
            through = response[k] + share * (response[k + 1] - response[k])
            width = 0.5 * (wave[i, min(j + 1, ny - 1)] - wave[i, max(j - 1, 0)]) * (2.0 if j in (0, ny - 1) else 1.0)
            signal[i] += through * w * width * flux[i, j]
            reference[i] += through * width / w
    return signal, reference


@cache
def _filter(name: str) -> tuple[Array, Array]:
    curve = filters.load_filter(name)
    return np.asarray(curve.wavelength, dtype=float), np.asarray(curve.response, dtype=float)
