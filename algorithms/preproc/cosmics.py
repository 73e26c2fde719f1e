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

from algorithms.preproc.columns import mirrored
from algorithms.preproc.sharpness import CELL, WIDEST, SharpnessMap
from qlstream.datamodel.amplifier import Section
from qlstream.datamodel.masks import CCDMask

_COSMIC = np.uint16(CCDMask.COSMIC)
_HARMLESS = np.uint16(CCDMask.SATURATED | CCDMask.BADREADNOISE)  # flags that do not exempt a pixel from the search
_REACH = 5  # columns on each side that tell how bright a row is
_STRIDE, _SAMPLES = 2, 8  # every second row, 8 on each side, tells how bright a column is against its neighbours
_SHARE = np.float32(0.5)  # of the mean of a run, that a pixel of it must hold to be to blame for its steepness
_TILT = np.float32(0.1)  # relative error of light predicted across columns: lines are a little slanted


@dataclass(frozen=True)
class CosmicLimits:
    """When a pixel counts as hit.

    Attributes
    ----------
    seed : excess over its column that makes a pixel a candidate [sigma]
    sharp : fraction of the smallest ratio of ends to run (`SharpnessMap`) below which a run is too steep for light
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
    level: NDArray[np.float32],
    mask: NDArray[np.uint16],
    floors: Sequence[tuple[Section, float]],
    sharpness: SharpnessMap,
    limits: CosmicLimits,
    hits: NDArray[np.int32],
) -> int:
    """Set COSMIC in `mask` where a cosmic ray left charge; return how many pixels that are.

    1. Candidates exceed the interquartile mean of their column (4 rows on each side) by `seed` sigma, or are thin
       against their left and right neighbours: a track along the column.
    2. A candidate is a hit if a run of up to 3 pixels with it falls off more steeply than any sum of spots of light:
       along the row as it is, or over the columns' levels, which keep the profile of a trace; along the column and
       diagonally over the smallest pixel of the column, which does not exceed the light between two lines.
    3. Neighbours of hits join if they exceed the light that the rest of their row and of their column predict, as in
       optimal extraction (Horne 1986, PASP 98, 609): so growth does not run along lines. Those next to a strong hit
       join whatever they show.

    The sigma of a test on "no hit" is that of the light beneath, not of the pixel: else a hit of 15 electrons on
    nothing would drown in its own noise.

    Parameters
    ----------
    pix : (ny, nx) float32 [electron]
    level : (ny, nx) float32 [electron], `column_levels` of pix
    mask : (ny, nx) uint16; pixels with flags other than SATURATED and BADREADNOISE are not looked at; changed in place
    floors : sections and their variance without light [electron^2]; 0 exempts a section
    hits : int32, space for the indices of hits; no more than fit are found
    """
    searched = [(section, variance) for section, variance in floors if variance > 0]
    sections = np.array([[s.x0, s.x1, s.y0, s.y1] for s, _ in searched], np.int64).reshape(-1, 4)
    sharp = np.float32(limits.sharp)
    return _flag(
        pix,
        level,
        mask,
        sections,
        np.array([v for _, v in searched], np.float32),
        sharp * sharpness.x,
        sharp * sharpness.y,
        sharpness.slant,
        np.float32(limits.seed),
        np.float32(limits.margin),
        np.float32(limits.grow),
        np.float32(limits.spill),
        hits,
    )


@njit(nogil=True, cache=True)
def _lowest(a, b, c, d, e, f, g, h, low):  # type: ignore[no-untyped-def]
    """Smallest of the 8 neighbours along the column, for a row of pixels at once."""
    for i in range(len(low)):
        low[i] = min(min(min(a[i], b[i]), min(c[i], d[i])), min(min(e[i], f[i]), min(g[i], h[i])))


@njit(nogil=True, cache=True)
def _larger(a, b):  # type: ignore[no-untyped-def]
    return a if a > b else b  # max() minds NaN, which keeps the loops below from running on many pixels at once


@njit(nogil=True, cache=True)
def _steepness(a, b, c, own, d, e, f, one, two, three):  # type: ignore[no-untyped-def]
    """Largest lack of light at the ends of a run of 1, 2 or 3 pixels with the middle one of seven, errors apart."""
    best = one * own - c - d
    best = _larger(best, two * (own + d) - c - e)
    best = _larger(best, two * (c + own) - b - d)
    best = _larger(best, three * (own + d + e) - c - f)
    best = _larger(best, three * (c + own + d) - b - e)
    return _larger(best, three * (b + c + own) - a - d)


@njit(nogil=True, cache=True)
def _measure_steepness(a, b, c, own, d, e, f, level, low, ratios_x, ratios_y, steep, thin):  # type: ignore[no-untyped-def]
    """Steepness of a row of pixels, of which `a` to `f` are the neighbours up to 3 rows away.

    `thin` is that along the row, of the pixels as they are; `steep` the largest of that and of the other directions,
    each over what its column has anyway. Light alone cannot make either positive, errors apart: that rules out nearly
    all candidates, which are pixels of lines, at once.
    """
    n, half = len(own), np.float32(0.5)
    x1, x2, x3, y1, y2, y3 = ratios_x[0], ratios_x[1], ratios_x[2], ratios_y[0], ratios_y[1], ratios_y[2]
    ratio_x, ratio = half * x1, half * x1 * half * y1
    for i in range(n):
        m = low[i]
        steep[i] = _steepness(a[i] - m, b[i] - m, c[i] - m, own[i] - m, d[i] - m, e[i] - m, f[i] - m, y1, y2, y3)
    for i in range(n - 6):
        thin[i + 3] = _steepness(
            own[i], own[i + 1], own[i + 2], own[i + 3], own[i + 4], own[i + 5], own[i + 6], x1, x2, x3
        )
    for i in range(n - 2):
        beside = half * (own[i] - level[i] + own[i + 2] - level[i + 2])
        best = _larger(steep[i + 1], ratio_x * (own[i + 1] - level[i + 1]) - beside)
        slanted = ratio * (own[i + 1] - low[i + 1]) + half * (low[i] + low[i + 2])
        best = _larger(best, slanted - half * (c[i] + d[i + 2]))
        best = _larger(best, slanted - half * (c[i + 2] + d[i]))
        steep[i + 1] = _larger(best, thin[i + 1])


@njit(nogil=True, cache=True)
def _scan_row(own, flag, floor, level, steep, thin, seed, margin, found):  # type: ignore[no-untyped-def]
    """Mark the candidates of a row: out of their column and steep, or out of their row and thin."""
    zero, half, limit = np.float32(0.0), np.float32(0.5), seed * seed
    least = half * margin * margin  # two dark neighbours alone give their mean half the variance of a pixel
    for i in range(1, len(own) - 1):
        over, noise = own[i] - level[i], least * floor[i]
        out = (over > zero) & (over * over > limit * ((level[i] if level[i] > zero else zero) + floor[i]))
        beside = half * (own[i - 1] + own[i + 1])
        rise = own[i] - beside
        var = np.float32(1.5) * ((beside if beside > zero else zero) + floor[i])
        track = (rise > zero) & (rise * rise > limit * var) & (thin[i] > zero) & (thin[i] * thin[i] > noise)
        found[i] = (
            ((out & (steep[i] > zero) & (steep[i] * steep[i] > noise)) | track)
            & ((flag[i] & ~_HARMLESS) == 0)
            & (floor[i] > zero)
        )


@njit(nogil=True, cache=True)
def _too_sharp(pix, mask, floor, y, x, dy, dx, below, below_1, below_2, ratio, margin):  # type: ignore[no-untyped-def]
    """Are the neighbours at (-dy, -dx) and (dy, dx) too faint? Levels `below...` are taken off the pixels first."""
    own, one, two = pix[y, x], pix[y - dy, x - dx], pix[y + dy, x + dx]
    lack = ratio * (own - below) - np.float32(0.5) * (one - below_1 + two - below_2)
    if lack <= 0 or (mask[y - dy, x - dx] | mask[y + dy, x + dx]) & ~_HARMLESS != 0:
        return False
    zero = np.float32(0.0)
    var = np.float32(0.25) * (max(one, zero) + max(two, zero) + 2 * floor)
    var += ratio * ratio * (max(own, zero) + floor)
    return lack * lack > margin * margin * var


@njit(nogil=True, cache=True)
def _in_sharp_run(pix, mask, floor, y, x, dy, dx, below, ratios, margin):  # type: ignore[no-untyped-def]
    """Is the pixel a good part of a run of up to 3 pixels along (dy, dx) whose two ends fall off too steeply?"""
    ny, nx = pix.shape
    zero, own = np.float32(0.0), pix[y, x] - below
    for width in range(1, WIDEST + 1):
        ratio = ratios[width - 1]
        for shift in range(width):
            y0, x0 = y - (shift + 1) * dy, x - (shift + 1) * dx
            y1, x1 = y0 + (width + 1) * dy, x0 + (width + 1) * dx
            if y0 < 0 or x0 < 0 or y1 >= ny or x1 >= nx:
                continue
            inside = zero
            for k in range(1, width + 1):
                inside += pix[y0 + k * dy, x0 + k * dx] - below
            lack = ratio * inside - (pix[y0, x0] + pix[y1, x1] - 2 * below)
            if lack <= 0 or width * own < _SHARE * inside or (mask[y0, x0] | mask[y1, x1]) & ~_HARMLESS != 0:
                continue
            var = max(pix[y0, x0], zero) + max(pix[y1, x1], zero) + 2 * floor
            for k in range(1, width + 1):
                var += ratio * ratio * (max(pix[y0 + k * dy, x0 + k * dx], zero) + floor)
            if lack * lack > margin * margin * var:
                return True
    return False


@njit(nogil=True, cache=True)
def _is_hit(pix, mask, floor, level, low, y, x, ratios_x, ratios_y, seed, margin):  # type: ignore[no-untyped-def]
    """Is the candidate, which is no pixel of the border, sharper than light can be? `level`, `low` are of its row."""
    zero, half = np.float32(0.0), np.float32(0.5)
    if _in_sharp_run(pix, mask, floor, y, x, 0, 1, zero, ratios_x, margin):  # e.g. a track along the column
        return True
    over = pix[y, x] - level[x]
    if over <= 0 or over * over <= seed * seed * (max(level[x], zero) + floor):
        return False
    if _in_sharp_run(pix, mask, floor, y, x, 1, 0, low[x], ratios_y, margin):
        return True
    ratio_x, ratio = half * ratios_x[0], half * ratios_x[0] * half * ratios_y[0]
    return (
        _too_sharp(pix, mask, floor, y, x, 0, 1, level[x], level[x - 1], level[x + 1], ratio_x, margin)
        or _too_sharp(pix, mask, floor, y, x, 1, 1, low[x], low[x - 1], low[x + 1], ratio, margin)
        or _too_sharp(pix, mask, floor, y, x, 1, -1, low[x], low[x + 1], low[x - 1], ratio, margin)
    )


@njit(nogil=True, cache=True)
def _excess(pix, mask, floor, slant, y, x):  # type: ignore[no-untyped-def]
    """Charge that light does not explain, its error^2, and whether there was enough to tell.

    Light = mean of the column x brightness of this row against the others, both from unflagged pixels nearby. The
    brightness tends to 1 where the columns are too dark to tell. Where the rows lie to one side, a slanting trace moves
    off its column meanwhile: by a pixel, it changes the light by about as much as there is.
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
    column, row, n, away = np.float32(0.0), np.float32(0.0), 0, 0
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
                away += j - y
                n += 1
    if n < 3:
        return zero, floor, False
    column /= n
    dim = np.float32(3.0) * np.sqrt(nused * floor)
    row = max(row / n, zero) + dim
    brightness = (max(here, zero) + dim) / row
    light = column * brightness
    tilt = _TILT * max(light - column, zero) + slant * np.float32(abs(away) / n) * max(light, zero)
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
def _seeds(pix, levels, mask, sections, variances, ratios_x, ratios_y, seed, margin, hits):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    floor, found = np.empty(nx, np.float32), np.zeros(nx, np.bool_)
    low = np.empty(nx, np.float32)
    steep, thin = np.zeros(nx, np.float32), np.zeros(nx, np.float32)
    loosest_x, loosest_y = np.empty(WIDEST, np.float32), np.empty(WIDEST, np.float32)
    for k in range(WIDEST):
        loosest_x[k], loosest_y[k] = ratios_x[:, :, k].max(), ratios_y[:, :, k].max()
    n = 0
    for y in range(1, ny - 1):
        floor[:] = np.float32(0.0)
        for k in range(len(sections)):
            if sections[k, 2] <= y < sections[k, 3]:
                floor[sections[k, 0] : sections[k, 1]] = variances[k]
        a, b = pix[mirrored(y - 4, ny)], pix[mirrored(y - 3, ny)]
        c, d = pix[mirrored(y - 2, ny)], pix[y - 1]
        e, f = pix[y + 1], pix[mirrored(y + 2, ny)]
        g, h = pix[mirrored(y + 3, ny)], pix[mirrored(y + 4, ny)]
        level = levels[y]
        _lowest(a, b, c, d, e, f, g, h, low)
        _measure_steepness(b, c, d, pix[y], e, f, g, level, low, loosest_x, loosest_y, steep, thin)
        _scan_row(pix[y], mask[y], floor, level, steep, thin, seed, margin, found)
        for x in range(1, nx - 1):
            if found[x] and n < len(hits):
                rx, ry = ratios_x[y // CELL, x // CELL], ratios_y[y // CELL, x // CELL]
                if _is_hit(pix, mask, floor[x], level, low, y, x, rx, ry, seed, margin):
                    hits[n] = y * nx + x
                    n += 1
    return n


@njit(nogil=True, cache=True)
def _flag(pix, levels, mask, sections, variances, ratios_x, ratios_y, slant, seed, margin, grow, spill, hits):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    n = _seeds(pix, levels, mask, sections, variances, ratios_x, ratios_y, seed, margin, hits)
    for k in range(n):
        mask[hits[k] // nx, hits[k] % nx] |= _COSMIC
    spilled = 0
    k = 0
    while k < n:
        y, x = hits[k] // nx, hits[k] % nx
        k += 1
        floor = _floor_at(sections, variances, y, x)
        charge, _, known = _excess(pix, mask, floor, slant[y // CELL, x // CELL], y, x)
        if not known:
            beside = np.float32(0.5) * (pix[y, max(x - 1, 0)] + pix[y, min(x + 1, nx - 1)])
            ahead = np.float32(0.5) * (pix[max(y - 3, 0), x] + pix[min(y + 3, ny - 1), x])
            charge = pix[y, x] - min(beside, ahead)
        for j in range(max(y - 1, 0), min(y + 2, ny)):
            for i in range(max(x - 1, 0), min(x + 2, nx)):
                floor = _floor_at(sections, variances, j, i)
                if mask[j, i] & ~_HARMLESS != 0 or floor <= 0:
                    continue
                over, var, known = np.float32(0.0), floor, False
                if pix[j, i] > 0 and pix[j, i] * pix[j, i] > grow * grow * floor:  # else nothing can stand out
                    over, var, known = _excess(pix, mask, floor, slant[j // CELL, i // CELL], j, i)
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
