"""Sharpness of the arc lines, fiber by fiber."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.linewidths import LineWidths, WidthSource
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of a Gaussian [sigma]


class Check_Resolution(MonitoringAlg[LineWidths]):
    """Line widths that ResolutionFit found, against those of the calibration PSF.

    CHECKARC: fibers whose widths rest on enough lines of their own (GOODPSFS: which); CHECKARC_FRACTION: of the fibers
    that ought to shine; CHECKPSF: good fibers whose Legendre coefficient 0, 1, 2 ... is off the others' median by more
    than `nsig` robust sigma (the seed counted failed fibers into its sigma, which hid all others); LPolyCoef0 ...: the
    coefficients [pixel]. The seed judged no width (spec quicklook-qa §1.14). Here, at `nwave` wavelengths over the
    science range: YSIGMA, YSIGMA_FIB, the median width [pixel]; YSIGMA_RATIO, over that of the PSF; YSIGMA_RATIO_LOW
    and _HIGH, the smallest and largest of the wavelengths; YSIGMA_OUTLIERS, the fraction of good fibers that differ
    from the others by more than `outlier`; RESOLVING_POWER, wavelength over FWHM. CHI2_WIDTHS: median chi2 per degree
    of freedom of the widths about their fit; NLINES: median number of lines used per fiber.
    """

    title = "resolution"

    class Params(StageParams):
        nwave: int = Field(5, ge=1, le=50, description="wavelengths at which widths are compared")
        nsig: float = Field(2.0, gt=0, description="deviation that makes a coefficient count as off [robust sigma]")
        outlier: float = Field(0.10, gt=0, description="deviation of a ratio that makes a fiber count as an outlier")

    def run(self, widths: LineWidths, context: Context) -> QAResult:
        nspec = widths.traces.nspec
        good = widths.source == WidthSource.LINES
        expected = np.ones(nspec, dtype=bool)
        if context.fibermap is not None:
            expected = context.fibermap.is_usable("flat", context.camera[:1])
        low, high = context.arm.wave_science
        wave = np.linspace(low, high, self.params.nwave + 2)[1:-1]
        sigma, ratio = widths.traces.ysig_vs_wave(wave), widths.ratio(wave)
        angstrom = sigma / widths.traces.dy_dwave(wave)
        with np.errstate(divide="ignore", invalid="ignore"):
            chi2 = np.where(widths.dof > 0, widths.chi2 / widths.dof, np.nan)
        at_wave = np.median(ratio[good], axis=0) if good.any() else np.full(len(wave), np.nan)
        off = np.abs(ratio / at_wave - 1.0).max(axis=1) > self.params.outlier
        metrics = {
            "CHECKARC": float(good.sum()),
            "CHECKARC_FRACTION": float((good & expected).sum() / expected.sum()) if expected.any() else np.nan,
            "YSIGMA": _median(sigma[good]),
            "YSIGMA_RATIO": _median(ratio[good]),
            "YSIGMA_RATIO_LOW": float(at_wave.min()),
            "YSIGMA_RATIO_HIGH": float(at_wave.max()),
            "YSIGMA_OUTLIERS": float(off[good].mean()) if good.any() else np.nan,
            "RESOLVING_POWER": _median((wave / (FWHM * angstrom))[good]),
            "CHI2_WIDTHS": _median(chi2[good]),
            "NLINES": float(np.median(widths.nlines[expected])) if expected.any() else np.nan,
        }
        coef = widths.traces.ysigcoef
        assert coef is not None
        measured = widths.nlines > 0
        per_fiber = {
            "GOODPSFS": good.astype(float),
            "YSIGMA_FIB": np.where(measured, np.median(sigma, axis=1), np.nan),
            "YSIGMA_RATIO_FIB": np.where(measured, np.median(ratio, axis=1), np.nan),
            "NLINES_FIB": widths.nlines.astype(float),
            "CHI2_FIB": chi2,
        }
        per_fiber |= {f"LPolyCoef{k}": np.where(measured, coef[:, k], np.nan) for k in range(coef.shape[1])}
        told = f"{good.sum()} of {expected.sum()} fibers fitted, {metrics['NLINES']:.0f} lines each"
        if good.any():
            told += f"; width {metrics['YSIGMA']:.3f} pixel, {metrics['YSIGMA_RATIO']:.3f} of the calibration's"
        return QAResult(
            self.name,
            metrics,
            per_fiber=per_fiber,
            vectors={
                "CHECKPSF": _off_the_others(coef[good], self.params.nsig),
                "WAVELENGTH": wave,
                "YSIGMA_AT_WAVE": sigma,
                "YSIGMA_RATIO_AT_WAVE": ratio,
                "LINE_WAVE": np.asarray(widths.lines["wave"], dtype=float),
                "LINE_NFIB": widths.used.sum(axis=0),
            },
            units=dict.fromkeys(("YSIGMA", "YSIGMA_FIB", "YSIGMA_AT_WAVE"), "pixel")
            | dict.fromkeys((key for key in per_fiber if key.startswith("LPolyCoef")), "pixel")
            | dict.fromkeys(("WAVELENGTH", "LINE_WAVE"), "Angstrom"),
            summary="; ".join((told, *widths.warnings)),
        ).graded(context.ranges, context.where)


def _median(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if found.size else float("nan")


def _off_the_others(coef: Array, nsig: float) -> NDArray[np.int64]:
    """(ncoef,) fibers whose coefficient is off the median by more than `nsig` robust sigma."""
    if not len(coef):
        return np.zeros(coef.shape[1], np.int64)
    away = np.abs(coef - np.median(coef, axis=0))
    return np.asarray((away > nsig * 1.4826 * np.median(away, axis=0)).sum(axis=0))
