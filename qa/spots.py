"""Sharpness of the spots across and along the dispersion."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qlstream import lines
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric.gaussfit import fit_gaussians
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
_MASKED = int(EXTRACT_MASK)


class Calc_XWSigma(MonitoringAlg[Image]):
    """Gaussian width of the spots, measured around the corrected traces, against the calibration PSF.

    XSIGMA, WSIGMA: median over the fibers of the width across (x) and along (w) the dispersion [pixel]; XSIGMA_FIB,
    WSIGMA_FIB: per fiber; XSIGMA_AMP, WSIGMA_AMP: medians per amplifier; XSIGMA_RATIO, WSIGMA_RATIO: median of measured
    over PSF width, which a defocus moves whatever the camera. Widths are fits of a pixel-integrated Gaussian plus a
    constant, weighted (the seed fitted no constant: spec quicklook-qa §1.5). x widths come from the strongest lines,
    or from evenly spaced rows of a flat; w widths need lines that stand alone at the camera's resolution: where too
    few are bright enough, WSIGMA is absent.
    """

    title = "spot size"

    class Params(StageParams):
        nlines: int = Field(12, ge=1, le=100, description="lines used in each camera, the strongest isolated ones")
        half_rows: int = Field(5, ge=3, le=15, description="half size of the window along the dispersion [pixel]")
        half_columns: int = Field(3, ge=2, le=15, description="half size of the window across the dispersion [pixel]")
        min_snr: float = Field(12.0, gt=0, description="significance of a spot's flux that makes its width count")
        min_spots: int = Field(20, ge=1, description="with fewer good spots in the camera nothing is reported")
        contamination: float = Field(0.05, gt=0, le=1, description="neighbouring lines' light that is tolerated")

    def run(self, image: Image, context: Context) -> QAResult:
        traces = image.traces
        if traces is None:
            raise ValueError("this image has no traces; let Calc_XWSigma check the Flexure stage in the plan")
        waves = self._line_waves(traces, context)
        has_lines = waves.size > 0
        if not has_lines:
            low, high = context.arm.wave_science
            waves = np.linspace(low, high, self.params.nlines + 2)[1:-1]
        x, y = traces.x_vs_wave(waves), traces.y_vs_wave(waves)
        model_x, model_y = traces.xsig_vs_wave(waves), traces.ysig_vs_wave(waves)
        xsigma = self._widths(image, x, y, model_x, along=False)
        wsigma = self._widths(image, x, y, model_y, along=True) if has_lines else np.full(x.shape, np.nan)
        metrics: dict[str, float] = {}
        per_amp: dict[str, dict[str, float]] = {}
        per_fiber: dict[str, Array] = {}
        for name, sigma, model in (("XSIGMA", xsigma, model_x), ("WSIGMA", wsigma, model_y)):
            found = np.isfinite(sigma)
            if found.sum() < self.params.min_spots:
                continue
            per_fiber[f"{name}_FIB"] = _median_along(sigma)
            metrics[name] = float(np.nanmedian(per_fiber[f"{name}_FIB"]))
            metrics[f"{name}_RATIO"] = float(np.median(sigma[found] / model[found]))
            table = {}
            for readout in image.readouts:
                sec = readout.amp.ccdsec
                inside = found & (x >= sec.x0) & (x < sec.x1) & (y >= sec.y0) & (y < sec.y1)
                if inside.any():
                    table[readout.name] = float(np.median(sigma[inside]))
            per_amp[f"{name}_AMP"] = table
        told = ", ".join(f"{key.lower()} {metrics[key]:.2f} pixel" for key in ("XSIGMA", "WSIGMA") if key in metrics)
        return QAResult(
            self.name,
            metrics,
            per_amp=per_amp,
            per_fiber=per_fiber,
            units={key: "pixel" for key in (*metrics, *per_amp, *per_fiber) if not key.endswith("_RATIO")},
            summary=told or "no spot bright enough to measure",
        ).graded(context.ranges, context.where)

    def _line_waves(self, traces: XYTraceSet, context: Context) -> Array:
        """The strongest lines that stand alone at this camera's resolution [Angstrom]; none for a flat."""
        if context.flavor not in ("arc", "science"):
            return np.empty(0)
        table = lines.arc_lines() if context.flavor == "arc" else lines.sky_lines()
        low, high = context.arm.wave_science
        middle = np.array([0.5 * (low + high)])
        width = float(np.median(traces.ysig_vs_wave(middle) / traces.dy_dwave(middle)))
        alone = lines.is_isolated(table, separation=6.0 * width, contamination=self.params.contamination)
        table = table[alone & (table["wave"] > low) & (table["wave"] < high)]
        return np.sort(table["wave"][np.argsort(table["strength"])[::-1][: self.params.nlines]])

    def _widths(self, image: Image, x: Array, y: Array, model: Array, along: bool) -> Array:
        """(nspec, nline) width of each spot [pixel], NaN where it cannot be measured."""
        half_y, half_x = (self.params.half_rows, 2) if along else (1, self.params.half_columns)
        profiles, ivar = _profiles(image.pix, image.ivar, image.mask, x.ravel(), y.ravel(), half_y, half_x, along)
        half = half_y if along else half_x
        position = y.ravel() if along else x.ravel()
        start = position - np.rint(position) + half
        fitted, good = fit_gaussians(profiles, ivar, start, model.ravel().copy())
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = np.sqrt(np.where(ivar > 0, 1 / ivar, 0.0).sum(axis=1))
            good &= fitted[:, 0] > self.params.min_snr * noise
        good &= fitted[:, 2] < 0.6 * half  # wider than that, the window cannot tell the spot from its pedestal
        return np.where(good, fitted[:, 2], np.nan).reshape(x.shape)


def _median_along(values: Array) -> Array:
    out = np.full(len(values), np.nan)
    some = np.isfinite(values).any(axis=1)
    out[some] = np.nanmedian(values[some], axis=1)
    return out


@njit(nogil=True, cache=True)
def _profiles(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    mask: NDArray[np.uint16],
    x: Array,
    y: Array,
    half_y: int,
    half_x: int,
    along: bool,
) -> tuple[Array, Array]:
    """Sums of the window across the profile's axis, with their ivar; 0 where a pixel is masked or off the CCD."""
    ny, nx = pix.shape
    size = 2 * half_y + 1 if along else 2 * half_x + 1
    profiles, weights = np.zeros((x.size, size)), np.zeros((x.size, size))
    for n in range(x.size):
        row, column = int(np.rint(y[n])), int(np.rint(x[n]))
        if row < half_y or row >= ny - half_y or column < half_x or column >= nx - half_x:
            continue
        for k in range(size):
            total, variance, whole = 0.0, 0.0, True
            for m in range(2 * half_x + 1 if along else 2 * half_y + 1):
                j = row - half_y + (k if along else m)
                i = column - half_x + (m if along else k)
                if ivar[j, i] > 0 and mask[j, i] & _MASKED == 0:
                    total += pix[j, i]
                    variance += 1.0 / ivar[j, i]
                else:
                    whole = False
            if whole:
                profiles[n, k] = total
                weights[n, k] = 1.0 / variance
    return profiles, weights
