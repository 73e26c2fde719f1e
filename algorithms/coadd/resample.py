"""Spectra on another grid: quickly bin by bin, or with their information kept (spec offline-reduction §11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.spectra import Band, Spectra
from qlstream.numeric.banded import factorize, solve
from qlstream.numeric.decorrelation import decorrelate
from qlstream.numeric.resample import resample_flux

Array = NDArray[np.float64]

_RIDGE = 1e-9  # of the largest information: a finer grid than the data's leaves combinations that nothing determines


def linear_grid(start: float, stop: float, step: float) -> Array:
    """Bin centres from start to stop [Angstrom], both included up to rounding."""
    count = int(np.floor((stop - start) / step + 1e-6)) + 1
    return np.asarray(start + step * np.arange(count), dtype=np.float64)


def log_grid(start: float, stop: float, step: float) -> Array:
    """Bin centres evenly spaced in log10(wave), from start to stop [Angstrom]."""
    return np.asarray(10 ** linear_grid(np.log10(start), np.log10(stop), step))


def resample_spectra(spectra: Spectra, wave: Array) -> Spectra:
    """All bands of each spectrum on one grid, by the flux-conserving rule; correlations between bins are ignored.

    Bands overlap with their inverse variances. The resolution becomes the unit matrix.
    """
    shape = (len(spectra), wave.size)
    total, flux = np.zeros(shape), np.zeros(shape)
    for band in spectra.bands.values():
        weight = np.where(band.mask == 0, band.ivar, 0.0)
        for k in range(len(spectra)):
            value, inverse = resample_flux(wave, band.wave, band.flux[k], weight[k])
            flux[k] += value * inverse
            total[k] += inverse
    flux /= np.where(total > 0, total, 1.0)
    unit = np.ones((shape[0], 1, wave.size))
    return _of_one_band(spectra, Band(wave, flux, total, np.zeros(shape, np.uint32), unit))


def spectroperf_resample(spectra: Spectra, wave: Array) -> Spectra:
    """All bands of each spectrum as one, on a grid whose bins are again uncorrelated, with its resolution.

    Every bin of every band is the new grid's spectrum, interpolated linearly, seen through the band's resolution. The
    least squares for it is banded; its solution is decorrelated as an extraction is (see `numeric.decorrelation`), over
    all wavelengths at once instead of in blocks.

    Raises
    ------
    ValueError : a band has no resolution
    """
    rows = [[(band, k) for band in spectra.bands.values()] for k in range(len(spectra))]
    return _of_one_band(spectra, _combined(rows, wave))


def spectroperf_coadd(spectra: Spectra, wave: Array) -> Spectra:
    """As `spectroperf_resample`, with all rows of a target in one fit: a coadd without resampling."""
    targets = spectra.target_ids()
    of_target = [np.flatnonzero(spectra.fibermap["TARGETID"] == t) for t in targets]
    rows = [[(band, int(k)) for band in spectra.bands.values() for k in index] for index in of_target]
    first = spectra[np.array([index[0] for index in of_target])]
    return _of_one_band(first, _combined(rows, wave))


def _of_one_band(spectra: Spectra, band: Band) -> Spectra:
    name = "".join(sorted(spectra.bands, key=lambda n: spectra.bands[n].wave[0]))
    return replace(spectra, bands={name: band})


def _combined(rows: Sequence[Sequence[tuple[Band, int]]], wave: Array) -> Band:
    bands = {id(band): band for parts in rows for band, _ in parts}
    for band in bands.values():
        if band.resolution is None:
            raise ValueError("spectroperf: a band came without resolution; resample_spectra needs none")
    width = _width(list(bands.values()), wave)
    ndiag = 2 * (width - 1) + 1
    shape = (len(rows), wave.size)
    flux, ivar, resolution = np.zeros(shape), np.zeros(shape), np.zeros((shape[0], ndiag, shape[1]))
    for n, parts in enumerate(rows):
        normal, rhs = np.zeros((wave.size, width)), np.zeros(wave.size)
        for band, k in parts:
            assert band.resolution is not None
            weight = np.where(band.mask[k] == 0, band.ivar[k], 0.0)
            _gather(band.wave, band.flux[k], weight, band.resolution[k], wave, normal, rhs)
        most = max(float(normal[:, 0].max()), 1e-30)
        known = normal[:, 0] > 1e-6 * most
        precision = normal.copy()
        precision[:, 0] += _RIDGE * most
        factor = precision.copy()
        factorize(factor)
        solve(factor, rhs)
        f, i, r = decorrelate([precision], rhs[:, None], ndiag)
        flux[n], ivar[n], resolution[n] = np.where(known, f[0], 0.0), np.where(known, i[0], 0.0), r[0]
    return Band(wave, flux, ivar, np.zeros(shape, np.uint32), resolution)


def _width(bands: Sequence[Band], wave: Array) -> int:
    """How many neighbours of the new grid one old bin can see, itself included."""
    widest = 2
    for band in bands:
        assert band.resolution is not None
        half = band.resolution.shape[1] // 2
        step = np.diff(band.wave).max()
        inside = (wave >= band.wave[0] - step) & (wave <= band.wave[-1] + step)
        fine = np.diff(wave[inside]).min() if inside.sum() > 1 else np.diff(wave).min()
        widest = max(widest, int(np.ceil((2 * half + 1) * step / fine)) + 3)
    return widest


@njit(nogil=True, cache=True)
def _gather(wave, flux, weight, resolution, grid, normal, rhs):  # type: ignore[no-untyped-def]
    ndiag, n = resolution.shape
    half = ndiag // 2
    width = normal.shape[1]
    row = np.zeros(grid.size)
    for i in range(n):
        if weight[i] <= 0.0:
            continue
        first, last = grid.size, -1
        for j in range(max(0, i - half), min(n, i + half + 1)):
            value = resolution[half + i - j, j]  # R[i, j]
            x = wave[j]
            if value == 0.0 or not grid[0] <= x <= grid[-1]:
                continue
            m = min(np.searchsorted(grid, x, side="right") - 1, grid.size - 2)
            t = (x - grid[m]) / (grid[m + 1] - grid[m])
            row[m] += value * (1.0 - t)
            row[m + 1] += value * t
            first, last = min(first, m), max(last, m + 1)
        for a in range(first, last + 1):
            part = weight[i] * row[a]
            rhs[a] += part * flux[i]
            for b in range(a, min(last + 1, a + width)):
                normal[a, b - a] += part * row[b]
        for a in range(first, last + 1):
            row[a] = 0.0
