"""A Frame seen bin by bin, and back."""

from dataclasses import replace

import numpy as np

from qlstream.datamodel.frame import Frame
from qlstream.datamodel.qframe import ELECTRON


def frame() -> Frame:
    rng = np.random.default_rng(3)
    wave = np.linspace(3600.0, 3700.0, 120) ** 1.001  # a grid whose steps differ
    shape = (4, wave.size)
    return Frame(
        wave,
        rng.normal(50.0, 5.0, shape),
        rng.uniform(0.1, 2.0, shape),
        rng.integers(0, 2, shape).astype(np.uint32),
        np.arange(4, dtype=np.int32),
        meta={"CAMERA": "b0"},
    )


def test_counts_per_bin_keep_the_signal_to_noise_and_the_total() -> None:
    given = frame()
    bins = given.per_bin()
    assert bins.bunit == ELECTRON
    np.testing.assert_allclose(bins.flux * np.sqrt(bins.ivar), given.flux * np.sqrt(given.ivar), rtol=1e-6)
    np.testing.assert_allclose(bins.flux.sum(axis=1), (given.flux * given.dwave).sum(axis=1), rtol=1e-6)


def test_the_way_back_gives_the_same_frame() -> None:
    given = frame()
    back = given.with_bins(given.per_bin())
    np.testing.assert_allclose(back.flux, given.flux, rtol=1e-6)
    np.testing.assert_allclose(back.ivar, given.ivar, rtol=1e-6)
    assert (back.mask == given.mask).all()
    assert back.bunit == given.bunit


def test_calibrated_spectra_stay_flux_densities() -> None:
    given = replace(frame(), bunit="10**-17 erg/(s cm2 Angstrom)")
    bins = given.per_bin()
    np.testing.assert_allclose(bins.flux, given.flux, rtol=1e-6)
    assert bins.bunit == given.bunit
