"""Cosmic rays: what stands out of its column and is sharper than the optics can make a spot.

In the spirit of the SDSS search (spec preproc §6), but judged after what is smooth along the dispersion is taken away,
so that hits on bright spectra are found; with the sharpness that the PSF has there; and grown by what the neighbours
hold instead of by a blind dilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.preproc.columns import HALF, level_of_neighbours, mirrored
from algorithms.preproc.sharpness import CELL, WIDEST, SharpnessMap
from qlstream.datamodel.amplifier import Section
from qlstream.datamodel.masks import CCDMask

_COSMIC = np.uint16(CCDMask.COSMIC)
_HARMLESS = np.uint16(CCDMask.SATURATED | CCDMask.BADREADNOISE)  # flags that do not exempt a pixel from the search
_REACH = 5  # columns on each side that tell how bright a row is
_STRIDE, _SAMPLES = 2, 8  # every second row, 8 on each side, tells how bright a column is against its neighbours
_SHARE = np.float32(0.5)
_TILT = np.float32(0.1)  # relative error of light predicted across columns: lines are a little slanted


@dataclass(frozen=True)
class CosmicLimits:
    """When a pixel counts as hit.

    Attributes
    ----------
    seed : excess over its column that makes a pixel a candidate [sigma]
    sharp : fraction of the optics' smallest neighbour-to-centre ratio below which a candidate is too sharp for light
    margin : by how much it has to be below [sigma]
    grow : excess over the light that its surroundings predict that adds a neighbour of a hit [sigma]
    spill : fraction of a hit's charge that spoils its direct neighbours if it exceeds their sigma
    """

    seed: float = 4.5
    sharp: float = 0.88
    margin: float = 4.0
    grow: float = 2.5
    spill: float = 0.06


def flag_cosmics(
    pix: NDArray[np.float32],
    mask: NDArray[np.uint16],
    floors: Sequence[tuple[Section, float]],
    sharpness: SharpnessMap,
    limits: CosmicLimits,
    hits: NDArray[np.int32],
) -> int:
    """Set COSMIC in `mask` where a cosmic ray left charge; return how many pixels that are.

    1. Candidates exceed the interquartile mean of their column (4 rows on each side) by `seed` sigma, or are thin
       against their left and right neighbours: a track along the column.
    2. A candidate is a hit if in one of four directions its neighbours are fainter than any sum of spots would leave
       them: horizontally on the residual of the columns, which keeps the profile of a trace; vertically and
       diagonally above the low end of the column, which never exceeds the light between two lines.
    3. Neighbours of hits join if they exceed the light that the rest of their row and of their column predict, as in
       optimal extraction (Horne 1986, PASP 98, 609): so growth does not run along lines. Those next to a strong hit
       join whatever they show.

    The sigma of a test on "no hit" is that of the light beneath, not of the pixel: else a hit of 15 electrons on
    nothing would drown in its own noise.

    Parameters
    ----------
    pix : (ny, nx) float32 [electron]
    mask : (ny, nx) uint16; pixels with flags other than SATURATED and BADREADNOISE are not looked at; changed in place
    floors : sections and their variance without light [electron^2]; 0 exempts a section
    hits : int32, space for the indices of hits; no more than fit are found
    """
    searched = [(section, variance) for section, variance in floors if variance > 0]
    sections = np.array([[s.x0, s.x1, s.y0, s.y1] for s, _ in searched], np.int64).reshape(-1, 4)
    sharp = np.float32(limits.sharp)
    return _flag(
        pix,
        mask,
        sections,
        np.array([v for _, v in searched], np.float32),
        sharp * sharpness.x,
        sharp * sharpness.y,
        np.float32(limits.seed),
        np.float32(limits.margin),
        np.float32(limits.grow),
        np.float32(limits.spill),
        hits,
    )


@njit(nogil=True, cache=True)
def _scan_row(a, b, c, d, own, e, f, g, h, flag, floor, seed, ratio, found):  # type: ignore[no-untyped-def]
    """Mark the candidates of a row; no branches, so that 8 or 16 pixels go at once."""
    zero, half, limit = np.float32(0.0), np.float32(0.5), seed * seed
    for i in range(1, len(own) - 1):
        level = level_of_neighbours(a[i], b[i], c[i], d[i], e[i], f[i], g[i], h[i])
        over = own[i] - level
        above = (over > zero) & (over * over > limit * ((level if level > zero else zero) + floor[i]))
        beside = half * (own[i - 1] + own[i + 1])
        rise = own[i] - beside
        var = np.float32(1.5) * ((beside if beside > zero else zero) + floor[i])
        thin = (rise > zero) & (rise * rise > limit * var) & (beside < ratio * own[i])
        found[i] = (above | thin) & ((flag[i] & ~_HARMLESS) == 0) & (floor[i] > zero)


@njit(nogil=True, cache=True)
def _column(pix, y, x):  # type: ignore[no-untyped-def]
    """Interquartile mean and smallest of the 8 neighbours along the column."""
    ny = pix.shape[0]
    if HALF <= y < ny - HALF:
        a, b, c, d = pix[y - 4, x], pix[y - 3, x], pix[y - 2, x], pix[y - 1, x]
        e, f, g, h = pix[y + 1, x], pix[y + 2, x], pix[y + 3, x], pix[y + 4, x]
    else:
        a, b = pix[mirrored(y - 4, ny), x], pix[mirrored(y - 3, ny), x]
        c, d = pix[mirrored(y - 2, ny), x], pix[mirrored(y - 1, ny), x]
        e, f = pix[mirrored(y + 1, ny), x], pix[mirrored(y + 2, ny), x]
        g, h = pix[mirrored(y + 3, ny), x], pix[mirrored(y + 4, ny), x]
    return level_of_neighbours(a, b, c, d, e, f, g, h), min(min(min(a, b), min(c, d)), min(min(e, f), min(g, h)))


@njit(nogil=True, cache=True)
def _too_sharp(pix, mask, floor, y, x, dy, dx, below, below_1, below_2, ratio, margin):  # type: ignore[no-untyped-def]
    """Are the neighbours at (-dy, -dx) and (dy, dx) too faint? Levels `below...` are taken off the pixels first."""
    if (mask[y - dy, x - dx] | mask[y + dy, x + dx]) & ~_HARMLESS != 0:
        return False
    own, one, two = pix[y, x], pix[y - dy, x - dx], pix[y + dy, x + dx]
    zero = np.float32(0.0)
    lack = ratio * (own - below) - np.float32(0.5) * (one - below_1 + two - below_2)
    var = np.float32(0.25) * (max(one, zero) + max(two, zero) + 2 * floor)
    var += ratio * ratio * (max(own, zero) + floor)
    return lack > 0 and lack * lack > margin * margin * var


@njit(nogil=True, cache=True)
def _in_sharp_run(pix, mask, floor, y, x, dy, dx, below, ratios, margin):  # type: ignore[no-untyped-def]
    """Is the pixel in a run of up to 3 pixels along (dy, dx) whose two ends fall off too steeply?"""
    ny, nx = pix.shape
    zero = np.float32(0.0)
    for width in range(1, WIDEST + 1):
        ratio = ratios[width - 1]
        for shift in range(width):
            y0, x0 = y - (shift + 1) * dy, x - (shift + 1) * dx
            y1, x1 = y0 + (width + 1) * dy, x0 + (width + 1) * dx
            if y0 < 0 or x0 < 0 or y1 >= ny or x1 >= nx or (mask[y0, x0] | mask[y1, x1]) & ~_HARMLESS != 0:
                continue
            inside, var = zero, zero
            for k in range(1, width + 1):
                value = pix[y0 + k * dy, x0 + k * dx]
                inside += value - below
                var += max(value, zero) + floor
            if width * (pix[y, x] - below) < _SHARE * inside:  # the others of the run make it sharp, not this pixel
                continue
            ends = pix[y0, x0] + pix[y1, x1] - 2 * below
            lack = ratio * inside - ends
            var = ratio * ratio * var + max(pix[y0, x0], zero) + max(pix[y1, x1], zero) + 2 * floor
            if lack > 0 and lack * lack > margin * margin * var:
                return True
    return False


@njit(nogil=True, cache=True)
def _is_hit(pix, mask, floor, y, x, ratios_x, ratios_y, seed, margin):  # type: ignore[no-untyped-def]
    """Is the candidate, which is no pixel of the border, sharper than light can be?"""
    own, zero, half = pix[y, x], np.float32(0.0), np.float32(0.5)
    if _in_sharp_run(pix, mask, floor, y, x, 0, 1, zero, ratios_x, margin):  # e.g. a track along the column
        return True
    level, low = _column(pix, y, x)
    over = own - level
    if over <= 0 or over * over <= seed * seed * (max(level, zero) + floor):
        return False
    if _in_sharp_run(pix, mask, floor, y, x, 1, 0, low, ratios_y, margin):
        return True
    level_1, low_1 = _column(pix, y, x - 1)
    level_2, low_2 = _column(pix, y, x + 1)
    ratio_x, ratio = half * ratios_x[0], half * ratios_x[0] * half * ratios_y[0]
    return (
        _too_sharp(pix, mask, floor, y, x, 0, 1, level, level_1, level_2, ratio_x, margin)
        or _too_sharp(pix, mask, floor, y, x, 1, 1, low, low_1, low_2, ratio, margin)
        or _too_sharp(pix, mask, floor, y, x, 1, -1, low, low_2, low_1, ratio, margin)
    )


@njit(nogil=True, cache=True)
def _excess(pix, mask, floor, y, x):  # type: ignore[no-untyped-def]
    """Charge that light does not explain, its error^2, and whether there was enough to tell.

    Light = mean of the column x brightness of this row against the others, both from unflagged pixels nearby. The
    brightness tends to 1 where the columns are too dark to tell.
    """
    ny, nx = pix.shape
    zero = np.float32(0.0)
    first, last = max(x - _REACH, 0), min(x + _REACH + 1, nx)
    used = np.zeros(2 * _REACH + 1, np.bool_)
    here, nused = np.float32(0.0), 0
    for i in range(first, last):
        if i != x and mask[y, i] == 0:
            used[i - first] = True
            here += pix[y, i]
            nused += 1
    column, row, n = np.float32(0.0), np.float32(0.0), 0
    if nused >= 3:
        for k in range(-_SAMPLES, _SAMPLES):
            j = y + _STRIDE * k + 1
            if j < 0 or j >= ny or mask[j, x] != 0:
                continue
            total, good = np.float32(0.0), True
            for i in range(first, last):
                if used[i - first]:
                    total += pix[j, i]
                    good &= mask[j, i] == 0
            if good:
                column += pix[j, x]
                row += total
                n += 1
    if n < 3:
        return zero, floor, False
    column /= n
    dim = np.float32(3.0) * np.sqrt(nused * floor)
    row = max(row / n, zero) + dim
    brightness = (max(here, zero) + dim) / row
    light = column * brightness
    tilt = _TILT * max(light - column, zero)
    var = max(light, zero) + floor + tilt * tilt
    var += brightness * brightness * (max(column, zero) + floor) / n
    var += column * column / (row * row) * (max(here, zero) + nused * floor)
    return pix[y, x] - light, var, True


@njit(nogil=True, cache=True)
def _floor_at(sections, variances, y, x):  # type: ignore[no-untyped-def]
    for k in range(len(sections)):
        if sections[k, 2] <= y < sections[k, 3] and sections[k, 0] <= x < sections[k, 1]:
            return variances[k]
    return np.float32(0.0)


@njit(nogil=True, cache=True)
def _seeds(pix, mask, sections, variances, ratio_x, ratio_y, seed, margin, hits):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    floor, found = np.empty(nx, np.float32), np.zeros(nx, np.bool_)
    loosest = np.float32(0.5) * ratio_x[:, :, 0].max()
    n = 0
    for y in range(1, ny - 1):
        floor[:] = np.float32(0.0)
        for k in range(len(sections)):
            if sections[k, 2] <= y < sections[k, 3]:
                floor[sections[k, 0] : sections[k, 1]] = variances[k]
        _scan_row(
            pix[mirrored(y - 4, ny)],
            pix[mirrored(y - 3, ny)],
            pix[mirrored(y - 2, ny)],
            pix[y - 1],
            pix[y],
            pix[y + 1],
            pix[mirrored(y + 2, ny)],
            pix[mirrored(y + 3, ny)],
            pix[mirrored(y + 4, ny)],
            mask[y],
            floor,
            seed,
            loosest,
            found,
        )
        for x in range(1, nx - 1):
            if found[x] and n < len(hits):
                rx, ry = ratio_x[y // CELL, x // CELL], ratio_y[y // CELL, x // CELL]
                if _is_hit(pix, mask, floor[x], y, x, rx, ry, seed, margin):
                    hits[n] = y * nx + x
                    n += 1
    return n


@njit(nogil=True, cache=True)
def _flag(pix, mask, sections, variances, ratio_x, ratio_y, seed, margin, grow, spill, hits):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    n = _seeds(pix, mask, sections, variances, ratio_x, ratio_y, seed, margin, hits)
    for k in range(n):
        mask[hits[k] // nx, hits[k] % nx] |= _COSMIC
    spilled = 0
    k = 0
    while k < n:
        y, x = hits[k] // nx, hits[k] % nx
        k += 1
        floor = _floor_at(sections, variances, y, x)
        charge, _, known = _excess(pix, mask, floor, y, x)
        if not known:
            beside = np.float32(0.5) * (pix[y, max(x - 1, 0)] + pix[y, min(x + 1, nx - 1)])
            charge = pix[y, x] - min(beside, _column(pix, y, x)[0])
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                floor = _floor_at(sections, variances, j, i)
                if mask[j, i] & ~_HARMLESS != 0 or floor <= 0:
                    continue
                over, var, known = np.float32(0.0), floor, False
                if pix[j, i] > 0 and pix[j, i] * pix[j, i] > grow * grow * floor:  # else nothing can stand out
                    over, var, known = _excess(pix, mask, floor, j, i)
                if known and over > 0 and over * over > grow * grow * var and n < len(hits):
                    mask[j, i] |= _COSMIC
                    hits[n] = j * nx + i
                    n += 1
                elif (j == y or i == x) and charge > 0:
                    beyond = pix[min(max(2 * j - y, 0), ny - 1), min(max(2 * i - x, 0), nx - 1)]
                    if (spill * charge) ** 2 > floor + max(beyond, np.float32(0.0)):
                        mask[j, i] |= _COSMIC
                        spilled += 1
    return n + spilled
