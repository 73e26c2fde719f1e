"""Cholesky solutions and inverses, and splines with the knots of the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlstream.numeric.linalg import cholesky_invert, cholesky_solve, cholesky_solve_and_invert, spline_fit


def positive_definite(n: int, seed: int) -> np.ndarray:
    part = np.random.default_rng(seed).normal(size=(n, n + 5))
    return part @ part.T + 0.1 * np.eye(n)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 25), seed=st.integers(0, 2**31), lower=st.booleans(), columns=st.integers(0, 3))
def test_solution_and_inverse_fulfil_their_equations_and_leave_the_input(n, seed, lower, columns):
    a = positive_definite(n, seed)
    b = np.random.default_rng(seed + 1).normal(size=(n, columns) if columns else n)
    before = a.copy(), b.copy()

    x = cholesky_solve(a, b, lower=lower)
    both, inverse = cholesky_solve_and_invert(a, b, lower=lower)

    np.testing.assert_allclose(a @ x, b, atol=1e-9)
    np.testing.assert_allclose(both, x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a @ inverse, np.eye(n), atol=1e-9)
    np.testing.assert_array_equal(inverse, inverse.T)
    np.testing.assert_array_equal(cholesky_invert(a, lower=lower), inverse)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(b, before[1])


def test_only_one_triangle_counts_and_overwriting_gives_the_same():
    a, b = positive_definite(6, 1), np.arange(6.0)
    upper, lower = np.triu(a), np.tril(a)
    expected = np.linalg.solve(a, b)

    np.testing.assert_allclose(cholesky_solve(upper, b), expected)
    np.testing.assert_allclose(cholesky_solve(lower, b, lower=True), expected)
    np.testing.assert_allclose(cholesky_solve(np.asfortranarray(a), b, overwrite=True), expected)


@pytest.mark.parametrize("function", [cholesky_solve, cholesky_solve_and_invert])
def test_a_matrix_that_is_not_positive_definite_is_refused(function):
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        function(np.diag([1.0, -1.0, 1.0]), np.ones(3))
    with pytest.raises(np.linalg.LinAlgError, match=r"cholesky_invert.*\(2, 2\)"):
        cholesky_invert(np.ones((2, 2)))


@settings(max_examples=30, deadline=None)
@given(
    coefficients=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    resolution=st.floats(2.0, 60.0),
    holes=st.integers(0, 40),
)
def test_a_cubic_is_reproduced_whatever_the_knots_and_the_samples_without_weight(coefficients, resolution, holes):
    x = np.linspace(5000, 5100, 301)
    truth = np.polynomial.Polynomial(coefficients, domain=[5000, 5100])
    y, ivar = truth(x), np.ones(x.size)
    lost = np.random.default_rng(3).choice(x.size, holes, replace=False)
    y[lost], ivar[lost] = np.nan, 0.0
    out = np.linspace(5000, 5100, 50)

    found = spline_fit(out, x, y, resolution, ivar)

    np.testing.assert_allclose(found, truth(out), atol=1e-7)


def test_knots_are_as_fine_as_asked_for_and_noise_is_averaged():
    rng = np.random.default_rng(4)
    x = np.linspace(0, 1000, 4001)
    truth = np.sin(x / 40)
    sigma = 0.1

    errors = [spline_fit(x, x, truth + rng.normal(scale=sigma, size=x.size), 50.0) - truth for _ in range(10)]

    # 19 knots and order 3: 23 coefficients, so the noise that stays is sigma sqrt(23 / 4001)
    assert np.std(errors) == pytest.approx(sigma * np.sqrt(23 / 4001), rel=0.2)


def test_weights_are_inverse_variances():
    x = np.arange(200.0)
    y, ivar = np.where(np.arange(200) % 2, 0.0, 10.0), np.where(np.arange(200) % 2, 9.0, 1.0)

    assert np.median(spline_fit(x, x, y, 500.0, ivar)) == pytest.approx(1.0, abs=0.05)


def test_a_gap_is_bridged_by_leaving_out_its_knots_and_else_by_the_coarser_resolution():
    x = np.concatenate([np.linspace(0, 30, 100), np.linspace(70, 100, 100)])
    wide = spline_fit(np.linspace(0, 100, 11), x, x, 2.0)
    np.testing.assert_allclose(wide, np.linspace(0, 100, 11), atol=1e-6)

    sparse = np.arange(0.0, 30.0, 3.0)
    with pytest.raises(ValueError, match="carry no spline"):
        spline_fit(sparse, sparse, sparse, 0.5, max_resolution=0.7)
    np.testing.assert_allclose(spline_fit(sparse, sparse, sparse, 0.5, max_resolution=9.0), sparse, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input_flux": np.ones(9)}, "one shape"),
        ({"required_resolution": 0.0}, "must be positive"),
        ({"input_ivar": np.zeros(10)}, "0 samples"),
    ],
)
def test_what_cannot_be_fitted_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        spline_fit(
            **(
                {"output_wave": [1.0], "input_wave": np.arange(10.0), "input_flux": np.ones(10)}
                | {"required_resolution": 3.0}
                | given
            )
        )
