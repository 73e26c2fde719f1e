"""What the sky subtraction left behind."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import chi2 as chi2_distribution

from qa.sky import usable_sky_fibers
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import QFrame
from qlstream.numeric.medians import row_medians
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
_KEYS = ("RESIDNOISE", "SKYCHI2", "RESID", "RESID_LOW", "RESID_HIGH", "NBAD_PCHI")


class Sky_Residual(MonitoringAlg[CameraSpectra]):
    """Residuals of the sky fibers in units of their errors, over all rows, on bright sky lines and between them.

    RESIDNOISE: robust scatter (nmad) of residual * sqrt(ivar), 1 if the errors are right; SKYCHI2: mean of its square;
    both also on rows where the sky exceeds `line_factor` times its median (_LINES; absent where there are none) and on
    all others (_CONT); RESID: median residual [flux unit]; RESID_LOW, RESID_HIGH: ends of the central `per_resid`
    percent (the seed's RESID_PER); NBAD_PCHI: sky fibers whose chi2 is less probable than `pchi`; NSKY_FIB sky fibers.
    SKYCHI2_FIB and MED_RESID_FIBER: chi2 / dof and median residual of each sky fiber; vectors SKYCHI2_BUNDLE per
    bundle, WAVELENGTH, MED_RESID_WAVE and WAVG_RES_WAVE: median and ivar-weighted mean at each wavelength [flux
    unit], and SKYFIBERID.

    The sky stages give fibers that made the model the ivar of their own residual: a sample's variance less the model's.
    Its pull is that of a leave-one-out residual, whose value and error are both larger by 1 / (1 - leverage). So
    1 is right although the same fibers made the model (spec quicklook-qa §1.10 compared with the error of the
    data alone).
    """

    title = "sky residuals"

    class Params(StageParams):
        line_factor: float = Field(4.0, gt=1, description="sky above this many times its median is a bright line")
        pchi: float = Field(0.001, gt=0, lt=1, alias="PCHI_RESID", description="probability that makes a fiber bad")
        per_resid: float = Field(95.0, gt=0, lt=100, alias="PER_RESID", description="central interval of RESID_PER [%]")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.sky is None:
            raise ValueError("no sky model on these spectra; let Sky_Residual check a sky subtraction in the plan")
        sky = usable_sky_fibers(qframe, context)
        metrics = dict.fromkeys(_KEYS, float("nan"))
        metrics["NSKY_FIB"] = float(len(sky))
        per_fiber = {key: np.full(qframe.nspec, np.nan) for key in ("SKYCHI2_FIB", "MED_RESID_FIBER")}
        vectors: dict[str, NDArray[np.generic]] = {"SKYFIBERID": qframe.fibers[sky]}
        if len(sky):
            chi2, dof = self._measure(qframe, sky, metrics)
            per_fiber["SKYCHI2_FIB"][sky] = chi2 / dof
            good = qframe.ivar[sky] > 0
            per_fiber["MED_RESID_FIBER"][sky] = row_medians(qframe.flux[sky], good)
            bundle = context.instrument.bundle_of(sky)
            total, rows = np.bincount(bundle, chi2), np.bincount(bundle, dof)
            with np.errstate(invalid="ignore"):
                vectors["SKYCHI2_BUNDLE"] = total / rows
            vectors |= _along_wavelength(qframe, sky)
        return QAResult(
            self.name,
            metrics,
            per_fiber=per_fiber,
            vectors=vectors,
            units=dict.fromkeys(
                ("RESID", "RESID_LOW", "RESID_HIGH", "MED_RESID_FIBER", "MED_RESID_WAVE", "WAVG_RES_WAVE"), qframe.bunit
            )
            | {"WAVELENGTH": "Angstrom"},
            summary=f"sky residuals {metrics['RESIDNOISE']:.2f} sigma in {len(sky)} sky fibers, "
            f"chi2/dof {metrics['SKYCHI2']:.3f}"
            + (f", on bright lines {metrics['SKYCHI2_LINES']:.3f}" if "SKYCHI2_LINES" in metrics else ""),
        ).graded(context.ranges, context.where)

    def _measure(self, qframe: QFrame, sky: NDArray[np.int64], metrics: dict[str, float]) -> tuple[Array, Array]:
        """Fill the scalars; returns chi2 and number of rows of each sky fiber."""
        assert qframe.sky is not None
        flux, ivar, model = qframe.flux[sky], qframe.ivar[sky], qframe.sky[sky]
        good = ivar > 0
        pull = np.where(good, flux * np.sqrt(ivar), 0.0).astype(np.float32)
        lines = good & (model > self.params.line_factor * row_medians(model, good)[:, None])
        chi2 = np.einsum("ij,ij->i", pull, pull, dtype=float)
        dof = good.sum(axis=1).astype(float)
        for suffix, rows in (("", good), ("_LINES", lines), ("_CONT", good & ~lines)):
            some = pull[rows]
            if some.size:
                metrics[f"RESIDNOISE{suffix}"] = _nmad(some)
                metrics[f"SKYCHI2{suffix}"] = float(np.dot(some, some) / some.size)
        residual = flux[good]
        tail = 0.5 * (100.0 - self.params.per_resid)
        low, middle, high = np.percentile(residual, (tail, 50.0, 100.0 - tail))
        metrics |= {"RESID": float(middle), "RESID_LOW": float(low), "RESID_HIGH": float(high)}
        metrics["NBAD_PCHI"] = float((chi2_distribution.sf(chi2, dof) < self.params.pchi).sum())
        return chi2, dof


def _nmad(values: NDArray[np.float32]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _along_wavelength(qframe: QFrame, sky: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Median and weighted mean of the residuals at the wavelengths of the middle sky fiber, each in bins of a row."""
    grid = qframe.wave[sky[len(sky) // 2]]
    edges = np.concatenate([[-np.inf], 0.5 * (grid[1:] + grid[:-1]), [np.inf]])
    edges[0], edges[-1] = 2 * grid[0] - edges[1], 2 * grid[-1] - edges[-2]
    median, mean = np.full(grid.size, np.nan), np.full(grid.size, np.nan)
    _bin_residuals(qframe.wave[sky], qframe.flux[sky], qframe.ivar[sky], edges, median, mean)
    return {"WAVELENGTH": grid.copy(), "MED_RESID_WAVE": median, "WAVG_RES_WAVE": mean}


@njit(nogil=True, cache=True)
def _bin_residuals(wave, flux, ivar, edges, median, mean):  # type: ignore[no-untyped-def]
    nsky, ny = flux.shape
    n = edges.size - 1
    at = np.zeros(nsky, np.int64)
    here = np.empty(4 * nsky)
    for k in range(n):
        count, weight, total = 0, 0.0, 0.0
        for f in range(nsky):
            j = at[f]
            while j < ny and wave[f, j] < edges[k]:
                j += 1
            while j < ny and wave[f, j] < edges[k + 1]:
                if ivar[f, j] > 0 and count < here.size:
                    here[count] = flux[f, j]
                    count += 1
                    weight += ivar[f, j]
                    total += ivar[f, j] * flux[f, j]
                j += 1
            at[f] = j
        if count > 0:
            median[k] = np.median(here[:count])
            mean[k] = total / weight
