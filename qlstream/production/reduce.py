"""Runs the tasks of a night on worker processes until nothing more can be done."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection

from qlstream.engine.isolation import Limits
from qlstream.engine.pool import NoWorker, Worker, WorkerLost
from qlstream.engine.worker import DiskFull, disk_trouble
from qlstream.production.execute import Ended, prepare, run_task
from qlstream.production.graph import Task
from qlstream.production.night import SOURCE
from qlstream.production.plan import OfflinePlan
from qlstream.settings import Settings
from qlstream.store import tasks as ledger
from qlstream.store.database import Store, StoreAway
from qlstream.store.tasks import Claim, StaleTask

log = logging.getLogger("qlstream.production")

PATIENCE_S = 60.0  # for a disk without room, a store that is away, workers that do not start
_POLL_S = 0.1
_TRIES = 2  # of a task whose worker died or hung

Told = Callable[[str, str, str], None]  # task, state, reason


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
        self._trouble, self._since = "", 0.0  # what is wrong with the surroundings, since when

    async def run(self, endless: bool = False) -> None:
        """Work until nothing is ready and nothing runs, or without end; cancelling gives running tasks back.

        Raises
        ------
        DiskFull, StoreAway, NoWorker : for longer than PATIENCE_S, unless it is to work without end
        """
        patience = math.inf if endless else PATIENCE_S
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._renew())
                lanes = [group.create_task(self._lane(worker, patience)) for worker in self._workers]
                await asyncio.gather(*lanes)
                beat.cancel()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # one lane had no more patience, the others were cancelled
        finally:
            await asyncio.gather(*(worker.stop() for worker in self._workers))
            with suppress(StoreAway):  # their leases run out
                await asyncio.to_thread(ledger.release, self.store, SOURCE, list(self._running))

    async def _lane(self, worker: Worker, patience: float) -> None:
        """One task after another; what runs may make others ready, and a lost process's lease ends."""
        while True:
            try:
                claimed = await asyncio.to_thread(self._claim)
                if claimed is not None:
                    await self._attempt(worker, claimed)
                    self._bear(None)
                elif not self._running and patience < math.inf and not await asyncio.to_thread(self._runs_elsewhere):
                    return
                else:
                    await asyncio.sleep(_POLL_S)
            except (DiskFull, StoreAway, NoWorker) as trouble:
                self._bear(trouble)
                if time.monotonic() - self._since > patience:
                    raise
                await asyncio.sleep(1.0)

    def _bear(self, trouble: Exception | None) -> None:
        """Note that the surroundings fail, or are well again; told once, not at every look."""
        if trouble is None:
            if self._trouble:
                log.warning("goes on; it was paused because of: %s", self._trouble)
            self._trouble = ""
        elif not self._trouble:
            self._trouble, self._since = str(trouble), time.monotonic()
            log.error("paused: %s", trouble)

    def _claim(self) -> Claim | None:
        """A task, if one may begin.

        Raises
        ------
        DiskFull, StoreAway : none can begin now
        """
        nights = {task.night for task in list(self.graph.values())}
        if not nights or not self._is_free():
            return None
        if trouble := disk_trouble(self.settings):
            raise DiskFull(trouble)
        return ledger.claim(self.store, SOURCE, nights, self._knows)

    def _knows(self, name: str, inputs: set[ledger.Input]) -> bool:
        task = self.graph.get(name)
        return task is not None and set(task.waits_for) == inputs

    def _runs_elsewhere(self) -> bool:
        return ledger.are_running(self.store, {task.night for task in list(self.graph.values())})

    async def _attempt(self, worker: Worker, claimed: Claim) -> None:
        self._running.add(claimed)
        self._told(claimed.name, ledger.RUNNING, "")
        try:
            ended = await self._work(worker, claimed)
        except (DiskFull, NoWorker):
            await asyncio.to_thread(ledger.release, self.store, SOURCE, [claimed])
            self._running.discard(claimed)
            raise
        cost = {"cpu_s": ended.cpu_s, "peak_mb": ended.peak_mb}

        def close(conn: Connection) -> None:
            ledger.close(conn, SOURCE, claimed, ended.state, ended.reason, **cost)

        with suppress(StaleTask):
            await asyncio.to_thread(self.store.persist, close, PATIENCE_S)
        self._running.discard(claimed)
        self._told(claimed.name, ended.state, ended.reason)

    async def _work(self, worker: Worker, claimed: Claim) -> Ended:
        """How the task ended; a worker that is lost costs it one more try on a fresh one.

        Raises
        ------
        DiskFull, NoWorker : the surroundings fail, not the task
        """
        task, reason = self.graph[claimed.name], ""
        for _ in range(_TRIES):
            try:
                return await worker.run(run_task, task, timeout=self.settings.offline.task_timeout)
            except WorkerLost as lost:
                reason = f"{lost}, {_TRIES} times"
                log.warning("%s: %s", claimed.name, lost)
            except (DiskFull, NoWorker):
                raise
            except Exception as error:
                log.exception("%s", claimed.name)
                return Ended(ledger.FAILED, f"{type(error).__name__}: {error}")
        return Ended(ledger.FAILED, reason)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(ledger.LEASE_S / 3)
            for claimed in list(self._running):
                with suppress(StaleTask, StoreAway):
                    await asyncio.to_thread(ledger.renew, self.store, claimed)
