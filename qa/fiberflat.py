"""Whether a fiber flat can serve: its fibers, how they compare with the flat before, and the lamp that made it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import FiberMask
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

Array = NDArray[np.float64]

_LISTED = 8  # fibers that a summary names


class Check_FiberFlat(MonitoringAlg[FiberFlat]):
    """Level and shape of every fiber's flat, fibers that have lost light, and the brightness of the lamp.

    FLATMEAN, FLATRMS: mean and scatter of a fiber's flat over its good bins; CHECKFLAT: mean of FLATMEAN over the
    fibers that FIBERSTATUS calls sound, near 1 by construction. A flat is relative to its own median fiber, so these
    cannot see a lamp fail (spec quicklook-qa §1.15, which counts masked bins, too). Hence beside them:
    DEADFIB_FRACTION: sound fibers without any flat; DIMFIB_FRACTION: sound fibers below `dim` times the median fiber;
    FLATRATIO: median ratio of each fiber to the flat that would serve without this one, FLATRATIO_NMAD: its robust
    scatter, CHANGEDFIB_FRACTION: sound fibers that differ by more than `change`; absent if there is no such flat;
    FLATLAMP_RATE: median of the lamp's spectrum in the median fiber over the arm's science range, per second;
    INTEG_FLUX: integral of the median spectrum of the middle fibers over that range, per second (Nightwatch's
    B/R/Z_INTEG_FLUX, §4).
    """

    title = "fiber flat"

    class Params(StageParams):
        dim: float = Field(0.5, gt=0, lt=1, description="a fiber below this times the median fiber is dim")
        change: float = Field(0.1, gt=0, description="a fiber has changed if it differs by more [fraction]")
        middle: int = Field(20, ge=1, description="fibers in the middle of the slit that tell the integrated flux")

    def run(self, flat: FiberFlat, context: Context) -> QAResult:
        good = (flat.ivar > 0) & (flat.mask == 0)
        mean, scatter = _moments(flat.fiberflat, good)
        some = good.any(axis=1)
        sound, known_low = np.ones(flat.nspec, dtype=bool), np.zeros(flat.nspec, dtype=bool)
        if flat.fibermap is not None:
            sound = flat.fibermap.is_usable("flat", context.camera[:1])
            known_low = flat.fibermap.column("FIBERSTATUS", 0).astype(np.int64) & int(FiberMask.LOWTRANSMISSION) != 0
        dead, dim = sound & ~some, sound & some & ~known_low & (mean < self.params.dim)
        level = mean[sound & some & ~known_low]
        lamp, flux = self._lamp(flat, good, context)
        metrics = {
            "CHECKFLAT": float(level.mean()) if level.size else float("nan"),
            "DEADFIB_FRACTION": float(dead.sum() / max(sound.sum(), 1)),
            "DIMFIB_FRACTION": float(dim.sum() / max(sound.sum(), 1)),
            "FLATLAMP_RATE": lamp,
            "INTEG_FLUX": flux,
        }
        per_fiber = {"FLATMEAN": mean, "FLATRMS": scatter}
        told = f"lamp {lamp:.3g} electron/Angstrom/s" + _named("dead", flat, dead) + _named("dim", flat, dim)
        if "FIBERFLAT" in context.calibration:
            ratio = ratio_to(flat, good, context.calibration.fiberflat)
            found = np.isfinite(ratio) & sound
            changed = found & (np.abs(ratio - 1) > self.params.change)
            if found.any():
                typical = np.median(ratio[found])
                metrics["FLATRATIO_NMAD"] = float(1.4826 * np.median(np.abs(ratio[found] - typical)))
                metrics["CHANGEDFIB_FRACTION"] = float(changed.sum() / found.sum())
            per_fiber["FLATRATIO"] = ratio
            told += _named("changed", flat, changed)
        return QAResult(
            self.name,
            metrics,
            per_fiber=per_fiber,
            vectors={"LAMP_WAVE": flat.wave, "LAMP_SPECTRUM": flat.meanspec},
            units={
                "FLATLAMP_RATE": "electron/Angstrom/s",
                "INTEG_FLUX": "electron/s",
                "LAMP_WAVE": "Angstrom",
                "LAMP_SPECTRUM": "electron/Angstrom",
            },
            summary=told,
        ).graded(context.ranges, context.where)

    def _lamp(self, flat: FiberFlat, good: NDArray[np.bool_], context: Context) -> tuple[float, float]:
        """Median of the lamp, and the integral of the middle fibers, per second; NaN where it cannot be told."""
        first, last = context.arm.wave_science
        first_fiber = max((flat.nspec - self.params.middle) // 2, 0)
        middle = slice(first_fiber, first_fiber + self.params.middle)
        inside = (flat.wave >= first) & (flat.wave <= last) & good.any(axis=0)
        if context.exptime <= 0 or not inside.any():
            return float("nan"), float("nan")
        rate = flat.meanspec[inside] / context.exptime
        relative = np.full(inside.sum(), np.nan)
        here = good[middle][:, inside]
        told = here.any(axis=0)
        relative[told] = np.nanmedian(np.where(here, flat.fiberflat[middle][:, inside], np.nan)[:, told], axis=0)
        wave, spectrum = flat.wave[inside][told], (rate * relative)[told]
        return float(np.median(rate)), float(np.trapezoid(spectrum, wave)) if told.any() else float("nan")


def ratio_to(flat: FiberFlat, good: NDArray[np.bool_], other: FiberFlat) -> Array:
    """(nspec,) median over the good bins of each fiber's flat over that of `other`; NaN where one of them has none."""
    row_of = {int(fiber): row for row, fiber in enumerate(other.fibers)}
    out = np.full(flat.nspec, np.nan)
    for f, fiber in enumerate(flat.fibers.tolist()):
        row = row_of.get(fiber)
        if row is None:
            continue
        known = (other.ivar[row] > 0) & (other.mask[row] == 0) & (other.fiberflat[row] > 0)
        both = good[f] & (np.interp(flat.wave, other.wave, known.astype(float), left=0.0, right=0.0) == 1.0)
        if both.any():
            out[f] = np.median(flat.fiberflat[f, both] / np.interp(flat.wave[both], other.wave, other.fiberflat[row]))
    return out


def _moments(values: Array, good: NDArray[np.bool_]) -> tuple[Array, Array]:
    """(nspec,) mean and standard deviation over the good bins; NaN without any."""
    n = good.sum(axis=1)
    mean, scatter = np.full(len(n), np.nan), np.full(len(n), np.nan)
    some = n > 0
    kept = np.where(good, values, 0.0)[some]
    mean[some] = kept.sum(axis=1) / n[some]
    deviation = np.where(good[some], values[some] - mean[some, None], 0.0)
    scatter[some] = np.sqrt((deviation**2).sum(axis=1) / n[some])
    return mean, scatter


def _named(what: str, flat: FiberFlat, chosen: NDArray[np.bool_]) -> str:
    fibers = flat.fibers[chosen].tolist()
    if not fibers:
        return ""
    more = f" and {len(fibers) - _LISTED} more" if len(fibers) > _LISTED else ""
    return f"; {what}: FIBER {', '.join(map(str, fibers[:_LISTED]))}{more}"
