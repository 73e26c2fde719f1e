"""Selecting, updating and stacking spectra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.spectra import Band, Spectra, stack
from qlstream.io.spectra import read_spectra, write_spectra


def make(targets: list[int], expids: list[int], bands: str = "br", seed: int = 1, ndiag: int = 5) -> Spectra:
    rng = np.random.default_rng(seed)
    rows = np.zeros(
        len(targets),
        dtype=[("TARGETID", "i8"), ("NIGHT", "i4"), ("EXPID", "i4"), ("FIBER", "i4"), ("FIBERSTATUS", "i4")],
    )
    rows["TARGETID"], rows["EXPID"], rows["NIGHT"] = targets, expids, 20260114
    rows["FIBER"] = rows["TARGETID"] % 5000
    made = {}
    for n, letter in enumerate(bands):
        wave = 3600.0 + 2000.0 * n + 0.8 * np.arange(40)
        shape = (len(targets), wave.size)
        resolution = np.zeros((shape[0], ndiag, shape[1]))
        resolution[:, ndiag // 2] = 1.0
        made[letter] = Band(
            wave, rng.normal(size=shape), rng.uniform(1, 2, shape), np.zeros(shape, np.uint32), resolution
        )
    return Spectra(made, rows)


def test_select_takes_what_meets_all_conditions() -> None:
    spectra = make([1, 1, 2, 3], [7, 8, 7, 8])
    chosen = spectra.select(exposures=[8], targets=[1, 3], bands=["r"])
    assert chosen.fibermap["TARGETID"].tolist() == [1, 3]
    assert list(chosen.bands) == ["r"]
    np.testing.assert_array_equal(chosen.bands["r"].flux, spectra.bands["r"].flux[[1, 3]])
    assert spectra.select(exposures=[8], invert=True).fibermap["EXPID"].tolist() == [7, 7]
    with pytest.raises(LookupError, match="none of 4"):
        spectra.select(nights=[20200101])
    with pytest.raises(KeyError, match="no band 'z'"):
        spectra.select(bands=["z"])


def test_targets_come_in_the_order_of_their_first_appearance() -> None:
    spectra = make([9, 2, 9, 5], [1, 1, 2, 1])
    assert spectra.target_ids().tolist() == [9, 2, 5]
    assert (spectra.num_targets(), spectra.num_spectra()) == (3, 4)


def test_update_replaces_the_same_and_adds_the_rest_and_leaves_the_original() -> None:
    old, new = make([1, 2], [7, 7], seed=1), make([2, 3], [7, 7], seed=2)
    before = old.bands["b"].flux.copy()
    both = old.update(new)
    assert both.fibermap["TARGETID"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(both.bands["b"].flux[1], new.bands["b"].flux[0])
    np.testing.assert_array_equal(old.bands["b"].flux, before)


def test_a_band_that_one_part_lacks_has_no_information_there() -> None:
    both = stack([make([1], [7], "b"), make([2], [7], "br", ndiag=9)])
    assert (both.bands["r"].ivar[0] == 0).all()
    assert (both.bands["r"].ivar[1] > 0).all()
    assert both.bands["b"].resolution is not None
    assert both.bands["b"].resolution.shape[1] == 9
    np.testing.assert_array_equal(both.bands["b"].resolution[0, 4], 1.0)


def test_other_grids_are_not_stacked() -> None:
    other = make([2], [7])
    shifted = Band(other.bands["b"].wave + 0.4, *(getattr(other.bands["b"], k) for k in ("flux", "ivar", "mask")))
    with pytest.raises(ValueError, match="grids of band b differ"):
        stack([make([1], [7]), Spectra({"b": shifted}, other.fibermap)])


def test_slices_and_masks_index_rows() -> None:
    spectra = make([1, 2, 3], [7, 7, 7])
    assert spectra[1].fibermap["TARGETID"].tolist() == [2]
    assert spectra[1:].fibermap["TARGETID"].tolist() == [2, 3]
    assert spectra[np.array([True, False, True])].fibermap["TARGETID"].tolist() == [1, 3]


def test_a_file_gives_the_same_spectra_back(tmp_path: Path) -> None:
    spectra = make([1, 2], [7, 8])
    write_spectra(tmp_path / "spectra.fits", spectra)
    back = read_spectra(tmp_path / "spectra.fits")
    assert list(back.bands) == ["b", "r"]
    for name, band in spectra.bands.items():
        np.testing.assert_allclose(back.bands[name].flux, band.flux, rtol=1e-6)
        np.testing.assert_allclose(back.bands[name].resolution, band.resolution, rtol=1e-6)
        np.testing.assert_array_equal(back.bands[name].wave, band.wave)
    assert back.fibermap["EXPID"].tolist() == [7, 8]


def test_an_update_by_another_band_keeps_what_is_there() -> None:
    """A camera that comes later adds its band to the exposures that are there."""
    early, late = make([1, 2], [7, 7], "br"), make([2, 3], [7, 7], "z", seed=2)
    early.fibermap["FIBERSTATUS"], late.fibermap["FIBERSTATUS"] = 1, 2
    tables = [np.zeros(2, [("TARGETID", "i8"), (f"MEDIAN_{x}", "f8")]) for x in "BZ"]
    tables[0]["MEDIAN_B"], tables[1]["MEDIAN_Z"] = 5.0, 6.0
    early, late = replace(early, scores=tables[0]), replace(late, scores=tables[1])

    both = early.update(late)

    assert both.fibermap["TARGETID"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(both.bands["b"].flux[:2], early.bands["b"].flux)
    np.testing.assert_array_equal(both.bands["z"].flux[1:], late.bands["z"].flux)
    assert both.bands["b"].resolution is not None
    np.testing.assert_array_equal(both.bands["b"].resolution[1], early.bands["b"].resolution[1])  # type: ignore[index]
    assert both.fibermap["FIBERSTATUS"].tolist() == [1, 3, 2]
    assert both.scores is not None
    assert both.scores["MEDIAN_B"].tolist() == [5, 5, 0]
    assert both.scores["MEDIAN_Z"].tolist() == [0, 6, 6]
    assert (both.bands["b"].mask[2] == SpecMask.NODATA).all()
    assert (both.bands["b"].ivar[2] == 0).all()
    assert late.fibermap["FIBERSTATUS"].tolist() == [2, 2], "the original stays"


def test_an_update_without_scores_keeps_those_that_are_there() -> None:
    scores = np.zeros(2, [("TARGETID", "i8"), ("MEDIAN_B", "f8")])
    scores["TARGETID"], scores["MEDIAN_B"] = [1, 2], 5.0
    both = replace(make([1, 2], [7, 7], "br"), scores=scores).update(make([2, 3], [7, 7], "z", seed=2))
    assert both.scores is not None
    assert both.scores["TARGETID"].tolist() == [1, 2, 3]
    assert both.scores["MEDIAN_B"].tolist() == [5, 5, 0]
