"""A small made-up night, once per session, and a feed on it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dashboards.feed import Feed
from qlstream.store.database import Store


def load_synthetic_night() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_night", Path(__file__).with_name("synthetic_night.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The generator of made-up nights."""
    return load_synthetic_night()


@pytest.fixture(scope="session")
def night(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Six cameras, exposures 1001 to 1012 without 1007; 1009 incomplete, b1 failed in 1010, r3 not there."""
    store = synthetic.make_night(tmp_path_factory.mktemp("redux"), count=6, exposures_count=10)
    yield store
    store.close()


@pytest.fixture
def empty_night(synthetic: ModuleType, tmp_path: Path) -> Iterator[ModuleType]:
    """A fresh store with two cameras and nothing in it yet."""
    store = Store.open(None, tmp_path)
    yield synthetic.SyntheticNight(store, ["b0", "r0"], side=40)
    store.close()


async def _following(redux: Path) -> AsyncIterator[Feed]:
    feed = Feed(redux, None)
    running = asyncio.create_task(feed.run())
    async with asyncio.timeout(10):
        while feed.waiting:
            await asyncio.sleep(0.01)
    yield feed
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    feed.close()


@pytest.fixture
async def feed(night: Store) -> AsyncIterator[Feed]:
    """A feed that follows the made-up night."""
    async for one in _following(night.redux):
        yield one


@pytest.fixture
async def live_feed(empty_night) -> AsyncIterator[Feed]:
    """A feed that follows the store of `empty_night`."""
    async for one in _following(empty_night.store.redux):
        yield one
