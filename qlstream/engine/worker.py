"""What a worker process does: reduce one camera, and put all it finds into the store at once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass

from qlstream.engine.camera import CameraRequest, Reduced, Superseded, reduce_camera
from qlstream.engine.preview import write_previews
from qlstream.logging import exposure_log, start_logging
from qlstream.pipeline.context import Buffers
from qlstream.pipeline.plan import Plan, load_plans
from qlstream.pipeline.ranges import Ranges
from qlstream.pipeline.resources import peak_memory
from qlstream.settings import Settings
from qlstream.store.database import Store, StoreAway
from qlstream.store.jobs import Job, StaleAttempt, set_worker
from qlstream.store.results import JobRecord


class DiskFull(RuntimeError):
    """There is no room for the products; nothing is wrong with the camera."""


@dataclass(frozen=True)
class Finished:
    """How an attempt at a camera ended; small, since it crosses processes.

    Attributes
    ----------
    state : "done", "failed" or "superseded" (another attempt has taken over: there is nothing to close)
    reason : why it failed
    cpu_s, peak_mb : CPU time [second] and peak memory of this camera, shared file pages apart [MB]
    """

    state: str
    reason: str = ""
    cpu_s: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True)
class _Process:
    """What one worker process keeps from camera to camera."""

    settings: Settings
    store: Store
    plans: Mapping[str, Plan]
    ranges: Ranges
    buffers: Buffers


_process: _Process | None = None  # a worker has no other place that outlives a task


def prepare(settings: Settings) -> None:
    """Make this process a worker: open the store, load plans and ranges.

    Raises
    ------
    PlanError, ValueError : a plan or the ranges have mistakes
    StoreAway : the store cannot be opened now
    """
    global _process
    settings.require("redux")
    assert settings.redux is not None
    start_logging(settings.logging.level, settings.logging.file)
    _process = _Process(
        settings,
        Store.open(settings.store, settings.redux),
        load_plans(settings.engine.plans),
        Ranges.from_settings(settings),
        Buffers(),
    )


def reduce_job(job: Job) -> Finished:
    """Take the camera of a job through its plan; every result is in the store as soon as it exists.

    Raises
    ------
    DiskFull, StoreAway : the surroundings fail, not the camera
    MemoryError : it needs more than its limit
    """
    assert _process is not None, "prepare() has not run in this process"
    settings, store = _process.settings, _process.store
    record = JobRecord(store, job, source=f"worker-{os.getpid()}")
    request = CameraRequest(
        raw=job.path,
        camera=job.camera,
        redux=store.redux,
        calib=settings.calib,
        dark=settings.dark,
        badamps=settings.engine.badamps,
        fibermap=job.fibermap,
        instrument=settings.instrument,
        requested=frozenset(settings.engine.products),
        allow_expired=settings.engine.allow_expired,
        qa_files=settings.engine.qa_files,
    )

    def keep(reduced: Reduced) -> None:
        for kind, path in reduced.written.items():
            record.product(kind, path)
        for kind, path in write_previews(store.redux, job, reduced.outcome.outputs).items():
            record.product(kind, path)

    peak_memory.reset()
    cpu = time.process_time()
    state, reason = "done", ""
    try:
        set_worker(store, job, os.getpid())
        reduce_camera(request, _process.plans, _process.ranges, record, _process.buffers, record.is_current, keep)
    except (StaleAttempt, Superseded):
        state = "superseded"
    except (MemoryError, StoreAway):
        raise
    except Exception as error:
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError(str(error)) from None
        if isinstance(error, OSError) and (trouble := disk_trouble(settings)):
            raise DiskFull(trouble) from None
        state, reason = "failed", str(error) or type(error).__name__
        exposure_log(job.expid, job.camera).exception("failed")
    return Finished(state, reason, time.process_time() - cpu, peak_memory.look())


def disk_trouble(settings: Settings) -> str:
    """Why nothing can be written into the production folder; "" if there is room."""
    redux, low = settings.redux, settings.engine.low_water_mb
    assert redux is not None
    try:
        free = shutil.disk_usage(redux).free
    except OSError as error:
        return f"the production folder cannot be reached: {error}"
    return f"less than {low} MB are free on the disk of {redux}; make room" if free < low * 2**20 else ""
