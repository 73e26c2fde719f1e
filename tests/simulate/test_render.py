"""Light is conserved on its way to the CCD, and lands where the traces say."""

import numpy as np
import pytest

from qlstream.simulate.optics import build_optics
from qlstream.simulate.render import paint, row_geometry, spread_continuum, spread_lines


@pytest.fixture(scope="module")
def optics(mini):
    return build_optics(mini, "z2", seed=5)


@pytest.fixture(scope="module")
def geometry(optics):
    return row_geometry(optics)


def test_row_geometry_is_the_traces_on_every_row(optics, geometry):
    rows = np.arange(optics.shape[0])

    np.testing.assert_allclose(
        optics.traces.y_vs_wave(geometry.wave), np.tile(rows, (len(geometry.wave), 1)), atol=1e-4
    )
    np.testing.assert_allclose(optics.traces.x_vs_wave(geometry.wave), geometry.x, atol=1e-5)


def test_a_flat_spectrum_gives_each_row_its_width_in_angstrom(optics, geometry):
    grid = np.arange(optics.traces.wavemin, optics.traces.wavemax, 0.5)

    rows = spread_continuum(geometry, grid, np.full((len(geometry.wave), len(grid)), 10.0), optics.hermite_y)

    inner = slice(20, -20)
    width = np.gradient(geometry.wave, axis=1)
    np.testing.assert_allclose(rows[:, inner], 10.0 * width[:, inner], rtol=1e-5)


def test_a_line_as_continuum_or_as_line_is_the_same(optics, geometry):
    center, sigma = 8600.0, 6.0
    grid = np.arange(optics.traces.wavemin, optics.traces.wavemax, 0.25)
    spectrum = np.exp(-0.5 * ((grid - center) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    nspec = len(geometry.wave)

    broad = spread_continuum(geometry, grid, np.tile(spectrum, (nspec, 1)), optics.hermite_y)
    narrow = spread_lines(optics, geometry, grid, np.tile(0.25 * spectrum, (nspec, 1)))

    np.testing.assert_allclose(broad.sum(axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(broad, narrow, atol=2e-3)  # the continuum moves in quarter rows


def test_a_line_lies_at_its_row_with_the_width_of_the_spot(optics, geometry):
    wave = np.array([8765.4])

    rows = spread_lines(optics, geometry, wave, np.ones((len(geometry.wave), 1)))

    y = np.arange(rows.shape[1])
    center = (rows * y).sum(axis=1)
    variance = (rows * (y - center[:, None]) ** 2).sum(axis=1)
    np.testing.assert_allclose(center, optics.traces.y_vs_wave(wave)[:, 0], atol=1e-4)
    # even Hermite terms from the fourth on leave the variance; the pixel adds 1/12
    np.testing.assert_allclose(variance, optics.traces.ysig_vs_wave(wave)[:, 0] ** 2 + 1 / 12, rtol=2e-3)


def test_painting_conserves_every_row(optics, geometry):
    rng = np.random.default_rng(1)
    rows = rng.uniform(0, 1e4, geometry.wave.shape)

    image = paint(geometry, rows, optics.hermite_x, optics.shape[1])

    np.testing.assert_allclose(image.sum(axis=1, dtype=float), rows.sum(axis=0), rtol=1e-6)
