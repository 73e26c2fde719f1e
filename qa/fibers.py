"""Which fibers bring light."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class CountSpectralBins(MonitoringAlg[CameraSpectra]):
    """Fibers with significant light, and how much of each spectrum is usable.

    A fiber is good if its summed counts exceed `cutbins` times their own error (from ivar; the seed used a guess
    from the read noise, spec quicklook-qa §1.7). Fibers that FIBERSTATUS calls unusable, or that run over an amplifier
    known to be bad, are not expected to shine.
    NGOODFIB counts the good ones, NMISSINGFIB the expected ones that are dark, GOODFIB_FRACTION = 1 - NMISSINGFIB /
    expected; FLUXLEVEL is the median over fibers of the mean counts [electron/row]; MASKEDROWS the fraction of
    the rows of expected fibers without information.
    """

    title = "live fibers"

    class Params(StageParams):
        cutbins: float = Field(5.0, gt=0, alias="CUTBINS", description="significance that makes a fiber good [sigma]")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        good_rows = qframe.ivar > 0
        weight = np.where(good_rows, qframe.ivar, 1.0)
        total = np.where(good_rows, qframe.flux, 0.0).sum(axis=1, dtype=float)
        error = np.sqrt(np.where(good_rows, 1.0 / weight, 0.0).sum(axis=1, dtype=float))
        rows = good_rows.sum(axis=1)
        lit = total > self.params.cutbins * np.maximum(error, 1e-30)
        lit &= rows > 0
        expected = np.ones(qframe.nspec, dtype=bool)
        if qframe.fibermap is not None:
            arm, fibermap = context.camera[:1], qframe.fibermap
            expected = fibermap.is_usable("flat", arm) & ~fibermap.is_on_bad_amp(arm)
        missing = expected & ~lit
        level = np.where(rows > 0, total / np.maximum(rows, 1), np.nan)
        bins = float((~good_rows[expected]).mean()) if expected.any() else float("nan")
        metrics = {
            "NGOODFIB": float(lit.sum()),
            "NMISSINGFIB": float(missing.sum()),
            "GOODFIB_FRACTION": 1.0 - missing.sum() / expected.sum() if expected.any() else float("nan"),
            "FLUXLEVEL": float(np.median(level[expected & (rows > 0)])) if (expected & (rows > 0)).any() else 0.0,
            "MASKEDROWS": bins,
        }
        dark = ", ".join(str(f) for f in qframe.fibers[missing][:8])
        told = f"{missing.sum()} of {expected.sum()} expected fibers dark" + (f": FIBER {dark}" if dark else "")
        return QAResult(
            self.name,
            metrics,
            per_fiber={"GOOD_FIBERS": lit.astype(float), "TOTCOUNT_FIB": total, "LEVEL_FIB": level},
            units={"FLUXLEVEL": "electron/row", "TOTCOUNT_FIB": "electron", "LEVEL_FIB": "electron/row"},
            summary=told,
        ).graded(context.ranges, context.where)
