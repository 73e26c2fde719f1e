"""A worker's camera: its files, and whose fault it is when something fails."""

from __future__ import annotations

import errno
import json

import pytest

from qlstream.engine import worker
from qlstream.engine.hub import run_service
from qlstream.engine.service import Service
from qlstream.ingest.service import Ingest
from qlstream.pipeline.plan import PlanError
from qlstream.simulate.damage import damage
from qlstream.simulate.faults import Fault
from qlstream.store import exposures, query
from qlstream.store.database import Store
from qlstream.store.exposures import Facts
from qlstream.store.jobs import Policy, claim_next

from .conftest import NIGHT, write_exposure


async def test_a_damaged_camera_is_failed_with_its_hdu_and_the_others_go_on(make_settings, folders):
    path = write_exposure(folders["raw"], 1, {"b0": "ok", "r0": "ok", "z0": "ok"})
    damage(path, [Fault("corrupt-hdu", "r0")], ["b0", "r0", "z0"])
    settings = make_settings(engine__qa_files="json")

    with Store.open(settings.store, settings.redux) as store:
        await Service(settings, store, Ingest(settings, store)).run(once=True)
        found = {row["camera"]: row for row in query.jobs_of(store, NIGHT)}
        products = {(row["camera"], row["kind"]): row["path"] for row in query.products_of(store, NIGHT, 1)}

    assert {camera: row["state"] for camera, row in found.items()} == {"b0": "done", "r0": "failed", "z0": "done"}
    assert "desi-00000001.fits.fz, HDU R0: " in found["r0"]["reason"]
    assert found["r0"]["attempt"] == 1  # a second try would meet the same file
    for camera in ("b0", "z0"):
        written = json.loads((settings.redux / products[camera, "ql-judge"]).read_text())
        assert written["METRICS"]["LEVEL"] == 1001.0
        assert (settings.redux / products[camera, "qa"]).exists()


@pytest.fixture
def claimed(make_settings, folders):
    """Make this process a worker, with a job to reduce: (settings, job)."""
    path = write_exposure(folders["raw"], 1, {"b0": "ok"})
    settings = make_settings()
    worker.prepare(settings)
    store = worker._process.store
    facts = Facts("zero", "ZERO", 61056.001, ("b0",), (), "", None, 0.0)
    with store.write() as conn:
        exposures.see(conn, "test", NIGHT, 1, path, "1", "a new file")
        exposures.open_for_processing(conn, "test", NIGHT, 1, path, facts, "abc", "1")
    yield settings, claim_next(store, "test", Policy())
    store.close()
    worker._process = None


def test_a_full_disk_is_told_from_a_broken_camera(claimed, monkeypatch):
    settings, job = claimed

    def no_room(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("qlstream.engine.camera.write_merged_qa", no_room)
    monkeypatch.setattr(worker, "disk_trouble", lambda settings: "less than 500 MB are free")
    with pytest.raises(worker.DiskFull, match="less than 500 MB are free"):
        worker.reduce_job(job)
    monkeypatch.setattr(worker, "disk_trouble", lambda settings: "")
    finished = worker.reduce_job(job)

    assert (finished.state, "No space left" in finished.reason) == ("failed", True)
    assert not list(settings.redux.rglob("ql-*"))


def test_a_product_that_no_plan_gives_stops_the_start(make_settings, folders):
    settings = make_settings(engine__products="preproc,nonsense")

    with pytest.raises(PlanError) as error:
        run_service(settings, Ingest, once=True)

    assert "preproc: no stage here gives it" in str(error.value)
    assert "nonsense: no such product" in str(error.value)
    assert not settings.redux.exists()
