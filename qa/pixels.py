"""What fraction of each amplifier is lit, saturated, masked or hit by cosmic rays."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK, CCDMask
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

_SATURATED = int(CCDMask.SATURATED)
_COSMIC = int(CCDMask.COSMIC)
_UNUSABLE = int(EXTRACT_MASK)  # a high read noise alone does not take a pixel out


class Count_Pixels(MonitoringAlg[Image]):
    """Fractions of the pixels of each amplifier.

    LITFRAC_AMP: above `cutpix` times the read noise, among usable pixels; LITRATIO_AMP: the same against the camera's
    median amplifier, which an amplifier without light betrays itself by; SATFRAC_AMP: saturated; MASKFRAC_AMP: with a
    bit that takes it out of the extraction; COSMICS_RATE: starts of cosmic-ray tracks per minute (a flagged pixel
    without a flagged neighbour to the left, above or diagonally above counts as one; spec quicklook-qa §1.4 and §4).
    """

    title = "lit pixels"

    class Params(StageParams):
        cutpix: float = Field(5.0, gt=0, alias="CUTPIX", description="threshold in units of the read noise")
        min_lit: float = Field(0.02, ge=0, lt=1, description="amplifiers are compared if the median one is lit so much")
        readout_s: float = Field(30.0, ge=0, description="half the readout time, in which cosmic rays also hit [s]")

    def run(self, image: Image, context: Context) -> QAResult:
        minutes = (context.exptime + self.params.readout_s) / 60.0
        lit, saturated, masked, cosmics = {}, {}, {}, {}
        for readout in image.readouts:
            window = readout.amp.ccdsec.slices
            threshold = self.params.cutpix * readout.readnoise
            counts = _count(image.pix[window], image.mask[window], np.float32(threshold))
            total = image.pix[window].size
            good = total - counts[2]
            lit[readout.name] = counts[0] / good if good else float("nan")
            saturated[readout.name] = counts[1] / total
            masked[readout.name] = counts[2] / total
            cosmics[readout.name] = counts[3] / minutes
        typical = float(np.nanmedian(list(lit.values()))) if np.isfinite(list(lit.values())).any() else 0.0
        ratio = {name: value / typical for name, value in lit.items()} if typical > self.params.min_lit else {}
        return QAResult(
            self.name,
            per_amp={
                "LITFRAC_AMP": lit,
                "LITRATIO_AMP": ratio,
                "SATFRAC_AMP": saturated,
                "MASKFRAC_AMP": masked,
                "COSMICS_RATE": cosmics,
            },
            units={
                "LITFRAC_AMP": "",
                "LITRATIO_AMP": "",
                "SATFRAC_AMP": "",
                "MASKFRAC_AMP": "",
                "COSMICS_RATE": "1/min",
            },
            summary="lit " + ", ".join(f"{amp} {100 * value:.1f}" for amp, value in lit.items()) + " %",
        ).graded(context.ranges, context.where)


@njit(nogil=True, cache=True)
def _count(pix: NDArray[np.float32], mask: NDArray[np.uint16], threshold: np.float32) -> tuple[int, int, int, int]:
    """(lit, saturated, masked, first pixels of cosmic-ray tracks) in one pass."""
    lit = saturated = masked = tracks = 0
    ny, nx = pix.shape
    for j in range(ny):
        for i in range(nx):
            bits = mask[j, i] & _UNUSABLE
            if bits == 0:
                if pix[j, i] > threshold:
                    lit += 1
                continue
            masked += 1
            if bits & _SATURATED:
                saturated += 1
            if bits & _COSMIC:
                joined = i > 0 and mask[j, i - 1] & _COSMIC
                if j > 0 and not joined:
                    for k in range(max(i - 1, 0), min(i + 2, nx)):
                        if mask[j - 1, k] & _COSMIC:
                            joined = True
                if not joined:
                    tracks += 1
    return lit, saturated, masked, tracks
