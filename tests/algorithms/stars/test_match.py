"""Template matching against stars of known parameters and velocity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.stars.continuum import running_median
from algorithms.stars.match import MatchLimits, StarSpectrum, match_star, model_spectrum
from qlstream.datamodel.resolution import Resolution
from qlstream.datamodel.stars import StarTemplates
from qlstream.simulate import templates as shapes

LIGHT = shapes.SPEED_OF_LIGHT
LIMITS = MatchLimits()
Observe = Callable[..., list[StarSpectrum]]
Waves = dict[str, NDArray[np.float64]]
STARS = [  # temperature, velocity, gravity, metallicity: at grid points, between them, near the ends
    (5950.0, 220.0, 4.0, -1.5), (6620.0, -35.0, 3.7, -1.2), (7180.0, 0.0, 4.4, -1.9), (6275.0, 90.0, 4.25, -1.75),
    (5520.0, 30.0, 3.6, -1.1), (6900.0, -280.0, 4.0, -1.5),
]  # fmt: skip


def test_parameters_and_velocity_are_those_of_the_star_within_their_errors(
    grid: StarTemplates, observe: Observe
) -> None:
    """Six stars, two noises each. The errors allow for templates that are off by 2 %, as much as the noise at S/N 60
    is: so pulls have a width of 0.6, and 2.5 of these errors are 4 true ones."""
    pulls = []
    for n, (teff, velocity, logg, feh) in enumerate(STARS):
        for seed in (n, n + 20):
            m = match_star(observe(teff, velocity, 60.0, seed, logg, feh), grid, LIMITS)
            truth = np.array([teff, logg, feh, velocity / LIGHT])
            pulls.append((np.array([m.teff, m.logg, m.feh, m.redshift]) - truth) / [*m.errors, m.redshift_error])
            assert m.coef.sum() == pytest.approx(1, abs=1e-6)
            assert 0.3 < m.chi2dof < 1.0
            assert m.errors[0] < 60, "the fit knows the temperature"
    told = np.array(pulls)
    print("pulls of T, logg, [Fe/H], z: mean", told.mean(axis=0).round(2), "rms", told.std(axis=0).round(2))
    assert np.abs(told).max() < 2.5
    assert np.abs(told.mean(axis=0)).max() < 0.6 * 4 / np.sqrt(len(told)), "no bias"


def test_the_model_has_the_colour_of_the_star(grid: StarTemplates, observe: Observe) -> None:
    """What calibration needs: the spectrum from 3700 to 7500 Angstrom; 25 K of error bend it by 1 %."""
    for n, (teff, velocity, logg, feh) in enumerate(STARS):
        m = match_star(observe(teff, velocity, 60.0, n, logg, feh), grid, LIMITS)
        model = model_spectrum(grid, m.coef, m.redshift, grid.wave)
        truth = shapes.star(grid.wave / (1 + velocity / LIGHT), teff, logg, feh)
        inside = (grid.wave > 3700) & (grid.wave < 7500)
        ratio = (model / truth)[inside]
        ratio /= np.median(ratio)
        print(f"{teff:.0f} K: model over truth {ratio.min():.4f} to {ratio.max():.4f}, T {m.teff - teff:+.0f}")
        assert np.abs(ratio - 1).max() < 0.04


def test_neither_calibration_nor_colour_matters(grid: StarTemplates, observe: Observe, waves: Waves) -> None:
    curve = {arm: 7.0 + 5.0 * np.sin(wave / 300.0) for arm, wave in waves.items()}
    plain = match_star(observe(6400.0, 90.0), grid, LIMITS)
    bent = match_star(observe(6400.0, 90.0, response=curve), grid, LIMITS)
    print(f"T {plain.teff:.0f} and {bent.teff:.0f} K, v {plain.redshift * LIGHT:.1f} and {bent.redshift * LIGHT:.1f}")
    assert bent.teff == pytest.approx(plain.teff, abs=5)  # the same noise: only what knots cannot follow differs
    assert bent.redshift * LIGHT == pytest.approx(plain.redshift * LIGHT, abs=3)


def test_spikes_gaps_and_what_the_air_absorbs_do_not_lead_astray(grid: StarTemplates, observe: Observe) -> None:
    clean = match_star(observe(6800.0, snr=40.0, seed=2), grid, LIMITS)
    blue, red = observe(6800.0, snr=40.0, seed=2)
    blue.flux[[200, 500, 501, 900]] *= 6.0
    blue.flux[1000] *= -2.0
    blue.ivar[700:760] = 0.0
    blue.flux[700:760] = -1e4
    telluric = (red.wave > 6860) & (red.wave < 6965)
    red.flux[telluric] *= 0.2
    found = match_star([blue, red], grid, LIMITS)
    print(f"T {clean.teff:.0f} without, {found.teff:.0f} with damage, error {found.errors[0]:.0f}")
    assert abs(found.teff - clean.teff) < 1.5 * found.errors[0], "a tenth of the bins has gone"
    assert found.chi2dof == pytest.approx(clean.chi2dof, abs=0.05)


def test_windows_can_be_left_out(grid: StarTemplates, observe: Observe, waves: Waves) -> None:
    """A dip of the response that no spline follows, as DESI's collimators have at 4400 Angstrom."""
    dip = {arm: 1 - 0.25 * (np.abs(wave - 4400) < 40) for arm, wave in waves.items()}
    parts = observe(6400.0, response=dip)
    spoiled = match_star(parts, grid, LIMITS)
    found = match_star(parts, grid, replace(LIMITS, left_out=((4300.0, 4500.0),)))
    print(f"T {spoiled.teff:.0f}, without the window {found.teff:.0f}; chi2 {spoiled.chi2dof:.2f}, {found.chi2dof:.2f}")
    assert abs(found.teff - 6400) < 3 * found.errors[0]
    assert found.chi2dof < 0.6 < spoiled.chi2dof


