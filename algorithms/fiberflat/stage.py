"""Stages of the fiber flat: made from a lamp exposure, applied to a science exposure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.fiberflat.apply import divide_by_fiberflat
from algorithms.fiberflat.smooth import fit_smooth_flat
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context


class ComputeFiberflat_QP(PipelineAlg[QFrame, FiberFlat]):
    """Relative throughput of the fibers from one lamp exposure, smooth in wavelength, with its error."""

    class Params(StageParams):
        knot_step: float = Field(22.0, gt=0, description="distance of the knots of a fiber's throughput [Angstrom]")
        lamp_knot_step: float = Field(2.0, gt=0, description="distance of the knots of the lamp spectrum [Angstrom]")
        niter: int = Field(2, ge=1, le=20, description="rounds of lamp spectrum and throughputs")
        nsig: float = Field(5.0, gt=0, description="reject rows that deviate by more [sigma]")
        tolerance: float = Field(0.01, ge=0, lt=1, description="never reject deviations of this fraction of the flux")
        min_throughput: float = Field(0.1, ge=0, lt=1, description="a fiber below this times the median is dark")
        min_good: float = Field(0.25, ge=0, le=1, description="a fiber with a smaller share of good rows is bad")
        min_snr: float = Field(5.0, gt=0, description="below this median S/N per row there was no lamp light")
        max_error: float = Field(0.02, gt=0, description="mask the flat where its own error is larger")

    def run(self, qframe: QFrame, context: Context) -> FiberFlat:
        """Raises MissingCalibration if the exposure holds no lamp light: then it makes no flat."""
        p = self.params
        live = self._live_fibers(qframe, context)
        fit = fit_smooth_flat(
            qframe.wave, qframe.dwave, qframe.flux, qframe.ivar, live, p.knot_step, p.lamp_knot_step, p.niter, p.nsig,
            p.tolerance,
        )  # fmt: skip
        good = fit.variance < p.max_error**2
        context.log.info(
            "fiber flat: %d of %d fibers live, chi2/dof %.3f, median error %.2f %%",
            live.sum(), live.size, fit.chi2pdf, 100 * np.sqrt(np.median(fit.variance[good])) if good.any() else np.nan,
        )  # fmt: skip
        ivar = np.zeros_like(fit.variance)
        np.divide(1.0, fit.variance, out=ivar, where=good)
        return FiberFlat(
            wave=fit.wave,
            fiberflat=np.where(good, fit.fiberflat, 1.0),
            ivar=ivar,
            mask=np.where(good, 0, SpecMask.BADFIBERFLAT).astype(np.uint32),
            meanspec=fit.lamp,
            fibers=qframe.fibers,
            chi2pdf=fit.chi2pdf,
            fibermap=qframe.fibermap,
            meta=dict(qframe.meta),
        )

    def _live_fibers(self, qframe: QFrame, context: Context) -> NDArray[np.bool_]:
        p = self.params
        good = qframe.ivar > 0
        live = good.mean(axis=1) >= p.min_good
        if qframe.fibermap is not None:
            live &= qframe.fibermap.is_usable("flat", context.camera[:1])
        level, snr = np.zeros(qframe.nspec), np.zeros(qframe.nspec)
        for f in np.flatnonzero(live):
            rows = np.flatnonzero(good[f])[::8]  # plenty for a median
            level[f] = np.median(qframe.flux[f, rows])
            snr[f] = np.median(qframe.flux[f, rows] * np.sqrt(qframe.ivar[f, rows]))
        typical = float(np.median(snr[live])) if live.any() else 0.0
        if typical < p.min_snr:
            raise MissingCalibration(
                f"no lamp light in this flat: median S/N per row {typical:.1f}, needed {p.min_snr:g}; no flat is made"
            )
        return np.asarray(live & (level > p.min_throughput * np.median(level[live])))


class ApplyFiberFlat_QP(PipelineAlg[QFrame, QFrame]):
    """Divide by the fiber flat, so that all fibers count alike; where the flat is bad, the mask says so."""

    needs = ("Extract_QP",)

    def run(self, qframe: QFrame, context: Context) -> QFrame:
        flux, ivar, mask = divide_by_fiberflat(qframe, context.calibration.fiberflat)
        return replace(qframe, flux=flux, ivar=ivar, mask=mask)
