"""Are the fibers on their targets? By the coordinates of the positioners, and by the light that arrives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.expected import expected_rows
from algorithms.fluxcal.stage import seeing_of
from qa.fiberlight import band_light, expected_flux
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import CLASSES, Fibermap
from qlstream.datamodel.masks import FiberMask
from qlstream.datamodel.qframe import QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_NOT_MOVED = int(FiberMask.STUCKPOSITIONER | FiberMask.BROKENFIBER)  # nobody expects these on a target
_FEW = 5  # targets that give the scale of the light, at least
_BAD_POSITION = int(FiberMask.MISSINGPOSITION | FiberMask.BADPOSITION | FiberMask.POORPOSITION)


class Fiber_Positions(MonitoringAlg[CameraSpectra]):
    """Fibers beside their targets, of one petal.

    By coordinates (DELTA_X, DELTA_Y of the fibermap; spec quicklook-qa §4): OFFSET_FIB, the distance of each fiber from
    its place, of assigned fibers whose positioner works; OFFSET_RMS and OFFSET_MEDIAN of them; POORPOS_FRACTION and
    BADPOS_FRACTION, further off than `poor` and `bad`; NGOODPOS: well placed and not flagged; NPOORPOS: assigned fibers
    that are not. Absent if the fibermap has no coordinates.
    By light, after sky subtraction: LIGHT_RATIO, counts in the arm's band over those that the imaging's fiber flux
    promises, with the camera's median as the scale, so that clouds do not count; of targets that are bright enough,
    NLOST show less than `lost` of theirs, LOST_FRACTION is the fraction. They are absent if there is no such target, or
    too few for a fraction to mean anything. NOFFTARGET counts the fibers that are off by either.
    """

    title = "fiber positions"

    class Params(StageParams):
        poor: float = Field(0.030, gt=0, description="a fiber further off is poorly placed [mm]")
        bad: float = Field(0.100, gt=0, description="a fiber further off is badly placed [mm]")
        lost: float = Field(0.7, gt=0, lt=1, description="a target with less than this part of its light is lost")
        nsigma: float = Field(4.0, gt=0, description="significance with which the light of a lost target is missing")
        sky_error: float = Field(0.005, ge=0, description="error of the subtracted sky, as a fraction of it")
        min_visible: int = Field(8, ge=1, description="with fewer visible targets no lost fraction is told")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.fibermap is None:
            raise MissingCalibration("no fibermap, so the targets are unknown")
        off = np.zeros(qframe.nspec, dtype=bool)
        metrics: dict[str, float] = {}
        per_fiber: dict[str, Array] = {}
        told: list[str] = []
        if "DELTA_X" in qframe.fibermap and "DELTA_Y" in qframe.fibermap:
            off |= self._by_coordinates(qframe.fibermap, metrics, per_fiber, told)
        else:
            told.append("the fibermap has no DELTA_X, DELTA_Y")
        if qframe.sky is not None:
            off |= self._by_light(qframe, context, metrics, per_fiber, told)
        metrics["NOFFTARGET"] = float(off.sum())
        beside = ", ".join(str(f) for f in qframe.fibers[off][:12])
        if beside:
            told.append(f"off target: FIBER {beside}" + (" ..." if off.sum() > 12 else ""))
        units = dict.fromkeys(("OFFSET_RMS", "OFFSET_MEDIAN", "OFFSET_FIB"), "micron")
        return QAResult(self.name, metrics, per_fiber=per_fiber, units=units, summary="; ".join(told)).graded(
            context.ranges, context.where
        )

    def _by_coordinates(
        self, fibermap: Fibermap, metrics: dict[str, float], per_fiber: dict[str, Array], told: list[str]
    ) -> Flags:
        status = fibermap.column("FIBERSTATUS", 0).astype(np.int64)
        assigned = np.isin(fibermap.objtype, ("TGT", "SKY")) & ((status & _NOT_MOVED) == 0)
        offset = np.hypot(fibermap.column("DELTA_X").astype(float), fibermap.column("DELTA_Y").astype(float))
        per_fiber["OFFSET_FIB"] = np.where(assigned, 1000.0 * offset, np.nan)
        known = assigned & np.isfinite(offset)
        bad = assigned & ~(offset <= self.params.bad)  # one without a measured position counts as bad
        poor = assigned & ~(offset <= self.params.poor)
        flagged = assigned & ((status & _BAD_POSITION) != 0)
        off: Flags = poor | flagged
        if known.any():
            metrics["OFFSET_RMS"] = 1000.0 * float(np.sqrt(np.mean(offset[known] ** 2)))
            metrics["OFFSET_MEDIAN"] = 1000.0 * float(np.median(offset[known]))
        if assigned.any():
            metrics["POORPOS_FRACTION"] = float(poor.sum() / assigned.sum())
            metrics["BADPOS_FRACTION"] = float(bad.sum() / assigned.sum())
        metrics["NGOODPOS"] = float((assigned & ~off).sum())
        metrics["NPOORPOS"] = float(off.sum())
        told.append(f"{metrics['NGOODPOS']:.0f} of {assigned.sum()} fibers within {1000 * self.params.poor:.0f} micron")
        return off

    def _by_light(
        self,
        qframe: QFrame,
        context: Context,
        metrics: dict[str, float],
        per_fiber: dict[str, Array],
        told: list[str],
    ) -> Flags:
        fibermap = qframe.fibermap
        assert fibermap is not None
        arm = context.arm
        found = band_light(expected_rows(qframe), qframe.wave, qframe.sky, arm.filter_curve)
        light, error = found.counts, np.hypot(found.error, self.params.sky_error * np.abs(found.sky))
        promised = expected_flux(fibermap, arm.band, context.instrument.fiber_diameter, seeing_of(context.header))
        targets = np.zeros(qframe.nspec, dtype=bool)
        for name in CLASSES:
            targets |= fibermap.is_class(name)
        targets &= fibermap.is_usable("flux", arm.name) & np.isfinite(light) & np.isfinite(promised)
        needed = self.params.nsigma / (1.0 - self.params.lost) * error  # light of which the lost part would be seen
        scale = _scale(light[targets], promised[targets], needed[targets])
        visible: Flags = targets & (scale * np.where(targets, promised, 0.0) > needed)
        if not visible.any():
            told.append("no target bright enough to compare its light with the imaging")
            return np.zeros(qframe.nspec, dtype=bool)
        promised = promised * scale
        lost: Flags = visible & (light < self.params.lost * promised)
        per_fiber["LIGHT_RATIO"] = np.where(visible, light / promised, np.nan)
        metrics["NLOST"] = float(lost.sum())
        if visible.sum() >= self.params.min_visible:
            metrics["LOST_FRACTION"] = float(lost.sum() / visible.sum())
        told.append(f"{lost.sum()} of {visible.sum()} visible targets without their light")
        return lost


def _scale(light: Array, promised: Array, needed: Array) -> float:
    """Counts per promised flux of the camera: the median of the targets that are bright enough to tell.

    Which these are must not hang on the light they show: a faint target with the track of a cosmic ray would count,
    and one that lost its light would not. So the most promising quarter gives a first scale.
    """
    if not light.size:
        return 0.0
    best = np.argsort(promised / needed)[-max(light.size // 4, _FEW) :]
    scale = float(np.median(light[best] / promised[best]))
    bright = scale * promised > needed
    return float(np.median(light[bright] / promised[bright])) if bright.any() else scale
