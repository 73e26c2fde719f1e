"""Images of unit flux at every wavelength of a bundle's fibers: the columns of the projection matrix."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.psf import GaussHermitePSF

Array = NDArray[np.float64]

_TAIL = ("TAILAMP", "TAILCORE", "TAILXSCA", "TAILYSCA", "TAILINDE")
_MIN_SIGMA = 0.1  # [pixel]; narrower cores are an accident of a Legendre series outside its domain


@dataclass(frozen=True)
class Spots:
    """Spots of the fibers of one bundle on a wavelength grid.

    Attributes
    ----------
    image : (nwave, nfiber, 2 hsizey + 1, 2 hsizex + 1) float64, fraction of the light in each pixel
    row, column : (nwave, nfiber) int64, CCD position of the first pixel of each image; may lie off the CCD
    """

    image: Array
    row: NDArray[np.int64]
    column: NDArray[np.int64]

    @property
    def nwave(self) -> int:
        return int(self.image.shape[0])

    @property
    def nfiber(self) -> int:
        return int(self.image.shape[1])


def make_spots(psf: GaussHermitePSF, first: int, last: int, wave: Array) -> Spots:
    """Spots of the fibers first ... last - 1: core integrated over the pixels, tail at their centres.

    Parameters
    ----------
    wave : (nwave,) [Angstrom]
    """
    traces = psf.traces.select(slice(first, last))
    x, y = traces.x_vs_wave(wave), traces.y_vs_wave(wave)
    fibers = psf.select(slice(first, last))
    sigma_x, sigma_y, terms, tail = spot_series(fibers, wave)
    image = np.empty((wave.size, last - first, 2 * psf.hsizey + 1, 2 * psf.hsizex + 1))
    row = np.rint(y.T).astype(np.int64) - psf.hsizey
    column = np.rint(x.T).astype(np.int64) - psf.hsizex
    _paint(x, y, sigma_x, sigma_y, terms, tail, row, column, image)
    return Spots(image, row, column)


def spot_series(psf: GaussHermitePSF, wave: Array) -> tuple[Array, Array, Array, Array]:
    """What spots are made of, at wavelengths (n,) of all fibers or (nspec, n) of each [Angstrom].

    Returns
    -------
    sigma_x, sigma_y : (nspec, n) of the core [pixel]
    terms : (ghdegx + 1, ghdegy + 1, nspec, n) GH-i-j
    tail : (5, nspec, n) amplitude, core, scales in x and y, index; amplitude 0 if the PSF has none
    """
    shape = psf.nspec, wave.shape[-1]
    terms = np.zeros((psf.ghdegx + 1, psf.ghdegy + 1, *shape))
    terms[0, 0] = 1.0
    for i in range(psf.ghdegx + 1):
        for j in range(psf.ghdegy + 1):
            if f"GH-{i}-{j}" in psf.coef:
                terms[i, j] = psf.parameter(f"GH-{i}-{j}", wave)
    sigma_x = np.maximum(psf.parameter("GHSIGX", wave), _MIN_SIGMA)
    sigma_y = np.maximum(psf.parameter("GHSIGY", wave), _MIN_SIGMA)
    tail = np.zeros((len(_TAIL), *shape))
    if "TAILAMP" in psf.coef:
        tail[1:] = np.array([1.0, 1.0, 1.0, 2.0])[:, None, None]
        for k, name in enumerate(_TAIL):
            if name in psf.coef:
                tail[k] = psf.parameter(name, wave)
    return sigma_x, sigma_y, terms, tail


@njit(nogil=True, cache=True)
def _paint(x, y, sigma_x, sigma_y, terms, tail, row, column, image):  # type: ignore[no-untyped-def]
    nwave, nfiber, ny, nx = image.shape
    degree_x, degree_y = terms.shape[0], terms.shape[1]
    along_x, along_y = np.empty((degree_x, nx)), np.empty((degree_y, ny))
    mixed = np.empty((degree_x, ny))
    for k in range(nwave):
        for f in range(nfiber):
            pixel_integrals(column[k, f] - x[f, k], sigma_x[f, k], along_x)
            pixel_integrals(row[k, f] - y[f, k], sigma_y[f, k], along_y)
            mixed[:] = 0.0
            for i in range(degree_x):
                for j in range(degree_y):
                    c = terms[i, j, f, k]
                    if c != 0.0:
                        for m in range(ny):
                            mixed[i, m] += c * along_y[j, m]
            spot = image[k, f]
            spot[:] = 0.0
            for i in range(degree_x):
                for m in range(ny):
                    c = mixed[i, m]
                    if c != 0.0:
                        for n in range(nx):
                            spot[m, n] += c * along_x[i, n]
            amplitude = tail[0, f, k]
            if amplitude != 0.0:
                core2 = tail[1, f, k] ** 2
                power = -(1.0 + 0.5 * tail[4, f, k])
                for m in range(ny):
                    dy2 = ((row[k, f] + m - y[f, k]) / tail[3, f, k]) ** 2
                    for n in range(nx):
                        r2 = ((column[k, f] + n - x[f, k]) / tail[2, f, k]) ** 2 + dy2
                        spot[m, n] += amplitude * r2 * (core2 + r2) ** power


@njit(nogil=True, cache=True)
def pixel_integrals(first, sigma, out):  # type: ignore[no-untyped-def]
    """Integrals of He_i(t) g(t), t = x/sigma, over pixels centred at first, first + 1, ... [pixel], in `out`."""
    degree, n = out.shape
    norm = 1.0 / sqrt(2.0 * pi)
    for k in range(n + 1):
        t = (first + k - 0.5) / sigma
        gauss = norm * exp(-0.5 * t * t)
        before, hermite = 0.0, 1.0
        value = 0.5 * erf(t / sqrt(2.0))
        for i in range(degree):
            if i > 0:
                value = -hermite * gauss
                before, hermite = hermite, t * hermite - (i - 1) * before
            if k < n:
                out[i, k] = -value
            if k > 0:
                out[i, k - 1] += value
