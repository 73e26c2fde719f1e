import numpy as np
import pytest

from algorithms.sky.linespread import LEVELS, REACH, U_MAX, U_MIN, broadening_table, shifted_sums


@pytest.mark.parametrize("u", [-0.3, 0.0, 0.05, 0.4, 1.0, 1.9])
def test_the_filter_broadens_a_line_as_a_gaussian_does(u):
    sigma = 1.6  # knot steps: a line of 1.05 pixel at 0.65 pixel per step
    table = broadening_table(sigma)
    w = [np.interp(u, np.linspace(U_MIN, U_MAX, LEVELS), column) for column in table.T]
    x = np.linspace(-8, 8, 801)

    def line(x, variance):
        return np.exp(-0.5 * x**2 / variance) / np.sqrt(variance)

    filtered = w[0] * line(x, sigma**2)
    for m in range(1, REACH + 1):
        filtered = filtered + w[m] * (line(x - m, sigma**2) + line(x + m, sigma**2))

    truth = line(x, sigma**2 + u)
    error = np.abs(filtered - truth).max() / truth.max()
    print(f"u = {u}: error {error:.1e} of the peak")
    assert error < 6e-4


def test_the_filter_keeps_the_total():
    table = broadening_table(1.6)

    np.testing.assert_allclose(table[:, 0] + 2 * table[:, 1:].sum(axis=1), 1.0, atol=1e-12)


def test_shifted_sums_are_those_of_the_neighbours():
    coef = np.arange(10.0) ** 2

    sums = shifted_sums(coef)

    assert sums[5].tolist() == [25, 16 + 36, 9 + 49, 4 + 64]
    assert sums[0].tolist() == [0, 1, 4, 9]
