"""Fields that all fibers share, with what each adds."""

from __future__ import annotations

import numpy as np

from algorithms.bootcalib.smooth import fit_fiber_field
from qlstream.numeric import legendre


def test_a_fiber_off_its_neighbours_is_followed_and_an_outlier_is_not() -> None:
    rng = np.random.default_rng(2)
    nspec, n = 60, 50
    u, across = np.linspace(-1, 1, n), np.linspace(-1, 1, nspec)[:, None]
    own = rng.normal(0, 0.05, (nspec, 1)) + rng.normal(0, 0.02, (nspec, 1)) * u
    own[20] += 0.5 + 0.2 * u
    truth = 3 * across**3 * u**2 + 2 * u + own
    value = truth + rng.normal(0, 0.005, truth.shape)
    value[10, 20:24] += 0.4  # a cosmic ray
    value[11, -3:] -= 0.3  # at the end, where it would bend the series
    error = np.full(value.shape, 0.005)
    error[40] = np.inf

    coef = fit_fiber_field(u, value, error, np.repeat(np.arange(6), 10), 5, 4, 3, 0.3)

    off = legendre.evaluate(coef, u) - truth
    lit = np.arange(nspec) != 40
    # 4 parameters from 50 points of 0.005: 0.0014 rms; at the ends four times that
    assert off[lit].std() < 0.003
    assert np.abs(off[lit]).max() < 0.02
    assert np.abs(off[40]).max() < 0.25, "its own 0.05 cannot be known"
