"""Light where there should be none: between the spectra, and on frames that were taken in the dark."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult


class Check_Background(MonitoringAlg[Image]):
    """Counts of each amplifier that no fiber brought [electron].

    DARKLEVEL_AMP, on bias and dark frames: the median of the usable pixels, bias and dark current subtracted; above
    zero for a warm CCD or a light leak. BBKGMIN_AMP and BBKGMAX_AMP: lowest and highest background between the blocks
    of fibers, where preprocessing measured it (cards BBKGMINx, BBKGMAXx; spec quicklook-qa §4).
    """

    title = "background"

    class Params(StageParams):
        sample: int = Field(16, ge=1, le=64, description="the median is of every n-th row")

    def run(self, image: Image, context: Context) -> QAResult:
        per_amp: dict[str, dict[str, float]] = {}
        if context.flavor in ("zero", "dark"):
            per_amp["DARKLEVEL_AMP"] = {
                r.name: _median(image.pix[window][:: self.params.sample], image.mask[window][:: self.params.sample])
                for r in image.readouts
                for window in [r.amp.ccdsec.slices]
            }
        for card in ("BBKGMIN", "BBKGMAX"):
            found = {r.name: image.meta.get(card + r.name) for r in image.readouts}
            if any(value is not None for value in found.values()):
                per_amp[f"{card}_AMP"] = {
                    name: math.nan if value is None else float(value) for name, value in found.items()
                }
        told = [f"{key.removesuffix('_AMP')} up to {max(values.values()):.2f}" for key, values in per_amp.items()]
        return QAResult(
            self.name,
            per_amp=per_amp,
            units=dict.fromkeys(per_amp, "electron"),
            summary=", ".join(told) + " electron" if told else "not measured",
        ).graded(context.ranges, context.where)


def _median(pix: NDArray[np.float32], mask: NDArray[np.uint16]) -> float:
    usable = pix[(mask & int(EXTRACT_MASK)) == 0]
    return float(np.median(usable)) if usable.size else math.nan
