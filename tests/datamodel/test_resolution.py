"""Resolution matrices: the convention of the files, and Gaussian widths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, dia_matrix

from qlstream.datamodel.resolution import Resolution


@settings(max_examples=20, deadline=None)
@given(half=st.integers(0, 8), nwave=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_the_stored_bands_follow_the_convention_of_the_files(half, nwave, seed):
    assume(2 * half + 1 != nwave or nwave == 1)  # a square array is a dense matrix
    data = np.random.default_rng(seed).normal(size=(2 * half + 1, nwave))

    dense = Resolution(data).dense()

    expected = np.zeros((nwave, nwave))
    for k, offset in enumerate(range(half, -half - 1, -1)):
        for j in range(nwave):
            if 0 <= j - offset < nwave:
                expected[j - offset, j] = data[k, j]
    np.testing.assert_array_equal(dense, expected)


@settings(max_examples=20, deadline=None)
@given(half=st.integers(0, 5), nwave=st.integers(12, 40), seed=st.integers(0, 2**31))
def test_dense_and_banded_forms_agree(half, nwave, seed):
    dense = np.random.default_rng(seed).normal(size=(nwave, nwave))
    dense[np.abs(np.subtract.outer(np.arange(nwave), np.arange(nwave))) > half] = 0

    resolution = Resolution.from_dense(dense, 2 * half + 1)

    np.testing.assert_array_equal(resolution.dense(), dense)
    model = np.random.default_rng(seed + 1).normal(size=nwave)
    np.testing.assert_allclose(resolution @ model, dense @ model, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(half=st.integers(1, 6), nwave=st.integers(15, 40), seed=st.integers(0, 2**31))
def test_whatever_tells_the_matrix_makes_the_same_one(half, nwave, seed):
    rng = np.random.default_rng(seed)
    bands = rng.normal(size=(2 * half + 1, nwave))
    expected = Resolution(bands).dense()
    mixed = rng.permutation(2 * half + 1)
    offsets = half - np.arange(2 * half + 1)

    for made in (
        Resolution(bands[mixed], offsets[mixed]),
        Resolution(dia_matrix((bands, offsets), shape=(nwave, nwave))),
        Resolution(expected),
        Resolution(csr_matrix(expected)),
    ):
        np.testing.assert_array_equal(made.dense(), expected)
        assert made.shape == (nwave, nwave)
    np.testing.assert_array_equal(Resolution(bands).to_fits_array(), bands)


def test_as_many_bands_as_bins_are_told_from_a_matrix():
    bands = np.random.default_rng(2).normal(size=(21, 21))

    np.testing.assert_array_equal(Resolution.of_bands(bands).data, bands)
    # a matrix of 21 bins has 41 diagonals: those beyond the 21 that are kept are cut
    cut = np.abs(np.subtract.outer(np.arange(21), np.arange(21))) > 10
    np.testing.assert_array_equal(Resolution(bands).dense(), np.where(cut, 0, bands))


def test_bands_on_one_side_only_are_completed_with_zeros():
    bands = np.arange(1.0, 31.0).reshape(3, 10)

    made = Resolution(bands, [0, 1, 3])

    assert made.offsets.tolist() == [3, 2, 1, 0, -1, -2, -3]
    np.testing.assert_array_equal(made.dense(), dia_matrix((bands, [0, 1, 3]), shape=(10, 10)).toarray())


def test_one_number_per_bin_is_the_width_of_its_line():
    sigma = np.linspace(0.8, 1.6, 60)
    made = Resolution(sigma)
    assert made.ndiag == 21
    np.testing.assert_array_equal(made.data, Resolution.from_widths(sigma).data)


@pytest.mark.parametrize(
    ("data", "offsets", "words"),
    [
        (np.zeros((2, 9)), [0, 1], "3 to 84"),
        (np.zeros((85, 200)), np.arange(85), "3 to 84"),
        (np.zeros((3, 9)), [0, 1], "as many different offsets"),
        (np.zeros((3, 9)), [0, 1, 1], "as many different offsets"),
    ],
)
def test_offsets_must_fit_their_bands(data, offsets, words):
    with pytest.raises(ValueError, match=words):
        Resolution(data, offsets)


def test_widths_spread_a_line_with_its_flux_position_and_variance():
    sigma = np.linspace(0.8, 1.6, 101)
    line = np.zeros(101)
    line[40] = 1000.0

    spread = Resolution.from_widths(sigma) @ line

    pixel = np.arange(101)
    assert spread.sum() == pytest.approx(1000, rel=1e-6)
    assert spread @ pixel / 1000 == pytest.approx(40, abs=1e-6)
    # the integral over pixels adds 1/12 to the variance
    assert spread @ (pixel - 40.0) ** 2 / 1000 == pytest.approx(sigma[40] ** 2 + 1 / 12, rel=1e-6)


def test_a_constant_spectrum_stays_constant_away_from_the_edges():
    expected = Resolution.from_widths(np.full(100, 1.3)) @ np.ones(100)
    np.testing.assert_allclose(expected[10:-10], 1, atol=1e-10)


@pytest.mark.parametrize("data", [np.zeros((4, 9)), np.zeros((3, 4, 5))])
def test_an_even_number_of_bands_is_refused(data):
    with pytest.raises(ValueError, match="odd"):
        Resolution(data)


@pytest.mark.parametrize("sigma", [[1.0, 0.0], [1.0, np.nan], [[1.0]]])
def test_widths_must_be_positive(sigma):
    with pytest.raises(ValueError, match="positive"):
        Resolution.from_widths(sigma)
