"""The snapshot follows the log: nothing missed, nothing shown twice, no page can hold up another."""

from __future__ import annotations

import asyncio
import shutil

from sqlalchemy import insert

from dashboards.feed import Change, Feed
from dashboards.status import Status
from qlstream.store.database import Store
from qlstream.store.schema import events

NIGHT = 20260115


class Listener:
    """Keeps what the feed offers."""

    is_connected = True

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.beats = 0

    def offer(self, change: Change | None) -> None:
        if change is None:
            self.beats += 1
        else:
            self.changes.append(change)


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_exposure_shows_up_and_fills_by_itself(live_feed, empty_night):
    await asyncio.to_thread(empty_night.expose, 1001)
    await until(lambda: live_feed.exposure(NIGHT, 1001))
    assert live_feed.exposure(NIGHT, 1001).status is Status.QUEUED

    await asyncio.to_thread(empty_night.process)
    await until(lambda: live_feed.exposure(NIGHT, 1001).is_done)

    assert live_feed.newest_night == NIGHT
    assert set(live_feed.exposure(NIGHT, 1001).cameras) == {"b0", "r0"}


async def test_details_that_are_held_stay_up_to_date(live_feed, empty_night):
    await asyncio.to_thread(empty_night.expose, 1001)
    await until(lambda: live_feed.exposure(NIGHT, 1001))
    await live_feed.hold_exposure(NIGHT, 1001)
    assert live_feed.details(NIGHT, 1001) == {}

    await asyncio.to_thread(empty_night.process)
    await until(lambda: live_feed.exposure(NIGHT, 1001).is_done)

    details = live_feed.details(NIGHT, 1001)
    assert set(details["b0"].products) == {"preview", "spectra"}
    assert "Calculate_SNR" in details["r0"].results
    assert live_feed.events(NIGHT, 1001)[0].kind == "exposure.done"
    live_feed.release((NIGHT, 1001))
    assert live_feed.details(NIGHT, 1001) == {}


async def test_ids_may_skip_and_no_event_is_missed(live_feed, empty_night):
    listener = Listener()
    live_feed.follow(listener)
    await asyncio.to_thread(empty_night.expose, 1001)
    await until(lambda: live_feed.exposure(NIGHT, 1001))
    first = live_feed.sequence
    with empty_night.store.write() as conn:  # ids between were drawn by transactions that never committed
        row = {"time_utc": 0.0, "source": "test", "night": NIGHT, "expid": 1001, "payload": {}}
        conn.execute(insert(events).values(id=first + 50, kind="note.one", **row))
        conn.execute(insert(events).values(id=first + 90, kind="note.two", camera="b0", **row))

    await until(lambda: live_feed.sequence == first + 90)

    assert listener.changes[-1].sequence == first + 90
    seen = {c for change in listener.changes for c in change.exposures.get((NIGHT, 1001), ())}
    assert {None, "b0"} <= seen
    assert [c.sequence for c in listener.changes] == sorted({c.sequence for c in listener.changes})


async def test_a_heartbeat_comes_without_news(live_feed):
    listener = Listener()
    live_feed.follow(listener)
    assert live_feed.followers == 1

    await until(lambda: listener.beats >= 1, 5.0)

    live_feed.unfollow(listener)
    assert live_feed.followers == 0


def test_changes_that_wait_become_one():
    early = Change(5, {(1, 2): frozenset({"b0"}), (1, 3): frozenset({None})})
    late = Change(9, {(1, 2): frozenset({"r0"})})

    both = early.merged(late)

    assert both.sequence == 9
    assert both.exposures == {(1, 2): frozenset({"b0", "r0"}), (1, 3): frozenset({None})}
    assert both.nights == {1}


async def test_a_store_that_comes_later_is_found_and_makes_no_file_itself(tmp_path, synthetic):
    feed = Feed(tmp_path, None)
    running = asyncio.create_task(feed.run())
    await asyncio.sleep(0.2)
    assert not (tmp_path / "qlstream.db").exists()
    assert "no store" in feed.waiting

    store = await asyncio.to_thread(Store.open, None, tmp_path)
    synthetic.SyntheticNight(store, ["b0"]).expose(1001)
    await until(lambda: feed.exposure(NIGHT, 1001))

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    feed.close()
    store.close()


async def test_a_store_that_was_replaced_is_another_life(live_feed, empty_night, synthetic, tmp_path):
    await asyncio.to_thread(empty_night.expose, 1001)
    await until(lambda: live_feed.exposure(NIGHT, 1001))
    boot, redux = live_feed.boot, empty_night.store.redux
    with Store.open(None, tmp_path / "other") as other:
        synthetic.SyntheticNight(other, ["z7"], night=20270101).expose(2001)

    for path in redux.glob("qlstream.db-*"):
        path.unlink()
    shutil.move(tmp_path / "other" / "qlstream.db", redux / "qlstream.db")
    await until(lambda: live_feed.newest_night == 20270101)

    assert live_feed.boot != boot
    assert live_feed.exposure(NIGHT, 1001) is None
