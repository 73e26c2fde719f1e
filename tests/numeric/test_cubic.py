import numpy as np
import pytest

from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import cubic


def test_a_cubic_is_interpolated_exactly_and_continued_linearly():
    nodes = np.array([[0.0, 1.0, 2.5, 4.0]])
    values, slopes = nodes**3 - 2 * nodes, 3 * nodes**2 - 2
    at = np.array([3.9, 0.3, 1.7, -1.0, 5.0])  # any order

    found = cubic.interpolate(at, nodes, values, slopes)

    inside = at[:3] ** 3 - 2 * at[:3]
    np.testing.assert_allclose(found[0], [*inside, 2.0, 56.0 + 46.0], atol=1e-12)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(1, 2\)"):
        cubic.interpolate(np.zeros(2), np.zeros((1, 3)), np.zeros((1, 2)), np.zeros((1, 3)))


@pytest.fixture
def traces() -> XYTraceSet:
    """Three fibers like those of a 4k CCD: curved, with wiggles of higher order."""
    rng = np.random.default_rng(4)
    size = np.array([1.0, 1.0, 20.0, 2.0, 0.3, 0.1, 0.05])
    ycoef = rng.normal(size=(3, 7)) * size + np.array([2050.0, 2150.0, 0, 0, 0, 0, 0])
    xcoef = rng.normal(size=(3, 7)) * size * 0.1 + np.array([500.0, 0, 0, 0, 0, 0, 0])
    return XYTraceSet(xcoef, ycoef, 5580.0, 7780.0, 4128)


def test_wavelengths_of_rows_invert_the_traces(traces):
    rows = np.arange(4128.0)

    wave = traces.wave_vs_y(rows)

    inside = (wave > traces.wavemin) & (wave < traces.wavemax)
    assert np.abs(traces.y_vs_wave(wave) - rows)[inside].max() < 2e-8  # pixel, so 1e-8 Angstrom
    assert np.abs(traces.x_vs_y(rows) - traces.x_vs_wave(wave))[inside].max() < 1e-7
    assert (np.diff(wave, axis=1) > 0).all()
    scattered = np.array([[4000.0, 10.0, 2000.0]] * 3)
    np.testing.assert_array_equal(traces.wave_vs_y(scattered)[0], traces.wave_vs_y(rows)[0][[4000, 10, 2000]])


def test_rows_beyond_the_traces_are_extrapolated_linearly(traces):
    wave = traces.wave_vs_y(np.array([6000.0, 6001.0, 6002.0]))

    assert (wave > traces.wavemax).all()
    np.testing.assert_allclose(np.diff(wave, n=2, axis=1), 0.0, atol=1e-9)


def test_traces_that_turn_back_are_refused(traces):
    with pytest.raises(ValueError, match="does not increase"):
        XYTraceSet(traces.xcoef, -traces.ycoef, 5580.0, 7780.0, 4128).wave_vs_y(np.arange(3.0))
