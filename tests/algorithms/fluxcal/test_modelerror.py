"""What wrong temperatures of the stars do to a calibration."""

from __future__ import annotations

import numpy as np

from algorithms.fluxcal.modelerror import temperature_error
from qlstream.datamodel.stars import StdStars
from qlstream.simulate import templates as shapes

WAVE = np.linspace(3700.0, 9700.0, 61)


def stars(teff: list[float], error: list[float] | None) -> StdStars:
    names = ["TEFF"] if error is None else ["TEFF", "TEFF_ERR"]
    table = np.zeros(len(teff), dtype=[(name, "f8") for name in names])
    table["TEFF"] = teff
    if error is not None:
        table["TEFF_ERR"] = error
    n = len(teff)
    return StdStars(WAVE, np.ones((n, WAVE.size)), np.arange(n, dtype=np.int32), table, np.ones((n, 1)))


def test_the_error_is_the_ratio_of_stars_of_both_temperatures() -> None:
    told = temperature_error(WAVE, stars([6500.0], [100.0]), np.ones(1))
    hot, cool = (shapes.star(WAVE, t) / shapes.star(np.array([6400.0]), t) for t in (6550.0, 6450.0))
    true = np.abs(np.log(hot / cool))
    print("at 3700, 5000, 9700 Angstrom:", told[[0, 13, -1]].round(4), "of spectra", true[[0, 13, -1]].round(4))
    away = (WAVE > 4450) & (np.abs(WAVE[:, None] - [4861, 5177, 5896, 6563]) > 90).all(axis=1)
    np.testing.assert_allclose(told[away], true[away], atol=2e-4)  # lines have their own


def test_errors_of_stars_are_independent_and_count_by_their_share() -> None:
    one = temperature_error(WAVE, stars([6500.0], [100.0]), np.ones(1))
    four = temperature_error(WAVE, stars([6500.0] * 4, [100.0] * 4), np.full(4, 0.25))
    np.testing.assert_allclose(four, one / 2)
    rest = temperature_error(WAVE, stars([6500.0] * 2, [100.0] * 2), np.array([0.0, 1.0]))
    np.testing.assert_allclose(rest, one)


def test_stars_of_other_makers_count_as_known() -> None:
    assert (temperature_error(WAVE, stars([6500.0], None), np.ones(1)) == 0).all()
