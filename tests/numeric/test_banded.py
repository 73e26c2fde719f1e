import numpy as np
import pytest

from qlstream.numeric.banded import factorize, inverse_band, solve


def band_matrix(n, width, seed=1):
    rng = np.random.default_rng(seed)
    root = np.triu(np.tril(rng.normal(size=(n, n)), width - 1)) + 3 * np.eye(n)
    return root.T @ root  # same bandwidth as its factor


def band_of(full, width):
    band = np.zeros((len(full), width))
    for d in range(width):
        band[: len(full) - d, d] = np.diagonal(full, d)
    return band


@pytest.mark.parametrize(("n", "width"), [(1, 1), (3, 4), (40, 4), (60, 10)])
def test_solution_and_band_of_the_inverse_agree_with_dense_algebra(n, width):
    full = band_matrix(n, min(width, n))
    rhs = np.arange(n, dtype=float) + 1

    factor, x = band_of(full, width), rhs.copy()
    factorize(factor)
    solve(factor, x)

    np.testing.assert_allclose(x, np.linalg.solve(full, rhs), rtol=1e-9)
    np.testing.assert_allclose(inverse_band(factor), band_of(np.linalg.inv(full), width), rtol=1e-9, atol=1e-12)


def test_an_unknown_without_data_is_refused():
    band = np.zeros((3, 2))
    band[:2, 0] = 1.0

    with pytest.raises(ValueError, match="no data"):
        factorize(band)
