"""Puts a service together: lock, store, warm kernels, intake, workers, dashboard; and says how it went."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import and_, func, select

from qlstream.engine.dashboard_process import settle_port
from qlstream.engine.isolation import Limits
from qlstream.engine.lock import sole_service
from qlstream.engine.pool import Worker, WorkerLost, preload
from qlstream.engine.service import Downstream, Intake, Service
from qlstream.engine.sweep import sweep
from qlstream.engine.warmup import plan_modules, warm_up
from qlstream.pipeline.plan import load_plans, require_products
from qlstream.pipeline.ranges import Ranges
from qlstream.settings import Settings
from qlstream.store.database import Store
from qlstream.store.schema import exposures, jobs

log = logging.getLogger("qlstream.engine")

WARM_UP_S = 1800.0  # on the slowest machine; the service would rather start cold than never


@dataclass(frozen=True)
class Tally:
    """How many cameras are in which state, and how many files could not be used."""

    done: int
    failed: int
    left: int
    unusable: int

    @property
    def is_good(self) -> bool:
        """Nothing failed; an ALARM is a result, not a failure."""
        return self.failed == self.left == self.unusable == 0

    def __str__(self) -> str:
        text = f"{self.done} cameras done, {self.failed} failed"
        text += f", {self.left} left" if self.left else ""
        return text + (f", {self.unusable} exposures could not be used" if self.unusable else "")


def run_service(
    settings: Settings,
    intake: Callable[[Settings, Store], Intake],
    once: bool = False,
    downstream: Callable[[Settings, Store], Downstream] | None = None,
) -> Tally:
    """Serve until stopped, with `once` until everything found is processed; blocks.

    Parameters
    ----------
    settings : with `redux` given
    intake : makes what puts exposures into the store, e.g. `Ingest`
    downstream : makes what goes on with exposures that are done

    Raises
    ------
    PlanError, ValueError : plans, products or ranges have mistakes; nothing was started
    AlreadyRunning, PortTaken, StoreError, StoreAway : so it cannot run
    """
    assert settings.redux is not None
    plans = load_plans(settings.engine.plans)
    require_products(plans.values(), settings.engine.products)
    Ranges.from_settings(settings)  # each worker reads them for itself
    preload(["qlstream.engine.worker", *plan_modules(plans.values())])
    settings.redux.mkdir(parents=True, exist_ok=True)
    with sole_service(settings.redux), Store.open(settings.store, settings.redux) as store:
        if settings.dashboard.enabled:
            settings = settle_port(settings)

        async def serve() -> None:
            further = downstream(settings, store) if downstream is not None else None
            service = Service(settings, store, intake(settings, store), prepared, downstream=further)
            await service.run(once)

        async def prepared() -> None:
            await asyncio.to_thread(sweep, store)
            await _warm_up_apart(settings)

        asyncio.run(serve())
        return count(store, settings.ingest.only_nights)


def count(store: Store, nights: Collection[int] = ()) -> Tally:
    """What became of the exposures of `nights`, or of all."""
    current = and_(
        exposures.c.night == jobs.c.night, exposures.c.expid == jobs.c.expid, exposures.c.version == jobs.c.version
    )
    cameras = select(jobs.c.state, func.count()).join(exposures, current).group_by(jobs.c.state)
    files = select(func.count()).where(exposures.c.state.in_(("failed", "incomplete")))
    if nights:
        cameras = cameras.where(jobs.c.night.in_(tuple(nights)))
        files = files.where(exposures.c.night.in_(tuple(nights)))
    with store.read() as conn:
        states: dict[str, int] = {row[0]: row[1] for row in conn.execute(cameras)}
        unusable = conn.execute(files).scalar_one()
    left = states.get("ready", 0) + states.get("running", 0)
    return Tally(states.get("done", 0), states.get("failed", 0), left, unusable)


async def _warm_up_apart(settings: Settings) -> None:
    """In a process of its own: compiling needs more memory than a camera does."""
    worker = Worker(Limits(memory_mb=0))
    try:
        seconds = await worker.run(warm_up, settings, timeout=WARM_UP_S)
        if seconds:
            log.info("compiled the kernels in %.0f s", seconds)
    except WorkerLost as lost:
        log.warning("the kernels are compiled when the first cameras need them, since the warm-up %s", lost)
    finally:
        await worker.stop()
