"""Spot images of a Gauss-Hermite PSF against the formula, integrated numerically."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import hermite_e
from scipy.integrate import quad

from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet

SX, SY, X, Y = 1.04, 1.11, 50.3, 40.8


def make_psf(**terms: float) -> GaussHermitePSF:
    """One fiber whose parameters do not vary; names have _ in place of -."""
    values = {"GHSIGX": SX, "GHSIGY": SY, "GH-0-0": 1.0, **{k.replace("_", "-"): v for k, v in terms.items()}}
    coef = {name: np.array([[value, 0.0]]) for name, value in values.items()}
    traces = XYTraceSet(np.array([[X, 0.0]]), np.array([[Y, 100.0]]), 6000.0, 7000.0, 200)
    return GaussHermitePSF(traces, coef, 6000.0, 7000.0, 3, 3, 8, 7)


def pixel_integral(degree: int, centre: float, sigma: float) -> float:
    c = np.eye(degree + 1)[degree]

    def core(x: float) -> float:
        gauss = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        return float(hermite_e.hermeval(x / sigma, c) * gauss)

    return quad(core, centre - 0.5, centre + 0.5, epsabs=1e-13)[0]


def test_a_spot_is_the_formula_integrated_over_each_pixel():
    terms = {"GH_1_0": 0.05, "GH_0_2": -0.03, "GH_2_1": 0.02, "GH_3_3": 0.01}
    psf = make_psf(**terms)

    rows, columns, image = psf.spot(0, 6500.0)

    assert (rows.start, rows.stop, columns.start, columns.stop) == (34, 49, 42, 59)
    gh = {(0, 0): 1.0} | {(int(k[3]), int(k[5])): v for k, v in terms.items()}
    expected = np.zeros_like(image)
    for (i, j), value in gh.items():
        along_x = [pixel_integral(i, c - X, SX) for c in range(columns.start, columns.stop)]
        along_y = [pixel_integral(j, r - Y, SY) for r in range(rows.start, rows.stop)]
        expected += value * np.outer(along_y, along_x)
    np.testing.assert_allclose(image, expected, atol=1e-12)


def test_a_gaussian_spot_holds_all_its_light_where_the_trace_is():
    rows, columns, image = make_psf().spot(0, 6500.0)

    x, y = np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)
    assert image.sum() == pytest.approx(1, abs=1e-8)
    assert (image.sum(0) @ x, image.sum(1) @ y) == pytest.approx((X, Y), abs=1e-6)
    # a pixel adds 1/12 to the variance
    assert image.sum(0) @ (x - X) ** 2 == pytest.approx(SX**2 + 1 / 12, abs=1e-6)


def test_the_cross_profile_is_the_spot_summed_along_the_dispersion():
    psf = make_psf(GH_2_0=0.04, GH_1_0=0.02, GH_0_2=0.05)
    _, columns, image = psf.spot(0, 6500.0)

    profile = psf.cross_profile(0, 6500.0, np.arange(columns.start, columns.stop) - X)

    # the spot is cut at 7 rows, 6 sigma
    np.testing.assert_allclose(profile, image.sum(0), atol=1e-7)


def test_the_tail_is_a_power_law_sampled_at_the_pixel_centres():
    tail = {"TAILAMP": 0.01, "TAILCORE": 1.5, "TAILXSCA": 1.2, "TAILYSCA": 0.9, "TAILINDE": 2.5}
    rows, columns, image = make_psf(**tail).spot(0, 6500.0)
    _, _, core = make_psf().spot(0, 6500.0)

    dx, dy = np.arange(columns.start, columns.stop) - X, np.arange(rows.start, rows.stop) - Y
    r2 = (dx[None] / 1.2) ** 2 + (dy[:, None] / 0.9) ** 2
    np.testing.assert_allclose(image - core, 0.01 * r2 / (1.5**2 + r2) ** (1 + 2.5 / 2), atol=1e-12)


def test_parameters_of_all_fibers_and_unknown_ones():
    psf = make_psf()
    np.testing.assert_allclose(psf.parameter("GHSIGX", [6100.0, 6900.0]), [[SX, SX]])
    with pytest.raises(KeyError, match="GH-9-9"):
        psf.parameter("GH-9-9", [6100.0])
