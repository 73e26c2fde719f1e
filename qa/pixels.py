"""What fraction of each amplifier is lit, saturated or masked."""

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
_UNUSABLE = int(EXTRACT_MASK)  # a high read noise alone does not take a pixel out


class Count_Pixels(MonitoringAlg[Image]):
    """Fractions of the pixels of each amplifier.

    LITFRAC_AMP: above `cutpix` times its read noise, among usable pixels; SATFRAC_AMP: saturated; MASKFRAC_AMP: with a
    bit that takes it out of the extraction. LITRATIO_AMP compares the amplifiers, since one without light betrays
    itself so: its lit pixels over those of the camera's median amplifier. For this, all are cut at `cutpix` times the
    camera's median read noise, and the pixels as far below zero are subtracted, which noise puts there as often as
    above: a noisy amplifier then is as lit as its neighbours. The seed rounded to 2 decimals, which hides whatever
    happens on bias and dark frames, and counted masked pixels as dark (spec quicklook-qa §1.4).
    """

    title = "lit pixels"

    class Params(StageParams):
        cutpix: float = Field(5.0, gt=0, alias="CUTPIX", description="threshold in units of the read noise")
        min_lit: float = Field(0.02, ge=0, lt=1, description="amplifiers are compared if the median one is lit so much")

    def run(self, image: Image, context: Context) -> QAResult:
        noises = [r.readnoise for r in image.readouts if np.isfinite(r.readnoise)]
        common = self.params.cutpix * float(np.median(noises)) if noises else np.nan
        lit, excess, saturated, masked = {}, {}, {}, {}
        for readout in image.readouts:
            window = readout.amp.ccdsec.slices
            own = self.params.cutpix * readout.readnoise
            above, net, at_limit, unusable = _count(
                image.pix[window], image.mask[window], np.float32(own), np.float32(common)
            )
            total = image.pix[window].size
            good = total - unusable
            lit[readout.name] = above / good if good and np.isfinite(own) else float("nan")
            excess[readout.name] = net / good if good and np.isfinite(common) else float("nan")
            saturated[readout.name] = at_limit / total
            masked[readout.name] = unusable / total
        typical = float(np.nanmedian(list(excess.values()))) if np.isfinite(list(excess.values())).any() else 0.0
        ratio = {name: value / typical for name, value in excess.items()} if typical > self.params.min_lit else {}
        return QAResult(
            self.name,
            per_amp={"LITFRAC_AMP": lit, "LITRATIO_AMP": ratio, "SATFRAC_AMP": saturated, "MASKFRAC_AMP": masked},
            summary="lit " + ", ".join(f"{amp} {100 * value:.1f}" for amp, value in lit.items()) + " %",
        ).graded(context.ranges, context.where)


@njit(nogil=True, cache=True)
def _count(
    pix: NDArray[np.float32], mask: NDArray[np.uint16], own: np.float32, common: np.float32
) -> tuple[int, int, int, int]:
    """(above `own`, above `common` less below -`common`, saturated, unusable) in one pass."""
    above = net = saturated = unusable = 0
    ny, nx = pix.shape
    for j in range(ny):
        for i in range(nx):
            bits = mask[j, i] & _UNUSABLE
            if bits == 0:
                value = pix[j, i]
                above += value > own
                net += value > common
                net -= value < -common
            else:
                unusable += 1
                if bits & _SATURATED:
                    saturated += 1
    return above, net, saturated, unusable
