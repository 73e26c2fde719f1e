"""The service: exposures come in, worker processes reduce them camera by camera, the dashboard runs beside.

All that waits, waits in the store: a service that was killed and is started again finds it there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from qlstream import __version__
from qlstream.engine import dashboard_process
from qlstream.engine.dispatcher import AWAY_S, Dispatcher
from qlstream.engine.gate import Gate
from qlstream.engine.isolation import Limits
from qlstream.engine.pool import NoWorker, Worker, WorkerLost
from qlstream.engine.worker import DiskFull, Finished, disk_trouble, prepare, reduce_job
from qlstream.logging import exposure_log
from qlstream.settings import Settings
from qlstream.store import jobs as ledger
from qlstream.store.database import Store, StoreAway
from qlstream.store.events import append
from qlstream.store.jobs import Job, Policy, StaleAttempt

log = logging.getLogger("qlstream.engine")

SOURCE = "engine"
FIRST_LOOK_S = 60.0  # for the first look at what is there; a store that is away must not stop the start for ever
GUARD_S = 1.0  # between looks at disk and store

T = TypeVar("T")


class Intake(Protocol):
    """Where exposures come from: the watched folder, or a replay.

    Attributes
    ----------
    trouble : why it pauses; empty if it does not
    """

    trouble: str

    async def run(self) -> None:
        """Put exposures into the store until cancelled."""

    async def looked_at_all(self) -> None:
        """Return once everything that is there now has been looked at, whether it is whole or not."""

    async def caught_up(self) -> None:
        """Return once everything that is there now is in the store."""


class Downstream(Protocol):
    """What goes on with exposures that are done: the offline reduction."""

    async def run(self) -> None:
        """Work until cancelled."""

    async def finished(self) -> None:
        """Return once nothing more can be done with what is there now."""


class Service:
    """Reduces what the intake puts into the store, until it is told to stop.

    Parameters
    ----------
    settings : with `redux` given
    store : open
    intake : makes the jobs
    before : awaited before the workers start, while exposures come in already
    reduce : what a worker does with a job
    downstream : what goes on with exposures that are done, if anything does
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        intake: Intake,
        before: Callable[[], Awaitable[None]] | None = None,
        reduce: Callable[[Job], Finished] = reduce_job,
        downstream: Downstream | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.gate = Gate()
        engine = settings.engine
        self.dispatcher = Dispatcher(store, SOURCE, Policy(engine.calibration_wait_s), self.gate)
        self.busy: dict[Job, float] = {}
        self._intake = intake
        self._before = before
        self._reduce = reduce
        self._downstream = downstream
        limits = Limits(memory_mb=engine.memory_limit_mb, tasks=engine.tasks_per_worker)
        count = engine.workers or os.cpu_count() or 1
        self._workers = [Worker(limits, prepare, (settings,)) for _ in range(count)]
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._state = "starting"
        self._trouble = ""  # why there is no worker

    def stop(self) -> None:
        """Ask for the end: no new camera is begun, running ones may end within the grace time; asked twice, at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self, once: bool = False) -> None:
        """Serve until `stop()`, SIGTERM or SIGINT; with `once` also until everything found is processed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await self._serve(once)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await asyncio.gather(*(worker.stop() for worker in self._workers))
            await self._release()

    async def _serve(self, once: bool) -> None:
        await self._tell("service.started", version=__version__, host=socket.gethostname(), workers=len(self._workers))
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(self._guard()), tasks.create_task(self._beat())]
            if self.settings.dashboard.enabled:
                helpers.append(tasks.create_task(dashboard_process.supervise(self.settings)))
                helpers.append(tasks.create_task(self._announce()))
            if self._downstream is not None:
                helpers.append(tasks.create_task(self._downstream.run()))
            intake = tasks.create_task(self._intake.run())
            work = tasks.create_task(self._work())
            stopped = tasks.create_task(self._stop.wait())
            over = tasks.create_task(self._until_nothing_is_left()) if once else stopped
            await asyncio.wait([stopped, over], return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down(intake, work)
            for task in (*helpers, stopped, over):
                task.cancel()
        await self._tell("service.stopped")

    async def _work(self) -> None:
        """Take over what an earlier service left, then let every worker take job after job."""
        await self._recorded(ledger.release_orphans, self.store, SOURCE)
        if self._before is not None:
            await self._before()
        with suppress(TimeoutError):  # a night that is there already: its calibrations must be known before its science
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._intake.looked_at_all()
        self._state = "running"
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                tasks.create_task(self._take_jobs(worker))

    async def _take_jobs(self, worker: Worker) -> None:
        while True:
            await self._ready(worker)
            job = await self.dispatcher.next()
            if job is None:
                return
            self.busy[job] = time.monotonic()
            try:
                await self._attempt(worker, job)
            finally:
                del self.busy[job]

    async def _ready(self, worker: Worker) -> None:
        """Return once the worker has a process; a job is claimed for one that can work on it."""
        while True:
            try:
                await worker.start()
            except NoWorker as trouble:
                if str(trouble) != self._trouble:
                    log.error("%s", trouble)
                self._trouble = str(trouble)
                await asyncio.sleep(AWAY_S)
            else:
                self._trouble = ""
                return

    async def _attempt(self, worker: Worker, job: Job) -> None:
        """One attempt at a camera; whatever happens to it stays with it."""
        camera_log = exposure_log(job.expid, job.camera, "engine")
        if job.failures:
            await worker.stop()  # the retry gets a fresh process
        try:
            finished = await worker.run(self._reduce, job, timeout=self.settings.engine.camera_timeout)
        except WorkerLost as lost:
            if not self.gate.is_open:  # it may have waited for the store or the disk
                await self._recorded(ledger.give_back, self.store, SOURCE, job.id, job.attempt)
            elif job.failures < self.settings.engine.retries:
                camera_log.warning("%s; it is tried again", lost)
                await self._recorded(ledger.retry, self.store, SOURCE, job.id, job.attempt, str(lost))
            else:
                camera_log.error("failed: %s", lost)
                await self._close(job, Finished("failed", str(lost)))
        except NoWorker:
            await self._recorded(ledger.give_back, self.store, SOURCE, job.id, job.attempt)
        except (StoreAway, DiskFull) as trouble:
            self.gate.close("store" if isinstance(trouble, StoreAway) else "disk", str(trouble))
            await self._recorded(ledger.give_back, self.store, SOURCE, job.id, job.attempt)
        except Exception as error:
            camera_log.exception("failed")
            await self._close(job, Finished("failed", f"{type(error).__name__}: {error}"))
        else:
            if finished.state != "superseded":
                await self._close(job, finished)

    async def _close(self, job: Job, finished: Finished) -> None:
        await self._recorded(
            ledger.close,
            self.store,
            SOURCE,
            job.id,
            job.attempt,
            finished.state,
            finished.reason,
            finished.cpu_s,
            finished.peak_mb,
        )
        self.dispatcher.hint()  # exposures may have waited for this calibration

    async def _recorded(self, write: Callable[..., T], *args: Any) -> T | None:
        """The value of a write to the store, which is waited for while it is away; None if the attempt is stale."""
        while True:
            try:
                value = await asyncio.to_thread(write, *args)
            except StoreAway as away:
                self.gate.close("store", str(away))
                await asyncio.sleep(AWAY_S)
            except StaleAttempt as stale:
                log.info("%s", stale)
                return None
            else:
                return value

    async def _until_nothing_is_left(self) -> None:
        await self._intake.caught_up()
        while True:
            left = await self._recorded(ledger.count_by_state, self.store) or {}
            if not left.get("ready") and not left.get("running") and not self.busy:
                break
            await asyncio.sleep(0.1)
        if self._downstream is not None:
            await self._downstream.finished()

    async def _wind_down(self, intake: asyncio.Task[None], work: asyncio.Task[None]) -> None:
        self._state = "stopping"
        intake.cancel()
        self.dispatcher.close()
        grace = self.settings.engine.stop_grace_s if self.busy else 1.0
        if self.busy:
            log.info("stopping: %d cameras may end within %g s", len(self.busy), grace)
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait([work, hurry], timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        work.cancel()

    async def _release(self) -> None:
        """Give back what was still running; what cannot be written now, the next start does."""
        with suppress(StoreAway):
            await asyncio.to_thread(ledger.release_orphans, self.store, SOURCE)

    async def _guard(self) -> None:
        """Close the gate before the disk is full, open it when disk and store are well again; tell both."""
        told = ""
        while True:
            trouble = await asyncio.to_thread(disk_trouble, self.settings)
            if trouble:
                self.gate.close("disk", trouble)
            else:
                self.gate.open("disk")
            try:
                if self.gate.reason != told:
                    kind = "service.resumed" if self.gate.is_open else "service.paused"
                    await asyncio.to_thread(self._append, kind, {"reason": self.gate.reason or told})
                    told = self.gate.reason
                if self.gate.open("store"):
                    continue
            except StoreAway as away:
                self.gate.close("store", str(away))
            await asyncio.sleep(GUARD_S)

    async def _beat(self) -> None:
        """Signs of life for the pages; a store that is away hears them later."""
        while True:
            now, reason = time.monotonic(), self.gate.reason or self._trouble or self._intake.trouble
            with suppress(StoreAway):
                left = await asyncio.to_thread(ledger.count_by_state, self.store)
                payload = {
                    "pid": os.getpid(),
                    "state": "paused" if reason else self._state,
                    "reason": reason,
                    "workers": len(self._workers),
                    "busy": [
                        {"expid": j.expid, "camera": j.camera, "since_s": round(now - t, 1)}
                        for j, t in list(self.busy.items())[:60]
                    ],
                    "ready": left.get("ready", 0),
                    "period_s": self.settings.engine.heartbeat_s,
                }
                await asyncio.to_thread(self._append, "service.heartbeat", payload)
            await asyncio.sleep(self.settings.engine.heartbeat_s)

    async def _announce(self) -> None:
        while not await dashboard_process.is_up(self.settings):
            await asyncio.sleep(0.1)
        log.info("dashboard: %s", dashboard_process.url_of(self.settings))

    async def _tell(self, kind: str, **payload: Any) -> None:
        """An event of the service's own life; lost, but logged, if the store is away."""
        try:
            await asyncio.to_thread(self._append, kind, {"pid": os.getpid(), **payload})
        except StoreAway as away:
            log.warning("%s could not be stored: %s", kind, away)

    def _append(self, kind: str, payload: dict[str, Any]) -> None:
        with self.store.write() as conn:
            append(conn, kind, SOURCE, payload=payload)


def _first(error: BaseException) -> BaseException:
    """The exception that ended a group of tasks: the others were cancelled because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
