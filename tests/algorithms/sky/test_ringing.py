"""Ringing beside bright lines: how much, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from algorithms.sky.ringing import learn_ringing, ringing_envelope


@pytest.fixture
def lines():
    """(40, 1500) a sky of bright lines, and the variance of its noise."""
    rng = np.random.default_rng(3)
    at = np.arange(1500.0)
    sky = 150.0 + sum(a * np.exp(-0.5 * ((at - x) / 1.1) ** 2) for x, a in zip(
        rng.uniform(20, 1480, 60), 10 ** rng.uniform(2, 4.5, 60), strict=True))  # fmt: skip
    return np.tile(sky, (40, 1)), np.tile(sky + 70.0, (40, 1)), rng


@pytest.mark.parametrize("c", [0.0, 3e-4, 1e-3])
def test_the_amount_is_found_from_errors_that_alternate(lines, c):
    sky, variance, rng = lines
    sign = np.where(np.arange(1500) % 2, 1.0, -1.0) * rng.normal(size=(40, 1))
    residual = rng.normal(size=sky.shape) * np.sqrt(variance) + c * sign * np.sqrt(ringing_envelope(sky))

    found = learn_ringing(residual, variance, sky)

    print(f"c {c:.1e}: found {found:.2e}")
    assert found == pytest.approx(c, rel=0.25, abs=1e-4)  # of 40 signs


def test_samples_without_information_and_cosmic_rays_do_not_count(lines):
    sky, variance, rng = lines
    residual = rng.normal(size=sky.shape) * np.sqrt(variance)
    residual[3, ::7] += 1e5
    variance[5, ::3] = -np.inf
    residual[5, ::3] = 1e4

    assert learn_ringing(residual, variance, sky) < 2e-4
    assert learn_ringing(residual, np.full(sky.shape, -np.inf), sky) == 0.0


def test_the_envelope_is_that_of_lines_and_stops_at_gaps():
    sky = np.full((1, 200), 100.0)
    sky[0, 50] += 1000.0
    sky[0, 120:130] = np.nan

    envelope = ringing_envelope(sky)[0]

    assert envelope[:90].argmax() == 50
    assert envelope[56] / envelope[62] == pytest.approx(np.e, rel=1e-6)
    assert envelope[125] < 1e-4 * envelope[50]
    assert envelope[180] < 1e-6 * envelope[50]
