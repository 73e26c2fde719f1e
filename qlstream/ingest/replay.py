"""Streams a recorded night as if it arrived now, through the same door as the live night."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

from qlstream.ingest.names import Place, nights_in, places_in
from qlstream.ingest.service import Ingest
from qlstream.io.errors import BadFile
from qlstream.io.raw import read_exposure_header
from qlstream.settings import Settings
from qlstream.store.database import Store, StoreAway
from qlstream.store.events import append

log = logging.getLogger("qlstream.ingest")

_DAY_S = 86400.0


@dataclass(frozen=True)
class _Arrival:
    """When a recorded exposure had been read out [s since the first one's], and where it is."""

    after_s: float
    place: Place
    path: Path


class Replay(Ingest):
    """Feeds one night of a recorded raw folder into a folder of its own, and watches that.

    The files of each exposure are linked (not copied) there under a temporary name and then renamed, at the times at
    which they came, divided by `speed`. From there on nothing knows that it is a replay. What an earlier run has
    brought already stays; the rest follows at once, so that a replay that was interrupted goes on.

    Parameters
    ----------
    settings : `raw` is the recorded folder
    speed : times the real cadence; infinity brings everything at once, in order

    Raises
    ------
    FileNotFoundError : there is no such night in the recorded folder
    """

    def __init__(self, settings: Settings, store: Store, night: int, speed: float = math.inf) -> None:
        settings.require("raw", "redux")
        assert settings.raw is not None
        if speed <= 0:
            raise ValueError(f"speed {speed:g}: expected a number above 0, or infinity")
        self.recorded = Path(settings.raw).absolute()
        if night not in (there := nights_in(self.recorded)):
            nights = ", ".join(map(str, there)) or "no night"
            raise FileNotFoundError(f"no night {night} in {self.recorded}; it holds {nights}")
        self.night = night
        self.speed = speed
        spool = store.redux / "qlstream" / "replay"
        (spool / str(night)).mkdir(parents=True, exist_ok=True)  # so that it is watched from the start
        watching = settings.ingest.model_copy(update={"only_nights": (night,)})
        super().__init__(settings.model_copy(update={"raw": spool, "ingest": watching}), store)
        self._fed = asyncio.Event()

    async def run(self) -> None:
        """Bring the night, then go on watching until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(super().run())
            tasks.create_task(self._feed())

    async def caught_up(self) -> None:
        """Return once the whole night has been brought and decided on."""
        await self._fed.wait()
        self.rescan()
        await super().caught_up()

    async def _feed(self) -> None:
        arrivals = await asyncio.to_thread(self._arrivals)
        new = [arrival for arrival in arrivals if arrival.place.find(self.raw) is None]
        text = f"replay of {self.night} at {self.speed:g} times its cadence: {len(new)} of {len(arrivals)} exposures"
        log.info("%s", text if new else f"{text}; all have been brought before, another --redux begins anew")
        await asyncio.to_thread(self._tell, text)
        begin, clock = new[0].after_s if new else 0.0, asyncio.get_running_loop().time
        started = clock()
        for arrival in new:
            await asyncio.sleep(started + (arrival.after_s - begin) / self.speed - clock())
            await self._bring_patiently(arrival)
        self._fed.set()

    async def _bring_patiently(self, arrival: _Arrival) -> None:
        while True:
            try:
                await asyncio.to_thread(self._bring, arrival)
                return
            except OSError as error:  # the disk is full, or the recorded folder away
                pause = self._pause(error)
            await asyncio.sleep(pause)

    def _tell(self, text: str) -> None:
        try:
            with self.store.write() as conn:
                append(conn, "service.replay", "replay", self.night, payload={"reason": text})
        except StoreAway as error:  # the pages miss a line, the night goes on
            log.warning("%s", error)

    def _arrivals(self) -> list[_Arrival]:
        """The night in the order in which its exposures ended; one without a readable time follows its predecessor."""
        timed: list[tuple[float, Place, Path]] = []
        last = -math.inf
        for place in places_in(self.recorded, self.night):
            path = place.find(self.recorded)
            if path is None:
                continue
            try:
                header = read_exposure_header(path)
                ended = float(header["MJD-OBS"]) * _DAY_S + float(header["EXPTIME"])
                last = ended if math.isfinite(ended) else last
            except (BadFile, OSError, KeyError, TypeError, ValueError) as error:
                log.info("exposure %d is brought after the one before it: %s", place.expid, error)
            timed.append((last, place, path))
        timed.sort()
        first = next((ended for ended, _, _ in timed if math.isfinite(ended)), 0.0)
        return [_Arrival(max(ended - first, 0.0), place, path) for ended, place, path in timed]

    def _bring(self, arrival: _Arrival) -> None:
        """Link the files of an exposure into the spool: what goes with the raw file first, the raw file last."""
        folder = arrival.place.folder(self.raw)
        folder.mkdir(parents=True, exist_ok=True)
        others = [p for p in sorted(arrival.path.parent.iterdir()) if p.is_file() and _is_final(p.name)]
        for path in (*(p for p in others if p != arrival.path), arrival.path):
            temporary = folder / f".{path.name}.replay"
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # another file system, or not allowed
                temporary.symlink_to(path.resolve())
            os.replace(temporary, folder / path.name)


def _is_final(name: str) -> bool:
    return not name.startswith(".") and "_tmp" not in name and not name.endswith(".tmp")
