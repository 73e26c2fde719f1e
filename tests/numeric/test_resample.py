from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlstream.numeric.resample import bin_edges, project_counts, project_flux, resample_flux


def uneven_grid(n=400, low=5000.0, high=5400.0):
    u = np.linspace(0, 1, n)
    return low + (high - low) * (u + 0.05 * u**2) / 1.05


def test_a_linear_density_is_resampled_exactly():
    x, xout = uneven_grid(), np.arange(5010.0, 5390.0, 1.7)

    out = resample_flux(xout, x, 3 + 0.01 * x)

    centre = 0.5 * (bin_edges(xout)[1:] + bin_edges(xout)[:-1])
    np.testing.assert_allclose(out, 3 + 0.01 * centre, rtol=1e-12)


@settings(deadline=None)  # the first call may compile
@given(step=st.floats(0.2, 30.0))
def test_the_integral_is_kept_whatever_the_bin_width(step):
    x = uneven_grid()
    flux = 5 + np.exp(-0.5 * ((x - 5200) / 2.0) ** 2) * 100
    xout = np.arange(4900.0, 5500.0, step)

    out = resample_flux(xout, x, flux)
    shared, _ = project_flux(xout, x, flux, np.ones_like(x))

    width = np.diff(bin_edges(xout))
    nodes = np.concatenate([[2 * x[0] - x[1]], x, [2 * x[-1] - x[-2]]])
    np.testing.assert_allclose((out * width).sum(), np.trapezoid(np.concatenate([[0], flux, [0]]), nodes), rtol=1e-10)
    np.testing.assert_allclose((shared * width).sum(), (flux * np.diff(bin_edges(x))).sum(), rtol=1e-10)


@settings(deadline=None, max_examples=30)
@given(step=st.floats(0.3, 40.0), beyond=st.floats(0.0, 300.0))
def test_extrapolation_goes_on_at_the_edge_values_and_changes_nothing_inside(step, beyond):
    x = uneven_grid()
    flux = 3 + 0.01 * x
    xout = np.arange(x[0] - beyond, x[-1] + beyond + 2 * step, step)

    out, plain = resample_flux(xout, x, flux, extrapolate=True), resample_flux(xout, x, flux)

    edges = bin_edges(xout)
    inside = (edges[:-1] >= x[0]) & (edges[1:] <= x[-1])
    np.testing.assert_allclose(out[inside], plain[inside], rtol=1e-10)
    np.testing.assert_allclose(out[edges[1:] <= x[0]], flux[0], rtol=1e-12)
    np.testing.assert_allclose(out[edges[:-1] >= x[-1]], flux[-1], rtol=1e-12)
    assert (plain[edges[1:] <= x[0] - (x[1] - x[0])] == 0).all()


def test_inverse_variances_are_not_extrapolated():
    x = uneven_grid()
    with pytest.raises(ValueError, match="cannot extrapolate ivar"):
        resample_flux(x, x, x, np.ones_like(x), extrapolate=True)


def test_weighted_resampling_ignores_bins_without_information():
    x = uneven_grid()
    flux, ivar = np.full(x.size, 7.0), np.full(x.size, 4.0)
    flux[100], ivar[100] = np.nan, 0.0

    out, ivar_out = resample_flux(np.arange(5005.0, 5395.0, 1.0), x, flux, ivar)

    np.testing.assert_allclose(out, 7.0, rtol=1e-12)
    assert (ivar_out > 0).all()


def test_resampled_ivar_is_that_of_the_mean():
    rng = np.random.default_rng(8)
    x = np.arange(1000.0)
    xout = np.arange(20.0, 980.0, 10.0)
    ivar = np.full(x.size, 4.0)

    noise = np.array([resample_flux(xout, x, rng.normal(size=x.size) / 2, ivar)[0] for _ in range(200)])
    shared = np.array([project_flux(xout, x, rng.normal(size=x.size) / 2, ivar)[0] for _ in range(200)])

    for name, values, error in (
        ("resample_flux", noise, resample_flux(xout, x, noise[0, 0] * np.ones(1000), ivar)[1]),
        ("project_flux", shared, project_flux(xout, x, np.ones(1000), ivar)[1]),
    ):
        pull = values * np.sqrt(error)
        print(f"{name}: pull mean {pull.mean():+.3f} rms {pull.std():.3f}")
        assert pull.std() == pytest.approx(1.0, abs=0.05)  # 10 bins in one: the edges' correlation is 5 %


def test_projection_loses_only_the_bins_that_meet_a_masked_one():
    x, xout = np.arange(100.0), np.arange(-5.0, 105.0, 2.5)
    ivar = np.ones(100)
    ivar[50] = 0.0

    flux, ivar_out = project_flux(xout, x, np.ones(100), ivar)

    lost = (ivar_out == 0) & (xout > 1) & (xout < 98)
    assert lost.sum() == 1
    assert abs(xout[lost][0] - 50) < 1.75
    assert np.isfinite(flux).all()
    assert (ivar_out[(xout < -2) | (xout > 101)] == 0).all()


@pytest.mark.parametrize("bad", [np.zeros(5), np.arange(5.0)[::-1], np.zeros((2, 2)), np.zeros(1)])
def test_a_grid_that_does_not_increase_is_refused(bad):
    with pytest.raises(ValueError, match="increasing"):
        resample_flux(bad, np.arange(4.0), np.ones(4))


def test_many_spectra_are_projected_as_one_and_carry_the_masks_of_what_they_are_made_of():
    rng = np.random.default_rng(9)
    x = uneven_grid() + rng.normal(0, 0.2, (5, 1))
    density, ivar = rng.uniform(1, 9, x.shape), rng.uniform(1, 9, x.shape)
    density[2, 50], ivar[2, 50] = np.nan, 0.0
    mask = np.zeros(x.shape, np.uint32)
    mask[1, 200], mask[1, 201] = 4, 8
    xout = np.arange(4990.0, 5410.0, 3.3)
    edges = [bin_edges(row) for row in x]
    width = np.diff(edges, axis=1)

    flux, out_ivar, out_mask = project_counts(xout, x, density * width, ivar / width**2, mask)

    for i in range(5):
        alone = project_flux(xout, x[i], density[i], ivar[i])
        np.testing.assert_allclose(flux[i], alone[0], rtol=1e-12)
        np.testing.assert_allclose(out_ivar[i], alone[1], rtol=1e-12)
    assert np.isfinite(flux).all()
    assert np.isfinite(out_ivar).all()
    assert np.bitwise_or.reduce(out_mask[1]) == 12
    meets = [(left < edges[1][202]) & (right > edges[1][200]) for left, right in pairwise(bin_edges(xout))]
    np.testing.assert_array_equal(out_mask[1] > 0, meets)
    assert (out_mask[[0, 2, 3, 4]] == 0).all()


def test_signal_and_variance_are_kept_where_many_bins_make_one():
    rng = np.random.default_rng(10)
    x = np.arange(1000.0)
    flux, ivar = rng.uniform(5, 50, 1000), rng.uniform(0.1, 2.0, 1000)
    xout = np.arange(-0.5 + 18.5, 1000.0, 37.0)  # 37 bins in each; the last input bins are left out

    out, out_ivar = project_flux(xout, x, flux, ivar)

    taken = 37 * len(xout)
    assert (out * 37).sum() == pytest.approx(flux[:taken].sum(), rel=1e-12)
    assert (37**2 / out_ivar[out_ivar > 0]).sum() == pytest.approx((1 / ivar[:taken]).sum(), rel=1e-12)
