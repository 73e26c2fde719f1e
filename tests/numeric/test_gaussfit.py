import numpy as np
import pytest
from scipy.special import erf

from qlstream.numeric.gaussfit import fit_gaussians, fit_lines


def render(flux, center, sigma, constant, size):
    edges = np.arange(size + 1) - 0.5
    cdf = 0.5 * (1 + erf((edges - center[:, None]) / (np.sqrt(2) * sigma[:, None])))
    return flux[:, None] * np.diff(cdf, axis=1) + constant[:, None]


def test_noiseless_profiles_give_their_parameters_back():
    rng = np.random.default_rng(3)
    n = 200
    truth = rng.uniform(50, 5e4, n), rng.uniform(4.3, 5.7, n), rng.uniform(0.8, 2.0, n), rng.uniform(-5, 500, n)
    profiles = render(*truth, 11)

    fitted, good = fit_gaussians(profiles, np.ones_like(profiles), np.full(n, 5.0), np.full(n, 1.1))

    assert good.all()
    np.testing.assert_allclose(fitted[:, 1], truth[1], atol=1e-4)
    np.testing.assert_allclose(fitted[:, 2], truth[2], rtol=1e-3)
    np.testing.assert_allclose(fitted[:, 0], truth[0], rtol=5e-3)


def test_center_and_sigma_are_unbiased_on_a_pedestal_of_a_third_of_the_peak():
    rng = np.random.default_rng(4)
    n, sigma, flux = 4000, 1.1, 2000.0
    center = rng.uniform(4.5, 5.5, n)
    clean = render(np.full(n, flux), center, np.full(n, sigma), np.full(n, flux / 8), 11)
    variance = clean + 9.0

    fitted, good = fit_gaussians(
        clean + rng.normal(size=clean.shape) * np.sqrt(variance), 1 / variance, np.full(n, 5.0), np.full(n, 1.3)
    )

    shift, width = (fitted[good, 1] - center[good]), fitted[good, 2] / sigma - 1
    print(f"center bias {shift.mean():+.5f} pixel, scatter {shift.std():.4f}; sigma bias {width.mean():+.5f}")
    assert good.mean() > 0.99
    assert abs(shift.mean()) < 5 * shift.std() / np.sqrt(good.sum())
    assert abs(width.mean()) < 0.005  # second order in the noise: (relative error of sigma)^2 is about 0.002


def test_masked_samples_do_not_count():
    profile = render(np.array([1e4]), np.array([5.2]), np.array([1.2]), np.array([20.0]), 11)
    ivar = np.ones_like(profile)
    profile[0, 6], ivar[0, 6] = 1e6, 0.0

    fitted, good = fit_gaussians(profile, ivar, np.array([5.0]), np.array([1.0]))

    assert good[0]
    assert fitted[0] == pytest.approx([1e4, 5.2, 1.2, 20.0], rel=1e-3)


def test_too_few_samples_and_pure_noise_are_not_good():
    rng = np.random.default_rng(5)
    profiles = np.vstack([np.zeros(11), rng.normal(size=11) - 50])
    ivar = np.ones_like(profiles)
    ivar[0, 4:] = 0.0

    _, good = fit_gaussians(profiles, ivar, np.full(2, 5.0), np.full(2, 1.0))

    assert not good[0]


def test_errors_are_those_of_the_scatter_and_chi2_that_of_right_errors():
    rng = np.random.default_rng(6)
    n, sigma, flux = 3000, 1.1, 3000.0
    center = rng.uniform(4.5, 5.5, n)
    clean = render(np.full(n, flux), center, np.full(n, sigma), np.full(n, 20.0), 11)
    variance = clean + 9.0

    fits = fit_lines(
        clean + rng.normal(size=clean.shape) * np.sqrt(variance), 1 / variance, np.full(n, 5.0), np.full(n, 1.2)
    )

    truth = np.stack([np.full(n, flux), center, np.full(n, sigma), np.full(n, 20.0)], axis=1)
    pull = ((fits.parameters - truth) / fits.errors)[fits.good]
    print(f"pulls of flux, center, sigma, constant: mean {pull.mean(axis=0)}, std {pull.std(axis=0)}")
    assert fits.good.all()
    np.testing.assert_allclose(pull.std(axis=0), 1.0, atol=5 / np.sqrt(2 * n))
    assert (fits.dof == 7).all()
    assert fits.chi2.mean() == pytest.approx(7.0, abs=5 * np.sqrt(14 / n))


def test_the_core_width_of_a_gauss_hermite_profile_comes_out_if_its_wings_are_known():
    hermite = np.array([1.0, 0.0, 0.0, 0.01, 0.006, -0.003, 0.004])
    sigma, center, size = np.linspace(0.9, 1.8, 50), np.linspace(4.6, 5.4, 50), 11
    fine = np.linspace(-0.5, size - 0.5, size * 2000 + 1)  # integrated by brute force
    t = (0.5 * (fine[1:] + fine[:-1]) - center[:, None]) / sigma[:, None]
    series = np.polynomial.hermite_e.hermeval(t, hermite) * np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi) / sigma[:, None]
    profiles = 5000.0 * series.reshape(50, size, 2000).sum(axis=2) / 2000 + 30.0

    fits = fit_lines(profiles, np.ones_like(profiles), np.full(50, 5.0), np.full(50, 1.2), np.tile(hermite, (50, 1)))
    plain, _ = fit_gaussians(profiles, np.ones_like(profiles), np.full(50, 5.0), np.full(50, 1.2))

    assert fits.good.all()
    np.testing.assert_allclose(fits.parameters, np.stack([np.full(50, 5e3), center, sigma, np.full(50, 30.0)], 1), 1e-4)
    assert np.abs(plain[:, 2] / sigma - 1).max() > 0.01  # that is what it is for


def test_a_shape_of_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"hermite \(2, 7\)"):
        fit_lines(np.ones((3, 11)), np.ones((3, 11)), np.full(3, 5.0), np.ones(3), np.ones((2, 7)))
