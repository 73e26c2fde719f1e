"""Flux and signal to noise of every fiber in the standard range of its arm."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import CALIBRATED, ELECTRON, QFrame
from qlstream.numeric.medians import medians_of
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
Pixels = NDArray[np.float32]
_INF = np.float32(np.inf)


class TopHat_Raw(MonitoringAlg[CameraSpectra]):
    """Counts of every fiber in the arm's top hat, shown to compare fibers and nights, not judged.

    INTEG_RAW_FLUX: sum of f dlambda, with rows without information filled in by the mean of the others [electron];
    MEDIAN_RAW_FLUX: median of f [electron/Angstrom]; MEDIAN_RAW_SNR: median of f sqrt(ivar) / sqrt(dlambda) with the
    S/N of a row, so per square root of an Angstrom (spec quicklook-qa §4, table CAMFIBER). The scalars are
    medians over the fibers in use.
    """

    title = "flux of fibers"

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.bunit != ELECTRON:
            raise ValueError(f"these spectra are in {qframe.bunit}; TopHat_Raw needs {ELECTRON}")
        units = {"INTEG_RAW_FLUX": "electron", "MEDIAN_RAW_FLUX": "electron/Angstrom"}
        return _result(self.name, "RAW", qframe, context, units)


class TopHat_Calib(MonitoringAlg[CameraSpectra]):
    """Calibrated flux of every fiber in the arm's top hat: as TopHat_Raw, of INTEG_CALIB_FLUX and so on."""

    title = "calibrated flux of fibers"

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.bunit != CALIBRATED:
            raise ValueError(f"these spectra are in {qframe.bunit}; TopHat_Calib needs {CALIBRATED}")
        units = {"INTEG_CALIB_FLUX": "10**-17 erg/(s cm2)", "MEDIAN_CALIB_FLUX": CALIBRATED}
        return _result(self.name, "CALIB", qframe, context, units)


def _result(name: str, stage: str, qframe: QFrame, context: Context, units: dict[str, str]) -> QAResult:
    low, high = context.arm.top_hat or context.arm.wave_science
    is_density = qframe.bunit == CALIBRATED
    integral, density, snr = _in_range(qframe.wave, qframe.flux, qframe.ivar, low, high, is_density)
    per_fiber = {
        f"INTEG_{stage}_FLUX": integral,
        f"MEDIAN_{stage}_FLUX": medians_of(density),
        f"MEDIAN_{stage}_SNR": medians_of(snr),
    }
    in_use = np.ones(qframe.nspec, dtype=bool)
    if qframe.fibermap is not None:
        in_use = qframe.fibermap.is_usable("flat", context.arm.name)
    metrics = {}
    for key, values in per_fiber.items():
        found = values[in_use & np.isfinite(values)]
        metrics[key] = float(np.median(found)) if found.size else float("nan")
    level, unit = metrics[f"MEDIAN_{stage}_FLUX"], units[f"MEDIAN_{stage}_FLUX"]
    return QAResult(
        name,
        metrics,
        per_fiber=per_fiber,
        units=units | {f"MEDIAN_{stage}_SNR": "per sqrt(Angstrom)"},
        summary=f"median fiber {level:.3g} {unit}, S/N {metrics[f'MEDIAN_{stage}_SNR']:.3g} per sqrt(Angstrom), "
        f"{low:g}-{high:g} Angstrom",
    ).graded(context.ranges, context.where)


@njit(nogil=True, cache=True)
def _in_range(
    wave: Array, flux: Pixels, ivar: Pixels, low: float, high: float, is_density: bool
) -> tuple[Array, Pixels, Pixels]:
    """(nspec,) integrals, and density and S/N with -inf and +inf in turn in rows that do not count."""
    nspec, ny = flux.shape
    integral = np.full(nspec, np.nan)
    density, snr = np.empty_like(flux), np.empty_like(flux)
    for f in range(nspec):
        total, covered, whole = 0.0, 0.0, 0.0
        side = -_INF
        for j in range(ny):
            first, last = max(j - 1, 0), min(j + 1, ny - 1)
            width = (wave[f, last] - wave[f, first]) / (last - first)
            inside = low <= wave[f, j] < high
            if inside:
                whole += width
            if inside and ivar[f, j] > 0:
                value = flux[f, j] if is_density else flux[f, j] / width
                total += value * width
                covered += width
                density[f, j] = value
                # of counts per row, f sqrt(ivar) is that of the density: the widths cancel
                snr[f, j] = flux[f, j] * np.sqrt(ivar[f, j] / width)
            else:
                density[f, j] = snr[f, j] = side
                side = -side
        if covered > 0:
            integral[f] = total * whole / covered
    return integral, density, snr
