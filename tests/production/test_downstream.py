"""The reduction beside the quicklook: what exposures ask for, and who goes first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import fitsio
import pytest
import yaml

from qlstream.io.errors import BadFile
from qlstream.production import downstream
from qlstream.production.downstream import Downstream
from qlstream.settings import Settings
from qlstream.store import exposures, jobs
from qlstream.store import tasks as ledger
from qlstream.store.database import Store
from qlstream.store.exposures import Facts
from qlstream.store.jobs import Policy
from qlstream.store.tasks import NewTask

NIGHT = 20260114


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.syspath_prepend(Path(__file__).parent / "stages")
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump({"steps": {"preproc": {"run": "noting_steps:Note"}}}))
    redux = tmp_path / "redux"
    redux.mkdir()
    known = {"raw": tmp_path, "redux": redux, "instrument": "mini", "engine": {"workers": 1}}
    return Settings.model_validate({**known, "offline": {"plan": plan}})


def arrive(store: Store, folder: Path, expid: int) -> None:
    """An arc of one camera, which waits for the quicklook."""
    path = folder / f"desi-{expid}.fits"
    fitsio.write(str(path), None)
    facts = Facts("arc", "ARC", 61056.0 + expid, ("b0",), (), "", None, 5.0)
    with store.write() as conn:
        exposures.see(conn, "test", NIGHT, expid, path, "1", "a new file")
        exposures.open_for_processing(conn, "test", NIGHT, expid, path, facts, f"content {expid}", "1")


def quicklook(store: Store) -> None:
    """The camera that waits is done."""
    job = jobs.claim_next(store, "test", Policy())
    assert job is not None
    jobs.close(store, "test", job.id, job.attempt, "done")


def test_exposures_are_reduced_once_they_are_done_and_only_while_no_camera_waits(
    settings: Settings, tmp_path: Path
) -> None:
    assert settings.redux is not None
    with Store.open(None, settings.redux) as store:
        arrive(store, tmp_path, 1)
        quicklook(store)
        arrive(store, tmp_path, 2)

        async def run() -> None:
            beside = Downstream(settings, store)
            working = asyncio.create_task(beside.run())
            async with asyncio.timeout(20):
                while not ledger.states(store):
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.5)
                assert ledger.states(store) == {"preproc": {"ready": 1}}, "exposure 2 waits"
                await asyncio.to_thread(quicklook, store)
                while ledger.states(store) != {"preproc": {"done": 2}}:
                    await asyncio.sleep(0.02)
                await beside.finished()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

        asyncio.run(run())


def test_tasks_of_a_night_that_nobody_works_on_are_not_waited_for(settings: Settings) -> None:
    assert settings.redux is not None
    with Store.open(None, settings.redux) as store:
        ledger.put(store, "test", [NewTask("preproc_b0_00000009", "preproc", 0, NIGHT - 1)])

        async def run() -> None:
            async with asyncio.timeout(20):
                await Downstream(settings, store).finished()

        asyncio.run(run())
        assert ledger.states(store) == {"preproc": {"ready": 1}}


def test_a_night_whose_tasks_cannot_be_made_is_told_and_tried_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.redux is not None
    with Store.open(None, settings.redux) as store:
        later = Downstream(settings, store)

        def fail(*_: object) -> None:
            raise BadFile("cframe-b0-00000001.fits.gz", "no readable FITS header")

        arrive(store, tmp_path, 1)
        quicklook(store)
        with monkeypatch.context() as patched:
            patched.setattr(downstream, "build_graph", fail)
            asyncio.run(later.finished())
        assert "cframe-b0-00000001.fits.gz" in caplog.text
        assert not ledger.states(store)
        arrive(store, tmp_path, 2)
        quicklook(store)
        asyncio.run(asyncio.wait_for(looked(later, store), 20))
        assert sum(ledger.states(store)["preproc"].values()) == 2


async def looked(working: Downstream, store: Store) -> None:
    """Until it has entered tasks; nothing runs them."""
    ending = asyncio.create_task(working.finished())
    while not ledger.states(store):
        await asyncio.sleep(0.02)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
