"""A recorded night comes again: same files, same decisions, in the order and the cadence in which they were taken."""

import asyncio
import math
import time

import pytest

from qlstream.ingest.replay import Replay
from qlstream.ingest.service import Ingest
from qlstream.settings import IngestSettings, Settings
from qlstream.store import query
from qlstream.store.database import Store
from qlstream.store.events import events_after

NIGHT = 20260115


@pytest.fixture
def settings(raw, store):
    return Settings(raw=raw, redux=store.redux, ingest=IngestSettings(settle_s=0.1, fibermap_wait_s=0.1))


async def replayed(replay):
    running = asyncio.create_task(replay.run())
    async with asyncio.timeout(30):
        await replay.caught_up()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def opened(store):
    return [(e.time_utc, e.expid) for e in events_after(store, 0) if e.kind == "exposure.ready"]


async def test_a_night_at_full_speed_gives_what_the_live_night_gives(
    settings, store, write_exposure, raw_path, tmp_path
):
    for expid in (7, 8, 9):
        write_exposure(raw_path(expid), seed=expid)
    (raw_path(8).parent / "fibermap-00000008_tmp1.fits").write_bytes(b"unfinished")
    raw_path(10).parent.mkdir()
    raw_path(10).write_bytes(b"rubbish" * 1000)

    await replayed(Replay(settings, store, NIGHT))

    told = ("expid", "state", "flavor", "mjd", "identity", "cameras", "version")
    of_replay = [[row[key] for key in told] for row in query.exposures_of(store, NIGHT)]
    with Store.open(None, tmp_path / "live") as live:
        live_settings = settings.model_copy(update={"redux": tmp_path / "live"})
        ingest = Ingest(live_settings, live)
        await replayed(ingest)
        of_live = [[row[key] for key in told] for row in query.exposures_of(live, NIGHT)]
    assert of_replay == of_live
    assert [row[1] for row in of_replay] == ["ready", "ready", "ready", "failed"]
    assert not list((store.redux / "qlstream" / "replay").rglob("*_tmp*"))


async def test_exposures_keep_their_order_and_their_scaled_distances(settings, store, write_exposure, raw_path):
    for expid, at_s in ((9, 0.0), (7, 30.0), (8, 90.0)):  # taken in another order than they are numbered
        write_exposure(raw_path(expid), **{"MJD-OBS": 61000.0 + at_s / 86400})

    started = time.time()
    await replayed(Replay(settings, store, NIGHT, speed=60.0))

    times = opened(store)
    assert [expid for _, expid in times] == [9, 7, 8]
    after = [at - started for at, _ in times]
    print("opened after", [f"{s:.2f}" for s in after], "s, brought after 0, 0.5 and 1.5 s")
    assert after[1] > 0.5
    assert after[2] > 1.5


async def test_an_interrupted_replay_goes_on_and_a_second_one_does_nothing(settings, store, write_exposure, raw_path):
    for expid, at_s in ((7, 0.0), (8, 1e6)):
        write_exposure(raw_path(expid), **{"MJD-OBS": 61000.0 + at_s / 86400})
    interrupted = asyncio.create_task(Replay(settings, store, NIGHT, speed=1.0).run())
    async with asyncio.timeout(30):
        while not opened(store):
            await asyncio.sleep(0.01)
    interrupted.cancel()
    await asyncio.wait([interrupted])

    await replayed(Replay(settings, store, NIGHT, speed=1.0))
    await replayed(Replay(settings, store, NIGHT, speed=1.0))

    assert [expid for _, expid in opened(store)] == [7, 8]


async def test_a_night_that_is_not_there_is_refused_by_name(settings, store, write_exposure, raw_path):
    write_exposure(raw_path())

    with pytest.raises(FileNotFoundError, match="no night 20260101 in .*; it holds 20260115"):
        Replay(settings, store, 20260101)
    with pytest.raises(ValueError, match="speed 0"):
        Replay(settings, store, NIGHT, speed=0)
    assert Replay(settings, store, NIGHT).speed == math.inf
