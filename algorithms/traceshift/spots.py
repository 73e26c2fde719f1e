"""Where the spots of emission lines stand, by the forward model of the PSF (spec offline-reduction §3.5).

All spots of a bundle are modelled together, so that the light of neighbours does not pull; each is then asked for its
place along both axes at once, with the shape of the PSF.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots
from algorithms.extract.spectroperfect.system import normal_equations, project
from algorithms.flexure.field import POINT
from algorithms.psffit.arclines import ArcLines
from algorithms.psffit.moments import measure_moments
from qlstream.datamodel.psf import GaussHermitePSF

Array = NDArray[np.float64]
Float = NDArray[np.float32]

_FARTHEST = 1.0  # a spot further from its place was mistaken [pixel]
_CLIP = 5.0  # [sigma]


def measure_spots(
    pix: Float, ivar: Float, psf: GaussHermitePSF, lines: ArcLines, bundles: NDArray[np.int64], min_snr: float
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.int64]]:
    """Shifts of all spots that stand alone.

    Parameters
    ----------
    pix, ivar : (ny, nx) [electron], [electron^-2]
    psf : right to half a pixel
    bundles : first fiber of each bundle and, last, the number of fibers
    min_snr : of a spot

    Returns
    -------
    across, along : (npoint,) POINT of x and of y
    line : (npoint,) index of the line of each point
    """
    across, along, numbers = [], [], []
    for first, last in pairwise(bundles):
        part = psf.select(slice(int(first), int(last)))
        spots = lines.spots(part)
        left = max(int(spots.column.min()), 0)
        columns = slice(left, max(int(spots.column.max()) + spots.image.shape[3], left + 1))
        spots = Spots(spots.image, spots.row, spots.column - left)
        data, weight = pix[:, columns], ivar[:, columns]
        flux = np.maximum(normal_equations(spots, data, weight).solve(), 0.0)
        model = np.zeros(data.shape, np.float32)
        project(spots.image, spots.row, spots.column, flux, model)
        x, y = part.traces.x_vs_wave(lines.wave) - left, part.traces.y_vs_wave(lines.wave)
        widths = part.parameter("GHSIGX", lines.wave), part.parameter("GHSIGY", lines.wave)
        moments = measure_moments(spots, x, y, *widths, flux, data - model, weight, 2, True, lines.alone)
        expected, good = moments.smooth_flux(lines.alone)
        moments = moments.in_units_of(expected)
        good &= (moments.snr > min_snr) & _whole(spots, data.shape)
        line, fiber = np.nonzero(good)
        axes = []
        for (i, j), width in zip(((1, 0), (0, 1)), widths, strict=True):
            value, error = moments.of(i, j)
            points = np.zeros(line.size, POINT)
            points["fiber"], points["wave"] = fiber + int(first), lines.wave[line]
            points["shift"], points["error"] = (value * width.T)[good], (error * width.T)[good]
            axes.append(points)
        near = np.all([np.abs(p["shift"]) < _FARTHEST + _CLIP * p["error"] for p in axes], axis=0)
        across.append(axes[0][near])
        along.append(axes[1][near])
        numbers.append(line[near])
    return np.concatenate(across), np.concatenate(along), np.concatenate(numbers)


def _whole(spots: Spots, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    height, width = spots.image.shape[2:]
    inside = (spots.row >= 0) & (spots.row + height <= shape[0])
    return np.asarray(inside & (spots.column >= 0) & (spots.column + width <= shape[1]))
