"""File events as hints: "look at this exposure". They may be late, doubled or missing; the scan is the proof."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

from qlstream.ingest.names import Place, is_raw_file, place_of
from qlstream.io.filesystem import is_network_filesystem

log = logging.getLogger("qlstream.ingest")

# Asked of the kernel; opening and closing for reading are left out, since our own looks would cause them.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileClosedEvent,
]


class Hints:
    """Watches the raw folder and the folders of some nights, and tells which exposures something happened to.

    Only the nights given to `watch` are watched in depth, since each folder costs a kernel watch. In the NIGHT/EXPID
    layout the events of a new folder's files mostly come before the folder is watched, and closed or moved events
    then never come (spec realtime §3): every event of any kind is a hint for its exposure, and nothing more. A rename
    to a final name, where it is seen, tells that the writer was done.

    Parameters
    ----------
    tell : called in the event loop with the exposure and whether its file was seen to be renamed
    tell_nights : called in the event loop when a folder appears in the raw folder
    mode : "inotify", "poll", "scan" (no hints at all), or "auto" by file system
    poll_s : time between looks of the polling observer [s]
    """

    def __init__(
        self,
        raw: Path,
        tell: Callable[[Place, bool], None],
        tell_nights: Callable[[], None],
        mode: str = "auto",
        poll_s: float = 1.0,
    ) -> None:
        self.raw = raw
        self.mode = mode if mode != "auto" else "scan" if is_network_filesystem(raw) else "inotify"
        self._tell = tell
        self._tell_nights = tell_nights
        self._poll_s = poll_s
        self._loop = asyncio.get_running_loop()
        self._observer: Any = None
        self._watches: dict[Path, Any] = {}
        self._pending: dict[Place, bool] = {}  # deduplicates bursts between two turns of the event loop

    def start(self) -> None:
        """Begin with the raw folder itself; nothing is watched if the mode is "scan"."""
        if self.mode == "scan":
            return
        self._observer = PollingObserver(timeout=self._poll_s) if self.mode == "poll" else Observer()
        self._observer.start()

    def watch(self, nights: Iterable[int]) -> None:
        """Watch these nights and no others; to be called again as nights come, since it is cheap if nothing changed.

        What arrived in a folder before it was watched is not told.
        """
        if self._observer is None:
            return
        wanted = {self.raw: False} | {self.raw / str(night): True for night in nights}
        wanted = {path: recursive for path, recursive in wanted.items() if path.is_dir()}
        for path in [path for path in self._watches if path not in wanted]:
            self._unwatch(path)
        for path, recursive in wanted.items():
            if path in self._watches:
                continue
            target = Path(os.path.realpath(path))  # a night may be a link; its events carry the real path
            handler = _Handler(self, path, target)
            try:
                self._watches[path] = self._observer.schedule(
                    handler, str(target), recursive=recursive, event_filter=_EVENTS
                )
            except OSError as error:  # e.g. no inotify watches left
                log.warning("no hints for %s, the scan finds its files: %s", path, error)

    def stop(self) -> None:
        """End the observer's threads; blocks for a moment."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def receive(self, path: Path, moved: bool) -> None:
        """Take what a handler saw, in the observer's thread."""
        try:
            self._loop.call_soon_threadsafe(self._sort, path, moved)
        except RuntimeError:  # the loop has ended, the observer ends next
            log.debug("a hint for %s came after the end", path)

    def _sort(self, path: Path, moved: bool) -> None:
        place = place_of(self.raw, path)
        if place is None:
            if path.parent == self.raw:
                self._tell_nights()
            return
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending[place] = self._pending.get(place, False) or (moved and is_raw_file(path))

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        for place, renamed in pending.items():
            self._tell(place, renamed)

    def _unwatch(self, path: Path) -> None:
        try:
            self._observer.unschedule(self._watches.pop(path))
        except (KeyError, OSError):
            log.debug("%s was not watched any more", path)


class _Handler(FileSystemEventHandler):
    """Translates the real paths of one watched folder back to those below the raw folder."""

    def __init__(self, hints: Hints, path: Path, target: Path) -> None:
        self._hints = hints
        self._path = path
        self._target = target

    def on_any_event(self, event: FileSystemEvent) -> None:
        moved = isinstance(event, FileMovedEvent)
        for name, is_destination in ((event.src_path, False), (event.dest_path, True)):
            if not name:
                continue
            real = Path(os.fsdecode(name))
            if real.is_relative_to(self._target):
                self._hints.receive(self._path / real.relative_to(self._target), moved and is_destination)
