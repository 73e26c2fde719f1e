"""Frames of several nights and tiles to files of spectra, and to coadds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from algorithms.group.pixels import pixel_of
from algorithms.steps.spectra import CoaddStep, GroupStep
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.io.frame import write_frame
from qlstream.io.spectra import read_spectra
from qlstream.pipeline.filestep import StepFiles

WAVES = {"b": 3600 + 0.8 * np.arange(60), "r": 5760 + 0.8 * np.arange(50)}
RA = np.array([150.0, 150.0, 150.0, 155.0])
NOISE = np.random.default_rng(5)


def cframe(folder: Path, camera: str, night: int, expid: int, tile: int = 7, level: float = 5.0) -> Path:
    """Four fibers, of which the second is on the sky and the last five degrees away from the others."""
    rows = np.zeros(
        4, [("TARGETID", "i8"), ("FIBER", "i4"), ("FIBERSTATUS", "i4"), ("OBJTYPE", "U3"), ("TARGET_RA", "f8"),
            ("TARGET_DEC", "f8"), ("PETAL_LOC", "i2")],
    )  # fmt: skip
    rows["FIBER"], rows["OBJTYPE"] = np.arange(4), ["TGT", "SKY", "TGT", "TGT"]
    rows["TARGETID"], rows["TARGET_RA"], rows["TARGET_DEC"] = 1000 * tile + np.arange(4), RA, 2.0
    wave = WAVES[camera[0]]
    shape = (4, wave.size)
    frame = Frame(
        wave, level + NOISE.normal(size=shape), np.ones(shape), np.zeros(shape, np.uint32), rows["FIBER"].copy(),
        resolution=np.ones((4, 1, wave.size)), fibermap=Fibermap(rows),
        meta={"CAMERA": camera, "NIGHT": night, "EXPID": expid, "TILEID": tile, "EXPTIME": 900.0,
              "MJD-OBS": 61000.0 + expid, "FLAVOR": "science"},
    )  # fmt: skip
    path = folder / f"cframe-{camera}-{expid:08d}.fits"
    write_frame(path, frame)
    return path


def test_frames_of_two_nights_make_one_cumulative_coadd(tmp_path: Path) -> None:
    frames = [
        cframe(tmp_path, camera, night, expid)
        for night, expid in ((20260114, 3), (20260114, 4), (20260116, 9))
        for camera in ("b0", "r0")
    ]
    spectra, out = tmp_path / "spectra.fits", tmp_path / "coadd.fits"
    GroupStep().run(StepFiles({"frames": tuple(frames)}, {"spectra": spectra}))
    CoaddStep().run(StepFiles({"spectra": (spectra,)}, {"coadd": out}))

    told, coadd = read_spectra(spectra), read_spectra(out)
    assert told.fibermap["NIGHT"].tolist() == [20260114] * 8 + [20260116] * 4
    assert (told.meta["SPGRP"], told.meta["SPGRPVAL"]) == ("cumulative", 20260116)
    assert (coadd.fibermap["COADD_NUMEXP"] == 3).all()
    assert (coadd.fibermap["COADD_NUMNIGHT"] == 2).all()
    assert (coadd.fibermap["FIRSTNIGHT"] == 20260114).all()
    assert (coadd.fibermap["LASTNIGHT"] == 20260116).all()
    np.testing.assert_allclose(coadd.bands["b"].ivar, 3.0)
    pull = (coadd.bands["b"].flux - 5.0) * np.sqrt(3.0)
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert coadd.scores is not None
    assert {"INTEG_COADD_FLUX_R", "MEDIAN_COADD_SNR_R"} <= set(coadd.scores.dtype.names or ())


def test_a_pixel_takes_its_targets_from_all_tiles_and_is_extended_by_a_later_camera(tmp_path: Path) -> None:
    pixel = int(pixel_of(RA[:1], np.array([2.0]))[0])
    first = tuple(cframe(tmp_path, "b0", 20260114, expid, tile) for expid, tile in ((3, 7), (4, 8)))
    late = cframe(tmp_path, "r0", 20260114, 3)
    early, both = tmp_path / "early.fits", tmp_path / "both.fits"

    GroupStep({"healpix": pixel}).run(StepFiles({"frames": first}, {"spectra": early}))
    GroupStep({"healpix": pixel}).run(StepFiles({"frames": (*first, late), "existing": (early,)}, {"spectra": both}))

    spectra = read_spectra(both)
    assert sorted(spectra.fibermap["TARGETID"].tolist()) == [7000, 7002, 8000, 8002], "no sky, none of another pixel"
    assert (spectra.meta["SPGRP"], spectra.meta["HPXPIXEL"], spectra.meta["HPXNSIDE"]) == ("healpix", pixel, 64)
    seen = (spectra.bands["r"].ivar > 0).all(axis=1)
    assert (spectra.fibermap["TARGETID"][seen] // 1000 == 7).all()
    assert seen.sum() == 2
    assert (spectra.bands["b"].ivar > 0).all(), "what was there stays"


def test_a_pixel_without_targets_is_told(tmp_path: Path) -> None:
    path = cframe(tmp_path, "b0", 20260114, 3)
    with pytest.raises(LookupError, match="no target of 1 frames lies on pixel 5"):
        GroupStep({"healpix": 5}).run(StepFiles({"frames": (path,)}, {"spectra": tmp_path / "spectra.fits"}))
