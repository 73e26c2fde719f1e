"""Whether the noise of neighbouring pixels is independent."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK
from qlstream.pipeline.algorithm import MonitoringAlg, StageParams
from qlstream.pipeline.context import Context
from qlstream.pipeline.result import QAResult

LAGS = 4  # 0 to 3 pixels along rows and along columns
_CLIP = 5.0  # sigma
_UNUSABLE = int(EXTRACT_MASK)


class Pixel_Correlation(MonitoringAlg[Image]):
    """Correlation of the noise of pixels up to 3 pixels apart, on bias frames.

    CORR_MAX_AMP is the largest size of CORR-i-j, i rows and j columns apart, (0, 0) left out; the 4 x 4 values with
    their signs are the vectors CORR_A ... Independent noise has none; a few percent tell of pick-up or of a
    readout that does not settle. This is Pearson's coefficient; its standard error is 1/sqrt(sample). The reference
    takes a median of products, which is no correlation, and other pixels each time (spec quicklook-qa §4). On any
    other exposure light correlates the pixels, so there this metric gives nothing.
    """

    title = "pixel correlation"

    class Params(StageParams):
        sample: int = Field(50_000, ge=1000, description="pixels of each amplifier that are looked at")
        seed: int = Field(1, ge=0, description="chooses them, the same ones in every exposure")

    def run(self, image: Image, context: Context) -> QAResult:
        if context.flavor != "zero":
            return QAResult(self.name, summary="only bias frames tell")
        found = {}
        for readout in image.readouts:
            window = readout.amp.ccdsec.slices
            found[readout.name] = correlate(image.pix[window], image.mask[window], self.params.sample, self.params.seed)
        largest = {name: _largest(corr) for name, corr in found.items()}
        worst = max(largest, key=lambda name: np.nan_to_num(largest[name]), default="")
        return QAResult(
            self.name,
            per_amp={"CORR_MAX_AMP": largest},
            vectors={f"CORR_{name}": corr for name, corr in found.items()},
            summary=f"pixels correlate by {largest.get(worst, np.nan):.3f} at most ({worst})",
        ).graded(context.ranges, context.where)


def correlate(pix: NDArray[np.float32], mask: NDArray[np.uint16], sample: int, seed: int) -> NDArray[np.float64]:
    """Correlation coefficients of pixels with those i rows up and j columns to the right.

    Values further than 5 sigma from the median are left out.

    Parameters
    ----------
    pix, mask : (ny, nx) float32, uint16 of one amplifier; pixels out of the extraction do not count
    sample : so many pixels are looked at; all, if there are fewer
    seed : chooses them

    Returns
    -------
    (4, 4) float64, [i, j]; 1 at [0, 0]; NaN where no pair is left
    """
    ny, nx = pix.shape[0] - LAGS + 1, pix.shape[1] - LAGS + 1
    if min(ny, nx) < 1:
        return np.full((LAGS, LAGS), np.nan)
    if ny * nx <= sample:
        chosen = np.arange(ny * nx)
    else:
        chosen = np.sort(np.random.default_rng(seed).integers(0, ny * nx, sample))
    rows, columns = np.divmod(chosen, nx)
    values = pix[rows, columns][(mask[rows, columns] & _UNUSABLE) == 0]
    if values.size < 2:
        return np.full((LAGS, LAGS), np.nan)
    center = np.float32(np.median(values))
    reach = np.float32(_CLIP * 1.4826 * np.median(np.abs(values - center)))
    return np.asarray(_correlate(pix, mask, rows, columns, center, reach))


def _largest(corr: NDArray[np.float64]) -> float:
    lags = np.abs(corr.ravel()[1:])
    return float(np.nanmax(lags)) if np.isfinite(lags).any() else float("nan")


@njit(nogil=True, cache=True)
def _correlate(pix, mask, rows, columns, center, reach):  # type: ignore[no-untyped-def]
    sums = np.zeros((LAGS, LAGS, 6))  # n, u, v, uu, vv, uv
    for k in range(len(rows)):
        y, x = rows[k], columns[k]
        u = pix[y, x] - center
        if mask[y, x] & _UNUSABLE or not abs(u) <= reach:
            continue
        for i in range(LAGS):
            for j in range(LAGS):
                v = pix[y + i, x + j] - center
                if mask[y + i, x + j] & _UNUSABLE or not abs(v) <= reach:
                    continue
                s = sums[i, j]
                s[0] += 1.0
                s[1] += u
                s[2] += v
                s[3] += u * u
                s[4] += v * v
                s[5] += u * v
    out = np.full((LAGS, LAGS), np.nan)
    for i in range(LAGS):
        for j in range(LAGS):
            n, u, v, uu, vv, uv = sums[i, j]
            if n > 1:
                variance = (uu - u * u / n) * (vv - v * v / n)
                if variance > 0:
                    out[i, j] = (uv - u * v / n) / np.sqrt(variance)
    return out