def test_a_star_unlike_all_templates_has_a_large_chi2(grid: StarTemplates, waves: Waves) -> None:
    wave, bands = waves["b"], Resolution.from_widths(np.full(waves["b"].size, 1.0), 13).data
    lines = 1 - 0.7 * np.exp(-0.5 * ((wave[:, None] - np.arange(3700.0, 5600.0, 30.0)) / 4.0) ** 2).sum(axis=1)
    noise = np.random.default_rng(3).normal(0, 0.02, wave.size)
    found = match_star([StarSpectrum(wave, lines + noise, np.full(wave.size, 2500.0), bands)], grid, LIMITS)
    assert found.chi2dof > 3.0, "beyond what StarCuts lets pass"


def test_a_grid_with_holes_and_axes_of_one_value_serves(grid: StarTemplates, observe: Observe) -> None:
    at = np.array([6620.0, 4.0, -1.5])
    parts = observe(at[0])
    corner = (grid.logg == 3.5) & (grid.feh == -2.0) & (grid.teff > 6000)
    holey = match_star(parts, grid.take(np.flatnonzero(~corner)), LIMITS)
    line = match_star(parts, grid.take(np.flatnonzero((grid.logg == 4.0) & (grid.feh == -1.5))), LIMITS)
    print(f"holes: T {holey.teff:.0f} ± {holey.errors[0]:.0f}; T alone: {line.teff:.0f} ± {line.errors[0]:.0f}")
    assert abs(holey.teff - at[0]) < 3 * holey.errors[0]
    assert abs(line.teff - at[0]) < 3 * line.errors[0]
    assert (line.logg, line.feh) == (4.0, -1.5)
    assert (line.errors[1:] == 0).all()
    assert line.errors[0] < holey.errors[0]


def test_a_star_beyond_the_grid_stays_at_its_end(grid: StarTemplates, observe: Observe) -> None:
    found = match_star(observe(8300.0), grid, LIMITS)
    assert found.teff == pytest.approx(7900.0)


def test_a_star_without_good_bins_is_an_error(grid: StarTemplates, observe: Observe) -> None:
    parts = [StarSpectrum(p.wave, p.flux, np.zeros_like(p.ivar), p.bands) for p in observe(6000.0)]
    with pytest.raises(ValueError, match="fewer than 100 good bins"):
        match_star(parts, grid, LIMITS)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_an_arm_with_hardly_a_good_bin_takes_no_part(grid: StarTemplates, observe: Observe, number: int) -> None:
    blue, red = observe(6000.0)
    lost = replace(red, ivar=np.where(np.abs(np.arange(red.wave.size) - 900) < 0.5 * number, red.ivar, 0.0))
    both, alone = match_star([blue, lost], grid, LIMITS), match_star([blue], grid, LIMITS)
    assert (both.teff, both.redshift, both.chi2dof) == (alone.teff, alone.redshift, alone.chi2dof)


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
