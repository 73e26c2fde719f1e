"""Sharpness of the spots across and along the dispersion."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qlstream import lines
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric.gaussfit import fit_lines
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
_MASKED = int(EXTRACT_MASK)


class Calc_XWSigma(MonitoringAlg[Image]):
    """Core width of the spots, measured around the corrected traces, against the calibration PSF.

    XSIGMA, WSIGMA: median over the fibers of the width across (x) and along (w) the dispersion, at the middle of the
    arm [pixel]; XSIGMA_FIB, WSIGMA_FIB: per fiber; XSIGMA_AMP, WSIGMA_AMP: medians per amplifier; XSIGMA_RATIO,
    WSIGMA_RATIO: median of measured over PSF width, which a defocus moves whatever the camera; NPOINTS: spots measured.
    Vectors XSIGMA_BUNDLE, WSIGMA_BUNDLE: medians per bundle.

    A width is the sigma of the PSF's own profile (its Gauss-Hermite wings kept) integrated over pixels, plus a
    constant, in a weighted fit; the seed fitted a Gaussian without a constant (spec quicklook-qa §1.5). A fiber's width
    is the median over its lines of the ratio to the PSF, times the PSF's width in the middle of the arm, so that
    it does not depend on which lines were bright. x widths come from the strongest lines, or from evenly spaced rows of
    a flat; w widths need lines that stand alone at the camera's resolution: where too few are bright enough, the
    w keys are absent and the summary says why.
    """

    title = "spot size"

    class Params(StageParams):
        peaks: tuple[float, ...] = Field(
            (), alias="PEAKS", description="lines to use [Angstrom, vacuum]; none: the strongest isolated ones"
        )
        nlines: int = Field(6, ge=1, le=100, description="lines used in each camera, the strongest isolated ones")
        pixel_range: int = Field(
            7, ge=5, le=31, alias="PIXEL_RANGE", description="window across the dispersion [pixel]"
        )
        half_rows: int = Field(5, ge=3, le=15, description="half size of the window along the dispersion [pixel]")
        max_sigma: float = Field(10.0, gt=0, alias="MAX_SIGMA", description="a wider spot is no spot [pixel]")
        min_snr: float = Field(12.0, gt=0, description="significance of a spot's flux that makes its width count")
        min_spots: int = Field(20, ge=1, description="with fewer good spots in the camera nothing is reported")
        contamination: float = Field(0.05, gt=0, le=1, description="neighbouring lines' light that is tolerated")

    def run(self, image: Image, context: Context) -> QAResult:
        traces = image.traces
        if traces is None:
            raise ValueError("this image has no traces; let Calc_XWSigma check the Flexure stage in the plan")
        waves = self._line_waves(traces, context)
        has_lines = waves.size > 0
        low, high = context.arm.wave_science
        if not has_lines:
            waves = np.linspace(low, high, self.params.nlines + 2)[1:-1]
        x, y = traces.x_vs_wave(waves), traces.y_vs_wave(waves)
        middle = np.array([0.5 * (low + high)])
        psf = context.calibration.psf if "PSF" in context.calibration else None
        metrics: dict[str, float] = {}
        per_amp: dict[str, dict[str, float]] = {}
        per_fiber: dict[str, Array] = {}
        told: list[str] = []
        vectors: dict[str, Array] = {}
        bundle = context.instrument.bundle_of(np.arange(traces.nspec))
        npoints = 0
        for name in ("XSIGMA", "WSIGMA"):
            along = name == "WSIGMA"
            if along and not has_lines:
                told.append(f"no lines for the width along wavelength: {self._why_no_lines(context)}")
                continue
            model_at = traces.ysig_vs_wave if along else traces.xsig_vs_wave
            model = model_at(waves)
            sigma = self._widths(image, x, y, model, along, _wings(psf, waves, along))
            found = np.isfinite(sigma)
            if found.sum() < self.params.min_spots:
                told.append(f"{found.sum()} of {found.size} spots bright enough for {name.lower()}, too few")
                continue
            npoints += int(found.sum())
            of_fiber = _median_along(sigma / model) * model_at(middle)[:, 0]
            per_fiber[f"{name}_FIB"] = of_fiber
            metrics[name] = float(np.nanmedian(of_fiber))
            metrics[f"{name}_RATIO"] = float(np.median(sigma[found] / model[found]))
            told.append(f"{name.lower()} {metrics[name]:.2f} pixel")
            vectors[f"{name}_BUNDLE"] = np.array([_median(of_fiber[bundle == b]) for b in range(bundle.max() + 1)])
            per_amp[f"{name}_AMP"] = table = {}
            for readout in image.readouts:
                sec = readout.amp.ccdsec
                inside = found & (x >= sec.x0) & (x < sec.x1) & (y >= sec.y0) & (y < sec.y1)
                if inside.any():
                    table[readout.name] = float(np.median(sigma[inside]))
        if npoints:
            metrics["NPOINTS"] = float(npoints)
        return QAResult(
            self.name,
            metrics,
            per_amp=per_amp,
            per_fiber=per_fiber,
            vectors=vectors,
            units={
                key: "pixel"
                for key in (*metrics, *per_amp, *per_fiber, *vectors)
                if key != "NPOINTS" and not key.endswith("_RATIO")
            },
            summary="; ".join(told) if npoints else "no spot bright enough to measure",
        ).graded(context.ranges, context.where)

    def _line_waves(self, traces: XYTraceSet, context: Context) -> Array:
        """The lines that are given, or the strongest that stand alone at this camera's resolution; none for a flat."""
        low, high = context.arm.wave_science
        if self.params.peaks:
            return np.array(sorted(wave for wave in self.params.peaks if low < wave < high))
        if context.flavor not in ("arc", "science"):
            return np.empty(0)
        table = lines.arc_lines() if context.flavor == "arc" else lines.sky_lines()
        middle = np.array([0.5 * (low + high)])
        width = float(np.median(traces.ysig_vs_wave(middle) / traces.dy_dwave(middle)))
        alone = lines.is_isolated(table, separation=6.0 * width, contamination=self.params.contamination)
        table = table[alone & (table["wave"] > low) & (table["wave"] < high)]
        return np.sort(table["wave"][np.argsort(table["strength"])[::-1][: self.params.nlines]])

    @staticmethod
    def _why_no_lines(context: Context) -> str:
        if context.flavor not in ("arc", "science"):
            return f"a {context.flavor} has none"
        return "none stands alone at the resolution of this camera"

    def _widths(self, image: Image, x: Array, y: Array, model: Array, along: bool, wings: Array | None) -> Array:
        """(nspec, nline) width of each spot [pixel], NaN where it cannot be measured."""
        half = self.params.half_rows if along else self.params.pixel_range // 2
        half_y, half_x = (half, 2) if along else (1, half)
        profiles, ivar = _profiles(image.pix, image.ivar, image.mask, x.ravel(), y.ravel(), half_y, half_x, along)
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = np.sqrt(np.where(ivar > 0, 1 / ivar, 0.0).sum(axis=1))
        # before the costly fit: the three central samples above the two outermost hold most of a spot's light
        excess = profiles[:, half - 1 : half + 2].sum(axis=1) - 1.5 * (profiles[:, 0] + profiles[:, -1])
        chosen = np.flatnonzero((noise > 0) & (excess > 0.5 * self.params.min_snr * noise))
        position = (y if along else x).ravel()[chosen]
        start = position - np.rint(position) + half
        shape = None if wings is None else wings[chosen]
        fits = fit_lines(profiles[chosen], ivar[chosen], start, model.ravel()[chosen], shape)
        fitted = fits.parameters
        good = fits.good & (fitted[:, 0] > self.params.min_snr * noise[chosen])
        # wider than that, the window cannot tell the spot from its pedestal
        good &= fitted[:, 2] < min(0.6 * half, self.params.max_sigma)
        out = np.full(x.size, np.nan)
        out[chosen] = np.where(good, fitted[:, 2], np.nan)
        return out.reshape(x.shape)


def _wings(psf: GaussHermitePSF | None, waves: Array, along: bool) -> Array | None:
    """(nspec * nline, k) Gauss-Hermite terms of the PSF's profile along y or x; None if it is not known."""
    if psf is None:
        return None
    degree = psf.ghdegy if along else psf.ghdegx
    names = [f"GH-0-{k}" if along else f"GH-{k}-0" for k in range(degree + 1)]
    ones, zeros = np.ones((psf.nspec, len(waves))), np.zeros((psf.nspec, len(waves)))
    terms = [psf.parameter(n, waves) if n in psf.coef else (zeros if k else ones) for k, n in enumerate(names)]
    return np.stack(terms, axis=-1).reshape(-1, degree + 1)


def _median_along(values: Array) -> Array:
    out = np.full(len(values), np.nan)
    some = np.isfinite(values).any(axis=1)
    out[some] = np.nanmedian(values[some], axis=1)
    return out


def _median(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if found.size else float("nan")


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
