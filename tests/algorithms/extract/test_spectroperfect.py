"""The banded extraction against dense linear algebra, and against known spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.extraction import extract_spectra
from algorithms.extract.spectroperfect.marginal import marginal_precisions
from algorithms.extract.spectroperfect.spots import Spots, make_spots
from algorithms.extract.spectroperfect.system import normal_equations, project
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric.decorrelation import decorrelate, root_terms

Array = NDArray[np.float64]

NY, STEP = 160, 0.8
BUNDLE = np.array([0, 5])


def small_psf(nspec: int = 5, spacing: float = 7.3, nx: int = 60) -> GaussHermitePSF:
    """Straight traces of 0.56 Angstrom a row, with a slant, Hermite terms and a tail."""
    xcoef, ycoef = np.zeros((nspec, 3)), np.zeros((nspec, 3))
    xcoef[:, 0] = 12.0 + spacing * np.arange(nspec)
    xcoef[:, 1] = 0.4
    wavemin, wavemax = 6000.0, 6000.0 + 0.56 * NY
    ycoef[:, 0], ycoef[:, 1], ycoef[:, 2] = NY / 2 + 0.3 * np.arange(nspec), NY / 2, 0.5
    widths = {name: np.zeros((nspec, 2)) for name in ("GHSIGX", "GHSIGY", "GH-4-0", "GH-0-4", "GH-1-2", "TAILAMP")}
    widths["GHSIGX"][:] = (1.05, 0.03)
    widths["GHSIGY"][:] = (1.12, -0.04)
    widths["GH-4-0"][:, 0], widths["GH-0-4"][:, 0], widths["GH-1-2"][:, 0] = -0.01, 0.012, 0.004
    widths["TAILAMP"][:, 0] = 5e-4
    traces = XYTraceSet(xcoef, ycoef, wavemin, wavemax, NY, widths["GHSIGX"], widths["GHSIGY"])
    return GaussHermitePSF(traces, widths, wavemin, wavemax, ghdegx=4, ghdegy=4, hsizex=8, hsizey=6)


@dataclass
class Dense:
    """The same equations without their band structure."""

    matrix: Array
    x: Array
    covariance: Array


def dense(spots: Spots, pix: Array, ivar: Array) -> Dense:
    n = spots.row.size
    projection = np.zeros((*pix.shape, n))
    unit = np.zeros(spots.row.shape)
    for k in range(n):
        unit.flat[k] = 1.0
        project(spots.image, spots.row, spots.column, unit, projection[:, :, k])
        unit.flat[k] = 0.0
    flat = projection.reshape(-1, n)
    matrix = flat.T @ (ivar.reshape(-1, 1) * flat)
    covariance = np.linalg.inv(matrix)
    return Dense(matrix, covariance @ (flat.T @ (ivar * pix).ravel()), covariance)


def observe(spots: Spots, flux: Array, seed: int = 1, nx: int = 60) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    image = np.zeros((NY, nx))
    project(spots.image, spots.row, spots.column, flux, image)
    variance = np.maximum(image, 0) + 9.0
    noise = np.random.default_rng(seed).normal(size=image.shape) * np.sqrt(variance)
    return (image + noise).astype(np.float32), (1 / variance).astype(np.float32)


def light(nwave: int, nfiber: int) -> Array:
    flux = np.random.default_rng(3).uniform(60.0, 140.0, (nwave, nfiber))
    flux[nwave // 3] += 3000.0
    return flux


def test_spots_are_those_of_the_psf() -> None:
    psf = small_psf()
    wave = np.array([6020.3, 6050.0])
    spots = make_spots(psf, 1, 4, wave)
    for k, f in ((0, 2), (1, 0)):
        rows, columns, image = psf.spot(1 + f, float(wave[k]))
        assert (rows.start, columns.start) == (spots.row[k, f], spots.column[k, f])
        np.testing.assert_allclose(spots.image[k, f], image, atol=1e-12)


def test_the_band_solves_the_same_equations_as_the_dense_matrix() -> None:
    psf = small_psf(4)
    spots = make_spots(psf, 0, 4, 6020.0 + STEP * np.arange(60))
    pix, ivar = observe(spots, light(60, 4))
    ivar[70:73, 10:30] = 0.0  # a hole in the data is in both
    expected = dense(spots, pix, ivar)
    equations = normal_equations(spots, pix, ivar)
    for d in range(equations.band.shape[1]):
        k = np.arange(240 - d)
        np.testing.assert_allclose(equations.band[k, d], expected.matrix[k, k + d], atol=1e-9 * expected.matrix.max())
    np.testing.assert_allclose(equations.solve().ravel(), expected.x, rtol=1e-6, atol=1e-6 * abs(expected.x).max())


@pytest.mark.parametrize(("spacing", "tolerance"), [(7.3, 1e-5), (4.2, 1e-3)])
def test_flux_ivar_and_resolution_are_those_of_the_dense_square_root(spacing: float, tolerance: float) -> None:
    """At 4.2 pixels neighbours share 2 % of their light; the band of the Schur complement is right to its square."""
    nwave = 60
    psf = small_psf(4, spacing)
    spots = make_spots(psf, 0, 4, 6020.0 + STEP * np.arange(nwave))
    pix, ivar = observe(spots, light(nwave, 4))
    expected = dense(spots, pix, ivar)
    equations = normal_equations(spots, pix, ivar)
    precisions = marginal_precisions(equations)
    flux, inverse, resolution = decorrelate(precisions, equations.solve(), 2 * nwave - 1)
    for f in range(4):
        values, vectors = np.linalg.eigh(expected.covariance[f::4, f::4])
        root = (vectors / np.sqrt(values)) @ vectors.T
        s = root.sum(axis=1)
        exact = root / s[:, None]
        np.testing.assert_allclose(inverse[f], s**2, rtol=tolerance)
        np.testing.assert_allclose(Resolution(resolution[f]).dense(), exact, atol=tolerance)
        sigma = (flux[f] - exact @ expected.x[f::4]) * s
        assert abs(sigma).max() < 100 * tolerance, "in sigma; x itself is some 30 sigma where lines stand"


def test_the_rational_root_is_the_root() -> None:
    low, high = 1e-6, 5.0
    shifts, factors = root_terms(low, high, 22)
    value = np.geomspace(low, high, 300)
    root = (factors * (1 - shifts / (value[:, None] + shifts))).sum(axis=1)
    np.testing.assert_allclose(root, np.sqrt(value), rtol=1e-8)


def test_extracted_flux_is_the_reconvolved_truth_within_its_noise() -> None:
    psf = small_psf()
    wave = 6012.0 + STEP * np.arange(80)
    margin = 12
    grid = 6012.0 + STEP * np.arange(-margin, 80 + margin)
    truth = light(grid.size, 5)
    spots = make_spots(psf, 0, 5, grid)
    pulls, products = [], []
    for seed in range(12):
        pix, ivar = observe(spots, truth, seed)
        out = extract_spectra(pix, ivar, psf, wave, BUNDLE)
        for f in range(5):
            # of a resolution that the ends of the grid cut off, nothing is known
            expected = Resolution(out.resolution[f]) @ (truth[margin:-margin, f] / STEP)
            pull = ((out.flux[f] - expected) * np.sqrt(out.ivar[f]))[margin:-margin]
            pulls.append(pull)
            products.append(pull[1:] * pull[:-1])
    pull = np.concatenate(pulls)
    correlation = float(np.concatenate(products).mean())
    print(f"pull mean {pull.mean():+.3f} std {pull.std():.3f}, lag-1 correlation {correlation:+.3f}, n {pull.size}")
    error = 1 / np.sqrt(pull.size)  # 0.017; the limits are 4 sigma
    assert abs(pull.mean()) < 4 * error
    assert abs(pull.std() - 1) < 4 * error / np.sqrt(2)
    assert abs(correlation) < 4 * error


def test_masked_pixels_cost_information_and_no_bias() -> None:
    psf = small_psf()
    wave = 6012.0 + STEP * np.arange(80)
    grid = 6012.0 + STEP * np.arange(-12, 92)
    truth = light(grid.size, 5)
    pix, ivar = observe(make_spots(psf, 0, 5, grid), truth)
    whole = extract_spectra(pix, ivar, psf, wave, BUNDLE)
    pix[60, 24:28], ivar[60, 24:28] = 1e6, 0.0  # a cosmic ray on fiber 2's core
    holed = extract_spectra(pix, ivar, psf, wave, BUNDLE)
    assert holed.ivar[2].sum() < whole.ivar[2].sum()
    change = (holed.flux - whole.flux) * np.sqrt(np.minimum(holed.ivar, whole.ivar))
    assert abs(change).max() < 4
    np.testing.assert_allclose(holed.flux[0], whole.flux[0], atol=0.05 / np.sqrt(whole.ivar[0]).min())


def test_a_bundle_without_data_has_no_information_and_says_so() -> None:
    psf = small_psf()
    wave = 6012.0 + STEP * np.arange(80)
    pix, ivar = np.zeros((NY, 60), np.float32), np.zeros((NY, 60), np.float32)
    out = extract_spectra(pix, ivar, psf, wave, BUNDLE)
    assert (out.ivar == 0).all()
    assert np.isfinite(out.flux).all()
    assert (out.mask & np.uint32(SpecMask.ALLBADPIX) != 0).all()


def test_bins_off_the_detector_have_no_information() -> None:
    psf = small_psf()
    wave = 5980.0 + STEP * np.arange(80)  # the first 20 Angstrom lie below the first row
    grid = wave[0] + STEP * np.arange(-12, 92)
    pix, ivar = observe(make_spots(psf, 0, 5, grid), light(grid.size, 5))
    out = extract_spectra(pix, ivar, psf, wave, BUNDLE)
    assert (out.ivar[:, :15] < 1e-3 * np.median(out.ivar)).all()
    assert np.isfinite(out.flux).all()
    assert np.isfinite(out.resolution).all()


def test_a_wrong_psf_shows_in_chi2() -> None:
    psf = small_psf()
    wave = 6012.0 + STEP * np.arange(80)
    grid = 6012.0 + STEP * np.arange(-12, 92)
    truth = 50 * light(grid.size, 5)
    pix, ivar = observe(make_spots(psf, 0, 5, grid), truth)
    good = extract_spectra(pix, ivar, psf, wave, BUNDLE)
    wide = small_psf()
    wide.coef["GHSIGX"][:, 0] *= 1.2
    wrong = extract_spectra(pix, ivar, wide, wave, BUNDLE)
    assert np.median(good.chi2pix) < 1.1
    assert np.median(wrong.chi2pix) > 3 * np.median(good.chi2pix)


def test_spectra_of_a_moving_observer_stand_on_the_same_grid() -> None:
    psf = small_psf()
    wave = 6012.0 + STEP * np.arange(80)
    doppler = 1.0001  # 30 km/s
    pix, ivar = observe(make_spots(psf, 0, 5, np.linspace(5995, 6092, 600)), np.full((600, 5), 12.0))
    line = make_spots(psf, 0, 5, np.array([6040.0 / doppler]))
    image = pix.astype(float)
    project(line.image, line.row, line.column, np.full((1, 5), 5000.0), image)
    out = extract_spectra(image.astype(np.float32), ivar, psf, wave, BUNDLE, doppler=doppler)
    centre = (out.flux[2] - np.median(out.flux[2])).clip(0) ** 2
    assert abs((centre * wave).sum() / centre.sum() - 6040.0) < 0.05


def test_an_uneven_grid_is_refused() -> None:
    pix = np.zeros((NY, 60), np.float32)
    with pytest.raises(ValueError, match="evenly spaced"):
        extract_spectra(pix, pix, small_psf(), np.array([6000.0, 6001.0, 6003.0]), BUNDLE)
