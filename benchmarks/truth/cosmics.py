"""Cosmic rays: how many of the simulated are found, and how many that are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.ndimage import label

from benchmarks.truth.exposed import Bools, Exposed
from benchmarks.truth.line import Line, worst
from qlstream.datamodel.masks import CCDMask

# (reference, least share to be found) by flavor
_FOUND = {"science": ("99.5 %", 0.995), "flat": ("53 %", 0.95), "arc": ("", 0.95), "dark": ("", 0.995)}

_FEW = 5.0  # false tracks [1/min]


def lines(exposed: Exposed) -> Iterator[Line]:
    """Completeness, purity and the rate of tracks."""
    if exposed.context.flavor in _FOUND:
        yield from _pixels(exposed)
        yield from _tracks(exposed)


def _pixels(exposed: Exposed) -> Iterator[Line]:
    flavor = exposed.context.flavor
    reference, aim = _FOUND[flavor]
    sigma, mask, cosmics = exposed.noise, exposed.image.mask, exposed.truth.cosmics
    flagged = (mask & int(CCDMask.COSMIC)) != 0
    masked = (mask & ~np.uint16(int(CCDMask.COSMIC | CCDMask.BADREADNOISE))) != 0
    hit = (cosmics > 5 * sigma) & ~masked
    touched = (cosmics > sigma) & ~masked
    good = flagged & ~masked
    if not (hit.any() and good.any()):
        return
    found = float(flagged[hit].mean())
    told = f"{100 * found:.2f} % of {hit.sum()}"
    yield Line("Preproc", "cosmic pixels > 5 σ found", "100 %", told, math.nan, f"≥ {100 * aim:g} %", found >= aim,
               reference)  # fmt: skip
    exact, near = float(touched[good].mean()), float(_grown(touched)[good].mean())
    wanted = flavor == "science"
    yield Line(
        "Preproc",
        "flagged pixels that are cosmic (> 1 σ), within 1 pixel / exactly",
        "100 %",
        f"{100 * near:.1f} % / {100 * exact:.1f} % of {good.sum()}",
        math.nan,
        "≥ 97 % / ≥ 60 %" if wanted else "",
        not wanted or (near >= 0.97 and exact >= 0.60),
        "91 % / 42 %" if wanted else "",
    )


def _tracks(exposed: Exposed) -> Iterator[Line]:
    """COSMICS_RATE: groups of pixels with more than 3 sigma of a cosmic ray's charge, counted by a second method.

    On bright spectra a ray shows only in parts, so the rate of flats and arcs is shown without an aim.
    """
    result = exposed.result("Count_Cosmics") or exposed.result("Count_Pixels")
    if result is None or "COSMICS_RATE" not in result.per_amp:
        return
    minutes = (exposed.exposure.exptime + 0.5 * float(exposed.context.header["DIGITIME"])) / 60.0
    seen = exposed.truth.cosmics > 3 * exposed.noise
    has_aim = exposed.context.flavor in ("dark", "science")
    truth, sigma = {}, {}
    for amp in exposed.detector.amps:
        _, tracks = label(seen[amp.ccdsec.slices], structure=np.ones((3, 3)))
        truth[amp.name], sigma[amp.name] = tracks / minutes, math.sqrt(max(tracks, 1)) / minutes
    # the ranges judge 30 or more; below that, a few single pixels a minute that are none do no harm
    measured = result.per_amp["COSMICS_RATE"]
    line = worst("Count_Cosmics", "COSMICS_RATE [1/min]", truth, measured, sigma, absolute=_FEW)
    yield line if has_aim else replace(line, aim="", met=True)


def _grown(pixels: Bools) -> Bools:
    """One pixel wider in all eight directions."""
    out = pixels.copy()
    ny, nx = pixels.shape
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            to = slice(max(dy, 0), ny + min(dy, 0)), slice(max(dx, 0), nx + min(dx, 0))
            at = slice(max(-dy, 0), ny + min(-dy, 0)), slice(max(-dx, 0), nx + min(-dx, 0))
            out[to] |= pixels[at]
    return out
