"""Traces and spots: as the instrument describes them, and as the PSF file tells them."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import eval_hermitenorm

from qlstream.instrument import load_instrument
from qlstream.io.psf import read_psf, write_psf
from qlstream.simulate.optics import HALF_X, HALF_Y, build_optics
from qlstream.simulate.render import paint, row_geometry, spread_lines


@pytest.fixture(scope="module")
def optics(mini):
    return build_optics(mini, "r0", seed=3)


def test_traces_have_the_columns_wavelengths_and_smile_of_the_instrument():
    desi = load_instrument("desi")
    arm = desi.arm("r")

    traces = build_optics(desi, "r1", seed=3).traces

    middle = 0.5 * (arm.ny - 1)
    wave = traces.wave_vs_y(np.array([0.0, middle, arm.ny - 1.0]))
    np.testing.assert_allclose(wave[250, [0, 2]], arm.wave_on_ccd, atol=1.0)
    np.testing.assert_allclose(traces.x_vs_wave(wave)[:, 1], desi.trace_columns(), atol=0.3)
    row = traces.y_vs_wave([6690.0])[:, 0]
    assert row[0] - row[250] == pytest.approx(arm.smile, rel=0.15)


@pytest.mark.parametrize("name", ["mini", "desi"])
def test_every_fiber_has_its_science_range_on_the_ccd(name):
    instrument = load_instrument(name)

    for arm in instrument.arms:
        row = build_optics(instrument, f"{arm.name}0", seed=1).traces.y_vs_wave(np.array(arm.wave_science))
        assert row.min() > 0, arm.name
        assert row.max() < arm.ny - 1, arm.name


def test_a_rendered_line_is_the_spot_of_the_psf_file(optics, tmp_path):
    wave = np.array([6600.0])
    geometry = row_geometry(optics)
    light = np.zeros((optics.traces.nspec, 1))
    light[11] = 1000.0
    image = paint(geometry, spread_lines(optics, geometry, wave, light), optics.hermite_x, optics.shape[1])
    write_psf(tmp_path / "psf.fits", optics.psf)
    psf = read_psf(tmp_path / "psf.fits")

    x, y = psf.traces.x_vs_wave(wave)[11, 0], psf.traces.y_vs_wave(wave)[11, 0]
    spot = _integrated_spot(psf, 11, wave, x, y)

    column, row = round(x), round(y)
    drawn = image[row - HALF_Y : row + HALF_Y + 1, column - HALF_X : column + HALF_X + 1]
    # separable rendering centres each row on the trace of that row; the trace slants by 0.01 column per row at most
    np.testing.assert_allclose(drawn, 1000.0 * spot, atol=1.5)
    assert image.sum() == pytest.approx(1000.0, abs=0.01)


def _integrated_spot(psf, fiber, wave, x, y):
    """The spot by brute force: sum over GH-i-j, each pixel integrated by 20 x 20 samples."""
    sigma_x, sigma_y = psf.traces.xsig_vs_wave(wave)[fiber, 0], psf.traces.ysig_vs_wave(wave)[fiber, 0]
    n = 20
    fine = (np.arange(n) + 0.5) / n - 0.5
    u = ((np.arange(-HALF_X, HALF_X + 1) + round(x))[:, None] + fine - x).ravel() / sigma_x
    v = ((np.arange(-HALF_Y, HALF_Y + 1) + round(y))[:, None] + fine - y).ravel() / sigma_y
    total = np.zeros((len(v), len(u)))
    for name, coef in psf.coef.items():
        if name.startswith("GH-") and name.count("-") == 2 and coef[fiber, 0] != 0:
            i, j = map(int, name.split("-")[1:])
            total += coef[fiber, 0] * np.outer(
                eval_hermitenorm(j, v) * np.exp(-0.5 * v**2), eval_hermitenorm(i, u) * np.exp(-0.5 * u**2)
            )
    total /= 2 * np.pi * sigma_x * sigma_y * n * n
    return total.reshape(2 * HALF_Y + 1, n, 2 * HALF_X + 1, n).sum(axis=(1, 3))


@pytest.mark.shared_data
def test_geometry_resembles_a_measured_camera():
    folder = Path(os.environ.get("QLSTREAM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "psf-r0-00051060.fits"
    if not path.exists():
        pytest.skip(f"no {path.name} in {folder}")
    real = read_psf(path).traces

    mine = build_optics(load_instrument("desi"), "r0", seed=1).traces

    wave = np.linspace(5700.0, 7600.0, 9)
    assert np.abs(mine.x_vs_wave(wave) - real.x_vs_wave(wave)).max() < 30
    assert np.abs(mine.y_vs_wave(wave) - real.y_vs_wave(wave)).max() < 60
    np.testing.assert_allclose(mine.dy_dwave(wave), real.dy_dwave(wave), rtol=0.05)
    np.testing.assert_allclose(mine.xsig_vs_wave(wave), real.xsig_vs_wave(wave), rtol=0.15)
    np.testing.assert_allclose(mine.ysig_vs_wave(wave), real.ysig_vs_wave(wave), rtol=0.15)
