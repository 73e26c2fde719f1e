from pathlib import Path

import numpy as np
import pytest

from qlstream.datamodel.image import Image
from qlstream.datamodel.qframe import QFrame
from qlstream.engine.preview import bin_image, bin_spectra, read_preview, sweep_previews, write_previews
from qlstream.store.database import Store
from qlstream.store.jobs import Job

JOB = Job(1, 20260115, 82, "r3", 1, "science", 61055.3, 2, 0, Path("desi-00000082.fits.fz"), None, 0.0)


def image(ny, nx):
    pix = np.arange(ny * nx, dtype=np.float32).reshape(ny, nx)
    return Image(pix, np.ones_like(pix), np.zeros((ny, nx), dtype=np.uint16), "r3")


def qframe(nspec, ny, sky=None):
    rng = np.random.default_rng(5)
    wave = np.broadcast_to(5800 + 0.6 * np.arange(ny), (nspec, ny)).copy()
    flux = (100 + rng.normal(0, 2.0, (nspec, ny))).astype(np.float32)
    ivar = np.full((nspec, ny), 0.25, dtype=np.float32)
    mask = np.zeros((nspec, ny), dtype=np.uint32)
    return QFrame(wave, flux, ivar, mask, np.arange(nspec, dtype=np.int32), sky=sky)


def test_an_image_is_binned_to_what_a_page_can_show_and_keeps_its_mean():
    whole = image(ny=70, nx=100)

    arrays = bin_image(whole, side=32)

    assert arrays["binning"] == 4
    assert arrays["image"].shape == (18, 25)
    np.testing.assert_allclose(arrays["image"][0, 0], whole.pix[:4, :4].mean(), rtol=1e-6)
    np.testing.assert_allclose(arrays["image"][-1, -1], whole.pix[68:, 96:].mean(), rtol=1e-6)  # a bin partly covered


def test_a_small_image_is_shown_pixel_by_pixel():
    whole = image(ny=50, nx=40)

    arrays = bin_image(whole)

    np.testing.assert_array_equal(arrays["image"], whole.pix)


def test_a_masked_pixel_marks_its_bin_and_does_not_count_in_its_mean():
    whole = image(ny=8, nx=8)
    whole.pix[:] = 1
    whole.pix[0, 0] = 1e6
    whole.mask[0, 0] = 4
    whole.mask[4:, 4:] = 1

    arrays = bin_image(whole, side=2)

    np.testing.assert_array_equal(arrays["image"], 1)
    np.testing.assert_array_equal(arrays["mask"], [[1, 0], [0, 1]])


def test_binned_spectra_keep_flux_and_gain_information():
    arrays = bin_spectra(qframe(nspec=20, ny=5000), samples=1000)

    pull = (arrays["flux"] - 100) * np.sqrt(arrays["ivar"])
    assert arrays["flux"].shape == (20, 1000)
    assert arrays["binning"] == 5
    np.testing.assert_allclose(arrays["ivar"], 5 * 0.25)
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size))
    np.testing.assert_allclose(arrays["wave"][0, :2], [5800 + 0.6 * 2, 5800 + 0.6 * 7])


def test_short_spectra_are_not_binned_and_bins_without_information_are_nan():
    sky = np.full((3, 400), 7, dtype=np.float32)
    spectra = qframe(nspec=3, ny=400, sky=sky)
    spectra.mask[1, 10] = 1
    spectra.ivar[1, 11] = 0

    arrays = bin_spectra(spectra)

    assert np.isnan(arrays["flux"][1, 10:12]).all()
    assert np.isfinite(arrays["flux"]).sum() == 3 * 400 - 2
    np.testing.assert_array_equal(arrays["flux"][0], spectra.flux[0])
    np.testing.assert_allclose(arrays["sky"][0], 7)


def test_previews_are_written_from_the_last_image_and_the_last_spectra(tmp_path):
    outputs = {"Initialize": None, "Preproc": image(20, 20), "Flexure": image(30, 20), "Extract_QP": qframe(2, 30)}

    files = write_previews(tmp_path, JOB, outputs)

    assert set(files) == {"preview", "spectra"}
    assert read_preview(files["preview"])["image"].shape == (30, 20)
    assert read_preview(files["spectra"])["sky"].size == 0
    assert str(read_preview(files["spectra"])["bunit"]) == "electron"


def test_the_sweep_takes_files_that_no_row_points_to_and_leaves_young_ones(tmp_path):
    files = write_previews(tmp_path, JOB, {"Preproc": image(20, 20)})

    with Store.open(None, tmp_path) as store:
        assert sweep_previews(store) == 0
        assert files["preview"].exists()
        assert sweep_previews(store, older_than_s=-1) == 1
    assert not files["preview"].exists()
