"""Light of bright lines of the night sky in every fiber."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qa.sky import usable_sky_fibers
from qlstream import lines
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]


class Sky_Peaks(MonitoringAlg[CameraSpectra]):
    """Counts in the arm's brightest sky lines, per second and line, without the continuum, after the fiber flat.

    PEAKCOUNT_FIB: mean over the lines of the counts within `half_width` of each, less the continuum beside it
    [electron/s]; PEAKCOUNT: median over the sky fibers; PEAKCOUNT_NOISE: their standard deviation; PEAKCOUNT_SPREAD:
    that over PEAKCOUNT. Vectors PEAKS, the lines used [Angstrom, vacuum], and PEAKCOUNT_LINE, the median of each.
    Windows are in Angstrom with shared rows counted in parts, so that cameras can be compared; a line whose window or
    continuum leaves the camera's range is left out and named in the summary. The seed summed five bins with
    the continuum in, cut windows at the edge, and had lines in air and misprinted (spec quicklook-qa §1.9,
    quicklook-pipeline §1); here they are the strongest of `configs/lines/sky.csv`, or those given.
    """

    title = "sky lines"

    class Params(StageParams):
        peaks: dict[str, tuple[float, ...]] = Field(
            default_factory=dict,
            alias="PEAKS",
            description="arm -> lines [Angstrom, vacuum]; default: the brightest of the line table",
        )
        nlines: int = Field(3, ge=1, le=50, description="number of lines where none are given")
        faintest: float = Field(0.2, ge=0, le=1, description="leave out lines fainter than this part of the brightest")
        half_width: float | None = Field(
            None, gt=0, le=50, description="half width of a line's window [Angstrom]; default: 4 sigma of the lines"
        )
        beside: float = Field(2.0, gt=0.5, le=10, description="width of the continuum on each side [half widths]")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        sky = usable_sky_fibers(qframe, context)
        half_width = self.params.half_width or _four_sigma(qframe)
        reach = half_width * (1.0 + self.params.beside)
        peaks = sorted(self.params.peaks.get(context.arm.name, self._brightest(context.arm.wave_science, half_width)))
        low, high = float(qframe.wave[:, 0].max()), float(qframe.wave[:, -1].min())
        low, high = max(low, context.arm.wave_science[0]), min(high, context.arm.wave_science[1])
        used = np.array([peak for peak in peaks if low + reach < peak < high - reach])
        cut = [peak for peak in peaks if peak not in used]
        counts = _line_counts(qframe.wave, qframe.flux, qframe.ivar, used, half_width, reach)  # (nspec, nline)
        rate = counts / context.exptime if context.exptime > 0 else np.full(counts.shape, np.nan)
        typical = _medians(rate[sky])
        of_fiber = _mean_line(rate, typical)
        level = of_fiber[sky][np.isfinite(of_fiber[sky])]
        metrics = {"PEAKCOUNT": float("nan"), "PEAKCOUNT_NOISE": float("nan"), "NSKY_FIB": float(len(sky))}
        if level.size:
            metrics["PEAKCOUNT"] = float(np.median(level))
        if level.size > 1:
            metrics["PEAKCOUNT_NOISE"] = float(level.std(ddof=1))
            metrics["PEAKCOUNT_SPREAD"] = metrics["PEAKCOUNT_NOISE"] / max(abs(metrics["PEAKCOUNT"]), 1e-12)
        return QAResult(
            self.name,
            metrics,
            per_fiber={"PEAKCOUNT_FIB": of_fiber},
            vectors={
                "PEAKS": used,
                "PEAKCOUNT_LINE": typical,
                "FIBERID": qframe.fibers,
                "SKYFIBERID": qframe.fibers[sky],
            },
            units=dict.fromkeys(("PEAKCOUNT", "PEAKCOUNT_NOISE", "PEAKCOUNT_FIB", "PEAKCOUNT_LINE"), "electron/s")
            | {"PEAKS": "Angstrom"},
            summary=_summary(metrics["PEAKCOUNT"], used, cut),
        ).graded(context.ranges, context.where)

    def _brightest(self, wave_range: tuple[float, float], half_width: float) -> list[float]:
        """The brightest lines of the range, none of them within the window of a brighter one."""
        table = lines.sky_lines()
        table = table[(table["wave"] > wave_range[0]) & (table["wave"] < wave_range[1])]
        table = table[table["strength"] >= self.params.faintest * table["strength"].max(initial=0.0)]
        chosen: list[float] = []
        for wave in table["wave"][np.argsort(table["strength"])[::-1]]:
            if len(chosen) < self.params.nlines and all(abs(wave - other) > 2.0 * half_width for other in chosen):
                chosen.append(float(wave))
        return chosen


def _four_sigma(qframe: QFrame) -> float:
    """Four sigma of the camera's line spread, the row included [Angstrom]; three rows if the frame does not tell it."""
    middle = qframe.wave.shape[1] // 2
    row = float(np.median(qframe.wave[:, middle] - qframe.wave[:, middle - 1]))
    sigma = 0.0 if qframe.ysigma is None else float(np.median(qframe.ysigma[:, middle]))
    return row * max(4.0 * float(np.hypot(sigma, 12.0**-0.5)), 3.0)


