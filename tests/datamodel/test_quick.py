"""The quick resolution matrix and the quick PSF: views of the same numbers as their full forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from qlstream.datamodel.quickpsf import QuickPSF
from qlstream.datamodel.quickresolution import QuickResolution
from qlstream.datamodel.resolution import Resolution, gaussian_bands
from qlstream.instrument import load_instrument
from qlstream.numeric import legendre
from qlstream.simulate.optics import build_optics


def test_bands_are_integrals_of_the_gaussian_over_the_bins_and_columns_keep_their_flux():
    sigma = np.linspace(0.6, 1.4, 50)

    resolution = QuickResolution(sigma=sigma, ndiag=9)

    d = resolution.offsets[:, None]
    formula = 0.5 * (erf((d + 0.5) / np.sqrt(2) / sigma) - erf((d - 0.5) / np.sqrt(2) / sigma))
    np.testing.assert_allclose(resolution.data, formula / formula.sum(axis=0), rtol=1e-10)
    np.testing.assert_allclose(resolution.data.sum(axis=0), 1.0, rtol=1e-12)
    inside = resolution.dense()[:, 4:-4]
    np.testing.assert_allclose(inside.sum(axis=0), 1.0, rtol=1e-12)


def test_light_of_the_outermost_bins_leaves_the_spectrum():
    dense = QuickResolution(sigma=np.full(40, 1.0), ndiag=9).dense()

    # half a bin of the Gaussian is left of the outer edge of the first bin
    assert dense[:, 0].sum() == pytest.approx(0.5 * (1 + erf(0.5 / np.sqrt(2))), rel=1e-4)


def test_an_offset_moves_every_line_towards_smaller_indices():
    moved = QuickResolution(sigma=np.full(60, 1.1), ndiag=15, mu=0.4).dense()

    assert np.arange(60) @ moved[:, 30] == pytest.approx(29.6, abs=1e-4)


def test_widths_may_come_as_a_series_over_wavelength():
    wave, domain = np.linspace(5760.0, 7620.0, 80), (5600.0, 7800.0)
    coefficients = np.array([1.3, 0.1, -0.05])

    resolution = QuickResolution(coefficients=coefficients, wavelengths=wave, domain=domain, ndiag=11)

    sigma = legendre.evaluate(coefficients[None, :], legendre.reduced(wave, *domain))[0]
    np.testing.assert_allclose(resolution.data, Resolution.from_widths(sigma, 11).data)


def test_many_spectra_have_the_bands_of_each():
    sigma = np.random.default_rng(1).uniform(0.5, 2.0, (3, 20))

    bands = gaussian_bands(sigma, 21)

    assert bands.shape == (3, 21, 20)
    assert bands.dtype == np.float32
    for i in range(3):
        np.testing.assert_allclose(bands[i], Resolution.from_widths(sigma[i]).data, atol=1e-7)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sigma": np.ones(5), "ndiag": 8}, "odd"),
        ({}, "needs sigma, or coefficients and wavelengths"),
        ({"coefficients": [1.0]}, "needs sigma, or coefficients and wavelengths"),
        ({"sigma": np.zeros(5)}, "positive"),
    ],
)
def test_what_cannot_make_a_matrix_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        QuickResolution(**given)


@pytest.fixture(scope="module")
def traces():
    return build_optics(load_instrument("mini"), "r1", seed=3).traces


def test_the_quick_psf_gives_what_the_traces_give(traces):
    psf, wave = QuickPSF(traces), np.linspace(5800.0, 7600.0, 7)

    np.testing.assert_allclose(psf.x([3, 8], wave), traces.x_vs_wave(wave)[[3, 8]])
    np.testing.assert_allclose(psf.y(5, wave), traces.y_vs_wave(wave)[5])
    np.testing.assert_allclose(psf.xsigma(None, wave), traces.xsig_vs_wave(wave))
    np.testing.assert_allclose(psf.ysigma(None, 6000.0), traces.ysig_vs_wave(np.array([6000.0]))[:, 0])
    assert np.ndim(psf.x(4, 6000.0)) == 0
    assert psf.x().shape == (traces.nspec, traces.npix_y)


def test_wavelength_is_the_inverse_of_y_and_its_slope_the_angstroms_per_pixel(traces):
    psf, rows = QuickPSF(traces), np.array([20.0, 100.5, 480.0])

    wave = psf.wavelength(7, rows)

    np.testing.assert_allclose(psf.y(7, wave), rows, atol=1e-6)
    slope = (psf.wavelength(7, rows + 0.5) - psf.wavelength(7, rows - 0.5)) / 1.0
    np.testing.assert_allclose(psf.angstroms_per_pixel(7, wave), slope, rtol=1e-5)
    np.testing.assert_allclose(psf.y()[:, 10], 10.0, atol=1e-6)  # at the wavelengths of all rows
