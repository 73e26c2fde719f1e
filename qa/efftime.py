"""How long a nominal exposure would take to tell as much: the effective time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from algorithms.expected import expected_rows
from algorithms.fluxcal.stage import first_number, seeing_of
from algorithms.tsnr2.information import tsnr2
from algorithms.tsnr2.nominal import NOMINAL_TIME, boxcar_variance, nominal_tsnr2
from algorithms.tsnr2.tracers import PROGRAMS, template_of
from qa.fiberlight import aperture_fraction, band_light, expected_flux
from qa.photometry import POINT_SOURCES
from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import CLASSES, Fibermap
from qlstream.datamodel.qframe import ELECTRON, QFrame
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]

_EXTINCTION = {"G": 3.214, "R": 2.165, "Z": 1.211}  # mag per E(B-V) in DECam's bands (Schlafly & Finkbeiner 2011)
_SURE = 10.0  # significance of the light that tells the transparency
_ENOUGH = 3  # point sources: galaxies are left out then, since their sizes and colors blur the transparency
_ROWS = 1000  # of a fiber that are summed over
_SAMPLE = 5  # every so-many-th fiber tells the TSNR2 of the classes that the program is not for


class Effective_Time(MonitoringAlg[CameraSpectra]):
    """Template S/N of each class of target, and the effective time against the goal, by this arm alone.

    TSNR2: of each class, the median over the fibers in use (see `algorithms.tsnr2`); TSNR2_NOMINAL: the same
    after 1000 s of nominal conditions; EFFTIME_TGT = 1000 s TSNR2 / TSNR2_NOMINAL. Of a petal sum TSNR2 and
    TSNR2_NOMINAL over its arms first. EFFTIME: that of the class that the program is for (ELG, or BGS in a bright or
    backup program; spec quicklook-qa §4); EFFTIME_FIB: per fiber; SPEED = EFFTIME / EXPTIME, 1 in nominal conditions;
    EFFTIME_FRACTION: of the goal time in the header or fibermap, absent if there is none; LOWEFFTIME_FRACTION: fibers
    in use that reach less than `low` of the camera's median.
    TRANSPARENCY: light of the targets over what imaging and flux calibration promise for this airmass and seeing,
    median of the well-measured point sources, or of all targets if there are few: clouds enter by it.
    Without a flux calibration there are no results but the reason.
    """

    title = "effective time"

    class Params(StageParams):
        with_dust: bool = Field(True, description="take the galactic extinction of each target into account")
        low: float = Field(0.5, gt=0, lt=1, description="a fiber with less of the median effective time is low")

    def run(self, spectra: CameraSpectra, context: Context) -> QAResult:
        qframe = spectra.per_bin()
        if qframe.bunit != ELECTRON or qframe.fibermap is None:
            raise ValueError(
                f"Effective_Time needs sky-subtracted {ELECTRON} with a fibermap; these are {qframe.bunit}"
            )
        if "FLUXCALIB" not in context.calibration or context.exptime <= 0:
            return QAResult(self.name, summary="not known without a flux calibration and an exposure time")
        fluxcalib, arm, instrument = context.calibration.fluxcalib, context.arm, context.instrument
        seeing, airmass = seeing_of(context.header), first_number(context.header, ("AIRMASS",), 1.0)
        calibration = fluxcalib.wave, fluxcalib.at(fluxcalib.wave, airmass, seeing) * context.exptime
        transparency = self._transparency(qframe, context, calibration, seeing)
        clear = transparency if np.isfinite(transparency) else 1.0
        share = np.full(qframe.nspec, clear)
        if self.params.with_dust:
            ebv = np.nan_to_num(qframe.fibermap.column("EBV", 0.0).astype(float))
            share *= 10.0 ** (-0.4 * _EXTINCTION.get(arm.band, 0.0) * ebv)
        in_use = _in_use(qframe.fibermap, arm.name)
        main = PROGRAMS.get(context.program, "ELG")
        tables: dict[str, dict[str, float | None]] = {"TSNR2": {}, "TSNR2_NOMINAL": {}, "EFFTIME_TGT": {}}
        of_fiber = np.full(qframe.nspec, np.nan)
        point = aperture_fraction(instrument.fiber_diameter, seeing)
        summed = partial(boxcar_variance, readnoise=arm.readnoise, half_width=instrument.extraction_half_width)
        for name in CLASSES:
            template = template_of(name, arm)
            size = float(aperture_fraction(instrument.fiber_diameter, seeing, template.half_light) / point)
            fibers = np.flatnonzero(in_use)[:: 1 if name == main else _SAMPLE]
            electrons = np.interp(template.wave, *calibration, left=0.0, right=0.0)[None, :]
            found = tsnr2(
                expected_rows(qframe), qframe.wave, fibers, template, electrons, size * share, arm.wave_science, _ROWS
            )
            nominal = nominal_tsnr2(name, instrument, arm, fluxcalib, summed)
            tables["TSNR2"][name], tables["TSNR2_NOMINAL"][name] = _median(found), nominal
            tables["EFFTIME_TGT"][name] = NOMINAL_TIME * _median(found) / nominal
            if name == main:
                of_fiber[fibers] = NOMINAL_TIME * found / nominal
        efftime = _median(of_fiber[in_use])
        low = of_fiber[in_use] < self.params.low * efftime
        metrics = {
            "EFFTIME": efftime,
            "SPEED": efftime / context.exptime,
            "TRANSPARENCY": transparency,
            "LOWEFFTIME_FRACTION": float(low.mean()) if low.size else float("nan"),
        }
        goal = _goal_time(context.header, qframe.fibermap.meta)
        if goal is not None:
            metrics["EFFTIME_FRACTION"] = efftime / goal
        told = f"worth {efftime:.0f} s of nominal conditions for {main}, in {context.exptime:.0f} s"
        return QAResult(
            self.name,
            metrics,
            per_class=tables,
            per_fiber={"EFFTIME_FIB": of_fiber},
            units=dict.fromkeys(("EFFTIME", "EFFTIME_TGT", "EFFTIME_FIB"), "s"),
            summary=told + ("" if goal is None else f"; the goal is {goal:.0f} s")
            + ("" if np.isfinite(transparency) else "; no target tells the transparency"),
        ).graded(context.ranges, context.where)  # fmt: skip

    def _transparency(self, qframe: QFrame, context: Context, calibration: tuple[Array, Array], seeing: float) -> float:
        fibermap, arm, diameter = qframe.fibermap, context.arm, context.instrument.fiber_diameter
        assert fibermap is not None
        light = band_light(
            expected_rows(qframe), qframe.wave, qframe.sky, arm.filter_curve, calibration, arm.wave_science
        )
        promised = expected_flux(fibermap, arm.band, diameter, seeing) / aperture_fraction(diameter, seeing)
        sure = fibermap.is_usable("flux", arm.name) & (fibermap.objtype == "TGT") & (light.per_flux > 0)
        # by the light that is promised, not by what is seen: that would prefer targets with more than their share
        sure &= np.nan_to_num(promised) * light.per_flux > _SURE * light.error
        points = np.zeros(qframe.nspec, dtype=bool)
        for name in POINT_SOURCES:
            points |= fibermap.is_class(name)
        if (sure & points).sum() >= _ENOUGH:
            sure &= points
        return _median((light.counts / np.where(sure, light.per_flux * promised, 1.0))[sure])


def _in_use(fibermap: Fibermap, arm: str) -> NDArray[np.bool_]:
    return np.isin(fibermap.objtype, ("TGT", "SKY")) & fibermap.is_usable("flux", arm)


def _goal_time(*cards: Mapping[str, Any]) -> float | None:
    """GOALTIME of the first header that has one [second]."""
    for header in cards:
        goal = first_number(header, ("GOALTIME",), float("nan"))
        if np.isfinite(goal):
            return goal
    return None


def _median(values: Array) -> float:
    found = values[np.isfinite(values)]
    return float(np.median(found)) if found.size else float("nan")
