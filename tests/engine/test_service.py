import asyncio
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from qlstream.engine.service import Service
from qlstream.ingest.service import Ingest
from qlstream.settings import Settings
from qlstream.store import query
from qlstream.store.database import Store, StoreAway
from qlstream.store.events import events_after
from qlstream.store.schema import jobs, qa

from .conftest import NIGHT, write_exposure


async def serve(settings: Settings, once: bool = True) -> dict[tuple[int, str], dict[str, Any]]:
    """Run a service to its end and return the jobs by exposure and camera."""
    with Store.open(settings.store, settings.redux) as store:
        await Service(settings, store, Ingest(settings, store)).run(once)
        return {(row["expid"], row["camera"]): row for row in query.jobs_of(store, NIGHT)}


def stored(settings: Settings, statement):
    with Store.open(settings.store, settings.redux) as store, store.read() as conn:
        return [dict(row) for row in conn.execute(statement).mappings()]


async def test_every_camera_of_every_exposure_is_reduced_once(make_settings, folders):
    for expid in (1, 2, 3):
        write_exposure(folders["raw"], expid, {"b0": "ok", "r0": "ok", "z0": "ok"})
    settings = make_settings()

    found = await serve(settings)

    assert {job["state"] for job in found.values()} == {"done"}
    assert {job["attempt"] for job in found.values()} == {1}
    assert len(found) == 9
    assert len(stored(settings, select(qa))) == 9
    exposure = stored(settings, select(query.exposures))[0]
    assert (exposure["state"], exposure["severity"]) == ("done", 30)  # camera z alarms; that is a result


async def test_trouble_of_a_camera_stays_with_it_and_is_retried_once_if_its_worker_was_lost(make_settings, folders):
    orders = {
        "b0": "ok",
        "b1": "exit 3",
        "b2": "kill",
        "b3": "hang",
        "b4": "allocate",
        "b5": "raise",
        "b6": "once kill",
        "b7": "ok",
    }
    write_exposure(folders["raw"], 1, orders)
    settings = make_settings(engine__camera_timeout=1.0)

    found = {camera: job for (_, camera), job in (await serve(settings)).items()}

    assert {c: j["state"] for c, j in found.items()} == {
        "b0": "done",
        "b1": "failed",
        "b2": "failed",
        "b3": "failed",
        "b4": "failed",
        "b5": "failed",
        "b6": "done",
        "b7": "done",
    }
    assert {c: j["attempt"] for c, j in found.items()} == dict.fromkeys(orders, 2) | {"b0": 1, "b5": 1, "b7": 1}
    assert "exit code 3" in found["b1"]["reason"]
    assert "SIGKILL" in found["b2"]["reason"]
    assert "hung: killed after 1 s" in found["b3"]["reason"]
    assert "more than its 2000 MB" in found["b4"]["reason"]
    assert "Obey: RuntimeError: as told" in found["b5"]["reason"]
    rows = stored(settings, select(qa.c.camera))
    assert sorted(row["camera"] for row in rows) == sorted(orders)  # what came before the trouble is kept, once


async def test_a_stopped_service_lets_a_running_camera_end_and_leaves_no_process(make_settings, folders):
    write_exposure(folders["raw"], 1, {"b0": "sleep 1", "r0": "sleep 1"})
    settings = make_settings()
    with Store.open(settings.store, settings.redux) as store:
        service = Service(settings, store, Ingest(settings, store))
        running = asyncio.create_task(service.run())
        await until(lambda: len(service.busy) == 2)
        workers = [p.pid for p in psutil.Process().children(recursive=True) if "forkserver" in " ".join(p.cmdline())]

        service.stop()
        await running

        assert {job["state"] for job in query.jobs_of(store, NIGHT)} == {"done"}
        kinds = [event.kind for event in events_after(store, 0)]
    assert kinds[-1] == "service.stopped"
    assert "service.heartbeat" in kinds
    assert len(workers) > 2
    assert asyncio.all_tasks() == {asyncio.current_task()}
    left = [p for p in psutil.Process().children(recursive=True) if p.name() == "pebble_pool_worker"]
    assert left == []


