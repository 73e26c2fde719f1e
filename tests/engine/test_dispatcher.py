import asyncio

import pytest

from qlstream.engine.dispatcher import Dispatcher
from qlstream.engine.gate import Gate
from qlstream.store.database import Store, StoreAway
from qlstream.store.jobs import Policy


@pytest.fixture
def store(tmp_path):
    with Store.open(None, tmp_path) as store:
        yield store


async def test_nothing_is_claimed_while_the_gate_is_closed_and_a_hint_does_not_make_it_spin(store, monkeypatch):
    claims = []
    monkeypatch.setattr("qlstream.engine.dispatcher.claim_next", lambda *_: claims.append(1))
    gate = Gate()
    gate.close("disk", "full")
    dispatcher = Dispatcher(store, "engine", Policy(), gate)
    waiting = asyncio.create_task(dispatcher.next())
    await asyncio.sleep(0)

    dispatcher.hint()
    await asyncio.sleep(0.2)

    assert claims == []
    dispatcher.close()
    assert await waiting is None


async def test_a_store_that_is_away_closes_the_gate(store, monkeypatch):
    def away(*_):
        raise StoreAway("locked")

    monkeypatch.setattr("qlstream.engine.dispatcher.claim_next", away)
    gate = Gate()
    dispatcher = Dispatcher(store, "engine", Policy(), gate)
    waiting = asyncio.create_task(dispatcher.next())
    await asyncio.sleep(0.2)

    assert gate.reason == "locked"
    dispatcher.close()
    assert await waiting is None


async def test_everybody_who_waits_is_sent_home_when_the_dispatcher_closes(store):
    dispatcher = Dispatcher(store, "engine", Policy(), Gate())
    waiting = [asyncio.create_task(dispatcher.next()) for _ in range(3)]
    await asyncio.sleep(0.05)

    dispatcher.close()

    assert await asyncio.gather(*waiting) == [None, None, None]


def test_the_gate_opens_when_the_last_trouble_is_over():
    gate = Gate()
    assert gate.close("disk", "disk full")
    assert not gate.close("disk", "disk fuller")
    gate.close("store", "store away")
    assert gate.reason == "disk fuller; store away"

    assert gate.open("disk")
    assert not gate.open("disk")
    assert not gate.is_open

    gate.open("store")
    assert gate.is_open
    assert gate.reason == ""
