"""Extraction row by row: whether its errors are right, and its signal to noise beside the two-dimensional one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.aperture import sum_apertures
from algorithms.extract.crossprofile import cross_profiles
from algorithms.extract.optimal import fit_profiles
from algorithms.extract.rows import Sums, rows_inside, sampled_rows
from benchmarks.offline.night import Night
from benchmarks.truth.line import Line, nmad
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.image import Image
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.io.image import read_image
from qlstream.io.psf import read_psf
from qlstream.simulate.schedule import Exposure

Array = NDArray[np.float64]

_FAINT = 5.0  # S/N of a bin below which a fiber is faint


def lines(night: Night, exposure: Exposure, camera: str, frame: Frame) -> Iterator[Line]:
    """Of one exposure; `frame` is its two-dimensional extraction."""
    image, psf = (
        read_image(night.product("preproc", exposure, camera)),
        read_psf(night.product("psf", exposure, camera)),
    )
    light = night.truth(exposure, camera).read("IMAGE").astype(np.float32)
    wave = psf.traces.wave_vs_y(np.arange(float(image.ny)))
    inside = (wave > frame.wave[0]) & (wave < frame.wave[-1])
    step = frame.wave[1] - frame.wave[0]
    faint = np.median(frame.flux * np.sqrt(frame.ivar), axis=1) < _FAINT
    whole = np.median(frame.ivar, axis=1) / step  # (S/N)^2 of one Angstrom of unit density
    for name, extract in _methods(image, psf, night.instrument.extraction_half_width).items():
        flux, ivar, mask = extract(image.pix)
        good = (ivar > 0) & (mask == 0) & inside
        pull = ((flux - extract(light)[0]) * np.sqrt(ivar))[good]
        told = f"{pull.mean():+.4f} ± {pull.std():.4f} (nmad {nmad(pull):.4f})"
        met = abs(pull.mean()) <= 0.02 and abs(nmad(pull) - 1) <= 0.05
        yield Line("extract", f"{name}: pull of counts less noiseless ones", "0 ± 1", told, math.nan,
                   "± 0.02, 1.00 ± 0.05", met)  # fmt: skip
        by_row = np.nanmedian(np.where(good, ivar * np.gradient(wave, axis=1), np.nan)[faint], axis=1)
        ratio = float(np.nanmedian(np.sqrt(by_row / whole[faint])))
        yield Line("extract", f"{name}: S/N of faint fibers over that of 2d", "", f"{ratio:.3f}", math.nan, "", True)


def _methods(image: Image, psf: GaussHermitePSF, half_width: float) -> dict[str, Callable[[NDArray[np.float32]], Sums]]:
    """Each with the weights and the masks of `image`, on any pixels."""
    traces, ny = psf.traces, image.ny
    x, inside = traces.x_vs_y(np.arange(float(ny))), rows_inside(traces, ny)
    profiles, widths = cross_profiles(psf, ny), traces.xsig_vs_y(sampled_rows(traces, ny, 65))
    return {
        "profile": lambda pix: fit_profiles(pix, image.ivar, image.mask, x, profiles, inside),
        "boxcar": lambda pix: sum_apertures(pix, image.ivar, image.mask, x, widths, inside, half_width),
    }