async def test_what_does_not_end_within_the_grace_time_is_ready_for_the_next_start(make_settings, folders):
    write_exposure(folders["raw"], 1, {"b0": "once hang"})
    settings = make_settings(engine__stop_grace_s=0.2, engine__camera_timeout=60)
    with Store.open(settings.store, settings.redux) as store:
        service = Service(settings, store, Ingest(settings, store))
        running = asyncio.create_task(service.run())
        await until(lambda: service.busy and (folders["raw"] / str(NIGHT) / "00000001" / "b0.marker").exists())
        service.stop()
        await running
        assert [job["state"] for job in query.jobs_of(store, NIGHT)] == ["ready"]

    found = await serve(settings)

    assert found[1, "b0"]["state"] == "done"
    assert found[1, "b0"]["failures"] == 0  # a stop is no failure of the camera


async def test_a_full_disk_pauses_the_service_which_says_so_and_resumes(make_settings, folders, monkeypatch):
    trouble = "less than 500 MB are free"
    monkeypatch.setattr("qlstream.engine.service.disk_trouble", lambda settings: trouble)
    monkeypatch.setattr("qlstream.engine.service.GUARD_S", 0.05)
    write_exposure(folders["raw"], 1, {"b0": "ok"})
    settings = make_settings()
    with Store.open(settings.store, settings.redux) as store:
        service = Service(settings, store, Ingest(settings, store))
        running = asyncio.create_task(service.run(once=True))
        await until(lambda: not service.gate.is_open and query.jobs_of(store, NIGHT))
        assert service.gate.reason == trouble
        await asyncio.sleep(0.3)
        assert [job["state"] for job in query.jobs_of(store, NIGHT)] == ["ready"]

        trouble = ""
        await running

        assert [job["state"] for job in query.jobs_of(store, NIGHT)] == ["done"]
        told = [e for e in events_after(store, 0) if e.kind in ("service.paused", "service.resumed")]
    assert [event.kind for event in told] == ["service.paused", "service.resumed"]


async def test_a_store_that_is_away_pauses_the_service_and_loses_nothing(make_settings, folders, monkeypatch):
    monkeypatch.setattr("qlstream.engine.service.GUARD_S", 0.05)
    monkeypatch.setattr("qlstream.engine.service.AWAY_S", 0.05)
    write_exposure(folders["raw"], 1, {"b0": "sleep 0.5", "r0": "sleep 0.5"})
    settings = make_settings(engine__workers=1)
    with Store.open(settings.store, settings.redux) as store:
        service = Service(settings, store, Ingest(settings, store))
        running = asyncio.create_task(service.run(once=True))
        await until(lambda: service.busy)
        away = break_store(monkeypatch, store)
        await until(lambda: not service.gate.is_open)
        assert "away" in service.gate.reason

        away.clear()
        await running

        found = query.jobs_of(store, NIGHT)
    assert {job["state"] for job in found} == {"done"}
    assert len(stored(settings, select(jobs))) == 2


async def test_workers_that_cannot_start_cost_no_camera(make_settings, folders, monkeypatch):
    monkeypatch.setattr("qlstream.engine.service.AWAY_S", 0.1)
    write_exposure(folders["raw"], 1, {"b0": "ok"})
    settings = make_settings()
    plan = folders["plans"] / "zero.yaml"
    good = plan.read_text()
    plan.write_text("flavor: zero\nsteps: [{run: 'obedient_stages:Nothing'}]\n")
    with Store.open(settings.store, settings.redux) as store:
        running = asyncio.create_task(Service(settings, store, Ingest(settings, store)).run(once=True))
        await until(lambda: any("a worker cannot start" in reason for reason in heartbeats(store)))
        assert "obedient_stages:Nothing" in heartbeats(store)[-1]

        plan.write_text(good)
        await running

        assert [(job["state"], job["attempt"]) for job in query.jobs_of(store, NIGHT)] == [("done", 1)]


def break_store(monkeypatch, store: Store) -> set[str]:
    """Make every transaction of this process fail until the returned set is cleared."""
    away = {"away"}
    write = store.write

    @contextmanager
    def fails():
        if away:
            raise StoreAway("store is away")
        with write() as conn:
            yield conn

    monkeypatch.setattr(store, "write", fails)
    return away


def heartbeats(store) -> list[str]:
    return [event.payload["reason"] for event in events_after(store, 0) if event.kind == "service.heartbeat"]


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """A stage that ignores SIGTERM is killed after this long [s]."""
    monkeypatch.setattr("pebble.common.CONSTS.term_timeout", 0.3)
