"""Brightness of the sky between its lines."""

from __future__ import annotations

import numpy as np

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Sky_Continuum(MonitoringAlg[CameraSpectra]):
    """Sky continuum in the sky fibers, after the fiber flat.

    SKYCONT: mean over the sky fibers of the mean of the medians in the arm's line-free windows [electron/Angstrom];
    SKYCONT_RATE: the same per second, so that its range holds for any exposure time (spec quicklook-qa §1.8).
    """

    title = "sky level"

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.fibermap is None:
            raise ValueError("no fibermap, so the sky fibers are unknown")
        sky = qframe.fibermap.is_sky & qframe.fibermap.is_usable("sky", context.camera[:1])
        level = np.full(qframe.nspec, np.nan)
        for fiber in np.flatnonzero(sky):
            wave, good = qframe.wave[fiber], qframe.ivar[fiber] > 0
            density = qframe.flux[fiber] / np.gradient(wave)
            windows = [good & (wave > low) & (wave < high) for low, high in context.arm.sky_windows]
            medians = [np.median(density[inside]) for inside in windows if inside.any()]
            if medians:
                level[fiber] = np.mean(medians)
        found = level[np.isfinite(level)]
        cont = float(found.mean()) if found.size else float("nan")
        rate = cont / context.exptime if context.exptime > 0 else float("nan")
        spread = float(found.std() / cont) if found.size > 1 and cont else float("nan")
        return QAResult(
            self.name,
            {"SKYCONT": cont, "SKYCONT_RATE": rate, "SKYCONT_SPREAD": spread, "NSKY_FIB": float(found.size)},
            per_fiber={"SKYCONT_FIBER": level},
            units={
                "SKYCONT": "electron/Angstrom",
                "SKYCONT_RATE": "electron/Angstrom/s",
                "SKYCONT_SPREAD": "",
                "SKYCONT_FIBER": "electron/Angstrom",
            },
            summary=f"sky {cont:.3g} electron/Angstrom in {found.size} sky fibers, {rate:.3g} per second",
        ).graded(context.ranges, context.where)
