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
    and _HIGH, the smallest and largest of the wavelengths; YSIGMA_OUTLIERS, the fraction of fibers that differ from the
    others by more than `outlier`; RESOLVING_POWER, wavelength over FWHM. CHI2_WIDTHS: median chi2 per degree of freedom
    of the widths about their fit; NLINES: median number of lines used per fiber. What no line tells is left out.
    """

    title = "resolution"

    class Params(StageParams):
        nwave: int = Field(5, ge=1, le=50, description="wavelengths at which widths are compared")
        nsig: float = Field(2.0, gt=0, description="deviation that makes a coefficient count as off [robust sigma]")
        outlier: float = Field(0.10, gt=0, description="deviation of a ratio that makes a fiber count as an outlier")

    def run(self, widths: LineWidths, context: Context) -> QAResult:
        nspec = widths.traces.nspec
        good, measured = widths.source == WidthSource.LINES, widths.nlines > 0
        expected = np.ones(nspec, dtype=bool)
        if context.fibermap is not None:
            expected = context.fibermap.is_usable("flat", context.camera[:1])
        low, high = context.arm.wave_science
        wave = np.linspace(low, high, self.params.nwave + 2)[1:-1]
        sigma, ratio = widths.traces.ysig_vs_wave(wave), widths.ratio(wave)
        coef = widths.traces.ysigcoef
        assert coef is not None
        determined = widths.dof > 0
        chi2 = np.divide(widths.chi2, widths.dof, out=np.full(nspec, np.nan), where=determined)
        metrics = {
            "CHECKARC": float(good.sum()),
            "CHECKARC_FRACTION": float((good & expected).sum() / expected.sum()) if expected.any() else float("nan"),
            "NLINES": float(np.median(widths.nlines[expected])) if expected.any() else float("nan"),
        }
        told = f"{good.sum()} of {expected.sum()} fibers fitted, {metrics['NLINES']:.0f} lines each"
        if measured.any():
            at_wave = np.median(ratio[measured], axis=0)
            off = np.abs(ratio[measured] / at_wave - 1.0).max(axis=1) > self.params.outlier
            fwhm = FWHM * sigma / widths.traces.dy_dwave(wave)
            metrics |= {
                "YSIGMA": float(np.median(sigma[measured])),
                "YSIGMA_RATIO": float(np.median(ratio[measured])),
                "YSIGMA_RATIO_LOW": float(at_wave.min()),
                "YSIGMA_RATIO_HIGH": float(at_wave.max()),
                "YSIGMA_OUTLIERS": float(off.mean()),
                "RESOLVING_POWER": float(np.median((wave / fwhm)[measured])),
            }
            told += f"; width {metrics['YSIGMA']:.3f} pixel, {metrics['YSIGMA_RATIO']:.3f} of the calibration's"
        if determined.any():
            metrics["CHI2_WIDTHS"] = float(np.median(chi2[determined]))
        per_fiber = {
            "GOODPSFS": good.astype(float),
            "YSIGMA_FIB": np.where(measured, np.median(sigma, axis=1), np.nan),
            "YSIGMA_RATIO_FIB": np.where(measured, np.median(ratio, axis=1), np.nan),
            "NLINES_FIB": widths.nlines.astype(float),
            "CHI2_FIB": chi2,
        }
        per_fiber |= {f"LPolyCoef{k}": np.where(measured, coef[:, k], np.nan) for k in range(coef.shape[1])}
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


def _off_the_others(coef: Array, nsig: float) -> NDArray[np.int64]:
    """(ncoef,) fibers whose coefficient is off the median by more than `nsig` robust sigma."""
    if not len(coef):
        return np.zeros(coef.shape[1], np.int64)
    away = np.abs(coef - np.median(coef, axis=0))
    return np.asarray((away > nsig * 1.4826 * np.median(away, axis=0)).sum(axis=0))
