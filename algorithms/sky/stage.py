"""The stage that subtracts the sky."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.sky.subtract import TooFewSkyFibers, fit_sky_fibers, subtract_sky
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import PipelineAlg, StageParams
from qlstream.pipeline.context import Context

_NOT_FOR_SKY = int(FiberMask.VARIABLETHRU | FiberMask.LOWTRANSMISSION)  # beside the bits that no use allows


class SkySub_QP(PipelineAlg[QFrame, QFrame]):
    """Model the sky from the camera's sky fibers, each through its own line spread, and subtract it from all."""

    needs = ("ApplyFiberFlat_QP",)

    class Params(StageParams):
        knot_step: float = Field(0.65, gt=0.3, le=2, description="distance of the knots of the sky spectrum [pixel]")
        niter: int = Field(2, ge=2, le=20, description="rounds of fit and rejection")
        nsig: float = Field(5.0, gt=0, description="reject samples and fibers that deviate by more [sigma]")
        tolerance: float = Field(0.01, ge=0, lt=1, description="never reject samples within this fraction of the sky")
        fiber_tolerance: float = Field(0.05, ge=0, description="never reject fibers within this fraction of the sky")
        line_level: float = Field(
            3.0, gt=1, description="each fiber corrects its lines above this many continua of sky"
        )
        min_fibers: int = Field(3, ge=1, description="fewer sky fibers make no sky")

    def run(self, qframe: QFrame, context: Context) -> QFrame:
        """Raises MissingCalibration if there are too few sky fibers: none are invented from targets."""
        fibermap = qframe.fibermap
        if fibermap is None:
            raise MissingCalibration("no fibermap, so it is not known which fibers see sky")
        p = self.params
        candidates = self._sky_fibers(fibermap, context)
        try:
            fitted = fit_sky_fibers(
                qframe, candidates, p.knot_step, p.niter, p.nsig, p.tolerance, p.fiber_tolerance, p.min_fibers
            )
        except TooFewSkyFibers as error:
            raise MissingCalibration(f"no sky model for {context.camera}: {error}") from None
        if fitted.rejected.size:
            context.log.warning("sky fibers with other light: FIBER %s", qframe.fibers[fitted.rejected].tolist())
        out = subtract_sky(qframe, fitted, p.line_level, p.nsig)
        bad = ~fibermap.is_usable("sky", context.camera[:1])
        out.ivar[bad] = 0.0
        out.mask[bad] |= np.uint32(SpecMask.BADFIBER)
        counts = {"NSKY": int(fitted.fibers.size), "NSKYREJ": int(fitted.rejected.size)}
        return replace(out, meta={**qframe.meta, **counts})

    @staticmethod
    def _sky_fibers(fibermap: Fibermap, context: Context) -> NDArray[np.int64]:
        status = fibermap.column("FIBERSTATUS", 0).astype(np.int64)
        usable = fibermap.is_usable("sky", context.camera[:1]) & ((status & _NOT_FOR_SKY) == 0)
        return np.flatnonzero(fibermap.is_sky & usable)
