"""Least-squares fit of the fibers' cross-dispersion profiles to the pixels of each row, all fibers together.

Horne (1986, PASP 98, 609) gives each pixel the weight P/V of its profile P and variance V, which has the least noise of
all unbiased sums, and throws out pixels that stand out of the profile. Where fibers stand so close that their profiles
overlap, the sums of neighbours are not independent: here they are solved for together, over the whole row, so that the
light of neighbours (of the next bundle, too) is shared out and not counted twice.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.extract.crossprofile import STEPS, CrossProfiles
from algorithms.extract.rows import Sums
from qlstream.datamodel.masks import EXTRACT_MASK, CCDMask, SpecMask
from qlstream.numeric.banded import factorize, inverse_band, solve

Array = NDArray[np.float64]

_NEIGHBOURS = 2  # on either side, whose light may reach a fiber's pixels
_FLOOR = 0.1  # error of a profile in all its pixels, in units of `profile_error`: its wings are not known to a percent
_BAD_SHARE = 0.5  # of the light on bad pixels, above which a mask says so
_SATURATED_SHARE = 0.01  # of the light on saturated pixels that spoils a row: their charge may have bled

_BAD = int(EXTRACT_MASK)
_COSMIC_PIXEL, _SATURATED_PIXEL = int(CCDMask.COSMIC), int(CCDMask.SATURATED)
_SOME, _ALL, _COSMIC = int(SpecMask.SOMEBADPIX), int(SpecMask.ALLBADPIX), int(SpecMask.COSMIC)
_NODATA, _SATURATED = int(SpecMask.NODATA), int(SpecMask.SATURATED)


def fit_profiles(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    mask: NDArray[np.uint16],
    x: Array,
    profiles: CrossProfiles,
    inside: NDArray[np.int64],
    nsig: float = 5.0,
    profile_error: float = 0.05,
    min_fraction: float = 0.1,
) -> Sums:
    """Flux of every fiber in every row.

    The inverse variance is that of a fiber with its neighbours marginalised. Weights are the image's ivar: it should
    not follow the noise of the pixel itself (preproc with `model_variance`), or faint flux comes out low.

    A masked pixel costs the information that it held. What its share of the light was, only the profile tells, so
    `profile_error` of it counts as an error. A pixel that stands out of the fitted profiles is taken for a cosmic ray,
    the worst of each fiber first, and the row is fitted again.

    Parameters
    ----------
    pix, ivar, mask : (ny, nx) [electron], [electron^-2], CCDMask bits; ivar <= 0 or a bit of EXTRACT_MASK is masked
    x : (nspec, ny) trace centers [pixel]
    profiles : of these fibers
    inside : (nspec, 2) first and last row + 1 of the domain of each trace; rows outside are NODATA
    nsig : a pixel that exceeds the fit by more sigma is a cosmic ray ...
    profile_error : ... where sigma includes this fraction of the light, of each pixel's and a tenth of it in all
    min_fraction : of the light, on good pixels, that a row needs

    Returns
    -------
    flux : (nspec, ny) float32 [electron per row]
    ivar : (nspec, ny) float32 [electron^-2]; 0 = no information
    mask : (nspec, ny) uint32: SOMEBADPIX more than half of the light is on bad pixels, COSMIC on cosmic rays alone;
        ALLBADPIX given up, SATURATED for that reason; NODATA beyond the trace

    Raises
    ------
    ValueError : the shapes do not fit
    """
    nspec, ny = x.shape
    fits = pix.shape == ivar.shape == mask.shape and pix.shape[0] == ny
    if not fits or len(profiles.table) != nspec or inside.shape != (nspec, 2):
        raise ValueError(
            f"fit_profiles: pix {pix.shape}, ivar {ivar.shape}, mask {mask.shape}, x {x.shape}, inside {inside.shape} "
            f"and profiles of {len(profiles.table)} fibers do not fit; give the arrays of one Image (ny, nx), x as "
            "(nspec, ny) and inside as (nspec, 2)"
        )
    flux, out_ivar = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    out_mask = np.zeros(x.shape, np.uint32)
    _fit(pix, ivar, mask, x, profiles.table, profiles.half, inside, nsig, profile_error, min_fraction,
         flux, out_ivar, out_mask)  # fmt: skip
    return flux, out_ivar, out_mask


@njit(nogil=True, cache=True)
def _fit(pix, ivar, mask, x, table, half, inside, nsig, profile_error, min_fraction, flux, out_ivar, out_mask):  # type: ignore[no-untyped-def]
    nspec, ny = x.shape
    nx = pix.shape[1]
    width = 2 * half + 1
    fiber, first = np.empty(nspec, np.int64), np.empty(nspec, np.int64)
    profile = np.empty((nspec, width))
    weight, model, error2 = np.empty(nx), np.empty(nx), np.empty(nx)
    for j in range(ny):
        n = 0
        for f in range(nspec):
            if inside[f, 0] <= j < inside[f, 1]:
                fiber[n] = f
                first[n] = math.floor(x[f, j] + 0.5) - half
                _read(table[f], j / (ny - 1.0), first[n] - x[f, j], half, profile[n])
                n += 1
            else:
                out_mask[f, j] = _NODATA
        for i in range(nx):
            good = ivar[j, i] > 0 and (mask[j, i] & _BAD) == 0
            weight[i] = ivar[j, i] if good else 0.0
        while True:
            band, amplitude = _solve(pix[j], weight, first[:n], profile)
            if not _reject(pix[j], weight, first[:n], profile, amplitude, nsig, profile_error, model, error2):
                break
        inverse = inverse_band(band)
        for k in range(n):
            bits, seen = _judge(mask[j], ivar[j], weight, first[k], profile[k])
            f = fiber[k]
            if seen < min_fraction:
                bits |= _ALL
            out_mask[f, j] = bits
            if bits & _ALL == 0:
                flux[f, j] = amplitude[k]
                guessed = profile_error * (1.0 - seen) * amplitude[k]
                out_ivar[f, j] = 1.0 / (inverse[k, 0] + guessed * guessed)


@njit(nogil=True, cache=True)
def _read(table, place, offset, half, out):  # type: ignore[no-untyped-def]
    """Profile of the pixels centred at offset, offset + 1, ... from the trace, at a place 0 ... 1 along the CCD."""
    at = place * (table.shape[0] - 1)
    s = min(int(at), table.shape[0] - 2)
    v = at - s
    point = (offset + half + 1.0) * STEPS
    q = int(point)
    u = point - q
    for c in range(out.size):
        k = q + c * STEPS
        below = (1.0 - u) * table[s, k] + u * table[s, k + 1]
        above = (1.0 - u) * table[s + 1, k] + u * table[s + 1, k + 1]
        out[c] = (1.0 - v) * below + v * above


@njit(nogil=True, cache=True)
def _solve(pix, weight, first, profile):  # type: ignore[no-untyped-def]
    """Cholesky factor of the normal equations of a row, and the fluxes."""
    n, width = first.size, profile.shape[1]
    band, rhs = np.zeros((n, _NEIGHBOURS + 1)), np.zeros(n)
    for k in range(n):
        for c in range(max(0, -first[k]), min(width, pix.size - first[k])):
            i = first[k] + c
            w = weight[i] * profile[k, c]
            if w == 0.0:
                continue
            rhs[k] += w * pix[i]
            for d in range(min(_NEIGHBOURS + 1, n - k)):
                b = i - first[k + d]
                if 0 <= b < width:
                    band[k, d] += w * profile[k + d, b]
        # a fiber without good pixels counts nothing; the ridge keeps rounding from making the matrix indefinite
        band[k, 0] = band[k, 0] * (1.0 + 1e-9) if band[k, 0] > 0.0 else 1.0
    factorize(band)
    solve(band, rhs)
    return band, rhs


@njit(nogil=True, cache=True)
def _reject(pix, weight, first, profile, amplitude, nsig, profile_error, model, error2):  # type: ignore[no-untyped-def]
    """Take the worst pixel of each fiber that stands out of the fit out of `weight`; False if there is none."""
    n, width = first.size, profile.shape[1]
    model[:] = 0.0
    error2[:] = 0.0
    for k in range(n):
        a = amplitude[k]
        for c in range(max(0, -first[k]), min(width, pix.size - first[k])):
            p = profile[k, c]
            model[first[k] + c] += a * p
            error2[first[k] + c] += (profile_error * a) ** 2 * (p * p + _FLOOR**2)
    found = False
    for k in range(n):
        worst, excess = -1, nsig
        for c in range(max(0, -first[k]), min(width, pix.size - first[k])):
            i = first[k] + c
            if weight[i] > 0.0:
                pull = (pix[i] - model[i]) / math.sqrt(1.0 / weight[i] + error2[i])
                if pull > excess:
                    worst, excess = i, pull
        if worst >= 0:
            weight[worst] = 0.0
            found = True
    return found


@njit(nogil=True, cache=True)
def _judge(mask, ivar, weight, first, profile):  # type: ignore[no-untyped-def]
    """Mask bits of a fiber in a row, and the share of its light on good pixels."""
    total = seen = cosmic = saturated = 0.0
    for c in range(profile.size):
        p, i = profile[c], first + c
        total += p
        if not 0 <= i < mask.size:
            continue
        if weight[i] > 0.0:
            seen += p
        if (mask[i] & _COSMIC_PIXEL) != 0 or (weight[i] == 0.0 and ivar[i] > 0 and (mask[i] & _BAD) == 0):
            cosmic += p
        if (mask[i] & _SATURATED_PIXEL) != 0:
            saturated += p
    seen /= total
    bits = 0
    if 1.0 - seen > _BAD_SHARE:
        bits |= _SOME
    if cosmic > _BAD_SHARE * total:
        bits |= _COSMIC
    if saturated > _SATURATED_SHARE * total:
        bits |= _SATURATED | _ALL
    return bits, seen
