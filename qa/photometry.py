"""Magnitudes from the calibrated spectra, against those of the imaging."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qa.fiberlight import filter_of
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import CLASSES
from qlstream.datamodel.qframe import CALIBRATED, QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
Pixels = NDArray[np.float32]
Range = tuple[float, float]

EVERYWHERE = (0.0, float("inf"))

_AB_FLUX_DENSITY = 0.10885  # 3631 Jy times c [erg/s/cm2/A * A^2]: f_AB(wave) = this / wave^2
_FLUX_UNIT = 1e-17
_PHOTON_ENERGY = 1.98644586e-8  # times wavelength [erg Angstrom]
POINT_SOURCES = ("STAR", "MWS", "QSO")


class Integrate_Spec(MonitoringAlg[CameraSpectra]):
    """AB magnitude of every calibrated spectrum in the arm's imaging band, and its difference to the imaging.

    SPEC_MAGS: -2.5 log10 of the photon-weighted mean flux over the part of the band that the arm covers, against that
    of an AB source over the same part (spec quicklook-qa §1.13, whose zero point lacked the filter's integral);
    SPECFLUX: that flux [nanomaggy], negative ones kept; DELTAMAG: spectrum less imaging; DELTAMAG_TGT: median per
    target class; DELTAMAG_MEDIAN: over the point sources (stars and quasars), since the calibration is that of a point
    source and a galaxy is larger than a fiber; NFIBNOTGT: targets without positive flux.
    NSTDSTAR: standard stars in use; STARRMS: rms of their data / imaging - 1 about the mean, corrected by n / (n - 1).
    THRU: fraction of the photons above the atmosphere that become electrons, of targets brighter than `min_flux`, all
    losses included, at the wavelength CALWAVE of the calibration; THRU_MEDIAN: of the camera's point sources. Vectors
    FIBERID and STD_FIBERID.
    """

    title = "flux against imaging"

    class Params(StageParams):
        min_flux: float = Field(10.0, gt=0, description="fainter targets tell no throughput [nanomaggy]")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.bunit != CALIBRATED:
            raise ValueError(f"these spectra are in {qframe.bunit}; Integrate_Spec needs {CALIBRATED}")
        fibermap = qframe.fibermap
        if fibermap is None:
            raise MissingCalibration("no fibermap, so there are no imaging fluxes")
        spec_flux = synthetic_fluxes(qframe, context.arm.filter_curve, context.arm.wave_science)
        spec_mags = magnitudes(spec_flux)
        flux = fibermap.column(f"FLUX_{context.arm.band}", 0.0).astype(float)
        usable = fibermap.is_usable("flux", context.camera[:1])
        delta = np.where(usable, spec_mags - magnitudes(flux), np.nan)
        per_class: dict[str, float | None] = {}
        targets, points = np.zeros(qframe.nspec, dtype=bool), np.zeros(qframe.nspec, dtype=bool)
        for name in CLASSES:
            members = fibermap.is_class(name) & usable
            targets |= members
            if name in POINT_SOURCES:
                points |= members
            per_class[name] = _median(delta[members]) if members.any() else None
        throughput = self._throughput(qframe, context, np.where(usable & targets, flux, 0.0), spec_flux)
        stars = fibermap.is_class("STAR") & fibermap.is_usable("star", context.camera[:1]) & (flux > 0)
        metrics = {
            "DELTAMAG_MEDIAN": _median(delta[points]),
            "NFIBNOTGT": float((targets & ~(spec_flux > 0)).sum()),
            "NSTDSTAR": float(stars.sum()),
        }
        if stars.sum() > 1:
            metrics["STARRMS"] = _star_rms(spec_flux[stars] / flux[stars])
        if np.isfinite(throughput[points]).any():
            metrics["THRU_MEDIAN"] = _median(throughput[points])
        return QAResult(
            self.name,
            metrics,
            per_class={"DELTAMAG_TGT": per_class},
            per_fiber={"SPEC_MAGS": spec_mags, "SPECFLUX": spec_flux, "DELTAMAG": delta, "THRU": throughput},
            vectors={"FIBERID": qframe.fibers, "STD_FIBERID": qframe.fibers[stars]},
            units=dict.fromkeys(("DELTAMAG_MEDIAN", "DELTAMAG_TGT", "SPEC_MAGS", "DELTAMAG"), "mag")
            | {"SPECFLUX": "nanomaggy"},
            summary=f"point sources, spectra less imaging: {metrics['DELTAMAG_MEDIAN']:+.2f} mag in "
            f"{context.arm.band.lower()}",
        ).graded(context.ranges, context.where)

    def _throughput(self, qframe: QFrame, context: Context, flux: Array, spec_flux: Array) -> Array:
        """(nspec,) of electrons per photon above the atmosphere; NaN for faint targets and without CALVALUE."""
        value, wave = qframe.meta.get("CALVALUE"), qframe.meta.get("CALWAVE")
        if not isinstance(value, (int, float)) or not isinstance(wave, (int, float)) or context.exptime <= 0:
            return np.full(qframe.nspec, np.nan)
        per_photon = value / context.exptime / _FLUX_UNIT * _PHOTON_ENERGY / wave / context.instrument.mirror_area
        bright = flux >= self.params.min_flux
        return np.where(bright, per_photon * spec_flux / np.where(bright, flux, 1.0), np.nan)


def magnitudes(flux: Array) -> Array:
    """AB magnitudes of fluxes [nanomaggy]; NaN where they are not positive."""
    positive = flux > 0
    return np.where(positive, 22.5 - 2.5 * np.log10(np.where(positive, flux, 1.0)), np.nan)


def synthetic_magnitudes(qframe: QFrame, filter_curve: str, wave_range: Range = EVERYWHERE) -> Array:
    """(nspec,) AB magnitudes over the covered part of the filter; NaN where the mean flux is not positive."""
    return magnitudes(synthetic_fluxes(qframe, filter_curve, wave_range))


def synthetic_fluxes(qframe: QFrame, filter_curve: str, wave_range: Range = EVERYWHERE) -> Array:
    """(nspec,) mean flux over the covered part of the filter [nanomaggy]; NaN where nothing is covered.

    Rows without information are left out of both integrals, and so are those outside of `wave_range` [Angstrom]: give
    the arm's science range, since beyond it the dichroics leave noise that the calibration blows up.
    """
    return band_fluxes(qframe.wave, qframe.flux, qframe.ivar, filter_curve, wave_range)


def band_fluxes(wave: Array, flux: Pixels, ivar: Pixels, filter_curve: str, wave_range: Range = EVERYWHERE) -> Array:
    """As `synthetic_fluxes`, of spectra [1e-17 erg/s/cm2/Angstrom], all (nspec, ny)."""
    signal, reference = _integrate(wave, flux, ivar, *filter_of(filter_curve), *wave_range)
    covered = reference > 0
    ratio = signal * _FLUX_UNIT / np.where(covered, reference * _AB_FLUX_DENSITY, 1.0)
    return np.where(covered, 1e9 * ratio, np.nan)


def _median(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if found.size else float("nan")


def _star_rms(ratio: Array) -> float:
    """Relative scatter of the stars, n / (n - 1) times the rms about their mean (spec quicklook-qa §4)."""
    scatter = float(np.sqrt(np.mean((ratio / ratio.mean() - 1.0) ** 2)))
    return scatter * ratio.size / (ratio.size - 1)


@njit(nogil=True, cache=True)
def _integrate(wave, flux, ivar, curve_wave, response, low, high):  # type: ignore[no-untyped-def]
    """Photon-weighted integrals over the good rows: of the flux, and of 1 / wave^2."""
    nspec, ny = flux.shape
    signal, reference = np.zeros(nspec), np.zeros(nspec)
    low, high = max(low, curve_wave[0]), min(high, curve_wave[-1])
    slope = (response[1:] - response[:-1]) / (curve_wave[1:] - curve_wave[:-1])
    for i in range(nspec):
        k = 0
        for j in range(np.searchsorted(wave[i], low, "right"), np.searchsorted(wave[i], high)):
            if ivar[i, j] <= 0:
                continue
            w = wave[i, j]
            while curve_wave[k + 1] < w:
                k += 1
            through = response[k] + (w - curve_wave[k]) * slope[k]
            width = 0.5 * (wave[i, min(j + 1, ny - 1)] - wave[i, max(j - 1, 0)]) * (2.0 if j in (0, ny - 1) else 1.0)
            signal[i] += through * w * width * flux[i, j]
            reference[i] += through * width / w
    return signal, reference
