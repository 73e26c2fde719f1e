"""Two-dimensional extraction of all fibers of an image, bundle by bundle."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.marginal import marginal_precisions
from algorithms.extract.spectroperfect.spots import Spots, make_spots
from algorithms.extract.spectroperfect.system import normal_equations, project, spot_averages
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.numeric.decorrelation import decorrelate

Array = NDArray[np.float64]

_BAD_FIT = 100.0  # chi2 per pixel above which a bin is BAD2DFIT (spec offline-reduction §4.4)


@dataclass(frozen=True)
class Extracted:
    """Spectra of all fibers on one grid.

    Attributes
    ----------
    flux, ivar : (nspec, nwave) float64 [electron/Angstrom]; the bins of a fiber are uncorrelated
    mask : (nspec, nwave) uint32, SpecMask bits
    resolution : (nspec, ndiag, nwave) float64, bands as in `Resolution`
    chi2pix : (nspec, nwave) float64, mean chi2 of the pixels under each bin's spot
    model : (ny, nx) float32, what the spectra make on the CCD [electron], or None
    """

    flux: Array
    ivar: Array
    mask: NDArray[np.uint32]
    resolution: Array
    chi2pix: Array
    model: NDArray[np.float32] | None


def extract_spectra(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    psf: GaussHermitePSF,
    wave: Array,
    bundles: NDArray[np.int64],
    regularize: float = 0.0,
    psf_error: float = 0.01,
    weigh_psf_error: bool = False,
    doppler: float = 1.0,
    want_model: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Extracted:
    """Flux of every fiber whose bins are uncorrelated, with resolution (spec offline-reduction §4).

    Each bundle is solved as a whole, over all wavelengths at once (see `system`), on a grid that is longer than `wave`
    by the height of a spot at both ends, so that light from beyond its ends is not taken for light inside.

    Parameters
    ----------
    pix, ivar : (ny, nx) [electron], [electron^-2]; ivar 0 takes a pixel out
    psf : spots of all fibers
    wave : (nwave,) evenly spaced [Angstrom]
    bundles : first fiber of each bundle and, last, the number of fibers; bundles are too far apart to share light
    regularize : prior that pulls deconvolved fluxes to zero [1/electron]
    psf_error : relative error of the PSF: what chi2pix grants the model image
    weigh_psf_error : the bundles are solved a second time, with that share of the first model in the variance of every
        pixel; so bright lines weigh less, and their ivar says what the PSF is worth. The reference never does
    doppler : 1 + v/c of the observer; the spots are those of wave / doppler (spec §4.5)
    progress : told the number of bundles done

    Raises
    ------
    ValueError : shapes differ, or the grid is not evenly spaced
    """
    if pix.shape != ivar.shape:
        raise ValueError(f"extract_spectra: pix {pix.shape} and ivar {ivar.shape} differ")
    step = np.diff(wave)
    if wave.size < 3 or not np.allclose(step, step[0], rtol=1e-5) or step[0] <= 0:
        raise ValueError("extract_spectra: wave must be an evenly spaced, increasing grid of 3 or more [Angstrom]")
    dwave = float(step[0])
    half = _half_diagonals(psf, wave, dwave)
    margin = _margin(psf, wave, dwave)
    before, after = dwave * np.arange(-margin, 0), dwave * np.arange(1, margin + 1)
    grid = np.concatenate([wave[0] + before, wave, wave[-1] + after]) / doppler
    core = slice(margin, margin + wave.size)
    shape = (psf.nspec, wave.size)
    flux, inverse, chi2 = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    mask = np.zeros(shape, np.uint32)
    resolution = np.zeros((psf.nspec, 2 * half + 1, wave.size))
    model = np.zeros(pix.shape, np.float32) if want_model else None
    for number, (first, last) in enumerate(itertools.pairwise(bundles.tolist())):
        spots = make_spots(psf, first, last, grid)
        columns = _columns(spots, pix.shape[1])
        here = Spots(spots.image, spots.row, spots.column - columns.start)
        data, weight = pix[:, columns], ivar[:, columns]
        precisions, deconvolved, made = _solved(here, data, weight, regularize)
        if weigh_psf_error:
            weight = _with_psf_error(weight, made, psf_error)
            precisions, deconvolved, made = _solved(here, data, weight, regularize)
        take = slice(first, last)
        f, i, r = decorrelate(precisions, deconvolved, 2 * half + 1)
        flux[take], inverse[take], resolution[take] = f[:, core], i[:, core], r[:, :, core]
        chi2[take], bad = _goodness(here, data, _with_psf_error(ivar[:, columns], made, psf_error), made, core)
        mask[take] = _bits(chi2[take], bad)
        if model is not None:
            model[:, columns] += made
        progress(number + 1)
    inverse[mask & np.uint32(SpecMask.ALLBADPIX) != 0] = 0.0
    _trim(resolution)
    return Extracted(flux / dwave, inverse * dwave**2, mask, resolution, chi2, model)


def _half_diagonals(psf: GaussHermitePSF, wave: Array, dwave: float) -> int:
    """Bins on either side that a resolution row needs: 9 sigma of the widest spot, since rows ring (spec §4.3)."""
    at = wave[[0, wave.size // 2, -1]]
    fibers = psf.select(slice(0, None, max(1, (psf.nspec - 1) // 2)))
    sigma = fibers.parameter("GHSIGY", at) / fibers.traces.dy_dwave(at)
    return int(np.clip(np.ceil(9.0 * sigma.max() / dwave), 2, wave.size // 2))


def _margin(psf: GaussHermitePSF, wave: Array, dwave: float) -> int:
    """Bins whose spots reach into the grid from outside."""
    ends = psf.traces.dy_dwave(wave[[0, -1]])
    return int(np.ceil((2 * psf.hsizey + 1) / (ends.min() * dwave)))


def _columns(spots: Spots, nx: int) -> slice:
    """CCD columns that the bundle covers."""
    first = int(np.clip(spots.column.min(), 0, nx))
    return slice(first, int(np.clip(spots.column.max() + spots.image.shape[3], first, nx)))


def _solved(
    spots: Spots, pix: NDArray[np.float32], ivar: NDArray[np.float32], regularize: float
) -> tuple[list[Array], Array, NDArray[np.float32]]:
    """Per fiber the band of its precision, (nwave, nfiber) deconvolved flux, and the image that it makes."""
    equations = normal_equations(spots, pix, ivar, regularize)
    precisions = marginal_precisions(equations)
    deconvolved = equations.solve()
    made = np.zeros(pix.shape, np.float32)
    project(spots.image, spots.row, spots.column, deconvolved, made)
    return precisions, deconvolved, made


def _with_psf_error(ivar: NDArray[np.float32], model: NDArray[np.float32], psf_error: float) -> NDArray[np.float32]:
    """`ivar` with the square of a share of the model added to the variance."""
    return np.asarray(ivar / (1.0 + ivar * np.square(np.float32(psf_error) * model)), dtype=np.float32)


def _goodness(
    spots: Spots, pix: NDArray[np.float32], ivar: NDArray[np.float32], model: NDArray[np.float32], core: slice
) -> tuple[Array, Array]:
    """(nfiber, nwave) chi2 per pixel and share of the light on bad pixels."""
    out = np.zeros((2, *spots.row.shape))
    spot_averages(spots.image, spots.row, spots.column, (pix - model) ** 2 * ivar, ivar > 0, out)
    return out[0, core].T, out[1, core].T


def _bits(chi2: Array, bad: Array) -> NDArray[np.uint32]:
    bits = np.zeros(chi2.shape, np.uint32)
    bits[bad > 0.5] |= np.uint32(SpecMask.SOMEBADPIX)
    bits[bad >= 1.0 - 1e-9] |= np.uint32(SpecMask.ALLBADPIX)
    bits[chi2 > _BAD_FIT] |= np.uint32(SpecMask.BAD2DFIT)
    return bits


def _trim(resolution: Array) -> None:
    """Zero what the bands hold of bins beyond the ends of the grid, which the longer grid had."""
    ndiag, nwave = resolution.shape[1:]
    for k in range(ndiag):
        offset = ndiag // 2 - k
        if offset > 0:
            resolution[:, k, :offset] = 0.0
        elif offset < 0:
            resolution[:, k, nwave + offset :] = 0.0
