"""Which exposures are to be looked at, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from qlstream.ingest.names import Place


class Agenda:
    """Exposures that are due now or later; each stands in it once, and is taken by one looker at a time.

    Of those that are due, the newest exposure comes first. Used from one event loop.
    """

    def __init__(self) -> None:
        self._due: dict[Place, float] = {}
        self._renamed: set[Place] = set()
        self._taken: set[Place] = set()
        self._changed = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        """Nothing is due, now or later, and nobody is looking."""
        return not self._due and not self._taken

    def add(self, places: Iterable[Place], after_s: float = 0.0, renamed: bool = False) -> None:
        """Look at `places` after a while [s]; an earlier time that stands already is kept."""
        when = time.monotonic() + after_s
        for place in places:
            self._due[place] = min(when, self._due.get(place, when))
            if renamed:
                self._renamed.add(place)
        self._changed.set()

    async def take(self) -> tuple[Place, bool]:
        """Wait until an exposure is due that nobody looks at; whether it was seen to be renamed goes with it."""
        while True:
            now = time.monotonic()
            free = [place for place in self._due if place not in self._taken]
            due = [place for place in free if self._due[place] <= now]
            if due:
                place = max(due)
                del self._due[place]
                self._taken.add(place)
                renamed = place in self._renamed
                self._renamed.discard(place)
                return place, renamed
            await self._change(min((self._due[place] - now for place in free), default=None))

    def give_back(self, place: Place) -> None:
        """The look is over."""
        self._taken.discard(place)
        self._changed.set()

    async def wait_until_looked_at(self) -> None:
        """Return once everything that is due now has been looked at; what is due later is not waited for."""
        while self._taken or any(due <= time.monotonic() for due in self._due.values()):
            await self._change(None)

    async def wait_until_empty(self) -> None:
        """Return once nothing is due and nobody is looking."""
        while not self.is_empty:
            await self._change(None)

    async def _change(self, at_most_s: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()
        except TimeoutError:
            pass
