"""The cache of unpacked calibration images, and darks in all their forms."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from qlstream.calibration.cache import load_image
from qlstream.calibration.dark import load_dark
from qlstream.io.errors import BadFile
from qlstream.io.fitsfile import HDU, write_fits

IMAGE = np.random.default_rng(2).normal(size=(60, 40)).astype(np.float32)


@pytest.fixture
def bias(tmp_path: Path) -> Path:
    path = tmp_path / "ccd" / "bias.fits.gz"
    write_fits(path, [HDU("BIAS", IMAGE)])
    return path


def test_an_image_is_unpacked_once_and_then_mapped(bias, tmp_path):
    cache = tmp_path / "cache"
    first = load_image(bias, cache, np.float32)
    entry, *others = cache.iterdir()
    stamp = entry.stat().st_mtime_ns

    second = load_image(bias, cache, np.float32)

    np.testing.assert_array_equal(second, IMAGE)
    assert not others
    assert entry.stat().st_mtime_ns == stamp
    for image in (first, second, load_image(bias, None, np.float32)):
        assert type(image) is np.ndarray
        assert image.dtype == np.float32
        assert not image.flags.writeable


def test_a_changed_file_is_unpacked_again_and_its_old_entry_goes(bias, tmp_path):
    cache = tmp_path / "cache"
    mapped = load_image(bias, cache, np.float32)
    write_fits(bias, [HDU("BIAS", IMAGE + 1)])
    os.utime(bias, ns=(1, 1))

    np.testing.assert_array_equal(load_image(bias, cache, np.float32), IMAGE + 1)
    np.testing.assert_array_equal(mapped, IMAGE)  # who has the old one keeps it
    assert len(list(cache.iterdir())) == 1


def test_types_and_hdus_have_entries_of_their_own(tmp_path):
    path = tmp_path / "two.fits"
    write_fits(path, [HDU("A", np.full((3, 4), 7, np.int32)), HDU("B", np.full((3, 4), 9, np.int32))])
    cache = tmp_path / "cache"
    assert load_image(path, cache, np.uint16)[0, 0] == 7
    assert load_image(path, cache, np.float32)[0, 0] == 7
    assert load_image(path, cache, np.uint16, "B")[0, 0] == 9
    assert len(list(cache.iterdir())) == 3


def test_a_broken_entry_is_made_again(bias, tmp_path, caplog):
    load_image(bias, tmp_path / "cache", np.float32)
    entry = next((tmp_path / "cache").iterdir())
    entry.write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_image(bias, tmp_path / "cache", np.float32), IMAGE)
    assert "unusable" in caplog.text


def test_a_cache_that_cannot_be_written_is_done_without(bias, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_image(bias, tmp_path / "cache", np.float32), IMAGE)
    assert "not cached" in caplog.text


def _load(bias: Path, cache: Path) -> float:
    return float(load_image(bias, cache, np.float32).sum(dtype=np.float64))


def test_processes_that_race_for_an_entry_all_get_the_image(bias, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_load, [(bias, tmp_path / "cache")] * 8)
    assert set(sums) == {float(IMAGE.sum(dtype=np.float64))}
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_simple_dark_grows_with_the_exposure_time(tmp_path):
    write_fits(tmp_path / "dark.fits", [HDU("DARK", IMAGE)])
    dark = load_dark(tmp_path / "dark.fits", tmp_path / "cache")
    np.testing.assert_allclose(dark.at(900.0), 900 * IMAGE, rtol=1e-6)
    np.testing.assert_array_equal(dark.at(0.0), 0)


@pytest.mark.parametrize(
    ("exptime", "profile"), [(0, 0.0), (5, 10.0), (10, 10.0), (55, 15.0), (100, 20.0), (900, 20.0)]
)
def test_profiles_are_interpolated_in_exposure_time_and_held_at_the_ends(tmp_path, exptime, profile):
    rows = np.linspace(1, 2, 60, dtype=np.float32)
    hdus = [HDU("ZERO", IMAGE), HDU("DARK", IMAGE), HDU("T100", 20 * np.stack([rows, 3 * rows]))]
    write_fits(tmp_path / "dark.fits", [*hdus, HDU("T10", 10 * np.stack([rows, 3 * rows]))])

    dark = load_dark(tmp_path / "dark.fits").at(exptime)

    expected = exptime * IMAGE + profile * np.where(np.arange(40) < 20, 1, 3) * rows[:, None]
    np.testing.assert_allclose(dark, expected, rtol=1e-5, atol=1e-4)


def test_profiles_that_do_not_fit_the_image_are_refused(tmp_path):
    write_fits(tmp_path / "dark.fits", [HDU("DARK", IMAGE), HDU("T10", np.zeros((2, 59), np.float32))])
    with pytest.raises(BadFile, match=r"HDU T10: profile of shape \(2, 59\); expected \(2, 60\)"):
        load_dark(tmp_path / "dark.fits")
