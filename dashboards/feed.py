"""Tails the event log and keeps one snapshot that every page of the process reads."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from dashboards.offline import Offline, read_offline
from dashboards.queries import read_details, read_events, read_exposures
from dashboards.records import Detail, Exposure
from qlstream.store import query
from qlstream.store.database import Store, StoreAway, StoreError
from qlstream.store.events import Event, events_after, last_event_id

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 0.075  # between looks at the log; at 50 ms a SQLite store with four busy writers gave 26 / 48 ms p50 / p95
COALESCE_S = 0.1  # pages get at most one merged change per this time
BEAT_S = 1.0
_BATCH = 2000
_MAX_EVENTS = 200  # lines kept for an exposure's page
TASK = "task.state"  # of the offline reduction: hundreds for each exposure
_Key = tuple[int, int]  # night, expid


@dataclass(frozen=True)
class Change:
    """What happened since the last change.

    Attributes
    ----------
    sequence : id of the newest event in it
    exposures : (night, expid) -> cameras that changed; None in the set stands for the exposure as a whole
    reduced : nights whose offline reduction went on
    """

    sequence: int
    exposures: dict[_Key, frozenset[str | None]] = field(default_factory=dict)
    reduced: frozenset[int] = frozenset()

    @property
    def nights(self) -> frozenset[int]:
        return frozenset(night for night, _ in self.exposures)

    def merged(self, later: Change) -> Change:
        """This change and a later one as one."""
        keys = self.exposures.keys() | later.exposures.keys()
        none: frozenset[str | None] = frozenset()
        both = {key: self.exposures.get(key, none) | later.exposures.get(key, none) for key in keys}
        return Change(later.sequence, both, self.reduced | later.reduced)


class Follower(Protocol):
    """A page as the feed sees it."""

    @property
    def is_connected(self) -> bool:
        """Whether somebody looks at it."""

    def offer(self, change: Change | None) -> None:
        """Take note of a change, without waiting; None is a heartbeat."""


class Feed:
    """The process-wide snapshot of the store.

    Pages read it synchronously, so a page that is built between two changes has either both parts of a change or
    none. A page that needs a night or an exposure that is not held awaits `hold_night` or `hold_exposure` first.

    Attributes
    ----------
    boot : changes with every start of the process; a browser that sees another one reloads its page
    sequence : id of the last event that the snapshot contains
    trouble : why the store cannot be read now; "" if it can
    waiting : why there is nothing to read yet; "" once there was a store
    """

    def __init__(self, redux: Path, store_url: str | None) -> None:
        self.redux = redux
        self.boot = uuid.uuid4().hex
        self.sequence = 0
        self.trouble = ""
        self.waiting = "the store is being opened"
        self.started = time.time()
        self.read_utc = 0.0
        self.nights: list[dict[str, Any]] = []
        self.exposures: dict[int, dict[int, Exposure]] = {}
        self._offline: dict[int, Offline] = {}
        self.service: Event | None = None
        self._url = store_url
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None
        self._details: dict[_Key, dict[str, Detail]] = {}
        self._events: dict[_Key, list[Event]] = {}
        self._holders: dict[int | _Key, int] = defaultdict(int)
        self._followers: set[Follower] = set()
        self._reading = asyncio.Lock()  # what is held while a change is applied is part of the change, or comes after

    @property
    def newest_night(self) -> int | None:
        """The night whose exposures are shown when none is asked for."""
        return self.nights[0]["night"] if self.nights else None

    @property
    def store(self) -> Store:
        """The open store.

        Raises
        ------
        StoreAway : it is not open yet
        """
        if self._store is None:
            raise StoreAway(self.trouble or self.waiting)
        return self._store

    @property
    def followers(self) -> int:
        """How many pages are looked at; tabs that were closed linger for a while and do not count."""
        return sum(follower.is_connected for follower in self._followers)

    def night(self, night: int | None) -> list[Exposure]:
        """Exposures of a held night in the order of their numbers; [] for an unknown one."""
        return [] if night is None else list(self.exposures.get(night, {}).values())

    def offline(self, night: int | None) -> Offline:
        """The offline reduction of a held night."""
        return Offline() if night is None else self._offline.get(night, Offline())

    def exposure(self, night: int | None, expid: int | None) -> Exposure | None:
        return None if night is None or expid is None else self.exposures.get(night, {}).get(expid)

    def details(self, night: int, expid: int) -> dict[str, Detail]:
        """Everything of a held exposure's cameras."""
        return self._details.get((night, expid), {})

    def events(self, night: int, expid: int) -> list[Event]:
        """The newest lines of a held exposure's log, newest first."""
        return self._events.get((night, expid), [])

    async def ask(self, work: Callable[[Store], T]) -> T:
        """Run a blocking read in a thread.

        Raises
        ------
        StoreAway : the store cannot be read now
        """
        store = self.store
        return await asyncio.to_thread(work, store)

    async def hold_night(self, night: int | None) -> None:
        """Keep a night in the snapshot until `release`."""
        if night is None:
            return
        self._holders[night] += 1
        async with self._reading:
            if night not in self.exposures:
                self._offline[night] = await self.ask(lambda store: read_offline(store, night))
                self.exposures[night] = await self.ask(lambda store: read_exposures(store, night))

    async def hold_exposure(self, night: int, expid: int) -> None:
        """Keep the details of an exposure in the snapshot until `release`."""
        key = (night, expid)
        self._holders[key] += 1
        async with self._reading:
            if key not in self._details:
                await self._read_whole(self.store, key)

    def release(self, held: int | _Key) -> None:
        """Let go of a night or of (night, expid); the newest night stays."""
        self._holders[held] -= 1
        if self._holders[held] > 0:
            return
        del self._holders[held]
        if isinstance(held, tuple):
            self._details.pop(held, None)
            self._events.pop(held, None)
        elif held != self.newest_night:
            self.exposures.pop(held, None)
            self._offline.pop(held, None)

    def follow(self, follower: Follower) -> None:
        self._followers.add(follower)

    def unfollow(self, follower: Follower) -> None:
        self._followers.discard(follower)

    async def run(self) -> None:
        """Tail the log until cancelled; a store that is not there yet or away for a while is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            while True:
                try:
                    changed = await self._look()
                except (StoreAway, StoreError, SQLAlchemyError, OSError) as error:
                    if str(error) != self.trouble:
                        log.warning("the store cannot be read: %s", error)
                    self.trouble = str(error)
                    await asyncio.sleep(1.0)
                    continue
                await asyncio.sleep(COALESCE_S if changed else POLL_S)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    async def _look(self) -> bool:
        """One look at the log; whether there was something new."""
        if self._store is not None and _file_of(self._store) != self._file:
            log.warning("the file of the store was replaced; it is opened anew")
            self._store.close()
            self._store, self.boot = None, uuid.uuid4().hex
            self.nights, self.exposures, self._offline = [], {}, {}
        if self._store is None:
            await self._open()
            return True
        last = self.sequence
        new = await self.ask(lambda store: events_after(store, last, _BATCH))
        self.read_utc = time.time()
        self.trouble = ""
        if not new:
            return False
        async with self._reading:
            await self._apply(new)
        return True

    async def _open(self) -> None:
        if self._url is None and not (self.redux / "qlstream.db").exists():
            self.waiting = f"there is no store in {self.redux} yet; `qlstream run` makes one"
            self.read_utc = time.time()
            await asyncio.sleep(0.5)
            return
        store = await asyncio.to_thread(Store.open, self._url, self.redux)
        self._file = _file_of(store)
        sequence = await asyncio.to_thread(last_event_id, store)  # before the tables: what comes between is read twice
        self.nights = await asyncio.to_thread(query.nights, store)
        self.service = await asyncio.to_thread(_last_service_event, store)
        for held in {*self._holders, *([] if self.newest_night is None else [self.newest_night])}:
            if isinstance(held, tuple):
                await self._read_whole(store, held)
            else:
                self._offline[held] = await asyncio.to_thread(read_offline, store, held)
                self.exposures[held] = await asyncio.to_thread(read_exposures, store, held)
        self._store, self.sequence, self.read_utc = store, sequence, time.time()
        self.trouble = self.waiting = ""
        everything: dict[_Key, frozenset[str | None]] = {
            (night, expid): frozenset({None}) for night, found in self.exposures.items() for expid in found
        }
        self._broadcast(Change(sequence, everything))

    async def _read_whole(self, store: Store, key: _Key) -> None:
        self._details[key] = await asyncio.to_thread(read_details, store, *key)
        self._events[key] = await asyncio.to_thread(
            lambda: read_events(store, *key, limit=_MAX_EVENTS, without=TASK)  # they would bury the others
        )

    async def _apply(self, new: list[Event]) -> None:
        """Read again what the events touched, swap it in at once, show it to every page."""
        touched: dict[_Key, set[str | None]] = defaultdict(set)
        reduced = {event.night for event in new if event.kind == TASK and event.night is not None}
        for event in new:
            if event.night is not None and event.expid is not None and event.kind != TASK:
                touched[event.night, event.expid].add(event.camera)
        known = {row["night"] for row in self.nights}
        ask_nights = any(e.kind.startswith("exposure.") or (e.night or 0) not in known for e in new if e.night)

        def read(store: Store) -> tuple[list[dict[str, Any]], dict[int, Any], dict[_Key, Any], dict[int, Offline]]:
            nights = query.nights(store) if ask_nights else self.nights
            wanted = set(self.exposures) | {row["night"] for row in nights[:1]}
            exposures = {
                night: read_exposures(store, night, [expid for n, expid in touched if n == night])
                for night in wanted & {night for night, _ in touched}
            }
            details = {
                key: read_details(store, *key, None if None in touched[key] else [c for c in touched[key] if c])
                for key in touched.keys() & self._details.keys()
            }
            return nights, exposures, details, {night: read_offline(store, night) for night in wanted & reduced}

        if touched or reduced:
            self.nights, exposures, details, offline = await self.ask(read)
            self._offline |= offline
            for night, changed in exposures.items():
                self.exposures[night] = dict(sorted({**self.exposures.get(night, {}), **changed}.items()))
            for key in details.keys() & self._details.keys():
                self._details[key] = {**self._details[key], **details[key]}
                fresh = [e for e in reversed(new) if (e.night, e.expid) == key and e.kind != TASK]
                self._events[key] = [*fresh, *self._events[key]][:_MAX_EVENTS]
            for night in set(self.exposures) - set(self._holders) - {self.newest_night}:
                del self.exposures[night]
                self._offline.pop(night, None)
        self.service = next((e for e in reversed(new) if e.kind.startswith("service.")), self.service)
        self.sequence = new[-1].id
        cameras = {key: frozenset(cameras) for key, cameras in touched.items()}
        self._broadcast(Change(self.sequence, cameras, frozenset(reduced)))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._broadcast(None)

    def _broadcast(self, change: Change | None) -> None:
        for follower in tuple(self._followers):
            follower.offer(change)


def _last_service_event(store: Store) -> Event | None:
    recent = read_events(store, limit=2000, without=TASK)
    return next((event for event in recent if event.kind.startswith("service.")), None)


def _file_of(store: Store) -> tuple[int, int] | None:
    """Device and inode of a SQLite store; None for a server, or if the file is gone."""
    if not store.is_sqlite:
        return None
    try:
        found = os.stat(str(make_url(store.url).database))
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
