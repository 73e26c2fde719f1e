"""The power-law tail of the spots of a bundle: A r^2 / (core^2 + r^2)^(1 + index/2) beside the core (spec §2.1).

Only the amplitude is fitted. On the few pixels of a spot the index is nearly the same parameter, as is the light of
the next bundle; what index suits a camera is told by the chi2 of fits with several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots
from algorithms.extract.spectroperfect.system import project
from algorithms.psffit.arclines import ArcLines
from algorithms.psffit.field import fit_field
from algorithms.psffit.moments import Moments
from qlstream.datamodel.psf import TAIL_DEFAULTS, GaussHermitePSF
from qlstream.numeric import legendre

Array = NDArray[np.float64]

_SETTLED = 0.2  # steps below this are nothing [sigma]


@dataclass(frozen=True)
class Tail:
    """The amplitude of a bundle, at the middle of the wavelengths, and its error."""

    amplitude: float
    error: float


def with_tail(psf: GaussHermitePSF, index: float) -> GaussHermitePSF:
    """The same PSF with all parameters of a tail, its amplitude 0 if it has none yet."""
    one = np.ones((psf.nspec, 1))
    added = {name: value * one for name, value in {"TAILAMP": 0.0, **TAIL_DEFAULTS}.items()}
    return replace(psf, coef={**added, **psf.coef, "TAILINDE": index * one})


def tail_images(
    psf: GaussHermitePSF, lines: ArcLines, spots: Spots, flux: Array, shape: tuple[int, ...]
) -> tuple[Array, float]:
    """Light of tails of amplitude 1 under every spot, in units of its flux; in how many spots a pixel lies on average.

    The tails of all spots together: those of the neighbours reach as far, and change with its own.

    Parameters
    ----------
    spots, flux : of `psf`, (nline, nfiber)
    shape : of the image

    Returns
    -------
    (1, nline, nfiber, height, width), -
    """
    amplitude = psf.coef["TAILAMP"].copy()
    amplitude[:, 0] += 1.0
    tails = lines.spots(replace(psf, coef={**psf.coef, "TAILAMP": amplitude})).image - spots.image
    light, times = np.zeros(shape), np.zeros(shape)
    project(tails, spots.row, spots.column, flux, light)
    out = np.zeros_like(tails)
    height, width = tails.shape[2:]
    for k, f in np.argwhere((flux > 0) & lines.alone[:, None]):
        y, x = spots.row[k, f], spots.column[k, f]
        if y >= 0 and x >= 0 and y + height <= shape[0] and x + width <= shape[1]:
            out[k, f] = light[y : y + height, x : x + width] / flux[k, f]
            times[y : y + height, x : x + width] += 1.0
    return out[None], float(times[times > 0].mean()) if times.any() else 1.0


def move_tail(
    psf: GaussHermitePSF, wave: Array, moments: Moments, good: NDArray[np.bool_], shared: float
) -> tuple[GaussHermitePSF, Tail, bool]:
    """The tail that the spots ask for, linear in wavelength; and whether it is the one they had, within its error.

    Parameters
    ----------
    psf : with a tail, about which the spots were measured
    moments : with `tail_images` as `extra`
    shared : in how many spots a pixel lies on average; so many measurements are one
    """
    u = legendre.reduced(wave, psf.wavemin, psf.wavemax)
    value, error = moments.extra[:, :, 0], np.where(good, moments.extra_error[:, :, 0], np.inf)
    change = fit_field(u, value, error, 0, 1, -1, np.zeros(wave.size))
    sigma = max(change.scatter, 1.0) * float(np.sqrt(shared / (1.0 / error**2).sum()))
    amplitude = np.pad(psf.coef["TAILAMP"], ((0, 0), (0, max(0, 2 - psf.coef["TAILAMP"].shape[1]))))
    amplitude[:, :2] += legendre.fit(np.array([-1.0, 1.0]), change.at(np.array([-1.0, 1.0])), 1)
    moved = replace(psf, coef={**psf.coef, "TAILAMP": amplitude})
    middle = float(moved.parameter("TAILAMP", np.array([0.5 * (psf.wavemin + psf.wavemax)]))[0, 0])
    return moved, Tail(middle, sigma), abs(float(change.common[0, 0])) < _SETTLED * sigma
