"""How much of a source a fiber catches, against closed forms, and what stands in FIBERCORR."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import dblquad

from algorithms.fluxcal.corrections import MM_PER_ARCSEC, fiber_corrections, flat_to_psf
from algorithms.fluxcal.fiberloss import FWHM, point_fraction, source_fraction
from qlstream.datamodel.fibermap import Fibermap

DIAMETER = 1.52


def fibermap(n: int = 4, **columns: object) -> Fibermap:
    return Fibermap(np.rec.fromarrays([np.arange(n)], names="FIBER")).with_columns(
        **{name: np.asarray(values) for name, values in columns.items()}
    )


def test_a_centered_gaussian_leaves_its_closed_form() -> None:
    seeing = np.array([0.6, 1.0, 1.1, 2.0])
    sigma = seeing / FWHM
    expected = 1 - np.exp(-0.5 * (0.5 * DIAMETER / sigma) ** 2)
    np.testing.assert_allclose(point_fraction(seeing, 0.0, DIAMETER), expected, rtol=1e-6)


def test_beside_the_fiber_it_is_the_integral_over_the_aperture() -> None:
    sigma, radius = 1.1 / FWHM, 0.5 * DIAMETER
    for offset in (0.3, 0.9, 2.0):
        integral, _ = dblquad(
            lambda y, x, d: np.exp(-0.5 * ((x - d) ** 2 + y**2) / sigma**2) / (2 * np.pi * sigma**2),
            -radius, radius, lambda x: -np.sqrt(radius**2 - x**2), lambda x: np.sqrt(radius**2 - x**2),
            args=(offset,),
        )  # fmt: skip
        assert float(point_fraction(1.1, offset, DIAMETER)) == pytest.approx(integral, rel=1e-5)


def test_extended_sources_are_wider_gaussians_and_end_at_two_arcsec() -> None:
    """Half of a Gaussian lies within 1.1774 sigma: in a fiber of that radius, if seeing is perfect."""
    assert float(source_fraction(1e-3, 0.0, 1.0, 0.5)) == pytest.approx(0.5, rel=1e-3)
    assert source_fraction(1.0, 0.0, DIAMETER, 5.0) == source_fraction(1.0, 0.0, DIAMETER, 2.0)
    assert source_fraction(1.0, 0.0, DIAMETER, np.nan) == point_fraction(1.0, 0.0, DIAMETER)


def test_corrections_are_relative_to_the_mean_and_zero_where_a_target_is_lost() -> None:
    offset = np.array([0.0, 0.5, 0.0, 5.0])  # arcsec
    rows = fibermap(DELTA_X=offset * MM_PER_ARCSEC, DELTA_Y=np.zeros(4))
    table = fiber_corrections(rows, 1.1, DIAMETER)
    point = table["FLAT_TO_PSF_FLUX"]
    assert point[:3].mean() == pytest.approx(1.0)
    caught = point_fraction(1.1, offset, DIAMETER)
    assert point[1] / point[0] == pytest.approx(caught[0] / caught[1])
    assert point[3] == 0
    assert table["PSF_TO_FIBER_FLUX"][3] == 0
    assert (flat_to_psf(fibermap(DELTA_X=np.full(4, 1.0), DELTA_Y=np.zeros(4)), 1.1, DIAMETER) == 0).all()


def test_fibers_of_unknown_place_stand_on_their_targets() -> None:
    for rows in (fibermap(), fibermap(DELTA_X=np.full(4, np.nan), DELTA_Y=np.zeros(4))):
        np.testing.assert_allclose(fiber_corrections(rows, 1.1, DIAMETER)["FLAT_TO_PSF_FLUX"], 1.0)
