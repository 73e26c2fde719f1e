"""How far the spectra moved on the CCD."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.image import Image, TraceShifts
from qlstream.datamodel.traces import XYTraceSet
from qlstream.pipeline.algorithm import MonitoringAlg
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]


class Trace_Shifts(MonitoringAlg[Image]):
    """Summary of the shift field that Flexure fitted, against the calibration traces [pixel].

    XYSHIFTS_X, XYSHIFTS_Y: mean over fibers and wavelengths (a common shift of all wavelengths counts: the seed
    removed it, spec quicklook-qa §1.6); MINDX ... MAXDY: extremes over the CCD;
    SPREADDX, SPREADDY: largest minus smallest; SLOPEDX_X ... SLOPEDY_Y: change of dx or dy from the first to the last
    fiber (X) and from the blue to the red end (Y); RMSDX, RMSDY: scatter of the measurements about the field;
    NPOINTSX, NPOINTSY: how many there were; ERRORDX, ERRORDY: standard error of the mean that follows from them. The
    vector DLAMBDA tells how far lines moved at the wavelengths WAVELENGTH, mean over fibers [Angstrom].
    """

    title = "trace shifts"

    def run(self, image: Image, context: Context) -> QAResult:
        shifts = image.shifts
        if shifts is None:
            raise ValueError("this image has no trace shifts; let Trace_Shifts check the Flexure stage in the plan")
        metrics = {"XYSHIFTS_X": float(np.mean(shifts.dx)), "XYSHIFTS_Y": float(np.mean(shifts.dy))}
        for axis, field in (("X", shifts.dx), ("Y", shifts.dy)):
            metrics[f"MIND{axis}"], metrics[f"MAXD{axis}"] = float(field.min()), float(field.max())
            metrics[f"SPREADD{axis}"] = float(np.ptp(field))
            metrics[f"SLOPED{axis}_X"], metrics[f"SLOPED{axis}_Y"] = _slopes(field)
        for axis, rms, npoints in (("X", shifts.rms_x, shifts.npoints_x), ("Y", shifts.rms_y, shifts.npoints_y)):
            metrics[f"RMSD{axis}"], metrics[f"NPOINTS{axis}"] = rms, float(npoints)
            if npoints > 0:
                metrics[f"ERRORD{axis}"] = rms / float(np.sqrt(npoints))
        units = {key: "" if key.startswith("NPOINTS") else "pixel" for key in metrics}
        vectors: dict[str, Array] = {}
        if image.traces is not None:
            vectors = {"WAVELENGTH": shifts.wave, "DLAMBDA": _line_shifts(shifts, image.traces)}
            units |= dict.fromkeys(("WAVELENGTH", "DLAMBDA"), "Angstrom")
        told = f"dx {metrics['XYSHIFTS_X']:+.3f}, dy {metrics['XYSHIFTS_Y']:+.3f} pixel ({shifts.method_y})"
        return QAResult(
            self.name,
            metrics,
            per_fiber={"DX_FIB": shifts.dx.mean(axis=1), "DY_FIB": shifts.dy.mean(axis=1)},
            vectors=vectors,
            units=units | {"DX_FIB": "pixel", "DY_FIB": "pixel"},
            summary="; ".join((told, *shifts.warnings)),
        ).graded(context.ranges, context.where)


def _slopes(field: Array) -> tuple[float, float]:
    """Least-squares change of a (nspec, n) field from its first to its last row, and from its first to last column."""
    changes = []
    for mean in (field.mean(axis=1), field.mean(axis=0)):
        u = np.linspace(-0.5, 0.5, mean.size)
        changes.append(float((u * mean).sum() / max((u * u).sum(), 1e-12)))
    return changes[0], changes[1]


def _line_shifts(shifts: TraceShifts, traces: XYTraceSet) -> Array:
    """(n,) dy as a shift of wavelength, mean over fibers [Angstrom]."""
    return np.asarray((shifts.dy / traces.dy_dwave(shifts.wave)).mean(axis=0))
