"""Runs the tasks of a night on worker processes until nothing more can be done."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from qlstream.engine.isolation import Limits
from qlstream.engine.pool import NoWorker, Worker, WorkerLost
from qlstream.ingest.completeness import read_facts
from qlstream.ingest.fibermaps import obtain_fibermap
from qlstream.ingest.names import Place
from qlstream.instrument import Instrument
from qlstream.io.compression import existing_file
from qlstream.io.errors import BadFile
from qlstream.io.listing import list_exposures
from qlstream.production.execute import is_whole, prepare, run_task
from qlstream.production.graph import Exposure, Task, build_graph
from qlstream.production.kinds import KINDS
from qlstream.production.plan import OfflinePlan
from qlstream.settings import Settings
from qlstream.store import tasks as ledger
from qlstream.store.database import Store, StoreAway
from qlstream.store.tasks import Claim, NewTask, StaleTask

log = logging.getLogger("qlstream.production")

SOURCE = "production"
_POLL_S = 0.1
Told = Callable[[str, str, str], None]  # task, state, reason

_ORDER = {kind.name: n for n, kind in enumerate(KINDS)}


def raw_exposures(raw: Path, redux: Path, night: int, instrument: str = "auto") -> tuple[list[Exposure], list[str]]:
    """The exposures of a night on disk, and why others cannot be used."""
    found, unusable = [], []
    for expid in list_exposures(night, raw=True, rawdata_dir=raw):
        place = Place(night, expid)
        path = place.find(raw)
        if path is None:
            continue
        try:
            facts, _ = read_facts(path, place, instrument)
        except (BadFile, OSError, ValueError) as error:
            unusable.append(str(error))
            continue
        fibermap = obtain_fibermap(path, raw, redux, place, instrument, hurry=True).path
        found.append(Exposure(night, expid, facts.flavor, facts.cameras, path, facts.tileid, fibermap))
    return found, unusable


def enter(store: Store, graph: dict[str, Task], redo: Iterable[str] = ()) -> None:
    """Put the tasks of a graph into the store; what is whole and up to date is done, unless to be redone."""
    again = set(redo)
    ledger.put(
        store,
        SOURCE,
        [
            NewTask(
                task.name,
                task.kind,
                _ORDER[task.kind],
                task.night,
                task.expid,
                task.camera,
                tuple((s.port, s.task, s.need) for s in task.sources if s.task),
                done=task.kind not in again and _is_up_to_date(task),
            )
            for task in graph.values()
        ],
    )


def _is_up_to_date(task: Task) -> bool:
    """Whether all outputs are whole and none is older than an input that another task made."""
    if not all(is_whole(path) for _, path in task.outputs):
        return False
    made = min(existing_file(path).stat().st_mtime_ns for _, path in task.outputs)
    inputs = [s.path for s in task.sources if s.task and s.path is not None and is_whole(s.path)]
    return all(existing_file(path).stat().st_mtime_ns <= made for path in inputs)


class Production:
    """Takes ready tasks from the store, one per worker, until none is left that could run.

    Parameters
    ----------
    graph : the tasks by name
    told : hears of every change of state
    workers : how many; default as many as the settings say
    is_free : whether a task may begin now
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        plan: OfflinePlan,
        graph: dict[str, Task],
        told: Told = lambda *_: None,
        workers: int | None = None,
        is_free: Callable[[], bool] = lambda: True,
    ) -> None:
        self.settings = settings
        self.store = store
        self.graph = graph
        self._told = told
        self._is_free = is_free
        engine = settings.engine
        limits = Limits(memory_mb=settings.offline.memory_limit_mb, tasks=engine.tasks_per_worker)
        count = workers or engine.workers or os.cpu_count() or 1
        self._workers = [Worker(limits, prepare, (settings, plan)) for _ in range(count)]
        self._running: set[Claim] = set()

    async def run(self, endless: bool = False) -> None:
        """Work until nothing is ready and nothing runs, or without end; cancelling gives running tasks back."""
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._renew())
                lanes = [group.create_task(self._lane(worker, endless)) for worker in self._workers]
                await asyncio.gather(*lanes)
                beat.cancel()
        finally:
            await asyncio.gather(*(worker.stop() for worker in self._workers))
            await asyncio.to_thread(ledger.release, self.store, SOURCE, list(self._running))

    async def _lane(self, worker: Worker, endless: bool) -> None:
        while True:
            claimed = await asyncio.to_thread(self._claim)
            if claimed is not None:
                await self._attempt(worker, claimed)
            elif self._running or endless or await asyncio.to_thread(self._runs_elsewhere):
                await asyncio.sleep(_POLL_S)  # what runs may make others ready, and a lost process's lease ends
            else:
                return

    def _claim(self) -> Claim | None:
        """A task, if one may begin; a store that is away has none."""
        nights = {task.night for task in list(self.graph.values())}
        with suppress(StoreAway):
            if nights and self._is_free():
                return ledger.claim(self.store, SOURCE, nights)
        return None

    def _runs_elsewhere(self) -> bool:
        nights = {task.night for task in list(self.graph.values())}
        with suppress(StoreAway):
            return ledger.are_running(self.store, nights)
        return True

    async def _attempt(self, worker: Worker, claimed: Claim) -> None:
        self._running.add(claimed)
        self._told(claimed.name, ledger.RUNNING, "")
        state, reason, cost = ledger.FAILED, "", {}
        try:
            task = self.graph.get(claimed.name)
            if task is None:
                reason = "it is not part of this plan"
            else:
                ended = await worker.run(run_task, task, timeout=self.settings.offline.task_timeout)
                state, reason = ended.state, ended.reason
                cost = {"cpu_s": ended.cpu_s, "peak_mb": ended.peak_mb}
        except (WorkerLost, NoWorker) as lost:
            reason = str(lost)
        except Exception as error:
            log.exception("%s", claimed.name)
            reason = f"{type(error).__name__}: {error}"
        with suppress(StaleTask):
            await asyncio.to_thread(
                self.store.persist, lambda conn: ledger.close(conn, SOURCE, claimed, state, reason, **cost)
            )
        self._running.discard(claimed)
        self._told(claimed.name, state, reason)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(ledger.LEASE_S / 3)
            for claimed in list(self._running):
                with suppress(StaleTask, StoreAway):
                    await asyncio.to_thread(ledger.renew, self.store, claimed)


def prepare_night(
    store: Store,
    raw: Path,
    calib: Path | None,
    night: int,
    instrument: Instrument,
    plan: OfflinePlan,
    setting: str = "auto",
    redo: Iterable[str] = (),
) -> tuple[dict[str, Task], list[str]]:
    """The graph of a night, entered into the store; and what is left out of it, with the reasons."""
    exposures, unusable = raw_exposures(raw, store.redux, night, setting)
    kinds, why = plan.available({"calib": calib, "redux": store.redux})
    graph = build_graph(exposures, instrument, store.redux, kinds)
    enter(store, graph, redo)
    return graph, [*unusable, *(f"{kind}: {reason}" for kind, reason in why.items())]
