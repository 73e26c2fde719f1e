"""From raw ADU to flat-fielded electrons with their flags: one pass over the image, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.preproc.columns import HALF, level_row
from algorithms.preproc.trail import Trail, untrail
from qlstream.datamodel.amplifier import Amp
from qlstream.datamodel.masks import CCDMask

_FLAT_ZERO, _FLAT_LOW = np.float32(0.001), np.float32(0.1)  # spec preproc §4.5
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
    columns : (ncolumn,) float32, to be subtracted from each column beside that [ADU], or None
    trail : dark trail that its charge leaves, or None
    """

    amp: Amp
    gain: float
    saturlev: float
    level: NDArray[np.float32]
    variance: float
    flags: int
    crosstalk: dict[str, float] = field(default_factory=dict)
    columns: NDArray[np.float32] | None = None
    trail: Trail | None = None


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
    level: NDArray[np.float32],
    mask: NDArray[np.uint16],
) -> None:
    """Fill `pix`, `level` and `mask` from the raw readout (spec preproc §2-§4, each [WEAK] of it done right).

    Saturation is tested on the raw ADU, bias included, as SATURLEV is defined. Cross-talk is computed from the
    uncorrected amplifiers, so that the order of the pairs is of no matter.

    Parameters
    ----------
    raw : (ny_raw, nx_raw) integers or floats [ADU]
    amps : every amplifier of the readout
    calibration : images that serve
    pix : (ny, nx) float32, output [electron], flat-fielded; exactly 0 where a value is not finite
    level : (ny, nx) float32, output [electron], the level of each pixel's column around it (`columns.level_row`)
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
    columns = np.zeros((len(amps), max(a.amp.ccdsec.shape[1] for a in amps)), np.float32)
    for k, a in enumerate(amps):
        if a.columns is not None:
            columns[k, : len(a.columns)] = a.columns
    numbers = np.array([[a.gain, a.saturlev] for a in amps], np.float32)
    trails = np.array([(*(a.trail.recursion if a.trail else (0.0, 0.0)), a.amp.reads_left) for a in amps], np.float64)
    flags = np.array([a.flags for a in amps], np.uint16)
    crosstalk = np.array([[a.crosstalk.get(b.amp.name, 0.0) for b in amps] for a in amps], np.float32)
    no_image, no_mask = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint16)
    given = np.array([i is not None for i in (calibration.bias, calibration.dark, calibration.pixflat)])
    _calibrate(
        raw,
        sections,
        levels,
        columns,
        numbers,
        flags,
        crosstalk,
        trails,
        given,
        no_image if calibration.bias is None else calibration.bias,
        no_image if calibration.dark is None else calibration.dark,
        np.float32(calibration.exptime),
        no_image if calibration.pixflat is None else calibration.pixflat,
        no_mask if calibration.mask is None else calibration.mask,
        pix,
        level,
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


@njit(nogil=True, cache=True, error_model="numpy")
def _to_electrons(raw, bias, has_bias, level, columns, gain, out):  # type: ignore[no-untyped-def]
    if has_bias:
        for i in range(len(out)):
            out[i] = gain * (np.float32(raw[i]) - bias[i] - (level + columns[i]))
    else:
        for i in range(len(out)):
            out[i] = gain * (np.float32(raw[i]) - (level + columns[i]))


@njit(nogil=True, cache=True, error_model="numpy")
def _subtract_crosstalk(coefficient, aggressor, mirror, out):  # type: ignore[no-untyped-def]
    n = len(out)
    if mirror:
        for i in range(n):
            out[i] -= coefficient * aggressor[n - 1 - i]
    else:
        for i in range(n):
            out[i] -= coefficient * aggressor[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _finish_row(flat, has_flat, pix, mask):  # type: ignore[no-untyped-def]
    """Flat field, and flags of what cannot be used."""
    one, zero, huge, none = np.float32(1.0), np.float32(0.0), np.float32(1e30), np.uint16(0)
    if has_flat:
        for i in range(len(pix)):
            p = flat[i]
            usable = p > _FLAT_ZERO
            pix[i] /= p if usable else one
            mask[i] |= none if usable else _PIXFLATZERO
            mask[i] |= _PIXFLATLOW if usable and p < _FLAT_LOW else none
    for i in range(len(pix)):
        finite = abs(pix[i]) < huge  # False for NaN
        pix[i] = pix[i] if finite else zero
        mask[i] |= none if finite else _BAD


@njit(nogil=True, cache=True, error_model="numpy")
def _calibrate(  # type: ignore[no-untyped-def]
    raw,
    sections,
    levels,
    columns,
    numbers,
    flags,
    crosstalk,
    trails,
    given,
    bias,
    dark,
    exptime,
    pixflat,
    badpix,
    pix,
    level,
    mask,
):
    """Each row in turn, and the level of the one 4 rows back, whose neighbours are all there by then."""
    ny, nx = pix.shape
    namp = len(sections)
    has_bias, has_dark, has_flat = given
    has_mask = badpix.shape == pix.shape
    aggressor = np.empty(nx, np.float32)
    for row in range(ny + HALF):
        if row < ny:
            own, flag = pix[row], mask[row]
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
                _to_electrons(counts, bias_row, has_bias, levels[k, row - y0], columns[k], gain, own[x0:x1])
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
                    counts = raw[ary0 + j, arx0:arx1]
                    _to_electrons(counts, bias_row, has_bias, levels[m, j], columns[m], numbers[m, 0], other)
                    _subtract_crosstalk(crosstalk[k, m], other, ax0 != x0, own[x0:x1])
                if trails[k, 0] != 0.0:
                    untrail(own[x0:x1], trails[k, 0], trails[k, 1], trails[k, 2] != 0.0, 0.0, 0.0)
            if has_mask:
                for i in range(nx):
                    flag[i] |= badpix[row, i]
            if has_dark:
                for i in range(nx):
                    own[i] -= exptime * dark[row, i]
            _finish_row(pixflat[row] if has_flat else pixflat[0], has_flat, own, flag)
        if row >= HALF:
            level_row(pix, row - HALF, level[row - HALF])
