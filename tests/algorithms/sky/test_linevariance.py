from __future__ import annotations

import numpy as np
import pytest

from algorithms.sky.linevariance import add_line_variance, learn_line_errors

WAVE = np.broadcast_to(5000.0 + np.arange(800), (40, 800))
LEVEL = 300.0


def scene(fraction, shift):
    """Forty fibers of a spectrum of lines, with residuals as the two errors would leave them."""
    rng = np.random.default_rng(9)
    x = np.arange(800.0)
    lines = np.exp(-0.5 * ((x - 13.1 * np.arange(60)[:, None]) / 1.2) ** 2)
    sky = np.tile(100 + rng.uniform(1e3, 2e4, 60) @ lines, (40, 1))
    variance = sky + 60.0
    total = variance.copy()
    add_line_variance(WAVE, sky, LEVEL, fraction, shift, total)
    return sky, variance, rng.normal(size=sky.shape) * np.sqrt(total)


@pytest.mark.parametrize(("fraction", "shift"), [(0.01, 0.02), (0.02, 0.0), (0.0, 0.03)])
def test_both_errors_are_found(fraction, shift):
    sky, variance, residual = scene(fraction, shift)

    found = learn_line_errors(residual, variance, sky, sky > LEVEL)

    print(found)
    # some 10^4 samples: their squares are known to a few percent, or to that of the noise
    assert found[0] == pytest.approx(fraction, abs=0.003 if fraction == 0 else 0.0015)
    assert found[1] == pytest.approx(shift, abs=0.004 if shift == 0 else 0.003)


def test_noise_alone_adds_nothing():
    sky, variance, residual = scene(0.0, 0.0)

    fraction, shift = learn_line_errors(residual, variance, sky, sky > LEVEL)

    total = variance.copy()
    add_line_variance(WAVE, sky, LEVEL, fraction, shift, total)
    extra = (total - variance)[sky > LEVEL].sum() / variance[sky > LEVEL].sum()
    print(f"{fraction:.4f}, {shift:.4f}: variance in lines {100 * extra:+.2f} %")
    assert extra < 0.03  # the noise of 10^4 squares is 1.4 %


def test_single_outliers_and_samples_without_information_do_not_count():
    sky, variance, residual = scene(0.0, 0.0)
    residual[3, 13::131] += 3e5
    variance[5], residual[5] = np.inf, 1e6
    variance[6], residual[6] = 0.0, 1e6

    assert max(learn_line_errors(residual, variance, sky, sky > LEVEL)) < 0.01
    assert learn_line_errors(residual, np.zeros(sky.shape), sky, sky > LEVEL) == (0.0, 0.0)
