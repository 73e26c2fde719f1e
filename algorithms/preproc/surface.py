"""A smooth background of an image without light: a surface for each amplifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from qlstream.datamodel.amplifier import Amp

_CLIP = 4.0  # sigma, in units of the median absolute deviation
_LEAST = 3  # patches along a side, which a quadratic needs


def smooth_surface(
    pix: NDArray[np.float32], mask: NDArray[np.uint16], amps: Sequence[Amp], patch: float
) -> NDArray[np.float32]:
    """Biquadratic spline through the clipped means of patches (spec preproc §6b i).

    Means, since the median of so few electrons is 0.1 too low.

    Each amplifier has its own: levels may step from one to the next, and a surface across the step would not follow.
    So nothing needs to be stitched afterwards.

    Parameters
    ----------
    pix, mask : (ny, nx) [electron], CCDMask bits; any bit excludes a pixel
    patch : side of a patch, about [pixel]

    Returns
    -------
    (ny, nx) float32 [electron]; 0 for an amplifier without a good pixel
    """
    surface = np.zeros(pix.shape, np.float32)
    for amp in amps:
        window = amp.ccdsec.slices
        edges = [np.linspace(0, n, max(_LEAST, round(n / patch)) + 1).astype(int) for n in amp.ccdsec.shape]
        means = _means(pix[window], mask[window], *edges)
        known = np.isfinite(means)
        if not known.any():
            continue
        means[~known] = np.median(means[known])
        (ny, nx), (y, x) = amp.ccdsec.shape, (0.5 * (e[1:] + e[:-1] - 1) for e in edges)
        spline = RectBivariateSpline(y, x, means, bbox=(0, ny - 1, 0, nx - 1), kx=2, ky=2)
        surface[window] = spline(np.arange(ny), np.arange(nx))
    return surface


def _means(
    pix: NDArray[np.float32], mask: NDArray[np.uint16], yedges: NDArray[np.int64], xedges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Clipped mean of the good pixels of each patch; NaN where fewer than a tenth are good."""
    means = np.full((len(yedges) - 1, len(xedges) - 1), np.nan)
    for j in range(len(yedges) - 1):
        for i in range(len(xedges) - 1):
            part = slice(yedges[j], yedges[j + 1]), slice(xedges[i], xedges[i + 1])
            values = pix[part][mask[part] == 0]
            if 10 * values.size > pix[part].size:
                median = np.median(values)
                reach = _CLIP * 1.4826 * np.median(np.abs(values - median))
                means[j, i] = values[np.abs(values - median) <= reach].mean(dtype=np.float64)
    return means
