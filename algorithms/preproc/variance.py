"""The inverse variance of each pixel, from the light that its surroundings tell of, not from its own noisy value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.preproc.columns import mirrored
from algorithms.preproc.pixels import PixelCalibration
from qlstream.datamodel.amplifier import Section
from qlstream.datamodel.masks import CCDMask

_CELL = 8  # columns; the brightness of a row is sampled once in so many
_OUTLIER = np.float32(16.0)  # squared sigmas above its light from which a pixel speaks for itself
_LIGHT_ERROR = np.float32(0.05)  # of the light, relative, which is no reason yet
_TOLD_ROWS = np.float32(16.0)  # squared sigmas from its neighbours where a row speaks for itself
_DARK = np.float32(9.0 / 6.0)  # 3 sigma, squared: the levels of 16 columns are 6 times better than their pixels
_INTERPOLATED = np.float32(1.0 + 34.0 / 36.0)  # variance of a row less what a cubic through four others tells
STAINED = np.uint16(0xFFFF & ~int(CCDMask.SATURATED | CCDMask.BADREADNOISE))  # flags of pixels that tell no light
_BAD = np.uint16(CCDMask.BAD)


def weigh_pixels(
    pix: NDArray[np.float32],
    mask: NDArray[np.uint16],
    floors: Sequence[tuple[Section, float]],
    calibration: PixelCalibration,
    ivar: NDArray[np.float32],
    brightness: NDArray[np.float32] | None = None,
) -> None:
    """Turn the level of each pixel's column, in `ivar`, into its inverse variance (spec preproc §5).

    The variance is that of the light, of the dark current and of the readout. A pixel's own value is no estimate of
    its light: it would give low fluctuations a high weight, so that a weighted mean comes out low. Nor is the value of
    its row, since the pixels of a row make one flux. So the light is

        level of the column, from 8 other rows  x  brightness of this row against those,

    the brightness by a cubic through the 4 nearest other rows, of the sum of 16 columns, which follows a line without
    looking at it; flagged pixels count there as their level. What the cubic misses, the core of a bright line, the row
    tells itself, once it is off by 4 sigma. Where it is too dark to tell, the brightness tends to 1, and the level to
    the mean of the 16 columns: the noise of a level would be most of what is said of the variance there. A pixel that
    exceeds all this by 4 sigma and a twentieth of the light has been hit by something: then its own value is the better
    estimate.

    Parameters
    ----------
    pix, mask : (ny, nx) flat-fielded [electron], CCDMask bits
    floors : sections and their variance without light [electron^2]; 0: ivar becomes 0
    calibration : dark current and pixel flat that were applied
    brightness : (ny, nx) of each row against the level of its columns, if it is known better than by the cubic
    ivar : (ny, nx) float32; in: `column_levels` of pix, out: [electron^-2], 0 where there is no information
    """
    sections = np.array([[s.x0, s.x1, s.y0, s.y1] for s, _ in floors], np.int64).reshape(-1, 4)
    nothing = np.zeros((1, pix.shape[1]), np.float32)
    dark, flat = calibration.dark, calibration.pixflat
    _weigh(
        pix,
        mask,
        sections,
        np.array([v for _, v in floors], np.float32),
        nothing if dark is None else dark,
        np.float32(calibration.exptime),
        nothing + np.float32(1.0) if flat is None else flat,
        nothing if brightness is None else brightness,
        ivar,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _sum_cells(values, sums):  # type: ignore[no-untyped-def]
    """Sums of 16 columns, a new one every 8; columns beyond the last whole cell are left out."""
    v = values
    before = (v[0] + v[1]) + (v[2] + v[3]) + ((v[4] + v[5]) + (v[6] + v[7]))
    for k in range(len(sums)):
        i = (k + 1) * _CELL
        here = (v[i] + v[i + 1]) + (v[i + 2] + v[i + 3]) + ((v[i + 4] + v[i + 5]) + (v[i + 6] + v[i + 7]))
        sums[k] = before + here
        before = here


@njit(nogil=True, cache=True, error_model="numpy")
def _sample_cells(base, sums):  # type: ignore[no-untyped-def]
    """About the sums of 16 columns: of the lower of two pixels, lest it be a hot one."""
    for k in range(len(sums)):
        a, b = base[k * _CELL + _CELL - 1], base[k * _CELL + _CELL]
        sums[k] = np.float32(2 * _CELL) * (a if a < b else b)


@njit(nogil=True, cache=True, error_model="numpy")
def _fill(pix, mask, level, filled):  # type: ignore[no-untyped-def]
    for i in range(len(pix)):
        own, light = pix[i], level[i]  # both are read, so that nothing branches
        filled[i] = light if (mask[i] & STAINED) != 0 else own


@njit(nogil=True, cache=True, error_model="numpy")
def _brightness(a, b, own, c, d, level, base, ratio):  # type: ignore[no-untyped-def]
    """Light of a row against what the levels of its columns say, from its sums and those of the rows beside it."""
    zero, least = np.float32(0.0), np.float32(0.3)
    for k in range(len(own)):
        told = (np.float32(4.0) * (b[k] + c[k]) - (a[k] + d[k])) * np.float32(1.0 / 6.0)
        off = own[k] - told
        var = base[k] + (told if told > zero else zero)
        told = own[k] if off * off > _TOLD_ROWS * _INTERPOLATED * var else told
        dim = np.sqrt(max(base[k], np.float32(1.0)))  # an amplifier that is off has no variance
        light, expected = told + dim, level[k] + dim
        least_dim = least * dim
        light = light if light > least_dim else least_dim
        expected = expected if expected > least_dim else least_dim
        ratio[k] = light / expected


@njit(nogil=True, cache=True, error_model="numpy")
def _trust(level, base, mean, share):  # type: ignore[no-untyped-def]
    """How much the levels of single columns say, and the mean level of the columns of each sum times the rest."""
    zero, one = np.float32(0.0), np.float32(1.0)
    for k in range(len(level)):
        light = level[k] if level[k] > zero else zero
        share[k] = light * light / (light * light + _DARK * base[k] + one)
        mean[k] = (one - share[k]) * level[k] * np.float32(0.5 / _CELL)


@njit(nogil=True, cache=True, error_model="numpy")
def _interpolate(nodes, out):  # type: ignore[no-untyped-def]
    """From the sums' centres, at the borders of the cells, to the columns; held at the ends."""
    last = len(nodes) - 1
    out[:_CELL] = nodes[0]
    out[(last + 1) * _CELL :] = nodes[last]
    for k in range(last):
        step = (nodes[k + 1] - nodes[k]) * np.float32(1.0 / _CELL)
        start = nodes[k] + np.float32(0.5) * step
        first = (k + 1) * _CELL
        for i in range(_CELL):
            out[first + i] = start + step * np.float32(i)


