import numpy as np
import pytest

from algorithms.flexure.field import POINT, Grid, TooUncertain, common_error, fit_field
from algorithms.flexure.lineerrors import fit_lines_field

GRID = Grid(np.linspace(-0.95, 0.95, 100), 6000.0, 7000.0)


def measure(rng, error=0.05, nwave=20):
    """A field 0.2 + 0.05 X - 0.03 U + 0.02 X U, X across fibers and U along wavelength, with noise."""
    points = np.zeros(100 * nwave, POINT)
    points["fiber"] = np.repeat(np.arange(100), nwave)
    points["wave"] = np.tile(np.linspace(6010, 6990, nwave), 100)
    points["error"] = error
    points["shift"] = truth(points) + rng.normal(0, error, len(points))
    return points


def truth(points):
    x, u = GRID.column[points["fiber"]], GRID.along(points["wave"])
    return 0.2 + 0.05 * x - 0.03 * u + 0.02 * x * u


def test_the_field_is_recovered_within_the_error_that_it_states():
    rng = np.random.default_rng(1)
    points = measure(rng)

    field = fit_field(points, GRID, (2, 2), max_error=0.05, slope=0.06)

    wrong = field.at_points(GRID, points) - truth(points)
    assert field.degrees == (2, 2)
    assert np.abs(wrong).max() < 3 * field.error
    assert field.error < 0.05 * np.sqrt(9 / len(points)) * 4
    assert field.rms == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(field.at(GRID, points["wave"][:20])[3], field.at_points(GRID, points[60:80]))


def test_outliers_are_clipped_and_errors_that_are_too_small_do_no_harm():
    rng = np.random.default_rng(2)
    points = measure(rng)
    points["error"] *= 0.5  # wrong
    spoiled = rng.random(len(points)) < 0.1
    points["shift"][spoiled] += 2.0

    field = fit_field(points, GRID, (1, 1), max_error=0.05, slope=0.06)

    assert np.abs(field.at_points(GRID, points) - truth(points)).max() < 0.015
    assert not field.used[spoiled].any()
    assert field.used[~spoiled].mean() > 0.99


def test_degrees_are_lowered_where_measurements_do_not_support_them():
    rng = np.random.default_rng(3)
    points = measure(rng, error=0.5, nwave=2)

    field = fit_field(points, GRID, (2, 2), max_error=0.05, slope=1.0)
    assert field.degrees == (0, 0)
    with pytest.raises(TooUncertain, match="even a constant is uncertain by 0.0"):
        fit_field(points, GRID, (2, 2), max_error=0.01, slope=1.0)
    with pytest.raises(TooUncertain, match="no measurement"):
        fit_field(points[:0], GRID, (2, 2), max_error=0.01, slope=1.0)


def test_the_error_that_explains_a_scatter_is_found():
    rng = np.random.default_rng(4)
    error = np.full(3000, 0.03)

    assert common_error(rng.normal(0, 0.05, 3000), error, 0.02) == pytest.approx(0.04, abs=0.004)
    assert common_error(rng.normal(0, 0.03, 3000), error, 0.05) == 0.0


def test_a_line_with_a_wrong_wavelength_is_dropped_though_every_fiber_agrees_on_it():
    rng = np.random.default_rng(5)
    points = measure(rng)
    line = np.tile(np.arange(20), 100)
    points["shift"][line == 7] += 0.1  # 2 sigma in a fiber: no fiber alone could tell

    field = fit_lines_field(points, line, np.zeros(20), GRID, (1, 1), max_error=0.05, slope=0.06)

    assert np.abs(field.at_points(GRID, points) - truth(points)).max() < 0.008
    assert not field.used[line == 7].any()
    assert field.used[line != 7].mean() > 0.99
