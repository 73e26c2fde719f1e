"""What the pages show of the offline reduction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dashboards.feed import Change, Feed
from dashboards.offline import Offline, read_offline
from dashboards.pages import NightPage
from dashboards.render import render
from qlstream.store import query
from qlstream.store import tasks as ledger
from qlstream.store.database import Store
from qlstream.store.tasks import NewTask

NIGHT = 20260114


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Three tasks of two kinds: one failed, one blocked by it, one ready."""
    with Store.open(None, tmp_path) as opened:
        new = [
            NewTask("sky_b0_1", "sky", 0, NIGHT, 1, "b0"),
            NewTask("sky_r0_1", "sky", 0, NIGHT, 1, "r0"),
            NewTask("cframe_b0_1", "cframe", 1, NIGHT, 1, "b0", (("sky", "sky_b0_1", "all"),)),
        ]
        ledger.put(opened, "test", new)
        close(opened, "failed", "no fibermap <here>")
        yield opened


@pytest.fixture
async def feed(store: Store) -> AsyncIterator[Feed]:
    feed = Feed(store.redux, None)
    running = asyncio.create_task(feed.run())
    async with asyncio.timeout(10):
        while feed.waiting:
            await asyncio.sleep(0.01)
    yield feed
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    feed.close()


def close(store: Store, state: str, reason: str = "") -> None:
    claimed = ledger.claim(store, "test")
    assert claimed is not None
    with store.write() as conn:
        ledger.close(conn, "test", claimed, state, reason)


def test_tasks_are_counted_by_kind_and_failures_keep_their_sentence(store: Store) -> None:
    offline = read_offline(store, NIGHT)

    assert list(offline.kinds) == ["sky", "cframe"]
    assert offline.kinds["sky"] == {"failed": 1, "ready": 1}
    assert offline.kinds["cframe"] == {"blocked": 1}
    assert (offline.count(), offline.count("failed", "blocked"), offline.untold) == (3, 2, 0)
    assert offline.failed == (("sky_b0_1", "no fibermap <here>"),)


def test_the_panel_is_there_only_with_tasks_and_escapes_what_it_tells(store: Store) -> None:
    assert render("offline", offline=Offline(), night=NIGHT) == ""

    html = render("offline", offline=read_offline(store, NIGHT), night=NIGHT)

    assert "0 of 3 tasks done" in html
    assert "no fibermap &lt;here&gt;" in html
    assert "1 tasks are blocked" in html


def test_a_night_that_was_only_reduced_offline_is_a_night(store: Store) -> None:
    (night,) = query.nights(store)

    assert (night["night"], night["exposures"]) == (NIGHT, 0)


def test_a_night_page_is_shown_anew_when_its_reduction_goes_on(store: Store) -> None:
    page = NightPage(Feed(store.redux, None), {"night": str(NIGHT)})

    assert page.concerns(Change(5, reduced=frozenset({NIGHT})).merged(Change(6)))
    assert not page.concerns(Change(5, reduced=frozenset({19990101})))


async def test_the_feed_follows_the_tasks_without_a_line_for_each(feed: Feed, store: Store) -> None:
    assert feed.offline(NIGHT).count("done") == 0

    await asyncio.to_thread(close, store, "done")

    async with asyncio.timeout(10):
        while not feed.offline(NIGHT).count("done"):
            await asyncio.sleep(0.01)
    await feed.hold_exposure(NIGHT, 1)
    assert feed.events(NIGHT, 1) == [], "they would bury the lines of the exposure"
    assert feed.offline(19990101) == Offline()