@njit(nogil=True, cache=True, error_model="numpy")
def _base_row(floor, dark, exptime, base):  # type: ignore[no-untyped-def]
    for i in range(len(base)):
        base[i] = floor[i] + exptime * dark[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh_row(pix, mask, flat, floor, base, ratio, mean, share, ivar):  # type: ignore[no-untyped-def]
    zero, half, one, huge = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(1e30)
    for i in range(len(pix)):
        p = flat[i]
        usable = (p > np.float32(0.001)) & (floor[i] > zero) & ~(((mask[i] & _BAD) != 0) & (pix[i] == zero))
        p = p if p > np.float32(0.001) else one
        light = p * ratio[i] * (mean[i] + share[i] * ivar[i])
        least = half * floor[i]
        var = light + base[i]
        var = var if var > least else least
        own = p * pix[i]
        off = own - light
        error = _LIGHT_ERROR * light
        limit = var if var > base[i] else base[i]  # light that noise makes negative would call good pixels hit
        hit = (off > zero) & (off * off > _OUTLIER * (limit + error * error))
        var = own + base[i] if hit else var
        weight = p * p / var
        ivar[i] = weight if usable & (weight < huge) else zero  # False for NaN


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh(pix, mask, sections, variances, dark, exptime, flat, brightness, ivar):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    nsum = nx // _CELL - 1
    sums = np.zeros((5, nsum), np.float32)
    levels, bases, nodes = np.zeros(nsum, np.float32), np.zeros(nsum, np.float32), np.ones(nsum, np.float32)
    means, shares = np.zeros(nsum, np.float32), np.zeros(nsum, np.float32)
    mean, share = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    floor, base = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    row, ratio = np.zeros(nx, np.float32), np.ones(nx, np.float32)
    known = len(brightness) == ny
    for ahead in range(ny + 2):
        if ahead < ny and not known:
            _fill(pix[ahead], mask[ahead], ivar[ahead], row)
            _sum_cells(row, sums[ahead % 5])
        y = ahead - 2
        if y < 0:
            continue
        floor[:] = np.float32(0.0)
        for k in range(len(sections)):
            if sections[k, 2] <= y < sections[k, 3]:
                floor[sections[k, 0] : sections[k, 1]] = variances[k]
        _base_row(floor, dark[y if len(dark) == ny else 0], exptime, base)
        _sample_cells(base, bases)
        _sum_cells(ivar[y], levels)
        _trust(levels, bases, means, shares)
        _interpolate(means, mean)
        _interpolate(shares, share)
        if known:
            ratio[:] = brightness[y]
        else:
            a, b = sums[mirrored(y - 2, ny) % 5], sums[mirrored(y - 1, ny) % 5]
            c, d = sums[mirrored(y + 1, ny) % 5], sums[mirrored(y + 2, ny) % 5]
            _brightness(a, b, sums[y % 5], c, d, levels, bases, nodes)
            _interpolate(nodes, ratio)
        _weigh_row(pix[y], mask[y], flat[y if len(flat) == ny else 0], floor, base, ratio, mean, share, ivar[y])
