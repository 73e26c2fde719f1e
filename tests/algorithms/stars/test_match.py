"""Template matching against stars of known temperature and velocity."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.stars.continuum import running_median
from algorithms.stars.match import MatchLimits, StarSpectrum, match_star, model_spectrum
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.deconvolution import spread
from qlstream.simulate import templates as shapes

Array = NDArray[np.float64]

LIGHT = 299792.458  # km/s
WAVE = {"b": 3600.0 + 1.6 * np.arange(1300), "r": 5760.0 + 1.6 * np.arange(1100)}
SIGMA = {"b": 1.0, "r": 0.9}  # [bin]
LIMITS = MatchLimits()


@pytest.fixture(scope="module")
def grid() -> StarTemplates:
    wave, temperature = np.arange(3450.0, 8000.0, 0.5), np.arange(5400.0, 7900.0, 100.0)
    flux = np.stack([shapes.star(wave, t) for t in temperature])
    flux /= flux.mean(axis=1, keepdims=True)
    n = len(temperature)
    return StarTemplates(wave, flux.astype(np.float32), temperature, np.full(n, 4.0), np.full(n, -1.5))


def observe(
    temperature: float, velocity: float, snr: float, seed: int, response: dict[str, Array] | None = None
) -> list[StarSpectrum]:
    """A star in two arms, of this median S/N per bin."""
    rng, out = np.random.default_rng(seed), []
    for arm, wave in WAVE.items():
        bands = Resolution.from_widths(np.full(wave.size, SIGMA[arm]), 13).data
        seen = spread(bands, shapes.star(wave / (1 + velocity / LIGHT), temperature))
        seen = seen / np.median(seen) * (1.0 if response is None else response[arm])
        error = seen / snr
        flux = seen + rng.normal(size=wave.size) * error
        out.append(StarSpectrum(wave, flux, error**-2.0, bands))
    return out


@pytest.mark.parametrize(("temperature", "velocity"), [(5950.0, 220.0), (6620.0, -35.0), (7180.0, 0.0)])
def test_temperature_and_velocity_are_those_of_the_star(
    grid: StarTemplates, temperature: float, velocity: float
) -> None:
    """At S/N 60 the lines of 2400 bins tell 20 K and 6 km/s (scatter over 16 seeds); the limits are 4 sigma."""
    found = [match_star(observe(temperature, velocity, 60.0, seed), grid, LIMITS) for seed in range(1, 3)]
    teff = np.array([m.teff for m in found]) - temperature
    speed = np.array([m.redshift for m in found]) * LIGHT - velocity
    print("T", teff.round(1), "K; v", speed.round(2), "km/s; chi2/dof", [round(m.chi2dof, 3) for m in found])
    assert abs(teff).max() < 80
    assert abs(speed).max() < 24
    assert all(0.3 < m.chi2dof < 1.1 for m in found), "template_error widens the errors, so it is below 1"
    assert all(m.coef.sum() == pytest.approx(1) and (m.coef >= 0).all() for m in found)


def test_neither_calibration_nor_colour_matters(grid: StarTemplates) -> None:
    curve = {arm: 7.0 + 5.0 * np.sin(wave / 700.0) for arm, wave in WAVE.items()}
    plain = match_star(observe(6400.0, 90.0, 60.0, 1), grid, LIMITS)
    bent = match_star(observe(6400.0, 90.0, 60.0, 1, curve), grid, LIMITS)
    print(f"T {plain.teff:.0f} and {bent.teff:.0f} K, v {plain.redshift * LIGHT:.1f} and {bent.redshift * LIGHT:.1f}")
    assert bent.teff == pytest.approx(plain.teff, abs=25)  # the same noise: only the curve in a window differs
    assert bent.redshift * LIGHT == pytest.approx(plain.redshift * LIGHT, abs=15)  # 0.2 Angstrom


def test_spikes_gaps_and_what_the_air_absorbs_do_not_lead_astray(grid: StarTemplates) -> None:
    parts = observe(6800.0, 0.0, 40.0, 2)
    blue, red = parts
    blue.flux[[200, 500, 501, 900]] *= 6.0
    blue.ivar[700:760] = 0.0
    blue.flux[700:760] = -1e4
    telluric = (red.wave > 6860) & (red.wave < 6965)
    red.flux[telluric] *= 0.2
    found = match_star(parts, grid, LIMITS)
    assert found.teff == pytest.approx(6800, abs=80)
    assert abs(found.redshift) * LIGHT < 10


def test_a_star_unlike_all_templates_has_a_large_chi2(grid: StarTemplates) -> None:
    wave, bands = WAVE["b"], Resolution.from_widths(np.full(WAVE["b"].size, 1.0), 13).data
    lines = 1 - 0.5 * np.exp(-0.5 * ((wave[:, None] - np.arange(3700.0, 5600.0, 90.0)) / 4.0) ** 2).sum(axis=1)
    noise = np.random.default_rng(3).normal(0, 0.02, wave.size)
    found = match_star([StarSpectrum(wave, lines + noise, np.full(wave.size, 2500.0), bands)], grid, LIMITS)
    assert found.chi2dof > 3.0, "beyond the limit of CalibrationLimits"


def test_a_star_without_good_bins_is_an_error(grid: StarTemplates) -> None:
    parts = [StarSpectrum(p.wave, p.flux, np.zeros_like(p.ivar), p.bands) for p in observe(6000.0, 0.0, 30.0, 4)]
    with pytest.raises(ValueError, match="fewer than 100 good bins"):
        match_star(parts, grid, LIMITS)


def test_a_mixture_stands_between_its_templates_and_is_redshifted(grid: StarTemplates) -> None:
    coef = np.zeros(len(grid))
    coef[[4, 5]] = 0.25, 0.75
    wave = np.array([4000.0, 6000.0])
    flux = model_spectrum(grid, coef, 1e-3, wave)
    expected = [np.interp(wave / 1.001, grid.wave, grid.flux[k].astype(float)) for k in (4, 5)]
    np.testing.assert_allclose(flux, 0.25 * expected[0] + 0.75 * expected[1], rtol=1e-6)


def test_the_running_median_follows_a_slope_and_ignores_lines() -> None:
    wave = 4000.0 + 0.8 * np.arange(1000)
    slope = 1.0 + 1e-4 * (wave - 4000.0)
    flux = slope * (1 - 0.9 * np.exp(-0.5 * ((wave - 4400.0) / 3.0) ** 2))
    median = running_median(wave, flux[None])[0]
    np.testing.assert_allclose(median[150:-150], slope[150:-150], rtol=5e-3)  # it sees 8 Angstrom of line among 160
