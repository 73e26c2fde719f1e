"""The prior on a calibration vector: what it takes away and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from algorithms.fluxcal.smoothness import add_stiffness, is_telluric, stands_out, stiffness
from qlstream.numeric.deconvolution import NormalEquations

WAVE = 5000.0 + 0.8 * np.arange(900)
IDENTITY = np.array([[0.0], [1.0], [0.0]]) * np.ones(WAVE.size)
NOISE = 0.02


def smoothed(data: np.ndarray, free: np.ndarray, bend: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Vector and its error of samples with the noise NOISE."""
    equations = NormalEquations(3, WAVE.size)
    equations.add(IDENTITY, 1.0, data, np.full(WAVE.size, NOISE**-2.0))
    add_stiffness(equations.normal, stiffness(WAVE, np.ones(WAVE.size), bend, free))
    found = equations.solve()
    return found.model, np.sqrt(found.variance_through(IDENTITY))


def test_added_is_the_sum_of_squared_second_differences() -> None:
    rng = np.random.default_rng(1)
    n, weight = 12, rng.uniform(1, 2, 12)
    normal = np.zeros((3, n))
    add_stiffness(normal, weight)
    dense = np.diag(normal[0])
    for d in (1, 2):
        dense += np.diag(normal[d, : n - d], d) + np.diag(normal[d, : n - d], -d)
    c = rng.normal(size=n)
    assert c @ dense @ c == pytest.approx((weight[1:-1] * (c[:-2] - 2 * c[1:-1] + c[2:]) ** 2).sum())


def test_noise_goes_from_a_smooth_response_and_errors_say_how_far() -> None:
    """Responses drawn from the prior itself: then pulls are 1, for each vector and bin on average."""
    rng = np.random.default_rng(2)
    step, walk, pulls, gain = 0.8, 3 * 0.01**2 / 50.0**3, [], []
    for _ in range(40):
        slope = np.cumsum(rng.normal(0, np.sqrt(walk * step), WAVE.size))
        response = 1.0 + np.cumsum(slope) * step
        found, error = smoothed(response + rng.normal(0, NOISE, WAVE.size), np.zeros(WAVE.size, bool))
        pulls.append((found - response) / error)
        gain.append(np.std(found - response) / NOISE)
    width = np.sqrt(np.mean(np.square(pulls)))
    print(f"pulls {width:.3f}, error {np.mean(gain):.3f} of that of a bin")
    assert width == pytest.approx(1, abs=0.1), "40 vectors of some 25 independent lengths"
    assert np.mean(gain) < 0.2


def test_telluric_bands_stay_as_they_are() -> None:
    band = 1 - 0.6 * np.exp(-0.5 * ((WAVE - 5300.0) / 2.0) ** 2)
    free = np.abs(WAVE - 5300) < 20
    found, error = smoothed(band, free)
    assert np.abs(found - band)[free].max() < 0.003, "without noise nothing is lost"
    assert error[free][5:-5].mean() == pytest.approx(NOISE, rel=0.05)
    assert error[~free].mean() < 0.25 * NOISE
    assert np.abs(smoothed(band, np.zeros(WAVE.size, bool))[0] - band).max() > 0.2, "the prior would have taken it"


def test_what_stands_out_is_seen_and_noise_is_not() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=20000)
    assert stands_out(noise).mean() < 1e-3
    line = noise.copy()
    line[700:706] += 3.0
    seen = stands_out(line)
    assert seen[697:709].all()
    assert seen[:600].mean() < 1e-3
    line[1200:1300] = 0.0  # no data
    assert not stands_out(line)[1210:1290].any()


def test_bands_of_oxygen_and_water_are_known() -> None:
    assert is_telluric(np.array([6870.0, 7200.0, 7605.0, 8200.0, 9300.0])).all()
    assert not is_telluric(np.array([4000.0, 5500.0, 6400.0, 6700.0, 7500.0, 8700.0])).any()
