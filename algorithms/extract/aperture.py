"""Sums along the traces of a CCD, with masked pixels filled in from the local cross-dispersion profile."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.masks import EXTRACT_MASK, CCDMask, SpecMask

Array = NDArray[np.float64]

MAX_WINDOW = 40  # columns a window may touch; sizes the work arrays
REJECT = 5.0  # sigma above the profile at which a pixel beside masked ones is taken for the fringe of a cosmic ray

_BAD = int(EXTRACT_MASK)
_COSMIC_PIXEL, _SATURATED_PIXEL = int(CCDMask.COSMIC), int(CCDMask.SATURATED)
_SOME, _ALL, _COSMIC = int(SpecMask.SOMEBADPIX), int(SpecMask.ALLBADPIX), int(SpecMask.COSMIC)
_NODATA, _SATURATED = int(SpecMask.NODATA), int(SpecMask.SATURATED)


def sum_apertures(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    mask: NDArray[np.uint16],
    x: Array,
    xsig: Array,
    inside: NDArray[np.int64],
    half_width: float,
    reach: int = 6,
    min_fraction: float = 0.01,
    profile_error: float = 0.03,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]:
    """Sum the pixels within `half_width` of each trace, row by row.

    Edge pixels count by the fraction covered (variance by its square), so that flux does not jump when a trace
    drifts across a pixel. A row with masked pixels is not lost: they are filled in from the cross-dispersion profile
    phi scaled to the good pixels p of the row, P = sum(a phi p) / sum(a phi^2) (Horne 1986, PASP 98, 609, with
    weights that do not depend on the noise of the data), and the inverse variance counts what that costs. phi is the
    mean of the unmasked rows within `reach`, combined with a Gaussian by inverse variances: bright spectra are filled
    from what the instrument really does, faint ones do not suffer from a noisy profile.

    Cosmic rays are rarely flagged to their last pixel, so good pixels of such a row that stand out of the profile are
    taken for masked too. A row of which nothing can be said (the good pixels hold less than `min_fraction` of the
    profile, or a pixel is saturated: its charge may have bled) gets ivar 0. Columns beyond the CCD count as masked.

    Parameters
    ----------
    pix, ivar, mask : (ny, nx) [electron], [electron^-2], CCDMask bits; ivar <= 0 or a bit of EXTRACT_MASK is masked
    x : (nspec, ny) trace centers [pixel]; pixel 0 spans -0.5 to 0.5
    xsig : (nspec, m) Gaussian sigma of the profile [pixel], sampled at m >= 2 rows evenly from the first to the last
    inside : (nspec, 2) first and last row + 1 of the domain of each trace; rows outside are NODATA
    half_width : [pixel]
    reach : rows on each side from which the local profile is taken
    min_fraction : of the profile, in good pixels, that a row needs
    profile_error : error of the Gaussian profile, relative to its value

    Returns
    -------
    flux : (nspec, ny) float32 [electron per row]
    ivar : (nspec, ny) float32 [electron^-2]; 0 = no information
    mask : (nspec, ny) uint32, SpecMask bits: ALLBADPIX given up, SOMEBADPIX more than half of the aperture filled
        in, COSMIC and SATURATED such a pixel lies in the window, NODATA beyond the trace

    Raises
    ------
    ValueError : the shapes do not fit, or the window is too wide
    """
    if not pix.shape == ivar.shape == mask.shape or x.ndim != 2 or x.shape[1] != pix.shape[0]:
        raise ValueError(
            f"sum_apertures: pix {pix.shape}, ivar {ivar.shape}, mask {mask.shape}, x {x.shape} do not fit; "
            "give the arrays of one Image (ny, nx), and x as (nspec, ny)"
        )
    if xsig.shape[0] != x.shape[0] or xsig.shape[1] < 2 or inside.shape != (x.shape[0], 2):
        raise ValueError(
            f"sum_apertures: x {x.shape}, xsig {xsig.shape}, inside {inside.shape} do not fit; "
            "expected (nspec, ny), (nspec, 2 or more) and (nspec, 2)"
        )
    if 2 * half_width + 2 > MAX_WINDOW:
        raise ValueError(f"sum_apertures: half_width {half_width} exceeds {MAX_WINDOW / 2 - 1} pixels")
    shape = x.shape
    flux, out_ivar = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    out_mask = np.zeros(shape, np.uint32)
    _sum(pix, ivar, mask, x, xsig, inside, half_width, reach, min_fraction, profile_error, flux, out_ivar, out_mask)
    return flux, out_ivar, out_mask


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sum(pix, ivar, mask, x, xsig, inside, half_width, reach, min_fraction, profile_error, flux, out_ivar, out_mask):
    ny, nx = pix.shape
    work = np.empty((7, MAX_WINDOW))
    var = np.empty(nx, np.float32)
    one, zero, bad = np.float32(1.0), np.float32(0.0), np.uint16(_BAD)
    for j in range(ny):
        for i in range(nx):
            w = ivar[j, i] if (mask[j, i] & bad) == 0 else zero
            var[i] = one / max(w, zero)  # infinite where masked
        for f in range(x.shape[0]):
            if j < inside[f, 0] or j >= inside[f, 1]:
                out_mask[f, j] = _NODATA
                continue
            low, high = x[f, j] - half_width, x[f, j] + half_width
            first, last = math.floor(low + 0.5), math.floor(high + 0.5)
            variance = np.inf
            total = 0.0
            if first >= 0 and last < nx:
                left, right = first + 0.5 - low, high - last + 0.5
                total = left * pix[j, first] + right * pix[j, last]
                variance = left * left * var[first] + right * right * var[last]
                for i in range(first + 1, last):
                    total += pix[j, i]
                    variance += var[i]
            if variance < np.inf:
                flux[f, j] = total
                out_ivar[f, j] = 1.0 / variance
            else:
                at = j * (xsig.shape[1] - 1) / (ny - 1.0)
                k = min(int(at), xsig.shape[1] - 2)
                sigma = xsig[f, k] + (at - k) * (xsig[f, k + 1] - xsig[f, k])
                flux[f, j], out_ivar[f, j], out_mask[f, j] = _fill_in(
                        pix, ivar, mask, x[f], j, sigma, inside[f, 0], inside[f, 1],
                        half_width, reach, min_fraction, profile_error, work,
                    )  # fmt: skip


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fill_in(
    pix, ivar, mask, x, j, sigma, row_first, row_end, half_width, reach, min_fraction, profile_error, work
):  # fmt: skip
    """(flux, ivar, mask) of a row with masked pixels."""
    nx = pix.shape[1]
    low, high = x[j] - half_width, x[j] + half_width
    first, last = math.floor(low + 0.5), math.floor(high + 0.5)
    n = last - first + 1
    fraction, good, profile, error2 = work[0], work[1], work[2], work[3]
    bits = 0
    ngood = 0
    area_bad = 0.0
    for c in range(n):
        i = first + c
        fraction[c] = first + 0.5 - low if c == 0 else (high - last + 0.5 if c == n - 1 else 1.0)
        good[c] = 0.0
        if 0 <= i < nx:
            bits |= mask[j, i]
            if ivar[j, i] > 0 and (mask[j, i] & _BAD) == 0:
                good[c] = 1.0
                ngood += 1
        area_bad += fraction[c] * (1.0 - good[c])
    flags = 0
    if bits & _COSMIC_PIXEL:
        flags |= _COSMIC
    if bits & _SATURATED_PIXEL:
        return 0.0, 0.0, flags | _SATURATED | _ALL
    if ngood == 0:
        return 0.0, 0.0, flags | _ALL
    _local_profile(
        pix,
        ivar,
        mask,
        x,
        j,
        sigma,
        first,
        n,
        row_first,
        row_end,
        reach,
        profile_error,
        fraction,
        profile,
        error2,
        work,
    )

    while True:
        missing = held = norm = projection = 0.0
        for c in range(n):
            share = fraction[c] * profile[c]
            if good[c]:
                held += share
                norm += share * profile[c]
                projection += share * pix[j, first + c]
            else:
                missing += share
        if held < min_fraction or norm <= 0:
            return 0.0, 0.0, flags | _ALL
        amplitude = projection / norm
        worst, excess = -1, REJECT
        for c in range(n):
            if good[c]:
                model = amplitude * profile[c]
                error2_model = amplitude * amplitude * (error2[c] + (0.02 * profile[c]) ** 2)
                pull = (pix[j, first + c] - model) / math.sqrt(1.0 / ivar[j, first + c] + error2_model)
                if pull > excess:
                    worst, excess = c, pull
        if worst < 0:
            break
        good[worst] = 0.0
        area_bad += fraction[worst]
        flags |= _COSMIC
    scale = missing / norm
    total = variance = model = 0.0
    for c in range(n):
        a = fraction[c]
        if good[c]:
            weight = a * (1.0 + scale * profile[c])
            total += weight * pix[j, first + c]
            variance += weight * weight / ivar[j, first + c]
            model += (scale * a * profile[c]) ** 2 * error2[c]
        else:
            model += a * a * error2[c]
    variance += max(amplitude, 0.0) ** 2 * model
    if area_bad > half_width:
        flags |= _SOME
    return total, 1.0 / variance, flags


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _local_profile(
    pix, ivar, mask, x, j, sigma, first, n, row_first, row_end, reach, profile_error, fraction, profile, error2, work
):
    """Profile around row j with unit sum over the aperture, and the squared error of each pixel of it."""
    nx = pix.shape[1]
    level, noise, row_noise = work[4], work[5], work[6]
    one, zero, bad = np.float32(1.0), np.float32(0.0), np.uint16(_BAD)
    root = 1.0 / (math.sqrt(2.0) * sigma)
    below = math.erf((first - 0.5 - x[j]) * root)
    norm = 0.0
    for c in range(n):
        level[c] = noise[c] = 0.0
        above = math.erf((first + c + 0.5 - x[j]) * root)
        profile[c] = 0.5 * (above - below)
        below = above
        norm += fraction[c] * profile[c]
    summed = 0.0
    if first >= 0 and first + n <= nx:
        for r in range(max(j - reach, row_first), min(j + reach + 1, row_end)):
            if r == j:
                continue
            seen = np.uint16(0)
            variance = np.float32(0.0)
            for c in range(n):
                v = one / max(ivar[r, first + c], zero)  # infinite where nothing is known
                row_noise[c] = v
                variance += v
                seen |= mask[r, first + c]
            if (seen & bad) != 0 or not variance < np.inf:
                continue
            moved = (x[j] - x[r]) / (sigma * sigma)  # bends the row's profile to the trace center of row j
            for c in range(n):
                p = pix[r, first + c] * (1.0 + moved * (first + c - x[j]))
                level[c] += p
                noise[c] += row_noise[c]
                summed += fraction[c] * p
    total = 0.0
    for c in range(n):
        prior = profile[c] / norm
        error2[c] = (profile_error * prior) ** 2 + (0.1 * profile_error) ** 2
        profile[c] = prior
        if summed > 0:
            information = summed * summed / noise[c]
            profile[c] = (prior / error2[c] + level[c] / summed * information) / (1.0 / error2[c] + information)
            error2[c] = 1.0 / (1.0 / error2[c] + information)
        total += fraction[c] * profile[c]
    for c in range(n):
        profile[c] /= total
