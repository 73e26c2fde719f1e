"""From raw ADU to electrons with variance and mask: one pass over the image, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.preproc.columns import HALF, level_of_neighbours, mirrored
from qlstream.datamodel.amplifier import Amp
from qlstream.datamodel.masks import CCDMask

_FLAT_ZERO, _FLAT_LOW = np.float32(0.001), np.float32(0.1)  # spec preproc §4.5
_OWN_VALUE = np.float32(9.0)  # squared sigmas from its neighbours where a pixel speaks for itself
_BAD, _SATURATED = np.uint16(CCDMask.BAD), np.uint16(CCDMask.SATURATED)
_PIXFLATZERO, _PIXFLATLOW = np.uint16(CCDMask.PIXFLATZERO), np.uint16(CCDMask.PIXFLATLOW)


@dataclass(frozen=True)
class AmpCalibration:
    """How the pixels of one amplifier become electrons.

    Attributes
    ----------
    amp : its sections
    gain : [electron/ADU]
    saturlev : [ADU], bias included
    level : (nrow,) float32, to be subtracted from each bias-subtracted row [ADU]
    variance : of a pixel without light [electron^2]; 0 where nothing can be known: ivar becomes 0
    flags : CCDMask bits of all its pixels
    crosstalk : name of another amplifier -> fraction of its electrons that show up here, mirrored
    """

    amp: Amp
    gain: float
    saturlev: float
    level: NDArray[np.float32]
    variance: float
    flags: int
    crosstalk: dict[str, float]


@dataclass(frozen=True)
class PixelCalibration:
    """Calibration images of one camera; None leaves that step out.

    Attributes
    ----------
    bias : (ny_raw, nx_raw) float32 [ADU]
    dark : (ny, nx) float32 [electron/second]
    exptime : by which `dark` is multiplied [second]
    pixflat : (ny, nx) float32, about 1
    mask : (ny, nx) uint16, CCDMask bits of known bad pixels
    """

    bias: NDArray[np.float32] | None = None
    dark: NDArray[np.float32] | None = None
    exptime: float = 0.0
    pixflat: NDArray[np.float32] | None = None
    mask: NDArray[np.uint16] | None = None


def calibrate_pixels(
    raw: NDArray[Any],
    amps: Sequence[AmpCalibration],
    calibration: PixelCalibration,
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    mask: NDArray[np.uint16],
) -> None:
    """Fill `pix`, `ivar` and `mask` from the raw readout (spec preproc §2-§5, each [WEAK] of it done right).

    Saturation is tested on the raw ADU, bias included, as SATURLEV is defined. Cross-talk is computed from the
    uncorrected amplifiers, so that the order of the pairs is of no matter.

    The variance is that of the light, of the dark current and of the readout. A pixel's own value is no estimate of
    its light: it would give low fluctuations a high weight. So the light is taken from its neighbours along the
    dispersion, not clipped at 0 (which would bias a noisy mean); only where a pixel differs from them by more than
    3 sigma (lines, cosmic rays) its own value is the better estimate.

    Parameters
    ----------
    raw : (ny_raw, nx_raw) integers or floats [ADU]
    amps : every amplifier of the readout
    calibration : images that serve
    pix, ivar : (ny, nx) float32, outputs [electron], [electron^-2]; ivar = 0 where there is no information
    mask : (ny, nx) uint16, output; BAD where no amplifier reads the pixel or a value is not finite

    Raises
    ------
    ValueError : shapes do not fit, or cross-talk between amplifiers of different size
    """
    _check(raw, amps, calibration, pix)
    sections = np.array(
        [
            [a.amp.ccdsec.x0, a.amp.ccdsec.x1, a.amp.ccdsec.y0, a.amp.ccdsec.y1, a.amp.datasec.x0, a.amp.datasec.y0]
            for a in amps
        ],
        dtype=np.int64,
    )
    levels = np.zeros((len(amps), max(len(a.level) for a in amps)), np.float32)
    for k, a in enumerate(amps):
        levels[k, : len(a.level)] = a.level
    numbers = np.array([[a.gain, a.saturlev, a.variance] for a in amps], np.float32)
    flags = np.array([a.flags for a in amps], np.uint16)
    crosstalk = np.array([[a.crosstalk.get(b.amp.name, 0.0) for b in amps] for a in amps], np.float32)
    no_image, no_mask = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint16)
    given = np.array([i is not None for i in (calibration.bias, calibration.dark, calibration.pixflat)])
    _calibrate(
        raw,
        sections,
        levels,
        numbers,
        flags,
        crosstalk,
        given,
        no_image if calibration.bias is None else calibration.bias,
        no_image if calibration.dark is None else calibration.dark,
        np.float32(calibration.exptime),
        no_image if calibration.pixflat is None else calibration.pixflat,
        no_mask if calibration.mask is None else calibration.mask,
        pix,
        ivar,
        mask,
    )


def _check(
    raw: NDArray[Any], amps: Sequence[AmpCalibration], calibration: PixelCalibration, pix: NDArray[np.float32]
) -> None:
    for name, image, shape in (
        ("bias", calibration.bias, raw.shape),
        ("dark", calibration.dark, pix.shape),
        ("pixflat", calibration.pixflat, pix.shape),
        ("mask", calibration.mask, pix.shape),
    ):
        if image is not None and image.shape != shape:
            raise ValueError(
                f"{name} has shape {image.shape}, this readout needs {shape} (rows, columns); "
                "it belongs to another detector or readout mode: correct the calibration tree"
            )
    for a in amps:
        if a.amp.datasec.y1 > raw.shape[0] or a.amp.datasec.x1 > raw.shape[1]:
            raise ValueError(f"DATASEC{a.amp.name} {a.amp.datasec} leaves the raw image {raw.shape} (rows, columns)")
        for b in amps:
            if a.crosstalk.get(b.amp.name) and a.amp.ccdsec.shape != b.amp.ccdsec.shape:
                raise ValueError(
                    f"CROSSTALK{b.amp.name}{a.amp.name}: the amplifiers differ in size "
                    f"({b.amp.ccdsec}, {a.amp.ccdsec}), so their pixels do not correspond; remove the card"
                )


@njit(nogil=True, cache=True)
def _to_electrons(raw, bias, has_bias, level, gain, out):  # type: ignore[no-untyped-def]
    if has_bias:
        for i in range(len(out)):
            out[i] = gain * (np.float32(raw[i]) - bias[i] - level)
    else:
        for i in range(len(out)):
            out[i] = gain * (np.float32(raw[i]) - level)


@njit(nogil=True, cache=True)
def _subtract_crosstalk(coefficient, aggressor, mirror, out):  # type: ignore[no-untyped-def]
    n = len(out)
    if mirror:
        for i in range(n):
            out[i] -= coefficient * aggressor[n - 1 - i]
    else:
        for i in range(n):
            out[i] -= coefficient * aggressor[i]


@njit(nogil=True, cache=True)
def _light_row(a, b, c, d, own, e, f, g, h, dark, floor, variance):  # type: ignore[no-untyped-def]
    """Variance of one row [electron^2]: light by the neighbours, or the pixel itself where it stands out."""
    half, zero = np.float32(0.5), np.float32(0.0)
    for i in range(len(own)):
        light = level_of_neighbours(a[i], b[i], c[i], d[i], e[i], f[i], g[i], h[i])
        base = dark[i] + floor[i]
        var = light + base
        least = half * floor[i]
        var = var if var > least else least
        off = own[i] - light
        itself = (own[i] if own[i] > zero else zero) + base
        itself = itself if itself > least else least
        variance[i] = itself if off * off > _OWN_VALUE * var else var


@njit(nogil=True, cache=True)
def _finish_row(own, variance, flat, has_flat, floor, pix, ivar, mask):  # type: ignore[no-untyped-def]
    """Flat field, inverse variance, and flags of what cannot be used."""
    one, zero, huge = np.float32(1.0), np.float32(0.0), np.float32(1e30)
    if has_flat:
        for i in range(len(own)):
            p = flat[i]
            usable = p > _FLAT_ZERO
            divide = p if usable else one
            pix[i] = own[i] / divide
            ivar[i] = divide * divide / variance[i] if usable and floor[i] > zero else zero
            mask[i] |= np.uint16(0) if usable else _PIXFLATZERO
            mask[i] |= _PIXFLATLOW if usable and p < _FLAT_LOW else np.uint16(0)
    else:
        for i in range(len(own)):
            pix[i] = own[i]
            ivar[i] = one / variance[i] if floor[i] > zero else zero
    for i in range(len(own)):
        finite = abs(pix[i]) < huge and ivar[i] < huge  # False for NaN
        pix[i] = pix[i] if finite else zero
        ivar[i] = ivar[i] if finite else zero
        mask[i] |= np.uint16(0) if finite else _BAD


@njit(nogil=True, cache=True)
def _calibrate(  # type: ignore[no-untyped-def]
    raw, sections, levels, numbers, flags, crosstalk, given, bias, dark, exptime, pixflat, badpix, pix, ivar, mask
):
    """Read each row into a ring of 9 rows of electrons; finish the middle one, whose neighbours are all there."""
    ny, nx = pix.shape
    namp = len(sections)
    has_bias, has_dark, has_flat = given
    has_mask = badpix.shape == pix.shape
    nring = 2 * HALF + 1
    light = np.zeros((nring, nx), np.float32)
    current = np.zeros((nring, nx), np.float32)
    aggressor = np.empty(nx, np.float32)
    floor, variance = np.zeros(nx, np.float32), np.empty(nx, np.float32)
    for row in range(ny + HALF):
        if row < ny:
            own, flag = light[row % nring], mask[row]
            own[:] = np.float32(0.0)
            flag[:] = _BAD
            for k in range(namp):
                x0, x1, y0, y1, rx0, ry0 = sections[k]
                if row < y0 or row >= y1:
                    continue
                gain, saturlev = numbers[k, 0], numbers[k, 1]
                ry, rx1 = ry0 + row - y0, rx0 + x1 - x0
                counts = raw[ry, rx0:rx1]
                bias_row = bias[ry, rx0:rx1] if has_bias else bias[0]
                _to_electrons(counts, bias_row, has_bias, levels[k, row - y0], gain, own[x0:x1])
                for i in range(x1 - x0):
                    flag[x0 + i] = flags[k] | (_SATURATED if np.float32(counts[i]) >= saturlev else np.uint16(0))
                for m in range(namp):
                    if crosstalk[k, m] == 0.0:
                        continue
                    ax0, ax1, ay0, _, arx0, ary0 = sections[m]
                    j = row - y0
                    if ay0 != y0:  # readouts on different halves mirror each other
                        j = y1 - y0 - 1 - j
                    arx1 = arx0 + ax1 - ax0
                    bias_row = bias[ary0 + j, arx0:arx1] if has_bias else bias[0]
                    other = aggressor[: ax1 - ax0]
                    _to_electrons(raw[ary0 + j, arx0:arx1], bias_row, has_bias, levels[m, j], numbers[m, 0], other)
                    _subtract_crosstalk(crosstalk[k, m], other, ax0 != x0, own[x0:x1])
            if has_mask:
                for i in range(nx):
                    flag[i] |= badpix[row, i]
            if has_dark:
                charge = current[row % nring]
                for i in range(nx):
                    charge[i] = exptime * dark[row, i]
                    own[i] -= charge[i]
        y = row - HALF
        if y < 0:
            continue
        floor[:] = np.float32(0.0)
        for k in range(namp):
            if sections[k, 2] <= y < sections[k, 3]:
                floor[sections[k, 0] : sections[k, 1]] = numbers[k, 2]
        _light_row(
            light[mirrored(y - 4, ny) % nring],
            light[mirrored(y - 3, ny) % nring],
            light[mirrored(y - 2, ny) % nring],
            light[mirrored(y - 1, ny) % nring],
            light[y % nring],
            light[mirrored(y + 1, ny) % nring],
            light[mirrored(y + 2, ny) % nring],
            light[mirrored(y + 3, ny) % nring],
            light[mirrored(y + 4, ny) % nring],
            current[y % nring],
            floor,
            variance,
        )
        flat_row = pixflat[y] if has_flat else pixflat[0]
        _finish_row(light[y % nring], variance, flat_row, has_flat, floor, pix[y], ivar[y], mask[y])
