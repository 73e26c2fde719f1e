"""Which fibers bring light."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]


class CountSpectralBins(MonitoringAlg[CameraSpectra]):
    """Fibers with significant light, and how much of each spectrum is usable.

    A fiber is good if its summed counts exceed `cutbins` times their own error (from ivar; the seed used a guess
    from the read noise, spec quicklook-qa §1.7) and the part `crosstalk` of the median fiber's, which the wings of its
    neighbours can bring. Fibers that FIBERSTATUS calls unusable are not expected to shine.
    NGOODFIB counts the good ones, NKNOWNBROKEN those that nobody expects, NMISSINGFIB the expected ones that are dark,
    less the `n_known_broken`; GOODFIB_FRACTION = 1 - NMISSINGFIB / expected; FLUXLEVEL is the median over fibers of
    the mean counts [electron/row]; MASKEDROWS the fraction of the rows of expected fibers without information.
    Per fiber: GOOD_FIBERS (1 or 0), TOTCOUNT_FIB, the summed counts, LEVEL_FIB, their mean, and MASKED_FIB.
    """

    title = "live fibers"

    class Params(StageParams):
        cutbins: float = Field(5.0, gt=0, alias="CUTBINS", description="significance that makes a fiber good [sigma]")
        crosstalk: float = Field(
            0.01, ge=0, lt=1, description="a fiber with less than this part of the median fiber's light has none"
        )
        n_known_broken: int = Field(
            0,
            ge=0,
            alias="N_KNOWN_BROKEN_FIBERS",
            description="dark fibers tolerated beside those of FIBERSTATUS",
        )

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        total, error, rows = _totals(qframe.flux, qframe.ivar)
        expected = np.ones(qframe.nspec, dtype=bool)
        if qframe.fibermap is not None:
            expected = qframe.fibermap.is_usable("flat", context.camera[:1])
        level = np.where(rows > 0, total / np.maximum(rows, 1.0), np.nan)
        seen = expected & (rows > 0)
        typical = float(np.median(level[seen])) if seen.any() else 0.0
        lit = (rows > 0) & (total > self.params.cutbins * error)
        lit &= np.nan_to_num(level) > self.params.crosstalk * typical
        dark = expected & ~lit
        missing = max(int(dark.sum()) - self.params.n_known_broken, 0)
        masked = 1.0 - rows / qframe.flux.shape[1]
        metrics = {
            "NGOODFIB": float(lit.sum()),
            "NKNOWNBROKEN": float((~expected).sum()),
            "NMISSINGFIB": float(missing),
            "GOODFIB_FRACTION": 1.0 - missing / expected.sum() if expected.any() else float("nan"),
            "FLUXLEVEL": typical,
            "MASKEDROWS": float(masked[expected].mean()) if expected.any() else float("nan"),
        }
        named = ", ".join(str(f) for f in qframe.fibers[dark][:8])
        told = f"{missing} of {expected.sum()} expected fibers dark" + (f": FIBER {named}" if named else "")
        return QAResult(
            self.name,
            metrics,
            per_fiber={
                "GOOD_FIBERS": lit.astype(float),
                "TOTCOUNT_FIB": total,
                "LEVEL_FIB": level,
                "MASKED_FIB": masked,
            },
            units={"FLUXLEVEL": "electron/row", "TOTCOUNT_FIB": "electron", "LEVEL_FIB": "electron/row"},
            summary=told,
        ).graded(context.ranges, context.where)


@njit(nogil=True, cache=True)
def _totals(flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> tuple[Array, Array, Array]:
    """Sum of the counts of each fiber over rows with information, its error, and the number of those rows."""
    nspec, ny = flux.shape
    total, error, rows = np.zeros(nspec), np.zeros(nspec), np.zeros(nspec)
    for f in range(nspec):
        for j in range(ny):
            if ivar[f, j] > 0:
                total[f] += flux[f, j]
                error[f] += 1.0 / ivar[f, j]
                rows[f] += 1.0
        error[f] = np.sqrt(error[f])
    return total, error, rows
