"""A running service: files in by every way they may come, exposures in the store."""

import asyncio
import hashlib
import os
import shutil

import numpy as np
import pytest

from qlstream.datamodel.fibermap import Fibermap
from qlstream.io.fibermap import write_fibermap
from qlstream.store import query
from qlstream.store.database import StoreAway

NIGHT = 20260115


def write_small_fibermap(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.zeros(4, dtype=[("FIBER", "i4"), ("TARGETID", "i8")])
    rows["FIBER"] = np.arange(4)
    write_fibermap(path, Fibermap(rows))


async def test_a_file_that_is_there_at_the_start_is_opened(running, write_exposure, raw_path):
    write_exposure(raw_path())

    async with running() as night:
        row = night.row()

    assert row["state"] == "ready"
    assert (row["flavor"], row["cameras"], row["missing"], row["version"]) == ("arc", "b0r0", None, 1)
    assert (row["mjd"], row["exptime"], row["instrument"]) == (61000.07, 10.0, "mini")
    assert night.kinds() == ["exposure.seen", "exposure.waiting", "exposure.ready"]
    assert [job["camera"] for job in query.jobs_of(night.store, NIGHT)] == ["b0", "r0"]


@pytest.mark.parametrize("watch", ["inotify", "poll", "scan"])
async def test_a_file_renamed_into_place_is_opened_once(running, write_exposure, raw_path, staged, watch):
    source = write_exposure(staged())

    async with running(watch=watch, poll_s=0.1, scan_s=0.2 if watch == "scan" else 30.0) as night:
        raw_path().parent.mkdir(parents=True)
        temporary = raw_path().with_name(f".{raw_path().name}.Xa3b9c")
        shutil.copyfile(source, temporary)
        os.replace(temporary, raw_path())
        await night.until("exposure.ready")
        await night.decided()

    assert night.kinds().count("exposure.ready") == 1


async def test_a_rename_that_is_seen_tells_that_the_writer_was_done(running, write_exposure, raw_path, staged):
    source = write_exposure(staged(), promised=None)
    raw_path().parent.mkdir(parents=True)

    async with running(settle_s=60.0) as night:
        temporary = raw_path().with_name("desi-00000007.fits.fz.tmp")
        shutil.copyfile(source, temporary)
        os.replace(temporary, raw_path())
        await night.until("exposure.ready")


async def test_a_file_that_comes_late_to_an_older_night_is_found_by_the_wide_scan(running, write_exposure, raw_path):
    write_exposure(raw_path())

    async with running(nights=1, wide_scan_s=0.2, scan_s=0.1) as night:
        write_exposure(raw_path(3, night=20260110))
        await night.until("exposure.ready", 3)


async def test_temporary_names_are_not_looked_at(running, write_exposure, raw_path, staged):
    source = write_exposure(staged())

    async with running() as night:
        raw_path().parent.mkdir(parents=True)
        for name in (".desi-00000007.fits.fz.Xa3b9c", "desi-00000007_tmp99.fits.fz", "desi-00000007.fits.fz.tmp"):
            shutil.copyfile(source, raw_path().with_name(name))
        await night.decided()

        assert night.kinds() == []


async def test_a_file_that_grows_waits_and_is_opened_once_it_is_whole(running, write_exposure, raw_path, staged):
    content = write_exposure(staged()).read_bytes()

    async with running() as night:
        raw_path().parent.mkdir(parents=True)
        with open(raw_path(), "wb", buffering=0) as file:
            file.write(content[:9000])
            waiting = await night.until("exposure.waiting")
            for start in range(9000, len(content), 2000):
                file.write(content[start : start + 2000])
                await asyncio.sleep(0.02)
        await night.until("exposure.ready")
        await night.decided()

    assert "incomplete, waiting: 9000 bytes" in waiting.payload["reason"]
    assert night.kinds().count("exposure.ready") == 1
    assert night.row()["version"] == 1


async def test_a_file_cut_for_ever_is_given_up_and_taken_again_when_it_grows(running, write_exposure, raw_path, staged):
    content = write_exposure(staged()).read_bytes()

    async with running() as night:
        raw_path().parent.mkdir(parents=True)
        raw_path().write_bytes(content[:-2000])
        gave_up = await night.until("exposure.incomplete")
        state = night.row()["state"]
        raw_path().write_bytes(content)
        await night.until("exposure.ready")

    assert gave_up.payload["reason"].startswith(f"gave up after 0.8 s: {len(content) - 2000} of {len(content)} bytes")
    assert state == "incomplete"


async def test_a_file_cut_between_two_hdus_is_not_taken_for_whole_at_once(running, write_exposure, raw_path, staged):
    whole = write_exposure(staged()).read_bytes()
    shorter = write_exposure(staged(8), cameras=("b0",), promised="b0,r0").read_bytes()

    async with running(settle_s=5.0) as night:
        raw_path().parent.mkdir(parents=True)
        first_cut = len(shorter)
        raw_path().write_bytes(whole[:first_cut])
        waiting = await night.until("exposure.waiting")
        raw_path().write_bytes(whole)
        await night.until("exposure.ready")

    assert "1 of 2 cameras, r0 missing" in waiting.payload["reason"]
    assert night.row()["cameras"] == "b0r0"
    assert night.kinds().count("exposure.ready") == 1


async def test_a_camera_that_never_comes_does_not_hold_the_others(running, write_exposure, raw_path):
    async with running() as night:
        write_exposure(raw_path(), cameras=("b0",))
        ready = await night.until("exposure.ready")

    assert "1 of 2 cameras, r0 missing" in ready.payload["reason"]
    assert (night.row()["cameras"], night.row()["missing"]) == ("b0", "r0")


async def test_the_same_content_again_makes_no_run(running, write_exposure, raw_path, staged):
    source = write_exposure(staged())

    async with running() as night:
        write_exposure(raw_path())
        await night.until("exposure.ready")
        shutil.copyfile(source, raw_path().with_name("x.tmp"))
        content = raw_path().read_bytes()
        os.utime(raw_path(), ns=(1, 1))
        await night.until("exposure.seen", count=2)
        raw_path().write_bytes(content)
        again = await night.until("exposure.seen", count=3)
        await night.decided()

    assert again.payload["again"]
    assert "the content did not" in again.payload["reason"]
    assert night.kinds().count("exposure.ready") == 1
    assert night.row()["version"] == 1
    assert night.row()["state"] == "ready"


async def test_a_changed_content_makes_exactly_one_new_version(running, write_exposure, raw_path):
    async with running() as night:
        write_exposure(raw_path(), seed=1)
        await night.until("exposure.ready")
        write_exposure(raw_path(), seed=2)
        ready = await night.until("exposure.ready", count=2)
        await night.decided()

    assert ready.payload["reason"].startswith("its content changed")
    assert night.row()["version"] == 2
    assert night.kinds().count("exposure.ready") == 2
    jobs = query.jobs_of(night.store, NIGHT)
    assert {job["version"] for job in jobs} == {2}


async def test_a_restart_goes_on_where_the_last_one_ended(running, write_exposure, raw_path, staged):
    content = write_exposure(staged()).read_bytes()
    write_exposure(raw_path(8))

    async with running(give_up_s=60.0) as night:
        await night.until("exposure.ready", expid=8)
        raw_path().parent.mkdir(parents=True)
        raw_path().write_bytes(content[:9000])
        await night.until("exposure.waiting")
    raw_path().write_bytes(content)
    async with running() as night:
        pass

    assert night.row(7)["state"] == "ready"
    assert night.kinds(8).count("exposure.ready") == 1


async def test_exposures_may_come_in_any_order_and_to_older_nights(running, write_exposure, raw_path):
    async with running(nights=1) as night:
        for expid in (9, 7, 8):
            write_exposure(raw_path(expid))
        write_exposure(raw_path(3, night=20260110))  # not watched: an older night than the newest one
        for expid in (7, 8, 9):
            await night.until("exposure.ready", expid)

    async with running(nights=1) as night:  # a start scans more nights
        await night.until("exposure.ready", 3)
    assert [row["expid"] for row in query.exposures_of(night.store, NIGHT)] == [7, 8, 9]


async def test_a_night_that_is_a_link_is_watched(running, write_exposure, raw_path, tmp_path, raw):
    elsewhere = tmp_path / "elsewhere" / str(NIGHT)
    elsewhere.mkdir(parents=True)
    (raw / str(NIGHT)).symlink_to(elsewhere)

    async with running() as night:
        write_exposure(raw_path())
        await night.until("exposure.ready")


async def test_a_raw_folder_that_appears_later_is_found(running, write_exposure, raw_path, raw):
    raw.rmdir()

    async with running(scan_s=0.1) as night:
        write_exposure(raw_path())
        await night.until("exposure.ready")


async def test_an_exposure_of_a_tile_waits_for_its_fibermap(running, write_exposure, raw_path):
    async with running(fibermap_wait_s=20.0) as night:
        write_exposure(raw_path(), obstype="FLAT", TILEID=1012)
        waiting = await night.until("exposure.waiting", count=2)
        write_small_fibermap(raw_path().with_name("fibermap-00000007.fits"))
        await night.until("exposure.ready")
        await night.decided()

    assert waiting.payload["reason"] == "waiting 20 s for its fibermap"
    assert night.row()["fibermap"].endswith("fibermap-00000007.fits")
    assert night.kinds().count("exposure.ready") == 1


async def test_a_fibermap_may_stand_in_the_production(running, write_exposure, raw_path, store):
    write_small_fibermap(store.redux / "preproc" / str(NIGHT) / "00000007" / "fibermap-00000007.fits")

    async with running(fibermap_wait_s=60.0) as night:
        write_exposure(raw_path(), obstype="SCIENCE")
        await night.until("exposure.ready")

    assert "preproc" in night.row()["fibermap"]


async def test_an_exposure_goes_on_without_fibermap_and_runs_again_when_it_comes(running, write_exposure, raw_path):
    async with running() as night:
        write_exposure(raw_path(), obstype="SCIENCE")
        first = await night.until("exposure.ready")
        write_small_fibermap(raw_path().with_name("fibermap-00000007.fits"))
        second = await night.until("exposure.ready", count=2)
        await night.decided()

    assert "no fibermap came within 0.5 s" in first.payload["reason"]
    assert "its fibermap came" in second.payload["reason"]
    assert night.row()["version"] == 2
    assert night.kinds().count("exposure.ready") == 2


async def test_rubbish_is_failed_and_the_others_go_on(running, write_exposure, raw_path, staged):
    async with running() as night:
        raw_path(6).parent.mkdir(parents=True)
        raw_path(6).write_bytes(b"this is no FITS file\n" * 1000)
        write_exposure(raw_path(7), obstype=None)
        headless = write_exposure(staged(8)).read_bytes().replace(b"EXPTIME =", b"EXPTIMX =")
        raw_path(8).parent.mkdir()
        raw_path(8).write_bytes(headless)
        write_exposure(raw_path(9), **{"MJD-OBS": "soon"})
        write_exposure(raw_path(10), EXPID=11)
        write_exposure(raw_path(12))
        reasons = {e: (await night.until("exposure.failed", e)).payload["reason"] for e in (6, 7, 8, 9, 10)}
        await night.until("exposure.ready", 12)
        write_exposure(raw_path(7))
        await night.until("exposure.ready", 7)

    assert "begins with b'this is n'; expected the keyword SIMPLE" in reasons[6]
    assert "OBSTYPE = None" in reasons[7]
    assert "HDU SPEC" in reasons[7]
    assert "no HDU has EXPTIME" in reasons[8]
    assert "HDU SPEC: wrong keyword (MJD-OBS = 'soon'); expected a finite number" in reasons[9]
    assert "(EXPID = 11); expected 10 as in the path" in reasons[10]


async def test_a_checksum_sidecar_decides(running, write_exposure, raw_path, staged):
    content = write_exposure(staged(), promised=None).read_bytes()
    good = hashlib.sha256(content).hexdigest()

    async with running(settle_s=20.0, give_up_s=60.0) as night:
        raw_path().parent.mkdir(parents=True)
        sidecar = raw_path().with_name("checksum-00000007.sha256sum")
        sidecar.write_text(f"{'0' * 64}  desi-00000007.fits.fz\n")
        raw_path().write_bytes(content)
        waiting = await night.until("exposure.waiting")
        sidecar.write_text(f"{good}  desi-00000007.fits.fz\n")
        await night.until("exposure.ready")  # long before it has settled

    assert f"its sha256 is {good}, checksum-00000007.sha256sum says 0000" in waiting.payload["reason"]


async def test_a_file_that_vanishes_is_given_up(running, write_exposure, raw_path, staged):
    content = write_exposure(staged()).read_bytes()

    async with running() as night:
        raw_path().parent.mkdir(parents=True)
        raw_path().write_bytes(content[:9000])
        await night.until("exposure.waiting")
        raw_path().unlink()
        gave_up = await night.until("exposure.incomplete")

    assert "the file is gone" in gave_up.payload["reason"]


async def test_the_service_pauses_while_the_store_is_away_and_resumes(
    running, write_exposure, raw_path, store, monkeypatch
):
    monkeypatch.setattr("qlstream.ingest.service._AWAY_S", 0.05)
    async with running() as night:
        with monkeypatch.context() as broken:

            def away(*_):
                raise StoreAway("store is locked")

            broken.setattr(type(store), "write", away)
            write_exposure(raw_path())
            async with asyncio.timeout(5):
                while not night.ingest.trouble:
                    await asyncio.sleep(0.01)
            trouble = night.ingest.trouble
        await night.until("exposure.ready")

        assert trouble == "store is locked"
        assert night.ingest.trouble == ""


async def test_a_hundred_files_in_a_burst_are_each_opened_once(running, write_exposure, raw_path, staged):
    source = write_exposure(staged(), cameras=("b0",), promised="b0")
    content = source.read_bytes()
    expids = range(100, 200)

    async with running(settle_s=0.1) as night:
        for expid in expids:
            path = raw_path(expid)
            path.parent.mkdir(parents=True)
            temporary = path.with_name("x.tmp")
            text = content.replace(b"EXPID   =                    7", f"EXPID   = {expid:20d}".encode())
            temporary.write_bytes(text)
            os.replace(temporary, path)
        for expid in expids:
            await night.until("exposure.ready", expid)
        await night.decided()

    assert len(query.jobs_of(night.store, NIGHT)) == len(expids)
