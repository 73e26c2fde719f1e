"""What can go wrong between the amplifiers of a CCD and its raw file."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp, Section

Raw = NDArray[np.uint16]
_MAX_ADU = 65535


def with_pickup(raw: Raw, amps: Iterable[Amp], sigma: float, rng: np.random.Generator) -> Raw:
    """The raw image with a noise that all pixels of a row of these amplifiers share, as from a ringing supply.

    Parameters
    ----------
    raw : (ny_raw, nx_raw) uint16 [ADU]
    sigma : of the noise [ADU]
    """
    out = raw.astype(np.int32)
    for amp in amps:
        rows, columns = _whole(amp)
        out[rows, columns] += np.rint(rng.normal(0.0, sigma, (rows.stop - rows.start, 1))).astype(np.int32)
    return out.clip(0, _MAX_ADU).astype(np.uint16)


def with_swapped(raw: Raw, one: Amp, other: Amp) -> Raw:
    """The raw image with the data of two amplifiers in each other's place, as from two cables taken for each other.

    Each amplifier delivers its pixels in the order in which they reach it, so an image that changes sides is mirrored.
    """
    out = raw.copy()
    a, b = _whole(one), _whole(other)
    mirrored = one.reads_left != other.reads_left, one.datasec.y0 != other.datasec.y0
    turn = (slice(None, None, -1 if mirrored[1] else 1), slice(None, None, -1 if mirrored[0] else 1))
    out[a], out[b] = raw[b][turn], raw[a][turn]
    return out


def without_readout(raw: Raw) -> Raw:
    """A raw image of this shape that a controller sends when the CCD was not read: one number."""
    return np.full_like(raw, np.uint16(np.median(raw)))


def _whole(amp: Amp) -> tuple[slice, slice]:
    """(rows, columns) of data and overscans of an amplifier in the raw image."""
    sections = [section for section in (amp.datasec, amp.biassec, amp.orsec) if isinstance(section, Section)]
    rows = slice(min(s.y0 for s in sections), max(s.y1 for s in sections))
    return rows, slice(min(s.x0 for s in sections), max(s.x1 for s in sections))
