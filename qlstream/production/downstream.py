"""The full reduction as exposures finish: beside the quicklook, and behind it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import RowMapping, select

from qlstream.instrument import instrument_of
from qlstream.io.camword import decode_camword
from qlstream.production.graph import Exposure, build_graph
from qlstream.production.night import enter, lacking_calibrations
from qlstream.production.plan import OfflinePlan
from qlstream.production.reduce import Production
from qlstream.settings import Settings
from qlstream.store import jobs
from qlstream.store import tasks as ledger
from qlstream.store.database import Store, StoreAway
from qlstream.store.schema import exposures

log = logging.getLogger("qlstream.production")

LOOK_S = 1.0  # between looks for exposures that are done


class Downstream:
    """Makes tasks of the exposures that the quicklook is done with, and runs them while it has nothing to do.

    One worker less than the quicklook has, but at least one, each at a lower priority; no task begins while a camera
    waits or is reduced.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.plan = OfflinePlan.load(settings.offline.plan)
        count = max(1, (settings.engine.workers or os.cpu_count() or 1) - 1)
        self._production = Production(settings, store, self.plan, {}, workers=count, is_free=self._is_free)
        self._known: set[tuple[int, int, str]] = set()
        self._looking = asyncio.Lock()
        self._kinds, why = self.plan.available({"calib": settings.calib, "redux": store.redux})
        for kind, reason in why.items():
            log.warning("offline: no %s: %s", kind, reason)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._production.run(endless=True))

    async def finished(self) -> None:
        """Return once all exposures that are done have been reduced as far as they can be."""
        while True:
            with suppress(StoreAway):
                async with self._looking:
                    await asyncio.to_thread(self._look)
                if not await asyncio.to_thread(self._is_any_left):
                    return
            await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        while True:
            with suppress(StoreAway):
                async with self._looking:
                    await asyncio.to_thread(self._look)
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        """Enter the tasks of exposures that are done and were not known, with all others of their nights."""
        query = select(exposures).where(exposures.c.state == "done")
        with self.store.read() as conn:
            rows = list(conn.execute(query).mappings())
        fresh = {(r["night"], r["expid"], r["identity"]) for r in rows} - self._known
        for night in sorted({night for night, _, _ in fresh}):
            try:
                self._enter(night, [row for row in rows if row["night"] == night])
            except (OSError, ValueError) as error:  # the quicklook must not end with it
                log.error("offline: no tasks of %s, until its next exposure: %s", night, error)
        self._known |= fresh

    def _enter(self, night: int, rows: Sequence[RowMapping]) -> None:
        """Enter the tasks of a night.

        Raises
        ------
        OSError, ValueError : a file that they depend on cannot be read
        """
        instrument = instrument_of({"INSTRUME": rows[0]["instrument"] or ""}, self.settings.instrument)
        found = [
            Exposure(
                night,
                row["expid"],
                row["flavor"],
                tuple(decode_camword(row["cameras"] or "")),
                Path(row["path"]),
                row["tileid"] if row["flavor"] == "science" else None,
                Path(row["fibermap"]) if row["fibermap"] else None,
            )
            for row in rows
        ]
        lacking = lacking_calibrations(found, self.settings.calib, self.settings.engine.allow_expired)
        graph = build_graph(found, instrument, self.store.redux, self._kinds, lacking)
        self._production.graph.update(graph)
        enter(self.store, graph)
        log.info("offline: %d tasks of %s, after %d exposures", len(graph), night, len(found))

    def _is_any_left(self) -> bool:
        """Whether a task of ours can or does run; the store may hold those of other nights, which nobody works on."""
        rows = [row for state in (ledger.READY, ledger.RUNNING) for row in ledger.of_state(self.store, state)]
        return any(row["name"] in self._production.graph for row in rows)

    def _is_free(self) -> bool:
        """Whether the quicklook has nothing to do."""
        try:
            count = jobs.count_by_state(self.store)
        except StoreAway:
            return False
        return not (count.get("ready") or count.get("running"))
