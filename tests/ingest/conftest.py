"""A raw folder, tiny exposures that are real FITS files, and a running ingest service to drop them into."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qlstream.ingest.service import Ingest
from qlstream.io.raw import write_raw
from qlstream.settings import IngestSettings, Settings
from qlstream.store import query
from qlstream.store.database import Store
from qlstream.store.events import Event, events_after

NIGHT = 20260115


WriteExposure = Callable[..., Path]


@pytest.fixture
def write_exposure() -> WriteExposure:
    """Writes an exposure of 40 x 60 pixels per camera to any path; a card given as None is left out."""

    def write(
        path: Path,
        obstype: str | None = "ARC",
        cameras: tuple[str, ...] = ("b0", "r0"),
        promised: str | None = "b0,r0",
        seed: int = 0,
        **cards: Any,
    ) -> Path:
        rng = np.random.default_rng(seed)
        expid, night = int(path.name[5:13]), int(path.parts[-3]) if path.parts[-3].isdigit() else NIGHT
        header = {
            "EXPID": expid,
            "NIGHT": night,
            "OBSTYPE": obstype,
            "EXPTIME": 10.0,
            "MJD-OBS": 61000.0 + expid / 100,
            "PROGRAM": "DARK",
            "INSTRUME": "mini",
            "CAMERAS": promised,
            "DOSVER": "SIM",
            "FEEVER": "SIM",
            "DETECTOR": "SIM",
        } | cards
        sections = {"CCDSECA": "[1:50,1:40]", "DATASECA": "[1:50,1:40]", "BIASSECA": "[51:60,1:40]"}
        images = {c: (rng.integers(900, 1100, (40, 60)).astype(np.uint16), dict(sections)) for c in cameras}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_raw(path, {key: value for key, value in header.items() if value is not None}, images)
        return path

    return write


@pytest.fixture
def raw_path(raw: Path) -> Callable[..., Path]:
    """Where the raw file of an exposure belongs."""

    def path(expid: int = 7, night: int = NIGHT) -> Path:
        return raw / str(night) / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"

    return path


@pytest.fixture
def staged(tmp_path: Path) -> Callable[..., Path]:
    """A place outside the watched folder for a file that is going to be brought in."""

    def path(expid: int = 7) -> Path:
        return tmp_path / "staging" / str(NIGHT) / f"{expid:08d}" / f"desi-{expid:08d}.fits.fz"

    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(None, tmp_path / "redux") as opened:
        yield opened


class Night:
    """What a test sees of a running service: its events, awaited."""

    def __init__(self, store: Store, ingest: Ingest) -> None:
        self.store = store
        self.ingest = ingest
        self._seen = 0
        self.events: list[Event] = []

    async def until(self, kind: str, expid: int = 7, count: int = 1, within: float = 30.0) -> Event:
        """The `count`th event of this kind for this exposure."""
        async with asyncio.timeout(within):
            while True:
                for event in events_after(self.store, self._seen):
                    self._seen = event.id
                    self.events.append(event)
                found = [e for e in self.events if e.kind == kind and e.expid == expid]
                if len(found) >= count:
                    return found[count - 1]
                await asyncio.sleep(0.01)

    async def decided(self) -> None:
        """Everything on disk has been looked at, by a fresh scan, too."""
        self.ingest.rescan()
        async with asyncio.timeout(30):
            await self.ingest.caught_up()

    def row(self, expid: int = 7, night: int = NIGHT) -> dict[str, Any]:
        row = query.exposure(self.store, night, expid)
        assert row is not None
        return row

    def kinds(self, expid: int = 7) -> list[str]:
        return [e.kind for e in events_after(self.store, 0) if e.expid == expid]


Running = Callable[..., AbstractAsyncContextManager[Night]]


@pytest.fixture
def running(store: Store, raw: Path) -> Running:
    """`async with running(settle_s=0.2) as night:` runs the service with short waits."""

    @asynccontextmanager
    async def run(**changed: Any) -> AsyncIterator[Night]:
        fast = {"settle_s": 0.2, "give_up_s": 0.8, "fibermap_wait_s": 0.5, "scan_s": 30.0, "watch": "inotify"}
        settings = Settings(raw=raw, redux=store.redux, ingest=IngestSettings(**(fast | changed)))
        ingest = Ingest(settings, store)
        service = asyncio.create_task(ingest.run())
        try:
            async with asyncio.timeout(30):
                await ingest.caught_up()
            yield Night(store, ingest)
        finally:
            service.cancel()
            with pytest.raises(asyncio.CancelledError):
                await service
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return run
