"""Frames regrouped to spectra: rows, missing cameras, pixels of the sky."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algorithms.coadd.exposures import coadd
from algorithms.group.frames import frames2spectra
from algorithms.group.pixels import FrameCache, fibermap_pixels, pixel_of, spectra_of_pixel
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import FiberMask, SpecMask

NIGHT = 20260114
WAVES = {"b": 3600 + 0.8 * np.arange(30), "r": 5760 + 0.8 * np.arange(40)}


def frame(camera: str, expid: int, level: float, status: int = 0, ra: float = 150.0) -> Frame:
    petal, nspec = int(camera[1:]), 4
    rows = np.zeros(
        nspec,
        dtype=[("TARGETID", "i8"), ("FIBER", "i4"), ("FIBERSTATUS", "i4"), ("OBJTYPE", "U3"), ("TARGET_RA", "f8"),
               ("TARGET_DEC", "f8"), ("PETAL_LOC", "i2")],
    )  # fmt: skip
    rows["FIBER"] = nspec * petal + np.arange(nspec)
    rows["TARGETID"] = 1000 + rows["FIBER"]
    rows["OBJTYPE"], rows["PETAL_LOC"] = ["TGT", "SKY", "TGT", "TGT"], petal
    rows["TARGET_RA"], rows["TARGET_DEC"] = ra + np.array([0, 0, 0, 5.0]), 2.0
    rows["FIBERSTATUS"][2] = status
    wave = WAVES[camera[0]]
    shape = (nspec, wave.size)
    resolution = np.zeros((nspec, 3, wave.size))
    resolution[:, 1] = 1.0
    return Frame(
        wave, np.full(shape, level), np.full(shape, 2.0), np.zeros(shape, np.uint32), rows["FIBER"].copy(),
        resolution=resolution, fibermap=Fibermap(rows),
        meta={"CAMERA": camera, "TILEID": 7, "EXPTIME": 900.0, "MJD-OBS": 61000.0 + expid},
    )  # fmt: skip


def test_rows_are_sorted_and_what_is_missing_has_no_information() -> None:
    frames = {
        (NIGHT, 5, "r1"): frame("r1", 5, 51.0, status=4),
        (NIGHT, 5, "b1"): frame("b1", 5, 50.0, status=2),
        (NIGHT, 4, "b0"): frame("b0", 4, 40.0),
    }
    spectra = frames2spectra(frames)
    assert list(spectra.bands) == ["b", "r"]
    assert spectra.fibermap["EXPID"].tolist() == [4] * 4 + [5] * 4
    assert spectra.bands["b"].flux[:, 0].tolist() == [40.0] * 4 + [50.0] * 4
    missing = spectra.bands["r"]
    assert (missing.ivar[:4] == 0).all()
    assert (missing.mask[:4] == SpecMask.NODATA).all()
    assert spectra.fibermap["FIBERSTATUS"][6] == 6, "the bits of all cameras"
    np.testing.assert_allclose(spectra.fibermap["MJD"][:4], 61004.0)
    assert spectra.meta["TILEID"] == 7


def test_a_frame_without_a_fibermap_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no fibermap.*r1"):
        frames2spectra({(NIGHT, 5, "r1"): replace(frame("r1", 5, 1.0), fibermap=None)})


def test_pixels_agree_with_the_known_numbering() -> None:
    # nested pixel 0 of nside 1 is centred on RA 45, Dec 41.8; the south pole belongs to 8 ... 11
    assert pixel_of(np.array([45.0, 45.0, np.nan]), np.array([41.8, -89.0, 0.0]), 1).tolist() == [0, 8, -1]


def test_targets_are_counted_by_pixel_without_sky_fibers() -> None:
    found = fibermap_pixels(frame("b0", 1, 1.0).fibermap)  # type: ignore[arg-type]
    assert sorted(found.values()) == [1, 2]


def test_a_pixel_gathers_its_targets_and_is_extended_by_what_it_lacks(tmp_path: Path) -> None:
    frames = {f"{camera}-{expid}": frame(camera, expid, 10.0 * expid) for camera in ("b0", "r0") for expid in (1, 2)}
    read: list[str] = []

    def fetch(path: Path) -> Frame:
        read.append(path.name)
        return frames[path.name]

    def files(*expids: int) -> dict[tuple[int, int, str], Path]:
        return {(NIGHT, e, c): tmp_path / f"{c}-{e}" for e in expids for c in ("b0", "r0")}

    (pixel,) = [p for p, n in fibermap_pixels(frames["b0-1"].fibermap).items() if n == 2]  # type: ignore[arg-type]
    first = spectra_of_pixel(pixel, FrameCache(files(1), fetch))
    assert first.fibermap["TARGETID"].tolist() == [1000, 1002]
    assert first.meta["HPXPIXEL"] == pixel
    read.clear()
    both = spectra_of_pixel(pixel, FrameCache(files(1, 2), fetch), first)
    assert read == ["b0-2", "r0-2"], "exposures that are in it are not read again"
    assert sorted(both.fibermap["EXPID"].tolist()) == [1, 1, 2, 2]
    assert spectra_of_pixel(pixel, FrameCache(files(1, 2), fetch), both) is both
    with pytest.raises(LookupError, match="no target"):
        spectra_of_pixel(0, FrameCache(files(1), fetch))


def test_the_cache_forgets_the_oldest() -> None:
    read: list[Path] = []

    def fetch(path: Path) -> Frame:
        read.append(path)
        return frame("b0", 1, 1.0)

    keys = {name: (NIGHT, n, "b0") for n, name in enumerate("abc")}
    cache = FrameCache({key: Path(name) for name, key in keys.items()}, fetch, size=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        cache[keys[name]]
    assert list(cache) == list(keys.values())
    assert [p.name for p in read] == ["a", "b", "c", "b"]


def scored(camera: str, expid: int, value: float) -> Frame:
    """A frame whose fibers have this TSNR2 for ELG, of which nominal conditions give 50."""
    letter = camera[0].upper()
    plain = frame(camera, expid, 1.0)
    assert plain.fibermap is not None
    table = np.zeros(4, [("TARGETID", "i8"), (f"TSNR2_ELG_{letter}", "f8")])
    table["TARGETID"] = plain.fibermap.column("TARGETID")
    table[f"TSNR2_ELG_{letter}"] = value
    return replace(plain, scores=table, meta={**plain.meta, "NOMELG": 50.0})


def test_scores_of_all_cameras_stand_side_by_side_and_add_up_in_the_coadd() -> None:
    frames = {(NIGHT, e, c): scored(c, e, v) for e, c, v in ((1, "b0", 1.0), (1, "r0", 2.0), (2, "r0", 4.0))}
    spectra = frames2spectra(frames)
    assert spectra.scores is not None
    assert spectra.scores["TSNR2_ELG_B"].tolist() == [1.0] * 4 + [0.0] * 4
    assert spectra.scores["TSNR2_ELG_R"].tolist() == [2.0] * 4 + [4.0] * 4
    spectra.fibermap["FIBERSTATUS"][5] = FiberMask.BADAMPR
    scores = coadd(spectra).scores
    assert scores is not None
    assert scores["TARGETID"].tolist() == [1000, 1001, 1002, 1003]
    assert scores["TSNR2_ELG_R"].tolist() == [6, 2, 6, 6], "exposures that took no part do not count"
    assert scores["TSNR2_ELG"].tolist() == [7, 3, 7, 7]
    assert scores["EFFTIME_ELG"].tolist() == [70, 30, 70, 70]
    assert scores["TSNR2_ELG"].dtype == np.float32


def test_an_arm_that_comes_later_changes_the_effective_times_of_those_before() -> None:
    """Each arm's is its share of what all arms tell in nominal conditions, in whatever order they come."""
    pixel = int(pixel_of(np.array([150.0]), np.array([2.0]))[0])
    early = {(NIGHT, 1, "b0"): scored("b0", 1, 1.0), (NIGHT, 2, "b0"): scored("b0", 2, 3.0)}
    late = {(NIGHT, 1, "r0"): scored("r0", 1, 2.0)}
    before = spectra_of_pixel(pixel, early)
    after, at_once = spectra_of_pixel(pixel, early | late, before), spectra_of_pixel(pixel, early | late)
    assert before.scores is not None
    assert before.scores["EFFTIME_ELG_B"].tolist() == [20, 20, 60, 60]
    for spectra in (after, at_once):
        assert spectra.scores is not None
        rows = np.lexsort((spectra.fibermap["TARGETID"], spectra.fibermap["EXPID"]))
        assert spectra.scores["EFFTIME_ELG_B"][rows].tolist() == [10, 10, 30, 30]
        assert spectra.scores["EFFTIME_ELG_R"][rows].tolist() == [20, 20, 0, 0]
