"""How far the spectra moved on the CCD."""

from __future__ import annotations

import numpy as np

from qlstream.datamodel.image import Image
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Trace_Shifts(MonitoringAlg[Image]):
    """Summary of the shift field that Flexure fitted, against the calibration traces [pixel].

    XYSHIFTS_X, XYSHIFTS_Y: mean over fibers and wavelengths (a common shift of all wavelengths counts: the seed
    removed it, spec quicklook-qa §1.6); SPREADDX, SPREADDY: largest minus smallest; RMSDX, RMSDY: scatter of the
    measurements about the field; NPOINTSX, NPOINTSY: how many there were.
    """

    title = "trace shifts"

    def run(self, image: Image, context: Context) -> QAResult:
        shifts = image.shifts
        if shifts is None:
            raise ValueError("this image has no trace shifts; let Trace_Shifts check the Flexure stage in the plan")
        metrics = {
            "XYSHIFTS_X": float(np.mean(shifts.dx)),
            "XYSHIFTS_Y": float(np.mean(shifts.dy)),
            "SPREADDX": float(np.ptp(shifts.dx)),
            "SPREADDY": float(np.ptp(shifts.dy)),
            "RMSDX": shifts.rms_x,
            "RMSDY": shifts.rms_y,
            "NPOINTSX": float(shifts.npoints_x),
            "NPOINTSY": float(shifts.npoints_y),
        }
        units = {key: "" if key.startswith("NPOINTS") else "pixel" for key in metrics}
        told = f"dx {metrics['XYSHIFTS_X']:+.3f}, dy {metrics['XYSHIFTS_Y']:+.3f} pixel ({shifts.method_y})"
        return QAResult(
            self.name,
            metrics,
            per_fiber={"DX_FIB": shifts.dx.mean(axis=1), "DY_FIB": shifts.dy.mean(axis=1)},
            units=units | {"DX_FIB": "pixel", "DY_FIB": "pixel"},
            summary="; ".join((told, *shifts.warnings)),
        ).graded(context.ranges, context.where)
