"""Mask bits of CCD pixels, spectra and fibers (spec masks-and-targets §1-3). 0 is good in each of them."""

from __future__ import annotations

from enum import IntFlag


class CCDMask(IntFlag):
    """Bits of an Image mask and of the MASK HDU of a preproc file."""

    BAD = 1 << 0  # known bad pixel
    HOT = 1 << 1
    DEAD = 1 << 2
    SATURATED = 1 << 3  # raw ADU at or above SATURLEV
    COSMIC = 1 << 4
    PIXFLATZERO = 1 << 5  # pixel flat <= 0.001
    PIXFLATLOW = 1 << 6  # 0 < pixel flat < 0.1
    HIGHVAR = 1 << 7
    BADREADNOISE = 1 << 8  # kept in the extraction: the ivar says it
    BADAMP = 1 << 9


EXTRACT_MASK = CCDMask(767)  # bits that take a pixel out of the extraction: all but BADREADNOISE


class SpecMask(IntFlag):
    """Bits of the MASK HDU of spectra."""

    SOMEBADPIX = 1 << 0  # more than half of the aperture is masked
    ALLBADPIX = 1 << 1
    COSMIC = 1 << 2
    LOWFLAT = 1 << 3
    BADFIBERFLAT = 1 << 4
    BRIGHTSKY = 1 << 5
    BADSKY = 1 << 6
    BAD2DFIT = 1 << 7
    NODATA = 1 << 8
    BADFIBER = 1 << 9
    BADCOLUMN = 1 << 10
    SATURATED = 1 << 11
    CONTAMINATED = 1 << 12


class FiberMask(IntFlag):
    """Bits of FIBERSTATUS."""

    UNASSIGNED = 1 << 0
    STUCKPOSITIONER = 1 << 1
    BROKENFIBER = 1 << 2
    RESTRICTED = 1 << 3
    MISSINGPOSITION = 1 << 8
    BADPOSITION = 1 << 9
    POORPOSITION = 1 << 10
    BRIGHTNEIGHBOR = 1 << 11
    LOWTRANSMISSION = 1 << 12
    NEARCHARGETRAP = 1 << 13
    VARIABLETHRU = 1 << 14
    LOWEFFTIME = 1 << 15
    BADFIBER = 1 << 16
    BADTRACE = 1 << 17
    BADFLAT = 1 << 18
    BADARC = 1 << 19
    VARIABLE = 1 << 20
    MANYREJECTED = 1 << 21
    BADAMPB = 1 << 22
    BADAMPR = 1 << 23
    BADAMPZ = 1 << 24
    BADPETALPOS = 1 << 25
    BADPETALSKY = 1 << 26
    BADPETALSTDSTAR = 1 << 27
    BADPETALFLUXCAL = 1 << 28
    BADPETALSNR = 1 << 29
    BADREADNOISE = 1 << 30


_FATAL = (
    FiberMask.BROKENFIBER
    | FiberMask.MISSINGPOSITION
    | FiberMask.BADPOSITION
    | FiberMask.BRIGHTNEIGHBOR
    | FiberMask.BADFIBER
    | FiberMask.BADTRACE
    | FiberMask.BADFLAT
    | FiberMask.BADARC
    | FiberMask.MANYREJECTED
)
_FATAL_FLAT = (
    FiberMask.BROKENFIBER
    | FiberMask.BRIGHTNEIGHBOR
    | FiberMask.BADFIBER
    | FiberMask.BADTRACE
    | FiberMask.BADARC
    | FiberMask.MANYREJECTED
)
_BADAMP = {"b": FiberMask.BADAMPB, "r": FiberMask.BADAMPR, "z": FiberMask.BADAMPZ}


def fatal_fiber_bits(use: str, arm: str | None = None) -> FiberMask:
    """FIBERSTATUS bits that exclude a fiber from `use` in `arm` (spec masks-and-targets §3.1).

    Parameters
    ----------
    use : "all", "sky", "flux", "star" or "flat"
    arm : arm letter; None takes the amplifier bits of every arm

    Raises
    ------
    ValueError : unknown use
    """
    if use == "flat":
        return _FATAL_FLAT
    if use not in ("all", "sky", "flux", "star"):
        raise ValueError(f"unknown use {use!r} of a fiber; give all, sky, flux, star or flat")
    bits = _FATAL
    for letter, bit in _BADAMP.items():
        if arm is None or letter == arm:
            bits |= bit
    return bits | FiberMask.POORPOSITION if use == "star" else bits
