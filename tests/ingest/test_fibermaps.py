"""Fibermaps that are found, waited for, or put together from what came beside the raw file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qlstream.instrument import load_instrument
from qlstream.io.fibermap import read_fibermap
from qlstream.simulate.assignment import write_companions
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.targets import assign_targets

from .conftest import NIGHT

TILE = 1012


@pytest.fixture(scope="module")
def companions(tmp_path_factory) -> dict[str, Path]:
    """The fiberassign and the coordinates file of exposure 7."""
    folder = tmp_path_factory.mktemp("companions")
    mini, exposure = load_instrument("mini"), Exposure("science-dark", NIGHT, 7, tileid=TILE)
    write_companions(folder, assign_targets(mini, exposure, 1), mini, exposure, seed=1)
    return {path.name.partition("-")[0]: path for path in folder.iterdir()}


def science(write_exposure, path: Path) -> None:
    write_exposure(path, obstype="SCIENCE", TILEID=TILE)


async def test_a_fibermap_is_made_of_its_files_at_once(running, write_exposure, raw_path, companions):
    async with running(fibermap_wait_s=60.0) as night:
        raw_path().parent.mkdir(parents=True)
        for path in companions.values():
            shutil.copy(path, raw_path().parent)
        science(write_exposure, raw_path())
        ready = await night.until("exposure.ready")
        await night.decided()

    made = Path(night.row()["fibermap"])
    assert made.parts[-4:] == ("preproc", str(NIGHT), "00000007", "fibermap-00000007.fits")
    assert read_fibermap(made).meta["TILEID"] == TILE
    assert len(read_fibermap(made)) == 400
    assert "position" not in ready.payload["reason"]
    assert night.row()["program"] == "dark"
    assert night.kinds().count("exposure.ready") == 1


async def test_coordinates_are_waited_for(running, write_exposure, raw_path, companions):
    async with running(fibermap_wait_s=20.0) as night:
        science(write_exposure, raw_path())
        shutil.copy(companions["fiberassign"], raw_path().parent)
        while "coordinates" not in (await night.until("exposure.waiting")).payload["reason"]:
            night.events.clear()
        half = companions["coordinates"].read_bytes()
        target = raw_path().parent / companions["coordinates"].name
        target.write_bytes(half[:9000])
        target.write_bytes(half)
        await night.until("exposure.ready")
        await night.decided()

    assert np.isfinite(read_fibermap(night.row()["fibermap"]).rows["DELTA_X"]).all()
    assert night.kinds().count("exposure.ready") == 1


async def test_late_coordinates_make_it_run_again(running, write_exposure, raw_path, companions):
    async with running(fibermap_wait_s=0.5) as night:
        raw_path().parent.mkdir(parents=True)
        shutil.copy(companions["fiberassign"], raw_path().parent)
        science(write_exposure, raw_path())
        first = await night.until("exposure.ready")
        without = read_fibermap(night.row()["fibermap"])
        shutil.copy(companions["coordinates"], raw_path().parent)
        second = await night.until("exposure.ready", count=2)
        await night.decided()

    assert "positions of the fibers unknown: no coordinates-00000007.fits" in first.payload["reason"]
    assert without.meta["COORDFIL"] == "MISSING"
    assert "its fibermap came or changed" in second.payload["reason"]
    assert read_fibermap(night.row()["fibermap"]).meta["COORDFIL"] == "coordinates-00000007.fits"
    assert night.row()["version"] == 2


async def test_an_unreadable_assignment_is_told_and_the_exposure_goes_on(running, write_exposure, raw_path, companions):
    async with running(fibermap_wait_s=0.5) as night:
        raw_path().parent.mkdir(parents=True)
        (raw_path().parent / companions["fiberassign"].name).write_bytes(b"this is no FITS file")
        science(write_exposure, raw_path())
        ready = await night.until("exposure.ready")

    assert "no fibermap came within 0.5 s" in ready.payload["reason"]
    assert "none can be made" in ready.payload["reason"]
    assert night.row()["fibermap"] is None


async def test_lamps_of_no_tile_do_not_wait(running, write_exposure, raw_path):
    async with running(fibermap_wait_s=60.0) as night:
        write_exposure(raw_path(), obstype="FLAT")
        await night.until("exposure.ready", within=20.0)
