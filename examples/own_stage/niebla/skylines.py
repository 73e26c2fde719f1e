"""The ratio of two sky lines that no weather changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]


class Sky_Line_Ratio(MonitoringAlg[CameraSpectra]):
    """SKYLINE_RATIO: counts of [O I] 6302 over those of [O I] 6366, summed over the sky fibers.

    Both lines start from the same level of the atom, so their ratio is a constant of nature (3.0; about 4 with the OH
    lines that no quicklook resolves from them). Another ratio tells of a wrong fiber flat, of wrong wavelengths or of
    an amplifier whose gain is wrong. SKYLINE_RATIO_ERROR: its standard error; SKYLINE_FIBER: ratio of each sky fiber.
    Cameras that do not see both lines report nothing.
    """

    title = "ratio of two sky lines"

    class Params(StageParams):
        lines: tuple[float, float] = Field((6302.05, 6365.54), description="the two lines [Angstrom, vacuum]")
        half_width: int = Field(3, ge=1, le=50, description="half width of the window of a line [row]")
        side: int = Field(6, ge=2, le=100, description="width of the continuum on either side [row]")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        """Raises ValueError without fibermap, since the sky fibers are unknown then."""
        qframe = spectra.per_bin()
        if qframe.fibermap is None:
            raise ValueError("no fibermap, so the sky fibers are unknown")
        if not all(qframe.wave.min() < line < qframe.wave.max() for line in self.params.lines):
            return QAResult(self.name, summary=f"{context.camera} does not see both lines")
        sky = np.flatnonzero(qframe.fibermap.is_sky & qframe.fibermap.is_usable("sky", context.camera[:1]))
        counts = np.array([[self._line(qframe, fiber, line) for line in self.params.lines] for fiber in sky])
        counts = counts.reshape(-1, 2, 2)  # (sky fiber, line, counts and variance)
        seen = np.isfinite(counts).all(axis=(1, 2))
        of_fiber = np.full(qframe.nspec, np.nan)
        of_fiber[sky[seen]] = counts[seen, 0, 0] / counts[seen, 1, 0]
        (first, var_first), (second, var_second) = counts[seen].sum(axis=0) if seen.any() else np.full((2, 2), np.nan)
        ratio = first / second
        error = abs(ratio) * np.sqrt(var_first / first**2 + var_second / second**2)
        return QAResult(
            self.name,
            {"SKYLINE_RATIO": float(ratio), "SKYLINE_RATIO_ERROR": float(error)},
            per_fiber={"SKYLINE_FIBER": of_fiber},
            summary=f"[O I] lines as {ratio:.2f} +- {error:.2f} to 1 in {seen.sum()} sky fibers",
        ).graded(context.ranges, context.where)

    def _line(self, qframe: QFrame, fiber: np.intp, line: float) -> tuple[float, float]:
        """(counts, variance) of a line above the continuum beside it; NaN where a row has no information."""
        half, side = self.params.half_width, self.params.side
        row = int(np.argmin(np.abs(qframe.wave[fiber] - line)))
        first, end = row - half - side, row + half + side + 1
        if first < 0 or end > qframe.wave.shape[1]:
            return np.nan, np.nan
        flux, ivar = qframe.flux[fiber, first:end].astype(float), qframe.ivar[fiber, first:end].astype(float)
        if not (ivar > 0).all():
            return np.nan, np.nan
        on_line = np.zeros(flux.size, dtype=bool)
        on_line[side : flux.size - side] = True
        continuum = np.median(flux[~on_line])
        width = int(on_line.sum())
        variance = (1.0 / ivar[on_line]).sum() + width**2 * np.pi / 2 * (1.0 / ivar[~on_line]).mean() / (2 * side)
        return float(flux[on_line].sum() - width * continuum), float(variance)