def _medians(rate: Array) -> Array:
    """Median over fibers of each column; NaN where there is none."""
    return np.array([np.median(r[np.isfinite(r)]) if np.isfinite(r).any() else np.nan for r in rate.T])


def _mean_line(rate: Array, typical: Array) -> Array:
    """(nspec,) mean over lines of `rate`; a line without a value counts as bright as the fiber's others are.

    NaN where a fiber has no line, or none that `typical` (nline,) knows.
    """
    have = np.isfinite(rate) & np.isfinite(typical)
    share = np.where(have, typical, 0.0).sum(axis=1)
    total = np.where(have, rate, 0.0).sum(axis=1)
    whole = have.all(axis=1)
    number = max(typical.size, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        completed = np.where(whole, total, total * np.nansum(typical) / share) / number
    return np.where(have.any(axis=1), completed, np.nan)


def _summary(peakcount: float, used: Array, cut: list[float]) -> str:
    if not used.size:
        return "no sky line inside the range of this camera"
    told = f"{peakcount:.3g} electron/s per line in {', '.join(f'{wave:.0f}' for wave in used)} Angstrom"
    return told + (f"; left out at the edge: {', '.join(f'{wave:.0f}' for wave in cut)}" if cut else "")


@njit(nogil=True, cache=True)
def _line_counts(wave, flux, ivar, peaks, half_width, reach):  # type: ignore[no-untyped-def]
    """(nspec, nline) counts within half_width of each line above the median density from there to `reach`; NaN where
    a row of the window has no information."""
    nspec, ny = flux.shape
    out = np.full((nspec, peaks.size), np.nan)
    density = np.empty(ny)
    for f in range(nspec):
        for p in range(peaks.size):
            first = np.searchsorted(wave[f], peaks[p] - reach)
            last = np.searchsorted(wave[f], peaks[p] + reach)
            total, inside, n, whole = 0.0, 0.0, 0, True
            for j in range(max(first, 1), min(last, ny - 1)):
                left, right = 0.5 * (wave[f, j - 1] + wave[f, j]), 0.5 * (wave[f, j] + wave[f, j + 1])
                low, high = max(left, peaks[p] - half_width), min(right, peaks[p] + half_width)
                if high > low:
                    if ivar[f, j] <= 0:
                        whole = False
                        break
                    total += flux[f, j] * (high - low) / (right - left)
                    inside += high - low
                elif ivar[f, j] > 0:
                    density[n] = flux[f, j] / (right - left)
                    n += 1
            if whole and n > 3 and inside > 0.0:
                out[f, p] = total - inside * np.median(density[:n])
    return out
