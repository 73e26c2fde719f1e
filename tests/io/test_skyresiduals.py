"""Sky residuals gathered from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fluxcalib import FrameFluxCalib
from qlstream.datamodel.frame import PER_ANGSTROM, Frame
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.datamodel.qframe import CALIBRATED
from qlstream.datamodel.sky import SkyModel
from qlstream.io.errors import BadFile
from qlstream.io.fluxcalib import write_fluxcalib
from qlstream.io.frame import write_frame
from qlstream.io.sky import write_sky
from qlstream.io.skyresiduals import get_skyres

NSPEC, NWAVE = 40, 200
SIGMA = 3.0


def write(folder: Path, expid: int, kind: str = "sframe", calib: float = 1.0, offset: float = 0.0, **given) -> Path:
    """A frame of known noise, half of it sky fibers; `offset` [sigma] at bin 50 of all of them."""
    rng = np.random.default_rng(expid)
    rows = np.zeros(NSPEC, [("FIBER", "i4"), ("OBJTYPE", "U3"), ("FIBERSTATUS", "i4")])
    rows["FIBER"], rows["OBJTYPE"] = np.arange(NSPEC), np.tile(["SKY", "TGT"], NSPEC // 2)
    rows["FIBERSTATUS"][2] = int(FiberMask.BROKENFIBER)
    wave = 5800 + 0.8 * np.arange(NWAVE)
    flux = rng.normal(scale=SIGMA, size=(NSPEC, NWAVE))
    flux[1::2] += 1e4
    flux[:, 50] += offset * SIGMA
    mask = np.zeros(flux.shape, np.uint32)
    flux[4, 10], mask[4, 10] = 1e6, SpecMask.COSMIC
    bunit = PER_ANGSTROM if calib == 1.0 else CALIBRATED
    frame = Frame(
        wave, flux / calib, np.full(flux.shape, calib**2 / SIGMA**2), mask, rows["FIBER"].copy(),
        fibermap=Fibermap(rows), bunit=bunit, meta={"CAMERA": "r3", "EXPID": expid, "FLAVOR": "science"},
    )  # fmt: skip
    path = folder / f"{kind}-r3-{expid:08d}.fits"
    write_frame(path, Frame(**(frame.__dict__ | given)))
    return path


def write_surroundings(folder: Path, expid: int, sky: float, calib: float) -> None:
    shape = (NSPEC, NWAVE)
    wave, ones, mask = 5800 + 0.8 * np.arange(NWAVE), np.ones(shape), np.zeros(shape, np.uint32)
    write_sky(folder / f"sky-r3-{expid:08d}.fits", SkyModel(wave, sky * ones, ones, mask))
    write_fluxcalib(
        folder / f"fluxcalib-r3-{expid:08d}.fits", FrameFluxCalib(wave=wave, value=calib * ones, ivar=ones, mask=mask)
    )


def test_residuals_of_usable_sky_fibers_are_noise_of_the_stated_size(tmp_path):
    found = get_skyres([write(tmp_path, expid) for expid in (1, 2, 3)])

    assert len(found) == 3 * 19, "half of the fibers, and one of them is broken"
    assert 2 not in found.fiber
    pull = found.pull[np.isfinite(found.pull)]
    assert pull.size == 3 * 19 * NWAVE - 3, "a masked bin says nothing"
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1, abs=5 / np.sqrt(2 * pull.size))
    assert found.significance.std() == pytest.approx(1, abs=5 / np.sqrt(2 * NWAVE))
    assert found.chi2pdf.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / pull.size))
    assert np.isnan(found.flux).all(), "no sky model lies beside the frames"


def test_what_all_fibers_share_stands_out_of_many_exposures(tmp_path):
    found = get_skyres([write(tmp_path, expid, offset=1.0) for expid in (1, 2, 3)])

    mean, ivar = found.mean()
    assert found.significance.argmax() == 50
    # 57 fibers, one sigma each
    assert found.significance[50] == pytest.approx(np.sqrt(57), abs=5)
    assert mean[50] == pytest.approx(SIGMA, abs=5 / np.sqrt(ivar[50]))


@pytest.mark.parametrize(("kind", "calib"), [("sframe", 1.0), ("cframe", 4.0)])
def test_the_subtracted_sky_comes_in_the_unit_of_the_frame(tmp_path, kind, calib):
    path = write(tmp_path, 1, kind, calib)
    write_surroundings(tmp_path, 1, sky=120.0, calib=4.0)

    found = get_skyres(path)

    np.testing.assert_allclose(found.flux, 120.0 / calib, rtol=1e-6)
    wave, flux, res, ivar = found.flat()
    assert wave.shape == flux.shape == res.shape == ivar.shape == (19 * NWAVE - 1,)
    assert np.std(res * np.sqrt(ivar)) == pytest.approx(1, abs=0.06)


def test_frames_that_do_not_fit_together_are_refused(tmp_path):
    other = write(tmp_path, 2, "cframe", 4.0)
    shifted = write(tmp_path, 3, wave=6800 + 0.8 * np.arange(NWAVE))
    with pytest.raises(ValueError, match="units differ"):
        get_skyres([write(tmp_path, 1), other])
    with pytest.raises(ValueError, match="other|different wavelengths"):
        get_skyres([write(tmp_path, 1), shifted])
    with pytest.raises(BadFile, match="no fibermap"):
        get_skyres(write(tmp_path, 4, fibermap=None))
    with pytest.raises(ValueError, match="nothing given"):
        get_skyres([])
