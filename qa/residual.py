"""What the sky subtraction left behind."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from scipy.stats import chi2 as chi2_distribution

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Sky_Residual(MonitoringAlg[CameraSpectra]):
    """Residuals of the sky fibers in units of their errors, over all rows and on bright sky lines.

    RESIDNOISE: robust scatter (nmad) of residual * sqrt(ivar), 1 if the errors are right; SKYCHI2: mean of its square;
    SKYCHI2_LINES: the same where the sky exceeds `line_factor` times its median; RESID: median residual [flux unit];
    NBAD_PCHI: sky fibers whose chi2 is less probable than `pchi`. The ivar includes the error of the sky model, which
    the same fibers made, so values slightly below 1 are right (spec quicklook-qa §1.10).
    """

    title = "sky residuals"

    class Params(StageParams):
        line_factor: float = Field(4.0, gt=1, description="sky above this many times its median is a bright line")
        pchi: float = Field(0.001, gt=0, lt=1, alias="PCHI_RESID", description="probability that makes a fiber bad")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.sky is None or qframe.fibermap is None:
            raise ValueError("no sky model on these spectra; let Sky_Residual check the SkySub stage in the plan")
        sky_fibers = np.flatnonzero(qframe.fibermap.is_sky & qframe.fibermap.is_usable("sky", context.camera[:1]))
        residual = qframe.flux[sky_fibers].astype(float)
        ivar = qframe.ivar[sky_fibers]
        pull = np.where(ivar > 0, residual * np.sqrt(ivar), np.nan)
        model = np.where(ivar > 0, qframe.sky[sky_fibers], np.nan)
        enough = np.isfinite(pull).any(axis=1)
        sky_fibers, residual, pull, model = sky_fibers[enough], residual[enough], pull[enough], model[enough]
        per_fiber = np.full(qframe.nspec, np.nan)
        metrics = dict.fromkeys(("RESIDNOISE", "SKYCHI2", "SKYCHI2_LINES", "RESID", "NBAD_PCHI"), float("nan"))
        if len(sky_fibers):
            lines = model > self.params.line_factor * np.nanmedian(model, axis=1, keepdims=True)
            dof = np.isfinite(pull).sum(axis=1)
            chi2 = np.nansum(pull**2, axis=1)
            per_fiber[sky_fibers] = chi2 / dof
            metrics["RESIDNOISE"] = float(1.4826 * np.nanmedian(np.abs(pull - np.nanmedian(pull))))
            metrics["SKYCHI2"] = float(chi2.sum() / dof.sum())
            if lines.any():
                metrics["SKYCHI2_LINES"] = float(np.nanmean(pull[lines] ** 2))
            metrics["RESID"] = float(np.nanmedian(residual[np.isfinite(pull)]))
            metrics["NBAD_PCHI"] = float((chi2_distribution.sf(chi2, dof) < self.params.pchi).sum())
        return QAResult(
            self.name,
            metrics | {"NSKY_FIB": float(len(sky_fibers))},
            per_fiber={"SKYCHI2_FIB": per_fiber},
            units={"RESID": qframe.bunit},
            summary=f"sky residuals {metrics['RESIDNOISE']:.2f} sigma in {len(sky_fibers)} sky fibers, "
            f"chi2/dof {metrics['SKYCHI2']:.3f}, on bright lines {metrics['SKYCHI2_LINES']:.3f}",
        ).graded(context.ranges, context.where)
