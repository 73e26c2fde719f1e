"""Cosmic rays: what stands out of its column and is sharper than the optics can make a spot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.preproc.columns import HALF, level_of_neighbours, mirrored
from algorithms.preproc.sharpness import CELL, SharpnessMap
from qlstream.datamodel.amplifier import Section
from qlstream.datamodel.masks import CCDMask

_COSMIC = np.uint16(CCDMask.COSMIC)
_MAY_BE_COSMIC = np.uint16(CCDMask.SATURATED | CCDMask.BADREADNOISE)  # flags that do not exempt from the search


@dataclass(frozen=True)
class CosmicLimits:
    """When a pixel counts as hit.

    Attributes
    ----------
    seed : excess over the column that a hit needs to be noticed [sigma]
    grow : excess that a neighbour of a hit needs [sigma]
    sharp : fraction of the optics' smallest neighbour-to-centre ratio below which a pixel is too sharp
    margin : by how many sigma it has to be
    """

    seed: float = 4.5
    grow: float = 2.5
    sharp: float = 0.8
    margin: float = 3.0
    grow_margin: float = 0.0


def flag_cosmics(
    pix: NDArray[np.float32],
    mask: NDArray[np.uint16],
    floors: Sequence[tuple[Section, float]],
    sharpness: SharpnessMap,
    limits: CosmicLimits,
    todo: NDArray[np.int32],
) -> int:
    sections = np.array([[s.x0, s.x1, s.y0, s.y1] for s, _ in floors], np.int64)
    variances = np.array([v for _, v in floors], np.float32)
    return _flag(
        pix,
        mask,
        sections,
        variances,
        sharpness.x,
        sharpness.y,
        np.float32(limits.seed),
        np.float32(limits.grow),
        np.float32(limits.sharp),
        np.float32(limits.margin),
        np.float32(limits.grow_margin),
        todo,
    )


@njit(nogil=True, cache=True)
def _scan_row(a, b, c, d, own, e, f, g, h, flag, floor, seed2, ratio, found):  # type: ignore[no-untyped-def]
    """Mark the pixels of a row that may be hits; no branches, so that 8 or 16 pixels go at once."""
    zero, half = np.float32(0.0), np.float32(0.5)
    exempt = ~_MAY_BE_COSMIC
    n = len(own)
    for i in range(1, n - 1):
        level = level_of_neighbours(a[i], b[i], c[i], d[i], e[i], f[i], g[i], h[i])
        over = own[i] - level
        above = (over > zero) & (over * over > seed2 * ((level if level > zero else zero) + floor[i]))
        beside = half * (own[i - 1] + own[i + 1])
        rise = own[i] - beside
        var = (beside if beside > zero else zero) + floor[i]
        thin = (rise > zero) & (rise * rise > np.float32(1.5) * seed2 * var) & (beside < ratio * own[i])
        found[i] = (above | thin) & ((flag[i] & exempt) == 0)


@njit(nogil=True, cache=True)
def _levels(pix, mask, y, x):  # type: ignore[no-untyped-def]
    """Interquartile mean and second smallest of the 8 nearest unflagged pixels of a column, own excluded."""
    ny = pix.shape[0]
    sample = np.empty(8, np.float32)
    n = 0
    d = 1
    while n < 8 and d <= 4 * HALF:
        for s in (-d, d):
            yy = y + s
            if n < 8 and yy >= 0 and yy < ny and mask[yy, x] & _COSMIC == 0:
                v = pix[yy, x]
                j = n - 1
                while j >= 0 and sample[j] > v:
                    sample[j + 1] = sample[j]
                    j -= 1
                sample[j + 1] = v
                n += 1
        d += 1
    if n < 4:
        return np.float32(0.0), np.float32(0.0)
    q = n // 4
    total = np.float32(0.0)
    for j in range(q, n - q):
        total += sample[j]
    return total / np.float32(n - 2 * q), sample[1]


@njit(nogil=True, cache=True)
def _neighbour(pix, mask, y, x, floor, skip_cosmic):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    if y < 0 or x < 0 or y >= ny or x >= nx:
        return False, np.float32(0.0), np.float32(0.0)
    if mask[y, x] & ~(_MAY_BE_COSMIC | _COSMIC) != 0 or (skip_cosmic and mask[y, x] & _COSMIC != 0):
        return False, np.float32(0.0), np.float32(0.0)
    v = pix[y, x]
    return True, v, max(v, np.float32(0.0)) + floor


@njit(nogil=True, cache=True)
def _is_hit(pix, mask, y, x, floor, ratio_x, ratio_y, threshold, margin, growing):  # type: ignore[no-untyped-def]
    own = pix[y, x]
    nx = pix.shape[1]
    zero = np.float32(0.0)
    level, low = _levels(pix, mask, y, x)
    var = max(level, zero) + floor
    own_var = max(own, zero) + floor
    over = own - level
    m2 = margin * margin
    above = over > zero and over * over > threshold * threshold * var
    # x on total
    okl, left, lv = _neighbour(pix, mask, y, x - 1, floor, growing)
    okr, r, rv = _neighbour(pix, mask, y, x + 1, floor, growing)
    if not above:
        if okl and okr:
            b = np.float32(0.5) * (left + r)
            rise = own - b
            t = ratio_x * own - b
            bv = np.float32(0.25) * (lv + rv)
            if (
                rise > zero
                and rise * rise > threshold * threshold * (max(b, zero) + floor + bv)
                and t > zero
                and t * t > m2 * (ratio_x * ratio_x * own_var + bv)
            ):
                return True
        return False
    # x on residual
    levl, lowl = _levels(pix, mask, y, max(x - 1, 0))
    levr, lowr = _levels(pix, mask, y, min(x + 1, nx - 1))
    if _sharp(over, own_var, okl, left - levl, lv, okr, r - levr, rv, ratio_x, m2, growing):
        return True
    oku, u, uv = _neighbour(pix, mask, y + 1, x, floor, growing)
    okd, d, dv = _neighbour(pix, mask, y - 1, x, floor, growing)
    over = own - low
    if _sharp(over, own_var, okd, d - low, dv, oku, u - low, uv, ratio_y, m2, growing):
        return True
    ratio = ratio_x * ratio_y
    okl, left, lv = _neighbour(pix, mask, y - 1, x - 1, floor, growing)
    okr, r, rv = _neighbour(pix, mask, y + 1, x + 1, floor, growing)
    if _sharp(over, own_var, okl, left - lowl, lv, okr, r - lowr, rv, ratio, m2, growing):
        return True
    okl, left, lv = _neighbour(pix, mask, y + 1, x - 1, floor, growing)
    okr, r, rv = _neighbour(pix, mask, y - 1, x + 1, floor, growing)
    return _sharp(over, own_var, okl, left - lowl, lv, okr, r - lowr, rv, ratio, m2, growing)


@njit(nogil=True, cache=True)
def _stands_out(pix, mask, y, x, floor, threshold):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    x0, x1 = max(x - 5, 0), min(x + 6, nx)
    use = np.zeros(11, np.bool_)
    here = np.float32(0.0)
    nref = 0
    for xx in range(x0, x1):
        if xx != x and mask[y, xx] == 0:
            use[xx - x0] = True
            here += pix[y, xx]
            nref += 1
    a, b = np.float32(0.0), np.float32(0.0)
    n = 0
    for k in range(-8, 8):
        yy = y + 2 * k + 1
        if yy < 0 or yy >= ny or mask[yy, x] != 0:
            continue
        row = np.float32(0.0)
        ok = True
        for xx in range(x0, x1):
            if use[xx - x0]:
                row += pix[yy, xx]
                ok &= mask[yy, xx] == 0
        if ok:
            a += pix[yy, x]
            b += row
            n += 1
    if n < 3 or nref < 3:
        return False
    a /= n
    b /= n
    k = np.float32(3.0) * np.sqrt(nref * floor)
    b = max(b, np.float32(0.0)) + k
    ratio = (max(here, np.float32(0.0)) + k) / b
    light = a * ratio
    over = pix[y, x] - light
    var = max(light, np.float32(0.0)) + floor
    var += ratio * ratio * (max(a, np.float32(0.0)) + floor) / n
    var += (a / b) ** 2 * (max(here, np.float32(0.0)) + nref * floor)
    var += (np.float32(0.1) * max(light - a, np.float32(0.0))) ** 2
    return over > 0 and over * over > threshold * threshold * var


@njit(nogil=True, cache=True)
def _sharp(own, own_var, ok1, p1, v1, ok2, p2, v2, ratio, m2, growing):  # type: ignore[no-untyped-def]
    if ok1 and ok2:
        b = np.float32(0.5) * (p1 + p2)
        bv = np.float32(0.25) * (v1 + v2)
    elif growing and ok1:
        b, bv = p1, v1
    elif growing and ok2:
        b, bv = p2, v2
    else:
        return growing
    t = ratio * own - b
    return t > 0 and t * t > m2 * (ratio * ratio * own_var + bv)


@njit(nogil=True, cache=True)
def _flag(pix, mask, sections, variances, ratio_x, ratio_y, seed, grow, sharp, margin, grow_margin, todo):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    floor = np.zeros(nx, np.float32)
    found = np.zeros(nx, np.bool_)
    ratio = sharp * ratio_x.max()
    seed2 = seed * seed
    ncand = 0
    nhit = 0
    for y in range(1, ny - 1):
        for k in range(len(sections)):
            if sections[k, 2] <= y < sections[k, 3]:
                floor[sections[k, 0] : sections[k, 1]] = variances[k]
        _scan_row(
            pix[mirrored(y - 4, ny)],
            pix[mirrored(y - 3, ny)],
            pix[mirrored(y - 2, ny)],
            pix[mirrored(y - 1, ny)],
            pix[y],
            pix[mirrored(y + 1, ny)],
            pix[mirrored(y + 2, ny)],
            pix[mirrored(y + 3, ny)],
            pix[mirrored(y + 4, ny)],
            mask[y],
            floor,
            seed2,
            ratio,
            found,
        )
        for x in range(nx):
            if found[x]:
                ncand += 1
                cy, cx = y // CELL, x // CELL
                if _is_hit(
                    pix, mask, y, x, floor[x], sharp * ratio_x[cy, cx], sharp * ratio_y[cy, cx], seed, margin, False
                ):
                    todo[nhit] = y * nx + x
                    nhit += 1
    for k in range(nhit):
        mask[todo[k] // nx, todo[k] % nx] |= _COSMIC
    n = nhit
    k = 0
    while k < n:
        y, x = todo[k] // nx, todo[k] % nx
        k += 1
        for yy in range(max(y - 1, 0), min(y + 2, ny)):
            for xx in range(max(x - 1, 0), min(x + 2, nx)):
                if mask[yy, xx] & ~_MAY_BE_COSMIC != 0 or n >= len(todo):
                    continue
                fl = np.float32(0.0)
                for j in range(len(sections)):
                    if sections[j, 2] <= yy < sections[j, 3] and sections[j, 0] <= xx < sections[j, 1]:
                        fl = variances[j]
                cy, cx = yy // CELL, xx // CELL
                if _stands_out(pix, mask, yy, xx, fl, grow) and (
                    grow_margin < 0
                    or _is_hit(
                        pix, mask, yy, xx, fl, sharp * ratio_x[cy, cx], sharp * ratio_y[cy, cx], grow, grow_margin, True
                    )
                ):
                    mask[yy, xx] |= _COSMIC
                    todo[n] = yy * nx + xx
                    n += 1
    return n
