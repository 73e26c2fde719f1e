"""Brightness of the sky between its lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]


class Sky_Continuum(MonitoringAlg[CameraSpectra]):
    """Sky continuum in the sky fibers, after the fiber flat.

    SKYCONT: mean over the arm's line-free windows of the median over wavelength of the mean sky spectrum
    [electron/Angstrom]; SKYCONT_FIBER: of each sky fiber, by the median of its ratio to that spectrum; SKYCONT_RATE:
    SKYCONT per second, so that its range holds for any exposure time; SKYCONT_SPREAD: relative scatter from fiber to
    fiber; NSKY_FIB sky fibers, the vector SKYFIBERID has their numbers. The seed took the median of each fiber (spec
    quicklook-qa §1.8): weak lines and noise together raise that, by 2 % in the z arm.
    """

    title = "sky level"

    class Params(StageParams):
        windows: dict[str, tuple[tuple[float, float], ...]] = Field(
            default_factory=dict,
            description="arm -> ranges free of bright sky lines [Angstrom]; default: those of the instrument",
        )

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        sky = usable_sky_fibers(qframe, context)
        windows = self.params.windows.get(context.arm.name, context.arm.sky_windows)
        found = [_level_in(qframe, sky, window) for window in windows]
        found = [(level, of_fibers) for level, of_fibers in found if np.isfinite(level)]
        of_fiber = np.full(qframe.nspec, np.nan)
        cont = float("nan")
        if found:
            cont = float(np.mean([level for level, _ in found]))
            of_fiber[sky] = np.mean([of_fibers for _, of_fibers in found], axis=0)
        levels = of_fiber[np.isfinite(of_fiber)]
        metrics = {
            "SKYCONT": cont,
            "SKYCONT_RATE": cont / context.exptime if context.exptime > 0 else float("nan"),
            "SKYCONT_SPREAD": float(levels.std(ddof=1) / cont) if levels.size > 1 and cont else float("nan"),
            "NSKY_FIB": float(levels.size),
        }
        return QAResult(
            self.name,
            metrics,
            per_fiber={"SKYCONT_FIBER": of_fiber},
            vectors={"SKYFIBERID": qframe.fibers[np.isfinite(of_fiber)]},
            units={
                "SKYCONT": "electron/Angstrom",
                "SKYCONT_RATE": "electron/Angstrom/s",
                "SKYCONT_FIBER": "electron/Angstrom",
            },
            summary=f"sky {cont:.3g} electron/Angstrom in {levels.size} sky fibers, "
            f"{metrics['SKYCONT_RATE']:.3g} per second",
        ).graded(context.ranges, context.where)


def usable_sky_fibers(qframe: QFrame, context: Context) -> NDArray[np.int64]:
    """Indices of the sky fibers that FIBERSTATUS lets pass and that have any information.

    Raises
    ------
    MissingCalibration : no fibermap
    """
    if qframe.fibermap is None:
        raise MissingCalibration("no fibermap, so the sky fibers are unknown")
    usable = np.flatnonzero(qframe.fibermap.is_sky & qframe.fibermap.is_usable("sky", context.camera[:1]))
    return usable[(qframe.ivar[usable] > 0).any(axis=1)]


def _level_in(qframe: QFrame, sky: NDArray[np.int64], window: tuple[float, float]) -> tuple[float, Array]:
    """(level, of each fiber) [electron/Angstrom] in one window; NaN where there is no information."""
    nothing = np.full(len(sky), np.nan)
    if not len(sky):
        return float("nan"), nothing
    middle = qframe.wave[sky[len(sky) // 2]]
    grid = middle[(middle > window[0]) & (middle < window[1])]
    density = np.full((len(sky), grid.size), np.nan)
    for k, fiber in enumerate(sky):
        first, last = np.searchsorted(qframe.wave[fiber], window)
        rows = slice(max(first - 2, 0), last + 2)
        wave, good = qframe.wave[fiber, rows], qframe.ivar[fiber, rows] > 0
        if good.sum() > 1 and grid.size:
            counts = np.where(good, qframe.flux[fiber, rows] / np.gradient(wave), np.nan)
            density[k] = np.interp(grid, wave, counts)  # NaN beside a row without information
    have = np.isfinite(density)
    number = have.sum(axis=0)
    if not (number > 0).any():
        return float("nan"), nothing
    common = np.where(number > 0, np.where(have, density, 0.0).sum(axis=0) / np.maximum(number, 1), np.nan)
    level = float(np.nanmedian(common))
    of_fibers = nothing.copy()
    for k in range(len(sky)):
        ratio = (density[k] / np.where(common > 0, common, np.nan))[have[k]]
        if np.isfinite(ratio).any():
            of_fibers[k] = level * float(np.nanmedian(ratio))
    return level, of_fibers
