"""What a two-dimensional extraction must obey whatever the data: linearity, scale, exact reconvolution, neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.extraction import Extracted, extract_spectra
from algorithms.extract.spectroperfect.spots import make_spots
from algorithms.extract.spectroperfect.system import project
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]
Float = NDArray[np.float32]

NX, NY, STEP, NWAVE, MARGIN = 60, 120, 0.8, 40, 14
WAVE = 6015.0 + STEP * np.arange(NWAVE)
LONGER = WAVE[0] + STEP * np.arange(-MARGIN, NWAVE + MARGIN)
BUNDLE = np.array([0, 4])
FEW = settings(max_examples=15, deadline=None)


def camera(tail: float = 0.0) -> GaussHermitePSF:
    """Four fibers 7.3 pixels apart, the first so close to the edge of the CCD that its spots reach beyond."""
    xcoef, ycoef = np.zeros((4, 2)), np.zeros((4, 2))
    xcoef[:, 0], xcoef[:, 1] = 5.0 + 7.3 * np.arange(4), 0.3
    ycoef[:, 0], ycoef[:, 1] = NY / 2 + 0.4 * np.arange(4), NY / 2
    coef = {"GHSIGX": np.full((4, 1), 1.05), "GHSIGY": np.full((4, 1), 1.15), "GH-4-0": np.full((4, 1), -0.01)}
    if tail:
        coef |= {"TAILAMP": np.full((4, 1), tail)}
    traces = XYTraceSet(xcoef, ycoef, 6000.0, 6000.0 + 0.56 * NY, NY, coef["GHSIGX"], coef["GHSIGY"])
    return GaussHermitePSF(traces, coef, 6000.0, 6000.0 + 0.56 * NY, ghdegx=4, ghdegy=4, hsizex=8, hsizey=6)


def painted(psf: GaussHermitePSF, flux: Array) -> Float:
    """The image of (4, nwave) electrons on the longer grid."""
    spots, image = make_spots(psf, 0, 4, LONGER), np.zeros((NY, NX))
    project(spots.image, spots.row, spots.column, np.ascontiguousarray(flux.T), image)
    return image.astype(np.float32)


def spectra(seed: int) -> Array:
    rng = np.random.default_rng(seed)
    flux = rng.uniform(20, 200, (4, LONGER.size)) * 10 ** rng.uniform(-1, 1, (4, 1))
    flux[:, rng.integers(MARGIN, NWAVE, 3)] += 3000
    return flux


def weights(seed: int, holes: float) -> Float:
    """Inverse variances that differ from pixel to pixel, and are 0 for a share `holes` of them."""
    rng = np.random.default_rng(seed)
    ivar = 1 / rng.uniform(5, 50, (NY, NX))
    return np.where(rng.random((NY, NX)) < holes, 0.0, ivar).astype(np.float32)


def noise(seed: int, ivar: Float) -> Float:
    sigma = np.where(ivar > 0, 1 / np.sqrt(np.where(ivar > 0, ivar, 1)), 1e4)
    return (np.random.default_rng(seed + 1000).normal(size=ivar.shape) * sigma).astype(np.float32)


def extracted(pix: Float, ivar: Float, psf: GaussHermitePSF | None = None, **given: object) -> Extracted:
    return extract_spectra(pix, ivar, psf or camera(), WAVE, BUNDLE, **given)  # type: ignore[arg-type]


def assert_within(found: Array, expected: Array, ivar: Array, sigma: float) -> None:
    assert np.abs((found - expected) * np.sqrt(ivar)).max() < sigma


@FEW
@given(seed=st.integers(0, 1000), holes=st.sampled_from([0.0, 0.02, 0.1]))
def test_flux_of_a_noiseless_image_is_the_resolution_times_the_light(seed: int, holes: float) -> None:
    """Holes and weights cost information and resolution, never the truth of F = R x."""
    light, ivar = spectra(seed), weights(seed, holes)
    out = extracted(painted(camera(), light), ivar)
    for f in range(4):
        expected = Resolution(out.resolution[f]) @ (light[f, MARGIN:-MARGIN] / STEP)
        inside = slice(MARGIN, -MARGIN)  # beyond, the resolution reaches over the ends of the grid
        # of lines of 150 sigma, what the bands of the resolution leave out beyond 9 widths
        assert_within(out.flux[f, inside], expected[inside], out.ivar[f, inside], 0.1)


@FEW
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_units_do_not_matter(seed: int, scale: float) -> None:
    ivar = weights(seed, 0.02)
    pix = painted(camera(), spectra(seed)) + noise(seed, ivar)
    one, two = extracted(pix, ivar), extracted(np.float32(scale) * pix, ivar / np.float32(scale) ** 2)
    assert_within(two.flux / scale, one.flux, one.ivar, 1e-3)
    np.testing.assert_allclose(two.ivar * scale**2, one.ivar, rtol=1e-4)
    np.testing.assert_allclose(two.resolution, one.resolution, atol=1e-5)


@FEW
@given(seed=st.integers(0, 1000))
def test_images_add_up(seed: int) -> None:
    """With given weights the flux is linear in the pixels, so that noise in is noise out without bias."""
    ivar = weights(seed, 0.02)
    one, two = painted(camera(), spectra(seed)), noise(seed, ivar)
    flux = [extracted(pix, ivar).flux for pix in (one, two, one + two)]
    assert_within(flux[0] + flux[1], flux[2], extracted(one, ivar).ivar, 1e-3)


@FEW
@given(seed=st.integers(0, 1000), holes=st.sampled_from([0.0, 0.1]))
def test_rows_of_the_resolution_sum_to_one_and_errors_are_finite(seed: int, holes: float) -> None:
    out = extracted(painted(camera(), spectra(seed)), weights(seed, holes))
    assert np.isfinite(out.flux).all()
    assert (out.ivar > 0).all()
    for f in range(4):
        rows = np.asarray(Resolution(out.resolution[f]).dense()).sum(axis=1)[MARGIN:-MARGIN]
        np.testing.assert_allclose(rows, 1.0, atol=2e-3)


def test_more_noise_costs_what_it_must() -> None:
    ivar = weights(5, 0.0)
    pix = painted(camera(), spectra(5))
    np.testing.assert_allclose(extracted(pix, ivar / 4).ivar, extracted(pix, ivar).ivar / 4, rtol=1e-4)


def test_pulls_are_normal_at_the_edge_of_the_ccd_and_in_dead_fibers_too() -> None:
    light = spectra(3)
    light[2] = 0.0
    pulls = []
    for seed in range(20):
        ivar = weights(seed, 0.02)
        out = extracted(painted(camera(), light) + noise(seed, ivar), ivar)
        expected = np.array([Resolution(out.resolution[f]) @ (light[f, MARGIN:-MARGIN] / STEP) for f in range(4)])
        pulls.append(((out.flux - expected) * np.sqrt(out.ivar))[:, MARGIN:-MARGIN])
    for f, pull in enumerate(np.stack(pulls, axis=1)):
        print(f"fiber {f}: mean {pull.mean():+.3f}, width {pull.std():.3f}, n {pull.size}")
        assert abs(pull.mean()) < 4.5 / np.sqrt(pull.size)
        assert pull.std() == pytest.approx(1, abs=4.5 / np.sqrt(2 * pull.size))


def test_tails_of_the_psf_are_in_the_spots() -> None:
    """Of a light that is a tenth in the tail, flux is what was sent; without it, what is in the core and more."""
    tailed, light = camera(tail=4e-3), np.full((4, LONGER.size), 500.0)
    pix, ivar = painted(tailed, light), weights(1, 0.0)
    with_tail, without = extracted(pix, ivar, tailed), extracted(pix, ivar, camera())
    inside = slice(MARGIN, -MARGIN)
    np.testing.assert_allclose(with_tail.flux[:, inside], 500 / STEP, rtol=1e-3)
    assert (without.flux[1:3, inside] > 1.02 * 500 / STEP).all()
    assert np.median(without.chi2pix) > 5 * np.median(with_tail.chi2pix)


def test_the_error_of_the_psf_can_count_where_light_is_bright() -> None:
    light = np.full((4, LONGER.size), 30.0)
    light[:, MARGIN + 20] = 1e6
    pix, ivar = painted(camera(), light), weights(2, 0.0)
    plain, granted = extracted(pix, ivar), extracted(pix, ivar, psf_error=0.02, weigh_psf_error=True)
    faint = np.abs(np.arange(NWAVE) - 20) > 14
    np.testing.assert_allclose(granted.ivar[:, faint], plain.ivar[:, faint], rtol=0.05)
    snr = granted.flux[:, 20] * np.sqrt(granted.ivar[:, 20])
    print(f"S/N of the line {plain.flux[1, 20] * np.sqrt(plain.ivar[1, 20]):.0f} by its photons, {snr[1]:.0f} granted")
    assert (snr < 5 / 0.02).all()  # a line is some ten pixels, each good to 2 %
    assert (snr > 1 / 0.02).all()


def test_masks_say_what_is_lost() -> None:
    light, ivar = spectra(7), weights(7, 0.0)
    psf = camera()
    y = np.rint(psf.traces.y_vs_wave(WAVE[[10, 30]])).astype(int)
    x = np.rint(psf.traces.x_vs_wave(WAVE[[10, 30]])).astype(int)
    ivar[y[1, 0] - 9 : y[1, 0] + 10, x[1, 0] - 12 : x[1, 0] + 13] = 0.0  # all of a spot
    ivar[y[3, 1] - 8 : y[3, 1] + 9, x[3, 1] - 9 : x[3, 1] + 1] = 0.0  # its brighter half
    pix = painted(psf, light)
    pix[y[0, 1], x[0, 1]] += 1e5
    out = extracted(pix, ivar)
    some, lost, wrong = (int(SpecMask[name]) for name in ("SOMEBADPIX", "ALLBADPIX", "BAD2DFIT"))
    assert out.mask[1, 10] & (some | lost) == some | lost
    assert out.ivar[1, 10] == 0
    assert out.mask[3, 30] & (some | lost) == some
    assert out.ivar[3, 30] > 0
    assert out.mask[0, 30] & wrong
    assert (out.mask[2, 18:24] == 0).all()


def test_a_bundle_does_not_see_its_neighbours_columns() -> None:
    """Bundles are solved one by one: what is beyond the reach of the spots changes nothing."""
    ivar, light = weights(4, 0.0), spectra(4)
    pix = painted(camera(), light)
    other = pix.copy()
    other[:, int(camera().traces.x_vs_wave(WAVE).max()) + 10 :] += 1e6
    np.testing.assert_array_equal(extracted(pix, ivar).flux, extracted(other, ivar).flux)
