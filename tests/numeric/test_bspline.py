import numpy as np
import pytest
from scipy.interpolate import BSpline

from qlstream.numeric.bspline import Knots


def test_evaluation_agrees_with_scipy():
    knots = Knots.over(3.0, 17.0, 0.9)
    coef = np.random.default_rng(3).normal(size=knots.n)
    x = np.linspace(3.0, 17.0, 301)
    t = knots.start + knots.step * np.arange(-2, knots.n + 2)

    np.testing.assert_allclose(knots.evaluate(coef, x), BSpline(t, coef, 3)(x), atol=1e-12)


def test_fit_returns_a_cubic_that_it_can_represent():
    knots = Knots.over(0.0, 10.0, 1.0)
    x = np.linspace(0, 10, 200)
    cubic = 1 + x - 0.3 * x**2 + 0.02 * x**3

    coef, _ = knots.fit(x, cubic, np.ones_like(x))

    np.testing.assert_allclose(knots.evaluate(coef, x), cubic, atol=1e-4)  # the bridging penalty is 1e-6


def test_covariance_of_the_fit_predicts_its_scatter():
    rng = np.random.default_rng(5)
    knots = Knots.over(0.0, 30.0, 1.0)
    x = np.sort(rng.uniform(0, 30, 300))
    weight = rng.uniform(0.5, 2.0, x.size)

    fits = [knots.fit(x, rng.normal(size=x.size) / np.sqrt(weight), weight) for _ in range(400)]
    pull = np.array([coef for coef, _ in fits]) / np.sqrt(fits[0][1][:, 0])

    print(f"pull of the coefficients: mean {pull.mean():+.3f}, rms {pull.std():.3f}")
    assert pull.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * 400 * 10))


def test_a_gap_is_bridged_smoothly_and_its_error_says_so():
    knots = Knots.over(0.0, 20.0, 0.5)
    x = np.linspace(0, 20, 400)
    weight = np.where((x > 8) & (x < 12), 0.0, 1.0)

    coef, covariance = knots.fit(x, 2 + 0.1 * x, weight)

    np.testing.assert_allclose(knots.evaluate(coef, x), 2 + 0.1 * x, atol=1e-4)
    middle = np.abs(knots.positions - 10) < 1
    assert covariance[middle, 0].min() > 20 * np.median(covariance[:, 0])


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        Knots.over(5.0, 5.0, 1.0)
