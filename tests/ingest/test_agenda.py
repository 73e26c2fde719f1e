"""The newest exposure that is due comes first, and nobody looks at one twice at a time."""

import asyncio

import pytest

from qlstream.ingest.agenda import Agenda
from qlstream.ingest.names import Place

OLD, NEW, LATER = Place(20260114, 90), Place(20260115, 7), Place(20260115, 8)


async def test_the_newest_that_is_due_comes_first():
    agenda = Agenda()
    agenda.add([OLD, NEW])
    agenda.add([LATER], after_s=0.05)

    assert [(await agenda.take())[0] for _ in range(3)] == [NEW, OLD, LATER]


async def test_an_exposure_is_taken_by_one_at_a_time_and_again_after_a_change():
    agenda = Agenda()
    agenda.add([NEW])
    assert await agenda.take() == (NEW, False)
    agenda.add([NEW], renamed=True)  # a hint while somebody looks

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await agenda.take()
    agenda.give_back(NEW)

    assert await agenda.take() == (NEW, True)
    assert not agenda.is_empty
    agenda.give_back(NEW)
    assert agenda.is_empty


async def test_an_earlier_time_is_kept_and_a_hint_brings_a_look_forward():
    agenda = Agenda()
    agenda.add([NEW], after_s=60.0)
    waiting = asyncio.create_task(agenda.take())
    await asyncio.sleep(0)
    agenda.add([NEW])
    agenda.add([NEW], after_s=60.0)

    async with asyncio.timeout(5):
        assert (await waiting)[0] == NEW


async def test_empty_is_awaited():
    agenda = Agenda()
    agenda.add([NEW])
    waiting = asyncio.create_task(agenda.wait_until_empty())
    await agenda.take()
    assert not waiting.done()

    agenda.give_back(NEW)

    async with asyncio.timeout(5):
        await waiting
