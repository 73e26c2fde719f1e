"""The ingest service: hints and scans in, decisions in the store out."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from qlstream.ingest.agenda import Agenda
from qlstream.ingest.hints import Hints
from qlstream.ingest.looker import Looker
from qlstream.ingest.names import Place
from qlstream.ingest.scan import newest_nights, scan
from qlstream.settings import Settings
from qlstream.store.database import Store, StoreAway

log = logging.getLogger("qlstream.ingest")

_LOOKERS = 2  # looks at a time; a look may read a whole file for its checksum
_AWAY_S = 2.0  # between tries while the store or the raw folder is away [s]


class Ingest:
    """Notices raw exposures and makes jobs of the complete ones, until cancelled.

    Attributes
    ----------
    trouble : why it pauses, "" if it does not; from memory, since the store may be what is away
    raw : the watched folder; it may appear later
    """

    def __init__(self, settings: Settings, store: Store, source: str = "ingest") -> None:
        settings.require("raw", "redux")
        assert settings.raw is not None
        assert settings.redux is not None
        self.settings = settings.ingest
        self.store = store
        self.raw = Path(settings.raw).absolute()
        self.redux = Path(settings.redux).absolute()
        self.looker = Looker(store, self.raw, self.redux, self.settings, settings.instrument, source)
        self.trouble = ""
        self._agenda = Agenda()
        self._rescan = asyncio.Event()
        self._scanned = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; nothing that is lost by that is needed to go on later."""
        hints = Hints(self.raw, self._take_hint, self._rescan.set, self.settings.watch, self.settings.poll_s)
        hints.start()
        log.info("watching %s (%s)", self.raw, hints.mode)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._scan_forever(hints))
                for _ in range(_LOOKERS):
                    tasks.create_task(self._look_forever())
        finally:
            await asyncio.to_thread(hints.stop)

    async def looked_at_all(self) -> None:
        """Return once everything that is there has been looked at, so that the store knows what may still come."""
        await self._scanned.wait()
        await self._agenda.wait_until_looked_at()

    async def caught_up(self) -> None:
        """Return once everything that was there has been decided on: processed as far as ingest goes, or given up."""
        await self._scanned.wait()
        await self._agenda.wait_until_empty()

    def rescan(self) -> None:
        """Scan now; `caught_up` waits for it."""
        self._scanned.clear()
        self._rescan.set()

    async def _scan_forever(self, hints: Hints) -> None:
        wide_due = float("-inf")
        while True:
            self._rescan.clear()
            is_wide = time.monotonic() >= wide_due
            try:
                await self._scan_once(hints, self.settings.wide_nights if is_wide else self.settings.nights)
                self._resume()
                wide_due = time.monotonic() + self.settings.wide_scan_s if is_wide else wide_due
                self._scanned.set()
                pause = self.settings.scan_s if self.raw.is_dir() else min(self.settings.scan_s, _AWAY_S)
            except (StoreAway, OSError) as error:  # the store or the raw folder is away
                pause = self._pause(error)
            try:
                async with asyncio.timeout(pause):
                    await self._rescan.wait()
            except TimeoutError:
                pass

    async def _scan_once(self, hints: Hints, count: int) -> None:
        """Scan after the watches are set, so that nothing falls between them."""
        only = self.settings.only_nights
        watched = await asyncio.to_thread(newest_nights, self.raw, self.settings.nights, only)
        await asyncio.to_thread(hints.watch, watched)
        nights = await asyncio.to_thread(newest_nights, self.raw, count, only)
        self._agenda.add(await asyncio.to_thread(scan, self.store, self.raw, self.redux, nights))

    async def _look_forever(self) -> None:
        while True:
            place, renamed = await self._agenda.take()
            try:
                again = await asyncio.to_thread(self.looker.look, place, renamed)
                self._resume()
            except StoreAway as error:
                again = self._pause(error)
            except Exception:  # a fault of ours; the next scan tries again, the other exposures go on
                log.exception("looking at exposure %d of %d failed", place.expid, place.night)
                again = None
            if again is not None:
                self._agenda.add([place], again)
            self._agenda.give_back(place)

    def _take_hint(self, place: Place, renamed: bool) -> None:
        if not self.settings.only_nights or place.night in self.settings.only_nights:
            self._agenda.add([place], renamed=renamed)

    def _pause(self, error: Exception) -> float:
        if not self.trouble:
            log.error("paused: %s", error)
        self.trouble = str(error)
        return _AWAY_S

    def _resume(self) -> None:
        if self.trouble:
            log.info("resumed; it was paused because of: %s", self.trouble)
            self.trouble = ""
