"""Brightness of the arc lamps, line by line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.instrument import Arm
from qlstream.lines import arc_lines
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]

PURE = 0.1  # light of other lamps in and beside a line's window that is tolerated, as a fraction of its own
WINGS = 1.7  # beside a window lies what is nearer than this [window]
AROUND = 3.0  # where the level beside a line is looked for [window]
MIN_SNR = 20.0  # of the brightest line in some fiber, for there to be light at all
UNLIT = 0.1  # a lamp below this fraction of the brightest one is not lit


class Arc_Lines(MonitoringAlg[CameraSpectra]):
    """Light of each arc lamp in the middle fibers: is one off, or are all dim?

    Areas of lines above the level beside them, in the median of the middle fibers (spec quicklook-qa §4): LINE_AREA
    [electron] of LINE_WAVE [Angstrom] and LINE_NAME. Over the strength of the line in the table and the exposure time
    they tell the brightness of each element's lamp. LAMP_LEVEL: the median of the lamps that are lit [electron/s for a
    strength of 1]; LAMP_HG, LAMP_NE ...: each lamp over that median, so near 0 for one that is off. Line strengths are
    good to a factor of two and the throughput varies over the arm, so only large changes mean something.
    """

    title = "arc lamps"

    class Params(StageParams):
        lines: tuple[float, ...] | None = Field(
            None, description="wavelengths of the lines [Angstrom, vacuum]; default the strongest of each lamp"
        )
        per_lamp: int = Field(4, ge=1, description="number of lines of each lamp, where they are not given")
        faintest: float = Field(20.0, gt=0, description="strength that a line needs; the strongest of all has 1000")
        half_rows: float = Field(5.0, ge=2, le=50, description="half width of the window of a line [pixel]")
        nfiber: int = Field(20, ge=1, description="number of fibers, about the middle one")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.bunit != ELECTRON:
            raise ValueError(f"these spectra are in {qframe.bunit}; Arc_Lines needs {ELECTRON}")
        fibers = self._middle(qframe, context)
        lines, strength, half = self._lines(context.arm)
        found = [_areas(qframe, fibers, w, h) for w, h in zip(lines["wave"], half, strict=True)]
        areas = np.array([_median(area) for area, _ in found])
        seen = any(np.any(area > MIN_SNR * error) for area, error in found)
        rate = areas / strength / context.exptime if context.exptime > 0 else np.full(len(lines), np.nan)
        level = {name: _median(rate[lines["name"] == name]) for name in sorted(set(lines["name"].tolist()))}
        brightest = max((v for v in level.values() if v > 0), default=0.0)
        lit = [v for v in level.values() if v > UNLIT * brightest]
        typical = float("nan") if not np.isfinite(rate).any() else float(np.median(lit)) if lit and seen else 0.0
        ratio = {name: value / typical for name, value in level.items()} if typical > 0 else {}
        metrics = {"LAMP_LEVEL": typical} | {f"LAMP_{name.upper()}": value for name, value in ratio.items()}
        off = [name for name, value in ratio.items() if value < UNLIT]
        told = f"{len(lines)} lines of {', '.join(level)}; lamps at {typical:.3g} electron/s per strength"
        return QAResult(
            self.name,
            metrics,
            vectors={
                "LINE_WAVE": np.asarray(lines["wave"], dtype=float),
                "LINE_NAME": np.asarray(lines["name"]),
                "LINE_AREA": areas,
                "LINE_RATE": rate,
            },
            units={
                "LAMP_LEVEL": "electron/s",
                "LINE_WAVE": "Angstrom",
                "LINE_AREA": "electron",
                "LINE_RATE": "electron/s",
            },
            summary=told + (f"; off: {', '.join(off)}" if off else "") if typical > 0 else "no light of any lamp",
        ).graded(context.ranges, context.where)

    def _middle(self, qframe: QFrame, context: Context) -> NDArray[np.int64]:
        """Indices of the usable fibers about the middle of the slit."""
        first = max((qframe.nspec - self.params.nfiber) // 2, 0)
        index = np.arange(first, min(first + self.params.nfiber, qframe.nspec))
        if qframe.fibermap is None:
            return index
        usable = qframe.fibermap.is_usable("flat", context.camera[:1])
        return index[usable[index]]

    def _lines(self, arm: Arm) -> tuple[NDArray[np.void], Array, Array]:
        """The monitored lines by wavelength, strength of their lamp's light in their windows, and half widths [A].

        The same for all exposures of an arm, wherever its spectra lie on the CCD.
        """
        table = arc_lines()
        low, high = arm.wave_science
        inside = table[(table["wave"] > low) & (table["wave"] < high)]
        half = self.params.half_rows * np.interp(inside["wave"], arm.wave_on_ccd, arm.dispersion)
        distance = np.abs(table["wave"] - inside["wave"][:, None]) / half[:, None]
        same = table["name"] == inside["name"][:, None]
        own = np.where((distance < 1.0) & same, table["strength"], 0.0).sum(axis=1)
        if self.params.lines is not None:
            chosen = {int(np.abs(inside["wave"] - w).argmin()) for w in self.params.lines if low < w < high}
        else:
            disturbing = (distance < WINGS) & ~((distance < 1.0) & same)
            alone = np.where(disturbing, table["strength"], 0.0).sum(axis=1) < PURE * own
            strongest = np.where(distance < 1.0, table["strength"], 0.0).max(axis=1) <= inside["strength"]
            good = alone & strongest & (inside["strength"] >= self.params.faintest)
            chosen = set()
            for name in sorted(set(inside["name"].tolist())):
                mine = np.flatnonzero(good & (inside["name"] == name))
                chosen |= set(mine[np.argsort(-inside["strength"][mine])][: self.params.per_lamp].tolist())
        index = np.array(sorted(chosen), dtype=np.int64)
        return inside[index], own[index], half[index]


def _areas(qframe: QFrame, fibers: NDArray[np.int64], wave: float, half: float) -> tuple[Array, Array]:
    """(n,) counts of a line in each fiber above the level beside it, and their errors; NaN where bins are lost."""
    areas, errors = np.full(len(fibers), np.nan), np.full(len(fibers), np.nan)
    for k, fiber in enumerate(fibers):
        ends = np.searchsorted(qframe.wave[fiber], wave + half * np.array([-AROUND, -1.0, 1.0, AROUND]))
        around, window = slice(ends[0], ends[3]), slice(ends[1], ends[2])
        known = qframe.ivar[fiber, around] > 0
        if ends[1] == 0 or ends[2] == qframe.flux.shape[1] or not (qframe.ivar[fiber, window] > 0).all():
            continue
        level = np.quantile(qframe.flux[fiber, around][known], 0.25)
        areas[k] = np.sum(qframe.flux[fiber, window] - level, dtype=float)
        errors[k] = np.sqrt(np.sum(1.0 / qframe.ivar[fiber, window], dtype=float))
    return areas, errors


def _median(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if found.size else float("nan")
