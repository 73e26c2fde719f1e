"""Peaks in the cut through a flat, and the fibers they belong to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithms.bootcalib.layout import FiberMismatch, match_fibers
from algorithms.bootcalib.peaks import find_peaks, middle_cut
from qlstream.instrument import Instrument, load_instrument

Array = NDArray[np.float64]


def columns(instrument: Instrument, scale: float = 1.0, seed: int = 2) -> Array:
    """Fibers that scatter by 0.06 pixel, on a CCD whose scale and zero differ from the nominal ones."""
    rng = np.random.default_rng(seed)
    nominal = instrument.trace_columns()
    return 9.0 + scale * nominal + rng.normal(0, 0.06, len(nominal))


def test_peaks_are_found_and_hot_columns_are_not() -> None:
    rng = np.random.default_rng(1)
    x = np.array([20.0, 27.3, 34.4, 50.2, 57.6])
    height = np.array([1.0, 0.3, 1.0, 0.005, 1.0])  # the fourth is broken, and leaks
    profile = (1e4 * height[:, None] * np.exp(-0.5 * ((np.arange(80) - x[:, None]) / 1.05) ** 2)).sum(axis=0)
    variance = np.tile(profile + 9.0, (200, 1))
    pix = (profile + rng.normal(size=variance.shape) * np.sqrt(variance)).astype(np.float32)
    ivar = (1 / variance).astype(np.float32)
    pix[:, 41] = 3000.0  # a hot column
    ivar[:, 65] = 0.0  # a masked one

    peaks = find_peaks(*middle_cut(pix, ivar), expected=5)

    np.testing.assert_allclose(peaks, x[[0, 1, 2, 4]], atol=0.1)


@pytest.mark.parametrize("dark", [[], [0], [24], [25], [249, 250], [499], [475, 476, 30, 3], [100, 101, 102]])
def test_dark_fibers_are_found_where_they_are(dark: list[int]) -> None:
    """Also at the edge of a bundle, where 2 spacings are told from a gap of 2.42 spacings by 10 sigma."""
    desi = load_instrument("desi")
    x = columns(desi, scale=1.02)

    found = match_fibers(np.delete(x, dark), desi, max_dark=3)

    assert np.flatnonzero(~found.lit).tolist() == sorted(dark)
    np.testing.assert_allclose(found.column[found.lit], x[found.lit])
    if dark:
        assert np.abs(found.column[~found.lit] - x[~found.lit]).max() < 0.5, "neighbours tell to 4 sigma of 0.06 pixel"


def test_a_mismatch_says_which_bundle_has_how_many() -> None:
    mini = load_instrument("mini")
    x = columns(mini)
    with pytest.raises(FiberMismatch, match=r"35 fibers: bundle 1 has 5; mini has 4 bundles of 10"):
        match_fibers(np.delete(x, [11, 13, 15, 16, 18]), mini, max_dark=3)
    extra = np.sort(np.append(x, x[25] + 3.5))
    with pytest.raises(FiberMismatch, match="bundle 2 has 11"):
        match_fibers(extra, mini, max_dark=3)
    with pytest.raises(FiberMismatch, match="was the lamp on"):
        match_fibers(x[:2], mini, max_dark=3)


def test_another_instrument_is_refused() -> None:
    mini = load_instrument("mini")
    other = mini.model_copy(update={"bundles": 5, "fibers_per_bundle": 8})
    with pytest.raises(FiberMismatch, match="mini has 4 bundles of 10"):
        match_fibers(columns(other), mini, max_dark=3)
